"""One seed: a tree, its clerks, its faults; then peace, and what must hold in the end.

Role: the schedule. Everything random comes from the seed; a failure carries it.
"""

from __future__ import annotations

import shutil
import traceback
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, NoReturn

import structlog
from structlog import DropEvent

from conflict.values import level_of
from node.storage.digests import digest_scope
from sync_engine.names import parent_of
from tests.simulation import forest
from tests.simulation.checks import Followed, Observer, Violation, check_disk, check_text, require
from tests.simulation.editor import Editor
from tests.simulation.link import Line, Session, Watch
from tests.simulation.model import within
from tests.simulation.process import Process, SimulatedCrash
from tests.simulation.registers import NodeCheck
from tests.simulation.swarm import YEAR_MS, Swarm
from tests.simulation.truth import NodeTruth, Truth


STEPS_MAX = 20_000
"""No session of a short run takes a tenth of this."""


@dataclass
class Image:
    files: dict[str, bytes]
    truth: NodeTruth
    followed: Followed


@dataclass
class Outcome:
    seed: int
    failure: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """The same for the same seed: a run that cannot be replayed is worth nothing."""
        return sha256("\n".join(self.trace).encode()).hexdigest()[:16]


class Run:
    def __init__(self, seed: int, *, long: bool = False, kind: str | None = None) -> None:
        self.seed, self.outcome = seed, Outcome(seed)
        self.rng = Random(seed)
        self.swarm = Swarm.drawn(self.rng, long=long, kind=kind)
        self.units = forest.shape(self.rng.randrange(forest.SHAPES), 60 if long else 12)
        self.home = forest.folder()
        self.now, self.tick = forest.BEGAN_MS, 0
        self.truth = Truth()
        self.observer = Observer(self.truth, self._say)
        self.nodes: dict[str, Process] = {}
        self.sessions: dict[str, Session] = {}
        self.lines: dict[str, Line] = {}
        self.images: dict[str, Image] = {}
        self.digests: dict[tuple[str, str], dict[str, bytes]] = {}
        deep = sorted(self.units, key=lambda unit: (-level_of(unit), self.rng.random()))
        hot = deep[: self.swarm.hot] * 4 + list(self.units)
        self.eager = [self._eagerness(unit, deep[0]) for unit in self.units[1:]]
        """How often each child calls: a backlog of several streams is what makes batches wait for each other."""
        self.editor = Editor(self.rng, self.truth, hot, self.swarm.ids, self._count, self._say)
        self.editor.nfd_rate = self.swarm.rates.get("NFD text", 0.0)
        self.watch = Watch(self.observer.acked, self.observer.heads_met, self._say, self._count)

    def _eagerness(self, unit: str, hottest: str) -> float:
        if not self.swarm.crowded:
            return self.rng.choice([0.1, 0.3, 2, 4])
        return 0.05 if not within(hottest, unit) else 0.6 if level_of(unit) == 1 else 3

    # --- telling ---

    def _count(self, what: str) -> None:
        self.outcome.counts[what] += 1

    def _say(self, text: str) -> None:
        self.outcome.trace.append(f"{self.tick:5} {text}")

    # --- the whole ---

    def prepare(self) -> None:
        """Put the tree's files in place."""
        forest.plant(self.units, self.home)

    def _logged(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """The product's log lines go into the trace; what people have entered is in none of them (I13)."""
        line = " ".join([str(event.pop("event")), *(f"{key}={value}" for key, value in event.items())])
        self._say(f"log: {line}")
        check_text(line)
        raise DropEvent

    def go(self) -> Outcome:
        structlog.configure(processors=[self._logged])
        try:
            self._begin()
            for _ in range(self.swarm.ticks):
                self.tick += 1
                self._turn()
            self._settle()
            self._final()
        except Exception as error:
            self.outcome.failure = f"{type(error).__name__}: {error}"
            if not isinstance(error, Violation):
                self.outcome.failure += "\n" + traceback.format_exc()
        finally:
            for session in self.sessions.values():
                session.forget()
            for node in self.nodes.values():
                node.stop()
            shutil.rmtree(self.home, ignore_errors=True)
        return self.outcome

    def _begin(self) -> None:
        for unit in self.units:
            node = Process(unit, self.home, self.rng, lambda: self.now)
            node.on_commit = self.observer.committed
            self.nodes[unit] = node
            self.truth.nodes[unit] = NodeTruth()
            node.start()
            if parent_of(unit):
                rates = {fault: rate for fault, rate in self.swarm.rates.items() if self.rng.random() < 0.7}
                self.lines[unit] = Line(self.rng, self._count, rates)

    # --- one turn ---

    def _turn(self) -> None:
        rng = self.rng
        self.now += rng.choice(self.swarm.clock)
        for node in self.nodes.values():
            if node.down_until is not None and node.down_until <= self.tick:
                self._start(node)
        self._misfortune()
        up = [node for node in self.nodes.values() if node.is_up]
        what = rng.choices(["edit", "seal", "call", "frames"], [5, 2, 2, 6])[0]
        if what == "edit" and up:
            node = rng.choice([each for each in up if within_any(each.unit, self.editor.hot)] or up)
            self._guarded(node, lambda: self.editor.edit(node))
        elif what == "seal" and up:
            self._guarded(node := rng.choice(up), lambda: self._seal(node))
        elif what == "call":
            self._call(rng.choices(self.units[1:], self.eager)[0])
        elif self.sessions:
            for _ in range(rng.randint(1, 30)):
                if self.sessions:
                    self._frames(rng.choice(sorted(self.sessions)))
        if self.tick % self.swarm.check_every == 0 and up:
            node = rng.choice(up)
            if node.is_up:
                NodeCheck(node, self.truth).run()

    def _seal(self, node: Process) -> None:
        if not node.is_fenced:
            node.seal_one()

    def _guarded(self, node: Process, work: Callable[[], object]) -> None:
        """Work that a crash may end."""
        try:
            work()
        except SimulatedCrash as crash:
            self._crashed(str(crash))

    def _crashed(self, unit: str) -> None:
        self._count("crash")
        self._say(f"{unit} crashes")
        self._stop(unit)

    def _stop(self, unit: str) -> None:
        node = self.nodes[unit]
        node.stop()
        node.down_until = self.tick + self.rng.randint(1, 20)
        for child in [each for each in self.sessions if unit in (each, parent_of(each))]:
            self.sessions[child].lose(unit)
            self._reap(child)

    def _start(self, node: Process) -> None:
        node.down_until = None
        if self.swarm.happens(self.rng, "crash at start"):
            node.fuse = self.rng.randint(1, 30)
        try:
            node.start()
            self._say(f"{node.unit} starts")
        except SimulatedCrash:
            self._count("crash at start")
            self._crashed(node.unit)

    def _call(self, child: str) -> None:
        one, other = self.nodes[child], self.nodes[str(parent_of(child))]
        if child in self.sessions or not (one.is_up and other.is_up):
            return
        if any(node.is_fenced for node in (one, other)):
            return
        self._say(f"{child} calls")
        self.sessions[child] = Session(one, other, self.lines[child], self.watch)

    def _frames(self, child: str) -> None:
        session = self.sessions[child]
        if session.line.happens("cut"):
            self._say(f"the line of {child} is cut")
            session.cut()
        session.step(self.rng)
        for node in (session.child, session.parent):
            if node.has_crashed:
                self._crashed(node.unit)
        self._reap(child)

    def _reap(self, child: str) -> None:
        if child in self.sessions and self.sessions[child].over:
            self._say(f"the session of {child} is over")
            del self.sessions[child]

    # --- faults ---

    def _misfortune(self) -> None:
        rng, swarm = self.rng, self.swarm
        node = self.nodes[rng.choice(self.units)]
        if node.is_up and node.fuse is None and swarm.happens(rng, "crash"):
            node.fuse = rng.randint(1, 120)
        if swarm.happens(rng, "clock"):
            jump = rng.choice([-10 * YEAR_MS, 10 * YEAR_MS, -forest.BEGAN_MS, 0, 60_000, -60_000])
            node.skew_ms = jump
            self._count("clock jump" if jump else "clock set right")
            self._say(f"{node.unit}'s clock is off by {jump} ms")
        line = self.lines[rng.choice(self.units[1:])]
        if swarm.happens(rng, "slow line"):
            line.slow = rng.choice([1, 4])
            self._count("slow line")
        if swarm.happens(rng, "partition"):
            child = next(unit for unit, each in self.lines.items() if each is line)
            ends = [child, str(parent_of(child))]
            line.blocked = set(rng.choice([[], ends[:1], ends[1:], ends]))
        fresh = node.unit not in self.images or rng.random() < 0.2
        if node.is_up and fresh and swarm.happens(rng, "image"):
            followed = self.observer.followed.setdefault(node.unit, Followed()).copy()
            self.images[node.unit] = Image(node.image(), self.truth.nodes[node.unit].copy(), followed)
        if self.images and swarm.happens(rng, "restore"):
            self._restore(rng.choice(sorted(self.images)))

    def _restore(self, unit: str) -> None:
        image = self.images[unit]
        self._count("restore")
        self._say(f"{unit} is restored from an old copy")
        self._stop(unit)
        self.nodes[unit].restore(image.files)
        self.truth.nodes[unit] = image.truth.copy()
        self.observer.followed[unit] = image.followed.copy()
        self.observer.restored.add(unit)
        self.observer.knows.discard(unit)

    # --- peace ---

    def _settle(self) -> None:
        for line in self.lines.values():
            line.rates, line.blocked, line.slow = {}, set(), 1
        self.swarm.rates = {}
        for node in self.nodes.values():
            node.fuse = None
        for child, session in list(self.sessions.items()):
            session.cut()
            self._to_its_end(child)
        for node in self.nodes.values():
            if not node.is_up:
                self._start(node)
        depth = max(map(level_of, self.units))
        for _ in range(2 * depth + 2):
            before = self.observer.progress
            for child in self.rng.sample(self.units[1:], len(self.units) - 1):
                self._call(child)
                self._to_its_end(child)
            if self.observer.progress == before:
                break  # another round would say the same

    def _to_its_end(self, child: str) -> None:
        for _ in range(STEPS_MAX):
            if child not in self.sessions:
                return
            self._frames(child)
        raise Violation(f"I16: the session of {child} does not end")

    def _final(self) -> None:
        for node in self.nodes.values():
            NodeCheck(node, self.truth).run()
            check_disk(node)
        fenced = {unit for unit, node in self.nodes.items() if node.is_fenced}
        self.outcome.counts["fenced"] += len(fenced)
        require(not fenced or bool(self.observer.restored), lambda: f"I11: {fenced} fenced without a restore")
        for child in self.units[1:]:
            one, other = self.nodes[child], self.nodes[str(parent_of(child))]
            if not fenced & {one.unit, other.unit}:
                self._same_heads(one, other)
                self._same_digests(one, other)
                self._same_conflicts(one, other)

    def _same_heads(self, one: Process, other: Process) -> None:
        """I16; after a restore a stream may be frozen, and what waits for it waits."""
        columns = "origin, epoch, scope, held_seq, held_hash, applied_seq, applied_hash, state"
        both = []
        for node in (one, other):
            rows = node.query(f"SELECT {columns} FROM _stream WHERE held_seq > 0")
            both.append({row[:3]: row[3:] for row in rows})
        for stream in sorted({*both[0], *both[1]}):
            if not travels_on(stream[2], one.unit):
                continue
            mine, theirs = both[0].get(stream), both[1].get(stream)
            frozen = any(row is not None and row[-1] != "open" for row in (mine, theirs))
            if self.observer.restored:
                same = frozen or (mine and mine[:2]) == (theirs and theirs[:2])
            else:
                same = mine == theirs and not frozen and mine is not None and mine[0] == mine[2]
            require(bool(same), lambda s=stream, m=mine, t=theirs: f"I16: {one.unit} {m}, {other.unit} {t} in {s}")  # type: ignore[misc]
        if frozen_somewhere(both):
            self._count("frozen stream")
            require(bool(self.observer.restored), lambda: f"I10: {one.unit} or {other.unit} froze a stream")

    def _scopes(self, one: Process, other: Process) -> list[str]:
        """Scopes in which both have applied exactly the same."""
        both = []
        for node in (one, other):
            found: dict[str, set[bytes]] = {}
            for scope, digest in node.query("SELECT scope, applied_hash FROM _stream WHERE applied_seq > 0"):
                found.setdefault(scope, set()).add(digest)
            both.append(found)
        return sorted(scope for scope in both[0] if both[0][scope] == both[1].get(scope))

    def _same_digests(self, one: Process, other: Process) -> None:
        for scope in self._scopes(one, other):
            mine, theirs = (self._digest(node, scope) for node in (one, other))
            for column in sorted({*mine} & {*theirs}):
                require(
                    mine[column] == theirs[column],
                    lambda s=scope, c=column: f"I6: {one.unit} and {other.unit} differ in {c} of {s}",  # type: ignore[misc]
                )

    def _digest(self, node: Process, scope: str) -> dict[str, bytes]:
        if (node.unit, scope) not in self.digests:
            self.digests[(node.unit, scope)] = node.look(digest_scope, node.context, scope).columns
        return self.digests[(node.unit, scope)]

    def _same_conflicts(self, one: Process, other: Process) -> None:
        scopes = set(self._scopes(one, other))
        both = []
        for node in (one, other):
            rows = node.query(
                "SELECT name, number, field FROM _conflict JOIN _scope ON _scope.no = scope"
                " WHERE live = 1 AND state = 'open'"
            )
            both.append({row for row in rows if row[0] in scopes})
        self.outcome.counts["open conflict"] += len(both[0])
        require(
            both[0] == both[1], lambda: f"I6: {one.unit} and {other.unit} have other conflicts: {both[0] ^ both[1]}"
        )


def travels_on(scope: str, child: str) -> bool:
    """Whether a scope travels on a child's link, by the words of the design."""
    unit, _, kind = scope.partition("/")
    below = unit == child or unit.endswith("." + child)
    above = child.endswith("." + unit)
    return kind == "registry" or below or (kind == "catalog" and above)


def within_any(above: str, units: Sequence[str]) -> bool:
    return any(within(unit, above) for unit in units)


def frozen_somewhere(both: list[dict[tuple[str, ...], tuple[object, ...]]]) -> bool:
    return any(row[-1] != "open" for found in both for row in found.values())
