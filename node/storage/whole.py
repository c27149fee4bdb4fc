"""Own batches that come back without all their columns: whether another neighbour may still have them whole.

Role: after history was lost, keep a node from taking back less of its own than there is: a level above that may not
read a column holds the batch without it, and the child whose rows it is about may hold all of it.
Reach: storage tables, sync_engine. Source: docs/decisions/0025.
"""

from __future__ import annotations

from sqlalchemy import Connection

from conflict.values import level_of
from node.storage.certificates import accepted_epochs
from node.storage.context import Context
from node.storage.damaged import holders, is_wanted
from node.storage.peers import is_met
from sync_engine.batch import SealedBatch
from sync_engine.names import parent_of, path_of, unit_of
from sync_engine.registry import Registry
from sync_engine.verify import is_whole


def may_come_whole(
    connection: Connection, context: Context, batch: SealedBatch, registry: Registry | None, peer: str
) -> bool:
    """Whether a neighbour may have an own batch, sent by ``peer``, that lacks what this node may read: the parent, or
    the child on the way to the rows, if it has not been met in the present life, or if bytes that are damaged here are
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
