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
from node.storage.receipts import unconfirmed
from node.storage.registries import current_registry, registry_for
from node.storage.sealing import has_pending
from node.storage.statements import digests_on_link
from node.storage.streams import find_stream, held_heads
from sync_engine.batch import SealedBatch, parse_batch, withhold
from sync_engine.exchange import digest_of
from sync_engine.frames import CHAIN_MAX, Chain, ForkProof, Hello
from sync_engine.names import is_shared, is_towards, parent_of, unit_of
from sync_engine.verify import PERSONAL


def hello_of(
    connection: Connection, context: Context, child: UnitPath, certificate: bytes
) -> tuple[Hello, dict[StreamId, Head]]:
    """How this node introduces itself on the link of ``child``, and what it holds of the scopes both share."""
    held = held_on_link(connection, context, child)
    registry = current_registry(connection, context)
    lacks_receipt = unconfirmed(connection, child, other_end(context, child), held.values())
    hello = Hello(
        unit=context.unit,
        epoch=context.speaks_as[0],
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


def held_on_link(connection: Connection, context: Context, child: UnitPath) -> dict[StreamId, Head]:
    """The held heads of the scopes that travel on the link of ``child``; a stream under the brake ends before it. What
    a new life has sealed goes out once its key has been certified: nobody could prove it before."""
    held = shippable(connection, held_heads(connection, child))
    mine = {stream.epoch for stream in held if stream.origin == context.unit}
    proven = {epoch for epoch in mine if path_of(connection, context.unit, epoch) is not None}
    return {stream: head for stream, head in held.items() if stream.origin != context.unit or stream.epoch in proven}


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


def chain_of(connection: Connection, stream: StreamId) -> Chain | None:
    """The hashes of a stream as it stands here, as far back as one message takes; a stream of nothing has none."""
    row = find_stream(connection, stream)
    if row is None or row.held is None:
        return None
    first = max(1, row.held.seq - CHAIN_MAX + 1)
    sql = "SELECT hash FROM _batch WHERE stream = ? AND seq >= ? ORDER BY seq"
    return Chain(stream, first, tuple(execute(connection, sql, (row.no, first)).scalars()))


def branch_from(connection: Connection, chain: Chain) -> tuple[int, list[Head]]:
    """Up to which number the stream of a peer's chain is the same here, and what parts from it."""
    row = find_stream(connection, chain.stream)
    if row is None:
        return 0, []
    mine = execute(
        connection, "SELECT seq, hash FROM _batch WHERE stream = ? AND seq >= ? ORDER BY seq", (row.no, chain.first)
    ).all()
    theirs = dict(enumerate(chain.hashes, start=chain.first))
    common = chain.first - 1
    for seq, digest in mine:
        if seq != common + 1 or theirs.get(seq) != digest:
            break
        common = seq
    return common, [Head(chain.stream, seq, digest) for seq, digest in mine if seq > common]


def strays(connection: Connection, context: Context, peer: UnitPath, child: UnitPath) -> list[bytes]:
    """The hashes of batches of other branches for whose origin ``peer`` is, or is on the way to; in their order. Names
    of streams cost their origin nothing, so no more than these are ever in memory at once."""
    rows = execute(
        connection,
        "SELECT origin, scope, _stray.hash FROM _stray JOIN _stream ON _stream.no = _stray.stream"
        " ORDER BY stream, _stray.seq",
    )
    return [
        bytes(digest)
        for origin, scope, digest in rows
        if is_shared(scope, child) and is_towards(origin, peer, context.unit)
    ]


def stray(connection: Connection, digest: bytes) -> SealedBatch | None:
    """One of them; None where it has come in its place meanwhile."""
    data = execute(connection, "SELECT data FROM _stray WHERE hash = ?", (digest,)).scalar()
    return None if data is None else parse_batch(data)


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
