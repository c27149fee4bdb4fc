"""All places to die of some steps and kinds, shared out among a few workers.

Role: prepare, strike every place (or every n-th), gather.
Reach: bench and the kinds. Invariant: the workers are forked from this process, which has no database open.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from tests.crash import actor, filling
from tests.crash.actor import Tell
from tests.crash.bench import Bench, Struck, make_stage, prepare, worker_of
from tests.crash.cutting import FailingSyncs, PowerCuts
from tests.crash.filling import FullDisks
from tests.crash.killing import Calls, Recoveries, Statements, SystemCalls

MEMORY = Path("/dev/shm")
"""A process that is killed loses nothing that it wrote, wherever the file is: memory is the fastest place."""


class Kind(Protocol):
    name: str

    def missing(self) -> str:
        """What this machine lacks for it, in words; nothing if it can be done."""

    def places(self, bench: Bench) -> int:
        """How many places to die there are: k counts from 1."""

    def strike(self, bench: Bench, k: int) -> Struck: ...


KINDS: dict[str, Callable[[], Kind]] = {
    "statement": Statements,
    "call": Calls,
    "syscall": SystemCalls,
    "recovery": Recoveries,
    "power": PowerCuts,
    "full": FullDisks,
    "fsync": FailingSyncs,
}


@dataclass
class Row:
    """One line of the table."""

    step: str
    kind: str
    places: int = 0
    met: int = 0
    losses: list[Struck] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for homes and copies, in memory where the system has such a place."""
    folder = Path(tempfile.mkdtemp(prefix="dongbo-crash-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield folder
    finally:
        filling.unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Campaign:
    folder: Path
    workers: int = 1
    mutant: str = ""
    stage: Path = field(init=False)
    benches: dict[str, Bench] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stage = make_stage(self.folder)
        gc.collect()
        gc.freeze()  # what is here already is not copied by every fork's collector
        gc.disable()  # nor is this process's own end held up in a callback of it: the forked ones have it on

    def bench(self, step: str) -> Bench:
        if step not in self.benches:
            self.benches[step] = prepare(step, self.stage, self.folder, self.mutant)
        return self.benches[step]

    def run(self, step: str, kind: str, every: int = 1, stop_early: bool = False) -> Row:
        """Every place, or every n-th. ``stop_early``: the first loss is enough."""
        began, row, made = time.monotonic(), Row(step, kind), KINDS[kind]()
        row.skipped = made.missing()
        if row.skipped:
            return row
        bench = self.bench(step)
        row.places = made.places(bench)
        chosen = range(row.places, 0, -every) if every > 1 else range(1, row.places + 1)
        for struck in self._strike(made, bench, chosen, stop_early):
            row.met += struck.met
            if struck.faults:
                row.losses.append(struck)
        row.seconds = time.monotonic() - began
        return row

    def _strike(self, made: Kind, bench: Bench, chosen: Sequence[int], stop_early: bool) -> Iterator[Struck]:
        shares = [chosen[at :: self.workers] for at in range(self.workers)]
        actors = [actor.fork(_worker(made, bench, at, share, stop_early)) for at, share in enumerate(shares) if share]
        try:
            for each in actors:
                ended = each.wait(limit_s=3600.0)
                if ended.raised is not None:
                    raise AssertionError(f"the harness itself failed: {ended.raised['trace']}")
                for what in ended.of("struck"):
                    yield Struck(**what)
        finally:
            for each in actors:
                each.end()

    def replay(self, step: str, kind: str, k: int, say: Callable[[str], None]) -> Struck:
        made = KINDS[kind]()
        lacking = made.missing()
        if lacking:
            raise SystemExit(f"{kind} cannot be done here: {lacking}")
        bench = self.bench(step)
        made.places(bench)
        bench.say = say
        return made.strike(bench, k)


def _worker(made: Kind, bench: Bench, number: int, share: Iterable[int], stop_early: bool) -> Callable[[Tell], None]:
    def work(tell: Tell) -> None:
        with worker_of(bench, number) as mine:
            for k in share:
                struck = made.strike(mine, k)
                tell("struck", asdict(struck))
                if struck.faults and stop_early:
                    return

    return work
