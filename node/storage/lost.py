"""Columns of batches that nobody has any more, by the word of the batch's origin.

Role: say and keep what is lost; judge whether a batch lacks more than that.
Reach: storage tables, sync_engine. Source: docs/decisions/0025. Invariant: without its origin's word nobody takes a
batch without what may be read here: whoever passed it on would have withheld it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from node.storage.context import Context
from node.storage.engine import bulk, execute
from node.storage.repeated import first_head
from node.storage.statements import KEPT, say
from sync_engine import verify
from sync_engine.batch import SealedBatch
from sync_engine.errors import BadSignature
from sync_engine.registry import Registry
from sync_engine.statements import LOST, Lost


def say_lost(connection: Connection, context: Context, batch: SealedBatch, chunks: Sequence[bytes]) -> None:
    """Sign that a batch of this node's own is whole without these chunks, given by their hashes; once."""
    known = lost_of(connection, batch)
    if any(each not in known for each in chunks):
        first = first_head(batch)
        scope, now = batch.header.stream.scope, context.now_ms()
        say(
            connection,
            context,
            Lost(context.tree_id, context.unit, context.epoch, scope, first.hash, tuple(sorted(chunks)), now),
        )


def _note(connection: Connection, _context: Context, said: Lost) -> None:
    bulk(
        connection,
        "INSERT INTO _lost (batch, chunk, unit) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(said.batch, each, said.unit) for each in said.chunks],
    )


KEPT.setdefault(LOST, []).append(_note)


def lost_of(connection: Connection, batch: SealedBatch) -> frozenset[bytes]:
    """The hashes of a batch's chunks that its origin calls lost, under whatever name the batch goes."""
    rows = execute(
        connection,
        "SELECT chunk FROM _lost WHERE batch = ? AND unit = ?",
        (first_head(batch).hash, batch.header.stream.origin),
    )
    return frozenset(map(bytes, rows.scalars()))


def missed(connection: Connection, context: Context, batch: SealedBatch, registry: Registry | None) -> list[bytes]:
    """The hashes of the chunks that may be read here, are missing, and are not lost. Raises NotYet."""
    chunks = verify.missing(batch, registry, context.level)
    return verify.missing(batch, registry, context.level, lost_of(connection, batch)) if chunks else chunks


def check_complete(connection: Connection, context: Context, batch: SealedBatch, registry: Registry | None) -> None:
    """No chunk is missing that may be read here, but what is lost. Raises BadSignature or NotYet."""
    if missed(connection, context, batch, registry):
        raise BadSignature(verify.LEFT_OUT)
