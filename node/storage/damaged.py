"""Stored batches whose bytes are not those that their origin signed, or are gone: noted, asked for, put back.

Role: tell a sound batch from a damaged one; remember which are wanted, from whom they may come, and take them in.
Reach: storage tables, sync_engine. Source: decision 0031. Invariant: only bytes with the very hash that was noted,
proven against their origin's certificate, ever replace stored ones; what was noted changes no head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.storage.batches import APPLIED, MOVED, WAITING, hash_at, undamaged
from node.storage.brake import shippable
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.lost import check_complete
from node.storage.registries import registry_for
from node.storage.seen import present_name
from node.storage.streams import find_stream, held_heads, stream_row
from sync_engine.batch import SealedBatch
from sync_engine.certificates import verify_node_path
from sync_engine.errors import BadCertificate, BadSignature, RemoteFault
from sync_engine.names import is_shared, parent_of
from sync_engine.verify import check_chunks, check_origin

WANTED_MAX = 1_000
"""Batches asked for in one session; what is left is asked for in the next."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A damaged batch, and the neighbours that are known to hold it and may pass it on."""

    head: Head
    peers: tuple[str, ...]


def sound(data: bytes, digest: bytes) -> SealedBatch | None:
    """A stored batch, unless its header or a chunk is not the one that was signed. (The signature itself is proven by
    ``is_proven``: an elliptic curve costs more than a hash.)"""
    batch = undamaged(data, digest)
    try:
        if batch is not None:
            check_chunks(batch)
    except BadSignature:
        return None
    return batch


def is_proven(connection: Connection, context: Context, data: bytes, digest: bytes) -> bool:
    """Whether stored bytes are whole: header, chunks and signature, and no chunk is missing that is read here."""
    batch = sound(data, digest)
    if batch is None:
        return False
    stream = batch.header.stream
    path = path_of(connection, stream.origin, stream.epoch)
    try:
        if path is not None:
            check_origin(batch, verify_node_path(path, context.tree_id))
        check_complete(connection, context, batch, registry_for(connection, context, batch))
    except BadCertificate:
        return True  # the certificate is at fault, not these bytes
    except RemoteFault:
        return False
    return True


# --- noting ---


def note(connection: Connection, context: Context, head: Head) -> None:
    """A batch that was stored here is damaged or gone: it is wanted back."""
    row = find_stream(connection, head.stream)
    if row is not None:
        execute(
            connection,
            "INSERT OR IGNORE INTO _damaged (hash, stream, seq, noted_ms) VALUES (?, ?, ?, ?)",
            (head.hash, row.no, head.seq, context.now_ms()),
        )


def note_if_damaged(connection: Connection, context: Context, head: Head) -> bool:
    """A peer dropped what was sent: whether that is because of the bytes that are stored here. If so it is noted."""
    data = execute(connection, "SELECT data FROM _batch WHERE hash = ?", (head.hash,)).scalar()
    damaged = data is not None and not is_proven(connection, context, data, head.hash)
    if damaged:
        note(connection, context, head)
    return damaged


def forget(connection: Connection, digests: Iterable[bytes]) -> None:
    """These are whole (again)."""
    for digest in digests:
        execute(connection, "DELETE FROM _damaged WHERE hash = ?", (digest,))


def is_wanted(connection: Connection, digest: bytes) -> bool:
    """Whether a batch is noted, by its name."""
    return execute(connection, "SELECT 1 FROM _damaged WHERE hash = ?", (digest,)).scalar() is not None


def is_noted(connection: Connection, stream_no: int, seq: int) -> bool:
    sql = "SELECT 1 FROM _damaged WHERE stream = ? AND seq = ?"
    return execute(connection, sql, (stream_no, seq)).scalar() is not None


def noted(connection: Connection) -> list[Head]:
    """All that are noted, in order."""
    rows = execute(
        connection,
        "SELECT origin, epoch, scope, seq, hash FROM _damaged JOIN _stream ON _stream.no = _damaged.stream"
        " ORDER BY origin, epoch, scope, seq",
    )
    return [
        Head(StreamId(UnitPath(origin), Epoch(epoch), Scope(scope)), seq, digest)
        for origin, epoch, scope, seq, digest in rows
    ]


def waiting_at(connection: Connection, stream_no: int, seq: int) -> tuple[int, Head, SealedBatch | None] | None:
    """What is stored at a place of a stream: its local number, and the batch; None for a batch that is damaged."""
    found = execute(
        connection,
        "SELECT _batch.no, origin, epoch, scope, hash, data FROM _batch JOIN _stream ON _stream.no = _batch.stream"
        " WHERE stream = ? AND seq = ?",
        (stream_no, seq),
    ).one_or_none()
    if found is None:
        return None
    no, origin, epoch, scope, digest, data = found
    return no, Head(StreamId(UnitPath(origin), Epoch(epoch), Scope(scope)), seq, digest), sound(data, digest)


# --- asking ---


def wanted(connection: Connection, child: UnitPath) -> tuple[Head, ...]:
    """What this node asks its peer for on the link of ``child``."""
    return tuple(head for head in noted(connection) if is_shared(head.stream.scope, child))[:WANTED_MAX]


def asked_for(connection: Connection, child: UnitPath, heads: Iterable[Head]) -> list[Head]:
    """Of the batches that a peer wants back those that it may have: on a chain held here, and not under the brake."""
    held = shippable(connection, held_heads(connection, child))
    asked = (head for head in heads if head.stream in held and head.seq <= held[head.stream].seq)
    return [
        head for head in asked if hash_at(connection, stream_row(connection, head.stream).no, head.seq) == head.hash
    ]


def waits_for(connection: Connection, context: Context) -> list[Waiting]:
    """What is still damaged, each with the neighbours from whom it may come."""
    return [Waiting(head, tuple(holders(connection, context, head))) for head in noted(connection)]


def holders(connection: Connection, context: Context, head: Head) -> list[str]:
    """Neighbours that share the scope and have said that they hold so much of the stream, parent first."""
    rows = execute(
        connection,
        "SELECT unit FROM _peer_head JOIN _stream ON _stream.no = _peer_head.stream"
        " WHERE origin = ? AND epoch = ? AND scope = ? AND _peer_head.seq >= ?",
        (head.stream.origin, head.stream.epoch, head.stream.scope, head.seq),
    ).scalars()
    parent = parent_of(context.unit)
    shared = [unit for unit in rows if is_shared(head.stream.scope, context.unit if unit == parent else UnitPath(unit))]
    return sorted(shared, key=lambda unit: (unit != parent, unit))


# --- taking back ---


def put_back(connection: Connection, context: Context, batch: SealedBatch) -> bool:
    """Replace damaged or lost bytes by a proven batch of the same hash; False where none such is wanted."""
    found = execute(connection, "SELECT stream, seq FROM _damaged WHERE hash = ?", (batch.head.hash,)).one_or_none()
    if found is None:
        return False
    changed = execute(
        connection,
        "UPDATE _batch SET data = ?, size = ? WHERE hash = ?",
        (batch.data, len(batch.data), batch.head.hash),
    ).rowcount
    if not changed:
        _insert_again(connection, context, found[0], batch)
    forget(connection, [batch.head.hash])
    return True


def _insert_again(connection: Connection, context: Context, stream: int, batch: SealedBatch) -> None:
    """A row of ``_batch`` that was lost comes back between its neighbours: peers are sent batches in local order."""
    applied = execute(connection, "SELECT applied_seq FROM _stream WHERE no = ?", (stream,)).scalar_one()
    is_applied, header = batch.head.seq <= applied, batch.header
    is_moved = present_name(connection, batch.head.hash) is not None
    execute(
        connection,
        "INSERT INTO _batch (no, stream, seq, hash, entries, size, registry, state, settles, again, applied_ms, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            _free_number(connection, stream, batch.head.seq),
            *(stream, batch.head.seq, batch.head.hash, header.entries, len(batch.data), header.registry_version[0]),
            MOVED if is_moved else APPLIED if is_applied else WAITING,
            None if header.settles is None else header.settles.from_seq,
            int(header.again),
            context.now_ms() if is_applied else None,
            batch.data,
        ),
    )


def _free_number(connection: Connection, stream: int, seq: int) -> int | None:
    """The first unused local number between those of the stream's batches before and after; its old one, unless several
    were lost at once. None (the next new one) where there is none."""
    sql = "SELECT {0}(no) FROM _batch WHERE stream = ? AND seq {1} ?"
    before = execute(connection, sql.format("max", "<"), (stream, seq)).scalar() or 0
    after = execute(connection, sql.format("min", ">"), (stream, seq)).scalar()
    last = execute(connection, "SELECT coalesce(max(no), 0) FROM _batch").scalar_one()
    free = execute(
        connection,
        "SELECT no + 1 FROM (SELECT ? AS no UNION SELECT no FROM _batch WHERE no > ?) AS used"
        " WHERE NOT EXISTS (SELECT 1 FROM _batch WHERE no = used.no + 1) ORDER BY no LIMIT 1",
        (before, before),
    ).scalar_one()
    limit = last if after is None else after
    return int(free) if free < limit else None
