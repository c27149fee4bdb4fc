"""Streams and heads as they are kept.

Role: numbers for scopes and streams; held and applied heads. What had been seen is in ``seen``.
Reach: storage tables. Invariant: heads only go forward, inside the transaction that stores or applies the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.storage.engine import execute
from sync_engine.names import is_shared

OPEN, FROZEN, REFUSED = "open", "frozen", "refused"


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream as kept: ``held`` is stored and verified without a gap, ``applied`` is merged. None before the
    first."""

    no: int
    stream: StreamId
    held: Head | None
    applied: Head | None
    state: str
    reason: str | None


_COLUMNS = "no, origin, epoch, scope, held_seq, held_hash, applied_seq, applied_hash, state, reason"


def _row(values: tuple[object, ...]) -> StreamRow:
    no, origin, epoch, scope, held_seq, held_hash, applied_seq, applied_hash, state, reason = values
    stream = StreamId(UnitPath(str(origin)), Epoch(str(epoch)), Scope(str(scope)))
    held = Head(stream, int(str(held_seq)), bytes(held_hash)) if isinstance(held_hash, bytes) else None
    applied = Head(stream, int(str(applied_seq)), bytes(applied_hash)) if isinstance(applied_hash, bytes) else None
    return StreamRow(int(str(no)), stream, held, applied, str(state), None if reason is None else str(reason))


def scope_no(connection: Connection, name: str) -> int:
    """The local number of a scope, given on first use."""
    found = execute(connection, "SELECT no FROM _scope WHERE name = ?", (name,)).scalar()
    if found is None:
        found = execute(connection, "INSERT INTO _scope (name) VALUES (?) RETURNING no", (name,)).scalar_one()
    return int(found)


def stream_row(connection: Connection, stream: StreamId) -> StreamRow:
    """The stream's row, made on first mention."""
    key = (stream.origin, stream.epoch, stream.scope)
    sql = f"SELECT {_COLUMNS} FROM _stream WHERE origin = ? AND epoch = ? AND scope = ?"
    found = execute(connection, sql, key).one_or_none()
    if found is None:
        execute(connection, "INSERT INTO _stream (origin, epoch, scope) VALUES (?, ?, ?)", key)
        found = execute(connection, sql, key).one()
    return _row(tuple(found))


def find_stream(connection: Connection, stream: StreamId) -> StreamRow | None:
    """The stream's row, if there is one."""
    sql = f"SELECT {_COLUMNS} FROM _stream WHERE origin = ? AND epoch = ? AND scope = ?"
    found = execute(connection, sql, (stream.origin, stream.epoch, stream.scope)).one_or_none()
    return None if found is None else _row(tuple(found))


def stream_named(connection: Connection, no: int) -> StreamId:
    """The stream with a local number."""
    found = execute(connection, "SELECT origin, epoch, scope FROM _stream WHERE no = ?", (no,)).one()
    return StreamId(UnitPath(found[0]), Epoch(found[1]), Scope(found[2]))


def streams(connection: Connection, scope: str | None = None) -> list[StreamRow]:
    """All streams, or those of one scope."""
    where, values = ("", ()) if scope is None else (" WHERE scope = ?", (scope,))
    return [_row(tuple(each)) for each in execute(connection, f"SELECT {_COLUMNS} FROM _stream{where}", values)]


def on_link(child: str) -> tuple[str, tuple[str, str]]:
    """SQL for what may travel on the link of ``child``, by the scope's name, and its values: of a province's hundreds
    of streams it leaves a few, which ``is_shared`` decides."""
    return "(scope = ? OR scope LIKE ? OR scope LIKE '%/%')", (child, f"%.{child}")


def held_heads(connection: Connection, child: UnitPath | None = None) -> dict[StreamId, Head]:
    """What this node holds, or what of it travels on the link of ``child``: named in hello, heads and acks."""
    where, values = ("true", ()) if child is None else on_link(child)
    rows = execute(connection, f"SELECT {_COLUMNS} FROM _stream WHERE held_hash IS NOT NULL AND {where}", values)
    found = (_row(tuple(each)) for each in rows)
    return {
        row.stream: row.held
        for row in found
        if row.held is not None and (child is None or is_shared(row.stream.scope, child))
    }


def applied_heads(connection: Connection, scope: str) -> list[Head]:
    """What this node has merged in one scope: what ``seen`` says of the next batch sealed here."""
    return [row.applied for row in streams(connection, scope) if row.applied is not None]


def advance_held(connection: Connection, no: int, head: Head) -> None:
    execute(connection, "UPDATE _stream SET held_seq = ?, held_hash = ? WHERE no = ?", (head.seq, head.hash, no))


def advance_applied(connection: Connection, no: int, head: Head) -> None:
    execute(connection, "UPDATE _stream SET applied_seq = ?, applied_hash = ? WHERE no = ?", (head.seq, head.hash, no))


def takes(connection: Connection, row: StreamRow, seq: int) -> bool:
    """Whether a batch at this number may be taken, and applied: a frozen stream goes on to where it is proven to part,
    for what its origin says again may have been sealed after that."""
    if row.state != FROZEN:
        return row.state == OPEN
    parts_at = execute(connection, "SELECT min(seq) FROM _fork WHERE stream = ?", (row.no,)).scalar()
    return parts_at is not None and seq < int(parts_at)


def reopen(connection: Connection, no: int) -> None:
    """Take more of a stream whose fork has healed."""
    execute(connection, "UPDATE _stream SET state = 'open', reason = NULL WHERE no = ? AND state = 'frozen'", (no,))


def leave(connection: Connection, no: int, state: str, reason: str) -> None:
    """Freeze or refuse a stream: nothing more of it is taken until someone has looked."""
    execute(connection, "UPDATE _stream SET state = ?, reason = ? WHERE no = ? AND state = 'open'", (state, reason, no))
