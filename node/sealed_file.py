"""A long file encrypted with a passphrase, written and read in bounded memory.

Role: chunks sealed one by one so that none can be changed, left out, moved, or cut from the end unnoticed.
Reach: node.secret for stretching, cryptography. Source: docs/decisions/0027; the construction is STREAM of Hoang,
Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance" (2015).
Invariant: what ``Reader`` gives out was written by ``Writer`` under the same passphrase, from the first byte; that it
ends where the writer ended is known when the reader has come to the end, not before.

    magic, scrypt's three numbers, salt (32), check (16), nonce prefix (7)      the header, in every chunk's seal
    chunks of CHUNK_BYTES, each with its tag (16); the last may be shorter      nonce = prefix, number (4), is last (1)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from node import secret
from sync_engine.errors import LocalFault

MAGIC = b"dongbo sealed 1\n"
NUMBERS = bytes([secret.SCRYPT_LOG_N, secret.SCRYPT_R, secret.SCRYPT_P])
SALT_BYTES, CHECK_BYTES, PREFIX_BYTES, TAG_BYTES = 32, 16, 7, 16
HEADER_BYTES = len(MAGIC) + len(NUMBERS) + SALT_BYTES + CHECK_BYTES + PREFIX_BYTES
CHUNK_BYTES = 256 * 1024
CHUNKS_MAX = 1 << 32


class NotSealed(LocalFault):
    """A file that is damaged, cut, or none of ours."""

    default_hint = "take another copy of it, or an older one"


class WrongPassphrase(LocalFault):
    """The file is one of ours, and this does not open it."""


@dataclass(frozen=True, slots=True)
class FileKey:
    """What one file is sealed with. Made where the passphrase is; the passphrase itself goes no further."""

    salt: bytes
    key: bytes = field(repr=False)

    @classmethod
    def draw(cls, passphrase: bytes) -> FileKey:
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(salt, secret.stretch(passphrase, salt))

    def check(self) -> bytes:
        return secret.expand(self.key, "sealed file check", CHECK_BYTES)

    def cipher(self) -> AESGCM:
        return AESGCM(secret.expand(self.key, "sealed file"))


class Writer:
    """Seals what it is given into a file; nothing is complete before ``finish``."""

    def __init__(self, file: BinaryIO, key: FileKey) -> None:
        self._file = file
        self._cipher = key.cipher()
        self._prefix = secrets.token_bytes(PREFIX_BYTES)
        self._header = MAGIC + NUMBERS + key.salt + key.check() + self._prefix
        self._number = 0
        self._held = bytearray()
        file.write(self._header)

    def write(self, data: bytes) -> None:
        self._held += data
        while len(self._held) > CHUNK_BYTES:  # never the last one here: that is sealed as such
            self._seal(bytes(self._held[:CHUNK_BYTES]), last=False)
            del self._held[:CHUNK_BYTES]

    def finish(self) -> None:
        self._seal(bytes(self._held), last=True)

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        if self._number >= CHUNKS_MAX:
            raise NotSealed("the file would be longer than can be sealed")
        self._file.write(self._cipher.encrypt(_nonce(self._prefix, self._number, last=last), chunk, self._header))
        self._number += 1


class Reader:
    """Opens what a Writer sealed. Raises NotSealed or WrongPassphrase."""

    def __init__(self, file: BinaryIO, passphrase: bytes) -> None:
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
            raise NotSealed("this is not a backup of dongbo", hint="name the file that 'dongbo backup' wrote")
        at = len(MAGIC)
        if header[at : at + len(NUMBERS)] != NUMBERS:  # never ours, and a large one would eat the memory
            raise NotSealed("this backup is of another kind or damaged", hint="a newer dongbo may know it")
        at += len(NUMBERS)
        salt, check = header[at : at + SALT_BYTES], header[at + SALT_BYTES : at + SALT_BYTES + CHECK_BYTES]
        key = FileKey(salt, secret.stretch(passphrase, salt))
        if not secrets.compare_digest(key.check(), check):
            raise WrongPassphrase(
                "the passphrase does not open this backup",
                hint="look for the passphrase of the day it was made; if that was the one, its first bytes are damaged",
            )
        self._file, self._header, self._prefix, self._cipher = file, header, header[-PREFIX_BYTES:], key.cipher()
        self._chunks = self._open_all()
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only where the file ends."""
        while len(self._held) < size and (chunk := next(self._chunks, None)) is not None:
            self._held += chunk
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    def read_exactly(self, size: int) -> bytes:
        found = self.read(size)
        if len(found) < size:
            raise NotSealed("this backup ends too early")
        return found

    def _open_all(self) -> Iterator[bytes]:
        number, sealed = 0, self._file.read(CHUNK_BYTES + TAG_BYTES)
        while True:
            following = self._file.read(CHUNK_BYTES + TAG_BYTES)
            try:
                nonce = _nonce(self._prefix, number, last=not following)
                yield self._cipher.decrypt(nonce, sealed, self._header)
            except InvalidTag:
                raise NotSealed("this backup is damaged, or its end is missing") from None
            if not following:
                return
            number, sealed = number + 1, following


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    """Never twice under one key: the key is drawn for one file, the number counts, and the last has its mark."""
    return prefix + number.to_bytes(4, "big") + bytes([last])
