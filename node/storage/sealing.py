"""Seals what capture noted: pending edits become a signed batch of the current values, one batch a transaction.

Role: read a window of pending keys, fold it, sign, store, note the writes in the registers, take the notes away.
Reach: storage tables, sync_engine.seal. Invariant: ``seen`` is what this database had merged at that moment, because
nothing foreign is applied while anything is pending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from conflict.values import Head, StreamId
from node.storage.apply import Incoming, apply_batch
from node.storage.batches import APPLIED, insert_batch
from node.storage.context import Context
from node.storage.engine import IN_LIST, execute, in_list, quoted
from node.storage.meta import check_not_fenced
from node.storage.pending import (
    before_image,
    fault_in,
    image_row,
    known_rows,
    mask_of,
    normalise_text,
    wire_row,
)
from node.storage.registries import adopt_registry, adopt_units, current_registry
from node.storage.streams import (
    advance_applied,
    advance_held,
    applied_heads,
    note_seen,
    seen_by,
    stream_row,
)
from sync_engine.batch import NO_PREV, BatchHeader, SealedBatch, SectionKind, encode_batch, encode_header
from sync_engine.entries import Entries, encode_section
from sync_engine.limits import ENTRIES_SEALED, PLAIN_BYTES_SEALED, ROW_BYTES_MAX
from sync_engine.names import CATALOG, REGISTRY
from sync_engine.registry import BUILTIN, REGISTRY_TABLE, UNIT_TABLE, FieldType, Registry, Table
from sync_engine.seal import Draft, Folder, Noted, SqlRow, section_of

ROWS_AT_ONCE = 500
"""Rows read together: with the largest allowed rows this bounds a window's memory before its size is known."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one step of sealing did. ``head`` is None where the notes came to nothing (a row that came and went)."""

    head: Head | None
    entries: int
    set_aside: int


def pending_count(connection: Connection) -> int:
    """How many notes wait to be sealed."""
    return int(execute(connection, "SELECT count(*) FROM _pending").scalar_one())


def has_pending(connection: Connection) -> bool:
    return execute(connection, "SELECT 1 FROM _pending LIMIT 1").scalar() is not None


def fits_one_batch(connection: Connection, notes_max: int) -> bool:
    """Whether what is pending is small enough to be sealed inside another transaction."""
    return execute(connection, "SELECT 1 FROM _pending LIMIT 1 OFFSET ?", (notes_max,)).scalar() is None


def seal_next(connection: Connection, context: Context, notes_max: int = ENTRIES_SEALED) -> Sealed | None:
    """Seal one batch in the caller's transaction; None when nothing is pending. Raises Fenced."""
    check_not_fenced(connection)
    registry = current_registry(connection, context)
    # The registry last: masks noted before it follow the old one's order.
    order = f"tbl = {BUILTIN[REGISTRY_TABLE].number}, unit, tbl"
    first = execute(connection, f"SELECT unit, tbl FROM _pending ORDER BY {order} LIMIT 1").one_or_none()
    if first is None:
        return None
    unit, tbl = first
    table = registry.by_number[tbl]
    scope = table.scope_of(unit)
    window = _Window(connection, context, registry, unit, StreamId(context.unit, context.epoch, scope))
    tables = execute(connection, "SELECT DISTINCT tbl FROM _pending WHERE unit = ? ORDER BY tbl", (unit,)).scalars()
    for number in tables.all():
        part = registry.by_number[number]
        if part.scope_of(unit) == scope and window.notes < notes_max:
            window.add_table(part, notes_max - window.notes)
    return window.seal()


@dataclass(slots=True)
class _Part:
    """One table's share of a window."""

    table: Table
    ids: list[str]
    rows: list[Draft] = field(default_factory=list)
    deletes: list[Draft] = field(default_factory=list)
    was: dict[str, dict[str, Any]] = field(default_factory=dict)


class _Window:
    """The pending keys that go into one batch of one scope."""

    def __init__(
        self, connection: Connection, context: Context, registry: Registry, unit: str, stream: StreamId
    ) -> None:
        self.connection, self.context, self.registry, self.unit, self.stream = (
            connection,
            context,
            registry,
            unit,
            stream,
        )
        self.notes = self.bytes = self.aside = 0
        self.parts: list[_Part] = []

    def add_table(self, table: Table, notes_max: int) -> None:
        """Read and fold pending keys of one table, in key order."""
        if self.bytes >= PLAIN_BYTES_SEALED:
            return
        noted = self._noted(table, notes_max)
        folder = Folder(table)
        part = _Part(table, [])
        keys = list(noted)
        for start in range(0, len(keys), ROWS_AT_ONCE):
            if self.bytes >= PLAIN_BYTES_SEALED:
                break
            self._fold(part, folder, {key: noted[key] for key in keys[start : start + ROWS_AT_ONCE]})
        self.parts.append(part)

    def _noted(self, table: Table, notes_max: int) -> dict[str, Noted]:
        """Pending notes by key; a key whose notes do not all fit is left for the next window."""
        rows = execute(
            self.connection,
            "SELECT id, kind, mask, first, last, image FROM _pending WHERE unit = ? AND tbl = ? ORDER BY id LIMIT ?",
            (self.unit, table.number, notes_max + 1),
        ).all()
        cut = rows[-1][0] if len(rows) > notes_max and rows[-1][0] != rows[0][0] else None
        found: dict[str, Noted] = {}
        for key, kind, mask, first, last, image in rows:
            if key == cut:
                break
            self.notes += 1
            note = found.setdefault(key, Noted(key))
            if kind == "I":
                note.inserted = last
            elif kind == "E":
                note.edits.append((mask_of(mask), first, last))
            elif kind == "D":
                note.deleted, note.image = last, image_row(table, image)
            else:
                note.before = before_image(table, image)
        return found

    def _fold(self, part: _Part, folder: Folder, noted: Mapping[str, Noted]) -> None:
        """Fold some keys of one table with their current values and what the registers hold."""
        table, keys = part.table, list(noted)
        part.ids += keys
        current = self._current(table, keys)
        normalise_text(self.connection, table, self.unit, current)
        identities = dict(zip(current, folder.prepare(list(current.values())), strict=True))
        known = known_rows(self.connection, table, self.stream, keys)
        for key, note in noted.items():
            row = current.get(key)
            held = known.get(key, ())
            if row is None and not held:
                continue
            rows, deletes = folder.fold(note, row, identities.get(key, b""), held)
            part.rows += rows
            part.deletes += deletes
            if note.image is not None:
                part.was[key] = wire_row(table, note.image)
            if note.before:
                part.was.setdefault(key, {}).update(note.before)

    def _current(self, table: Table, keys: Sequence[str]) -> dict[str, SqlRow]:
        """Rows as the table has them, in SQL form; one over the limit is set aside."""
        names = ", ".join(quoted(each.name) for each in table.fields)
        sized = [each for each in table.fields if each.type not in (FieldType.INT, FieldType.BOOL, FieldType.REAL)]
        size = " + ".join(f"coalesce(octet_length({quoted(each.name)}), 0)" for each in sized) or "0"
        rows = execute(
            self.connection,
            f"SELECT id, {names}, edited_by, {size} FROM {quoted(table.name)}"
            f" WHERE unit = ? AND id {IN_LIST} ORDER BY id",
            (self.unit, in_list(keys)),
        ).all()
        found: dict[str, SqlRow] = {}
        for key, *row, octets in rows:
            if octets > ROW_BYTES_MAX:
                self._set_aside(table, key, f"the row has {octets} bytes; {ROW_BYTES_MAX} may travel")
                continue
            self.bytes += octets
            found[key] = row
        return found

    def _set_aside(self, table: Table, key: str, reason: str) -> None:
        """A row that may not travel stays local and is reported; nothing else waits for it."""
        self.aside += 1
        execute(
            self.connection,
            "INSERT OR REPLACE INTO _set_aside (unit, tbl, id, reason, noted_ms) VALUES (?, ?, ?, ?, ?)",
            (self.unit, table.number, key, reason, self.context.now_ms()),
        )

    def seal(self) -> Sealed:
        """Sign and store the window as the stream's next batch, and take its notes away."""
        sections: list[Entries] = []
        for part in self.parts:
            rows = self._fit_rows(part)
            if rows is not None:
                sections.append(rows)
            if part.deletes:
                sections.append(section_of(part.table, SectionKind.DELETE, part.deletes))
        for part in self.parts:
            self._forget(part)
        if not sections:
            return Sealed(None, 0, self.aside)
        row = stream_row(self.connection, self.stream)
        others = [head for head in applied_heads(self.connection, self.stream.scope) if head.stream != self.stream]
        seen = seen_by(self.connection, row.no).updated(others)
        delta = seen.changed_since(seen_by(self.connection, row.no))
        batch = self._sign(sections, row.held, tuple(delta))
        head = batch.head
        no = insert_batch(self.connection, row.no, batch, APPLIED, self.context.now_ms())
        note_seen(self.connection, row.no, delta)
        seen = seen if row.held is None else seen.updated([row.held])
        was = {part.table.name: part.was for part in self.parts}
        incoming = Incoming(no, head, seen, self._registry_in_force(), own=True, was=was)
        apply_batch(self.connection, self.context, incoming, sections)
        advance_held(self.connection, row.no, head)
        advance_applied(self.connection, row.no, head)
        self._follow_up(sections)
        return Sealed(head, batch.header.entries, self.aside)

    def _registry_in_force(self) -> Registry:
        return self.registry

    def _fit_rows(self, part: _Part) -> Entries | None:
        """The part's rows in columns. What the table's own checks missed would be refused by every other node: such a
        row is set aside here instead."""
        if not part.rows:
            return None
        entries = section_of(part.table, SectionKind.ROWS, part.rows)
        if fault_in(entries) is None:
            return entries
        kept = []
        for draft in part.rows:
            reason = fault_in(section_of(part.table, SectionKind.ROWS, [draft]))
            if reason is None:
                kept.append(draft)
            else:
                self._set_aside(part.table, draft.id, reason)
        return section_of(part.table, SectionKind.ROWS, kept) if kept else None

    def _sign(self, sections: Sequence[Entries], before: Head | None, delta: tuple[Head, ...]) -> SealedBatch:
        laid = [encode_section(entries, self.context.salt) for entries in sections]
        of_registry = self.stream.scope.endswith(REGISTRY)
        header = BatchHeader(
            tree_id=self.context.tree_id,
            stream=self.stream,
            seq=1 if before is None else before.seq + 1,
            prev=NO_PREV if before is None else before.hash,
            seen_delta=delta,
            registry_version=(0, sha256(b"").digest())
            if of_registry
            else (self.registry.version, self.registry.sha256),
            again=False,
            sections=tuple(each for each, _ in laid),
        )
        header_bytes = encode_header(header)
        signature = self.context.sign("batch", header_bytes)
        chunks = tuple(each for _, each in laid)
        return SealedBatch(encode_batch(header_bytes, signature, chunks), header_bytes, signature, header, chunks)

    def _forget(self, part: _Part) -> None:
        if not part.ids:
            return
        execute(
            self.connection,
            f"DELETE FROM _pending WHERE unit = ? AND tbl = ? AND id {IN_LIST}",
            (self.unit, part.table.number, in_list(part.ids)),
        )

    def _follow_up(self, sections: Sequence[Entries]) -> None:
        follow_up(self.connection, self.context, {entries.table.name for entries in sections})


def follow_up(connection: Connection, context: Context, tables: set[str]) -> None:
    """What a change of the built-in tables entails."""
    if REGISTRY_TABLE in tables:
        adopt_registry(connection, context)
    if UNIT_TABLE in tables:
        adopt_units(connection, context)


def seal_all(connection: Connection, context: Context) -> int:
    """Seal everything in the caller's transaction: for set-up and tests; the service seals one batch a transaction."""
    sealed = 0
    while (step := seal_next(connection, context)) is not None:
        sealed += step.head is not None
    return sealed


__all__ = ["CATALOG", "Sealed", "fits_one_batch", "has_pending", "pending_count", "seal_all", "seal_next"]
