"""What a peer is given: the hello, the heads, batches without what it may not read, proofs of forks.

Role: the sending half of the one way that data goes, as reads of the database; ``inbox`` is the other half.
Reach: storage, sync_engine. Invariant: a batch's bytes are its origin's; at most whole chunks are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath, level_of
from node import __version__
from node.storage.batches import batch_at
from node.storage.brake import shippable
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.damaged import wanted
from node.storage.engine import execute
from node.storage.meta import check_not_fenced
from node.storage.receipts import unconfirmed
from node.storage.registries import current_registry, registry_for
from node.storage.sealing import has_pending
from node.storage.statements import digests_on_link
from node.storage.streams import find_stream, held_heads
from sync_engine.batch import SealedBatch, withhold
from sync_engine.exchange import digest_of
from sync_engine.frames import ForkProof, Hello
from sync_engine.names import is_shared, parent_of, unit_of
from sync_engine.verify import PERSONAL


def hello_of(
    connection: Connection, context: Context, child: UnitPath, certificate: bytes
) -> tuple[Hello, dict[StreamId, Head]]:
    """How this node introduces itself on the link of ``child``, and what it holds of the scopes both share. Raises
    Fenced."""
    check_not_fenced(connection)
    held = held_on_link(connection, child)
    registry = current_registry(connection, context)
    lacks_receipt = unconfirmed(connection, child, other_end(context, child), held.values())
    hello = Hello(
        unit=context.unit,
        epoch=context.epoch,
        tree_id=context.tree_id,
        certificate_sha256=certificate,
        registry_version=(registry.version, registry.sha256),
        time_ms=context.now_ms(),
        nonce=context.salt(),
        digest=digest_of(
            held.values(),
            pending=has_pending(connection),
            unconfirmed=context.unit if lacks_receipt else "",
            forked=(each.stream for each in forks(connection, child)),
            statements=digests_on_link(connection, child),
            wanted=wanted(connection, child),
        ),
        software=f"dongbo {__version__}",
    )
    return hello, held


def other_end(context: Context, child: UnitPath) -> UnitPath:
    """Who is at the other end of the link of ``child``."""
    return parent_of(child) or child if child == context.unit else child


def held_on_link(connection: Connection, child: UnitPath) -> dict[StreamId, Head]:
    """The held heads of the scopes that travel on the link of ``child``; a stream under the brake ends before it."""
    return shippable(connection, held_heads(connection, child))


@dataclass(frozen=True, slots=True)
class Fork:
    """A stream of which two signed batches stand at one place, and the proof."""

    stream: StreamId
    proof: ForkProof


def forks(connection: Connection, child: UnitPath) -> list[Fork]:
    """The forks proven here, one a stream, in the scopes that travel on the link of ``child``."""
    rows = execute(
        connection,
        "SELECT origin, epoch, scope, first_header, first_signature, second_header, second_signature"
        " FROM _fork JOIN _stream ON _stream.no = _fork.stream ORDER BY _fork.no",
    )
    found: dict[StreamId, Fork] = {}
    for origin, epoch, scope, *proof in rows:
        stream = StreamId(UnitPath(origin), Epoch(epoch), Scope(scope))
        if stream not in found and is_shared(stream.scope, child):
            found[stream] = Fork(stream, ForkProof((proof[0], proof[1]), (proof[2], proof[3])))
    return list(found.values())


def batch_beside(connection: Connection, theirs: Head) -> SealedBatch | None:
    """What stands here at the place of a peer's head: its origin's signature under it is all that counts as proof."""
    row = find_stream(connection, theirs.stream)
    if row is None or row.held is None:
        return None
    found = batch_at(connection, row.no, min(theirs.seq, row.held.seq))
    return None if found is None or found[1] == theirs.hash else found[2]


def for_peer(connection: Connection, context: Context, peer: str, batch: SealedBatch) -> bytes:
    """A batch's bytes for a peer, without the chunks that its level may not read."""
    registry = registry_for(connection, context, batch)
    level, unit_level = level_of(peer), level_of(unit_of(batch.header.stream.scope))

    def may_read(table_name: str, column: str) -> bool:
        table = None if registry is None else registry.all_tables.get(table_name)
        name = column.rstrip("+-")
        if column == "id" or (column.startswith("_") and column not in PERSONAL):
            return True
        # An unknown column of an unknown registry goes no further than the parent, who may read it whatever it is.
        if table is None or not (column in PERSONAL or table.has(name)):
            return level >= unit_level - 1
        if column in PERSONAL:
            return table.may_read_rows(level, unit_level)
        return table.may_read(table.field(name), level, unit_level)

    return withhold(batch, may_read)


def sendable(connection: Connection, context: Context, peer: str, batch: SealedBatch) -> bytes | None:
    """``for_peer``; None where this node strips a batch because it cannot judge it, its registry version not being
    here: whoever knows that version would have to refuse it, and nobody else can tell whether it is whole."""
    data = for_peer(connection, context, peer, batch)
    return None if data is not batch.data and registry_for(connection, context, batch) is None else data


def paths_of(connection: Connection, origins: Sequence[tuple[UnitPath, Epoch]]) -> tuple[tuple[bytes, ...], ...]:
    found = (path_of(connection, unit, epoch) for unit, epoch in origins)
    return tuple(path for path in found if path is not None)
