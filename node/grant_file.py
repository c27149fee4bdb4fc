"""Requests and grants as files: how a new unit and its parent meet on a stick.

Role: write them whole or not at all; read them as if an enemy had written them. A grant is sealed to the key that its
request named, and ends with the first bundle.
Reach: node.envelope, node.sealed_chunks, node.bundle_file, sync_engine.enrolling. Invariant: nothing of a grant is
given out before its last byte has been proven to be what was written.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from node import platform
from node.bundle_file import opened, write_fault
from node.envelope import KeyPair, seal_to
from node.sealed_chunks import PREFIX_BYTES, Broken, ChunkReader, ChunkWriter
from sync_engine.bundle import (
    ENVELOPE_BYTES_MAX,
    FILE_KEY_BYTES,
    LENGTH_BYTES,
    NoBundle,
    encode_envelope,
    parse_envelope,
)
from sync_engine.enrolling import (
    GRANT_BYTES_MAX,
    GRANT_MAGIC,
    REQUEST_BYTES_MAX,
    Grant,
    NoGrant,
    encode_grant,
    parse_grant,
)
from sync_engine.errors import BadInput

COPY_BYTES = 256 * 1024


def check_out(path: Path) -> None:
    """Whether a file of this name may be written. Raises BadInput."""
    if path.exists() or path.is_symlink():
        raise BadInput(f"{path} is there already", hint="name another file, or take that one away first")
    if not path.parent.is_dir():
        raise BadInput(f"there is no folder {path.parent}", hint="make it, or insert the stick that has it")


@contextlib.contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A new file that gets its name when all of it is durable. Raises BadInput or DiskFull."""
    temporary = path.with_name("." + path.name + ".part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        temporary.unlink(missing_ok=True)  # of a run that was cut off
        with os.fdopen(os.open(temporary, flags, platform.PRIVATE_FILE), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        platform.sync_directory(path.parent)
    except OSError as error:
        raise write_fault(path.parent, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


# --- the request -----------------------------------------------------------------------------------------------------


def write_request(path: Path, data: bytes) -> None:
    """A file that holds just this is left as it is. Raises BadInput or DiskFull."""
    if path.is_file() and not path.is_symlink() and read_request(path) == data:
        return
    check_out(path)
    with _written(path) as file:
        file.write(data)


def read_request(path: Path) -> bytes:
    """The bytes of what may be a request, few enough to be one. Raises BadInput or OSError."""
    with opened(path) as file:
        return file.read(REQUEST_BYTES_MAX + 1)


# --- the grant -------------------------------------------------------------------------------------------------------


def write_grant(path: Path, kem: str, public_key: bytes, grant: Grant, bundle: Path) -> None:
    """Seal a grant and a bundle to the key of the unit that asked. Raises BadInput or DiskFull."""
    check_out(path)
    file_key, prefix = secrets.token_bytes(FILE_KEY_BYTES), secrets.token_bytes(PREFIX_BYTES)
    envelope, record = encode_envelope(seal_to(kem, public_key, file_key)), encode_grant(grant)
    beginning = GRANT_MAGIC + len(envelope).to_bytes(LENGTH_BYTES, "big") + envelope + prefix
    with _written(path) as file, bundle.open("rb") as first:
        file.write(beginning)
        chunks = ChunkWriter(file, AESGCM(file_key), prefix, beginning)
        chunks.write(len(record).to_bytes(LENGTH_BYTES, "big") + record)
        while data := first.read(COPY_BYTES):
            chunks.write(data)
        chunks.finish()


def read_grant(path: Path, keys: Sequence[KeyPair], bundle: Path | None = None) -> Grant:
    """Prove a whole grant; the first bundle that is in it goes to the file ``bundle``, if one is named. Raises NoGrant,
    BadInput or OSError."""
    try:
        with opened(path) as file:
            reader = _reader(file, keys)
            length = int.from_bytes(reader.read_exactly(LENGTH_BYTES), "big")
            if length > GRANT_BYTES_MAX:
                raise NoGrant("this grant is damaged")
            record = reader.read_exactly(length)
            if bundle is None:
                _all_of(reader)
            else:
                with _written(bundle) as first:
                    for data in _rest(reader):
                        first.write(data)
    except Broken:
        raise NoGrant("this grant is damaged, or its end is missing") from None
    return parse_grant(record)


def _all_of(reader: ChunkReader) -> None:
    for _data in _rest(reader):
        pass


def _rest(reader: ChunkReader) -> Iterator[bytes]:
    while data := reader.read(COPY_BYTES):
        yield data


def _reader(file: BinaryIO, keys: Sequence[KeyPair]) -> ChunkReader:
    start = file.read(len(GRANT_MAGIC) + LENGTH_BYTES)
    if not start.startswith(GRANT_MAGIC):
        raise NoGrant("this is no grant", hint="name the file that 'dongbo approve FILE --out FILE' wrote")
    length = int.from_bytes(start[len(GRANT_MAGIC) :], "big")
    rest = file.read(min(length, ENVELOPE_BYTES_MAX) + PREFIX_BYTES)
    if length > ENVELOPE_BYTES_MAX or len(rest) < length + PREFIX_BYTES:
        raise NoGrant("this grant is damaged, or its end is missing")
    try:
        envelope = parse_envelope(rest[:length])
        pair = next((each for each in keys if (each.id, each.kem) == (envelope.key_id, envelope.kem)), None)
        if pair is None:
            raise NoGrant("this grant is not for this home: none of its keys opens it")
        return ChunkReader(file, AESGCM(pair.open(envelope)), rest[length:], start + rest)
    except NoBundle as error:
        raise NoGrant("this grant is damaged") from error
