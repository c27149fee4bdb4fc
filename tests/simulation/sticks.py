"""Bundles that are carried between nodes: written now, taken in weeks later, twice, in any order, or never.

Role: let nodes write bundles for their neighbours and take in what has come, by the production code of ``export`` and
``import``; only the files are lists. Invariant: what is on its way belongs to nobody's disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from conflict.values import Epoch, UnitPath
from node import carrying
from node.local import Node
from node.storage import carried
from node.storage.certificates import check_not_replaced, path_of
from node.storage.revocations import check_not_revoked
from sync_engine.bundle import BundleHeader
from sync_engine.errors import ReplicationError
from sync_engine.names import parent_of
from tests.simulation.custody import Custody
from tests.simulation.loop import Loop
from tests.simulation.process import Process, SimulatedCrash

ON_THE_WAY_MAX = 12


@dataclass
class Bundle:
    """What stands in a file."""

    header: BundleHeader
    said: list[bytes] = field(default_factory=list)
    parts: int = 1

    def frames(self) -> Iterator[bytes]:
        return iter(self.said)


class Desk:
    """Bundles go on their way as soon as they are whole."""

    def __init__(self, sticks: list[Bundle]) -> None:
        self._sticks = sticks

    async def begin(self, _node: Node, header: BundleHeader, _child: UnitPath) -> Writer:
        return Writer(Bundle(header), self._sticks)

    async def work(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class Writer:
    """One bundle on its way."""

    size = 0

    def __init__(self, bundle: Bundle, sticks: list[Bundle]) -> None:
        self._bundle, self._sticks = bundle, sticks

    async def frame(self, data: bytes) -> None:
        self._bundle.said.append(data)

    async def finish(self) -> list[Path]:
        self._sticks.append(self._bundle)
        return []

    def drop(self) -> None:
        """Nothing is left of it."""


class DirectDatabase:
    """Stands where ``node.database.Database`` does: nothing else happens meanwhile."""

    def __init__(self, node: Process) -> None:
        self._node = node

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        self._live()
        return self._node.read(work, *args, **kwargs)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        self._live()
        return self._node.write(work, *args, **kwargs)

    write_late = write

    def _live(self) -> None:
        if self._node.has_crashed:
            raise SimulatedCrash(self._node.name)


class Post:
    """What is on its way between neighbours; ``rate`` says how often something is written or taken in."""

    def __init__(
        self,
        rng: Random,
        rate: float,
        custody: Custody,
        count: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.rng, self.rate, self.custody, self.count, self.say = rng, rate, custody, count, say
        self.sticks: list[Bundle] = []

    def turn(self, guarded: Callable[[Process, Callable[[], None]], None]) -> None:
        """Perhaps somebody writes a bundle, or takes some in."""
        if self.rng.random() >= self.rate:
            return
        if self.sticks and self.rng.random() < 0.6:
            self._arrive(guarded)
        else:
            self._leave(guarded)

    def _leave(self, guarded: Callable[[Process, Callable[[], None]], None]) -> None:
        node = self.rng.choice([each for each in self.custody.nodes.values()])
        parent = parent_of(node.unit)
        near = [*([parent] if parent else []), *self._children(node.unit)]
        if not near or not self._can(node):
            return
        to = UnitPath(self.rng.choice(near))
        self.count("stick")
        self.say(f"{node.name} writes a bundle for {to}")
        guarded(node, lambda: self._write(node, to))
        while len(self.sticks) > ON_THE_WAY_MAX:
            self.sticks.pop(self.rng.randrange(len(self.sticks)))
            self.count("stick lost")

    def _children(self, unit: str) -> list[str]:
        return sorted({each.unit for each in self.custody.nodes.values() if parent_of(each.unit) == unit})

    def _can(self, node: Process) -> bool:
        return node.is_up and node.has_tables and not node.is_refused and not node.is_blank

    def _write(self, node: Process, to: UnitPath) -> None:
        async def work(open_node: Node) -> None:
            header = await open_node.database.write(carrying.next_header, open_node, to)
            heads = await open_node.database.read(carried.named_heads, to, carrying.link_of(open_node.context.unit, to))
            said = carrying.last_words(heads)
            await carrying.exchange(open_node, to, said, header, Desk(self.sticks), carrying.NOBODY, lambda _: None)

        self._run(node, work)

    def _arrive(self, guarded: Callable[[Process, Callable[[], None]], None]) -> None:
        first = self.rng.choice(self.sticks)
        recipient = self.custody.any_of(first.header.recipient)
        if not self._can(recipient) or not self._knows(recipient, first.header):
            return
        some = [each for each in self.sticks if _route(each) == _route(first) and self._knows(recipient, each.header)]
        taken = self.rng.sample(some, self.rng.randint(1, len(some)))
        for each in taken:
            if self.rng.random() < 0.6:  # else it comes once more
                self.sticks.remove(each)
            else:
                self.count("stick comes again")
        self.say(f"{recipient.name} takes in {len(taken)} of {first.header.sender}")
        guarded(recipient, lambda: self._take(recipient, taken))

    def _knows(self, node: Process, header: BundleHeader) -> bool:
        """Whether a node has the certificate of a bundle's sender, and would take its call."""
        unit, epoch = header.sender, Epoch(header.epoch)
        if node.look(path_of, unit, epoch) is None:
            return False
        try:
            node.look(check_not_revoked, unit, epoch)
            node.look(check_not_replaced, unit, epoch)
        except ReplicationError:
            return False
        return True

    def _take(self, node: Process, bundles: Sequence[Bundle]) -> None:
        async def work(open_node: Node) -> None:
            newest = await open_node.database.read(carried.newest, [each.header for each in bundles])
            header = await open_node.database.write(carrying.next_header, open_node, bundles[0].header.sender)
            self.count("stick taken in" if newest is not None else "old stick taken in")
            await carrying.exchange_all(open_node, bundles, newest, header, Desk(self.sticks), lambda _: None)

        self._run(node, work)

    def _run(self, node: Process, work: Callable[[Node], Any]) -> None:
        """To its end, with nothing between. Raises SimulatedCrash."""
        loop = Loop()
        keys = SimpleNamespace(certified=SimpleNamespace(sha256=b""))
        open_node = Node(node.path, cast(Any, None), cast(Any, keys), node.context, cast(Any, DirectDatabase(node)))
        task = loop.create_task(work(open_node))
        loop.settle()
        if not task.done():
            raise AssertionError(f"{node.name} does not come to the end of a bundle")
        fault = task.exception()
        if isinstance(fault, ReplicationError):
            self.count("stick refused")
            self.say(f"{node.name}: {type(fault).__name__} {fault}")
        elif fault is not None:
            raise fault


def _route(bundle: Bundle) -> tuple[str, str]:
    return bundle.header.sender, bundle.header.recipient
