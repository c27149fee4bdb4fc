"""The brake on accidents: a sealing that changes unusually much is sealed and goes nowhere until a person has decided.

Role: notice it before it is sealed, remember it, and say where the streams end for peers meanwhile.
Reach: storage tables, registry model. Source: decision 0021. Invariant: a brake is noted in the transaction that seals
its first batch, so nothing of that sealing has been shipped before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from conflict.values import Head, StreamId
from node.storage.batches import hash_at
from node.storage.capture import RISKY, mask_bits
from node.storage.context import Context
from node.storage.engine import execute, quoted
from node.storage.streams import find_stream
from sync_engine.merge import ALIVE
from sync_engine.registry import Registry, Table

PULLED, UNDOING, RELEASED, UNDONE = "pulled", "undoing", "released", "undone"
_OPEN = "state IN ('pulled', 'undoing')"


@dataclass(frozen=True, slots=True)
class Change:
    """What one sealing did to one register of a scope's rows: ``rows`` of the ``of`` that there were. ``register`` is
    ``_alive`` where rows were deleted."""

    table: str
    register: str
    rows: int
    of: int


@dataclass(frozen=True, slots=True)
class Brake:
    """A brake that has been pulled. ``running``: the sealing that pulled it has not ended yet."""

    no: int
    stream: StreamId
    from_seq: int
    changes: tuple[Change, ...]
    running: bool
    state: str
    noted_ms: int

    @property
    def registers(self) -> frozenset[tuple[str, str]]:
        return frozenset((each.table, each.register) for each in self.changes)


# --- noticing ---


def accidents(
    connection: Connection, context: Context, registry: Registry, unit: str, scope: str
) -> tuple[Change, ...]:
    """The registers of which what is pending now, in one scope, changes more than the context's share. Reads only."""
    rows = execute(
        connection,
        f"SELECT tbl, kind, mask, count(*) FROM _pending WHERE unit = ? AND {RISKY} GROUP BY tbl, kind, mask",
        (unit,),
    ).all()
    touched: dict[tuple[int, str], int] = {}
    for tbl, kind, mask, count in rows:
        table = registry.by_number.get(tbl)
        if table is None or table.scope_of(unit) != scope:
            continue
        names = [ALIVE] if kind == "D" else [table.registers[bit].name for bit in mask_bits(table, mask)]
        for name in names:
            touched[(tbl, name)] = touched.get((tbl, name), 0) + count
    found = []
    for (tbl, name), count in sorted(touched.items()):
        table = registry.by_number[tbl]
        if count < context.brake.rows_min:
            continue
        there = _rows_known(connection, table, scope)
        if context.brake.is_too_much(count, there):
            exact = _exactly(connection, table, unit, scope, name)
            if context.brake.is_too_much(exact, there):
                found.append(Change(table.name, name, exact, there))
    return tuple(found)


def _rows_known(connection: Connection, table: Table, scope: str) -> int:
    sql = "SELECT count(*) FROM _row JOIN _scope ON _scope.no = _row.scope WHERE name = ? AND tbl = ? AND shown = 1"
    return int(execute(connection, sql, (scope, table.number)).scalar_one())


def _exactly(connection: Connection, table: Table, unit: str, scope: str, name: str) -> int:
    """How many rows that were sealed before lose that register's value: not those that are new themselves, nor those
    deleted and inserted again."""
    known = (
        "EXISTS (SELECT 1 FROM _row JOIN _scope ON _scope.no = _row.scope WHERE _scope.name = ? AND _row.tbl = p.tbl"
        " AND _row.id = p.id AND shown = 1)"
    )
    here = f"EXISTS (SELECT 1 FROM {quoted(table.name)} t WHERE t.unit = p.unit AND t.id = p.id)"
    if name == ALIVE:
        sql = f"SELECT count(*) FROM _pending p WHERE unit = ? AND tbl = ? AND kind = 'D' AND {known} AND NOT {here}"
        return int(execute(connection, sql, (unit, table.number, scope)).scalar_one())
    sql = f"SELECT mask, count(*) FROM _pending p WHERE unit = ? AND tbl = ? AND kind = 'E' AND {known} GROUP BY mask"
    bit = table.register(name).index
    rows = execute(connection, sql, (unit, table.number, scope))
    return sum(count for mask, count in rows if bit in mask_bits(table, mask))


# --- remembering ---


_COLUMNS = "_brake.no, origin, epoch, scope, from_seq, changes, running, _brake.state, noted_ms"


def open_brakes(connection: Connection) -> list[Brake]:
    """Brakes about which nobody has decided yet, oldest first."""
    rows = execute(
        connection,
        f"SELECT {_COLUMNS} FROM _brake JOIN _stream ON _stream.no = _brake.stream"
        f" WHERE _brake.{_OPEN} ORDER BY _brake.no",
    )
    return [
        Brake(
            no,
            StreamId(origin, epoch, scope),
            from_seq,
            tuple(Change(*each) for each in msgspec.msgpack.decode(changes)),
            bool(running),
            state,
            noted_ms,
        )
        for no, origin, epoch, scope, from_seq, changes, running, state, noted_ms in rows
    ]


def brake_of(connection: Connection, stream: StreamId) -> Brake | None:
    """The brake that holds a stream, if one does."""
    return next((each for each in open_brakes(connection) if each.stream == stream), None)


def pull(
    connection: Connection, stream_no: int, seq: int, before: Brake | None, changes: Iterable[Change], now_ms: int
) -> None:
    """Note that the batch at ``seq`` belongs to a sealing that pulled the brake; a stream has one at a time."""
    both = sorted((*(before.changes if before else ()), *changes), key=lambda each: each.rows)
    found = {(each.table, each.register): each for each in both}  # a later batch counts only what is left of the run
    raw = msgspec.msgpack.encode([(each.table, each.register, each.rows, each.of) for each in found.values()])
    if before is not None:
        execute(connection, "UPDATE _brake SET changes = ?, running = 1 WHERE no = ?", (raw, before.no))
        return
    execute(
        connection,
        "INSERT INTO _brake (stream, from_seq, changes, running, state, noted_ms) VALUES (?, ?, ?, 1, 'pulled', ?)",
        (stream_no, seq, raw, now_ms),
    )


def end_run(connection: Connection, stream: StreamId) -> None:
    """All that was pending has been sealed: what is edited from now on is no part of the accident."""
    row = find_stream(connection, stream)
    if row is not None:
        execute(connection, f"UPDATE _brake SET running = 0 WHERE stream = ? AND {_OPEN}", (row.no,))


def set_state(connection: Connection, no: int, state: str) -> None:
    execute(connection, "UPDATE _brake SET state = ?, running = 0 WHERE no = ?", (state, no))


# --- shipping ---


def shippable(connection: Connection, heads: Mapping[StreamId, Head]) -> dict[StreamId, Head]:
    """Held heads as peers are told of them: a stream under the brake ends before it."""
    told = dict(heads)
    for brake in open_brakes(connection):
        if brake.stream not in told:
            continue
        row = find_stream(connection, brake.stream)
        digest = None if row is None else hash_at(connection, row.no, brake.from_seq - 1)
        if digest is None:
            del told[brake.stream]
        else:
            told[brake.stream] = Head(brake.stream, brake.from_seq - 1, digest)
    return told
