"""A file for its owner alone that appears whole or not at all: what is written into it is somebody's record.

Role: write under another name in the same folder, then rename.
Reach: node.platform. Invariant: at no instant may others read it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from pathlib import Path

from node import platform
from sync_engine.errors import DiskFull


class PrivateFile:
    """Text in UTF-8 with the mark that Excel wants. ``commit`` puts it in its place, ``drop`` forgets it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._temporary, flags, platform.PRIVATE_FILE)
        self.text = io.TextIOWrapper(io.BufferedWriter(io.FileIO(descriptor, "w")), encoding="utf-8-sig", newline="")

    def commit(self) -> None:
        """Raises DiskFull, or OSError."""
        try:
            self.text.flush()
            os.fsync(self.text.fileno())
            self.text.close()
            self._temporary.replace(self.path)
        except OSError as error:
            self.drop()
            if error.errno == errno.ENOSPC:
                raise DiskFull(f"no space left to write {self.path.name}") from error
            raise
        platform.sync_directory(self.path.parent)

    def drop(self) -> None:
        """After ``commit`` nothing is left to forget."""
        with contextlib.suppress(OSError):
            self.text.close()
        self._temporary.unlink(missing_ok=True)
