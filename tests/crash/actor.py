"""Forked processes and what they tell.

Role: fork an actor from the warm parent, read its pipe to the end, say how it ended.
Reach: the standard library, the errors' names. Invariant: what an actor told before it died is read in full, in order.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

LIMIT_S = 60.0
DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG``: nobody is left behind when the harness itself is killed."""


@dataclass
class Tell:
    """The dying process's way to say what it has acknowledged."""

    descriptor: int
    also: Callable[[bytes], None] | None = None
    """Told the same words: the recorder of a power cut needs them among the writes."""

    def __call__(self, kind: str, what: Any = None) -> None:
        words = json.dumps([kind, what]).encode() + b"\n"
        if self.also is not None:
            self.also(words)
        while words:
            words = words[os.write(self.descriptor, words) :]


Told = list[tuple[str, Any]]


@dataclass
class Ended:
    """How an actor ended, and all it told."""

    told: Told = field(default_factory=list)
    signal: int = 0
    code: int = 0
    complaints: str = ""
    """What it wrote to its standard error."""

    @property
    def was_killed(self) -> bool:
        return self.signal == signal.SIGKILL

    @property
    def raised(self) -> dict[str, Any] | None:
        return next((what for kind, what in self.told if kind == "raised"), None)

    def of(self, kind: str) -> list[Any]:
        return [what for each, what in self.told if each == kind]


@dataclass
class Actor:
    pid: int
    pipe: int
    errors: int
    is_over: bool = False

    def end(self) -> None:
        """Kill it, unless it has been waited for."""
        if not self.is_over:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.is_over = True

    def wait(self, limit_s: float = LIMIT_S) -> Ended:
        """Read all it tells, until it has ended. One that hangs is killed, and says so."""
        raw, deadline, hung = b"", time.monotonic() + limit_s, False
        while True:
            ready, _, _ = select.select([self.pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                os.kill(self.pid, signal.SIGKILL)
                hung = True
                break
            data = os.read(self.pipe, 1 << 16)
            if not data:
                break
            raw += data
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        self.is_over = True
        told = [tuple(json.loads(line)) for line in raw.split(b"\n")[:-1]]
        ended = Ended(told)
        ended.complaints = os.pread(self.errors, 1 << 20, 0).decode(errors="replace")
        os.close(self.errors)
        if os.WIFSIGNALED(status):
            ended.signal = os.WTERMSIG(status)
        else:
            ended.code = os.WEXITSTATUS(status)
        if hung:
            ended.told.append(
                ("raised", {"type": "Hung", "code": "", "message": f"no end in {limit_s:.0f} s", "trace": ""})
            )
            ended.signal, ended.code = 0, 1
        return ended


def describe(error: BaseException) -> dict[str, Any]:
    """An error as it is told: its type, its stable code if it is ours, its message, where it came from."""
    ours = any(each.__name__ == "ReplicationError" for each in type(error).__mro__)
    return {
        "type": type(error).__name__,
        "code": getattr(error, "code", "") if ours else "",
        "message": str(error),
        "trace": "".join(traceback.format_exception(error)),
    }


def fork(
    work: Callable[[Tell], None], *, close: Sequence[int] = (), also: Callable[[bytes], None] | None = None
) -> Actor:
    """Start an actor: ``work`` in a process of its own, which ends with it."""
    reading, writing = os.pipe()
    errors = os.memfd_create("errors")
    pid = os.fork()
    if pid:
        os.close(writing)
        return Actor(pid, reading, errors)
    code = 1
    try:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.enable()
        for descriptor in (reading, *close):
            os.close(descriptor)
        os.dup2(errors, 2)
        tell = Tell(writing, also)
        try:
            work(tell)
            code = 0
        except BaseException as error:
            tell("raised", describe(error))
    finally:
        os._exit(code)


def run(work: Callable[[Tell], None]) -> Ended:
    """Start an actor and wait for its end."""
    return fork(work).wait()


def must(work: Callable[[Tell], None]) -> Ended:
    """As ``run``, for what may not fail."""
    ended = run(work)
    if ended.raised is not None or ended.signal or ended.code:
        raise AssertionError(f"the harness itself failed: {ended.raised or ended}\n{(ended.raised or {}).get('trace')}")
    return ended
