"""Deaths of the process alone: at statements, at calls, at system calls, and again while it recovers.

Role: the places to die of each kind, and one death at each.
Reach: bench, fuses. Invariant: a place where the process did not die is not counted.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.crash import shim
from tests.crash.actor import Ended, Told
from tests.crash.bench import Bench, Struck
from tests.crash.fuses import AtCall, AtStatement, AtSystemCall, Fuse
from tests.crash.steps import Step, start_up

SYSTEM_CALLS = "pwrite64", "write", "fsync", "fdatasync", "ftruncate", "unlink", "rename"
CALLS_MAX = 10_000
TOLD = "told"


def first_deaths(step: Step) -> int:
    """From so many deaths in a step the recovery is killed, at every place; where a recovery is long, from fewer."""
    return 2 if step.is_new or step.name == "upgrade" else 6


class Statements:
    """Killed at the k-th statement."""

    name = "statement"

    def missing(self) -> str:
        return ""

    def places(self, bench: Bench) -> int:
        return bench.statements

    def strike(self, bench: Bench, k: int) -> Struck:
        return _killed(self.name, bench, k, AtStatement(k, bench.say), f"statement {k}")


class Calls:
    """Killed before the k-th call of the C library that writes, syncs, truncates or renames."""

    name = "call"

    def missing(self) -> str:
        return shim.missing()

    def places(self, bench: Bench) -> int:
        bench.fresh()
        mine, _ = bench.live(AtCall(CALLS_MAX))
        return int(mine.of("count")[0])

    def strike(self, bench: Bench, k: int) -> Struck:
        return _killed(self.name, bench, k, AtCall(k), f"call {k}")


class SystemCalls:
    """Killed by strace at the k-th system call of each name."""

    name = "syscall"

    def missing(self) -> str:
        if sys.platform != "linux" or shutil.which("strace") is None:
            return "no strace: install it (Debian: apt install strace)"
        trial = ["strace", "-f", "-e", "inject=fsync:signal=SIGKILL:when=9", "true"]
        if subprocess.run(trial, capture_output=True).returncode:
            return "strace may not trace here: ptrace is forbidden (kernel.yama.ptrace_scope, a container's profile)"
        return ""

    def places(self, bench: Bench) -> int:
        """How many of each name one thread makes at most; k counts through the names one after another."""
        bench.fresh()
        log = bench.folder / "calls"
        bench.live(AtSystemCall(",".join(SYSTEM_CALLS), 0, log))
        by_thread: Counter[tuple[str, str]] = Counter()
        for line in log.read_text(errors="replace").splitlines():
            if found := re.match(r"(\d+) +(\w+)\(", line):
                by_thread[found[2], found[1]] += 1
        for name in SYSTEM_CALLS:
            bench.scratch[name] = max((count for (call, _), count in by_thread.items() if call == name), default=0)
        return sum(bench.scratch.values())

    def strike(self, bench: Bench, k: int) -> Struck:
        at = k
        for name in SYSTEM_CALLS:
            if at <= bench.scratch[name]:
                return _killed(self.name, bench, k, AtSystemCall(name, at, bench.folder / "calls"), f"{name} {at}")
            at -= bench.scratch[name]
        raise IndexError(k)


def _killed(kind: str, bench: Bench, k: int, fuse: Fuse, what: str) -> Struck:
    bench.fresh()
    mine, theirs = bench.live(fuse)
    bench.tell_trace(mine)
    faults = [] if mine.was_killed else _unexpected(mine)
    faults += [] if theirs is None else _unexpected(theirs)
    faults += bench.judge(mine.told).faults
    return Struck(bench.step.name, kind, k, mine.was_killed, faults, what)


def _unexpected(ended: Ended) -> list[str]:
    if ended.raised is None and not ended.signal and not ended.code:
        return []
    raised = ended.raised or {}
    return [f"failed: {raised.get('type')}: {raised.get('message')} {raised.get('trace', '')} ({ended.signal})"]


class Recoveries:
    """Killed at some statements of the step, and then at every statement and call of the start-up after it."""

    name = "recovery"

    def missing(self) -> str:
        return ""

    def places(self, bench: Bench) -> int:
        """Prepares the first deaths; k counts through their recoveries one after another."""
        total = 0
        for number in range(first_deaths(bench.step)):
            first = _first_death(bench, number)
            bench.fresh()
            mine, _ = bench.live(AtStatement(first))
            left = _left_by(bench, number)
            shutil.rmtree(left, ignore_errors=True)
            shutil.copytree(bench.place, left)
            (left / TOLD).write_text(json.dumps(mine.told))
            for fuse in self._fuses(0):
                bench.fresh(left)
                lived, _ = bench.live(fuse, _recovery_of(bench.step))
                places = int(lived.of("count")[0]) if lived.of("count") else 0
                bench.scratch[f"{number} {type(fuse).__name__}"] = places
                total += places
        return total

    def _fuses(self, k: int) -> list[Fuse]:
        found: list[Fuse] = [AtStatement(k or None)]
        if shim.is_loaded():
            found.append(AtCall(k or CALLS_MAX))
        return found

    def strike(self, bench: Bench, k: int) -> Struck:
        at = k
        for number in range(first_deaths(bench.step)):
            left = _left_by(bench, number)
            for fuse in self._fuses(0):
                places = bench.scratch[f"{number} {type(fuse).__name__}"]
                if at <= places:
                    again = next(each for each in self._fuses(at) if type(each) is type(fuse))
                    what = f"statement {_first_death(bench, number)}, then {type(fuse).__name__} {at} of the start-up"
                    return self._again(bench, k, left, again, what)
                at -= places
        raise IndexError(k)

    def _again(self, bench: Bench, k: int, left: Path, fuse: Fuse, what: str) -> Struck:
        bench.fresh(left)
        told: Told = [(kind, what) for kind, what in json.loads((left / TOLD).read_text())]
        again, _ = bench.live(fuse, _recovery_of(bench.step))
        bench.tell_trace(again)
        faults = [] if again.was_killed else _unexpected(again)
        faults += bench.judge([*told, *again.told]).faults
        return Struck(bench.step.name, self.name, k, again.was_killed, faults, what)


def _left_by(bench: Bench, number: int) -> Path:
    return bench.template.parent / f"left by {bench.step.name} {number}"


def _first_death(bench: Bench, number: int) -> int:
    """Spread over the step; the last is at its end."""
    return max(1, bench.statements * (number + 1) // first_deaths(bench.step))


def _recovery_of(step: Step) -> Step:
    """Start-up, as the step after a death; where there may be no database yet, it is the set-up again."""
    return step if step.is_new else Step(step.name, step.prepare, start_up, unit=step.unit)
