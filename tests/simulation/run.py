"""One seed: a tree, its clerks, its faults; then peace, and what must hold in the end.

Role: the schedule. Everything random comes from the seed; a failure carries it.
"""

from __future__ import annotations

import shutil
import traceback
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any, NoReturn
from unittest import mock

import structlog
from structlog import DropEvent

from conflict.values import Head, level_of
from node.storage.context import BrakeRule
from sync_engine import exchange
from sync_engine.errors import Fenced
from sync_engine.names import parent_of
from tests.simulation import forest
from tests.simulation.checks import Observer, Violation, check_disk, check_text, check_twice
from tests.simulation.editor import Editor
from tests.simulation.journals import check_overwritten
from tests.simulation.link import Line, Session, Watch
from tests.simulation.misfortune import Misfortune
from tests.simulation.model import within
from tests.simulation.operator import Operator
from tests.simulation.peace import Peace
from tests.simulation.process import Process, SimulatedCrash
from tests.simulation.registers import NodeCheck
from tests.simulation.registrar import Registrar
from tests.simulation.settling import Settler
from tests.simulation.swarm import Swarm
from tests.simulation.truth import NodeTruth, Truth

FEW = BrakeRule(share=0.3, rows_min=2)
STEPS_MAX = 20_000
"""No session of a short run takes a tenth of this."""


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
        self.units = forest.shape(self.rng.randrange(forest.SHAPES), self.swarm.nodes)
        self.home = forest.folder()
        self.now, self.tick = forest.BEGAN_MS, 0
        self.truth = Truth()
        self.observer = Observer(self.truth, self._say)
        self.nodes: dict[str, Process] = {}
        self.sessions: dict[str, Session] = {}
        self.lines: dict[str, Line] = {}
        deep = sorted(self.units, key=lambda unit: (-level_of(unit), self.rng.random()))
        hot = deep[: self.swarm.hot] * 4 + list(self.units)
        self.eager = [self._eagerness(unit, deep[0]) for unit in self.units[1:]]
        """How often each child calls: a backlog of several streams is what makes batches wait for each other."""
        self.editor = Editor(self.rng, self.truth, hot, self.swarm.ids, self._count, self._say)
        self.editor.nfd_rate = self.swarm.rates.get("NFD text", 0.0)
        self.editor.mass_rate = 0.1 if self.swarm.brakes else 0.0
        self.editor.shares, self.editor.favourites = self.swarm.shares, self.swarm.favourites
        if "clock" not in self.swarm.rates:
            self.truth.is_steady = True
            self.observer.on_sealed = self._sealed
        self.watch = Watch(self.observer.acked, self.observer.heads_met, self._say, self._count)
        self.misfortune = Misfortune(
            *(self.rng, self.swarm, self.nodes, self.lines, self.truth, self.observer),
            *(self._stop, self._count, self._say),
        )
        self.operator = Operator(self.rng, self.truth, self._count, self._say)
        self.settler = Settler(self.rng, self.truth, self.editor, self._count, self._say)
        self.registrar = Registrar(self.rng, self.swarm, self.nodes, self._count, self._say)
        self.peace = Peace(self.nodes, self.truth, self.observer, self.rng, self._count)
        self.peace.is_hostile = bool({"poisoned", "equivocated"} & self.swarm.rates.keys())

    def _eagerness(self, unit: str, hottest: str) -> float:
        if not self.swarm.crowded:
            return self.rng.choice([0.1, 0.3, 2, 4])
        return 0.05 if not within(hottest, unit) else 0.6 if level_of(unit) == 1 else 3

    # --- telling ---

    def _count(self, what: str) -> None:
        self.outcome.counts[what] += 1

    def _sealed(self, node: Process, digest: bytes) -> None:
        self.outcome.counts["overwritten"] += check_overwritten(node, self.truth, digest)

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
        credit = self.swarm.credit or exchange.CREDIT_BYTES
        with mock.patch.object(exchange, "CREDIT_BYTES", credit):
            return self._go()

    def _go(self) -> Outcome:
        try:
            self._begin()
            for _ in range(self.swarm.ticks):
                self.tick += 1
                self._turn()
            self._settle()
            self.peace.check()
            self.registrar.check()
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
            node.counts_syncs = bool(self.swarm.rates.get("power cut"))
            node.brake = FEW if self.swarm.brakes else node.brake
            self.nodes[unit] = node
            self.truth.nodes[unit] = NodeTruth()
            if parent_of(unit):
                self.registrar.appoint(unit)
            node.start()
            if parent_of(unit):
                rates = {fault: rate for fault, rate in self.swarm.rates.items() if self.rng.random() < 0.7}
                self.lines[unit] = Line(self.rng, self._count, (unit, str(parent_of(unit))), rates)
                self.lines[unit].on_equivocated = self._equivocated

    def _equivocated(self, one: Head, other: Head) -> None:
        self._say(f"{one.stream} {one.seq} goes out as {other.hash.hex()[:8]}, too")
        self.truth.equivocated(one.hash, other.hash)
        self.observer.two_lives.add(one.stream.origin)

    # --- one turn ---

    def _turn(self) -> None:
        rng = self.rng
        self.now += rng.choice(self.swarm.clock)
        for node in self.nodes.values():
            if node.down_until is not None and node.down_until <= self.tick:
                self._start(node)
        self.misfortune.strike()
        self.registrar.turn(self._guarded)
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
        if self.swarm.brakes and rng.random() < 0.08:
            self._anywhere(self.operator.decide)
        for what, work in self.settler.errands.items():
            if self.swarm.happens(rng, what):
                self._anywhere(work)
        if self.tick % self.swarm.check_every == 0 and up:
            node = rng.choice(up)
            if node.is_up:
                NodeCheck(node, self.truth, self._count).run()
                check_disk(node)
                check_twice(node, self.rng, self._count)

    def _anywhere(self, work: Callable[[Process], None]) -> None:
        node = self.rng.choice(list(self.nodes.values()))
        if node.is_up:
            self._guarded(node, partial(work, node))

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
        node = self.nodes[unit]
        self._count("power cut" if node.cuts_power else "crash")
        self._say(f"{unit} {'loses power' if node.cuts_power else 'crashes'}")
        if node.crash():
            self._count("torn write")
        self._stop(unit)

    def _stop(self, unit: str) -> None:
        """A process ends, and whoever talks with it loses the connection."""
        node = self.nodes[unit]
        node.stop()
        node.down_until = self.tick + self.rng.randint(1, 20)
        for child in [each for each in self.sessions if unit in (each, parent_of(each))]:
            self.sessions[child].lose(unit)
            self._reap(child)

    def _start(self, node: Process) -> None:
        node.down_until = None
        if self.swarm.happens(self.rng, "crash at start"):
            node.light(self.rng.randint(1, 30))
        try:
            node.start()
            self._say(f"{node.unit} starts")
            self.observer.started(node)
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
        self.registrar.end()
        for node in self.nodes.values():
            self.operator.decide(node)
        depth = max(map(level_of, self.units))
        for turn in range(2 * depth + 2):
            before = self.observer.progress, self.peace.proofs()
            self._round(self.rng.sample(self.units[1:], len(self.units) - 1), look=turn > 0)
            if before == (self.observer.progress, self.peace.proofs()):
                break  # another round would say the same
        if self.swarm.settles:
            self._decide_all(depth)

    def _round(self, children: Sequence[str], *, look: bool = True) -> None:
        """Each of these calls its parent, if they are not level: they would tell each other so, and end."""
        for child in children:
            if look and self.peace.are_level(self.nodes[child], self.nodes[str(parent_of(child))]):
                continue
            self._call(child)
            if child in self.sessions:
                session = self.sessions[child]
                self._to_its_end(child)
                self._judge(session)

    def _decide_all(self, depth: int) -> None:
        """Some operators decide about some of what waits, each without the others, or some codes come; then the levels
        in turn decide about all of it, the root first, so that no two decide about one thing. Nothing waits anywhere
        after that."""
        downwards = sorted(self.units[1:], key=level_of)
        if self.swarm.favourites:
            self.peace.check_nodes()
        else:
            self.editor.enter_codes(self.nodes[self.units[0]])
            self._round(downwards, look=False)
            self.peace.check_nodes()
        for turn in range(-1 if self.swarm.favourites else 0, depth + 1):
            for unit, node in self.nodes.items():
                if turn in (-1, level_of(unit)):
                    self.settler.decide(node, 0.3 if turn < 0 else 1.0)
            self._round(downwards[::-1])
            self._round(downwards)
        for node in self.nodes.values():
            self.settler.catch_up(node)
            left = node.query("SELECT id, field FROM _conflict WHERE live = 1 AND state = 'open'")
            held = node.query("SELECT id, register FROM _write WHERE held > 0 AND covered = 0")
            if left or held:
                raise Violation(f"I1: at {node.unit} something waits still: {left} {held}")
        self._count("nothing waits")

    def _judge(self, session: Session) -> None:
        """A session on a good line, between nodes that stay up: it ends well, or one of them has stopped."""
        faults = [fault for end in session.ends.values() if (fault := end.ended_with()) is not None]
        if not faults:
            self.peace.in_step(session.child, session.parent)
        elif not any(isinstance(fault, Fenced) for fault in faults):
            raise Violation(f"I16: on a good line the session of {session.child.unit} fails: {faults[0]}")

    def _to_its_end(self, child: str) -> None:
        for _ in range(STEPS_MAX):
            if child not in self.sessions:
                return
            self._frames(child)
        raise Violation(f"I16: the session of {child} does not end")


def within_any(above: str, units: Sequence[str]) -> bool:
    return any(within(unit, above) for unit in units)
