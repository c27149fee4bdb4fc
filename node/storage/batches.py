"""Stored batches: bytes as received, found by hash, by place, or by what a peer lacks.

Role: store, mark and read.
Reach: storage tables, sync_engine.batch. Invariant: ``data`` is never changed once stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection

from conflict.values import Head
from node.storage.engine import execute
from node.storage.streams import find_stream
from sync_engine.batch import SealedBatch, Settlement, parse_batch
from sync_engine.errors import RemoteFault
from sync_engine.exchange import Span

APPLIED, WAITING = "applied", "waiting"

MOVED = "moved"
"""Of a batch that has been said again, and is merged by its present name: it fills its place for what follows it."""


def insert_batch(connection: Connection, stream_no: int, batch: SealedBatch, state: str, now_ms: int) -> int:
    """Keep a batch; returns its local number, which grows in local order."""
    head, header = batch.head, batch.header
    return int(
        execute(
            connection,
            "INSERT INTO _batch (stream, seq, hash, entries, size, registry, state, settles, again, applied_ms, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING no",
            (
                stream_no,
                head.seq,
                head.hash,
                header.entries,
                len(batch.data),
                header.registry_version[0],
                state,
                None if header.settles is None else header.settles.from_seq,
                int(header.again),
                now_ms if state == APPLIED else None,
                batch.data,
            ),
        ).scalar_one()
    )


def mark_applied(connection: Connection, no: int, now_ms: int) -> None:
    execute(connection, "UPDATE _batch SET state = 'applied', applied_ms = ? WHERE no = ?", (now_ms, no))


def settlement_of(connection: Connection, stream_no: int, seq: int) -> Settlement | None:
    """What a later batch of the stream says about the braked one at ``seq``; None while nothing has been decided."""
    data = execute(
        connection,
        "SELECT data FROM _batch WHERE stream = ? AND seq > ? AND settles IS NOT NULL AND settles <= ?"
        " ORDER BY seq LIMIT 1",
        (stream_no, seq, seq),
    ).scalar()
    return None if data is None else parse_batch(data).header.settles


def waiting_upto(connection: Connection, version: int) -> int:
    """How many batches wait that were sealed under a registry version up to this one."""
    sql = "SELECT count(*) FROM _batch WHERE state = 'waiting' AND registry <= ?"
    return int(execute(connection, sql, (version,)).scalar_one())


def is_stored(connection: Connection, digest: bytes) -> bool:
    return execute(connection, "SELECT 1 FROM _batch WHERE hash = ?", (digest,)).scalar() is not None


def batch_at(connection: Connection, stream_no: int, seq: int) -> tuple[int, bytes, SealedBatch] | None:
    """(local number, hash, batch) at one place of a stream."""
    found = execute(
        connection, "SELECT no, hash, data FROM _batch WHERE stream = ? AND seq = ?", (stream_no, seq)
    ).one_or_none()
    return None if found is None else (found[0], found[1], parse_batch(found[2]))


def hash_at(connection: Connection, stream_no: int, seq: int) -> bytes | None:
    """The hash of the batch held at one place of a stream."""
    digest: bytes | None = execute(
        connection, "SELECT hash FROM _batch WHERE stream = ? AND seq = ?", (stream_no, seq)
    ).scalar()
    return digest


def registry_at(connection: Connection, stream_no: int, seq: int) -> int:
    """The registry version that the batch at one place of a stream names; 0 where there is none. It never falls in a
    stream: else an origin could go back to rights that it no longer has."""
    return int(
        execute(connection, "SELECT registry FROM _batch WHERE stream = ? AND seq = ?", (stream_no, seq)).scalar() or 0
    )


def lacking(connection: Connection, spans: Sequence[Span]) -> tuple[list[Head], list[Head]]:
    """One scope's batches that a peer lacks, in local order; and the peer's heads that are not on the chain held here
    (a fork: nothing of that stream is sent)."""
    found: dict[int, tuple[int, Head]] = {}
    forked: list[Head] = []
    for span in spans:
        row = find_stream(connection, span.stream)
        if row is None:
            continue
        after = span.after.seq if span.after is not None else 0
        if span.after is not None and hash_at(connection, row.no, after) != span.after.hash:
            forked.append(span.after)
            continue
        places = execute(
            connection,
            "SELECT no, seq, hash FROM _batch WHERE stream = ? AND seq > ? AND seq <= ?",
            (row.no, after, span.upto.seq),
        )
        found |= {no: (row.no, Head(span.stream, seq, digest)) for no, seq, digest in places}
    order = in_order((no, stream, head.seq) for no, (stream, head) in found.items())
    return [found[no][1] for no in order], forked


def in_order(places: Iterable[tuple[int, int, int]]) -> list[int]:
    """Local numbers in local order, of (number, stream, place); what fills a place goes before what follows it."""
    first: dict[int, int] = {}
    keys = []
    for no, stream, seq in sorted(places, key=lambda each: each[1:], reverse=True):
        first[stream] = min(no, first.get(stream, no))
        keys.append((first[stream], seq, no))
    return [no for _first, _seq, no in sorted(keys)]


def stored_batch(connection: Connection, digest: bytes) -> tuple[bytes, bool] | None:
    """(bytes, whether it only fills a place) of one batch; None where it is called otherwise by now, or is not here."""
    found = execute(connection, "SELECT data, state FROM _batch WHERE hash = ?", (digest,)).one_or_none()
    return None if found is None else (found[0], found[1] == MOVED)


def all_batches(connection: Connection) -> Iterator[tuple[int, bytes]]:
    """(local number, bytes) of every stored batch, one at a time."""
    last = 0
    while True:
        found = execute(
            connection, "SELECT no, data FROM _batch WHERE no > ? ORDER BY no LIMIT 1", (last,)
        ).one_or_none()
        if found is None:
            return
        last = found[0]
        yield found[0], found[1]


def undamaged(data: bytes, digest: bytes) -> SealedBatch | None:
    """A stored batch, unless its header is not the one that was stored."""
    try:
        batch = parse_batch(data)
    except RemoteFault:
        return None
    return batch if batch.head.hash == digest else None
