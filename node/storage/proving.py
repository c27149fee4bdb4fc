"""Proves a batch that has come, outside any write transaction: whose it is, whether it may be here, what it lacks.

Role: what the protocol asks of a batch before anything is done with it; ``inbox`` takes what is proven.
Reach: storage tables, sync_engine. Invariant: nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Epoch
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.outbox import for_peer
from node.storage.registries import registry_for
from node.storage.repeated import former_headers
from node.storage.whole import lacking, may_come_whole
from sync_engine.batch import SealedBatch, parse_batch
from sync_engine.certificates import verify_node_path
from sync_engine.entries import Entries
from sync_engine.errors import BadCertificate, BadSignature, RemoteFault, RuleBroken
from sync_engine.registry import Registry
from sync_engine.verify import (
    check_admissible,
    check_origin,
    check_readable,
    check_repeats,
    decode,
)


@dataclass(frozen=True, slots=True)
class Verified:
    """A batch proven to be its origin's. ``entries`` are decoded already where its registry version is here. One that
    came without all that this node reads lacks chunks (their hashes): an own one is not taken while it
    ``may_come_whole``, another's is kept for its origin."""

    batch: SealedBatch
    entries: Sequence[Entries] | None
    is_own: bool = False
    lacks: Sequence[bytes] = ()
    may_come_whole: bool = False
    life: Epoch | None = None
    """In which life of this node that was judged: in another one, who may have it whole has not been met yet."""


def verify(connection: Connection, context: Context, data: bytes, peer: str = "") -> Verified:
    """Prove a batch that ``peer`` has sent, outside any write transaction. Raises a RemoteFault; nothing is changed.

    Of its own batches a node takes what others still have: columns that no other level may read are lost with a disk
    before anybody below has had them. But whoever may have them is heard first; then it says that they are lost, and
    others take such a batch on its word.
    """
    batch = parse_batch(data)
    check_admissible(batch, context.tree_id, context.unit)
    stream = batch.header.stream
    path = path_of(connection, stream.origin, stream.epoch)
    if path is None:
        raise BadCertificate(f"no certificate of {stream.origin} has come for this batch")
    check_origin(batch, verify_node_path(path, context.tree_id))
    for header, raw, signature in former_headers(batch.header):
        before = path_of(connection, header.stream.origin, header.stream.epoch)
        if before is None:
            raise BadCertificate(f"no certificate of {stream.origin} has come for what this batch repeats")
        check_repeats(batch, SealedBatch(b"", raw, signature, header, ()), verify_node_path(before, context.tree_id))
    registry = registry_for(connection, context, batch)
    is_own = stream.origin == context.unit
    lacks = lacking(connection, context, batch, registry, peer)
    if registry is not None:
        # A relay that withheld too little: nothing of it may come near a disk.
        own = for_peer(connection, context, context.unit, batch)
        batch = batch if own is batch.data else parse_batch(own)
    elif batch.header.registry_version[0] not in context.unreadable:
        check_readable(batch, context.level)  # what this software is too old for comes as its relay judged it
    waits = bool(lacks) and is_own and may_come_whole(connection, context, batch, registry, peer)
    return Verified(batch, None if registry is None else decoded(batch, registry), is_own, lacks, waits, context.epoch)


def decoded(batch: SealedBatch, registry: Registry) -> Sequence[Entries]:
    """A signed batch's entries. Raises RuleBroken: only what its origin signed can be held against a stream; and
    BadSignature for what a relay has left out of it."""
    try:
        return decode(batch, registry)
    except BadSignature:
        raise
    except RemoteFault as fault:
        raise RuleBroken(str(fault), head=batch.head) from fault
