"""What nodes have signed as the ends of their audit chains, as far as it is here: in their heartbeats.

Role: read the statements that are kept; prove again those of this node, which whoever wrote into the chain may have
written as well.
Reach: storage tables, sync_engine.statements. Source: decision 0028.
"""

from __future__ import annotations

from sqlalchemy import Connection

from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.statements import Kept, said
from sync_engine.audit import Anchor, head_from_wire
from sync_engine.certificates import verify_node_path
from sync_engine.errors import RemoteFault
from sync_engine.statements import HEARTBEAT, Heartbeat, check_signed


def own_anchors(connection: Connection, context: Context) -> list[Anchor]:
    """This node's own, of all its lives, oldest first; each link once, as it was first signed. What bears no good
    signature says nothing."""
    found: dict[tuple[int, bytes], Anchor] = {}
    for kept in said(connection, HEARTBEAT, context.unit):
        each = _anchor(kept)
        if each is not None and _is_proven(connection, context, kept):
            known = found.get((each.no, each.hash))
            if known is None or each.signed_ms < known.signed_ms:
                found[each.no, each.hash] = each
    return sorted(found.values(), key=lambda each: (each.signed_ms, each.no))


def others_anchors(connection: Connection, context: Context) -> list[Anchor]:
    """The newest of each other unit, by its own clock."""
    found: dict[str, Anchor] = {}
    for kept in said(connection, HEARTBEAT):
        each = _anchor(kept)
        if each is None or each.unit == context.unit:
            continue
        known = found.get(each.unit)
        if known is None or (known.signed_ms, known.no) < (each.signed_ms, each.no):
            found[each.unit] = each
    return [found[unit] for unit in sorted(found)]


def _anchor(kept: Kept) -> Anchor | None:
    heartbeat = kept.said
    head = head_from_wire(heartbeat.audit_head) if isinstance(heartbeat, Heartbeat) else None
    if head is None or not isinstance(heartbeat, Heartbeat):
        return None
    return Anchor(heartbeat.unit, heartbeat.epoch, *head, signed_ms=heartbeat.time_ms)


def _is_proven(connection: Connection, context: Context, kept: Kept) -> bool:
    path = path_of(connection, kept.said.unit, kept.said.epoch)
    if path is None:
        return False
    try:
        check_signed(kept.statement, kept.said, verify_node_path(path, context.tree_id))
    except RemoteFault:
        return False
    return True
