"""The window of pending keys that becomes one batch: gathered in key order, bounded before it is read.

Role: read notes and rows, fold them, set aside what may not travel, lay the rest out in columns.
Reach: storage tables, sync_engine.seal. Invariant: a row that may not travel stops nothing: it stays local, is
reported, and keeps its notes until it is fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unicodedata import is_normalized

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from conflict.values import StreamId
from node.storage.context import Context
from node.storage.engine import IN_LIST, execute, in_list, quoted
from node.storage.pending import fault_in, known_rows, normalise_text, read_notes, wire_row
from sync_engine.batch import SectionKind
from sync_engine.entries import ID_CHARS_MAX, Entries
from sync_engine.errors import RegistryError
from sync_engine.limits import ENTRIES_MAX, PLAIN_BYTES_SEALED, ROW_BYTES_MAX
from sync_engine.registry import REGISTRY_TABLE, FieldType, Registry, Table, check_successor, parse_registry
from sync_engine.seal import Draft, Folder, Noted, SqlRow, section_of

ROWS_AT_ONCE = 500
"""Rows read together: with the largest allowed rows this bounds a window's memory before its size is known."""

_ROW_OVERHEAD = 64 + ID_CHARS_MAX
"""What a row has on the wire beside its values, at most."""


def octets_sql(table: Table) -> str:
    """How many bytes a row's values of no fixed size have."""
    fixed = (FieldType.INT, FieldType.BOOL, FieldType.REAL)
    sized = [quoted(each.name) for each in table.fields if each.type not in fixed]
    return " + ".join(f"coalesce(octet_length({name}), 0)" for name in sized) or "0"


@dataclass(slots=True)
class Part:
    """One table's share of a window."""

    table: Table
    ids: list[str]
    rows: list[Draft] = field(default_factory=list)
    deletes: list[Draft] = field(default_factory=list)
    was: dict[str, dict[str, Any]] = field(default_factory=dict)


class Window:
    """The pending keys that go into one batch of one scope: gathered table by table, then laid out in sections."""

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
        self.parts: list[Part] = []

    def add_table(self, table: Table, notes_max: int) -> None:
        """Read and fold pending keys of one table, in key order, till the window is full."""
        noted, self.images = read_notes(self.connection, table, self.unit, notes_max)
        self.notes += sum(note.count for note in noted.values())
        if not noted:
            return
        if execute(self.connection, "SELECT 1 FROM _set_aside LIMIT 1").scalar() is not None:
            execute(
                self.connection,
                f"DELETE FROM _set_aside WHERE unit = ? AND tbl = ? AND id {IN_LIST}",
                (self.unit, table.number, in_list(noted)),
            )
        folder = Folder(table)
        part = Part(table, [])
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
            f"SELECT id, {octets_sql(table)} FROM {quoted(table.name)} WHERE unit = ? AND id {IN_LIST}",
            (self.unit, in_list(keys)),
        )
        octets = dict(tuple(row) for row in rows)
        chosen: list[str] = []
        for key in keys:
            row = octets.get(key, 0)
            size = _ROW_OVERHEAD + 9 * len(table.fields) + self.images.get(key, 0)
            size += 0 if row > ROW_BYTES_MAX else row  # a longer one is set aside, unread
            if self.bytes and self.bytes + size > PLAIN_BYTES_SEALED:
                self.is_full = True
                break
            self.bytes += size
            chosen.append(key)
            if row > ROW_BYTES_MAX:
                self._set_aside(table, key, f"the row has {row} bytes; {ROW_BYTES_MAX} may travel")
        return chosen

    def _fold(self, part: Part, folder: Folder, noted: Mapping[str, Noted]) -> None:
        """Fold some keys of one table with their current values and what the registers hold."""
        table, keys = part.table, list(noted)
        current = self._current(table, keys)
        normalise_text(self.connection, table, self.unit, current)
        identities = dict(zip(current, folder.prepare(list(current.values())), strict=True))
        known = known_rows(self.connection, table, self.stream, keys)
        for key, note in noted.items():
            if (table.number, key) in self.set_aside:
                part.ids.append(key)  # nor does what it took the place of: deleted beneath it, it would be gone here
                continue
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
        """Rows as the table has them, in SQL form; one that cannot be read as text is set aside."""
        names = ", ".join(quoted(each.name) for each in table.fields)
        query = f"SELECT id, {names}, edited_by FROM {quoted(table.name)} WHERE unit = ? AND id {IN_LIST} ORDER BY id"
        keys = [key for key in keys if (table.number, key) not in self.set_aside]
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
        for key, *row in rows:
            if is_normalized("NFC", key):
                found[key] = row
            else:
                self._set_aside(table, key, "the row's id is not in Unicode's composed form (NFC)")
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

    def sections(self) -> list[Entries]:
        """The window in columns, ready to be signed."""
        found: list[Entries] = []
        for part in self.parts:
            rows = self._fit_rows(part)
            if rows is not None:
                found.append(rows)
            if part.deletes:
                found.append(section_of(part.table, SectionKind.DELETE, part.deletes))
        return found

    @property
    def was(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By table and id: the fields whose value before the pending changes still matters."""
        return {part.table.name: part.was for part in self.parts}

    def _fit_rows(self, part: Part) -> Entries | None:
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
        aside = {draft.id for draft in part.rows if (part.table.number, draft.id) in self.set_aside}
        part.deletes = [draft for draft in part.deletes if draft.id not in aside]
        kept = [draft for draft in kept if draft.id not in aside]
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

    def forget(self) -> None:
        """Take the window's notes away. Those of a row that was set aside stay, under the table's number made
        negative: what it has of edits travels once it is fit."""
        for part in self.parts:
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
