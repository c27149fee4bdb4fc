"""A node's lives: what it does when it finds that it has lost history, and what others do about it.

Role: begin a new epoch; say again, in it, what a branch of a forked stream had said; let what is said again take the
place of what it repeats, wherever that stands.
Reach: storage, sync_engine. Source: docs/decisions/0025. Invariant: a stream has one batch at each place, on every
node; nothing that either life has sealed is lost, and an edit is in effect once, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from conflict.values import Epoch, Head, StreamId
from node.storage.audit import note
from node.storage.batches import APPLIED, MOVED, WAITING, batch_at, hash_at, insert_batch
from node.storage.context import Context
from node.storage.engine import bulk, execute
from node.storage.meta import get_meta, set_meta
from node.storage.repeated import all_seen, former_headers, former_heads, former_named, head_of
from node.storage.seen import forget_seen_after, note_seen, present_name
from node.storage.streams import StreamRow, advance_applied, advance_held, find_stream, reopen, stream_row
from sync_engine.audit import Act
from sync_engine.batch import (
    NO_PREV,
    BatchHeader,
    SealedBatch,
    Settlement,
    encode_batch,
    encode_header,
    parse_batch,
    parse_header,
)
from sync_engine.certificates import Signer

EPOCH, AGAIN = "epoch", "again"

FILLED_MAX = 1_000
"""Batches of a branch that are put in their places at once, for one that follows them."""

STRAYS_MAX = 1_000
"""Of one stream: an honest origin's branch is what it sealed before it met anybody; of others nothing is expected."""


# --- a new life ------------------------------------------------------------------------------------------------------


def begin_life(connection: Connection, context: Context, epoch: Epoch, sign: Signer, *, again: bool) -> None:
    """From here on this node seals under a new epoch. ``again``: it may repeat what a life that it does not remember
    has sealed, so others look twice. What is pending is sealed next, before any history is taken."""
    set_meta(connection, EPOCH, epoch)
    set_meta(connection, AGAIN, epoch if again else "")
    context.proven = context.speaks_as
    context.epoch, context.sign = epoch, sign
    note(connection, context, Act.NEW_LIFE if again else Act.ROTATE, {"epoch": epoch})


def is_begun(connection: Connection, epoch: Epoch) -> bool:
    """Whether this database knows that the node lives under this epoch."""
    return get_meta(connection, EPOCH) == epoch


def is_saying_again(connection: Connection, epoch: Epoch) -> bool:
    """Whether what is sealed now was perhaps sealed before."""
    return get_meta(connection, AGAIN) == epoch


def settle_down(connection: Connection) -> None:
    """All that was pending when a new life began has been sealed."""
    set_meta(connection, AGAIN, "")


def is_another_life(connection: Connection, heads: Iterable[Head]) -> bool:
    """Whether at the place of any of these heads another batch stands here."""
    for head in heads:
        row = find_stream(connection, head.stream)
        if row is not None and hash_at(connection, row.no, head.seq) not in (None, head.hash):
            return True
    return False


# --- saying again ----------------------------------------------------------------------------------------------------


def can_say_again(connection: Connection, context: Context, former: Head) -> bool:
    """Whether nothing has been said in the present life that may have seen what is to be said again, from a former
    batch on: standing before it in one stream, it would wait for ever for what comes after it. What stood before it in
    its own stream has not."""
    stream = former.stream
    found = execute(
        connection,
        "SELECT 1 FROM _batch JOIN _stream ON _stream.no = _batch.stream WHERE origin = ? AND epoch = ? AND scope = ?"
        " AND NOT EXISTS (SELECT 1 FROM _repeat JOIN _stream AS theirs ON theirs.no = _repeat.stream"
        " WHERE _repeat.batch = _batch.no AND theirs.origin = ? AND theirs.epoch = ? AND theirs.scope = ?"
        " AND _repeat.seq < ?) LIMIT 1",
        (context.unit, context.epoch, stream.scope, stream.origin, stream.epoch, stream.scope, former.seq),
    )
    return found.scalar() is None


def give_way(connection: Connection, context: Context, row: StreamRow, upto: int) -> bool:
    """Another branch of an own stream of a former life has come, which parts from the one here after number ``upto``:
    the one here is said again in the present life, and the stream ends there for the other to follow. False where some
    of it waits to be applied: the other branch has to come again then."""
    branch = execute(
        connection,
        "SELECT seq, state FROM _batch WHERE stream = ? AND seq > ? AND state <> ? ORDER BY seq",
        (row.no, upto, MOVED),
    ).all()
    if any(state != APPLIED for _seq, state in branch):
        return False
    for seq, _state in branch:
        found = batch_at(connection, row.no, seq)
        if found is None:
            break
        _take_over(connection, found[2], said_again(connection, context, found[2]))
    close_up(connection, row.no)
    return True


def said_again(connection: Connection, context: Context, batch: SealedBatch) -> SealedBatch:
    """What a batch says, signed anew as the next of the present life. Nothing in it changes but its place."""
    former = batch.header
    stream = StreamId(context.unit, context.epoch, former.stream.scope)
    row = stream_row(connection, stream)
    header = BatchHeader(
        tree_id=context.tree_id,
        stream=stream,
        seq=1 if row.held is None else row.held.seq + 1,
        prev=NO_PREV if row.held is None else row.held.hash,
        seen_delta=all_seen(connection, former),
        registry_version=former.registry_version,
        again=True,
        sections=former.sections,
        braked=former.braked,
        settles=_settles_now(connection, former, stream),
        repeats=(batch.header_bytes, batch.signature),
    )
    header_bytes = encode_header(header)
    signature = context.sign("batch", header_bytes)
    data = encode_batch(header_bytes, signature, batch.chunks)
    return SealedBatch(data, header_bytes, signature, header, batch.chunks)


def _settles_now(connection: Connection, former: BatchHeader, stream: StreamId) -> Settlement | None:
    """What was decided of braked batches of the branch, by the numbers that these have now."""
    if former.settles is None:
        return None
    row = find_stream(connection, former.stream)
    sql = "SELECT hash FROM _repeat WHERE stream = ? AND seq = ?"
    hashes = [] if row is None else execute(connection, sql, (row.no, former.settles.from_seq)).scalars().all()
    names = [name for each in hashes if (name := present_name(connection, each)) is not None and name.stream == stream]
    return Settlement(names[0].seq, former.settles.undone) if names else None


def _take_over(connection: Connection, batch: SealedBatch, again: SealedBatch) -> None:
    """A batch of this node under its new name: it is merged here already."""
    no = execute(connection, "SELECT no FROM _batch WHERE hash = ?", (batch.head.hash,)).scalar_one()
    _rename(connection, int(no), again)
    note_names(connection, again, int(no))
    new = stream_row(connection, again.header.stream).no
    advance_held(connection, new, again.head)
    advance_applied(connection, new, again.head)


def _rename(connection: Connection, no: int, batch: SealedBatch) -> None:
    """A stored batch becomes the one that says it again: its writes stay what they are."""
    header = batch.header
    execute(
        connection,
        "UPDATE _batch SET stream = ?, seq = ?, hash = ?, size = ?, again = 1, settles = ?, data = ? WHERE no = ?",
        (
            stream_row(connection, header.stream).no,
            header.seq,
            batch.head.hash,
            len(batch.data),
            None if header.settles is None else header.settles.from_seq,
            batch.data,
            no,
        ),
    )


# --- what is said again takes its place ------------------------------------------------------------------------------


def note_names(connection: Connection, batch: SealedBatch, no: int) -> None:
    """From now on a batch stands for all that it repeats."""
    bulk(
        connection,
        "INSERT INTO _repeat (hash, stream, seq, prev, batch) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (hash) DO UPDATE SET batch = excluded.batch",
        [
            (head.hash, stream_row(connection, head.stream).no, head.seq, header.prev, no)
            for head, header in ((head_of(header, raw), header) for header, raw, _ in former_headers(batch.header))
        ],
    )
    bulk(connection, "DELETE FROM _stray WHERE hash = ?", [(head.hash,) for head in former_heads(batch)])


def standing(connection: Connection, batch: SealedBatch) -> tuple[int, str] | None:
    """(local number, state) of the batch kept here that this one repeats."""
    for head in former_heads(batch):
        found = execute(
            connection, "SELECT no, state FROM _batch WHERE hash = ? AND state <> ?", (head.hash, MOVED)
        ).one_or_none()
        if found is not None:
            return int(found[0]), str(found[1])
    return None


def take_place(connection: Connection, context: Context, no: int, batch: SealedBatch) -> bool:
    """A stored batch ``no``, which repeats another, is about to be applied. Where the other one is merged here already
    its writes are this one's from now on: True. Where it only waits, it is dropped. Its place in its own stream stays
    filled for as long as something follows it there."""
    there = standing(connection, batch)
    merged = there is not None and there[1] == APPLIED
    if there is not None:
        former = parse_batch(execute(connection, "SELECT data FROM _batch WHERE no = ?", (there[0],)).scalar_one())
        execute(connection, "DELETE FROM _batch WHERE no = ?", (no if merged else there[0],))
        if merged:
            _rename(connection, there[0], batch)
        _fill(connection, context, former)
    note_names(connection, batch, there[0] if there is not None and merged else no)
    for head in former_heads(batch):
        close_up(connection, stream_row(connection, head.stream).no)
    return merged


def _fill(connection: Connection, context: Context, former: SealedBatch) -> None:
    """Keep a batch that has been said again in its place: it is merged under its present name, but whoever comes later
    can be given what follows it only with it."""
    head = former.head
    row = stream_row(connection, head.stream)
    insert_batch(connection, row.no, former, MOVED, context.now_ms())
    if (0 if row.applied is None else row.applied.seq) == head.seq - 1:
        if former.header.repeats is None:
            note_seen(connection, row.no, former.header.seen_delta)
        advance_applied(connection, row.no, head)


def fill_before(connection: Connection, context: Context, row: StreamRow, batch: SealedBatch) -> StreamRow:
    """A batch has come that stands farther on than its stream goes here. Where all between has been said again, and is
    known here by its present names alone, it is put in its place."""
    held, between, digest = row.held, list[SealedBatch](), batch.header.prev
    while digest != (NO_PREV if held is None else held.hash):
        former = former_named(connection, digest)
        if former is None or former.header.stream != row.stream or len(between) >= FILLED_MAX:
            return row
        between.append(former)
        digest = former.header.prev
    if row.applied != held or len(between) != batch.header.seq - 1 - (0 if held is None else held.seq):
        return row
    for former in reversed(between):
        _fill(connection, context, former)
        advance_held(connection, row.no, former.head)
    return stream_row(connection, row.stream)


def close_up(connection: Connection, stream_no: int) -> None:
    """Once nothing of a branch is left beyond where it parted, its stream ends there and is open for the other."""
    last = execute(
        connection, "SELECT max(seq) FROM _batch WHERE stream = ? AND state <> ?", (stream_no, MOVED)
    ).scalar()
    execute(connection, "DELETE FROM _batch WHERE stream = ? AND state = ? AND seq > ?", (stream_no, MOVED, last or 0))
    waiting = execute(
        connection, "SELECT min(seq) FROM _batch WHERE stream = ? AND state = ?", (stream_no, WAITING)
    ).scalar()
    execute(
        connection,  # a receipt for what stood here is none for what comes in its place
        "DELETE FROM _peer_head WHERE stream = ? AND seq >= ? AND hash IN (SELECT hash FROM _repeat WHERE stream = ?)",
        (stream_no, (last or 0) + 1, stream_no),
    )
    upto = (last or 0) if waiting is None else waiting - 1
    if execute(connection, "SELECT 1 FROM _stream WHERE no = ? AND applied_seq > ?", (stream_no, upto)).scalar():
        forget_seen_after(connection, stream_no, hash_at(connection, stream_no, upto))
    for column, seq in (("held", last or 0), ("applied", upto)):
        execute(
            connection,
            f"UPDATE _stream SET {column}_seq = ?, {column}_hash = ? WHERE no = ?",
            (seq, hash_at(connection, stream_no, seq), stream_no),
        )
    filled = "SELECT 1 FROM _batch WHERE stream = ? AND state = ? LIMIT 1"
    if execute(connection, filled, (stream_no, MOVED)).scalar() is not None:
        return
    proofs = execute(connection, "SELECT first_header, second_header FROM _fork WHERE stream = ?", (stream_no,)).all()
    healed = all(any(is_said_again(connection, parse_header_hash(each)) for each in proof) for proof in proofs)
    if healed:
        execute(connection, "DELETE FROM _fork WHERE stream = ?", (stream_no,))
        reopen(connection, stream_no)


def parse_header_hash(header: bytes) -> bytes:
    """The identity of the batch that a header is of."""
    return SealedBatch(b"", header, b"", parse_header(header), ()).head.hash


def is_said_again(connection: Connection, digest: bytes) -> bool:
    return execute(connection, "SELECT 1 FROM _repeat WHERE hash = ?", (digest,)).scalar() is not None


# --- branches on their way to their origin ---------------------------------------------------------------------------


def keep_stray(connection: Connection, row: StreamRow, batch: SealedBatch) -> None:
    """Keep a batch of another branch than the one held here, for its origin: it may be the only copy."""
    kept = execute(connection, "SELECT count(*) FROM _stray WHERE stream = ?", (row.no,)).scalar_one()
    if kept < STRAYS_MAX:
        execute(
            connection,
            "INSERT INTO _stray (hash, stream, seq, data) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (batch.head.hash, row.no, batch.header.seq, batch.data),
        )


def is_stray(connection: Connection, digest: bytes) -> bool:
    return execute(connection, "SELECT 1 FROM _stray WHERE hash = ?", (digest,)).scalar() is not None


def drop_stray(connection: Connection, digest: bytes) -> None:
    """It has come in its place."""
    execute(connection, "DELETE FROM _stray WHERE hash = ?", (digest,))
