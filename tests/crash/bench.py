"""One step, prepared: its homes, how an undisturbed run ends, and where workers put their copies.

Role: what all kinds of death share.
Reach: judge. Invariant: a worker writes below its own folder alone.
"""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.crash import actor, homes, mutants
from tests.crash.actor import Ended, Told
from tests.crash.fuses import AtStatement, Fuse
from tests.crash.judge import Final, Verdict, judge, live
from tests.crash.steps import DYING, STEPS, Step


@dataclass
class Struck:
    """One place to die: whether the process met its death there (or its fault), and what was wrong afterwards."""

    step: str
    kind: str
    k: int
    met: bool
    faults: list[str]
    what: str = ""


@dataclass
class Bench:
    step: Step
    stage: Path
    template: Path
    folder: Path
    """Of this worker alone."""
    mutant: str = ""
    final: Final | None = None
    statements: int = 0
    say: Callable[[str], None] | None = None
    """Where a replay's trace goes."""
    scratch: dict[str, int] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        return self.folder / "place"

    def fresh(self, template: Path | None = None) -> Path:
        """The step's homes, as they are before it."""
        if self.place.exists():
            shutil.rmtree(self.place)
        shutil.copytree(template or self.template, self.place)
        return self.place

    def live(self, fuse: Fuse, step: Step | None = None) -> tuple[Ended, Ended | None]:
        """The step with a fuse, and with the mutant if there is one."""
        return live(step or self.step, self.stage, self.place, mutants.armed(fuse, self.mutant))

    def judge(self, told: Told) -> Verdict:
        assert self.final is not None
        return judge(self.step, self.stage, self.place, told, self.final)

    def tell_trace(self, ended: Ended) -> None:
        if self.say is not None:
            for kind, what in ended.told:
                self.say(f"      told {kind}: {str(what)[:160]}")
            self.say(ended.complaints)
            self.say(f"      ended by signal {ended.signal}, code {ended.code}")


def make_stage(folder: Path) -> Path:
    """Makes the tree in this very process: code that has run is warm in all that are forked. Nothing stays open."""
    stage = folder / "stage"
    stage.mkdir()
    homes.make_tree(stage)
    gc.collect()
    if threading.active_count() > 1 or any(".db" in str(each.resolve()) for each in Path("/proc/self/fd").iterdir()):
        raise AssertionError("a thread or a database is open in the process that forks")
    return stage


def prepare(name: str, stage: Path, folder: Path, mutant: str = "") -> Bench:
    """Make a step's homes, and see how it ends if nothing happens."""
    step = STEPS[name]
    template = folder / f"before {name}"
    template.mkdir()
    ended = actor.run(lambda _tell: step.prepare(stage, template))  # some kill themselves on purpose
    if ended.raised is not None:
        raise AssertionError(f"{name} cannot be prepared: {ended.raised['trace']}")
    bench = Bench(step, stage, template, folder, mutant)
    bench.fresh()
    mine, theirs = live(step, stage, bench.place, AtStatement(None))
    for each in (mine, theirs):
        if each is not None and each.raised is not None:
            raise AssertionError(f"{name} fails undisturbed: {each.raised['trace']}")
    bench.statements = mine.of("count")[0]
    verdict = judge(step, stage, bench.place, mine.told, None)
    if verdict.faults:
        raise AssertionError(f"{name} undisturbed: {verdict.faults}")
    bench.final = verdict.final
    return bench


@contextmanager
def worker_of(bench: Bench, number: int) -> Iterator[Bench]:
    """The bench with a folder of its own."""
    folder = bench.folder / f"worker-{number}"
    folder.mkdir(exist_ok=True)
    try:
        yield replace(bench, folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


__all__ = ["DYING", "Bench", "Struck", "make_stage", "prepare", "worker_of"]
