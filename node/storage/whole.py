"""Batches that come back from above without all their columns: who may have them whole, and what is done meanwhile.

Role: after history was lost, keep a node from taking back less than there is: a level above that may not read a column
holds the batch without it, and the child whose rows it is about, or that made it, may hold all of it. What that child
has lost as well goes down to its origin, for nobody but the origin can say that there is no more.
Reach: storage tables, sync_engine. Source: docs/decisions/0025. Invariant: what lacks a column is merged nowhere before
its origin has called the column lost, or somebody has sent it.
"""

from __future__ import annotations

from sqlalchemy import Connection

from conflict.values import level_of
from node.storage.batches import stored_batch
from node.storage.certificates import accepted_epochs
from node.storage.context import Context
from node.storage.damaged import forget, holders, is_proven, is_wanted, noted
from node.storage.engine import execute
from node.storage.lost import missed
from node.storage.peers import is_met
from node.storage.statements import KEPT
from sync_engine.batch import SealedBatch
from sync_engine.errors import BadSignature
from sync_engine.names import is_within, parent_of, path_of, unit_of
from sync_engine.registry import Registry
from sync_engine.statements import LOST, Lost
from sync_engine.verify import LEFT_OUT, is_whole, missing


def lacking(
    connection: Connection, context: Context, batch: SealedBatch, registry: Registry | None, peer: str
) -> list[bytes]:
    """The hashes of the chunks that a batch from ``peer`` lacks here. Raises NotYet; and of another's batch
    BadSignature where the peer is to blame for it, or somebody else may have it whole. It is not where a batch comes
    down to a node on the way to its origin: who held it whole there has lost it."""
    if batch.header.stream.origin == context.unit:
        return missing(batch, registry, context.level)
    chunks = missed(connection, context, batch, registry)
    is_on_its_way = peer == parent_of(context.unit) and is_within(batch.header.stream.origin, context.unit)
    if chunks and (not is_on_its_way or may_come_whole(connection, context, batch, registry, peer)):
        raise BadSignature(LEFT_OUT)
    return chunks


def may_come_whole(
    connection: Connection, context: Context, batch: SealedBatch, registry: Registry | None, peer: str
) -> bool:
    """Whether a neighbour may have a batch, sent by ``peer``, that lacks what this node may read: the parent, or the
    child on the way to the rows, if it has not been met in the present life, or if bytes that are damaged here are
    asked for and it holds them. Whose keys have all been ended is not waited for: that is how a parent's operator gives
    up a child that will never call again."""
    asked = holders(connection, context, batch.head) if is_wanted(connection, batch.head.hash) else []
    rows_of = unit_of(batch.header.stream.scope)
    below = next((unit for unit in path_of(rows_of) if parent_of(unit) == context.unit), None)
    for unit in (parent_of(context.unit), below):
        if unit is None or unit == peer or (is_met(connection, unit, context.epoch) and unit not in asked):
            continue
        if not is_whole(batch, registry, level_of(unit)) and accepted_epochs(connection, unit):
            return True
    return False


def _judge_again(connection: Connection, context: Context, said: Lost) -> None:
    """A batch that waits here for what its origin calls lost waits no longer."""
    named = execute(connection, "SELECT 1 FROM _damaged WHERE hash = ?", (said.batch,)).scalar() is not None
    for head in noted(connection):
        if (head.stream.origin, head.stream.scope) != (said.unit, said.scope) or (named and head.hash != said.batch):
            continue
        stored = stored_batch(connection, head.hash)
        if stored is not None and is_proven(connection, context, stored[0], head.hash):
            forget(connection, [head.hash])


KEPT.setdefault(LOST, []).append(_judge_again)
