"""Where checked rows wait for the one transaction that takes them all: on disk, in columns, readable by nobody else.

Role: put chunks away and give them back in order, in bounded memory.
Reach: msgspec, zstandard, cryptography. Source: docs/decisions/0018. Invariant: the file has no name and its key lives
in memory alone, so a process that is killed leaves nothing that could be read or would have to be tidied up. (Where
the system knows no files without a name, it has one for an instant.)
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sync_engine.errors import DiskFull

LEVEL = 1
_LENGTH_BYTES = 4


class Spool:
    """Chunks of columns, each a dict of lists."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._key = AESGCM(AESGCM.generate_key(256))
        self._count = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._compress = zstandard.ZstdCompressor(level=LEVEL).compress

    def put(self, chunk: dict[str, list[Any]]) -> None:
        """Raises DiskFull."""
        sealed = self._key.encrypt(_nonce(self._count), self._compress(self._encode(chunk)), None)
        self._count += 1
        try:
            self._file.write(len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed)
            self._file.flush()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DiskFull("no space left in the node's home to read the file into") from error
            raise

    def chunks(self) -> Iterator[dict[str, list[Any]]]:
        """All chunks, from the first."""
        expand = zstandard.ZstdDecompressor().decompress
        self._file.seek(0)
        for number in range(self._count):
            sealed = self._file.read(int.from_bytes(self._file.read(_LENGTH_BYTES), "big"))
            packed = expand(self._key.decrypt(_nonce(number), sealed, None))
            yield msgspec.msgpack.decode(packed, type=dict[str, list[Any]])

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what did not fit is tried again, in vain
            self._file.close()


def _nonce(number: int) -> bytes:
    """Never twice under one key: the key is drawn for one spool."""
    return number.to_bytes(12, "big")
