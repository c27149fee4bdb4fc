"""Local edits that replace what another unit wrote and this node applied a short while ago.

Role: before a batch of our own is merged, find the values it drives out that had just come, and journal both: a program
that writes a whole form back from a screen opened before the sync says nothing, and its edit is causally later.
Reach: storage tables. Source: design, 5; faults 35. Invariant: nothing is read where nothing foreign came in that time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.policies import value_key
from conflict.values import Head, Value, Write
from node.storage.context import Context
from node.storage.engine import IN_LIST, execute, in_list
from node.storage.journal import Journal, label_of
from node.storage.registers import heads_of, unpack_value
from node.storage.registries import registry_of
from node.storage.streams import streams
from sync_engine.batch import SectionKind, parse_batch
from sync_engine.entries import Entries, decode_section
from sync_engine.merge import ALIVE, EntryView, view
from sync_engine.names import unit_of
from sync_engine.registry import Register, Table

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Overwriting:
    """A batch of our own that is about to be merged, and the table of which it is looked at."""

    no: int
    head: Head
    table: Table
    scope_no: int


@dataclass(slots=True)
class _Found:
    """What foreign batches wrote a short while ago to the rows that are being edited."""

    writes: dict[tuple[str, bytes, str, str], Write]
    """By id, identity, register and element; ``_alive`` is a register, and what counts there is a row's last edit."""
    bases: dict[tuple[str, bytes], tuple[int, Write]]
    """Rows whose insert is such a write: its batch, and the write without a value."""
    explicit: set[tuple[str, bytes, str]]


def note_overwritten(connection: Connection, context: Context, batch: Overwriting, parts: Sequence[Entries]) -> int:
    """Journal what the batch's entries replace; returns how many values."""
    recent = heads_of(connection, _recent(connection, context, batch.head.stream.scope))
    if not recent:
        return 0
    ids = {key for part in parts for key in part.ids}
    found = _found(connection, batch, recent, ids)
    if not found.writes and not found.bases:
        return 0
    numbers = {head: no for no, head in recent.items()} | {batch.head: batch.no}
    journal = Journal(batch.table, batch.scope_no, unit_of(batch.head.stream.scope), numbers, context.now_ms())
    inserts = _Inserts(connection, context, batch.table)
    done: set[tuple[str, bytes, str]] = set()
    for part in parts:
        for at, key in enumerate(part.ids):
            entry = view(part, at)
            for register, element, value in _written(batch.table, entry):
                label = label_of(register, element)
                old = _old(batch.table, found, inserts, (key, entry.identity, register, element))
                place = (key, entry.identity, label)
                if old is None or place in done or value_key(old.value) == value_key(value):
                    continue
                done.add(place)
                new = Write(value, entry.time, batch.head.stream.origin, frozenset({batch.head}))
                policy = batch.table.delete if register == ALIVE else str(batch.table.register(register).policy)
                journal.overwrite(key, entry.identity, label, policy, old, new)
    return journal.save(connection)


def _recent(connection: Connection, context: Context, scope: str) -> list[int]:
    """The batches of other units in a scope that were applied here a short while ago."""
    since = context.now_ms() - round(context.overwritten_hours * HOUR_MS)
    nos: list[int] = []
    for row in streams(connection, scope):
        if row.applied is None or row.stream.origin == context.unit:
            continue
        last = "SELECT applied_ms FROM _batch WHERE stream = ? AND seq = ?"
        if (execute(connection, last, (row.no, row.applied.seq)).scalar() or 0) >= since:
            nos += execute(
                connection, "SELECT no FROM _batch WHERE stream = ? AND applied_ms >= ?", (row.no, since)
            ).scalars()
    return nos


def _found(connection: Connection, batch: Overwriting, heads: Mapping[int, Head], ids: set[str]) -> _Found:
    key = (batch.scope_no, batch.table.number, in_list(sorted(ids)), in_list(heads))
    where = f"scope = ? AND tbl = ? AND id {IN_LIST}"

    def write(no: int, time: int, value: Value) -> Write:
        return Write(value, time, heads[no].stream.origin, frozenset({heads[no]}))

    writes = {
        (each, identity, register, element): write(no, time, unpack_value(raw))
        for each, identity, register, element, no, time, raw in execute(
            connection,
            "SELECT id, identity, register, element, batch, time, value FROM _write"
            f" WHERE {where} AND batch {IN_LIST} AND held = 0 AND covered = 0",
            key,
        )
    }
    for each, identity, no, time in execute(
        connection,
        f"SELECT id, identity, alive_batch, alive_time FROM _row WHERE {where} AND alive_batch {IN_LIST} AND alive = 1",
        key,
    ):
        writes.setdefault((each, identity, ALIVE, ""), write(no, time, True))
    bases = {
        (each, identity): (no, write(no, time, None))
        for each, identity, no, time in execute(
            connection, f"SELECT id, identity, batch, time FROM _row WHERE {where} AND batch {IN_LIST}", key
        )
    }
    explicit = execute(
        connection,
        f"SELECT DISTINCT id, identity, register FROM _write WHERE {where}",
        (*key[:2], in_list(sorted({each for each, _ in bases}))),
    )
    return _Found(writes, bases, {(each, identity, register) for each, identity, register in explicit})


def _written(table: Table, entry: EntryView) -> Iterator[tuple[str, str, Value]]:
    """(register, element, value) of one entry; an insert over a row that is there writes every register that its origin
    may edit. What is held replaces nothing."""
    if entry.kind is SectionKind.DELETE:
        yield ALIVE, "", False
        return
    for register in table.registers if entry.new else map(table.register, entry.values):
        if register.name in entry.held or (entry.new and register.name in entry.barred):
            continue
        if register.is_union:
            _added, removed = entry.values.get(register.name, ((), ()))
            yield from ((register.name, element, False) for element in removed)
        else:
            yield register.name, "", entry.values.get(register.name, register.nothing)


class _Inserts:
    """What inserts wrote, read from their batches: the table shows what the local edit has put there since."""

    def __init__(self, connection: Connection, context: Context, table: Table) -> None:
        self.connection, self.context, self.table = connection, context, table
        self._read: dict[int, Mapping[tuple[str, bytes], EntryView]] = {}

    def value(self, no: int, row: tuple[str, bytes], register: Register, element: str) -> Value:
        """None as well where this node may not read it, or where the insert named nothing."""
        if no not in self._read:
            self._read[no] = self._batch(no)
        entry = self._read[no].get(row)
        if register.is_union:
            return True if entry is not None and element in entry.values.get(register.name, ((), ()))[0] else None
        return None if entry is None else entry.values.get(register.name)

    def _batch(self, no: int) -> Mapping[tuple[str, bytes], EntryView]:
        data = execute(self.connection, "SELECT data FROM _batch WHERE no = ?", (no,)).scalar_one()
        batch = parse_batch(data)
        registry = registry_of(self.connection, self.context, batch.header.registry_version[0])
        found: dict[tuple[str, bytes], EntryView] = {}
        for described, chunk in zip(batch.header.sections, batch.chunks, strict=True):
            if registry is not None and (described.table, described.kind) == (self.table.name, SectionKind.ROWS):
                entries = decode_section(described, chunk, registry.all_tables[self.table.name])
                places = (at for at in range(len(entries)) if entries.is_new(at))
                found.update({(entries.ids[at], entries.identities[at]): view(entries, at) for at in places})
        return found


def _old(table: Table, found: _Found, inserts: _Inserts, place: tuple[str, bytes, str, str]) -> Write | None:
    """What a foreign batch wrote there a short while ago, if that stands in the register."""
    if place in found.writes:
        return found.writes[place]
    key, identity, register, element = place
    base = found.bases.get((key, identity))
    if base is None or register == ALIVE or (key, identity, register) in found.explicit:
        return None
    no, write = base
    value = inserts.value(no, (key, identity), table.register(register), element)
    if value is None or (isinstance(value, tuple) and not any(each is not None for each in value)):
        return None  # whoever fills in what an insert left out replaces nothing
    return Write(value, write.time, write.origin, write.dots)
