"""Phase 2 of a load: checked rows go into a table in sets, and what the triggers would note of them is noted here.

Role: tell new rows from known ones, write both, note inserts and edits with capture's own SQL; and read a table out.
Reach: storage tables, capture, the registry's model. Source: docs/decisions/0018. Invariant: table and notes are what
the same rows through the triggers would have made of them (tests/test_load_capture.py), and one transaction holds all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from sqlalchemy import Connection

from node.messages import say
from node.storage.apply import applying
from node.storage.capture import image_sql, mask_sql, no_change_sql, note_sql, remembered, touched_sql
from node.storage.checks import change_message, unchangeable
from node.storage.engine import IN_LIST, bulk, execute, in_list
from node.storage.tables import SQL_TYPES, literal, quoted
from node.storage.window import octets_sql
from sync_engine.limits import ROW_BYTES_MAX
from sync_engine.registry import Field, FieldType, Registry, Table

PAGE_ROWS = 2_000
_STAGE = "temp._load"
_BLANKS = literal("".join(char for point in range(0x3001) if (char := chr(point)).isspace()))
_SAME_KEY = 'o."unit" = s."unit" AND o."id" = s."id"'

Reject = Callable[[int, str, str], None]
"""Keeps a line out: line, column ('' for the row), reason."""


@dataclass(slots=True)
class Counts:
    """What a load came to. ``cleared`` are values that empty cells took away."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    cleared: int = 0


class Put:
    """Puts rows of one table in, a chunk at a time, in the caller's transaction. ``names`` are the columns besides the
    key that every chunk has."""

    def __init__(
        self, connection: Connection, registry: Registry, table: Table, unit: str, names: Sequence[str], reject: Reject
    ) -> None:
        self.connection, self.registry, self.table, self.names = connection, registry, table, list(names)
        self.reject = reject
        self.counts = Counts()
        self._fields = [each for each in table.fields if each.name in self.names]
        self._locked = [
            (register, next(each.name for each in register.fields if each.name in self.names))
            for register in unchangeable(table, unit)
            if any(each.name in self.names for each in register.fields)
        ]
        self._sql = _Statements(table, self.names, self._fields)
        execute(connection, f"DROP TABLE IF EXISTS {_STAGE}")
        execute(connection, self._sql.create)
        self._was_empty = execute(connection, f"SELECT 1 FROM {quoted(table.name)} LIMIT 1").scalar() is None

    def chunk(
        self, units: Sequence[str], ids: Sequence[str], lines: Sequence[int], columns: Sequence[list[Any]]
    ) -> None:
        """Insert the rows that are new and edit those that are not; ``columns`` are in the order of ``names``."""
        known = self._known(units, ids)
        rows = list(zip(units, ids, *columns, strict=True))
        staged: list[tuple[Any, ...]] = []
        if known:
            fresh = [key not in known for key in zip(units, ids, strict=True)]
            held = [not each for each in fresh]
            staged = [(line, *row) for line, row in zip(compress(lines, held), compress(rows, held), strict=True)]
            rows, lines = list(compress(rows, fresh)), list(compress(lines, fresh))
        with applying(self.connection):
            if rows:
                self._insert(rows, lines)
            if staged:
                self._edit(staged)

    def finish(self) -> Counts:
        """The caller commits."""
        execute(self.connection, f"DROP TABLE {_STAGE}")
        return self.counts

    def _known(self, units: Sequence[str], ids: Sequence[str]) -> set[tuple[str, str]]:
        by_unit: dict[str, list[str]] = {}
        if self._was_empty:
            return set()
        for unit, key in zip(units, ids, strict=True):
            by_unit.setdefault(unit, []).append(key)
        query = f'SELECT "id" FROM {quoted(self.table.name)} WHERE "unit" = ? AND "id" {IN_LIST}'
        return {
            (unit, key)
            for unit, keys in by_unit.items()
            for key in execute(self.connection, query, (unit, in_list(keys))).scalars()
        }

    def _insert(self, rows: list[tuple[Any, ...]], lines: Sequence[int]) -> None:
        missing = [each.name for each in self.table.required if each.name not in self.names]
        if missing:
            for line in lines:
                for name in missing:
                    self.reject(line, name, say("load.why.new_row"))
            return
        rows.sort(key=_key)  # in the table's own order: neighbours share pages
        bulk(self.connection, self._sql.insert, rows)
        bulk(self.connection, self._sql.note_insert, [row[:2] for row in rows])
        self.counts.inserted += len(rows)

    def _edit(self, rows: list[tuple[Any, ...]]) -> None:
        connection, sql = self.connection, self._sql
        execute(connection, f"DELETE FROM {_STAGE}")
        bulk(connection, sql.stage, rows)
        if sql.complete is not None:
            execute(connection, sql.complete)
        execute(connection, sql.mask)
        self.counts.unchanged += execute(connection, sql.drop_unchanged).rowcount
        self._refuse()
        if sql.note_before is not None:
            execute(connection, sql.note_before)
        execute(connection, sql.note_edit)
        if sql.cleared is not None:
            self.counts.cleared += execute(connection, sql.cleared).scalar() or 0
        if sql.update is not None:
            self.counts.updated += execute(connection, sql.update).rowcount

    def _refuse(self) -> None:
        """What only the row in the table tells: fields that this level may not change, rows that grow too long."""
        connection, refused = self.connection, set()
        for register, name in self._locked:
            touched = f"SELECT s._line FROM {self._sql.both} WHERE {touched_sql(register, 'o', 's')}"
            for line in execute(connection, touched).scalars():
                self.reject(line, name, change_message(self.registry, register))
                refused.add(line)
        long = f"SELECT _line FROM {_STAGE} WHERE {octets_sql(self.table)} > {ROW_BYTES_MAX}"
        for line in execute(connection, long).scalars():
            self.reject(line, "", say("load.why.large", octets=ROW_BYTES_MAX))
            refused.add(line)
        if refused:
            execute(connection, f"DELETE FROM {_STAGE} WHERE _line {IN_LIST}", (in_list(sorted(refused)),))


def _key(row: tuple[Any, ...]) -> tuple[str, str]:
    return row[0], row[1]


class _Statements:
    """The SQL of one table and one file's columns. ``s`` is a row of the file, ``o`` the table's."""

    def __init__(self, table: Table, names: Sequence[str], fields: Sequence[Field]) -> None:
        real, here = quoted(table.name), [quoted(name) for name in names]
        typed = "".join(f", {quoted(each.name)} {SQL_TYPES[each.type]}" for each in table.fields)
        listed = ", ".join(('"unit"', '"id"', *here))
        marks = ", ".join("?" * (len(here) + 2))
        # CROSS JOIN: SQLite shall begin with the few.
        self.both = f"{_STAGE} AS s CROSS JOIN {real} AS o ON {_SAME_KEY}"
        self.create = f'CREATE TEMP TABLE _load (_line INTEGER, _mask, "unit" TEXT, "id" TEXT{typed}, "edited_by" TEXT)'
        self.insert = f"INSERT INTO {real} ({listed}) VALUES ({marks})"
        inserted = 'SELECT ? AS "unit", ? AS "id", \'I\' AS kind, 0 AS mask, NULL AS image'
        self.note_insert = note_sql(table, "noted", inserted)
        self.stage = f"INSERT INTO {_STAGE} (_line, {listed}) VALUES (?, {marks})"
        kept = [f"{_as_it_is(each)}" for each in table.fields if each not in fields]
        kept += [_as_it_means(each) for each in fields if each.type in _WRITTEN_FREELY]
        joined = f"FROM {real} AS o WHERE {_SAME_KEY}"
        self.complete = f"UPDATE {_STAGE} AS s SET {', '.join(kept)} {joined}" if kept else None
        self.mask = f"UPDATE {_STAGE} AS s SET _mask = {mask_sql(table, 'o', 's')} {joined}"
        self.drop_unchanged = f"DELETE FROM {_STAGE} WHERE _mask = {no_change_sql(table)}"
        self.note_before = None
        if kept_before := remembered(table):
            touched = " OR ".join(touched_sql(register, "o", "s") for register in kept_before)
            image = image_sql(table, "o", remembered_only=True)
            before = f"'B' AS kind, 0 AS mask, {image} AS image FROM {self.both} WHERE {touched}"
            self.note_before = note_sql(table, "noted", f'SELECT s."unit", s."id", {before}')
        edited = f'SELECT "unit", "id", \'E\' AS kind, _mask AS mask, NULL AS image FROM {_STAGE}'
        self.note_edit = note_sql(table, "noted", edited)
        gone = " + ".join(f"(s.{quoted(each.name)} IS NULL AND o.{quoted(each.name)} IS NOT NULL)" for each in fields)
        self.cleared = f"SELECT sum({gone}) FROM {self.both}" if fields else None
        sets = ", ".join(f"{name} = s.{name}" for name in here)
        self.update = f"UPDATE {real} AS o SET {sets} FROM {_STAGE} AS s WHERE {_SAME_KEY}" if fields else None


_WRITTEN_FREELY = (FieldType.TEXT, FieldType.CODE, FieldType.SET, FieldType.BYTES, FieldType.TIMESTAMP)


def _as_it_is(field: Field) -> str:
    """A column that the file does not have keeps its value."""
    return f"{quoted(field.name)} = o.{quoted(field.name)}"


def _as_it_means(field: Field) -> str:
    """Blanks around a text, no text for an empty one, and a set written otherwise are no change: a file cannot show
    them."""
    old, fresh = f"o.{quoted(field.name)}", f"s.{quoted(field.name)}"
    if field.type is FieldType.SET:
        same = f"coalesce(json({old}), '[]') = coalesce({fresh}, '[]')"
    elif field.type is FieldType.BYTES:
        same = f"coalesce({old}, x'') = coalesce({fresh}, x'')"
    elif field.type is FieldType.TIMESTAMP:
        same = f"replace({old}, '.000Z', 'Z') = {fresh}"
    else:
        same = f"trim(coalesce({old}, ''), {_BLANKS}) = coalesce({fresh}, '')"
    return f"{quoted(field.name)} = CASE WHEN {old} IS NOT {fresh} AND {same} THEN {old} ELSE {fresh} END"


# --- what is known before, and what is read out ---


def writable_units(connection: Connection, table: Table, unit: str) -> tuple[str, ...]:
    """The units whose rows of a table this node may write."""
    if table.catalogue:
        return (unit,)
    return tuple(execute(connection, "SELECT unit FROM _writable_unit ORDER BY unit").scalars())


def codes_known(connection: Connection, registry: Registry, kinds: set[str]) -> dict[str, list[tuple[str, str, bool]]]:
    """By kind: (code, what people call it, whether it is out of use), from every catalogue that has codes."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for table in registry.tables.values():
        if not kinds or not table.catalogue or not all(map(table.has, ("kind", "code"))):
            continue
        label = '"label"' if table.has("label") else "NULL"
        retired = '"retired"' if table.has("retired") else "0"
        query = f'SELECT "kind", "code", {label}, {retired} FROM {quoted(table.name)} WHERE "kind" {IN_LIST}'
        for kind, code, called, gone in execute(connection, query, (in_list(sorted(kinds)),)):
            if code:
                found.setdefault(kind, []).append((code, called or "", bool(gone)))
    return found


def units_present(connection: Connection, table: Table) -> list[str]:
    """The units that have rows in a table, in order."""
    units: list[str] = []
    query = f'SELECT min("unit") FROM {quoted(table.name)} WHERE "unit" > ?'
    while (unit := execute(connection, query, (units[-1] if units else "",)).scalar()) is not None:
        units.append(unit)
    return units


def pages(connection: Connection, table: Table, unit: str) -> Iterator[list[tuple[Any, ...]]]:
    """A unit's rows in order of their ids: id, the fields, edited_by."""
    names = ", ".join(quoted(each.name) for each in table.fields)
    query = (
        f'SELECT "id", {names}, "edited_by" FROM {quoted(table.name)} WHERE "unit" = ? AND "id" > ?'
        ' ORDER BY "id" LIMIT ?'
    )
    after = ""
    while rows := [tuple(row) for row in execute(connection, query, (unit, after, PAGE_ROWS))]:
        yield rows
        after = rows[-1][0]
