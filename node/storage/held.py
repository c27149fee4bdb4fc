"""Held values: which there are, and what becomes of those whose code has come since.

Role: list them; judge those again that wait for a code, some rows in a transaction.
Reach: storage tables, sync_engine. Source: decision 0023. Invariant: nothing is pending while rows are shown anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.numbers import conflict_number
from conflict.policies import shown
from conflict.register import admitted, showable
from conflict.values import Head, Hold, Value, Write, level_of
from conflict.vector import Vector
from node.storage.apply import KEYS_AT_ONCE, applying
from node.storage.codes import CODES_CAME, Code, codes_in, unknown_codes
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.journal import label_of
from node.storage.meta import get_meta, set_meta
from node.storage.past import all_seen_at
from node.storage.registers import KeySaver, LoadedKey, load_keys, unpack_value
from node.storage.registries import current_registry
from sync_engine.merge import RegisterKey, RowState, project
from sync_engine.names import unit_of
from sync_engine.registry import Register, Table


@dataclass(frozen=True, slots=True)
class HeldValue:
    """One value that is in its register and not shown. ``state`` is the row's, as stored."""

    number: int
    scope: str
    table: Table
    key: str
    state: RowState
    register: Register
    element: str
    write: Write
    batch: int

    @property
    def label(self) -> str:
        return label_of(self.register.name, self.element)

    def may_decide(self, level: int) -> bool:
        """Whether a node of this level may release or refuse it: it writes the field in doing so."""
        return self.table.may_change(self.register, level, level_of(unit_of(self.scope)))


def held_count(connection: Connection) -> int:
    """How many values are held."""
    found = execute(connection, "SELECT count(*) FROM _write WHERE held > 0 AND covered = 0")
    return int(found.scalar_one())


def held_values(connection: Connection, context: Context) -> list[HeldValue]:
    """All that are held, by scope, table and id."""
    found: list[HeldValue] = []
    for table, (number, scope), keys in _places(connection, context):
        for start in range(0, len(keys), KEYS_AT_ONCE):
            ids = keys[start : start + KEYS_AT_ONCE]
            loaded, heads = load_keys(connection, context, table, number, unit_of(scope), ids)
            for key in ids:
                found += _held_in(table, scope, key, loaded[key], heads)
    return found


def find_held(connection: Connection, context: Context, number: int) -> HeldValue | None:
    """The held value with a number, which is made of its write and its place alone."""
    registry = current_registry(connection, context)
    rows = execute(
        connection,
        "SELECT _write.scope, _scope.name, tbl, id, identity, register, element, time, value, origin FROM _write"
        " JOIN _scope ON _scope.no = _write.scope JOIN _batch ON _batch.no = _write.batch"
        " JOIN _stream ON _stream.no = _batch.stream WHERE held > 0 AND covered = 0",
    )
    for scope_no, scope, tbl, key, identity, register, element, time, raw, origin in rows:
        table = registry.by_number.get(tbl)
        write = Write(unpack_value(raw), time, origin, frozenset())
        if table is None or number != conflict_number(
            scope, table.name, key, identity, label_of(register, element), [write]
        ):
            continue
        loaded, heads = load_keys(connection, context, table, scope_no, unit_of(scope), [key])
        return next(each for each in _held_in(table, scope, key, loaded[key], heads) if each.number == number)
    return None


def _held_in(table: Table, scope: str, key: str, loaded: LoadedKey, heads: Mapping[int, Head]) -> Iterator[HeldValue]:
    numbers = {head: no for no, head in heads.items()}
    for identity, (name, element), write in loaded.held:
        if write.covered:
            continue
        number = conflict_number(scope, table.name, key, identity, label_of(name, element), [write])
        batch = min(numbers[dot] for dot in write.dots)
        state, register = loaded.states[identity], table.register(name)
        yield HeldValue(number, scope, table, key, state, register, element, write, batch)


def _places(connection: Connection, context: Context) -> list[tuple[Table, tuple[int, str], list[str]]]:
    """Where values are held: table, scope (number and name), ids."""
    registry = current_registry(connection, context)
    rows = execute(
        connection,
        "SELECT DISTINCT no, name, tbl, id FROM _write JOIN _scope ON _scope.no = _write.scope"
        " WHERE held > 0 AND covered = 0 ORDER BY name, tbl, id",
    )
    found: dict[tuple[int, str, int], list[str]] = {}
    for no, name, tbl, key in rows:
        found.setdefault((no, name, tbl), []).append(key)
    return [
        (registry.by_number[tbl], (no, name), keys)
        for (no, name, tbl), keys in found.items()
        if tbl in registry.by_number
    ]


# --- codes that have come ---


def judge_again(connection: Connection, context: Context) -> None:
    """Show what was held for want of a code that is known now: the next rows, in key order. How far it has come is
    noted, and nothing is left to note at the end."""
    scope, tbl, last = json.loads(get_meta(connection, CODES_CAME) or '[0, 0, ""]')
    rows = execute(
        connection,
        "SELECT DISTINCT scope, tbl, id FROM _write WHERE held > 0 AND held = ? AND (scope, tbl, id) > (?, ?, ?)"
        " ORDER BY scope, tbl, id LIMIT ?",
        (int(Hold.CODE), scope, tbl, last, KEYS_AT_ONCE),
    ).all()
    set_meta(connection, CODES_CAME, json.dumps(list(rows[-1]), ensure_ascii=False) if rows else "")
    registry = current_registry(connection, context)
    parts: dict[tuple[int, int], list[str]] = {}
    for number, table, key in rows:
        parts.setdefault((number, table), []).append(key)
    with applying(connection):
        for (number, table), keys in parts.items():
            if table in registry.by_number:
                _judge_keys(connection, context, registry.by_number[table], number, keys)


def _judge_keys(connection: Connection, context: Context, table: Table, number: int, keys: list[str]) -> None:
    scope = str(execute(connection, "SELECT name FROM _scope WHERE no = ?", (number,)).scalar_one())
    unit = unit_of(scope)
    loaded, heads = load_keys(connection, context, table, number, unit, keys)
    saver = KeySaver(table, number, unit, {head: no for no, head in heads.items()}, context.now_ms())
    waiting = [
        (key, identity, place, write)
        for key in keys
        for identity, place, write in loaded[key].held
        if write.held is Hold.CODE
    ]
    unknown = unknown_codes(
        connection, unit, (code for *_, place, write in waiting for code in _codes(table, place, write))
    )
    known = [each for each in waiting if unknown.isdisjoint(_codes(table, each[2], each[3]))]
    rivalled = [each for each in known if len(loaded[each[0]].states[each[1]].writes[each[2]]) > 1]
    seen = all_seen_at(connection, {dot for each in rivalled for dot in each[3].dots})
    for key, identity, place, write in known:
        state = loaded[key].states[identity]
        vector = Vector()
        for dot in write.dots:
            vector = vector.joined(seen.get(dot, Vector()))
        state.writes[place] = admitted(state.writes[place], write, vector)
    for key in sorted({each[0] for each in known}):
        # What is shown now is no loss: of that the journal has nothing to say.
        shown_now = {each[1:] for each in known if each[0] == key}
        loaded[key].held = [each for each in loaded[key].held if each not in shown_now]
        saver.add(key, project(table, scope, key, loaded[key].states), loaded[key], None)
    if known:
        saver.save(connection)


def _codes(table: Table, place: RegisterKey, write: Write) -> list[Code]:
    return codes_in(table.register(place[0]), write.value)


def shown_beside(value: HeldValue) -> Value:
    """What the table shows meanwhile."""
    good = showable(value.state.register(value.register).get(value.element, ()))
    return shown(value.register.policy, good, order=value.register.order).value if good else None
