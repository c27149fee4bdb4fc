"""What is known of bundles: numbers, times, and under which key a neighbour wants things encrypted.

Role: count what is written for a neighbour, tell what is new of that which comes from one, and say who lives by stick.
Reach: storage tables, sync_engine. Invariant: what a neighbour says of itself counts in the order in which it said it;
batches, certificates and statements prove themselves, whenever they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.storage.certificates import followers_of, is_accepted, is_replaced
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.revocations import revocations_of
from node.storage.statements import said
from node.storage.streams import on_link
from sync_engine.bundle import NOBODY, BundleHeader
from sync_engine.names import is_shared
from sync_engine.statements import ENCRYPTION, EncryptionKey


@dataclass(frozen=True, slots=True)
class Carried:
    """One neighbour, as far as bundles go; times in milliseconds since 1970. ``line_ms`` is its last session."""

    unit: UnitPath
    out_number: int
    out_ms: int | None
    in_epoch: Epoch | None
    in_number: int
    in_ms: int | None
    line_ms: int | None

    @property
    def by_hand(self) -> bool:
        """Whether it lives by stick: what was carried is newer than the last session."""
        last = max(self.out_ms or 0, self.in_ms or 0)
        return last > (self.line_ms or 0)


def carried_of(connection: Connection, unit: UnitPath) -> Carried:
    """What is known of bundles to and from a neighbour."""
    row = execute(
        connection,
        "SELECT out_number, out_ms, in_epoch, in_number, in_ms, line_ms FROM _carried WHERE unit = ?",
        (unit,),
    ).one_or_none()
    return Carried(unit, *(row or (0, None, None, 0, None, None)))


def next_number(connection: Connection, unit: UnitPath) -> int:
    """The number of the next bundle for a neighbour; never given twice, whatever becomes of the file."""
    found = execute(
        connection,
        "INSERT INTO _carried (unit, out_number) VALUES (?, 1)"
        " ON CONFLICT (unit) DO UPDATE SET out_number = out_number + 1 RETURNING out_number",
        (unit,),
    )
    return int(found.scalar_one())


def note_written(connection: Connection, context: Context, unit: UnitPath) -> None:
    """A bundle for a neighbour is whole."""
    execute(connection, "UPDATE _carried SET out_ms = ? WHERE unit = ?", (context.now_ms(), unit))


def note_heard(connection: Connection, context: Context, header: BundleHeader) -> None:
    """A bundle of a neighbour has been taken in, and is the newest of its."""
    execute(
        connection,
        "INSERT INTO _carried (unit, in_epoch, in_number, in_ms) VALUES (?, ?, ?, ?) ON CONFLICT (unit) DO UPDATE"
        " SET in_epoch = excluded.in_epoch, in_number = excluded.in_number, in_ms = excluded.in_ms",
        (header.sender, header.epoch, header.number, context.now_ms()),
    )


def note_line(connection: Connection, context: Context, unit: UnitPath) -> None:
    """A session with a neighbour has come to its end."""
    execute(
        connection,
        "INSERT INTO _carried (unit, line_ms) VALUES (?, ?)"
        " ON CONFLICT (unit) DO UPDATE SET line_ms = excluded.line_ms",
        (unit, context.now_ms()),
    )


def newest(connection: Connection, headers: Sequence[BundleHeader]) -> BundleHeader | None:
    """Of one sender's bundles the one that tells what it says last: none of a life that it has left, nor one before
    another that has come. A copy of the last one tells it again."""
    known = carried_of(connection, headers[0].sender)
    good = [
        each
        for each in headers
        if (known.in_epoch != each.epoch or each.number >= known.in_number)
        and not followers_of(connection, each.sender, each.epoch)
    ]
    return max(good, key=lambda each: (each.number, -each.part), default=None)


def heard_epoch(connection: Connection, unit: UnitPath) -> Epoch:
    """The life in which a neighbour was heard last, by its receipts or its bundles."""
    sql = "SELECT epoch FROM _receipt WHERE signer = ? ORDER BY no DESC LIMIT 1"
    found = execute(connection, sql, (unit,)).scalar() or carried_of(connection, unit).in_epoch
    return Epoch(found) if found else NOBODY


def named_heads(connection: Connection, unit: UnitPath, child: UnitPath) -> tuple[Head, ...]:
    """What a neighbour has signed that it holds, of what travels on the link of ``child``."""
    where, values = on_link(child)
    rows = execute(
        connection,
        "SELECT origin, epoch, scope, _peer_head.seq, _peer_head.hash FROM _peer_head"
        f" JOIN _stream ON _stream.no = _peer_head.stream WHERE unit = ? AND {where}",
        (unit, *values),
    )
    heads = (
        Head(StreamId(UnitPath(origin), Epoch(epoch), Scope(scope)), int(seq), bytes(digest))
        for origin, epoch, scope, seq, digest in rows
    )
    return tuple(sorted(head for head in heads if is_shared(head.stream.scope, child)))


def bytes_lacking(connection: Connection, unit: UnitPath, child: UnitPath) -> int:
    """How many bytes of batches a neighbour has not signed for, before anything is left out that it may not read."""
    where, values = on_link(child)
    rows = execute(
        connection,
        "SELECT scope, sum(size) FROM _batch JOIN _stream ON _stream.no = _batch.stream"
        " LEFT JOIN _peer_head ON _peer_head.stream = _stream.no AND _peer_head.unit = ?"
        f" WHERE _batch.seq > coalesce(_peer_head.seq, 0) AND {where} GROUP BY scope",
        (unit, *values),
    )
    return sum(int(size) for scope, size in rows if is_shared(scope, child))


def note_hand_key(connection: Connection, context: Context, key: EncryptionKey) -> None:
    """Keep the key with which a child has asked to be enrolled; only for one whose request has proven it."""
    execute(
        connection,
        "INSERT OR IGNORE INTO _hand_key (unit, epoch, kem, public_key, noted_ms) VALUES (?, ?, ?, ?, ?)",
        (key.unit, key.epoch, key.kem, key.public_key, context.now_ms()),
    )


def _hand_keys(connection: Connection, context: Context, unit: UnitPath) -> list[EncryptionKey]:
    rows = execute(connection, "SELECT epoch, kem, public_key, noted_ms FROM _hand_key WHERE unit = ?", (unit,))
    return [
        EncryptionKey(context.tree_id, unit, Epoch(epoch), kem, bytes(public), noted_ms)
        for epoch, kem, public, noted_ms in rows
    ]


def carry_key(connection: Connection, context: Context, unit: UnitPath) -> EncryptionKey | None:
    """Under which key a neighbour wants things encrypted: what its newest accepted, unrevoked life said last, or asked
    to be enrolled with. A machine whose place another has taken is written to no more."""
    found = [each.said for each in said(connection, ENCRYPTION, unit)] + _hand_keys(connection, context, unit)
    good = [
        each
        for each in found
        if isinstance(each, EncryptionKey)
        and is_accepted(connection, unit, each.epoch)
        and not is_replaced(connection, unit, each.epoch)
        and not revocations_of(connection, unit, each.epoch)
    ]
    ends = [each for each in good if not followers_of(connection, unit, each.epoch)]
    return max(ends or good, key=lambda each: each.time_ms, default=None)
