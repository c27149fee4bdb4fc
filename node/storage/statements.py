"""Statements as they are kept: heartbeats, handovers, revocations, each as the bytes that its signer signed.

Role: verify and keep; say what travels on a link; sign this node's own.
Reach: storage tables, sync_engine.statements. Invariant: only what its signer's certificate proves is kept; of
heartbeats the newest per (unit, epoch, scope), of all else everything.

``keep`` and ``keep_all`` take what came, ``say`` signs and keeps what this node says; both end in ``KEPT``, where other
modules put what a statement of one kind changes, in the same transaction. ``said`` gives back what is kept of a kind.
``digests_on_link`` is what hello and heads carry, ``for_link`` what is sent where it differs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection

from conflict.values import Epoch, Scope, UnitPath
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.streams import on_link
from sync_engine.certificates import Certified, verify_node_path
from sync_engine.errors import BadCertificate, BadName, RemoteFault
from sync_engine.frames import Statement
from sync_engine.names import is_shared
from sync_engine.statements import (
    Handover,
    Heartbeat,
    Revocation,
    Said,
    body_of,
    check_admissible,
    check_signed,
    digest_of_said,
    id_of,
    parse,
    scope_of,
    signer_of,
    tag_of,
)

log = structlog.get_logger()

KEPT_AT_ONCE = 25
"""So many are proven and kept in one transaction: some milliseconds each on a small PC."""

SAID_MAX = 20_000
"""Of one signer and one kind: its scopes by its epochs. Names cost it nothing, room here does; and signs of life must
leave room for the word that a key has been stolen."""

HANDOVERS_MAX = 2_000
"""Of one unit to keys of its own: one a life. Those that its parent signs for it have room of their own."""

KEPT: dict[str, list[Callable[[Connection, Context, Any], None]]] = {}
"""By tag, what else happens when a statement that was not known is kept, in its transaction. Whoever raises a
RemoteFault there keeps it out."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One statement that is kept here, with the time at which it came, by the clock here."""

    statement: Statement
    said: Said
    came_ms: int


def keep(connection: Connection, context: Context, statement: Statement) -> Said | None:
    """Verify and keep a statement; None where it was known, or is older than what is known. Raises a RemoteFault."""
    return _keep(connection, context, statement, {})


def keep_all(connection: Connection, context: Context, statements: Sequence[Statement]) -> list[Said]:
    """Keep what can be proven of what a peer passed on, and give back what was new; the rest is logged and left."""
    proven: dict[tuple[UnitPath, Epoch], Certified] = {}
    new = []
    for statement in statements:
        try:
            with connection.begin_nested():
                said = _keep(connection, context, statement, proven)
        except (RemoteFault, BadName) as fault:
            log.warning("statement refused", tag=statement.tag[:20], reason=str(fault))
        else:
            new += [] if said is None else [said]
    return new


def say(connection: Connection, context: Context, said: Said) -> Statement:
    """Sign and keep what this node says; it spreads with the next sessions."""
    body = body_of(said)
    statement = Statement(tag_of(said), body, context.sign(tag_of(said), body))
    if not _is_known(connection, statement, said):
        _insert(connection, context, statement, said)
    return statement


def _keep(
    connection: Connection, context: Context, statement: Statement, proven: dict[tuple[UnitPath, Epoch], Certified]
) -> Said | None:
    said = parse(statement)
    if _is_known(connection, statement, said):
        return None
    check_admissible(said, context.tree_id, context.unit)
    signer = signer_of(said)
    if signer not in proven:
        path = path_of(connection, *signer)
        if path is None:
            raise BadCertificate(f"no certificate of {signer[0]} has come for what it says")
        proven[signer] = verify_node_path(path, context.tree_id)
    check_signed(statement, said, proven[signer])
    if isinstance(said, Revocation) and path_of(connection, said.unit, said.epoch) is None:
        raise BadCertificate(f"no certificate of {said.unit} has come for the key that is ended")
    of_itself = isinstance(said, Handover) and said.unit == signer[0]
    sql = "SELECT count(*) FROM _statement WHERE signer = ? AND tag = ?" + (" AND unit = signer" if of_itself else "")
    count = execute(connection, sql, (signer[0], statement.tag)).scalar_one()
    if count >= (HANDOVERS_MAX if of_itself else SAID_MAX):
        raise RemoteFault(f"{signer[0]} says more than is kept of one unit")
    _insert(connection, context, statement, said)
    return said


def _is_known(connection: Connection, statement: Statement, said: Said) -> bool:
    """Whether it is here, or one that counts more."""
    known = execute(connection, "SELECT 1 FROM _statement WHERE id = ?", (id_of(statement),)).scalar()
    if known is not None or not isinstance(said, Heartbeat):
        return known is not None
    newest = execute(
        connection,
        "SELECT time, id FROM _statement WHERE tag = ? AND unit = ? AND epoch = ? AND scope = ?",
        (statement.tag, said.unit, said.epoch, said.scope),
    ).one_or_none()
    return newest is not None and (int(newest[0]), bytes(newest[1])) > (said.time_ms, id_of(statement))


def _insert(connection: Connection, context: Context, statement: Statement, said: Said) -> None:
    scope = scope_of(said)
    if isinstance(said, Heartbeat):
        execute(
            connection,
            "DELETE FROM _statement WHERE tag = ? AND unit = ? AND epoch = ? AND scope = ?",
            (statement.tag, said.unit, said.epoch, scope),
        )
    execute(
        connection,
        "INSERT INTO _statement (id, tag, unit, epoch, scope, signer, time, came_ms, body, signature)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(id_of(statement), statement.tag, said.unit, said.epoch, scope, signer_of(said)[0]),
            *(said.time_ms, context.now_ms(), statement.body, statement.signature),
        ),
    )
    for each in KEPT.get(statement.tag, ()):
        each(connection, context, said)


def said(connection: Connection, tag: str, unit: str | None = None) -> list[Kept]:
    """What is kept of one kind, of one unit or of all, in the order in which it came."""
    where, values = ("", ()) if unit is None else (" AND unit = ?", (unit,))
    rows = execute(
        connection,
        f"SELECT tag, body, signature, came_ms FROM _statement WHERE tag = ?{where} ORDER BY no",
        (tag, *values),
    )
    return [_kept(*row) for row in rows]


def said_of(connection: Connection, tag: str, unit: UnitPath, epoch: Epoch, scope: Scope) -> Kept | None:
    """The newest of one kind that a life of a unit has said of a scope."""
    row = execute(
        connection,
        "SELECT tag, body, signature, came_ms FROM _statement"
        " WHERE tag = ? AND unit = ? AND epoch = ? AND scope = ? ORDER BY no DESC",
        (tag, unit, epoch, scope),
    ).first()
    return None if row is None else _kept(*row)


def _kept(tag: str, body: bytes, signature: bytes, came_ms: int) -> Kept:
    statement = Statement(tag, body, signature)
    return Kept(statement, parse(statement), came_ms)


def digests_on_link(connection: Connection, child: UnitPath) -> dict[Scope, bytes]:
    """By scope that travels on the link of ``child`` a digest of what is known said of it."""
    where, values = on_link(child)
    ids: dict[Scope, list[bytes]] = {}
    for scope, each in execute(connection, f"SELECT scope, id FROM _statement WHERE {where}", values):
        if is_shared(scope, child):
            ids.setdefault(Scope(scope), []).append(bytes(each))
    return {scope: digest_of_said(each) for scope, each in ids.items()}


def for_link(connection: Connection, child: UnitPath, scopes: Collection[Scope] | None = None) -> list[Kept]:
    """What travels on the link of ``child``, of all shared scopes or of these: what ends a key before the rest."""
    where, values = on_link(child)
    rows = execute(
        connection,
        "SELECT scope, tag, body, signature, came_ms FROM _statement"
        f" WHERE {where} ORDER BY CASE tag WHEN 'heartbeat' THEN 1 ELSE 0 END, no",
        values,
    )
    return [_kept(*row) for scope, *row in rows if is_shared(scope, child) and (scopes is None or scope in scopes)]
