"""Shows mutants to real nodes and says whether anything happened that must not.

Role: verify and take as the service does, in a transaction that is rolled back, so that each mutant meets the same
nodes; then ask whether heads, tables and other streams are what they should be, and whether the node still works.
Reach: node.storage; corpus. Invariant: a verdict has a fault, or the node lawfully refused or took the mutant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

from sqlalchemy import Connection

from conflict.values import Head, StreamId
from node.commands.proof import _Proof
from node.storage import report
from node.storage.certificates import keep_path
from node.storage.digests import digest_scope
from node.storage.engine import execute
from node.storage.inbox import Taken, apply_waiting, next_ready, refuse, take
from node.storage.lost import check_complete
from node.storage.outbox import for_peer
from node.storage.proving import verify
from node.storage.registries import registry_for
from node.storage.sealing import seal_next
from node.storage.streams import FROZEN, REFUSED, StreamRow, streams
from sync_engine.batch import SealedBatch, parse_batch
from sync_engine.errors import RemoteFault, ReplicationError, RuleBroken
from sync_engine.frames import BatchFrame, Certificates, decode
from tests.hostile.corpus import ABOVE, CHILD, PERSON, ROOT, Corpus
from tests.hostile.talk import Talk
from tests.hostile.unsigned import Mutant
from tests.world import WorldNode

SALTED = "forged: chunk, another salt"
"""The one changed chunk that says what the real one says."""


class Wrong(Exception):
    """Something happened that must not: says what."""


@dataclass(frozen=True)
class Verdict:
    """``outcome``: the code it was refused with, or ``taken: ...``. ``fault``: what must not have happened, or None."""

    outcome: str
    fault: str | None = None


@dataclass
class Bench:
    """The nodes of a corpus, each with one open connection."""

    corpus: Corpus
    connections: dict[str, Connection] = field(default_factory=dict)
    registries: dict[str, dict[int, Any]] = field(default_factory=dict)

    @contextmanager
    def on(self, unit: str) -> Iterator[tuple[WorldNode, Connection]]:
        """A node in a transaction that comes to nothing."""
        node = self.corpus.node(unit)
        if unit not in self.connections:
            self.connections[unit] = node.engine.connect()
        connection = self.connections[unit]
        known = dict(node.context.registries)
        transaction = connection.begin()
        try:
            yield node, connection
        finally:
            transaction.rollback()
            node.context.registries.clear()
            node.context.registries.update(known)

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
        for node in self.corpus.world.nodes.values():
            node.engine.dispose()

    def print_of(self, unit: str) -> str:
        """A hash over everything that a node has stored."""
        digest = sha256()
        with self.on(unit) as (_node, connection):
            names = execute(connection, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").scalars()
            for name in list(names):
                digest.update(repr(execute(connection, f'SELECT * FROM "{name}"').all()).encode())
        return digest.hexdigest()

    def judge(self, mutant: Mutant, rng: Random, *, thorough: bool) -> Verdict:
        """``rng`` decides orders; ``thorough`` asks, of what was taken, whether the whole tree still works."""
        ways: dict[str, Callable[[Mutant, Random, bool], str]] = {
            "batch": self._batch,
            "frame": self._frame,
            "forged": self._forged,
            "talk": self._talk,
        }
        try:
            return Verdict(ways[mutant.way](mutant, rng, thorough))
        except Wrong as wrong:
            return Verdict("wrong", str(wrong))
        except Exception as foreign:  # whatever is not ours is what this looks for
            return Verdict("foreign", f"{type(foreign).__module__}.{type(foreign).__name__}: {str(foreign)[:300]}")

    # --- bytes that nobody signed ---

    def _batch(self, mutant: Mutant, _rng: Random, _thorough: bool) -> str:
        with self.on(mutant.receiver) as (node, connection):
            before = _changes(connection)
            try:
                verified = verify(connection, node.context, mutant.data)
            except RuleBroken as fault:
                raise Wrong(f"a batch that nobody signed is held against its stream: {fault}") from fault
            except ReplicationError as fault:
                outcome = _typed(fault)
            else:
                _check_genuine(self.corpus, verified.batch)
                _check_whole(connection, node, verified.batch)
                taken = take(connection, node.context, verified).taken
                return f"its origin's own: {taken}"
            if _changes(connection) != before:
                raise Wrong("a batch was refused and something was written")
            return outcome

    def _frame(self, mutant: Mutant, rng: Random, thorough: bool) -> str:
        try:
            frame = decode(mutant.data)
        except ReplicationError as fault:
            return _typed(fault)
        if isinstance(frame, BatchFrame):
            return self._batch(Mutant(mutant.kind, "batch", mutant.receiver, frame.data), rng, thorough)
        if not isinstance(frame, Certificates):
            return "passed over" if frame is None else "understood"
        outcome = "understood"
        with self.on(mutant.receiver) as (node, connection):
            for path in frame.paths:
                try:
                    keep_path(connection, path, node.context.tree_id)
                except ReplicationError as fault:
                    outcome = _typed(fault)
                else:
                    if path not in self.corpus.paths:
                        raise Wrong("a certificate path was kept that nobody issued")
        return outcome

    # --- bytes that a hostile child signed ---

    def _forged(self, mutant: Mutant, rng: Random, thorough: bool) -> str:
        with self.on(mutant.receiver) as (node, connection):
            before = {row.stream: row for row in streams(connection)}
            changes = _changes(connection)
            try:
                verified = verify(connection, node.context, mutant.data)
            except RuleBroken as fault:
                _check_the_childs(node, parse_batch(mutant.data))
                refuse(connection, fault)
                _check_left(connection, before, fault.head.stream, REFUSED)
                outcome = "RuleBroken"
            except ReplicationError as fault:
                if _changes(connection) != changes:
                    raise Wrong("a batch was refused and something was written") from fault
                return _typed(fault)
            else:
                outcome = _taken(connection, node, before, verified)
                if mutant.kind.startswith("forged: chunk,") and mutant.kind != SALTED:
                    raise Wrong(f"a chunk that is no lawful one was taken: {outcome}")
            if thorough:
                self._works(node, connection, mutant, rng)
            return outcome

    def _works(self, node: WorldNode, connection: Connection, mutant: Mutant, rng: Random) -> None:
        """After whatever a child sent: the others' streams go on, people work, everything can be proven and counted,
        and the root, told in another order, comes to the same registers."""
        head = parse_batch(mutant.data).head
        for batch in self.corpus.neighbours:
            outcome = take(connection, node.context, verify(connection, node.context, batch.data))
            if outcome.taken is not Taken.APPLIED:
                raise Wrong(f"the neighbour's next batch: {outcome.taken}")
        execute(connection, "UPDATE person SET note = 'sau', badges = '[\"70\"]' WHERE unit = ?", (CHILD,))
        execute(connection, PERSON, (CHILD, "after", "Sau", "n"))
        while seal_next(connection, node.context) is not None:
            pass
        (
            report.left_streams(connection),
            report.waiting(connection, node.context),
            report.records(connection, node.context),
        )
        proof = _Proof(node.context)
        while proof.next_batches(connection):
            pass
        proof.check_ends(connection)
        if [bad for bad in proof.bad if bad["seq"] != head.seq or bad["scope"] != head.stream.scope]:
            raise Wrong(f"verify complains: {proof.bad}")
        _check_tables(connection, node)
        self._root_agrees(node, connection, head, rng)

    def _root_agrees(self, node: WorldNode, connection: Connection, head: Head, rng: Random) -> None:
        rows = execute(connection, "SELECT data FROM _batch ORDER BY no").scalars().all()
        batches = [parse_batch(data) for data in rows]
        with self.on(ROOT) as (root, other):
            held = {row.stream: row.held.seq for row in streams(other) if row.held}
            lacking = [each for each in batches if each.header.seq > held.get(each.header.stream, 0)]
            by_stream: dict[StreamId, list[SealedBatch]] = {}
            for batch in lacking:
                by_stream.setdefault(batch.header.stream, []).append(batch)
            while by_stream:  # any order that keeps each stream's own
                stream = rng.choice(sorted(by_stream))
                batch = by_stream[stream].pop(0)
                if not by_stream[stream]:
                    del by_stream[stream]
                data = for_peer(connection, node.context, ROOT, batch)
                try:
                    take(other, root.context, verify(other, root.context, data))
                except RemoteFault as fault:
                    if batch.head.hash != head.hash:
                        raise Wrong(f"the root refuses {batch.head.stream} {batch.head.seq}: {fault}") from fault
                    return
                _apply_ready(other, root)
            self._compare(connection, node, other, root)

    def _compare(self, one: Connection, node: WorldNode, other: Connection, root: WorldNode) -> None:
        """What the root sealed on its own meanwhile goes down first: then both have merged the same."""
        for data in execute(other, "SELECT data FROM _batch ORDER BY no").scalars().all():
            batch = parse_batch(data)
            if (batch.header.stream.origin, batch.header.stream.scope) == (ROOT, CHILD):
                take(one, node.context, verify(one, node.context, data))
                _apply_ready(one, node)
        mine, theirs = _applied(one, CHILD), _applied(other, CHILD)
        if mine != theirs:
            raise Wrong(f"after all was exchanged, heads differ: {sorted(mine ^ theirs)}")
        ours, roots = (digest_scope(c, n.context, CHILD).columns for c, n in ((one, node), (other, root)))
        wrong = [name for name in roots if name in ours and ours[name] != roots[name]]
        if wrong:
            raise Wrong(f"the root's registers differ in {wrong}")
        for what in (_rows_shown, _open_conflicts):
            if what(one) != what(other):
                raise Wrong(f"the root's registers are equal, {what.__name__[1:]} differ: {what(one) ^ what(other)}")

    def _talk(self, mutant: Mutant, _rng: Random, _thorough: bool) -> str:
        with self.on(mutant.receiver) as (node, connection):
            talk = Talk(node, connection, CHILD)
            outcome = talk.hear(mutant.talk)
            if talk.wrong:
                raise Wrong(talk.wrong)
            return outcome


def _rows(connection: Connection, sql: str, *values: Any) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in execute(connection, sql, values)}


def _changes(connection: Connection) -> int:
    return int(connection.connection.dbapi_connection.total_changes)  # type: ignore[union-attr]


def _typed(fault: ReplicationError) -> str:
    if not isinstance(fault, RemoteFault):
        raise Wrong(f"a peer's bytes are called a fault of our own: {fault.code}: {fault}")
    return fault.code


def _check_genuine(corpus: Corpus, batch: SealedBatch) -> None:
    """A mutant that verifies says nothing but what its origin said."""
    real = corpus.genuine.get(batch.head.hash)
    if real is None:
        raise Wrong("a batch was verified that nobody sealed")
    for mine, theirs in zip(batch.chunks, real.chunks, strict=True):
        if any(theirs.get(at) != chunk for at, chunk in mine.items()):
            raise Wrong("a batch was verified with chunks that its origin did not seal")


def _check_whole(connection: Connection, node: WorldNode, batch: SealedBatch) -> None:
    """Whoever passed it on has withheld nothing that its receiver may read; of its own a node takes what there is."""
    if batch.header.stream.origin == node.context.unit:
        return
    try:
        check_complete(connection, node.context, batch, registry_for(connection, node.context, batch))
    except ReplicationError as fault:
        raise Wrong(f"a batch was taken of which too much was withheld: {fault}") from fault


def _check_the_childs(node: WorldNode, batch: SealedBatch) -> None:
    """Its key can speak for its own rows, those below it, and its catalogue; in this tree, and nowhere else."""
    stream = batch.header.stream
    scopes = (CHILD, f"{CHILD}/catalog")
    below = "/" not in stream.scope and stream.scope.endswith(f".{CHILD}")
    if stream.origin != CHILD or not (stream.scope in scopes or below) or batch.header.tree_id != node.context.tree_id:
        raise Wrong(f"the child's key was good for {stream}")


def _taken(connection: Connection, node: WorldNode, before: dict[StreamId, StreamRow], verified: Any) -> str:
    head = verified.batch.head
    _check_the_childs(node, verified.batch)
    outcome = take(connection, node.context, verified)
    row = before.get(head.stream)
    held = None if row is None else row.held
    match outcome.taken:
        case Taken.APPLIED | Taken.WAITING:
            if head.seq != (held.seq if held else 0) + 1 or (held and verified.batch.header.prev != held.hash):
                raise Wrong("a batch was taken that does not follow the one held")
            _check_others(connection, before, head.stream)
        case Taken.FROZEN:
            state = next(each.state for each in streams(connection) if each.stream == head.stream)
            _check_left(connection, before, head.stream, state if state in (FROZEN, REFUSED) else FROZEN)
        case Taken.OWN:
            raise Wrong("a child's batch makes this node begin a new life")
        case _:
            _check_others(connection, before, head.stream)
            if outcome.held != held:
                raise Wrong(f"{outcome.taken}, and the head moved")
    if outcome.taken is Taken.APPLIED:
        _apply_ready(connection, node)
    return f"taken: {outcome.taken}"


def _apply_ready(connection: Connection, node: WorldNode) -> None:
    while (stream := next_ready(connection, node.context)) is not None:
        try:
            apply_waiting(connection, node.context, stream)
        except RuleBroken as fault:
            refuse(connection, fault)


def _check_others(connection: Connection, before: dict[StreamId, StreamRow], stream: StreamId) -> None:
    for row in streams(connection):
        known = before.get(row.stream)
        if row.stream != stream and row.held is not None and known != row:
            raise Wrong(f"another stream moved: {row.stream}")


def _check_left(connection: Connection, before: dict[StreamId, StreamRow], stream: StreamId, state: str) -> None:
    """The stream is left as it stood, and no other moved."""
    _check_others(connection, before, stream)
    row = next(each for each in streams(connection) if each.stream == stream)
    known = before.get(stream)
    if row.state != state or (known is not None and (known.held, known.applied) != (row.held, row.applied)):
        raise Wrong(f"a stream to be left is {row.state} at {row.held}")


def _check_tables(connection: Connection, node: WorldNode) -> None:
    """Every row that a table shows has registers, and every row that registers show is in its table."""
    for name, table in node.context.registries[1].tables.items():
        shown = _rows(connection, f'SELECT unit, id FROM "{name}"')
        known = _rows(
            connection,
            "SELECT replace(name, '/catalog', ''), id FROM _row JOIN _scope ON _scope.no = _row.scope"
            " WHERE tbl = ? AND shown = 1",
            table.number,
        )
        if shown != known:
            raise Wrong(f"table {name} and its registers differ in {sorted(shown ^ known)}")


def _rows_shown(connection: Connection) -> set[tuple[Any, ...]]:
    """What both may read of the child's people, as their tables show it."""
    columns = (
        "id, name, born, note, card, line, town, badges, tongues, rank, pages, share, present, met_at, photo, word"
    )
    return _rows(connection, f"SELECT {columns} FROM person WHERE unit = ?", CHILD)


def _open_conflicts(connection: Connection) -> set[tuple[Any, ...]]:
    sql = (
        "SELECT number, id, identity, field FROM _conflict JOIN _scope ON _scope.no = _conflict.scope"
        " WHERE live = 1 AND state = 'open' AND name = ? AND field <> 'phone'"
    )
    return _rows(connection, sql, CHILD)


def _applied(connection: Connection, scope: str) -> set[Head]:
    return {row.applied for row in streams(connection, scope) if row.applied is not None}


__all__ = ["ABOVE", "Bench", "Verdict", "Wrong"]
