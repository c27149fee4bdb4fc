"""Power cuts and failing syncs: the step is recorded once, and every disk that may be found after a cut is judged.

Role: cuts at every operation of the record; for each failing sync, cuts at every later word told.
Reach: bench, disk, shim. Invariant: only what was told before the cut is held against the survivor.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.crash import shim, story
from tests.crash.actor import Ended, Told
from tests.crash.bench import DYING, Bench, Struck
from tests.crash.disk import MODES, Disk, Image, digest_of, read_image, write_image
from tests.crash.fuses import Recorded
from tests.crash.shim import Event
from tests.crash.steps import PEER

TYPED = {"DiskFull", "StoreFault"}


@dataclass
class Record:
    """One run of the step: the home before it, its events, and how it ended."""

    home: Path
    before: Image
    events: list[Event]
    ended: Ended

    def told(self, upto: int) -> Told:
        return [tuple(json.loads(event.data)) for event in self.events[:upto] if event.op == "M"]

    def image(self, upto: int, mode: str, seed: int) -> Image:
        disk = Disk(self.home, self.before)
        for event in self.events[:upto]:
            disk.perform(event)
        return disk.image(mode, Random(f"{seed} {upto} {mode}"))


def record(bench: Bench, fail_at: int = 0) -> Record:
    bench.fresh()
    before, log = read_image(bench.place / DYING), bench.folder / "record"
    mine, _ = bench.live(Recorded(log, fail_at))
    return Record(bench.place / DYING, before, shim.read_record(log), mine)


def put(bench: Bench, image: Image, peer: Path | None) -> None:
    """Make the step's place anew with this image as the survivor's home."""
    kept = bench.folder / "peer"
    if peer is not None:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(peer, kept)
    shutil.rmtree(bench.place)
    bench.place.mkdir()
    write_image(bench.place / DYING, image)
    if peer is not None:
        shutil.copytree(kept, bench.place / PEER)


class PowerCuts:
    """The power goes after the n-th operation of the record; k counts cuts and what may be left of each."""

    name = "power"

    def missing(self) -> str:
        return shim.missing()

    def places(self, bench: Bench) -> int:
        """Records the step; images that were judged already, with the same words told, are left out."""
        self._record = record(bench)
        self._peer = _peer_after(bench)
        seen: set[tuple[bytes, int]] = set()
        self._cuts: list[tuple[int, str]] = []
        for upto in range(1, len(self._record.events) + 1):
            for mode in MODES:
                key = digest_of(self._record.image(upto, mode, 1)), len(self._record.told(upto))
                if key not in seen:
                    seen.add(key)
                    self._cuts.append((upto, mode))
        return len(self._cuts)

    def strike(self, bench: Bench, k: int) -> Struck:
        upto, mode = self._cuts[k - 1]
        told = self._record.told(upto)
        last = self._record.events[upto - 1]
        what = f"after operation {upto} ({last.op} {Path(last.path).name}), {mode} of the rest"
        if bench.say is not None:
            for number, event in enumerate(self._record.events[:upto], 1):
                bench.say(f"{number:5} {event.op} {Path(event.path).name} {event.offset} {len(event.data)}")
        bench.fresh()
        put(bench, self._record.image(upto, mode, 1), self._peer)
        return Struck(bench.step.name, self.name, k, True, bench.judge(told).faults, what)


def _peer_after(bench: Bench) -> Path | None:
    """The peer that a cut leaves. One that seals in the session is kept as it ended: it knows what it has sealed. One
    that only receives is as it was before: what it was sent after the cut it has not got."""
    if bench.step.answer is None:
        return None
    source = bench.template / PEER if bench.step.unit == story.UNIT else bench.place / PEER
    kept = bench.template.parent / f"peer of {bench.step.name}"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(source, kept)
    return kept


class FailingSyncs:
    """The k-th sync fails: a typed error and no acknowledgement, and nothing lost if what it did not write is gone."""

    name = "fsync"

    def missing(self) -> str:
        return shim.missing()

    def places(self, bench: Bench) -> int:
        bench.fresh()
        mine, _ = bench.live(Recorded(bench.folder / "record"))
        return int(mine.of("syncs")[0])

    def strike(self, bench: Bench, k: int) -> Struck:
        run = record(bench, k)
        bench.tell_trace(run.ended)
        failed = next((at for at, event in enumerate(run.events) if event.op == "X"), None)
        if failed is None:
            return Struck(bench.step.name, self.name, k, False, [])
        what = f"sync {k}, of {Path(run.events[failed].path).name or 'the home'}"
        faults = words_of(run.ended, bench)
        peer = bench.place / PEER if bench.step.answer is not None else None
        cuts = [len(run.events)]
        if peer is None:
            cuts += [at + 1 for at, event in enumerate(run.events) if event.op == "M" and at > failed]
        for upto in sorted(set(cuts)):
            for mode in ("nothing", "some"):
                if peer is not None and mode == "some":
                    continue
                put(bench, run.image(upto, mode, k), peer)
                found = bench.judge(run.told(upto)).faults
                faults += [f"cut after operation {upto}, {mode} of the rest: {fault}" for fault in found]
        return Struck(bench.step.name, self.name, k, True, faults, what)


def words_of(ended: Ended, bench: Bench) -> list[str]:
    """Every fault that the process met is ours, typed, and free of personal data. A local program has SQLite's own, and
    the commands that set up a node put the system's own errors in words."""
    foreign = "OperationalError" if bench.step.name == "capture" else "OSError" if bench.step.is_new else None
    faults = []
    for fault in (*ended.of("fault"), *ended.of("raised")):
        if fault["code"] not in TYPED and fault["type"] != foreign:
            faults.append(f"an error that is none of ours: {fault['type']}: {fault['message']}\n{fault['trace']}")
        told = [word for word in story.WORDS if word in fault["message"]]
        if told:
            faults.append(f"an error tells personal data: {told}")
    if "Traceback" in ended.complaints:
        faults.append(f"a raw traceback on standard error:\n{ended.complaints[:2000]}")
    return faults
