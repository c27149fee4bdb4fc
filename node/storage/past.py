"""What the signed batches say of some rows: their history, and what their registers held at an earlier time.

Role: read stored batches again, in local order, and pick out the entries of given rows.
Reach: storage tables, sync_engine. Invariant: nothing here trusts the tables or the registers; a batch whose bytes are
not those that were stored is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from conflict.policies import shown
from conflict.values import Head, Hold, StreamId, Value, Write
from conflict.vector import Vector
from node.storage.batches import MOVED, batch_at, in_order, undamaged
from node.storage.codes import hold_unknown
from node.storage.context import Context
from node.storage.engine import IN_LIST, execute, in_list
from node.storage.registers import insertable
from node.storage.registries import registry_of
from node.storage.seen import followed
from node.storage.streams import find_stream, streams
from sync_engine.batch import SealedBatch, SectionKind
from sync_engine.entries import Entries
from sync_engine.errors import RemoteFault
from sync_engine.merge import EntryView, view
from sync_engine.names import unit_of
from sync_engine.registry import Register, Registry
from sync_engine.verify import decode


@dataclass(frozen=True, slots=True)
class PastBatch:
    """One stored batch that speaks of the rows asked for. ``seen`` is all that its writer had merged, its own earlier
    batches included; ``sections`` are those of the table."""

    no: int
    batch: SealedBatch
    state: str
    registry: Registry
    seen: Vector
    sections: tuple[Entries, ...]

    @property
    def head(self) -> Head:
        return self.batch.head

    def entries(self, ids: Collection[str]) -> Iterator[tuple[str, EntryView]]:
        """The entries of some rows, by id."""
        for section in self.sections:
            for at, key in enumerate(section.ids):
                if key in ids:
                    yield key, view(section, at)


@dataclass(slots=True)
class Reading:
    """What could not be read while walking through the past."""

    damaged: int = 0
    unknown: int = 0
    """Batches of a registry version that is not here."""


def batches_about(
    connection: Connection,
    context: Context,
    scope: str,
    table: str,
    reading: Reading,
    which: Callable[[Head], bool] = bool,
) -> Iterator[PastBatch]:
    """The stored batches of a scope that have entries of a table, one at a time, in the order they came here; only
    those that ``which`` names (all, if not said) are unpacked."""
    of_scope = {row.no: row.stream for row in streams(connection, scope)}
    places = execute(
        connection,
        f"SELECT no, stream, seq, state, hash FROM _batch WHERE stream {IN_LIST}",
        (in_list(of_scope),),
    ).all()
    found = {no: (stream_no, state, digest) for no, stream_no, _seq, state, digest in places}
    seen: dict[StreamId, Vector] = {}
    for no in in_order((no, stream_no, seq) for no, stream_no, seq, _state, _digest in places):
        stream_no, state, digest = found[no]
        stream = of_scope[stream_no]
        data = execute(connection, "SELECT data FROM _batch WHERE no = ?", (no,)).scalar_one()
        batch = undamaged(data, digest)
        if batch is None:
            reading.damaged += 1
            continue
        before = seen.get(stream, Vector())
        vector = followed(connection, before, batch.header)
        seen[stream] = (vector if batch.header.repeats is None else before).updated([batch.head])
        if state == MOVED or all(section.table != table for section in batch.header.sections) or not which(batch.head):
            continue
        registry = registry_of(connection, context, batch.header.registry_version[0])
        if registry is None:
            reading.unknown += 1
            continue
        try:
            sections = tuple(each for each in decode(batch, registry) if each.table.name == table)
        except RemoteFault:
            reading.damaged += 1
            continue
        yield PastBatch(no, batch, state, registry, vector, sections)


RowKey = tuple[str, bytes]
"""(id, identity) of a row of one table and scope."""


@dataclass(slots=True)
class _Lot:
    """The writes of one register (element) of one row, each with what its writer had merged."""

    writes: list[tuple[Write, Vector]] = field(default_factory=list)

    def shown_among(self, inserts: Sequence[Vector]) -> list[Write]:
        """What may be shown and nothing that may be shown had seen, in whatever order the writes came. ``inserts`` are
        what the row's inserts had merged: they write a set's elements away that they do not name."""
        good = [(write, seen) for write, seen in self.writes if not write.held]
        return [
            write
            for write, _ in good
            if not any(_saw(other, seen, write) for other, seen in good)
            and not any(seen.saw(write) for seen in inserts)
        ]


def _saw(other: Write, seen: Vector, write: Write) -> bool:
    """Within a batch a later entry has seen the earlier ones; nothing has seen itself."""
    if other.dots & write.dots:
        return other.time > write.time
    return seen.saw(write)


def values_without(
    connection: Connection,
    context: Context,
    scope: str,
    register: Register,
    table: str,
    ids: Collection[str],
    accident: Collection[Head],
) -> dict[RowKey, Value]:
    """What one register of some rows would have shown when the last batch of an accident was sealed, had the accident
    not been: a union's elements as a tuple. A row's insert is no part of an accident, nor what its own batch edits
    after it.
    """
    last = max(accident, key=lambda head: head.seq)
    known = seen_at(connection, last).updated([last])
    nothing: Value = () if register.is_union else register.nothing
    found: dict[RowKey, Value] = {}
    inserts: dict[RowKey, list[Vector]] = {}
    dots: dict[RowKey, set[Head]] = {}
    lots: dict[tuple[RowKey, str], _Lot] = {}
    for past in batches_about(connection, context, scope, table, Reading(), known.covers):
        writable = insertable(context, past.registry, past.head, table, unit_of(scope))
        hold_unknown(connection, unit_of(scope), past.sections)
        entries = list(past.entries(ids))
        inserted = {key for key, entry in entries if entry.new}
        for key, entry in entries:
            if entry.kind is SectionKind.DELETE or (past.head in accident and key not in inserted):
                continue
            row = (key, entry.identity)
            found.setdefault(row, nothing)
            if entry.new:
                earlier = dots.setdefault(row, set())
                again = any(past.seen.covers(dot) for dot in earlier - {past.head})
                earlier.add(past.head)
                if again and register.name in entry.barred:
                    continue  # whoever enters again leaves it alone, or is held
                if register.name in writable:
                    inserts.setdefault(row, []).append(past.seen)
            for element, write in _writes_of(register, entry, past.head, register.name in writable):
                lots.setdefault((row, element), _Lot()).writes.append((write, past.seen))
    for (row, element), lot in lots.items():
        entitled = lot.shown_among(inserts.get(row, ()))
        if not entitled:
            continue
        best = shown(register.policy, entitled, order=register.order)
        if not register.is_union:
            found[row] = best.value
        elif best.value:
            elements = found[row]
            found[row] = (*(elements if isinstance(elements, tuple) else ()), element)
    return found


def seen_at(connection: Connection, head: Head) -> Vector:
    """All that the writer of a stored batch had merged, its own earlier batches included."""
    return all_seen_at(connection, [head])[head]


def all_seen_at(connection: Connection, heads: Iterable[Head]) -> dict[Head, Vector]:
    """The same for several batches: each stream is walked once, up to the last of them."""
    found = {head: Vector() for head in heads}
    places: dict[StreamId, dict[int, Head]] = {}
    for head in found:
        places.setdefault(head.stream, {})[head.seq] = head
    for stream, wanted in places.items():
        row, seen = find_stream(connection, stream), Vector()
        for seq in range(1, max(wanted) + 1 if row is not None else 1):
            stored = None if row is None else batch_at(connection, row.no, seq)
            if stored is None:
                break
            vector = followed(connection, seen, stored[2].header)
            if seq in wanted:
                found[wanted[seq]] = vector
            seen = (vector if stored[2].header.repeats is None else seen).updated([stored[2].head])
    return found


def _writes_of(register: Register, entry: EntryView, dot: Head, inserts: bool) -> Iterator[tuple[str, Write]]:
    """(element, write) for what one entry writes to a register: an insert writes null where it names no value."""
    origin, dots, held = dot.stream.origin, frozenset({dot}), entry.held.get(register.name, Hold.NONE)
    if register.is_union:
        added, removed = entry.values.get(register.name, ((), ()))
        for element in added:
            yield element, Write(True, entry.time, origin, dots, held)
        for element in removed:
            yield element, Write(False, entry.time, origin, dots, held)
        return
    if register.name in entry.values:
        yield "", Write(entry.values[register.name], entry.time, origin, dots, held)
    elif entry.new and inserts:
        yield "", Write(register.nothing, entry.time, origin, dots)
