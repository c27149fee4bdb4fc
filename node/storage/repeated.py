"""What a batch that is said again repeats, and what that had seen when it was sealed first.

Role: walk from a repeat to its first form, and back along the chain on which that stood.
Reach: storage tables, sync_engine.batch. Source: docs/decisions/0025. Invariant: what a batch had seen follows from its
first form alone, which names its chain by hash: whoever holds that form and whoever never had it take the same for
seen, whatever the repeat says of itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

from sqlalchemy import Connection

from conflict.values import Head, StreamId
from node.storage.batches import undamaged
from node.storage.engine import execute
from sync_engine.batch import NO_PREV, BatchHeader, SealedBatch, encode_batch, parse_header
from sync_engine.errors import LimitExceeded

REPEATS_MAX = 32
"""How often one batch may be said again: a fork each time. Each is parsed, and its signature proven."""

FOLDS_KEPT = 64

_folds: dict[bytes, Mapping[StreamId, Head]] = {}
"""By the hash of a batch, what ``seen_upto`` found: it follows from the hash, so it is true of every database."""


def former_headers(header: BatchHeader) -> Iterator[tuple[BatchHeader, bytes, bytes]]:
    """(header, its bytes, signature) of what a batch repeats, and of what that repeats. Raises Malformed or
    LimitExceeded."""
    repeats = header.repeats
    for _ in range(REPEATS_MAX):
        if repeats is None:
            return
        former = parse_header(repeats[0])
        yield former, *repeats
        repeats = former.repeats
    if repeats is not None:
        raise LimitExceeded("a batch says again what was said again too often")


def former_heads(batch: SealedBatch) -> list[Head]:
    """The former names of a batch, the latest first."""
    return [head_of(header, raw) for header, raw, _signature in former_headers(batch.header)]


def first_head(batch: SealedBatch) -> Head:
    """The name that a batch was sealed with first."""
    return [batch.head, *former_heads(batch)][-1]


def former_named(connection: Connection, digest: bytes) -> SealedBatch | None:
    """A batch that has been said again, by its former name, made of the one that says it now; None where that one
    is damaged or not here."""
    found = execute(
        connection,
        "SELECT _batch.hash, data FROM _repeat JOIN _batch ON _batch.no = _repeat.batch WHERE _repeat.hash = ?",
        (digest,),
    ).one_or_none()
    again = None if found is None else undamaged(found[1], found[0])
    if again is None:
        return None
    for header, raw, signature in former_headers(again.header):
        if head_of(header, raw).hash == digest:
            return SealedBatch(encode_batch(raw, signature, again.chunks), raw, signature, header, again.chunks)
    return None


def head_of(header: BatchHeader, raw: bytes) -> Head:
    return Head(header.stream, header.seq, sha256(raw).digest())


def first_form(header: BatchHeader) -> BatchHeader:
    """The header that a batch was sealed with first: its own where it repeats nothing."""
    for former, _raw, _signature in former_headers(header):
        header = former
    return header


def causes(header: BatchHeader) -> tuple[Head, ...]:
    """What has to be applied before a batch besides what stands before it in its stream: what it names, and for a
    repeat what its first form named and followed."""
    if header.repeats is None:
        return header.seen_delta
    first = first_form(header)
    return (*header.seen_delta, *first.seen_delta, *_past(first))


def all_seen(connection: Connection, header: BatchHeader) -> tuple[Head, ...]:
    """All that a batch's first form had seen, its own stream's past included, by the names of then. Where a batch of
    that past is damaged here, what the repeat says of itself."""
    first = first_form(header)
    before = seen_upto(connection, first.prev)
    if before is None:
        return header.seen_delta
    merged = {**before, **{head.stream: head for head in (*first.seen_delta, *_past(first))}}
    return tuple(sorted(merged.values()))


def _past(header: BatchHeader) -> tuple[Head, ...]:
    return () if header.prev == NO_PREV else (Head(header.stream, header.seq - 1, header.prev),)


def seen_upto(connection: Connection, digest: bytes) -> Mapping[StreamId, Head] | None:
    """What a chain names as far as the batch of this hash, which is its last; None where one of it cannot be read.
    Repeats among them stand alone."""
    if digest in _folds:
        return _folds[digest]
    found: dict[StreamId, Head] = {}
    last = digest
    while digest != NO_PREV:
        if digest in _folds:
            found = {**_folds[digest], **found}
            break
        earlier = _header_named(connection, digest)
        if earlier is None:
            return None
        for head in earlier.seen_delta if earlier.repeats is None else ():
            found.setdefault(head.stream, head)
        digest = earlier.prev
    if len(_folds) >= FOLDS_KEPT:
        _folds.clear()
    _folds[last] = found
    return found


def _header_named(connection: Connection, digest: bytes) -> BatchHeader | None:
    """The header with this hash, of a batch stored here or of one that has been said again since."""
    data = execute(connection, "SELECT data FROM _batch WHERE hash = ?", (digest,)).scalar()
    if data is not None:
        batch = undamaged(data, digest)
        return None if batch is None else batch.header
    former = former_named(connection, digest)
    return None if former is None else former.header
