"""Signs this node's heartbeats when they are due: at a session's beginning, and before a stick is written.

Role: one round, a few scopes in a transaction.
Reach: node.local, node.storage.heartbeats.
"""

from __future__ import annotations

from node.local import Node
from node.storage.heartbeats import due, end_round, sign

SIGNED_AT_ONCE = 25
"""So many are signed in one transaction: others may write between."""


async def beat(node: Node) -> None:
    """Sign what is due: of many sessions that begin at once one does it. A round that is cut off is done again."""
    if node.context.is_signing:
        return
    node.context.is_signing = True
    try:
        found = await node.database.read(due, node.context)
        if found is None:
            return
        for at in range(0, len(found.scopes), SIGNED_AT_ONCE):
            await node.database.write(sign, node.context, found.scopes[at : at + SIGNED_AT_ONCE])
        await node.database.write(end_round, node.context, found)
    finally:
        node.context.is_signing = False
