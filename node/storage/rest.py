"""A database file as it lies on the disk: plain or encrypted, copied while it is in use, proven, wiped.

Role: turn a file from one form into the other, take a consistent copy of one in use.
Reach: sqlcipher3 through the engine. Source: docs/decisions/0026 and 0027. Invariant: a file is replaced by a whole one
in one step, and nobody else has it open meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlcipher3.dbapi2

from node import platform
from node.storage.engine import connect, key_literal, quoted
from sync_engine.errors import DiskFull, LocalFault

PAGES_AT_ONCE = 512
WIPE_AT_ONCE = 1 << 20
SPARE_BYTES = 16 << 20
"""Room that must be left beside a copy: the node itself goes on writing."""

COMPANIONS = ("-wal", "-shm", "-journal")


class InUse(LocalFault):
    """Another program has the database open."""

    default_hint = "end the programs that work on this database, then run this again"


class Damaged(LocalFault):
    """A database file that is not whole."""


def check_room(folder: Path, size: int) -> None:
    """Raises DiskFull before anything is begun that would not fit."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        missing = -(-(size + SPARE_BYTES - free) // 1_000_000)
        raise DiskFull(f"{missing} MB too little free space in {folder}", hint="free some space, then run this again")


def size_of(path: Path) -> int:
    """Of a database with what is still in its log."""
    wal = path.with_name(path.name + "-wal")
    return path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)


def new_file(path: Path) -> None:
    """An empty file for its owner alone, in place of what an interrupted attempt left."""
    forget(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(path, flags, platform.PRIVATE_FILE))


def forget(path: Path) -> None:
    for name in ("", *COMPANIONS):
        path.with_name(path.name + name).unlink(missing_ok=True)


def copy_live(
    path: Path, key: bytes | None, target: Path, target_key: bytes | None, tell: Callable[[int, int], None]
) -> None:
    """A consistent copy of a database that others write meanwhile: as it is at one moment, page by page.

    A read transaction holds that moment, so writers neither wait nor make the copying start again. Both files are
    plain or both encrypted, with whatever keys. ``tell`` gets pages done and pages in all, and may raise.
    """
    new_file(target)
    with _open(path, key) as source, _open(target, target_key) as copy:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(copy, pages=PAGES_AT_ONCE, progress=lambda _status, left, total: tell(total - left, total))
        source.execute("COMMIT")
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
    _sync(target)


def convert(path: Path, key: bytes | None, target: Path, target_key: bytes | None) -> None:
    """Write a database's content into a new file of the other form (or with another key). Raises InUse where anybody
    else has the old one open."""
    new_file(target)
    with _open(path, key) as source:
        _alone(source)
        literal = "''" if target_key is None else key_literal(target_key)
        source.execute(f"ATTACH DATABASE ? AS target KEY {literal}", (str(target),))
        source.execute("PRAGMA target.synchronous = OFF")  # one fsync in the end: what is cut off is begun again
        source.execute("SELECT sqlcipher_export('target')")
        for pragma in ("user_version", "application_id"):
            value = source.execute(f"PRAGMA main.{pragma}").fetchone()[0]
            source.execute(f"PRAGMA target.{pragma} = {int(value)}")
        _same(source)
        source.execute("DETACH DATABASE target")
    _sync(target)


def rekey(path: Path, key: bytes, target_key: bytes) -> None:
    """Encrypt a file that nobody uses with another key."""
    with _open(path, key) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute(f"PRAGMA rekey = {key_literal(target_key)}")


def prove(path: Path, key: bytes | None) -> None:
    """Raises Damaged unless every page of the file is sound."""
    with _open(path, key) as connection:
        try:
            if key is not None and (bad := connection.execute("PRAGMA cipher_integrity_check").fetchone()):
                raise Damaged(f"the database is damaged: {str(bad[0])[:200]}")
            said = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        except sqlcipher3.dbapi2.Error as error:
            raise Damaged(f"the database is damaged: {str(error)[:200]}") from None
    if said != "ok":
        raise Damaged("the database is damaged inside")


def wipe(path: Path) -> None:
    """Overwrite a file before its name goes: on a disk that writes in place nothing of it is left. One that has a
    second name is somebody's still, and only this name goes."""
    if not path.exists():
        return
    status = path.stat()
    left = status.st_size if status.st_nlink == 1 else 0
    with path.open("r+b") as file:
        while left > 0:
            left -= file.write(bytes(min(left, WIPE_AT_ONCE)))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    platform.sync_directory(path.parent)


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _alone(connection: Any) -> None:
    """Put the log's content into the file, and see to it that nobody else has it open."""
    try:
        connection.execute("PRAGMA busy_timeout = 5000")
        mode = connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
        if mode != "delete":
            raise InUse("another program has the database open")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlcipher3.dbapi2.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise InUse("another program has the database open") from None


def _same(connection: Any) -> None:
    """As many rows in each table here as there: an export that lost any must not become the database."""
    for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
        if name.startswith("sqlite_"):
            continue
        counts = [
            connection.execute(f"SELECT count(*) FROM {schema}.{quoted(name)}").fetchone()[0]
            for schema in ("main", "target")
        ]
        if counts[0] != counts[1]:
            raise Damaged(f"the table {name} could not be copied whole", hint="run 'dongbo verify'")


@contextlib.contextmanager
def _open(path: Path, key: bytes | None) -> Iterator[Any]:
    connection = connect(path, key)
    try:
        connection.execute("PRAGMA temp_store = MEMORY")
        yield connection
    except sqlcipher3.dbapi2.OperationalError as error:
        if "disk is full" in str(error):
            raise DiskFull(f"no space left to write beside {path.name}") from error
        raise
    finally:
        connection.close()
