"""What the parent and the centre have confirmed of the batches that go up from here.

Role: count, by the unit that made them: the parent's receipts tell of the parent, the root's heartbeats of the centre.
Reach: storage tables. Invariant: only what the one named has signed in its newest life counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Scope, StreamId, UnitPath
from node.storage.brake import shippable
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.heartbeats import holds_of
from node.storage.receipts import last_came_ms
from node.storage.streams import held_heads
from sync_engine.names import is_within, parent_of


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Of ``of`` batches ``unit`` has signed for ``batches``; the last time it signed came at ``at_ms``."""

    unit: UnitPath
    at_ms: int | None
    batches: int
    of: int


def confirmed(connection: Connection, context: Context) -> dict[UnitPath, tuple[Confirmed, Confirmed]]:
    """By unit whose batches are held here and go up from here: what the parent and what the centre have confirmed.
    Empty at the root."""
    parent = parent_of(context.unit)
    if parent is None:
        return {}
    held = {
        stream: head.seq
        for stream, head in shippable(connection, held_heads(connection, context.unit)).items()
        if is_within(stream.origin, context.unit)
    }
    theirs = _named_by_receipts(connection, parent)
    at_parent = last_came_ms(connection, parent)
    centre, at_centre = theirs, at_parent
    if parent != context.root:
        scopes = sorted({stream.scope for stream in held})
        holds, at_centre = holds_of(connection, context.root, scopes)
        centre = {head.stream: head.seq for heads in holds.values() for head in heads}
    units = {context.unit, *(stream.origin for stream in held)}
    found = {}
    for unit in units:
        own = {stream: seq for stream, seq in held.items() if stream.origin == unit}
        counts = [sum(min(seq, names.get(stream, 0)) for stream, seq in own.items()) for names in (theirs, centre)]
        found[unit] = (
            Confirmed(parent, at_parent, counts[0], sum(own.values())),
            Confirmed(context.root, at_centre, counts[1], sum(own.values())),
        )
    return found


def _named_by_receipts(connection: Connection, peer: UnitPath) -> dict[StreamId, int]:
    rows = execute(
        connection,
        "SELECT origin, epoch, scope, _peer_head.seq FROM _peer_head JOIN _stream ON _stream.no = _peer_head.stream"
        " WHERE unit = ?",
        (peer,),
    )
    return {StreamId(UnitPath(origin), epoch, Scope(scope)): int(seq) for origin, epoch, scope, seq in rows}
