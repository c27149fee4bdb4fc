"""What each stream had seen, as it is kept, and by which names batches are known now.

Role: fold ``seen_delta``; translate heads whose batch has been said again in a later life of its origin.
Reach: storage tables, conflict.vector. Source: docs/decisions/0025. Invariant: what was seen under a former name is
seen under the present one, and nothing else is: of the stream that says it again, what stands before it was not seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from conflict.vector import Vector
from node.storage.batches import MOVED
from node.storage.engine import bulk, execute
from node.storage.repeated import all_seen, seen_upto
from node.storage.streams import StreamRow, stream_row
from sync_engine.batch import BatchHeader


def seen_by(connection: Connection, stream_no: int) -> Vector:
    """What the stream's applied head had seen of the scope's other streams."""
    rows = execute(
        connection,
        "SELECT origin, epoch, scope, seq, hash FROM _seen JOIN _stream ON _stream.no = _seen.of WHERE stream = ?",
        (stream_no,),
    )
    return translated(
        connection,
        [
            Head(StreamId(UnitPath(origin), Epoch(epoch), Scope(scope)), seq, digest)
            for origin, epoch, scope, seq, digest in rows
        ],
    )


def note_seen(connection: Connection, stream_no: int, delta: Iterable[Head]) -> None:
    """Fold a batch's ``seen_delta`` into what its stream had seen, by the names that its writer gave."""
    bulk(
        connection,
        "INSERT INTO _seen (stream, of, seq, hash) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (stream, of) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
        [(stream_no, stream_row(connection, head.stream).no, head.seq, head.hash) for head in delta],
    )


def forget_seen_after(connection: Connection, stream_no: int, last: bytes | None) -> None:
    """A stream ends at the batch of this hash now: what stood there beyond it had seen, whatever comes in its place has
    not. Where a batch before it is damaged, nothing was seen: then too much is kept, and nothing driven out."""
    execute(connection, "DELETE FROM _seen WHERE stream = ?", (stream_no,))
    left = None if last is None else seen_upto(connection, last)
    note_seen(connection, stream_no, () if left is None else left.values())


def seen_in(connection: Connection, row: StreamRow, header: BatchHeader) -> Vector:
    """What the writer of a stream's next batch had merged, its own earlier batches included. One that says again what a
    former life had said stands alone: it has seen what that had seen, whatever its stream has seen since, and whatever
    it says of that itself: else who merges it anew would take less or more for seen than who has it already."""
    if header.repeats is not None:
        return translated(connection, all_seen(connection, header))
    named = translated(connection, header.seen_delta)
    past = translated(connection, [] if row.applied is None else [row.applied])
    return seen_by(connection, row.no).joined(named).joined(past)


def followed(connection: Connection, before: Vector, header: BatchHeader) -> Vector:
    """The same while a stream is walked through: ``before`` is what the batch before it had seen."""
    if header.repeats is not None:
        return translated(connection, all_seen(connection, header))
    return before.joined(translated(connection, header.seen_delta))


def translated(connection: Connection, heads: Iterable[Head]) -> Vector:
    """Heads as batches are known here now."""
    heads = list(heads)
    if not heads or execute(connection, "SELECT 1 FROM _repeat LIMIT 1").scalar() is None:
        return Vector.of(heads)
    entries: list[Head] = []
    also: set[Head] = set()
    for head in heads:
        last = _along_branch(connection, head, also)
        if last is not None:
            entries.append(last)
            also |= _moved_below(connection, last)
    return Vector({head.stream: (head.seq, head.hash) for head in entries}, frozenset(also))


def present_name(connection: Connection, digest: bytes) -> Head | None:
    """The batch that says again what the one of this hash had said, if there is one."""
    no = execute(connection, "SELECT batch FROM _repeat WHERE hash = ?", (digest,)).scalar()
    return None if no is None else _head_of(connection, int(no))


def before_named(connection: Connection, head: Head) -> Head | None:
    """What stood before a batch that has been said again since; None where it was the first, or has not been."""
    found = execute(connection, "SELECT prev FROM _repeat WHERE hash = ?", (head.hash,)).scalar()
    return None if found is None or head.seq == 1 else Head(head.stream, head.seq - 1, found)


def _along_branch(connection: Connection, head: Head, also: set[Head]) -> Head | None:
    """Down a branch that has been said again, to where it parted from the chain: None where that is the beginning."""
    while True:
        found = execute(connection, "SELECT prev, batch FROM _repeat WHERE hash = ?", (head.hash,)).one_or_none()
        if found is None:
            return head
        also.add(_head_of(connection, found[1]))
        if head.seq == 1:
            return None
        head = Head(head.stream, head.seq - 1, found[0])


def _moved_below(connection: Connection, head: Head) -> set[Head]:
    """While a branch is being said again, its first batches fill their places for its last ones only."""
    found = execute(
        connection,
        "SELECT _repeat.batch FROM _repeat JOIN _batch ON _batch.hash = _repeat.hash"
        " JOIN _stream ON _stream.no = _batch.stream"
        " WHERE origin = ? AND epoch = ? AND scope = ? AND _batch.seq < ? AND _batch.state = ?",
        (head.stream.origin, head.stream.epoch, head.stream.scope, head.seq, MOVED),
    ).scalars()
    return {_head_of(connection, no) for no in found}


def _head_of(connection: Connection, no: int) -> Head:
    origin, epoch, scope, seq, digest = execute(
        connection,
        "SELECT origin, epoch, scope, seq, hash FROM _batch JOIN _stream ON _stream.no = _batch.stream"
        " WHERE _batch.no = ?",
        (no,),
    ).one()
    return Head(StreamId(UnitPath(origin), Epoch(epoch), Scope(scope)), seq, digest)
