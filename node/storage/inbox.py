"""Takes batches in: verify, store, apply when causality allows, else keep and forward.

Role: the receiving half of the one way that data goes; gRPC and sticks both end here.
Reach: storage, sync_engine. Invariant: heads, registers, table and journal change in one transaction; a batch that
waits is held (and forwarded) but not applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from conflict.values import Head, StreamId
from node.storage.adoption import catch_up
from node.storage.apply import Applied, Incoming, apply_batch
from node.storage.batches import (
    APPLIED,
    WAITING,
    batch_at,
    hash_at,
    insert_batch,
    is_stored,
    mark_applied,
    registry_at,
    settlement_of,
)
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.damaged import is_noted, note, put_back, waiting_at
from node.storage.engine import execute
from node.storage.meta import check_not_fenced, fence
from node.storage.outbox import for_peer
from node.storage.registries import is_due, may_apply, number_in_force, registry_for
from node.storage.sealing import fits_one_batch, follow_up, has_pending, seal_next
from node.storage.streams import (
    FROZEN,
    OPEN,
    REFUSED,
    StreamRow,
    advance_applied,
    advance_held,
    find_stream,
    leave,
    note_seen,
    seen_by,
    stream_row,
    streams,
)
from sync_engine.batch import SealedBatch, parse_batch, parse_header
from sync_engine.certificates import verify_node_path
from sync_engine.entries import Entries
from sync_engine.errors import BadCertificate, Malformed, RemoteFault, RuleBroken
from sync_engine.frames import ForkProof
from sync_engine.names import REGISTRY
from sync_engine.registry import Registry
from sync_engine.verify import check_admissible, check_complete, check_origin, check_readable, check_signed, decode

LOST_HISTORY = "a batch of this node came back that it does not have: it was restored from an older copy, or runs twice"

REMAINDER_NOTES = 500
"""Pending notes that may be sealed inside an applying transaction: more are sealed first, in transactions of their
own."""


class Taken(StrEnum):
    """What became of a batch."""

    APPLIED = "applied"
    WAITING = "waiting"
    KNOWN = "known"
    GAP = "gap"
    FROZEN = "frozen"
    FORKED = "forked"
    """Another batch stands at its place: it is proof, and its stream is frozen."""
    OWN = "own"
    """This node signed it and does not know it: it has lost history, and is fenced."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``held`` is the stream's head now, durable once the transaction has committed."""

    taken: Taken
    held: Head | None
    applied: Applied


class SealFirst(Exception):
    """Too much is pending to be sealed in passing: seal in transactions of their own, then try again."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A batch proven to be its origin's. ``entries`` are decoded already where its registry version is here."""

    batch: SealedBatch
    entries: Sequence[Entries] | None


def verify(connection: Connection, context: Context, data: bytes) -> Verified:
    """Prove a batch, outside any write transaction. Raises a RemoteFault; nothing is changed."""
    batch = parse_batch(data)
    check_admissible(batch, context.tree_id, context.unit)
    stream = batch.header.stream
    path = path_of(connection, stream.origin, stream.epoch)
    if path is None:
        raise BadCertificate(f"no certificate of {stream.origin} has come for this batch")
    check_origin(batch, verify_node_path(path, context.tree_id))
    registry = registry_for(connection, context, batch)
    check_complete(batch, registry, context.level)
    if registry is not None:
        # A relay that withheld too little: nothing of it may come near a disk.
        own = for_peer(connection, context, context.unit, batch)
        batch = batch if own is batch.data else parse_batch(own)
    elif batch.header.registry_version[0] not in context.unreadable:
        check_readable(batch, context.level)  # what this software is too old for comes as its relay judged it
    return Verified(batch, None if registry is None else decoded(batch, registry))


def decoded(batch: SealedBatch, registry: Registry) -> Sequence[Entries]:
    """A signed batch's entries. Raises RuleBroken: only what its origin signed can be held against a stream."""
    try:
        return decode(batch, registry)
    except RemoteFault as fault:
        raise RuleBroken(str(fault), head=batch.head) from fault


def take(connection: Connection, context: Context, verified: Verified) -> Outcome:
    """Store one verified batch, and apply it if it may be applied now. Raises SealFirst or Fenced."""
    batch = verified.batch
    head = batch.head
    row = stream_row(connection, head.stream)
    if put_back(connection, context, batch) or is_stored(connection, head.hash):
        return Outcome(Taken.KNOWN, row.held, Applied())
    if head.stream.origin == context.unit:
        fence(connection, LOST_HISTORY)
        return Outcome(Taken.OWN, row.held, Applied())
    held_seq = 0 if row.held is None else row.held.seq
    if head.seq <= held_seq:
        note_fork(connection, context, row, batch)
        return Outcome(Taken.FORKED, row.held, Applied())
    if row.state != OPEN:
        return Outcome(Taken.FROZEN, row.held, Applied())
    if head.seq > held_seq + 1:
        return Outcome(Taken.GAP, row.held, Applied())
    if row.held is not None and batch.header.prev != row.held.hash:
        leave(connection, row.no, FROZEN, f"two batches at number {held_seq}: its node was restored or runs twice")
        return Outcome(Taken.FORKED, row.held, Applied())
    if batch.header.registry_version[0] < registry_at(connection, row.no, held_seq):
        leave(connection, row.no, REFUSED, f"batch {head.seq} names an older registry version than the one before it")
        return Outcome(Taken.FROZEN, row.held, Applied())
    ready = is_ready(connection, context, row, batch)
    if ready:
        seal_remainder(connection, context)
    no = insert_batch(connection, row.no, batch, APPLIED if ready else WAITING, context.now_ms())
    advance_held(connection, row.no, head)
    applied = apply_stored(connection, context, row, no, batch, verified.entries) if ready else Applied()
    return Outcome(Taken.APPLIED if ready else Taken.WAITING, head, applied)


def seal_remainder(connection: Connection, context: Context) -> None:
    """Nothing foreign is applied while anything is pending. Raises SealFirst."""
    check_not_fenced(connection)
    while has_pending(connection):
        if not fits_one_batch(connection, REMAINDER_NOTES):
            raise SealFirst
        seal_next(connection, context)


def is_ready(connection: Connection, context: Context, row: StreamRow, batch: SealedBatch) -> bool:
    """Whether a batch's causes are all here: its stream applied so far, its registry version in force, and what its
    writer had seen applied."""
    applied = 0 if row.applied is None else row.applied.seq
    if batch.header.seq != applied + 1 or not may_apply(connection, context, batch):
        return False
    if batch.header.braked and settlement_of(connection, row.no, batch.header.seq) is None:
        return False
    return not missing_causes(connection, batch)


def missing_causes(connection: Connection, batch: SealedBatch) -> list[Head]:
    """What a batch's writer had seen that is not applied here; earlier batches of its stream answer for the rest."""
    missing = []
    for head in batch.header.seen_delta:
        row = find_stream(connection, head.stream)
        if row is None or row.applied is None or row.applied.seq < head.seq:
            missing.append(head)
        elif hash_at(connection, row.no, head.seq) != head.hash:
            missing.append(head)  # another branch of a forked stream
    return missing


def apply_stored(
    connection: Connection,
    context: Context,
    row: StreamRow,
    no: int,
    batch: SealedBatch,
    entries: Sequence[Entries] | None,
) -> Applied:
    """Apply a stored batch whose causes are all here, and advance its stream."""
    registry = registry_for(connection, context, batch)
    assert registry is not None  # noqa: S101 - is_ready asked
    sections = decoded(batch, registry) if entries is None else entries
    own_past = [] if row.applied is None else [row.applied]
    seen = seen_by(connection, row.no).updated([*batch.header.seen_delta, *own_past])
    settled = settlement_of(connection, row.no, batch.header.seq) if batch.header.braked else None
    quiet = settled.undone if settled is not None else frozenset()
    result = apply_batch(connection, context, Incoming(no, batch.head, seen, registry, quiet=quiet), sections)
    mark_applied(connection, no, context.now_ms())
    note_seen(connection, row.no, batch.header.seen_delta)
    advance_applied(connection, row.no, batch.head)
    follow_up(connection, context, {each.table.name for each in sections})
    return result


def next_ready(connection: Connection, context: Context) -> StreamId | None:
    """A stream whose next held batch waits no longer; the registry's, where a version of it does."""
    if is_due(connection, context):
        return streams(connection, context.root + REGISTRY)[0].stream
    in_force = number_in_force(connection)
    waiting = execute(connection, "SELECT DISTINCT stream FROM _batch WHERE state = 'waiting'").scalars().all()
    if not waiting:
        return None
    for row in streams(connection):
        if row.no in waiting and row.state == OPEN:
            seq = 1 if row.applied is None else row.applied.seq + 1
            if registry_at(connection, row.no, seq) > in_force:
                continue  # known without reading it: thousands of batches may wait for one version
            found = None if is_noted(connection, row.no, seq) else waiting_at(connection, row.no, seq)
            if found is not None and (found[2] is None or is_ready(connection, context, row, found[2])):
                return row.stream  # a damaged one, so that it is noted
    return None


def apply_waiting(connection: Connection, context: Context, stream: StreamId) -> Applied:
    """Apply the next held batch of a stream that ``next_ready`` named. Raises SealFirst or Fenced."""
    seal_remainder(connection, context)
    if is_due(connection, context):
        catch_up(connection, context)
        return Applied()
    row = stream_row(connection, stream)
    found = waiting_at(connection, row.no, 1 if row.applied is None else row.applied.seq + 1)
    if found is not None and found[2] is None:
        note(connection, context, found[1])
    if found is None or found[2] is None or not is_ready(connection, context, row, found[2]):
        return Applied()
    return apply_stored(connection, context, row, found[0], found[2], None)


def note_fork(connection: Connection, context: Context, row: StreamRow, batch: SealedBatch) -> None:
    """Two signed batches at one place: keep both headers as proof and freeze the stream; everything else moves."""
    seq = batch.header.seq
    leave(connection, row.no, FROZEN, f"two batches at number {seq}: its node was restored or runs twice")
    found = batch_at(connection, row.no, seq)
    if found is not None:
        mine = found[2]
        _keep_proof(
            *(connection, context, row.no, seq),
            ForkProof((mine.header_bytes, mine.signature), (batch.header_bytes, batch.signature)),
        )


def take_proof(connection: Connection, context: Context, proof: ForkProof) -> Taken:
    """Keep a proof that a peer passed on, and freeze the stream; fence this node where it is its own. Raises a
    RemoteFault unless the stream's origin signed both."""
    both = [
        SealedBatch(b"", header, signature, parse_header(header), ())
        for header, signature in (proof.first, proof.second)
    ]
    heads = [each.head for each in both]
    if (heads[0].stream, heads[0].seq) != (heads[1].stream, heads[1].seq) or heads[0].hash == heads[1].hash:
        raise Malformed("a proof of a fork shows no two batches at one place")
    stream = heads[0].stream
    path = path_of(connection, stream.origin, stream.epoch)
    if path is None:
        raise BadCertificate(f"no certificate of {stream.origin} has come for this proof")
    for batch in both:
        check_admissible(batch, context.tree_id, context.unit)
        check_signed(batch, verify_node_path(path, context.tree_id))
    if stream.origin == context.unit:
        fence(connection, LOST_HISTORY)
        return Taken.OWN
    no, seq = stream_row(connection, stream).no, heads[0].seq
    leave(connection, no, FROZEN, f"two batches at number {seq}: its node was restored or runs twice")
    _keep_proof(connection, context, no, seq, proof)
    return Taken.FORKED


def _keep_proof(connection: Connection, context: Context, no: int, seq: int, proof: ForkProof) -> None:
    """One a stream is enough, whatever else its origin has signed."""
    execute(
        connection,
        "INSERT INTO _fork (stream, seq, first_header, first_signature, second_header, second_signature, noted_ms)"
        " SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM _fork WHERE stream = ?)",
        (no, seq, *proof.first, *proof.second, context.now_ms(), no),
    )


def refuse(connection: Connection, fault: RuleBroken) -> None:
    """Leave the stream of a batch that breaks a rule; everything else moves."""
    leave(connection, stream_row(connection, fault.head.stream).no, REFUSED, str(fault))
