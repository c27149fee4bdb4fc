"""Scopes of which a neighbour holds the very same batches and other registers: what must never be.

Role: compare the digests that are remembered here with those in neighbours' receipts.
Reach: storage, sync_engine.receipts. Source: protocol, "Digest"; decision 0031. Invariant: at unequal applied heads
nothing is compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Scope, UnitPath
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.receipts import digest_known, known_digest
from node.storage.streams import held_heads
from sync_engine.frames import Receipt
from sync_engine.receipts import DigestKnown, parse

TOLD_MAX = 500
"""Digests told in one receipt beside those that it is about."""


@dataclass(frozen=True, slots=True)
class Alarm:
    scope: str
    peer: str


def alarms(connection: Connection, context: Context) -> list[Alarm]:
    """By scope and neighbour: equal applied heads, unequal digests."""
    newest = {
        (signer, scope): no
        for signer, scope, no in execute(connection, "SELECT signer, scope, receipt FROM _receipt_scope")
    }
    found = []
    for no, signer, body, signature in execute(connection, "SELECT no, signer, body, signature FROM _receipt").all():
        for theirs in parse(Receipt(body, signature)).digests:
            if newest.get((signer, theirs.scope)) == no and _agree(connection, context, theirs) is False:
                found.append(Alarm(theirs.scope, signer))
    return sorted(found, key=lambda each: (each.scope, each.peer))


def agrees_with(connection: Connection, context: Context, signer: str, scope: str) -> bool | None:
    """Whether a neighbour's registers of a scope are those that are here; None where that cannot be told: it has said
    nothing, or holds other batches."""
    theirs = digest_known(connection, UnitPath(signer), Scope(scope))
    return None if theirs is None else _agree(connection, context, theirs)


def _agree(connection: Connection, context: Context, theirs: DigestKnown) -> bool | None:
    mine = known_digest(connection, context, theirs.scope)
    if mine is None or tuple(sorted(mine.applied)) != tuple(sorted(theirs.applied)):
        return None
    return mine.sha256 == theirs.sha256


def untold(
    connection: Connection, child: UnitPath, peer: str, told: Mapping[tuple[str, str], bytes], but: Collection[Scope]
) -> dict[Scope, bytes]:
    """Scopes on the link of ``child`` whose digest has been computed since it was told to this peer, each with what it
    was computed from."""
    shared = {stream.scope for stream in held_heads(connection, child)} - set(but)
    rows: Iterable[tuple[str, bytes]] = (
        (scope, state) for scope, state in execute(connection, "SELECT scope, state FROM _digest ORDER BY scope")
    )
    fresh = [(Scope(scope), state) for scope, state in rows if scope in shared and told.get((peer, scope)) != state]
    return dict(fresh[:TOLD_MAX])
