"""Bundles as files: written so that a stick may be pulled at any moment, read as if an enemy had written them.

Role: one bundle into one file or several parts, each whole or not there; a file into frames, once all of it is proven.
Reach: node.envelope, node.sealed_chunks, sync_engine.bundle; the files that are named. Source: docs/decisions/0034.
Invariant: no name, length or link in a file or folder decides where anything is written or how much memory is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from conflict.values import UnitPath
from node import platform
from node.envelope import KeyPair, seal_to
from node.sealed_chunks import PREFIX_BYTES, Broken, ChunkReader, ChunkWriter
from sync_engine.bundle import (
    END_BYTES_MAX,
    ENVELOPE_BYTES_MAX,
    FILE_KEY_BYTES,
    HEADER_BYTES_MAX,
    LENGTH_BYTES,
    MAGIC,
    BundleEnd,
    BundleHeader,
    Envelope,
    NoBundle,
    NotForHere,
    check_addressed,
    check_end,
    encode_envelope,
    encode_header,
    parse_envelope,
    parse_header,
    sender_of,
    sign_end,
)
from sync_engine.certificates import Signer
from sync_engine.errors import BadInput, DiskFull, RemoteFault
from sync_engine.limits import FRAME_BYTES_MAX
from sync_engine.statements import EncryptionKey

SUFFIX = ".dongbo"
PART_BYTES = 2_000_000_000
"""A part is closed before it has so many bytes: FAT32 takes no file of 4 GiB."""

PART_BYTES_MIN = 64 * 1024

Tell = Callable[[int], None]
"""Gets how many bytes have been read or written; may raise, which ends the work."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle goes. Without a ``stem`` each file gets a name that tells nothing."""

    folder: Path
    stem: str = ""
    part_bytes: int = PART_BYTES


def place_of(out: Path, part_bytes: int = PART_BYTES) -> Place:
    """A folder, or a file in one. Raises BadInput."""
    if part_bytes < PART_BYTES_MIN:
        raise BadInput(f"a part has at least {PART_BYTES_MIN} bytes")
    if out.is_dir():
        return Place(out, "", part_bytes)
    if not out.parent.is_dir():
        raise BadInput(f"there is no folder {out.parent}", hint="make it, or insert the stick that has it")
    if out.exists() or out.is_symlink():
        raise BadInput(f"{out} is there already", hint="choose another name, or name the folder alone")
    return Place(out.parent, out.name.removesuffix(SUFFIX), part_bytes)


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass
class _Part:
    """One file on its way: complete but for its end."""

    path: Path
    temporary: Path
    file: BinaryIO
    chunks: ChunkWriter
    digest: Any = field(default_factory=sha256)
    size: int = 0

    def record(self, data: bytes) -> None:
        framed = len(data).to_bytes(LENGTH_BYTES, "big") + data
        self.digest.update(framed)
        self.chunks.write(framed)
        self.size += len(framed)


class BundleWriter:
    """Writes frames into a bundle. Nothing has its lasting name before ``finish``; ``drop`` leaves nothing behind.

    Frames that go before the first batch stand in every part, and what is said of certificates in all that follow, so
    that each part can be taken alone. Raises DiskFull or BadInput.
    """

    def __init__(self, place: Place, header: BundleHeader, to: EncryptionKey, sign: Signer) -> None:
        self._place, self._header, self._to, self._sign = place, header, to, sign
        self._parts: list[_Part] = []
        self._repeated: list[bytes] = []
        self.size = 0
        self._begin()

    def frame(self, data: bytes, *, repeated: bool) -> None:
        """One encoded frame; a ``repeated`` one belongs into every part after it too."""
        if self._parts[-1].size + len(data) > self._place.part_bytes and not repeated:
            self._begin()
        self._write(data)
        if repeated:
            self._repeated.append(data)

    def finish(self) -> list[Path]:
        """Give all parts their ends and names; they are durable then."""
        try:
            for part in self._parts:
                end = BundleEnd(part.digest.digest(), len(self._parts))
                part.chunks.write((0).to_bytes(LENGTH_BYTES, "big"))
                last = sign_end(end, self._header.tree_id, self._sign)
                part.chunks.write(len(last).to_bytes(LENGTH_BYTES, "big") + last)
                part.chunks.finish()
                part.file.flush()
                os.fsync(part.file.fileno())
                part.file.close()
            for part in self._parts:
                part.temporary.replace(part.path)
            platform.sync_directory(self._place.folder)
        except OSError as error:
            raise write_fault(error, self._place.folder) from error
        return [part.path for part in self._parts]

    def drop(self) -> None:
        for part in self._parts:
            with contextlib.suppress(OSError):
                part.file.close()
            with contextlib.suppress(OSError):
                part.temporary.unlink(missing_ok=True)

    def _begin(self) -> None:
        number = len(self._parts) + 1
        stem = self._place.stem or secrets.token_hex(8)
        name = stem if number == 1 or not self._place.stem else f"{stem}-{number}"
        path = self._place.folder / (name + SUFFIX)
        temporary = path.with_name("." + path.name + ".part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        file_key, prefix = secrets.token_bytes(FILE_KEY_BYTES), secrets.token_bytes(PREFIX_BYTES)
        envelope = encode_envelope(seal_to(self._to.kem, self._to.public_key, file_key))
        beginning = MAGIC + len(envelope).to_bytes(LENGTH_BYTES, "big") + envelope + prefix
        try:
            temporary.unlink(missing_ok=True)  # of a run that was cut off
            file = os.fdopen(os.open(temporary, flags, platform.PRIVATE_FILE), "wb")
            part = _Part(path, temporary, file, ChunkWriter(file, AESGCM(file_key), prefix, beginning))
            self._parts.append(part)
            file.write(beginning)
            part.record(encode_header(replace(self._header, part=number)))
        except OSError as error:
            raise write_fault(error, self._place.folder) from error
        for data in self._repeated:
            self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            self._parts[-1].record(data)
        except OSError as error:
            raise write_fault(error, self._place.folder) from error
        self.size += len(data)


def write_fault(error: OSError, folder: Path) -> Exception:
    """What a person can do about a stick that cannot be written."""
    if error.errno == errno.ENOSPC:
        return DiskFull(f"no space left in {folder}", hint="free some space, then run this again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return BadInput(f"{folder} cannot be written: {error.strerror}", hint="name another folder with --out")
    if error.errno in (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOENT):
        return BadInput(f"{folder} is gone: {error.strerror}", hint="insert the stick again, then run this again")
    return error


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file whose every byte has been proven to be its sender's."""

    path: Path
    header: BundleHeader
    parts: int
    size: int
    _keys: Sequence[KeyPair] = field(repr=False)

    def frames(self) -> Iterator[bytes]:
        """The frames, read anew. Raises NoBundle where the file is not what it was, or OSError."""
        with opened(self.path) as file:
            reader = _reader(file, self._keys)
            header = _record(reader, HEADER_BYTES_MAX)
            if replace(parse_header(header), part=self.header.part) != self.header:
                raise NoBundle(f"{self.path.name} has been changed while it was read")
            while data := _record(reader, FRAME_BYTES_MAX):
                yield data


def prove(
    path: Path, keys: Sequence[KeyPair], unit: UnitPath, tree_id: bytes, tell: Tell = lambda _done: None
) -> Bundle:
    """Read a whole file and prove that it was written for ``unit`` by whom it names; nothing else is done with it.
    Raises a RemoteFault, of which NotForHere says that it is another unit's, BadInput or OSError."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        reader = _reader(file, keys)
        digest = sha256()
        raw = _record(reader, HEADER_BYTES_MAX)
        header = parse_header(raw)
        check_addressed(header, unit)
        sender_of(header, tree_id)
        _add(digest, raw)
        done = 0
        while data := _record(reader, FRAME_BYTES_MAX):
            _add(digest, data)
            done += len(data)
            tell(min(done, size))
        end = check_end(_record(reader, END_BYTES_MAX), header, digest.digest(), tree_id)
        if _read(reader, 1):
            raise NoBundle("this bundle goes on after its end")
    return Bundle(path, header, end.parts, size, keys)


def envelope_of(path: Path) -> Envelope:
    """What anybody can see of a file. Raises NoBundle, BadInput or OSError."""
    with opened(path) as file:
        return _envelope(file)[0]


def _add(digest: Any, data: bytes) -> None:
    digest.update(len(data).to_bytes(LENGTH_BYTES, "big") + data)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A plain file, and nothing that only looks like one: opening a pipe or a device may wait for ever, or do harm."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadInput(f"{path.name} is a link, not a file", hint="name the file itself") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadInput(f"{path.name} is not a file", hint="name the file itself")
        yield file


def _envelope(file: BinaryIO) -> tuple[Envelope, bytes]:
    """What stands before the sealed chunks, and its bytes."""
    start = file.read(len(MAGIC) + LENGTH_BYTES)
    if not start.startswith(MAGIC) or len(start) < len(MAGIC) + LENGTH_BYTES:
        raise NoBundle("this is no bundle of dongbo", hint="name a file that 'dongbo export' or 'dongbo import' wrote")
    length = int.from_bytes(start[len(MAGIC) :], "big")
    if length > ENVELOPE_BYTES_MAX:
        raise NoBundle("this bundle's beginning is damaged")
    rest = file.read(length + PREFIX_BYTES)
    if len(rest) < length + PREFIX_BYTES:
        raise NoBundle("this bundle was cut short")
    return parse_envelope(rest[:length]), start + rest


def _reader(file: BinaryIO, keys: Sequence[KeyPair]) -> ChunkReader:
    envelope, beginning = _envelope(file)
    pair = next((each for each in keys if (each.id, each.kem) == (envelope.key_id, envelope.kem)), None)
    if pair is None:
        raise NotForHere("this bundle is not for this unit: none of its keys opens it")
    return ChunkReader(file, AESGCM(pair.open(envelope)), beginning[-PREFIX_BYTES:], beginning)


def _record(reader: ChunkReader, size_max: int) -> bytes:
    """The next record; empty before the end."""
    length = int.from_bytes(_read(reader, LENGTH_BYTES, exactly=True), "big")
    if length > size_max:
        raise NoBundle("this bundle holds something too large")
    return _read(reader, length, exactly=True)


def _read(reader: ChunkReader, size: int, *, exactly: bool = False) -> bytes:
    try:
        return reader.read_exactly(size) if exactly else reader.read(size)
    except Broken:
        raise NoBundle("this bundle is damaged, or its end is missing") from None


def candidates(given: Sequence[Path]) -> list[Path]:
    """The files that are named, and those with our suffix in the folders that are named; nothing deeper."""
    found: list[Path] = []
    for path in given:
        if path.is_dir() and not path.is_symlink():
            found += sorted(each for each in path.iterdir() if each.suffix == SUFFIX and not each.name.startswith("."))
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def explain(path: Path, fault: RemoteFault | BadInput | OSError) -> str:
    """One line about a file that is not taken."""
    words = fault.strerror or "it cannot be read" if isinstance(fault, OSError) else str(fault)
    return f"{path.name}: {words}"
