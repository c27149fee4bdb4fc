"""The conflict journal: every write that lost, why, and what a person decided about it. Each node keeps its own.

Role: note conflicts as registers come to hold them and see them end, held values that were superseded, local edits that
replaced what had just come; mark what persons decided.
Reach: storage tables, sync_engine.merge. Source: design, 5. Invariant: a number is made of what all nodes of the scope
hold, so it is the same everywhere; what is open is never forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection

from conflict.numbers import conflict_number, statement
from conflict.policies import value_key
from conflict.register import rivals, same_edit
from conflict.values import Head, UnitPath, Write, level_of
from node.storage.context import Context
from node.storage.engine import bulk, execute
from sync_engine.batch import SectionKind
from sync_engine.entries import Act
from sync_engine.merge import ALIVE, TWIN, EntryView, MergedKey, RegisterKey, RowState
from sync_engine.registry import Table

OPEN, SETTLED, OVERTURNED, OVERWRITTEN, SUPERSEDED = "open", "settled", "overturned", "overwritten", "superseded"
STATE_AFTER = {
    Act.RESOLVE: SETTLED,
    Act.OVERTURN: OVERTURNED,
    Act.RELEASE: SETTLED,
    Act.REFUSE: SUPERSEDED,
    Act.RENAME: SETTLED,
}
DAY_MS = 24 * 3600 * 1000

Live = Mapping[tuple[bytes, str], tuple[int, int, str]]
"""A key's conflicts that are in the journal and in its registers: by (identity, field): (no, number, state)."""

Held = Iterable[tuple[bytes, RegisterKey, Write]]

_PACK = msgspec.msgpack.Encoder().encode


def label_of(register: str, element: str) -> str:
    """How a conflict names its register: a union's with the element."""
    return f"{register}:{element}" if element else register


class Journal:
    """Collects what is to be noted of keys of one table. ``numbers`` are local batch numbers by dot."""

    def __init__(self, table: Table, scope_no: int, unit: str, numbers: Mapping[Head, int], now_ms: int) -> None:
        self.table, self.scope_no, self.numbers, self.now_ms = table, scope_no, numbers, now_ms
        self.scope = table.scope_of(unit)
        self.ended: list[tuple[str, int]] = []
        self.told_anew: list[tuple[bytes, int]] = []
        self.judged: list[tuple[Any, ...]] = []
        self.fresh: list[tuple[Any, ...]] = []

    def note(self, key: str, merged: MergedKey, live: Live, held: Held) -> None:
        """What became of a key's conflicts and held values."""
        for place, (no, number, state) in live.items():
            now = merged.conflicts.get(place)
            if now is None or now.number != number:
                self.ended.append((SETTLED if state == OPEN and now is None else SUPERSEDED, no))
            elif place[1] == TWIN:
                self.told_anew.append((self.packed(now.writes, now.winner), no))
        for place, conflict in merged.conflicts.items():
            if place not in live or live[place][1] != conflict.number:
                state = OPEN if conflict.is_open else SETTLED
                row = (conflict.number, conflict.identity, conflict.field, conflict.policy, state, 1)
                self._add(key, row, self.packed(conflict.writes, conflict.winner))
        for identity, register, write in held:
            self._note_held(key, merged.states[identity], register, write)

    def judge_anew(self, merged: MergedKey, live: Live) -> None:
        """Conflicts that were known, after the registry has changed: the same writes, another rule."""
        for place, conflict in merged.conflicts.items():
            if place in live and live[place][1] == conflict.number:
                state = OPEN if conflict.is_open else SETTLED
                packed = self.packed(conflict.writes, conflict.winner)
                self.judged.append((conflict.policy, packed, state, live[place][0]))

    def _note_held(self, key: str, state: RowState, place: RegisterKey, write: Write) -> None:
        """A held value that a later edit has driven out would be nowhere else."""
        left = state.writes.get(place, frozenset())
        if any(same_edit(each, write) for each in left):
            return
        winner = max(rivals(left), key=lambda each: each.time, default=None)
        label = label_of(*place)
        number = conflict_number(self.scope, self.table.name, key, state.identity, label, [write])
        both = [write] if winner is None else [write, winner]
        policy = str(self.table.register(place[0]).policy)
        self._add(key, (number, state.identity, label, policy, SUPERSEDED, 0), self.packed(both, winner))

    def overwrite(self, key: str, identity: bytes, field: str, policy: str, old: Write, new: Write) -> None:
        """A local edit replaced what another unit had written and this node applied a short while ago: whoever made it
        may never have seen that."""
        number = conflict_number(self.scope, self.table.name, key, identity, field, [old, new])
        self._add(key, (number, identity, field, policy, OVERWRITTEN, 0), self.packed([old, new], new))

    def packed(self, writes: Iterable[Write], winner: Write | None) -> bytes:
        """Writes as the journal keeps them, in the order in which every node tells them."""
        writes = list(writes)
        won = None if winner is None else (winner.origin, winner.time, value_key(winner.value))
        sealed_in = {
            (write.origin, write.time, value_key(write.value)): min(self.numbers[dot] for dot in write.dots)
            for write in writes
        }
        told = []
        for unit, time, value in statement(writes):
            place = (UnitPath(unit), time, value_key(value))  # type: ignore[arg-type]
            told.append((unit, level_of(unit), time, value, place == won, sealed_in[place]))
        return _PACK(told)

    def _add(self, key: str, row: tuple[int, bytes, str, str, str, int], writes: bytes) -> None:
        number, identity, field, policy, state, live = row
        self.fresh.append(
            (
                *(number, self.scope_no, self.table.number, key, identity, field, policy, state, live),
                writes,
                self.now_ms,
                None if live else self.now_ms,
            )
        )

    def save(self, connection: Connection) -> int:
        """Write everything; returns how many entries are new."""
        ended = [(state, self.now_ms, no) for state, no in self.ended]
        bulk(connection, "UPDATE _conflict SET live = 0, state = ?, ended_ms = ? WHERE no = ?", ended)
        bulk(connection, "UPDATE _conflict SET writes = ? WHERE no = ?", self.told_anew)
        bulk(
            connection,
            "INSERT INTO _conflict"
            " (number, scope, tbl, id, identity, field, policy, state, live, writes, noted_ms, ended_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.fresh,
        )
        bulk(
            connection,
            "UPDATE _conflict SET policy = ?, writes = ?,"
            " state = CASE WHEN state IN ('open', 'settled') THEN ? ELSE state END WHERE no = ?",
            self.judged,
        )
        return len(self.fresh)


def note_decision(
    connection: Connection, place: tuple[int, Table, str], batch: tuple[int, str], entry: EntryView
) -> None:
    """Mark what a person decided with an entry: of that row and that register alone, whatever number it names.
    ``place``: the scope's number, the table, the id; ``batch``: its local number, and its origin."""
    decision, (no, unit), (scope_no, table, key) = entry.decision, batch, place
    written = _decided(table, entry)
    if decision is None or written is None or entry.held:
        return
    field, value = written
    told = _PACK((decision.act.value, unit, no, entry.time, decision.why, value))
    execute(
        connection,
        "UPDATE _conflict SET decided = ?, state = CASE WHEN live = 1 THEN state ELSE ? END"
        " WHERE number = ? AND scope = ? AND tbl = ? AND id = ? AND identity = ? AND field = ?",
        (told, STATE_AFTER[decision.act], decision.number, scope_no, table.number, key, entry.identity, field),
    )


def _decided(table: Table, entry: EntryView) -> tuple[str, Any] | None:
    """(field as conflicts name it, value) of a decision's edit; None where the entry is none that a decision seals."""
    if entry.decision is not None and entry.decision.act is Act.RENAME:
        return (TWIN, None) if entry.kind is SectionKind.DELETE else None
    if not entry.values:
        return ALIVE, entry.kind is SectionKind.ROWS
    if entry.new or len(entry.values) > 1:
        return None
    ((name, value),) = entry.values.items()
    if not table.register(name).is_union:
        return name, value
    added, removed = value
    both = [(element, True) for element in added] + [(element, False) for element in removed]
    return (label_of(name, both[0][0]), both[0][1]) if len(both) == 1 else None


def prune(connection: Connection, context: Context) -> None:
    """Forget what ended long ago. What is open stays, and what a register still holds."""
    execute(
        connection,
        "DELETE FROM _conflict WHERE live = 0 AND ended_ms < ?",
        (context.now_ms() - round(context.journal_days * DAY_MS),),
    )
