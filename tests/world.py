"""Whole nodes in this process, on real SQLite files: made fast, joined without a network, synced by hand.

``World(tmp_path).node("hue.vn")`` gives a node of the tree; ``world.sync(child)`` is one exchange with its parent,
run by the production state machine over lists instead of a link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, Engine

from conflict.values import Scope, UnitPath
from node.starter import starter_catalog
from node.storage.batches import lacking, stored_batch
from node.storage.certificates import keep_path, path_of
from node.storage.context import BrakeRule, Context
from node.storage.engine import execute, open_engine
from node.storage.inbox import SealFirst, Taken, apply_waiting, next_ready, take
from node.storage.outbox import sendable
from node.storage.proving import verify
from node.storage.receipts import draw, keep
from node.storage.sealing import seal_next
from node.storage.setup import name_unit, open_database, publish_root
from node.storage.statements import for_link, keep_all
from node.telling import begin
from sync_engine.batch import parse_batch
from sync_engine.errors import NotYet
from sync_engine.exchange import Exchange, PeerHolds, PeerRefused, Send, Ship, Span, Store, StoreCertificates
from sync_engine.frames import BatchFrame, Certificates, Statements, decode, encode
from sync_engine.names import parent_of
from sync_engine.names import path_of as units_up
from sync_engine.registry import parse_registry
from sync_engine.statements import lives_of
from sync_engine.telling import KeepReceipt, KeepStatements, SignReceipt
from tests.pki import EPOCH, Tree

SHIPPED = (Path(__file__).parent.parent / "node" / "registry" / "membership.toml").read_text(encoding="utf-8")


@dataclass
class WorldNode:
    unit: str
    context: Context
    engine: Engine
    path: Path
    certificate: bytes

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            connection.execution_options(reads_only=True)
            yield connection

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a local program does: capture sees it."""
        with self.write() as connection:
            result = execute(connection, statement, values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def seal(self) -> int:
        count = 0
        while True:
            with self.write() as connection:
                step = seal_next(connection, self.context)
            if step is None:
                return count
            count += step.head is not None

    def take(self, data: bytes) -> Taken:
        with self.read() as connection:
            verified = verify(connection, self.context, data)
        while True:
            try:
                with self.write() as connection:
                    outcome = take(connection, self.context, verified)
                break
            except SealFirst:
                self.seal()
        self.apply_ready()
        return outcome.taken

    def rewrite(self, work: Callable[..., Any], *args: Any) -> Any:
        """What a command does that rewrites a table."""
        while True:
            try:
                with self.write() as connection:
                    return work(connection, self.context, *args)
            except SealFirst:
                self.seal()

    def look(self, work: Callable[..., Any], *args: Any) -> Any:
        with self.read() as connection:
            return work(connection, self.context, *args)

    def apply_ready(self) -> None:
        while True:
            with self.read() as connection:
                stream = next_ready(connection, self.context)
            if stream is None:
                return
            with self.write() as connection:
                apply_waiting(connection, self.context, stream)


NEVER_BRAKES = BrakeRule(share=1.0)
"""Tests change most of a few rows at once."""


FRESH = Tree()
"""Stands for a tree of the world's own."""

TEMPLATES: dict[tuple[str, int, int, str], tuple[Tree, dict[str, bytes], Any]] = {}
"""What a first ``node(unit)`` makes: the tree, the files by unit, and chance as it is left."""


@dataclass
class World:
    folder: Path
    registry: str = SHIPPED
    seed: int = 1
    now: int = 1_800_000_000_000
    brake: BrakeRule = NEVER_BRAKES
    tree: Tree = field(default_factory=lambda: FRESH)
    nodes: dict[str, WorldNode] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)

    def node(self, unit: str) -> WorldNode:
        """The node of a unit, its ancestors' made first."""
        if not self.nodes and self.tree is FRESH:
            self._plant(unit)
        if unit not in self.nodes:
            self.nodes[unit] = self._make(unit)
        return self.nodes[unit]

    def _plant(self, unit: str) -> None:
        """A path made before is copied, keys and all: its making takes longer than most tests."""
        what = (self.registry, self.seed, self.now, unit)
        if what in TEMPLATES:
            self.tree, files, chance = TEMPLATES[what]
            self.rng.setstate(chance)
            for each, data in files.items():
                (self.folder / f"{each}.db").write_bytes(data)
                self.nodes[each] = self._open(each)
            return
        self.tree = Tree()
        self.nodes[unit] = self._make(unit)
        for node in self.nodes.values():
            node.engine.dispose()  # the last connection that closes leaves one whole file
        files = {each: node.path.read_bytes() for each, node in self.nodes.items()}
        TEMPLATES[what] = (self.tree, files, self.rng.getstate())

    def _open(self, unit: str) -> WorldNode:
        made = self.tree.node(unit, EPOCH)
        context = Context(
            unit=UnitPath(unit),
            epoch=made.epoch,
            tree_id=self.tree.tree_id,
            sign=made.signer,
            salt=lambda: self.rng.randbytes(16),
            now_ms=lambda: self.now,
            brake=self.brake,
        )
        path = self.folder / f"{unit}.db"
        return WorldNode(unit, context, open_engine(path), path, made.path[0])

    def _make(self, unit: str) -> WorldNode:
        above = parent_of(unit)
        parent = None if above is None else self.node(above)
        node = self._open(unit)
        with node.write() as connection:
            open_database(connection, node.context)
            keep_path(connection, self.tree.node(unit, EPOCH).path, self.tree.tree_id)
            if parent is None:
                publish_root(connection, node.context, parse_registry(self.registry), unit, starter_catalog())
        if parent is not None:
            with parent.write() as connection:
                execute(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (unit,))
                name_unit(connection, unit, unit)
            self.nodes[unit] = node
            self.sync(unit)
        return node

    def sync(self, unit: str) -> int:
        """One exchange of a unit with its parent; returns the number of frames."""
        child, parent = self.node(unit), self.node(str(parent_of(unit)))
        for node in (child, parent):
            node.apply_ready()
            node.seal()
        sides = {}
        for node, peer in ((child, parent), (parent, child)):
            with node.read() as connection:
                exchange = begin(connection, node.context, UnitPath(unit), UnitPath(peer.unit), b"")
            sides[node.unit] = (node, peer, exchange)
        queue: deque[tuple[str, bytes]] = deque()
        frames = 0
        self._perform(*sides[unit], sides[unit][2].start(), queue)
        while queue:
            to, data = queue.popleft()
            frames += 1
            node, peer, exchange = sides[to]
            frame = decode(data)
            assert frame is not None
            self._perform(node, peer, exchange, exchange.on_frame(frame), queue)
        return frames

    def _perform(
        self, node: WorldNode, peer: WorldNode, exchange: Exchange, effects: list[Any], queue: deque[tuple[str, bytes]]
    ) -> None:
        for effect in effects:
            match effect:
                case Send(frame):
                    queue.append((peer.unit, encode(frame)))
                case StoreCertificates(paths):
                    with node.write() as connection:
                        for path in paths:
                            keep_path(connection, path, self.tree.tree_id)
                case Store(data):
                    batch = parse_batch(data)
                    try:
                        node.take(data)
                    except NotYet as fault:
                        said = exchange.on_refused(batch.head, str(fault), len(data))
                    else:
                        said = exchange.on_stored(batch.head, len(data))
                    self._perform(node, peer, exchange, said, queue)
                case KeepStatements(statements):
                    with node.write() as connection:
                        keep_all(connection, node.context, statements)
                case SignReceipt(scopes):
                    self._sign(node, exchange, scopes, queue)
                    self._perform(node, peer, exchange, exchange.on_receipt_sent(), queue)
                case KeepReceipt(receipt):
                    with node.write() as connection:
                        signer = (UnitPath(peer.unit), peer.context.epoch)
                        keep(connection, node.context, exchange.child, signer, receipt)
                    self._perform(node, peer, exchange, exchange.on_receipt_kept(), queue)
                case Ship(scopes):
                    self._say(node, exchange, queue)
                    self._ship(node, peer, exchange, scopes, queue)
                    self._perform(node, peer, exchange, exchange.on_shipped(), queue)
                case PeerHolds() | PeerRefused():
                    pass

    def _say(self, node: WorldNode, exchange: Exchange, queue: deque[tuple[str, bytes]]) -> None:
        """What is known of the scopes of which the peer knows something else."""
        with node.read() as connection:
            for each in for_link(connection, exchange.child, exchange.telling.untold):
                paths = (path_of(connection, *life) for life in sorted(lives_of(each.said)))
                known = tuple(path for path in paths if path is not None)
                queue.append((exchange.peer, encode(Certificates(known))))
                queue.append((exchange.peer, encode(Statements((each.statement,)))))

    def _sign(
        self, node: WorldNode, exchange: Exchange, scopes: frozenset[Scope], queue: deque[tuple[str, bytes]]
    ) -> None:
        path = self.tree.node(node.unit, node.context.epoch).path
        queue.append((exchange.peer, encode(Certificates((path,)))))
        with node.read() as connection:
            queue.append((exchange.peer, encode(draw(connection, node.context, exchange.child, exchange.peer, scopes))))

    def _ship(
        self,
        node: WorldNode,
        peer: WorldNode,
        exchange: Exchange,
        scopes: tuple[tuple[Span, ...], ...],
        queue: deque[tuple[str, bytes]],
    ) -> None:
        for spans in scopes:
            with node.read() as connection:
                lacks, _ = lacking(connection, spans)
                for span in spans:
                    path = path_of(connection, span.stream.origin, span.stream.epoch)
                    if path is not None:
                        queue.append((peer.unit, encode(Certificates((path,)))))
                for head in lacks:
                    stored = stored_batch(connection, head.hash)
                    assert stored is not None
                    batch = parse_batch(stored[0])
                    data = sendable(connection, node.context, peer.unit, batch)
                    if data is None or exchange.is_refused(batch.head.stream):
                        exchange.leave(batch.head.stream)
                        continue
                    exchange.on_sent(batch.head, len(data))
                    queue.append((peer.unit, encode(BatchFrame(data))))

    def settle(self, rounds: int = 6) -> None:
        """Sync everyone with their parents, deepest first, until nothing moves."""
        for _ in range(rounds):
            for unit in sorted(self.nodes, key=lambda each: -each.count(".")):
                if parent_of(unit) is not None:
                    self.sync(unit)


__all__ = ["World", "WorldNode", "units_up"]
