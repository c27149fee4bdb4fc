"""What a disk may hold after a power cut: all that was synced, and of the rest whatever it likes.

Role: fold a record of writes and syncs, up to a cut, into the files that may be found afterwards.
Reach: the standard library. Invariant: a write is durable once its file was synced after it, a name once its directory
was; after a failed sync of a file what was written before it is never known to be durable, whatever later syncs say. A
failed sync of a directory may be made good by the next, and does not take back the name of a new file that was itself
synced: SQLite takes no notice of such a failure, and the file systems in use (ext4, xfs, btrfs) keep that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from random import Random

from tests.crash.shim import Event

SECTOR = 512
MODES = ("nothing", "everything", "some", "torn")
"""Of what was not synced: nothing is there, all is, some of it, or some of it with single sectors missing."""

Image = dict[str, bytes]
"""Files by path below the home."""


@dataclass
class _Change:
    """One write or truncation of a file. ``state``: open (not synced), durable, or doubtful (its sync failed)."""

    offset: int
    data: bytes | None
    state: str = "open"


@dataclass
class _File:
    first: bytes = b""
    changes: list[_Change] = field(default_factory=list)
    was_synced: bool = False


@dataclass
class _Name:
    """One change of a directory: ``path`` is now ``file``, or nothing; a rename is both at once."""

    directory: str
    changes: dict[str, _File | None]
    state: str = "open"

    @property
    def is_kept_anyway(self) -> bool:
        """A new file's own sync has brought its name along."""
        return len(self.changes) == 1 and all(file is not None and file.was_synced for file in self.changes.values())


class Disk:
    """A home's files through a record. ``before`` are the files as the record begins, all durable."""

    def __init__(self, home: Path, before: Image) -> None:
        self._home = str(home.resolve())
        self._first = {path: _File(data) for path, data in before.items()}
        self._now: dict[str, _File | None] = dict(self._first)
        self._names: list[_Name] = []
        self._files = list(self._first.values())

    def _path(self, path: str) -> str:
        return path[len(self._home) :].lstrip("/")

    def perform(self, event: Event) -> None:
        path = self._path(event.path)
        directory = str(PurePosixPath(path).parent)
        match event.op:
            case "C":
                made = _File()
                self._files.append(made)
                self._name(directory, {path: made})
            case "U":
                self._name(directory, {path: None})
            case "R":
                to = self._path(event.data.decode())
                self._name(directory, {path: None, to: self._now.get(path)})
            case "W" | "T":
                file = self._now.get(path)
                if file is not None:
                    file.changes.append(_Change(event.offset, event.data if event.op == "W" else None))
            case "S":
                self._sync(path, "durable")
            case "X":
                self._sync(path, "doubtful")

    def _name(self, directory: str, changes: dict[str, _File | None]) -> None:
        self._names.append(_Name(directory, changes))
        self._now.update(changes)

    def _sync(self, path: str, state: str) -> None:
        file = self._now.get(path)
        if file is not None:
            file.was_synced = file.was_synced or state == "durable"
            for change in file.changes:
                change.state = state if change.state == "open" else change.state
            return
        for name in self._names:  # a directory
            if name.directory == (path or ".") and name.state == "open":
                name.state = "durable" if state == "durable" or name.is_kept_anyway else "open"

    def image(self, mode: str, rng: Random) -> Image:
        """The files as they may be found if the power goes now."""
        lasts: Callable[[str], bool] = {
            "nothing": lambda state: state == "durable",
            "everything": lambda state: True,
        }.get(mode, lambda state: state == "durable" or rng.random() < 0.5)
        names: dict[str, _File | None] = dict(self._first)
        for name in self._names:
            if lasts(name.state):
                names.update(name.changes)
        found: Image = {}
        for path, file in names.items():
            if file is not None:
                found[path] = _content(file, lasts, rng if mode == "torn" else None)
        return found


def _content(file: _File, lasts: Callable[[str], bool], torn: Random | None) -> bytes:
    content = bytearray(file.first)
    for change in file.changes:
        if not lasts(change.state):
            continue
        if change.data is None:
            del content[change.offset :]
            content.extend(bytes(change.offset - len(content)))
            continue
        whole = change.state == "durable" or torn is None
        for offset, piece in [(change.offset, change.data)] if whole else _sectors(change):
            if whole or (torn is not None and torn.random() < 0.5):
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(piece)] = piece
    return bytes(content)


def _sectors(change: _Change) -> Iterator[tuple[int, bytes]]:
    """A write cut where the disk's sectors end."""
    assert change.data is not None
    at = 0
    while at < len(change.data):
        size = SECTOR - (change.offset + at) % SECTOR
        yield change.offset + at, change.data[at : at + size]
        at += size


def read_image(home: Path) -> Image:
    """A home's files, but for what a restart throws away."""
    found = {}
    for path in sorted(home.rglob("*")):
        if path.is_file() and not path.name.endswith("-shm"):
            found[str(path.relative_to(home))] = path.read_bytes()
    return found


def write_image(home: Path, image: Image, private: Sequence[str] = ()) -> None:
    """Make a home of an image."""
    home.mkdir(parents=True)
    for path, data in image.items():
        target = home / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(0o600)


def digest_of(image: Image) -> bytes:
    digest = sha256()
    for path, data in sorted(image.items()):
        digest.update(f"{path}\0{len(data)}\0".encode() + data)
    return digest.digest()
