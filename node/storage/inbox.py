"""Takes batches in once they are proven: store, apply when causality allows, else keep and forward.

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
from node.storage.certificates import is_accepted, path_of
from node.storage.context import Context
from node.storage.damaged import is_noted, is_wanted, note, put_back, waiting_at
from node.storage.engine import execute
from node.storage.former import former_entries
from node.storage.lives import (
    can_say_again,
    drop_stray,
    fill_before,
    give_way,
    is_said_again,
    is_stray,
    keep_stray,
    said_again,
    take_place,
)
from node.storage.lost import say_lost
from node.storage.proving import Verified, decoded
from node.storage.registries import is_due, may_apply, number_in_force, registry_for
from node.storage.repeated import causes
from node.storage.revocations import counts
from node.storage.sealing import fits_one_batch, follow_up, has_pending, seal_next
from node.storage.seen import note_seen, present_name, seen_in
from node.storage.streams import (
    FROZEN,
    OPEN,
    REFUSED,
    StreamRow,
    advance_applied,
    advance_held,
    find_stream,
    leave,
    stream_row,
    streams,
    takes,
)
from sync_engine.batch import SealedBatch, parse_header
from sync_engine.certificates import verify_node_path
from sync_engine.entries import Entries
from sync_engine.errors import BadCertificate, Malformed, RuleBroken
from sync_engine.frames import ForkProof
from sync_engine.names import REGISTRY
from sync_engine.verify import (
    check_admissible,
    check_signed,
)

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
    BRANCH = "branch"
    """This node has to say again what it sealed beside it, in a life in which nothing has been sealed yet."""
    OWN = "own"
    """This node signed it in the life that it leads and does not know it: it lost history, and begins a new life."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``held`` is the stream's head now, durable once the transaction has committed."""

    taken: Taken
    held: Head | None
    applied: Applied


class SealFirst(Exception):
    """Too much is pending to be sealed in passing: seal in transactions of their own, then try again."""


def take(connection: Connection, context: Context, verified: Verified) -> Outcome:
    """Store one verified batch, and apply it if it may be applied now. Raises SealFirst."""
    batch = verified.batch
    head = batch.head
    row = stream_row(connection, head.stream)
    if (outcome := _answered(connection, context, verified, row)) is not None:
        return outcome
    if parts_from(connection, row, batch) or (verified.is_own and _follows_said_again(connection, row, batch)):
        if not verified.is_own:
            return _take_branch(connection, context, row, batch)
        if (outcome := _take_own_branch(connection, context, row, verified)) is not None:
            return outcome
        row = stream_row(connection, head.stream)
    if not takes(connection, row, head.seq):
        if row.state == FROZEN or is_stray(connection, batch.header.prev):
            keep_stray(connection, row, batch)
        return Outcome(Taken.FROZEN, row.held, Applied())
    if head.seq > _held_seq(row) + 1:
        row = fill_before(connection, context, row, batch)
    if head.seq > _held_seq(row) + 1:
        return Outcome(Taken.GAP, row.held, Applied())
    older = batch.header.registry_version[0] < registry_at(connection, row.no, _held_seq(row))
    if older and batch.header.repeats is None:
        leave(connection, row.no, REFUSED, f"batch {head.seq} names an older registry version than the one before it")
        return Outcome(Taken.FROZEN, row.held, Applied())
    drop_stray(connection, head.hash)
    return _store(connection, context, row, verified)


def _answered(connection: Connection, context: Context, verified: Verified, row: StreamRow) -> Outcome | None:
    """What needs no place in the stream: what is known, what may still come whole, what was wanted back, and what tells
    this node that it lost history."""
    head = verified.batch.head
    is_stale = verified.is_own and bool(verified.lacks) and verified.life != context.epoch
    may_come_whole = verified.may_come_whole or is_stale
    if not is_wanted(connection, head.hash):
        if is_stored(connection, head.hash) or is_said_again(connection, head.hash):
            return Outcome(Taken.KNOWN, row.held, Applied())
        if may_come_whole:
            return Outcome(Taken.GAP, row.held, Applied())
        is_unknown = verified.is_own and head.stream.epoch == context.epoch
        return Outcome(Taken.OWN, row.held, Applied()) if is_unknown else None
    if may_come_whole:
        return Outcome(Taken.GAP, row.held, Applied())
    if verified.is_own or not verified.lacks:
        put_back(connection, context, verified.batch)
        _say_what_is_lost(connection, context, verified)
    return Outcome(Taken.KNOWN, row.held, Applied())


def _store(connection: Connection, context: Context, row: StreamRow, verified: Verified) -> Outcome:
    """The next batch of a stream. Another's that lacks something waits till its origin has seen it."""
    batch, head = verified.batch, verified.batch.head
    is_half = bool(verified.lacks) and not verified.is_own
    ready = not is_half and is_ready(connection, context, row, batch)
    if ready:
        seal_remainder(connection, context)
    no = insert_batch(connection, row.no, batch, APPLIED if ready else WAITING, context.now_ms())
    advance_held(connection, row.no, head)
    _say_what_is_lost(connection, context, verified)
    if is_half:
        note(connection, context, head)
    applied = apply_stored(connection, context, row, no, batch, verified.entries) if ready else Applied()
    return Outcome(Taken.APPLIED if ready else Taken.WAITING, head, applied)


def _held_seq(row: StreamRow) -> int:
    return 0 if row.held is None else row.held.seq


def parts_from(connection: Connection, row: StreamRow, batch: SealedBatch) -> bool:
    """Whether a batch that is not here stands on another branch of its stream than the one that is."""
    return batch.header.seq <= _held_seq(row) or (
        row.held is not None and batch.header.seq == row.held.seq + 1 and batch.header.prev != row.held.hash
    )


def _follows_said_again(connection: Connection, row: StreamRow, batch: SealedBatch) -> bool:
    """Whether a batch follows a branch that has given way, beyond what stands here in its place: a third branch."""
    return batch.header.seq > _held_seq(row) + 1 and is_said_again(connection, batch.header.prev)


def _take_branch(connection: Connection, context: Context, row: StreamRow, batch: SealedBatch) -> Outcome:
    """Another branch of somebody's stream: kept as proof, and for its origin, who alone can say it again."""
    note_fork(connection, context, row, batch)
    keep_stray(connection, row, batch)
    is_proof = row.state == OPEN or (row.held is not None and batch.header.seq <= row.held.seq)
    return Outcome(Taken.FORKED if is_proof else Taken.FROZEN, row.held, Applied())


def _take_own_branch(connection: Connection, context: Context, row: StreamRow, verified: Verified) -> Outcome | None:
    """What this node signed in a life that it does not remember, beside what it remembers. None: the branch here has
    given way, and the batch may be taken like any other."""
    batch, header = verified.batch, verified.batch.header
    name = present_name(connection, header.prev)
    follows = header.seq == 1 or hash_at(connection, row.no, header.seq - 1) == header.prev
    if not (follows or name) or not is_accepted(connection, context.unit, header.stream.epoch):
        return Outcome(Taken.GAP, row.held, Applied())
    if not can_say_again(connection, context, batch.head):
        # While the present key waits for its certificate no other can follow it: the branch has to come again.
        return Outcome(Taken.BRANCH if context.proven is None else Taken.GAP, row.held, Applied())
    if name is None:
        done = give_way(connection, context, row, header.seq - 1)
        return None if done else Outcome(Taken.GAP, row.held, Applied())
    again = said_again(connection, context, batch)
    if missing_causes(connection, again):
        return Outcome(Taken.GAP, row.held, Applied())
    seal_remainder(connection, context)
    again = said_again(connection, context, batch)  # its place may have been taken meanwhile
    present = stream_row(connection, again.header.stream)
    no = insert_batch(connection, present.no, again, APPLIED, context.now_ms())
    advance_held(connection, present.no, again.head)
    _say_what_is_lost(connection, context, verified)
    applied = apply_stored(connection, context, present, no, again, None)
    return Outcome(Taken.KNOWN, row.held, applied)


def _say_what_is_lost(connection: Connection, context: Context, verified: Verified) -> None:
    """An own batch has been taken as it is."""
    if verified.lacks and verified.is_own:
        say_lost(connection, context, verified.batch, verified.lacks)


def seal_remainder(connection: Connection, context: Context) -> None:
    """Nothing foreign is applied while anything is pending. Raises SealFirst."""
    while has_pending(connection):
        if not fits_one_batch(connection, REMAINDER_NOTES):
            raise SealFirst
        seal_next(connection, context)


def is_ready(connection: Connection, context: Context, row: StreamRow, batch: SealedBatch) -> bool:
    """Whether a batch's causes are all here: its stream applied so far, its registry version in force, its key accepted
    and not ended before it, and what its writer had seen applied."""
    applied = 0 if row.applied is None else row.applied.seq
    if batch.header.seq != applied + 1 or not may_apply(connection, context, batch):
        return False
    if batch.header.braked and settlement_of(connection, row.no, batch.header.seq) is None:
        return False
    if not counts(connection, row, batch.head):
        return False
    return not missing_causes(connection, batch)


def missing_causes(connection: Connection, batch: SealedBatch) -> list[Head]:
    """What a batch's writer had seen that is not applied here; earlier batches of its stream answer for the rest."""
    missing = []
    for head in causes(batch.header):
        name = present_name(connection, head.hash) or head
        row = find_stream(connection, name.stream)
        if row is None or row.applied is None or row.applied.seq < name.seq:
            missing.append(head)
        elif hash_at(connection, row.no, name.seq) != name.hash:
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
    seen = seen_in(connection, row, batch.header)
    if batch.header.repeats is None:
        note_seen(connection, row.no, batch.header.seen_delta)
    elif take_place(connection, context, no, batch):
        advance_applied(connection, row.no, batch.head)
        return Applied()
    sections = decoded(batch, registry) if entries is None else entries
    settled = settlement_of(connection, row.no, batch.header.seq) if batch.header.braked else None
    quiet = settled.undone if settled is not None else frozenset()
    former = former_entries(connection, context, batch.header, sections)
    incoming = Incoming(no, batch.head, seen, registry, quiet=quiet, former=former)
    result = apply_batch(connection, context, incoming, sections)
    mark_applied(connection, no, context.now_ms())
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
        seq = 1 if row.applied is None else row.applied.seq + 1
        if row.no in waiting and takes(connection, row, seq):
            if registry_at(connection, row.no, seq) > in_force:
                continue  # known without reading it: thousands of batches may wait for one version
            found = None if is_noted(connection, row.no, seq) else waiting_at(connection, row.no, seq)
            if found is not None and (found[2] is None or is_ready(connection, context, row, found[2])):
                return row.stream  # a damaged one, so that it is noted
    return None


def apply_waiting(connection: Connection, context: Context, stream: StreamId) -> Applied:
    """Apply the next held batch of a stream that ``next_ready`` named. Raises SealFirst."""
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
    seq = min(batch.header.seq, row.held.seq if row.held is not None else 0)
    leave(connection, row.no, FROZEN, f"two batches at number {seq}: its node was restored or runs twice")
    found = batch_at(connection, row.no, batch.header.seq)
    if found is not None:
        mine = found[2]
        _keep_proof(
            *(connection, context, row.no, seq),
            ForkProof((mine.header_bytes, mine.signature), (batch.header_bytes, batch.signature)),
        )


def take_proof(connection: Connection, context: Context, proof: ForkProof) -> Taken:
    """Keep a proof that a peer passed on, and freeze the stream, unless it has healed. Raises a RemoteFault unless the
    stream's origin signed both."""
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
    if any(is_said_again(connection, head.hash) for head in heads):
        return Taken.KNOWN
    if stream.origin == context.unit:
        return _take_own_proof(connection, context, both)
    no, seq = stream_row(connection, stream).no, heads[0].seq
    leave(connection, no, FROZEN, f"two batches at number {seq}: its node was restored or runs twice")
    _keep_proof(connection, context, no, seq, proof)
    return Taken.FORKED


def _take_own_proof(connection: Connection, context: Context, both: list[SealedBatch]) -> Taken:
    """This node signed both. Of a former life it says again what it holds of them: a proof heals by either, and whoever
    has the other one may never call. Where they part before this place only the batches there tell how far back."""
    stream, seq = both[0].header.stream, both[0].header.seq
    stored = [is_stored(connection, each.head.hash) for each in both]
    if stream.epoch == context.epoch:
        return Taken.KNOWN if all(stored) else Taken.OWN
    if not any(stored) or both[0].header.prev != both[1].header.prev:
        return Taken.KNOWN
    if not can_say_again(connection, context, both[0].head):
        return Taken.BRANCH if context.proven is None else Taken.KNOWN
    give_way(connection, context, stream_row(connection, stream), seq - 1)
    return Taken.KNOWN


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
