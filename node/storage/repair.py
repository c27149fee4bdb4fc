"""Compares what tables and registers say with what the signed batches say, row by row, and puts back what differs.

Role: find the rows that differ, a page of keys at a time; mend a page in one transaction.
Reach: storage, sync_engine; a scratch connection (``replay``) is an argument. Source: decision 0031. Invariant: what is
pending is an edit and no damage; nothing that was found is overwritten before it has been handed to ``keep``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from node.storage.apply import applying
from node.storage.context import Context
from node.storage.digests import UNREADABLE as READING_FAILS
from node.storage.digests import forget, readable, told
from node.storage.engine import IN_LIST, bulk, execute, in_list, quoted
from node.storage.inbox import seal_remainder
from node.storage.registers import LoadedKey, load_keys
from node.storage.replay import Replay, copied
from sync_engine.names import unit_of
from sync_engine.registry import Table

KEYS_AT_ONCE = 400
CHANGED, LOST, ADDED = "changed", "lost", "added"
UNREADABLE = "(unreadable)"
HIDDEN = "(history)"
"""What differs is nothing that the table shows: another value beside the shown one, a time, who wrote it."""


@dataclass(frozen=True, slots=True)
class Place:
    """One table of one scope. ``number`` is the scope's here, -1 where nothing of it was ever merged."""

    scope: str
    table: Table
    number: int

    @property
    def unit(self) -> str:
        return unit_of(self.scope)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not what its signed batches say. ``fields`` names what differs, without the values."""

    id: str
    kind: str
    fields: tuple[str, ...]


Keep = Callable[[Place, Sequence[Mapping[str, Any]]], None]
"""Writes down what was found in rows that are about to be put back, durably."""


def places(connection: Connection, scope: str, tables: Iterable[Table]) -> list[Place]:
    """The tables whose rows may be in a scope."""
    number = execute(connection, "SELECT no FROM _scope WHERE name = ?", (scope,)).scalar()
    return [Place(scope, table, -1 if number is None else number) for table in tables if table.belongs_in(scope)]


# --- comparing ---


def next_keys(live: Connection, scratch: Connection, place: Place, last: str) -> list[str]:
    """The next ids that either side knows: of a register, or of a row."""
    number, tbl, table = place.number, place.table.number, quoted(place.table.name)
    kept = "SELECT DISTINCT id FROM {0} WHERE scope = ? AND tbl = ? AND id > ? ORDER BY id LIMIT ?"
    shown = f"SELECT id FROM {table} WHERE unit = ? AND id > ? AND typeof(id) = 'text' ORDER BY id LIMIT ?"
    found: set[str] = set()
    end: str | None = None
    for side in (live, scratch):
        for rows in (
            execute(side, kept.format("_row"), (number, tbl, last, KEYS_AT_ONCE)),
            execute(side, kept.format("_write"), (number, tbl, last, KEYS_AT_ONCE)),
            execute(side, shown, (place.unit, last, KEYS_AT_ONCE)),
        ):
            ids = rows.scalars().all()
            found.update(ids)
            if len(ids) == KEYS_AT_ONCE:
                end = ids[-1] if end is None else min(end, ids[-1])
    return sorted(key for key in found if end is None or key <= end)


def differences(
    live: Connection, scratch: Connection, context: Context, replay: Replay, place: Place, ids: Sequence[str]
) -> list[Difference]:
    """Which of some rows differ. Rows with edits that are not sealed yet, or that may not travel, are left out."""
    ids = sorted(set(ids) - _unsealed(live, place, ids))
    ought = _load(scratch, replay.context, place, ids)
    found = _load(live, context, place, ids)
    registers = readable(context, place.table, place.unit)
    names = {each.name for register in registers for each in register.fields}
    result = []
    for key in ids:
        mine, theirs = found.get(key), ought.get(key)
        if mine is None or theirs is None:  # what cannot be read is no damage of the batches: they have been proven
            result.append(Difference(key, CHANGED, (UNREADABLE,)))
            continue
        fields = {name for name in names if (mine.row or {}).get(name) != (theirs.row or {}).get(name)}
        if (mine.row is None) != (theirs.row is None):
            result.append(Difference(key, ADDED if theirs.row is None else LOST, ()))
        elif fields:
            result.append(Difference(key, CHANGED, tuple(sorted(fields))))
        elif _differ_beneath(mine, theirs, registers):
            result.append(Difference(key, CHANGED, (HIDDEN,)))
    return result


def _differ_beneath(mine: LoadedKey, theirs: LoadedKey, registers: Sequence[Any]) -> bool:
    """Registers that are the same in every part, as nearly all are, need not be told one by one."""
    apart = mine.states != theirs.states or bool(mine.live or theirs.live)
    return mine.shown != theirs.shown or (apart and _beneath(mine, registers) != _beneath(theirs, registers))


def _beneath(loaded: LoadedKey, registers: Sequence[Any]) -> tuple[Any, ...]:
    """All of a key that every node must hold alike."""
    states = {identity: dict(told(state, registers)) for identity, state in loaded.states.items()}
    born = {identity: state.born for identity, state in loaded.states.items()}
    conflicts = {(identity, name, number) for (identity, name), (_no, number, _state) in loaded.live.items()}
    return states, born, loaded.shown, conflicts


def _unsealed(live: Connection, place: Place, ids: Sequence[str]) -> set[str]:
    tbl = place.table.number
    noted = execute(
        live,
        f"SELECT id FROM _pending WHERE unit = ? AND tbl IN (?, ?) AND id {IN_LIST}",
        (place.unit, tbl, -tbl, in_list(ids)),
    ).scalars()
    aside = execute(
        live,
        f"SELECT id FROM _set_aside WHERE unit = ? AND tbl = ? AND id {IN_LIST}",
        (place.unit, tbl, in_list(ids)),
    ).scalars()
    return {*noted, *aside}


def _load(connection: Connection, context: Context, place: Place, ids: Sequence[str]) -> dict[str, LoadedKey]:
    """Keys as stored; without those that cannot be read."""
    if not ids:
        return {}
    try:
        return load_keys(connection, context, place.table, place.number, place.unit, ids)[0]
    except READING_FAILS:
        if len(ids) == 1:
            return {}
        half = len(ids) // 2  # which it is, only reading tells
        return {
            **_load(connection, context, place, ids[:half]),
            **_load(connection, context, place, ids[half:]),
        }


# --- mending ---


def mend(
    connection: Connection,
    context: Context,
    scratch: Connection,
    replay: Replay,
    place: Place,
    ids: Sequence[str],
    keep: Keep,
) -> list[Difference]:
    """Put back those of some rows that differ; what was in them is handed to ``keep`` first. Raises SealFirst
    or Unproven."""
    seal_remainder(connection, context)
    replay.advance(connection, scratch)
    wrong = differences(connection, scratch, context, replay, place, ids)
    keys = [each.id for each in wrong]
    if not keys:
        return []
    keep(place, [_record(connection, context, place, each) for each in wrong])
    with applying(connection):
        for name in ("_row", "_write"):
            _copy(connection, scratch, name, place, keys)
        _copy_conflicts(connection, scratch, context, place, keys)
        _copy_rows(connection, scratch, place, keys)
    forget(connection, place.scope)
    return wrong


def _record(connection: Connection, context: Context, place: Place, wrong: Difference) -> dict[str, Any]:
    """What was found in one row: the table's, exactly, and what its registers held beside it."""
    names = [each.name for each in place.table.fields] + ["edited_by"]
    columns = ", ".join(f"quote({quoted(name)})" for name in names)
    found: dict[str, Any] = {"table": place.table.name, "unit": place.unit, "id": wrong.id, "what": wrong.kind}
    sql = f"SELECT {columns} FROM {quoted(place.table.name)} WHERE unit = ? AND id = ?"
    try:
        row = execute(connection, sql, (place.unit, wrong.id)).one_or_none()
    except DBAPIError:  # text that is none
        columns = ", ".join(f"hex({quoted(name)})" for name in names)
        sql = f"SELECT {columns} FROM {quoted(place.table.name)} WHERE unit = ? AND id = ?"
        row = execute(connection, sql, (place.unit, wrong.id)).one_or_none()
    found["row"] = None if row is None else dict(zip(names, row, strict=True))
    loaded = _load(connection, context, place, [wrong.id]).get(wrong.id)
    if loaded is not None:
        registers = readable(context, place.table, place.unit)
        found["registers"] = {identity.hex(): dict(told(state, registers)) for identity, state in loaded.states.items()}
    return found


def _copy(connection: Connection, scratch: Connection, name: str, place: Place, keys: list[str]) -> None:
    tbl = place.table.number
    columns, rows = copied(scratch, name, place.number, tbl, keys)
    where = f"scope = ? AND tbl = ? AND id {IN_LIST}"
    execute(connection, f"DELETE FROM {name} WHERE {where}", (place.number, tbl, in_list(keys)))
    marks = ", ".join("?" * (columns.count(",") + 1))
    bulk(connection, f"INSERT INTO {name} ({columns}) VALUES ({marks})", rows)


def _copy_conflicts(
    connection: Connection, scratch: Connection, context: Context, place: Place, keys: list[str]
) -> None:
    """The journal keeps what it has noted; which of it still stands is what the registers say."""
    tbl = place.table.number
    columns, rows = copied(scratch, "_conflict", place.number, tbl, keys)
    names = columns.split(", ")
    stands = [dict(zip(names, row, strict=True)) for row in rows]
    stands = [each for each in stands if each["live"]]
    key = ("id", "identity", "field", "number")
    ought = {tuple(each[name] for name in key) for each in stands}
    where = f"live = 1 AND scope = ? AND tbl = ? AND id {IN_LIST}"
    there = execute(
        connection,
        f"SELECT no, {', '.join(key)} FROM _conflict WHERE {where}",
        (place.number, tbl, in_list(keys)),
    ).all()
    gone = [(context.now_ms(), no) for no, *rest in there if tuple(rest) not in ought]
    bulk(connection, "UPDATE _conflict SET live = 0, state = 'superseded', ended_ms = ? WHERE no = ?", gone)
    have = {tuple(rest) for _no, *rest in there}
    fresh = [each for each in stands if tuple(each[name] for name in key) not in have]
    names.remove("no")
    bulk(
        connection,
        f"INSERT INTO _conflict ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
        [tuple(each[name] for name in names) for each in fresh],
    )


def _copy_rows(connection: Connection, scratch: Connection, place: Place, keys: list[str]) -> None:
    """What the table ought to show. A column that the registry no longer names keeps its data."""
    table = quoted(place.table.name)
    names = [*(quoted(each.name) for each in place.table.fields), "edited_by"]
    rows = execute(
        scratch,
        f"SELECT unit, id, {', '.join(names)} FROM {table} WHERE unit = ? AND id {IN_LIST}",
        (place.unit, in_list(keys)),
    ).all()
    shown = {row[1] for row in rows}
    gone = [(place.unit, key) for key in keys if key not in shown]
    bulk(connection, f"DELETE FROM {table} WHERE unit = ? AND id = ?", gone)
    bulk(
        connection,
        f"INSERT INTO {table} (unit, id, {', '.join(names)}) VALUES ({', '.join('?' * (len(names) + 2))})"
        f" ON CONFLICT (unit, id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names)}",
        [tuple(row) for row in rows],
    )
