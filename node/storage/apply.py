"""Applies one batch to registers and tables, in the caller's transaction.

Role: choose for each key between the fast path (nobody else touched it: sets, no look-ups) and the general path (load,
merge, save). A batch of our own goes the same way; only the table already shows it.
Reach: storage tables, sync_engine. Invariant: the transaction holds nothing pending, so no local edit is overwritten
unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from conflict.values import Head
from conflict.vector import Vector
from node.storage.codes import hold_unknown, note_codes
from node.storage.context import Context
from node.storage.engine import IN_LIST, bulk, execute, in_list, quoted
from node.storage.former import FormerEntries
from node.storage.journal import note_decision, prune
from node.storage.overwritten import Overwriting, note_overwritten
from node.storage.registers import KeySaver, insertable, load_keys
from node.storage.registries import current_registry
from node.storage.streams import scope_no, streams
from sync_engine.batch import SectionKind
from sync_engine.entries import Entries
from sync_engine.fields import to_sql
from sync_engine.merge import Batch, merge_key, view
from sync_engine.names import unit_of
from sync_engine.registry import Registry, Table

KEYS_AT_ONCE = 400
"""Keys of the general path loaded together: bounds memory, not work."""

_PACK = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Incoming:
    """A verified batch to apply. ``own``: it was sealed here, the table shows it already, and ``was`` has, by table and
    id, the fields whose earlier value still matters (a deleted row; a union before it was edited). ``quiet``: the
    (table, register) that its origin has changed back since: they are merged, and the table is left as it is."""

    no: int
    head: Head
    seen: Vector
    registry: Registry
    own: bool = False
    quiet: frozenset[tuple[str, str]] = frozenset()
    was: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    former: FormerEntries = field(default_factory=dict)
    """What its origin had sealed of the same rows in other lives, where this batch may say some of it again."""


@dataclass(slots=True)
class Applied:
    """What applying came to."""

    rows: int = 0
    conflicts: int = 0
    general: int = 0
    """Keys that took the general path."""


@contextmanager
def applying(connection: Connection) -> Iterator[None]:
    """Capture is silent inside: what we write is known already."""
    execute(connection, "UPDATE _capture SET applying = 1")
    yield
    execute(connection, "UPDATE _capture SET applying = 0")


def apply_batch(connection: Connection, context: Context, incoming: Incoming, sections: Sequence[Entries]) -> Applied:
    """Merge a batch's entries; the caller advances heads and commits."""
    result = Applied()
    current = current_registry(connection, context)
    hold_unknown(connection, unit_of(incoming.head.stream.scope), sections)
    by_table: dict[str, list[Entries]] = {}
    for entries in sections:
        by_table.setdefault(entries.table.name, []).append(entries)
    with applying(connection):
        for name, parts in by_table.items():
            table = current.all_tables.get(name, parts[0].table)
            one = _TableApply(connection, context, incoming, table, parts)
            one.run(result)
    note_codes(connection, current, incoming.head.stream.scope, sections)
    if result.conflicts:
        prune(connection, context)
    return result


class _TableApply:
    """One table's part of one batch."""

    def __init__(
        self, connection: Connection, context: Context, incoming: Incoming, table: Table, parts: Sequence[Entries]
    ) -> None:
        self.connection, self.context, self.incoming, self.table, self.parts = (
            connection,
            context,
            incoming,
            table,
            parts,
        )
        self.scope = incoming.head.stream.scope
        self.unit = unit_of(self.scope)
        self.scope_no = scope_no(connection, self.scope)
        self.quiet = frozenset(register for name, register in incoming.quiet if name == table.name)
        self.former = incoming.former.get(table.name, {})
        self.rows = next((part for part in parts if part.kind is SectionKind.ROWS), None)

    def run(self, result: Applied) -> None:
        keys = {key for part in self.parts for key in part.ids}
        result.rows += len(keys)
        if self.incoming.own:
            result.conflicts += note_overwritten(self.connection, self.context, self._overwriting(), self.parts)
        general = self._general_keys(keys)
        if self.rows is not None and len(general) < len(keys):
            plain = (
                range(len(self.rows))
                if not general
                else [at for at, key in enumerate(self.rows.ids) if key not in general]
            )
            execute(self.connection, "SAVEPOINT fast_path")
            try:
                taken = self._fast_path(plain)
            except IntegrityError:
                taken = False
            if not taken:
                execute(self.connection, "ROLLBACK TO fast_path")
                general = keys
            execute(self.connection, "RELEASE fast_path")
        result.general += len(general)
        ordered = sorted(general)
        for start in range(0, len(ordered), KEYS_AT_ONCE):
            result.conflicts += self._general_path(ordered[start : start + KEYS_AT_ONCE])
        self._note_decisions()

    def _overwriting(self) -> Overwriting:
        return Overwriting(self.incoming.no, self.incoming.head, self.table, self.scope_no)

    def _note_decisions(self) -> None:
        batch = (self.incoming.no, self.incoming.head.stream.origin)
        for part in self.parts:
            for at in range(len(part.decisions or ())):
                place = (self.scope_no, self.table, part.ids[at])
                note_decision(self.connection, place, batch, view(part, at))

    # --- which keys need a look ---

    def _general_keys(self, keys: set[str]) -> set[str]:
        """Keys that may not take the fast path: deleted ones, unusual entries, contested keys, and those touched by
        batches that this one had not seen."""
        general = {key for part in self.parts if part.kind is SectionKind.DELETE for key in part.ids}
        general |= set(self.former)
        rows = self.rows
        if rows is None:
            return general
        inserts_only = rows.new is not None and all(rows.new) and rows.masks is None
        plain_edits = rows.new is None and not any(each.is_union or each.name in rows.barred for each in rows.registers)
        if len(set(rows.ids)) != len(rows) or not (inserts_only or plain_edits):
            general |= self._unusual(rows)
        general |= {rows.ids[at] for places in rows.broken.values() for at in places}
        if not inserts_only:
            general |= self._contested(keys) | self._touched_unseen(keys)
        return general

    def _unusual(self, rows: Entries) -> set[str]:
        """Keys with an insert that leaves registers out or has later edits beside it, with two edits of one register,
        with edits of a union, or with a write that is held."""
        unusual = set()
        kinds: dict[str, bool] = {}
        written: dict[str, int] = {}
        whole = (1 << len(rows.registers)) - 1
        unions = {at for at, register in enumerate(rows.registers) if register.is_union}
        held = {at for at, register in enumerate(rows.registers) if register.name in rows.barred}
        for at, key in enumerate(rows.ids):
            new = rows.is_new(at)
            if (key in kinds and (new or kinds[key])) or (
                key in kinds and rows.identities[at] != rows.identities[at - 1]
            ):
                unusual.add(key)
            kinds[key] = new
            mask = whole if rows.masks is None else rows.masks[at]
            if (new and mask != whole) or mask & written.get(key, 0):
                unusual.add(key)
            written[key] = written.get(key, 0) | mask
            if not new and any(mask >> bit & 1 for bit in unions | held):
                unusual.add(key)
        return unusual

    def _contested(self, keys: set[str]) -> set[str]:
        where = "scope = ? AND tbl = ? AND contested = 1"
        any_there = execute(
            self.connection, f"SELECT 1 FROM _row WHERE {where} LIMIT 1", (self.scope_no, self.table.number)
        ).scalar()
        if any_there is None:
            return set()
        found = execute(
            self.connection,
            f"SELECT id FROM _row WHERE {where} AND id {IN_LIST}",
            (self.scope_no, self.table.number, in_list(keys)),
        )
        return set(found.scalars())

    def _touched_unseen(self, keys: set[str]) -> set[str]:
        """Every insert, edit and delete writes `alive`: its last write tells who touched a row last, and whoever was
        driven out of it was seen by that one. So a row touched by an unseen batch still names it."""
        nos = unseen_batches(self.connection, self.incoming)
        if not nos:
            return set()
        found = execute(
            self.connection,
            f"SELECT id FROM _row WHERE scope = ? AND tbl = ? AND id {IN_LIST}"
            f" AND coalesce(alive_batch, batch) {IN_LIST}",
            (self.scope_no, self.table.number, in_list(keys), in_list(nos)),
        )
        return set(found.scalars())

    # --- fast path ---

    def _fast_path(self, places: Sequence[int]) -> bool:
        """Sets only. False, or IntegrityError, when a key turns out to be known here otherwise than the batch
        thinks."""
        rows = self.rows
        assert rows is not None  # noqa: S101 - run() asked
        if rows.new is None:
            return self._fast_edits(rows, places)
        if all(rows.new):
            return self._fast_inserts(rows, places)
        return self._fast_inserts(rows, [at for at in places if rows.new[at]]) and self._fast_edits(
            rows, [at for at in places if not rows.new[at]]
        )

    def _picked(self, values: Sequence[Any], places: Sequence[int]) -> Sequence[Any]:
        return values if len(places) == len(values) else [values[at] for at in places]

    def _fast_inserts(self, rows: Entries, places: Sequence[int]) -> bool:
        ids = self._picked(rows.ids, places)
        if not self.incoming.own:
            names, columns = ["unit", "id"], [repeat(self.unit, len(ids)), ids]
            writes = insertable(self.context, self.incoming.registry, self.incoming.head, self.table.name, self.unit)
            for register in rows.registers:
                if register.name not in rows.withheld and register.name in writes:
                    for each in register.fields:
                        names.append(each.name)
                        columns.append(to_sql(each, list(self._picked(rows.columns[each.name], places))))
            if rows.by is not None:
                names.append("edited_by")
                columns.append(self._picked(rows.by, places))
            listed = ", ".join(quoted(name) for name in names)
            bulk(
                self.connection,
                f"INSERT INTO {quoted(self.table.name)} ({listed}) VALUES ({', '.join('?' * len(names))})",
                list(zip(*columns, strict=True)),
            )
        bulk(
            self.connection,
            "INSERT INTO _row (scope, tbl, id, identity, batch, time) VALUES (?, ?, ?, ?, ?, ?)",
            list(
                zip(
                    repeat(self.scope_no, len(ids)),
                    repeat(self.table.number, len(ids)),
                    ids,
                    self._picked(rows.identities, places),
                    repeat(self.incoming.no, len(ids)),
                    self._picked(rows.times, places),
                    strict=True,
                )
            ),
        )
        return True

    def _fast_edits(self, rows: Entries, places: Sequence[int]) -> bool:
        """Blind writes: all that the registers held has been seen by this batch."""
        latest: dict[tuple[str, bytes], int] = {}
        by_mask: dict[int | None, list[int]] = {}
        for at in places:
            latest[(rows.ids[at], rows.identities[at])] = rows.times[at]  # entries are sorted by time
            by_mask.setdefault(None if rows.masks is None else rows.masks[at], []).append(at)
        no, scope, tbl = self.incoming.no, self.scope_no, self.table.number
        touched = bulk(
            self.connection,
            "UPDATE _row SET alive_batch = ?, alive_time = ? WHERE scope = ? AND tbl = ? AND id = ? AND identity = ?",
            [(no, time, scope, tbl, key, identity) for (key, identity), time in latest.items()],
        )
        if touched != len(latest):
            return False
        for group in by_mask.values():
            self._fast_group(rows, group)
        return True

    def _fast_group(self, rows: Entries, places: Sequence[int]) -> None:
        """Entries that edit the same registers."""
        no, scope, tbl = self.incoming.no, self.scope_no, self.table.number
        registers = list(rows.written(places[0]))
        keys = [(scope, tbl, rows.ids[at], rows.identities[at]) for at in places]
        sets, columns = [], []
        for register in registers:
            raw = [rows.columns[each.name] for each in register.fields]
            if register.is_group:
                values = [_PACK([column[at] for column in raw]) for at in places]
            else:
                values = [_PACK(raw[0][at]) for at in places]
            bulk(
                self.connection,
                "DELETE FROM _write WHERE scope = ? AND tbl = ? AND id = ? AND identity = ? AND register = ?",
                [(*key, register.name) for key in keys],
            )
            bulk(
                self.connection,
                "INSERT INTO _write (scope, tbl, id, identity, register, element, batch, time, value)"
                " VALUES (?, ?, ?, ?, ?, '', ?, ?, ?)",
                [
                    (*key, register.name, no, rows.times[at], value)
                    for key, at, value in zip(keys, places, values, strict=True)
                ],
            )
            for each in register.fields if register.name not in self.quiet else ():
                sets.append(f"{quoted(each.name)} = ?")
                columns.append(to_sql(each, list(self._picked(rows.columns[each.name], places))))
        if rows.by is not None and not self.quiet:
            sets.append("edited_by = ?")
            columns.append(list(self._picked(rows.by, places)))
        if sets and not self.incoming.own:
            bulk(
                self.connection,
                f"UPDATE {quoted(self.table.name)} SET {', '.join(sets)} WHERE unit = ? AND id = ?",
                list(zip(*columns, repeat(self.unit, len(places)), self._picked(rows.ids, places), strict=True)),
            )

    # --- general path ---

    def _general_path(self, ids: Sequence[str]) -> int:
        """Load, merge, save; returns the number of new conflicts."""
        incoming = self.incoming
        places: dict[str, list[Any]] = {key: [] for key in ids}
        for part in self.parts:
            for at, key in enumerate(part.ids):
                if key in places:
                    places[key].append(view(part, at))
        was = incoming.was.get(self.table.name, {})
        loaded, heads = load_keys(self.connection, self.context, self.table, self.scope_no, self.unit, ids, was)
        numbers = {**{head: no for no, head in heads.items()}, incoming.head: incoming.no}
        writes = insertable(self.context, incoming.registry, incoming.head, self.table.name, self.unit)
        batch = Batch(incoming.head, incoming.seen, writes)
        saver = KeySaver(self.table, self.scope_no, self.unit, numbers, self.context.now_ms(), self.quiet)
        for key in ids:
            former = self.former.get(key, ())
            merged = merge_key(self.table, self.scope, key, loaded[key].states, places[key], batch, former)
            by = max(places[key], key=lambda entry: entry.time).by
            saver.add(key, merged, loaded[key], by, entered=any(entry.new for entry in places[key]))
        return saver.save(self.connection)


def unseen_batches(connection: Connection, incoming: Incoming) -> list[int]:
    """Local numbers of batches applied here that the incoming one's writer had not merged."""
    nos: list[int] = []
    for row in streams(connection, incoming.head.stream.scope):
        if row.applied is None:
            continue
        seq, _digest = incoming.seen.entries.get(row.stream, (0, b""))
        if row.applied.seq > seq:
            nos += execute(
                connection,
                "SELECT no FROM _batch WHERE stream = ? AND seq > ? AND seq <= ?",
                (row.no, seq, row.applied.seq),
            ).scalars()
    return nos
