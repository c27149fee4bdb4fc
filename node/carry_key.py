"""Tells others under which key things are encrypted to this unit: once in each of its lives.

Role: make the key pair and sign for it, at a session's beginning and before a bundle is written.
Reach: node.envelope, node.storage.statements. Invariant: the pair is durable before anybody is told of it.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection

from conflict.values import Scope
from node import envelope
from node.local import Node
from node.storage.context import Context
from node.storage.statements import keep, said_of
from sync_engine.frames import Statement
from sync_engine.names import CATALOG
from sync_engine.statements import ENCRYPTION, EncryptionKey, body_of


def own_key(connection: Connection, context: Context) -> Statement | None:
    """What the present life has said of its key."""
    scope = Scope(context.unit + CATALOG)
    found = said_of(connection, ENCRYPTION, context.unit, context.speaks_as[0], scope)
    return None if found is None else found.statement


async def publish_key(node: Node, pair: envelope.KeyPair | None = None) -> None:
    """Make and tell the key of the present life, unless that has been done; or tell ``pair``, which was made for it.
    What a life signs that nobody can prove yet is not told."""
    epoch, sign = node.context.speaks_as
    if await node.database.read(own_key, node.context) is not None:
        return
    made = pair if pair is not None else await asyncio.to_thread(envelope.make, node.home)
    key = EncryptionKey(node.context.tree_id, node.context.unit, epoch, made.kem, made.public, node.context.now_ms())
    body = body_of(key)
    await node.database.write(keep, node.context, Statement(ENCRYPTION, body, sign(ENCRYPTION, body)))
