"""Everything that the operating system decides: private files, durable renames, the lock of a home.

Role: the few calls whose meaning differs between POSIX and Windows.
Reach: the standard library and errors. On Windows a file's access list is inherited from the home's directory, which
an installer (or the user's profile) restricts; modes mean nothing there and are neither set nor judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from sync_engine.errors import DiskFull, HomeLocked

PRIVATE_FILE, PRIVATE_DIRECTORY, OTHERS = 0o600, 0o700, 0o077

# On Windows a locked byte cannot be read, so the one locked lies beyond anything written.
LOCKED_BYTE = 1 << 20


def write_private(path: Path, data: bytes) -> None:
    """Writes a file that its owner alone may read; after a crash the old one or the new one is there, whole.

    Never readable by others, not for an instant. One writer at a time (the home's lock). Raises DiskFull.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)  # left by a writer that was killed
    descriptor = os.open(
        temporary,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0),
        PRIVATE_FILE,
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"no space left to write {path.name}") from error
        raise
    sync_directory(path.parent)


def make_private_dir(path: Path) -> None:
    """Makes a directory that its owner alone may enter, or makes an existing one so."""
    path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    if sys.platform != "win32":
        path.chmod(PRIVATE_DIRECTORY)
    sync_directory(path.parent)


def is_private(path: Path) -> bool:
    """Whether only its owner may use the file or directory."""
    if sys.platform == "win32":
        return True
    return path.stat().st_mode & OTHERS == 0


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable: a rename is not, until then. Windows does so by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class HomeLock:
    """One process at a time works on a home. The system releases the lock however its holder ends.

    The file stays: to remove it would let two processes lock two files of one name.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises HomeLocked at once if another process, or another lock of this one, has it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            raise HomeLocked(
                f"another process works on {self.path.parent}",
                hint="wait until it ends, or stop the node's service",
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def drop_typed() -> None:
    """Forgets what was typed at the terminal and not read yet."""
    if not sys.stdin.isatty():
        return
    if sys.platform == "win32":
        import msvcrt

        while msvcrt.kbhit():
            msvcrt.getwch()
    else:
        import termios

        termios.tcflush(sys.stdin, termios.TCIFLUSH)


# --- the private socket ----------------------------------------------------------------------------------------------

SOCKET_PATH_MAX = 100
"""Bytes of a Unix socket's path: the system's limit is 108 with its ending zero."""


def _socket_path(home: Path) -> Path:
    """The home's socket; a home too deep for a socket's path has it in a private directory of the temporary one."""
    path = home / "control.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"dongbo-{getattr(os, 'getuid', int)()}"
    make_private_dir(folder)
    return folder / f"{name}.sock"


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve_private(home: Path, handler: Handler, line_bytes_max: int) -> asyncio.Server:
    """Listen where only the home's owner can reach. The home's lock is held, so a socket left behind is nobody's."""
    if sys.platform == "win32":  # no Unix sockets in asyncio there: a loopback port and a secret in a private file
        secret = secrets.token_hex(32)

        async def checked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said = (await reader.readline()).decode().strip()
            if secrets.compare_digest(said, secret):
                await handler(reader, writer)
            writer.close()

        server = await asyncio.start_server(checked, "127.0.0.1", 0, limit=line_bytes_max)
        port = server.sockets[0].getsockname()[1]
        write_private(home / "control.port", f"{port} {secret}".encode())
        return server
    path = _socket_path(home)
    path.unlink(missing_ok=True)
    mask = os.umask(OTHERS)
    try:
        return await asyncio.start_unix_server(handler, str(path), limit=line_bytes_max)
    finally:
        os.umask(mask)


def forget_private(home: Path) -> None:
    """Take away what ``serve_private`` left."""
    for path in (_socket_path(home), home / "control.port"):
        path.unlink(missing_ok=True)


async def dial_private(home: Path, line_bytes_max: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Reach the service on a home. Raises ConnectionError when none answers."""
    try:
        if sys.platform == "win32":
            port, secret = (home / "control.port").read_text().split()
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port), limit=line_bytes_max)
            writer.write(secret.encode() + b"\n")
            return reader, writer
        return await asyncio.open_unix_connection(str(_socket_path(home)), limit=line_bytes_max)
    except OSError as error:
        raise ConnectionError(str(error)) from error


def on_stop(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call ``stop`` when the system asks the process to end."""
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(stop))
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
