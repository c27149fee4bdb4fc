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

from conflict.values import Epoch, UnitPath
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
from sync_engine.errors import BadInput, DiskFull, LocalFault, RemoteFault, ReplicationError
from sync_engine.limits import FRAME_BYTES_MAX
from sync_engine.statements import EncryptionKey

SUFFIX = ".dongbo"
PART_BYTES = 2_000_000_000
"""A part is closed before it has so many bytes: FAT32 takes no file of 4 GiB."""

READABLE = 0o644
"""A stick may keep owners, and is read under another account; what it holds is encrypted."""

PART_BYTES_MIN = 64 * 1024

LEFT_BY_CRASH = ".part"

Tell = Callable[[int], None]
"""Gets how many bytes have been read; may raise GivenUp, which ends the work."""


class GivenUp(Exception):
    """Whoever asked does not wait any longer."""


class Unreadable(LocalFault):
    """A file or a folder that the system does not let us read, or no longer."""

    default_hint = "look whether the stick is still in, and whether the name is right; then run this again"


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
    if os.path.isdir(out):
        return Place(out, "", part_bytes)
    if not os.path.isdir(out.parent):
        raise BadInput(f"there is no folder {out.parent}", hint="make it, or insert the stick that has it")
    _check_free(out)
    return Place(out.parent, out.name.removesuffix(SUFFIX), part_bytes)


def _check_free(path: Path) -> None:
    """Nothing is ever written over. Raises BadInput."""
    if os.path.lexists(path):
        raise BadInput(f"{path} is there already", hint="choose another name, or name the folder alone")


def write_fault(folder: Path, error: OSError) -> LocalFault:
    """What a system's error at writing means to whoever holds the stick."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left in {folder}", hint="free some space, or use another stick; then run this again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return BadInput(f"{folder} cannot be written: {error.strerror}", hint="name another folder with --out")
    if error.errno == errno.EFBIG:
        return BadInput(f"{folder} takes no file so large", hint="say a smaller --part-size")
    return LocalFault(
        f"{folder} cannot be written, or is gone: {error.strerror}",
        hint="insert the stick again, or another one; then run this again",
    )


def clear_leftovers(folder: Path, epoch: Epoch) -> None:
    """Away with what this node was writing there when it was cut off: it is hidden, and fills the stick."""
    for path in folder.glob(f".{_mark(epoch)}-*{SUFFIX}{LEFT_BY_CRASH}"):
        with contextlib.suppress(OSError):
            path.unlink()


def _mark(epoch: Epoch) -> str:
    """By what a node knows its own files that were not finished; to others it tells nothing."""
    return sha256(b"dongbo part " + epoch.encode()).hexdigest()[:8]


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
        try:
            self._begin()
        except BaseException:
            self.drop()
            raise

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
                part.temporary = part.path  # so that 'drop' finds it
            platform.sync_directory(self._place.folder)
        except OSError as error:
            raise write_fault(self._place.folder, error) from error
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
        temporary = path.with_name(f".{_mark(self._header.epoch)}-{secrets.token_hex(8)}{SUFFIX}{LEFT_BY_CRASH}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        file_key, prefix = secrets.token_bytes(FILE_KEY_BYTES), secrets.token_bytes(PREFIX_BYTES)
        envelope = encode_envelope(seal_to(self._to.kem, self._to.public_key, file_key))
        beginning = MAGIC + len(envelope).to_bytes(LENGTH_BYTES, "big") + envelope + prefix
        _check_free(path)
        try:
            file = os.fdopen(os.open(temporary, flags, READABLE), "wb")
            part = _Part(path, temporary, file, ChunkWriter(file, AESGCM(file_key), prefix, beginning))
            self._parts.append(part)
            file.write(beginning)
            part.record(encode_header(replace(self._header, part=number)))
        except OSError as error:
            raise write_fault(self._place.folder, error) from error
        for data in self._repeated:
            self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            self._parts[-1].record(data)
        except OSError as error:
            raise write_fault(self._place.folder, error) from error
        self.size += len(data)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file whose every byte has been proven to be its sender's."""

    path: Path
    header: BundleHeader
    parts: int
    size: int
    _keys: Sequence[KeyPair] = field(repr=False)
    _beginning: bytes = field(repr=False)

    def frames(self) -> Iterator[bytes]:
        """The frames, read anew. Raises NoBundle where the file is not what it was, or Unreadable. Under the beginning
        that was proven stands the file's key, which its sender alone has told us: nobody else can seal under it."""
        with opened(self.path) as file:
            reader, beginning = _reader(file, self._keys)
            if beginning != self._beginning:
                raise NoBundle(f"{shown(self.path)} was changed while it was read")
            _record(reader, HEADER_BYTES_MAX)
            while data := _record(reader, FRAME_BYTES_MAX):
                yield data


def prove(
    path: Path, keys: Sequence[KeyPair], unit: UnitPath, tree_id: bytes, tell: Tell = lambda _done: None
) -> Bundle:
    """Read a whole file and prove that it was written for ``unit`` by whom it names; nothing else is done with it.
    Raises a RemoteFault, of which NotForHere says that it is another unit's, BadInput or Unreadable."""
    with opened(path) as file:
        try:
            return _proven(path, file, keys, unit, tree_id, tell)
        except RemoteFault as fault:
            fault.hint = fault.hint or NoBundle.default_hint
            raise


def _proven(path: Path, file: BinaryIO, keys: Sequence[KeyPair], unit: UnitPath, tree_id: bytes, tell: Tell) -> Bundle:
    size = os.fstat(file.fileno()).st_size
    reader, beginning = _reader(file, keys)
    digest = sha256()
    raw = _record(reader, HEADER_BYTES_MAX)
    header = parse_header(raw)
    sender_of(header, tree_id)
    check_addressed(header, unit)
    _add(digest, raw)
    done = 0
    while data := _record(reader, FRAME_BYTES_MAX):
        _add(digest, data)
        done += len(data)
        tell(min(done, size))
    end = check_end(_record(reader, END_BYTES_MAX), header, digest.digest(), tree_id)
    if _read(reader, 1):
        raise NoBundle("this bundle goes on after its end")
    return Bundle(path, header, end.parts, size, keys, beginning)


def _add(digest: Any, data: bytes) -> None:
    digest.update(len(data).to_bytes(LENGTH_BYTES, "big") + data)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A plain file, and nothing that only looks like one: opening a pipe or a device may wait for ever, or do harm.
    Raises BadInput, and Unreadable also for what is met later."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        _check_plain(os.lstat(path).st_mode)
        with open(path, "rb", opener=lambda name, _flags: os.open(name, flags)) as file:
            _check_plain(os.fstat(file.fileno()).st_mode)
            yield file
    except OSError as error:
        raise _read_fault(error) from error


def _check_plain(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise BadInput("this is a link, not a file", hint="name the file that it leads to")
    if not stat.S_ISREG(mode):
        raise BadInput("this is not a file", hint="name a bundle, or the folder that holds it")


def _read_fault(error: OSError) -> Unreadable:
    if error.errno == errno.ENOENT:
        return Unreadable("there is no such file or folder")
    return Unreadable(f"this cannot be read: {error.strerror or 'the system does not say why'}")


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


def _reader(file: BinaryIO, keys: Sequence[KeyPair]) -> tuple[ChunkReader, bytes]:
    """What reads it, and its beginning."""
    envelope, beginning = _envelope(file)
    pair = next((each for each in keys if (each.id, each.kem) == (envelope.key_id, envelope.kem)), None)
    if pair is None:
        raise NotForHere("this bundle is not for this unit: none of its keys opens it")
    return ChunkReader(file, AESGCM(pair.open(envelope)), beginning[-PREFIX_BYTES:], beginning), beginning


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
    """The files that are named, and those with our suffix in the folders that are named; nothing deeper. Raises
    Unreadable."""
    found: list[Path] = []
    for path in given:
        if os.path.isdir(path) and not os.path.islink(path):
            try:
                inside = list(path.iterdir())
            except OSError as error:
                raise _read_fault(error) from error
            found += sorted(each for each in inside if each.suffix == SUFFIX and not each.name.startswith("."))
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def explain(path: Path, fault: ReplicationError) -> str:
    """One line about a file that is not taken."""
    return f"{shown(path)}: {fault}"


def shown(path: Path) -> str:
    """A file's name without what would begin another line, steer the terminal, or be no text: a stranger chose it."""
    return "".join(each if each.isprintable() else "\ufffd" for each in path.name)
