"""The preloaded shim: built where there is a C compiler, steered from the dying process.

Role: compile ``shim.c``, start this program again under it, arm it, read its record.
Reach: the standard library. Source: shim.c.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

SOURCE = Path(__file__).with_name("shim.c")
MARK = "DONGBO_CRASH_SHIM"
"""In the environment: the path of the shim that this process runs under."""
_HEAD = struct.Struct("<cHqQ")


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the record. ``op``: W write, T truncate, S sync, X failed sync, U unlink, R rename (to ``data``),
    C create, D make a directory, M what was told just then."""

    op: str
    path: str
    offset: int
    data: bytes


def missing() -> str:
    """Why the shim cannot be had here, or nothing."""
    if sys.platform != "linux":
        return "the shim is for Linux"
    return "" if shutil.which("cc") else "no C compiler: install gcc (Debian: apt install gcc libc6-dev)"


def build(folder: Path) -> Path:
    made = folder / "shim.so"
    command = ["cc", "-O2", "-fPIC", "-shared", "-o", str(made), str(SOURCE), "-pthread"]
    subprocess.run(command, check=True)
    return made


def is_loaded() -> bool:
    return MARK in os.environ


def start_again(folder: Path, module: str, arguments: list[str]) -> NoReturn:
    """Replace this process by one that runs under the shim."""
    made = str(build(folder))
    environment = {**os.environ, "LD_PRELOAD": made, MARK: made}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


def remove() -> None:
    """The shim has done its work."""
    if is_loaded():
        shutil.rmtree(Path(os.environ[MARK]).parent, ignore_errors=True)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ[MARK])


SILENT = False
"""For a mutant: the failing sync says that all is well."""


def arm(folder: Path, *, log: int = -1, kill_at: int = 0, fail_at: int = 0) -> None:
    """From now on: die before the ``kill_at``-th write, sync or name change below ``folder``; fail the
    ``fail_at``-th sync; record on the descriptor ``log``."""
    path = os.fsencode(folder.resolve())
    _library().crash_shim_arm(path, log, ctypes.c_long(kill_at), ctypes.c_long(fail_at), int(SILENT))


def rest() -> tuple[int, int]:
    """Stop counting; how many calls and how many syncs there were."""
    library = _library()
    library.crash_shim_rest()
    return library.crash_shim_calls(), library.crash_shim_syncs()


def mark(words: bytes) -> None:
    _library().crash_shim_mark(words, ctypes.c_uint64(len(words)))


def read_record(path: Path) -> list[Event]:
    """The record, in order."""
    raw, at, found = path.read_bytes(), 0, []
    while at + _HEAD.size <= len(raw):
        op, length, offset, size = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        name = raw[at : at + length].decode()
        at += length
        held = size if op in b"WRM" else 0
        found.append(Event(op.decode(), name, offset, raw[at : at + held]))
        at += held
    return found
