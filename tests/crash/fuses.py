"""How a process comes to die: what is put into it before its step, and what counts once it has begun.

Role: one class for each way: statement, call (through the shim), system call (through strace), record, failing sync.
Reach: statements, shim, strace. Invariant: counting begins when the step says it is ready, so that k means the same
place in every run.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash import shim, statements
from tests.crash.actor import Actor, Tell
from tests.crash.steps import DYING


class Fuse:
    """None at all: the step runs undisturbed."""

    also: Callable[[bytes], None] | None = None
    not_for_the_dying: Sequence[int] = ()

    def install(self, place: Path, tell: Tell) -> None:
        """In the dying process, before anything else."""

    def start(self, place: Path) -> None:
        """In the dying process, when its step is ready."""

    def end(self, tell: Tell) -> None:
        """In the dying process, if it lives to its end."""

    def again(self) -> bool:
        """In the dying process, after a fault of the store: whether to try again."""
        return False

    def attend(self, dying: Actor) -> None:
        """In the parent, as soon as the dying process runs."""

    def clear(self) -> None:
        """In the parent, when it has ended."""


class AtStatement(Fuse):
    """Dies at the k-th place around statements; tells how many there were if it lives."""

    def __init__(self, k: int | None, say: Callable[[str], None] | None = None) -> None:
        self._fuse = statements.Fuse(k, say)

    def install(self, place: Path, tell: Tell) -> None:
        self._fuse.install()

    def start(self, place: Path) -> None:
        self._fuse.armed = True

    def end(self, tell: Tell) -> None:
        self._fuse.armed = False
        tell("count", self._fuse.count)


class AtCall(Fuse):
    """Dies before the k-th call of the C library that writes, syncs or renames below the dying home."""

    def __init__(self, k: int) -> None:
        self.k = k

    def start(self, place: Path) -> None:
        shim.arm(place / DYING, kill_at=self.k)

    def end(self, tell: Tell) -> None:
        tell("count", shim.rest()[0])


class Recorded(Fuse):
    """Lives, and leaves a record of all it wrote, with what it told in between; the ``fail_at``-th sync fails.

    From its first breath, so that every file on the disk has its history in the record. After a fault it tries again
    in the same process, as the service does.
    """

    def __init__(self, log: Path, fail_at: int = 0) -> None:
        self.log, self.fail_at = log, fail_at
        self.also = shim.mark
        self._tries = 3

    def install(self, place: Path, tell: Tell) -> None:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        shim.arm(place / DYING, log=descriptor, fail_at=self.fail_at)

    def again(self) -> bool:
        self._tries -= 1
        return self.fail_at > 0 and self._tries > 0

    def end(self, tell: Tell) -> None:
        tell("syncs", shim.rest()[1])


@dataclass
class AtSystemCall(Fuse):
    """strace kills at the k-th system call of one name, counted for each thread; k 0: writes them all down."""

    call: str
    k: int
    log: Path

    def __post_init__(self) -> None:
        self._go, self._going = os.pipe()
        self._strace: subprocess.Popen[bytes] | None = None
        self.not_for_the_dying = [self._going]

    def install(self, place: Path, tell: Tell) -> None:
        """Wait until strace holds this process."""
        while not _is_traced():
            time.sleep(0.001)
        os.read(self._go, 1)

    def attend(self, dying: Actor) -> None:
        what = ["-e", f"trace={self.call}"]
        if self.k:
            what += ["-e", f"inject={self.call}:signal=SIGKILL:when={self.k}"]
        command = ["strace", "-f", "-y", "-o", str(self.log), *what, "-p", str(dying.pid)]
        self._strace = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._strace.stderr is not None
        ready, _, _ = select.select([self._strace.stderr], [], [], 10)  # it says that it is attached
        if not ready:
            raise AssertionError("strace does not attach")
        os.write(self._going, b"g")

    def clear(self) -> None:
        assert self._strace is not None
        self._strace.communicate(timeout=30)
        os.close(self._go)
        os.close(self._going)


def _is_traced() -> bool:
    status = Path("/proc/self/status").read_text()
    return "TracerPid:\t0\n" not in status
