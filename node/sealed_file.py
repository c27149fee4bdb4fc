"""A long file encrypted with a passphrase, written and read in bounded memory.

Role: what stands before the sealed chunks, and whether a passphrase is the right one.
Reach: node.secret for stretching, node.sealed_chunks. Source: docs/decisions/0027.

    magic, scrypt's three numbers, salt (32), check (16), nonce prefix (7)      the beginning, in every chunk's seal
    sealed chunks
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from node import secret
from node.sealed_chunks import PREFIX_BYTES, Broken, ChunkReader, ChunkWriter
from sync_engine.errors import LocalFault

MAGIC = b"dongbo sealed 1\n"
NUMBERS = bytes([secret.SCRYPT_LOG_N, secret.SCRYPT_R, secret.SCRYPT_P])
SALT_BYTES, CHECK_BYTES = 32, 16
HEADER_BYTES = len(MAGIC) + len(NUMBERS) + SALT_BYTES + CHECK_BYTES + PREFIX_BYTES


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
    """Seals what it is given into a file; nothing is complete before ``finish``. Raises NotSealed."""

    def __init__(self, file: BinaryIO, key: FileKey) -> None:
        prefix = secrets.token_bytes(PREFIX_BYTES)
        beginning = MAGIC + NUMBERS + key.salt + key.check() + prefix
        self._chunks = ChunkWriter(file, key.cipher(), prefix, beginning)
        file.write(beginning)

    def write(self, data: bytes) -> None:
        try:
            self._chunks.write(data)
        except Broken:
            raise NotSealed("the file would be longer than can be sealed") from None

    def finish(self) -> None:
        self._chunks.finish()


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
        self._chunks = ChunkReader(file, key.cipher(), header[-PREFIX_BYTES:], header)

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only where the file ends."""
        try:
            return self._chunks.read(size)
        except Broken:
            raise NotSealed("this backup is damaged, or its end is missing") from None

    def read_exactly(self, size: int) -> bytes:
        found = self.read(size)
        if len(found) < size:
            raise NotSealed("this backup ends too early")
        return found
