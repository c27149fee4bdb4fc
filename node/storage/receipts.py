"""Receipts as they are kept: what neighbours have signed that they hold.

Role: draw up this node's own, keep the peer's, say for which scopes the peer's is lacking.
Reach: storage tables, sync_engine.receipts. Invariant: ``_peer_head`` says what kept receipts name and nothing else;
once a peer shows another epoch than its receipts', they are void.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, UnitPath
from node.storage.brake import shippable
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.digests import digest_scope
from node.storage.engine import bulk, execute
from node.storage.registries import current_registry
from node.storage.streams import applied_heads, held_heads
from sync_engine.certificates import verify_node_path
from sync_engine.errors import BadCertificate
from sync_engine.frames import Receipt
from sync_engine.receipts import RECEIPT, DigestKnown, ReceiptBody, body_of, check_receipt, parse


def draw(connection: Connection, context: Context, child: UnitPath, peer: UnitPath, scopes: Iterable[Scope]) -> Receipt:
    """What this node holds of these scopes, signed for its neighbour on the link of ``child``."""
    epoch, sign = context.speaks_as
    named = frozenset(scopes)
    held = shippable(connection, held_heads(connection, child))
    digests = (known_digest(connection, context, scope) for scope in sorted(named))
    body = body_of(
        ReceiptBody(
            context.unit,
            epoch,
            peer,
            named,
            tuple(sorted(head for stream, head in held.items() if stream.scope in named)),
            tuple(each for each in digests if each is not None),
            context.now_ms(),
        )
    )
    return Receipt(body, sign(RECEIPT, body))


def known_digest(connection: Connection, context: Context, scope: Scope) -> DigestKnown | None:
    """The scope's digest where it is remembered: nobody waits at the end of a session for one to be computed."""
    applied = tuple(sorted(applied_heads(connection, scope)))
    state = sha256(current_registry(connection, context).sha256)
    for head in applied:
        state.update(head.hash)
    known = execute(connection, "SELECT state FROM _digest WHERE scope = ?", (scope,)).scalar()
    if known != state.digest():
        return None
    digest = digest_scope(connection, context, scope)
    return DigestKnown(scope, applied, digest.digest, digest.rows)


def keep(
    connection: Connection, context: Context, child: UnitPath, peer: tuple[UnitPath, Epoch], receipt: Receipt
) -> ReceiptBody:
    """Verify and keep what the peer of a session signed for this node. Raises a RemoteFault."""
    body = parse(receipt)
    path = path_of(connection, *peer)
    if path is None:
        raise BadCertificate(f"no certificate of {peer[0]} has come for its receipt")
    check_receipt(receipt, body, signer=verify_node_path(path, context.tree_id), to=context.unit, child=child)
    no = execute(
        connection,
        "INSERT INTO _receipt (signer, epoch, came_ms, body, signature) VALUES (?, ?, ?, ?, ?) RETURNING no",
        (body.unit, body.epoch, context.now_ms(), receipt.body, receipt.signature),
    ).scalar_one()
    bulk(
        connection,
        "INSERT INTO _receipt_scope (signer, scope, receipt) VALUES (?, ?, ?)"
        " ON CONFLICT (signer, scope) DO UPDATE SET receipt = excluded.receipt",
        [(body.unit, scope, no) for scope in sorted(body.scopes)],
    )
    execute(
        connection,
        "DELETE FROM _receipt WHERE signer = ? AND no <> ?"
        " AND no NOT IN (SELECT receipt FROM _receipt_scope WHERE signer = ?)",
        (body.unit, no, body.unit),
    )
    bulk(
        connection,
        "DELETE FROM _peer_head WHERE unit = ? AND stream IN (SELECT no FROM _stream WHERE scope = ?)",
        [(body.unit, scope) for scope in sorted(body.scopes)],
    )
    _note_heads(connection, body.unit, body.heads)
    return body


def _note_heads(connection: Connection, unit: UnitPath, heads: Iterable[Head]) -> None:
    """A stream of which nothing has come here is not noted: names cost a peer nothing. Neither is a head of another
    branch than the one here, nor of one that has been said again: it says nothing of what stands in its place."""
    bulk(
        connection,
        "INSERT INTO _peer_head (unit, stream, seq, hash) SELECT ?, no, ?, ? FROM _stream"
        " WHERE origin = ? AND epoch = ? AND scope = ?"
        " AND NOT EXISTS (SELECT 1 FROM _batch WHERE stream = _stream.no AND seq = ? AND hash <> ?)"
        " AND NOT EXISTS (SELECT 1 FROM _repeat WHERE hash = ?)",
        [(unit, each.seq, each.hash, *_place(each), each.seq, each.hash, each.hash) for each in heads],
    )


def _place(head: Head) -> tuple[str, str, str]:
    return head.stream.origin, head.stream.epoch, head.stream.scope


def void(connection: Connection, peer: UnitPath, epoch: Epoch) -> None:
    """The peer lives its epoch ``epoch``: what it signed in another it may have lost."""
    if execute(connection, "SELECT 1 FROM _receipt WHERE signer = ? AND epoch <> ?", (peer, epoch)).first() is None:
        return
    for sql in (
        "DELETE FROM _receipt WHERE signer = ?",
        "DELETE FROM _receipt_scope WHERE signer = ?",
        "DELETE FROM _peer_head WHERE unit = ?",
    ):
        execute(connection, sql, (peer,))


def unconfirmed(connection: Connection, child: UnitPath, peer: UnitPath, held: Iterable[Head]) -> frozenset[Scope]:
    """The scopes of which this node holds what no receipt of the peer names."""
    rows = execute(
        connection,
        "SELECT origin, epoch, scope, _peer_head.seq FROM _peer_head JOIN _stream ON _stream.no = _peer_head.stream"
        " WHERE unit = ?",
        (peer,),
    )
    theirs = {(origin, epoch, scope): int(seq) for origin, epoch, scope, seq in rows}
    return frozenset(
        head.stream.scope
        for head in held
        if theirs.get((head.stream.origin, head.stream.epoch, head.stream.scope), 0) < head.seq
    )


def last_came_ms(connection: Connection, signer: UnitPath) -> int | None:
    """When the signer's newest receipt came, by the clock here."""
    found = execute(connection, "SELECT max(came_ms) FROM _receipt WHERE signer = ?", (signer,)).scalar()
    return None if found is None else int(found)


def digest_known(connection: Connection, signer: UnitPath, scope: Scope) -> DigestKnown | None:
    """What the signer's newest receipt about a scope says of its digest: comparable at equal applied heads alone."""
    row = execute(
        connection,
        "SELECT body, signature FROM _receipt JOIN _receipt_scope ON receipt = no"
        " WHERE _receipt_scope.signer = ? AND scope = ?",
        (signer, scope),
    ).one_or_none()
    found = () if row is None else parse(Receipt(row[0], row[1])).digests
    return next((each for each in found if each.scope == scope), None)
