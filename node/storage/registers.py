"""Registers of single keys, loaded and saved: what the general path of a merge works on.

Role: turn rows of ``_row``, ``_write`` and a real table into merge states, and back.
Reach: storage tables, sync_engine.merge. Invariant: a key is rewritten whole, so what is stored is what the merge said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection

from conflict.values import Epoch, Head, Hold, Scope, StreamId, UnitPath, Value, Write, level_of
from node.storage.context import Context
from node.storage.engine import IN_LIST, bulk, execute, in_list, quoted
from node.storage.journal import Journal
from node.storage.registries import registry_of
from sync_engine.fields import from_sql, to_sql
from sync_engine.merge import ALIVE, MergedKey, RegisterKey, RowState, is_alive
from sync_engine.registry import Register, Registry, Table

_PACK = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder().decode


def unpack_value(raw: bytes) -> Value:
    """A stored value: arrays are tuples, so that writes can be compared and kept in sets."""
    return frozen(_UNPACK(raw))


def frozen(value: Any) -> Value:
    return tuple(frozen(each) for each in value) if isinstance(value, list) else value


@dataclass(slots=True)
class LoadedKey:
    """One key as stored. ``row`` is the real table's, by field in wire form, and ``shown`` whose it is; ``live`` its
    conflicts by (identity, field)."""

    states: dict[bytes, RowState] = field(default_factory=dict)
    shown: bytes | None = None
    row: dict[str, Any] | None = None
    held: list[tuple[bytes, RegisterKey, Write]] = field(default_factory=list)
    """The writes that are held, with their identities and registers."""
    live: dict[tuple[bytes, str], tuple[int, int, str]] = field(default_factory=dict)


def read_rows(connection: Connection, table: Table, unit: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of a real table by id, in wire form."""
    columns = ", ".join(quoted(each.name) for each in table.fields)
    rows = execute(
        connection,
        f"SELECT id, {columns} FROM {quoted(table.name)} WHERE unit = ? AND id {IN_LIST}",
        (unit, in_list(ids)),
    ).all()
    if not rows:
        return {}
    raw = list(zip(*rows, strict=True))
    wire = [from_sql(each, list(column)) for each, column in zip(table.fields, raw[1:], strict=True)]
    names = [each.name for each in table.fields]
    return {key: dict(zip(names, values, strict=True)) for key, *values in zip(raw[0], *wire, strict=True)}


def heads_of(connection: Connection, batch_nos: Iterable[int]) -> dict[int, Head]:
    """The dots that stored writes refer to by local batch number."""
    rows = execute(
        connection,
        "SELECT _batch.no, origin, epoch, scope, seq, hash FROM _batch JOIN _stream ON _stream.no = _batch.stream"
        f" WHERE _batch.no {IN_LIST}",
        (in_list(sorted(set(batch_nos))),),
    )
    return {
        no: Head(StreamId(UnitPath(origin), Epoch(epoch), Scope(scope)), seq, digest)
        for no, origin, epoch, scope, seq, digest in rows
    }


_ROW = "id, identity, batch, time, alive_batch, alive_time, alive, born, shown, hidden, inserts"


def load_keys(
    connection: Connection,
    context: Context,
    table: Table,
    scope_no: int,
    unit: str,
    ids: Sequence[str],
    was: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[dict[str, LoadedKey], dict[int, Head]]:
    """Everything held of some keys, and the dots that it refers to by local batch number.

    ``was`` has, for keys that a local program changed and that are being sealed, the fields whose value before that
    change still matters.
    """
    where = f"scope = ? AND tbl = ? AND id {IN_LIST}"
    key = (scope_no, table.number, in_list(ids))
    stored = execute(connection, f"SELECT {_ROW} FROM _row WHERE {where}", key).all()
    writes = execute(
        connection,
        f"SELECT id, identity, register, element, batch, time, value, held, covered FROM _write WHERE {where}",
        key,
    ).all()
    nos = [*(r[2] for r in stored), *(r[4] for r in stored if r[4]), *(w[4] for w in writes)]
    nos += [no for r in stored if r[10] for no in _UNPACK(r[10])]
    heads = heads_of(connection, nos)
    inserted = _inserted(connection, context, table, unit, {r[2]: heads[r[2]] for r in stored})
    loaded = {each: LoadedKey() for each in ids}
    for key_id, row in read_rows(connection, table, unit, ids).items():
        loaded[key_id].row = row
    by_row: dict[tuple[str, bytes], list[Any]] = {}
    for write in writes:
        by_row.setdefault((write[0], write[1]), []).append(write)
    for held in stored:
        one = loaded[held[0]]
        one.shown = held[1] if held[8] else one.shown
        shown_row = {**(one.row or {}), **(was or {}).get(held[0], {})} if held[8] else None
        state = _state(table, held, by_row.get((held[0], held[1]), []), heads, shown_row, inserted)
        one.states[held[1]] = state
        for place, kept in state.writes.items():
            one.held += [(state.identity, place, write) for write in kept if write.held and not is_placeholder(write)]
    for found in execute(
        connection, f"SELECT id, identity, field, no, number, state FROM _conflict WHERE live = 1 AND {where}", key
    ):
        loaded[found[0]].live[(found[1], found[2])] = (found[3], found[4], found[5])
    return loaded, heads


def insertable(context: Context, registry: Registry, head: Head, name: str, unit: str) -> frozenset[str]:
    """The registers an insert writes: those its origin may read, in its registry version, that this node may read."""
    table = registry.all_tables.get(name)
    if table is None:
        return frozenset()
    levels = (level_of(head.stream.origin), context.level)
    return frozenset(
        register.name
        for register in table.registers
        if all(table.may_read(register, level, level_of(unit)) for level in levels)
    )


def _inserted(
    connection: Connection, context: Context, table: Table, unit: str, heads: Mapping[int, Head]
) -> dict[int, frozenset[str]]:
    """By local batch number: the registers that inserts there wrote."""
    rows = execute(connection, f"SELECT no, registry FROM _batch WHERE no {IN_LIST}", (in_list(sorted(heads)),))
    found = {}
    for no, version in rows.all():
        registry = registry_of(connection, context, version)
        if registry is not None:
            found[no] = insertable(context, registry, heads[no], table.name, unit)
    return found


def _state(
    table: Table,
    stored: Any,
    writes: Iterable[Any],
    heads: Mapping[int, Head],
    shown_row: Mapping[str, Any] | None,
    inserted: Mapping[int, frozenset[str]],
) -> RowState:
    _id, identity, batch, time, alive_batch, alive_time, alive, born, _shown, hidden, inserts = stored
    dot = heads[batch]
    base = Write(None, time, dot.stream.origin, frozenset({dot}))
    alive_dot = heads[alive_batch or batch]
    lone = Write(
        bool(alive), time if alive_time is None else alive_time, alive_dot.stream.origin, frozenset({alive_dot})
    )
    state = RowState(identity, base, time if born is None else born, frozenset({lone}))
    state.writes, alive_writes = _grouped(writes, heads)
    state.alive = alive_writes or state.alive
    state.inserts = frozenset({dot, *(heads[no] for no in (_UNPACK(inserts) if inserts else ()))})
    values: Mapping[str, Any] = {} if hidden is None else _UNPACK(hidden)
    for register in table.registers:
        if register.name in inserted[batch] and not state.is_explicit(register):
            state.base_values[register.name] = (
                frozen(values.get(register.name)) if shown_row is None else value_in_row(register, shown_row)
            )
            if register.is_union and state.base_values[register.name] is None:
                state.base_values[register.name] = ()
    return state


def _grouped(
    writes: Iterable[Any], heads: Mapping[int, Head]
) -> tuple[dict[tuple[str, str], frozenset[Write]], frozenset[Write]]:
    """Stored writes by register; one edit sealed twice has a row for each dot and is one write."""
    found: dict[tuple[str, str], dict[tuple[str, int, bytes], Write]] = {}
    for _id, _identity, register, element, batch, time, raw, held, covered in writes:
        dot = heads[batch]
        same = found.setdefault((register, element), {})
        key = (dot.stream.origin, time, raw)
        dots = frozenset({dot}) | (same[key].dots if key in same else frozenset())
        same[key] = Write(unpack_value(raw), time, dot.stream.origin, dots, Hold(held), bool(covered))
    grouped = {register: frozenset(same.values()) for register, same in found.items()}
    standing = [grouped.pop(register) for register in found if register[0] == ALIVE]
    return grouped, frozenset[Write]().union(*standing)


def is_placeholder(write: Write) -> bool:
    """Whether a write only says that a row's insert left its register alone."""
    return write.covered and write.held is Hold.RIGHT


def value_in_row(register: Register, row: Mapping[str, Any]) -> Value:
    """A register's value as a row in wire form shows it."""
    if register.is_group:
        return tuple(frozen(row.get(each.name)) for each in register.fields)
    return frozen(row.get(register.fields[0].name))


class KeySaver:
    """Collects merged keys of one table and writes them as sets. Of ``quiet`` registers the table keeps what it
    shows."""

    def __init__(
        self,
        table: Table,
        scope_no: int,
        unit: str,
        numbers: Mapping[Head, int],
        now_ms: int,
        quiet: frozenset[str] = frozenset(),
    ) -> None:
        self.table, self.scope_no, self.unit, self.numbers = table, scope_no, unit, numbers
        self.keeps_deleted = ALIVE in quiet
        self.quiet = [register for register in table.registers if register.name in quiet]
        self.ids: list[str] = []
        self.rows: list[tuple[Any, ...]] = []
        self.writes: list[tuple[Any, ...]] = []
        self.shown: list[tuple[str, dict[str, Any], str | None]] = []
        self.gone: list[tuple[str, str]] = []
        self.journal = Journal(table, scope_no, unit, numbers, now_ms)

    def add(self, key: str, merged: MergedKey, loaded: LoadedKey, by: str | None, *, entered: bool = False) -> None:
        """Take one merged key; what it was before tells what changed. ``by``: who made the batch's last entry of it;
        ``entered``: the batch inserts it, so nothing of it is quiet."""
        self.ids.append(key)
        for state in merged.states.values():
            self._add_state(key, state, merged)
        if merged.row is None:
            if loaded.row is not None and (entered or not self.keeps_deleted):
                self.gone.append((self.unit, key))
        else:
            earlier = loaded.row or {}
            kept = set() if loaded.row is None or entered else self._kept(merged, loaded.shown)
            row = {name: earlier.get(name) if name in kept else value for name, value in merged.row.items()}
            if row != loaded.row:
                self.shown.append((key, row, by))
        self.journal.note(key, merged, loaded.live, loaded.held)

    def _kept(self, merged: MergedKey, before: bytes | None) -> set[str]:
        """The fields of quiet registers, as long as the same person is shown; not where the row's insert is all that
        they hold, since the table alone has its value."""
        front = merged.shown
        if front is None or front.identity != before:
            return set()
        return {each.name for register in self.quiet if front.is_explicit(register) for each in register.fields}

    def _add_state(self, key: str, state: RowState, merged: MergedKey) -> None:
        front = merged.shown is state
        prefix = (self.scope_no, self.table.number, key, state.identity)
        lone = next(iter(state.alive)) if len(state.alive) == 1 and len(next(iter(state.alive)).dots) == 1 else None
        hidden = None if front else _PACK({name: value for name, value in state.base_values.items()})
        earlier = sorted(self.numbers[dot] for dot in state.inserts - state.base.dots)
        self.rows.append(
            (
                *prefix,
                self._number(state.base),
                state.base.time,
                None if lone is None else self._number(lone),
                None if lone is None else lone.time,
                int(is_alive(self.table, state)),
                state.born,
                int(front),
                int(not merged.is_plain),
                hidden,
                _PACK(earlier) if earlier else None,
            )
        )
        registers = dict(state.writes) if lone is not None else {**state.writes, **self._standing(state.alive)}
        for (register, element), writes in registers.items():
            for write in writes:
                for dot in write.dots:
                    row = (
                        *prefix,
                        register,
                        element,
                        self.numbers[dot],
                        write.time,
                        _PACK(write.value),
                        int(write.held),
                        int(write.covered),
                    )
                    self.writes.append(row)

    def _standing(self, alive: Iterable[Write]) -> dict[RegisterKey, frozenset[Write]]:
        """A row's standing as it is stored: of several edits that have one time each has an element of its own."""
        found: dict[RegisterKey, frozenset[Write]] = {}
        alike = Counter[tuple[str, int, Value]]()
        for write in sorted(alive, key=self._number):
            said = (write.origin, write.time, write.value)
            place = (ALIVE, str(alike[said]) if alike[said] else "")
            found[place] = found.get(place, frozenset()) | {write}
            alike[said] += 1
        return found

    def _number(self, write: Write) -> int:
        return min(self.numbers[dot] for dot in write.dots)

    def save(self, connection: Connection) -> int:
        """Write everything; returns how many conflicts are new."""
        key = (self.scope_no, self.table.number, in_list(self.ids))
        for name in ("_row", "_write"):
            execute(connection, f"DELETE FROM {name} WHERE scope = ? AND tbl = ? AND id {IN_LIST}", key)
        bulk(
            connection,
            "INSERT INTO _row (scope, tbl, id, identity, batch, time, alive_batch, alive_time, alive, born, shown,"
            " contested, hidden, inserts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.rows,
        )
        bulk(
            connection,
            "INSERT INTO _write (scope, tbl, id, identity, register, element, batch, time, value, held, covered)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.writes,
        )
        self._save_table(connection)
        return self.journal.save(connection)

    def _save_table(self, connection: Connection) -> None:
        table = quoted(self.table.name)
        bulk(connection, f"DELETE FROM {table} WHERE unit = ? AND id = ?", self.gone)
        if not self.shown:
            return
        names = [quoted(each.name) for each in self.table.fields]
        columns = [to_sql(each, [row[each.name] for _, row, _ in self.shown]) for each in self.table.fields]
        rows = [(self.unit, key, *values, by) for (key, _, by), *values in zip(self.shown, *columns, strict=True)]
        marks = ", ".join("?" * (len(names) + 3))
        updates = ", ".join(f"{name} = excluded.{name}" for name in names)
        bulk(
            connection,
            f"INSERT INTO {table} (unit, id, {', '.join(names)}, edited_by) VALUES ({marks})"
            f" ON CONFLICT (unit, id) DO UPDATE SET {updates}, edited_by = coalesce(excluded.edited_by, edited_by)",
            rows,
        )
