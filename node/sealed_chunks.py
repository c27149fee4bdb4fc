"""A long run of bytes sealed chunk by chunk, written and read in bounded memory.

Role: none of the chunks can be changed, left out, moved, or cut from the end unnoticed; whose key it is, others say.
Reach: cryptography. Source: STREAM of Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance" (2015); docs/decisions/0027. Invariant: what ``ChunkReader`` gives out was written by
``ChunkWriter`` under the same key and beginning, from the first byte; that it ends where the writer ended is known when
the reader has come to the end, not before.

    chunks of CHUNK_BYTES, each with its tag (16); the last may be shorter      nonce = prefix, number (4), is last (1)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX_BYTES, TAG_BYTES = 7, 16
CHUNK_BYTES = 256 * 1024
CHUNKS_MAX = 1 << 32


class Broken(Exception):
    """A chunk that is not what was written, or an end that is not there."""


class ChunkWriter:
    """Seals what it is given; nothing is complete before ``finish``. ``beginning`` is in every chunk's seal: what
    stands before the chunks."""

    def __init__(self, file: BinaryIO, cipher: AESGCM, prefix: bytes, beginning: bytes) -> None:
        self._file, self._cipher, self._prefix, self._beginning = file, cipher, prefix, beginning
        self._number = 0
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        """Raises Broken where it would be more than can be sealed."""
        self._held += data
        while len(self._held) > CHUNK_BYTES:  # never the last one here: that is sealed as such
            self._seal(bytes(self._held[:CHUNK_BYTES]), last=False)
            del self._held[:CHUNK_BYTES]

    def finish(self) -> None:
        self._seal(bytes(self._held), last=True)

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        if self._number >= CHUNKS_MAX:
            raise Broken("more than can be sealed")
        nonce = _nonce(self._prefix, self._number, last=last)
        self._file.write(self._cipher.encrypt(nonce, chunk, self._beginning))
        self._number += 1


class ChunkReader:
    """Opens what a ChunkWriter sealed."""

    def __init__(self, file: BinaryIO, cipher: AESGCM, prefix: bytes, beginning: bytes) -> None:
        self._file, self._cipher, self._prefix, self._beginning = file, cipher, prefix, beginning
        self._chunks = self._open_all()
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only where they end. Raises Broken."""
        while len(self._held) < size and (chunk := next(self._chunks, None)) is not None:
            self._held += chunk
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    def read_exactly(self, size: int) -> bytes:
        """Raises Broken."""
        found = self.read(size)
        if len(found) < size:
            raise Broken("it ends too early")
        return found

    def _open_all(self) -> Iterator[bytes]:
        number, sealed = 0, self._file.read(CHUNK_BYTES + TAG_BYTES)
        while True:
            following = self._file.read(CHUNK_BYTES + TAG_BYTES)
            try:
                nonce = _nonce(self._prefix, number, last=not following)
                yield self._cipher.decrypt(nonce, sealed, self._beginning)
            except InvalidTag:
                raise Broken("damaged, or its end is missing") from None
            if not following:
                return
            number, sealed = number + 1, following


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    """Never twice under one key: the key is drawn for one file, the number counts, and the last has its mark."""
    return prefix + number.to_bytes(4, "big") + bytes([last])
