"""What the conflict journal and the held values tell people: whose record, who wrote what when, what was decided.

Role: read the journal and the quarantine, filtered, in words that need no look at the registry.
Reach: storage tables. Invariant: a conflict's writes are told in the order in which every node numbers them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection

from conflict.values import Hold, Value, level_of
from node.storage.context import Context
from node.storage.decisions import may_settle
from node.storage.engine import IN_LIST, execute, in_list, quoted
from node.storage.held import HeldValue, held_values, shown_beside
from node.storage.history import person_finder
from node.storage.registries import current_registry
from sync_engine.entries import Act
from sync_engine.fields import from_sql
from sync_engine.merge import ALIVE, TWIN, shown_row
from sync_engine.names import is_within, unit_of
from sync_engine.registry import Registry, Table

REASONS = {Hold.RIGHT: "right", Hold.RULE: "rule", Hold.CODE: "code"}
MILLISECONDS = 16
ROWS_TOGETHER = 500

Person = Callable[[int, str, str, int], str | None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries of the journal: all if nothing is said. ``only_open``: what this node is entitled to settle."""

    only_open: bool = False
    unit: str | None = None
    table: str | None = None
    field: str | None = None
    since_ms: int | None = None
    number: int | None = None


def open_count(connection: Connection, context: Context) -> int:
    """How many conflicts wait for a person of this node."""
    registry = current_registry(connection, context)
    rows = execute(
        connection,
        "SELECT name, tbl, field, count(*) FROM _conflict JOIN _scope ON _scope.no = _conflict.scope"
        " WHERE live = 1 AND state = 'open' GROUP BY name, tbl, field",
    )
    return sum(
        count
        for scope, tbl, field, count in rows
        if tbl in registry.by_number and may_settle(registry.by_number[tbl], field, context.level, unit_of(scope))
    )


def conflicts(connection: Connection, context: Context, wanted: Wanted = Wanted()) -> list[dict[str, Any]]:
    """The journal, newest first, as ``conflicts --json`` gives it."""
    registry = current_registry(connection, context)
    where, values = ["1"], list[Any]()
    if wanted.only_open:
        where.append("live = 1 AND state = 'open'")
    for sql, value in (("noted_ms >= ?", wanted.since_ms), ("number = ?", wanted.number)):
        if value is not None:
            where.append(sql)
            values.append(value)
    rows = execute(
        connection,
        "SELECT number, name, tbl, id, field, policy, state, live, writes, noted_ms, decided FROM _conflict"
        f" JOIN _scope ON _scope.no = _conflict.scope WHERE {' AND '.join(where)} ORDER BY _conflict.no DESC",
        values,
    ).all()
    chosen = [row for row in rows if row[2] in registry.by_number and _is_wanted(registry, row, wanted)]
    if wanted.only_open:
        chosen = [
            row for row in chosen if may_settle(registry.by_number[row[2]], row[4], context.level, unit_of(row[1]))
        ]
    people = _People(connection, registry, [(row[2], unit_of(row[1]), row[3]) for row in chosen])
    person = person_finder(connection, context)
    return [_told(registry, context, row, people, person) for row in chosen]


def _is_wanted(registry: Registry, row: Any, wanted: Wanted) -> bool:
    _number, scope, tbl, _id, field, *_ = row
    table = registry.by_number[tbl]
    if wanted.unit is not None and not (
        is_within(unit_of(scope), wanted.unit) or unit_of(scope).partition(".")[0] == wanted.unit
    ):
        return False
    if wanted.table is not None and wanted.table not in (table.name, table.label):
        return False
    return wanted.field is None or wanted.field in (field, field.partition(":")[0], *_names(table, field))


def _names(table: Table, field: str) -> list[str]:
    """The fields that a conflict is about; all of them where it is about the row."""
    if field in (ALIVE, TWIN):
        return []
    return [each.name for each in table.register(field.partition(":")[0]).fields]


def _label(table: Table, field: str) -> str:
    """What people call what a conflict is about."""
    if field in (ALIVE, TWIN):
        return table.label or table.name
    return ", ".join(each.label for each in table.register(field.partition(":")[0]).fields)


def _told(registry: Registry, context: Context, row: Any, people: _People, person: Person) -> dict[str, Any]:
    number, scope, tbl, key, field, policy, state, live, raw, noted_ms, decided = row
    table, unit = registry.by_number[tbl], unit_of(scope)
    writes = [
        {
            "n": at,
            "value": _value(table, field, value),
            "origin": origin,
            "level": registry.level_name(level),
            "at": time >> MILLISECONDS,
            "person": person(batch, table.name, key, time),
            "won": won,
        }
        for at, (origin, level, time, value, won, batch) in enumerate(msgspec.msgpack.decode(raw), start=1)
    ]
    return {
        "id": number,
        "table": table.name,
        "key": key,
        "field": field,
        "label": _label(table, field),
        "fields": _names(table, field),
        "labels": [table.field(name).label for name in _names(table, field)],
        "scope": scope,
        "unit": unit,
        "state": state,
        "policy": policy,
        "shown": next((write["value"] for write in writes if write["won"]), None),
        "noted_ms": noted_ms,
        "live": bool(live),
        "may_settle": may_settle(table, field, context.level, unit),
        "row": people.row(tbl, unit, key),
        "decided": _decision(decided, table, key, person),
        "writes": writes,
    }


def _value(table: Table, field: str, value: Any) -> Any:
    """A twin's value is its whole row, by label."""
    return {table.field(name).label: each for name, each in value if table.has(name)} if field == TWIN else value


def _decision(raw: bytes | None, table: Table, key: str, person: Person) -> dict[str, Any] | None:
    if raw is None:
        return None
    act, unit, batch, time, why, value = msgspec.msgpack.decode(raw)
    who = None if act == Act.RENAME else person(batch, table.name, key, time)
    chosen = None if act == Act.RENAME else value
    return {"act": act, "unit": unit, "person": who, "at": time >> MILLISECONDS, "why": why, "value": chosen}


class _People:
    """What tells a person whose record it is: the required fields of the rows shown, by label, read in sets."""

    def __init__(self, connection: Connection, registry: Registry, keys: list[tuple[int, str, str]]) -> None:
        self._rows: dict[tuple[int, str, str], dict[str, Any]] = {}
        wanted: dict[tuple[int, str], set[str]] = {}
        for tbl, unit, key in keys:
            wanted.setdefault((tbl, unit), set()).add(key)
        for (tbl, unit), ids in wanted.items():
            table, ordered = registry.by_number[tbl], sorted(ids)
            for start in range(0, len(ordered), ROWS_TOGETHER):
                self._read(connection, table, tbl, unit, ordered[start : start + ROWS_TOGETHER])

    def _read(self, connection: Connection, table: Table, tbl: int, unit: str, ids: list[str]) -> None:
        fields = table.required
        names = "".join(f", {quoted(each.name)}" for each in fields)
        rows = execute(
            connection,
            f"SELECT id{names} FROM {quoted(table.name)} WHERE unit = ? AND id {IN_LIST}",
            (unit, in_list(ids)),
        )
        for key, *values in rows:
            told = {each.label: from_sql(each, [value])[0] for each, value in zip(fields, values, strict=True)}
            self._rows[(tbl, unit, key)] = told

    def row(self, tbl: int, unit: str, key: str) -> Mapping[str, Any] | None:
        return self._rows.get((tbl, unit, key))


# --- held values ---


def quarantine(connection: Connection, context: Context) -> list[dict[str, Any]]:
    """The held values, as ``quarantine --json`` gives them."""
    registry = current_registry(connection, context)
    person = person_finder(connection, context)
    return [_told_held(registry, context, each, person) for each in held_values(connection, context)]


def _told_held(registry: Registry, context: Context, held: HeldValue, person: Person) -> dict[str, Any]:
    table, write, unit = held.table, held.write, unit_of(held.scope)
    row = shown_row(table, held.state)
    return {
        "id": held.number,
        "table": table.name,
        "key": held.key,
        "unit": unit,
        "scope": held.scope,
        "field": held.label,
        "label": _label(table, held.label),
        "fields": _names(table, held.label),
        "labels": [table.field(name).label for name in _names(table, held.label)],
        "reason": REASONS[write.held],
        "value": _plain(write.value),
        "shown": _plain(shown_beside(held)),
        "origin": write.origin,
        "level": registry.level_name(level_of(write.origin)),
        "at": write.time >> MILLISECONDS,
        "person": person(held.batch, table.name, held.key, write.time),
        "may_decide": held.may_decide(context.level),
        "row": {each.label: row[each.name] for each in table.required},
    }


def _plain(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value
