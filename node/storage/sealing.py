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
from unicodedata import is_normalized

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from conflict.values import Head, StreamId
from node.storage.apply import Incoming, apply_batch
from node.storage.batches import APPLIED, insert_batch
from node.storage.context import Context
from node.storage.engine import IN_LIST, execute, in_list, quoted
from node.storage.meta import check_not_fenced
from node.storage.pending import fault_in, known_rows, normalise_text, read_notes, wire_row
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
from sync_engine.entries import ID_CHARS_MAX, Entries, encode_section
from sync_engine.errors import RegistryError
from sync_engine.limits import ENTRIES_MAX, ENTRIES_SEALED, PLAIN_BYTES_SEALED, ROW_BYTES_MAX
from sync_engine.names import CATALOG, REGISTRY
from sync_engine.registry import (
    BUILTIN,
    REGISTRY_TABLE,
    UNIT_TABLE,
    FieldType,
    Registry,
    Table,
    check_successor,
    parse_registry,
)
from sync_engine.seal import Draft, Folder, Noted, SqlRow, section_of

ROWS_AT_ONCE = 500
"""Rows read together: with the largest allowed rows this bounds a window's memory before its size is known."""


_ROW_OVERHEAD = 64 + ID_CHARS_MAX
"""What a row has on the wire beside its values, at most."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one step of sealing did. ``head`` is None where the notes came to nothing (a row that came and went)."""

    head: Head | None
    entries: int
    set_aside: int


def pending_count(connection: Connection) -> int:
    """How many notes wait to be sealed."""
    return int(execute(connection, "SELECT count(*) FROM _pending WHERE tbl > 0").scalar_one())


def has_pending(connection: Connection) -> bool:
    return execute(connection, "SELECT 1 FROM _pending WHERE tbl > 0 LIMIT 1").scalar() is not None


def fits_one_batch(connection: Connection, notes_max: int) -> bool:
    """Whether what is pending is small enough to be sealed inside another transaction."""
    return execute(connection, "SELECT 1 FROM _pending WHERE tbl > 0 LIMIT 1 OFFSET ?", (notes_max,)).scalar() is None


def seal_next(connection: Connection, context: Context, notes_max: int = ENTRIES_SEALED) -> Sealed | None:
    """Seal one batch in the caller's transaction; None when nothing is pending. Raises Fenced."""
    check_not_fenced(connection)
    registry = current_registry(connection, context)
    first = _first_pending(connection)
    if first is None:
        return None
    unit, tbl = first
    table = registry.by_number[tbl]
    scope = table.scope_of(unit)
    window = _Window(connection, context, registry, unit, StreamId(context.unit, context.epoch, scope))
    for _number, part in sorted(registry.by_number.items()):
        if part.scope_of(unit) == scope and window.notes < notes_max and not window.is_full:
            window.add_table(part, notes_max - window.notes)
    return window.seal()


def _octets_sql(table: Table) -> str:
    """How many bytes a row's values of no fixed size have."""
    fixed = (FieldType.INT, FieldType.BOOL, FieldType.REAL)
    sized = [quoted(each.name) for each in table.fields if each.type not in fixed]
    return " + ".join(f"coalesce(octet_length({name}), 0)" for name in sized) or "0"


def _first_pending(connection: Connection) -> tuple[str, int] | None:
    """Where to begin: the registry comes last, because masks noted before it follow the old one's order."""
    sql = "SELECT unit, tbl FROM _pending WHERE tbl > 0 AND tbl <> ? ORDER BY unit, tbl LIMIT 1"  # along its key
    found = execute(connection, sql, (BUILTIN[REGISTRY_TABLE].number,)).one_or_none()
    if found is None:
        found = execute(connection, sql, (0,)).one_or_none()
    return None if found is None else (found[0], found[1])


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
        self.notes = self.bytes = self.entries = self.aside = 0
        self.is_full = False
        self.images: dict[str, int] = {}
        self.set_aside: set[tuple[int, str]] = set()
        self.parts: list[_Part] = []

    def add_table(self, table: Table, notes_max: int) -> None:
        """Read and fold pending keys of one table, in key order, till the window is full."""
        noted, self.images = read_notes(self.connection, table, self.unit, notes_max)
        self.notes += sum(note.count for note in noted.values())
        if not noted:
            return
        execute(
            self.connection,
            f"DELETE FROM _set_aside WHERE unit = ? AND tbl = ? AND id {IN_LIST}",
            (self.unit, table.number, in_list(noted)),
        )
        folder = Folder(table)
        part = _Part(table, [])
        keys = list(noted)
        for start in range(0, len(keys), ROWS_AT_ONCE):
            if self.is_full:
                break
            chosen = self._affordable(table, keys[start : start + ROWS_AT_ONCE])
            self._fold(part, folder, {key: noted[key] for key in chosen})
        self.parts.append(part)

    def _affordable(self, table: Table, keys: Sequence[str]) -> list[str]:
        """The first of these keys whose rows fit the window, known before the rows are read."""
        rows = execute(
            self.connection,
            f"SELECT id, {_octets_sql(table)} FROM {quoted(table.name)} WHERE unit = ? AND id {IN_LIST}",
            (self.unit, in_list(keys)),
        )
        octets = dict(tuple(row) for row in rows)
        chosen: list[str] = []
        for key in keys:
            row = octets.get(key, 0)
            size = _ROW_OVERHEAD + 9 * len(table.fields) + self.images.get(key, 0)
            size += 0 if row > ROW_BYTES_MAX else row  # a longer one is set aside
            if self.bytes and self.bytes + size > PLAIN_BYTES_SEALED:
                self.is_full = True
                break
            self.bytes += size
            chosen.append(key)
        return chosen

    def _fold(self, part: _Part, folder: Folder, noted: Mapping[str, Noted]) -> None:
        """Fold some keys of one table with their current values and what the registers hold."""
        table, keys = part.table, list(noted)
        current = self._current(table, keys)
        normalise_text(self.connection, table, self.unit, current)
        identities = dict(zip(current, folder.prepare(list(current.values())), strict=True))
        known = known_rows(self.connection, table, self.stream, keys)
        for key, note in noted.items():
            row = current.get(key)
            held = known.get(key, ())
            rows, deletes = folder.fold(note, row, identities.get(key, b""), held) if row or held else ([], [])
            self.entries += len(rows) + len(deletes)
            if self.entries > ENTRIES_MAX and part.ids:
                self.is_full = True
                break
            part.ids.append(key)
            part.rows += rows
            part.deletes += deletes
            if note.image is not None:
                part.was[key] = wire_row(table, note.image)
            if note.before:
                part.was.setdefault(key, {}).update(note.before)

    def _current(self, table: Table, keys: Sequence[str]) -> dict[str, SqlRow]:
        """Rows as the table has them, in SQL form; one over the limit is set aside."""
        names = ", ".join(quoted(each.name) for each in table.fields)
        query = (
            f"SELECT id, {names}, edited_by, {_octets_sql(table)} FROM {quoted(table.name)}"
            f" WHERE unit = ? AND id {IN_LIST} ORDER BY id"
        )
        try:
            rows = execute(self.connection, query, (self.unit, in_list(keys))).all()
        except OperationalError as error:
            if "UTF-8" not in str(error.orig):
                raise
            if len(keys) == 1:
                self._set_aside(table, keys[0], "the row holds text that is not UTF-8")
                return {}
            half = len(keys) // 2  # which row it is, only reading tells
            return {**self._current(table, keys[:half]), **self._current(table, keys[half:])}
        found: dict[str, SqlRow] = {}
        for key, *row, octets in rows:
            if octets > ROW_BYTES_MAX:
                self._set_aside(table, key, f"the row has {octets} bytes; {ROW_BYTES_MAX} may travel")
            elif not is_normalized("NFC", key):
                self._set_aside(table, key, "the row's id is not in Unicode's composed form (NFC)")
            else:
                found[key] = row
        return found

    def _set_aside(self, table: Table, key: str, reason: str) -> None:
        """A row that may not travel stays local and is reported; nothing else waits for it."""
        self.aside += 1
        self.set_aside.add((table.number, key))
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
        part.rows = [draft for draft in part.rows if not self._is_bad_registry(part.table, draft)]
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

    def _is_bad_registry(self, table: Table, draft: Draft) -> bool:
        """A registry that cannot follow the one in force is set aside: every node would have to refuse it."""
        if table.name != REGISTRY_TABLE:
            return False
        try:
            offered = parse_registry(draft.row[0])
            if str(offered.version) != draft.id:
                raise RegistryError(f"its version is {offered.version}, its id {draft.id}", line=1)
            if self.registry.version:
                check_successor(self.registry, offered)
        except RegistryError as fault:
            self._set_aside(table, draft.id, str(fault))
            return True
        return False

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
        """Take notes away. Those of a row that was set aside stay, under the table's number made negative: what it
        has of edits travels once it is fit."""
        number = part.table.number
        aside = [key for key in part.ids if (number, key) in self.set_aside]
        sealed = [key for key in part.ids if (number, key) not in self.set_aside]
        if aside:
            execute(
                self.connection,
                f"UPDATE OR REPLACE _pending SET tbl = -tbl WHERE unit = ? AND tbl = ? AND id {IN_LIST}",
                (self.unit, number, in_list(aside)),
            )
        for tbl in (number, -number):
            execute(
                self.connection,
                f"DELETE FROM _pending WHERE unit = ? AND tbl = ? AND id {IN_LIST}",
                (self.unit, tbl, in_list(sealed)),
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
