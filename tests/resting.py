"""Homes for tests of what lies on the disk: made in this process, with members whose names can be looked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node import secret, setup
from node.config import ENCRYPTED, AtRest, Schedule
from node.secret import DATABASE
from node.storage.engine import connect

MARK = "Zqvx Nguyễn Thị Ẩn Danh"
"""A name that is nowhere by chance."""

MEMBERS = 300


def secret_file(folder: Path, text: str = "a secret for tests alone", name: str = "key") -> Path:
    """A key disk."""
    path = folder / name
    path.write_text(text + "\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def make_home(home: Path, at_rest: AtRest | None = None) -> Path:
    """A root with members."""
    registry, schedule = setup.read_registry(None), Schedule()
    setup.init(
        home, "vn", "Trung ương", registry, listen="", address="", schedule=schedule, at_rest=at_rest or AtRest()
    )
    with opened(home) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES ('vn', ?, ?, '1980-01-01', 'nam')",
            [(f"M{number:05}", f"{MARK} {number}") for number in range(MEMBERS)],
        )
        connection.execute("COMMIT")
    return home


def encrypted(file: Path) -> AtRest:
    return AtRest(ENCRYPTED, secret_file=str(file))


@contextmanager
def opened(home: Path) -> Iterator[Any]:
    """What a program does that has the key."""
    connection = connect(home / DATABASE, secret.vault(home).database_key)
    try:
        yield connection
    finally:
        connection.close()


def members_of(home: Path) -> int:
    with opened(home) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM member").fetchone()[0])


def readable(home: Path) -> list[str]:
    """The files in which the name, or a key, can be read by anybody."""
    marks = (MARK.encode(), MARK.encode("utf-16-le"), b"BEGIN " + b"PRIVATE KEY")
    files = [path for path in home.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(home)) for path in files if any(mark in path.read_bytes() for mark in marks))


def exposed(home: Path) -> list[str]:
    """What others than the owner may use."""
    return [str(path) for path in (home, *home.rglob("*")) if path.lstat().st_mode & 0o077]


WATCHED = frozenset({"open", "os.rename", "os.link", "os.remove", "os.truncate", "os.chmod", "os.mkdir"})


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that dies at its ``step``-th call that opens, renames or removes a file. True if it
    died, False if the work was done before."""
    child = os.fork()
    if child == 0:
        left = [step]

        def fuse(event: str, _arguments: object) -> None:
            if event in WATCHED:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)

        sys.addaudithook(fuse)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), f"the work failed at step {step}"
    return code == 9
