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
from pathlib import Path
from random import Random
from typing import Any, NoReturn
from unittest import mock

import structlog
from structlog import DropEvent

from conflict.values import Head, level_of
from node import local
from node.storage.context import BrakeRule
from sync_engine import exchange
from sync_engine.names import parent_of
from tests.simulation import forest
from tests.simulation.calm import Calm
from tests.simulation.checks import Violation, check_disk, check_text, check_twice
from tests.simulation.custody import Custody
from tests.simulation.editor import Editor
from tests.simulation.following import Observer
from tests.simulation.journals import check_overwritten
from tests.simulation.link import Line, Session, Watch
from tests.simulation.lives import Life
from tests.simulation.misfortune import Misfortune
from tests.simulation.model import within
from tests.simulation.operator import Operator
from tests.simulation.peace import Peace
from tests.simulation.process import Process, SimulatedCrash
from tests.simulation.registers import NodeCheck
from tests.simulation.registrar import Registrar
from tests.simulation.settling import Settler
from tests.simulation.sticks import Post
from tests.simulation.swarm import Swarm
from tests.simulation.truth import NodeTruth, Truth

FEW = BrakeRule(share=0.3, rows_min=2)


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


STICKS_SHARE = 0.4
"""Of the seeds: in these bundles are carried by hand besides."""


class Run:
    def __init__(self, seed: int, *, long: bool = False, kind: str | None = None) -> None:
        self.seed, self.outcome = seed, Outcome(seed)
        self.rng = Random(seed)
        self.swarm = Swarm.drawn(self.rng, long=long, kind=kind)
        self.units = forest.shape(self.rng.randrange(forest.SHAPES), self.swarm.nodes)
        self.home = forest.folder()
        self.now, self.tick = forest.BEGAN_MS, 0
        self.truth = Truth()
        self.observer = Observer(self.truth, self.say, self.count)
        self.nodes: dict[str, Process] = {}
        self.sessions: dict[str, Session] = {}
        self.lines: dict[str, Line] = {}
        deep = sorted(self.units, key=lambda unit: (-level_of(unit), self.rng.random()))
        hot = deep[: self.swarm.hot] * 4 + list(self.units)
        self.eager = [self._eagerness(unit, deep[0]) for unit in self.units[1:]]
        """How often each child calls: a backlog of several streams is what makes batches wait for each other."""
        self.editor = Editor(self.rng, self.truth, hot, self.swarm.ids, self.count, self.say)
        self.editor.nfd_rate = self.swarm.rates.get("NFD text", 0.0)
        self.editor.mass_rate = 0.1 if self.swarm.brakes else 0.0
        self.editor.shares, self.editor.favourites = self.swarm.shares, self.swarm.favourites
        if "clock" not in self.swarm.rates:
            self.truth.is_steady = True
            self.observer.on_sealed = self._sealed
        self.watch = Watch(self.observer.acked, self.observer.is_news, self.observer.learnt, self.say, self.count)
        self.misfortune = Misfortune(
            *(self.rng, self.swarm, self.nodes, self.lines, self.truth, self.observer),
            *(self._stop, self._add, self.count, self.say),
        )
        self.custody = Custody(self.rng, self.nodes, self.switch_off, self.count, self.say)
        fate = Random(f"sticks {seed}")  # of its own: what else happens in a seed is what it was before
        rate = fate.uniform(0.02, 0.15) if fate.random() < STICKS_SHARE else 0.0
        self.post = Post(fate, rate, self.custody, self.count, self.say)
        self.operator = Operator(self.rng, self.truth, self.count, self.say)
        self.settler = Settler(self.rng, self.truth, self.editor, self.count, self.say)
        self.registrar = Registrar(self.rng, self.swarm, self.nodes, self.count, self.say)
        self.peace = Peace(self.nodes, self.truth, self.observer, self.rng, self.count)
        self.peace.is_hostile = bool({"poisoned", "equivocated"} & self.swarm.rates.keys())

    def _eagerness(self, unit: str, hottest: str) -> float:
        if not self.swarm.crowded:
            return self.rng.choice([0.1, 0.3, 2, 4])
        return 0.05 if not within(hottest, unit) else 0.6 if level_of(unit) == 1 else 3

    # --- telling ---

    def count(self, what: str) -> None:
        self.outcome.counts[what] += 1

    def _sealed(self, node: Process, digest: bytes) -> None:
        self.outcome.counts["overwritten"] += check_overwritten(node, self.truth, digest)

    def say(self, text: str) -> None:
        self.outcome.trace.append(f"{self.tick:5} {text}")

    # --- the whole ---

    def prepare(self) -> None:
        """Put the tree's files in place."""
        forest.plant(self.units, self.home)

    def _logged(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """The product's log lines go into the trace; what people have entered is in none of them (I13)."""
        line = " ".join([str(event.pop("event")), *(f"{key}={value}" for key, value in event.items())])
        self.say(f"log: {line}")
        check_text(line)
        raise DropEvent

    def go(self) -> Outcome:
        structlog.configure(processors=[self._logged])
        credit = self.swarm.credit or exchange.CREDIT_BYTES
        with (
            mock.patch.object(exchange, "CREDIT_BYTES", credit),
            mock.patch.object(local.key_files, "request", self._request),
        ):
            return self._go()

    def _request(self, home: Path, _unit: str, *, with_ca: bool, fresh: bool) -> Life:
        """Keys for a new life of the node whose database this is."""
        assert fresh, "an epoch out of an old image may have been lived already"
        assert not with_ca
        node = next(node for node in self.nodes.values() if node.path == home)
        self.count("new life")
        life = node.keys.request(f"{self.rng.getrandbits(64):016x}")
        self.say(f"{node.name} leaves {node.context.epoch[:4]} for {life.epoch[:4]}")
        return life

    def _go(self) -> Outcome:
        try:
            self._begin()
            for _ in range(self.swarm.ticks):
                self.tick += 1
                self._turn()
            Calm(self).settle()
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
            self._add(unit, unit)
        for unit in self.units:
            self.nodes[unit].start()

    def _add(self, unit: str, name: str) -> Process:
        """A machine for a unit, and its line to the parent's."""
        node = Process(unit, self.home, self.rng, lambda: self.now, name)
        node.on_commit = self.observer.committed
        node.counts_syncs = bool(self.swarm.rates.get("power cut"))
        node.brake = FEW if self.swarm.brakes else node.brake
        self.nodes[name] = node
        self.truth.nodes[name] = NodeTruth()
        if parent_of(unit):
            self.registrar.appoint(name)
            rates = {fault: rate for fault, rate in self.swarm.rates.items() if self.rng.random() < 0.7}
            self.lines[name] = Line(self.rng, self.count, (unit, str(parent_of(unit))), rates)
            self.lines[name].on_equivocated = self._equivocated
        return node

    def switch_off(self, node: Process) -> None:
        """A machine is taken away for ever, and what was on its disk alone."""
        self.say(f"{node.name} is switched off")
        self.count("switched off")
        self._stop(node.name)
        del self.nodes[node.name]
        self.lines.pop(node.name)

    def _equivocated(self, one: Head, other: Head) -> None:
        self.say(f"{one.stream} {one.seq} goes out as {other.hash.hex()[:8]}, too")
        self.truth.equivocated(one.hash, other.hash)
        stream = one.stream
        place = (stream.origin, stream.epoch, stream.scope), one.seq
        self.observer.places.setdefault(place, set()).update({one.hash, other.hash})
        self.observer.restored.add(stream.origin)

    # --- one turn ---

    def _turn(self) -> None:
        rng = self.rng
        self.now += rng.choice(self.swarm.clock)
        for node in self.nodes.values():
            if node.down_until is not None and node.down_until <= self.tick:
                self.start(node)
        self.misfortune.strike(self.tick)
        self.registrar.turn(self._guarded)
        self.post.turn(self._guarded)
        up = [node for node in self.nodes.values() if node.is_up]
        what = rng.choices(["edit", "seal", "call", "frames"], [5, 2, 2, 6])[0]
        if what == "edit" and up:
            node = rng.choice([each for each in up if within_any(each.unit, self.editor.hot)] or up)
            self._guarded(node, lambda: self.editor.edit(node))
        elif what == "seal" and up:
            self._guarded(node := rng.choice(up), lambda: self._seal(node))
        elif what == "call":
            self.call(self.custody.any_of(rng.choices(self.units[1:], self.eager)[0]).name)
        elif self.sessions:
            for _ in range(rng.randint(1, 30)):
                if self.sessions:
                    self.frames(rng.choice(sorted(self.sessions)))
        self._operators()
        if self.tick % self.swarm.check_every == 0 and up:
            node = rng.choice(up)
            if node.is_up and node.has_tables:
                NodeCheck(node, self.truth, self.count, self.nodes.values(), self.observer.restored).run()
                check_disk(node)
                check_twice(node, self.rng, self.count)

    def _operators(self) -> None:
        if self.swarm.brakes and self.rng.random() < 0.08:
            self._anywhere(self.operator.decide)
        if self.swarm.happens(self.rng, "operator"):
            self.custody.decide()
        for what, work in self.settler.errands.items():
            if self.swarm.happens(self.rng, what):
                self._anywhere(work)

    def _anywhere(self, work: Callable[[Process], None]) -> None:
        node = self.rng.choice(list(self.nodes.values()))
        if node.is_up and node.has_tables:
            self._guarded(node, partial(work, node))

    def _seal(self, node: Process) -> None:
        node.seal_one()

    def _guarded(self, node: Process, work: Callable[[], object]) -> None:
        """Work that a crash may end."""
        try:
            work()
        except SimulatedCrash as crash:
            self._crashed(str(crash))

    def _crashed(self, name: str) -> None:
        node = self.nodes[name]
        self.count("power cut" if node.cuts_power else "crash")
        self.say(f"{name} {'loses power' if node.cuts_power else 'crashes'}")
        if node.crash():
            self.count("torn write")
        self._stop(name)

    def _stop(self, name: str) -> None:
        """A process ends, and whoever talks with it loses the connection."""
        node = self.nodes[name]
        node.stop()
        node.down_until = self.tick + self.rng.randint(1, 20)
        for child, session in list(self.sessions.items()):
            if node in (session.child, session.parent):
                session.lose(node.unit)
                self._reap(child)

    def start(self, node: Process) -> None:
        node.down_until = None
        if node.is_blank and not self.custody.rebuild(node):
            node.down_until = self.tick + self.rng.randint(1, 5)
            return
        if self.swarm.happens(self.rng, "crash at start"):
            node.light(self.rng.randint(1, 30))
        try:
            node.start()
            self.say(f"{node.name} starts")
            self.observer.started(node)
        except SimulatedCrash:
            self.count("crash at start")
            self._crashed(node.name)

    def call(self, child: str) -> None:
        one = self.nodes[child]
        other = self.custody.any_of(str(parent_of(one.unit)))
        if child in self.sessions or max(one.alone_until, other.alone_until) > self.tick:
            return
        self._guarded(one, partial(self._introduce, one, other))
        if one.is_up and other.is_up and not one.is_refused:
            self.say(f"{child} calls" if other.name == other.unit else f"{child} calls {other.name}")
            self.sessions[child] = Session(one, other, self.lines[child], self.watch)

    def _introduce(self, child: Process, parent: Process) -> None:
        """What comes before a session: certificates."""
        if child.is_up and parent.is_up:
            if parent_of(parent.unit) is None:
                self.custody.certify(parent, None)
            self.custody.certify(child, parent)
            self.custody.meet(child, parent)

    def frames(self, child: str) -> None:
        session = self.sessions[child]
        if session.line.happens("cut"):
            self.say(f"the line of {child} is cut")
            session.cut()
        session.step(self.rng)
        for node in (session.child, session.parent):
            if node.has_crashed:
                self._crashed(node.name)
        self._reap(child)

    def _reap(self, child: str) -> None:
        if child in self.sessions and self.sessions[child].over:
            self.say(f"the session of {child} is over")
            del self.sessions[child]


def within_any(above: str, units: Sequence[str]) -> bool:
    return any(within(unit, above) for unit in units)
