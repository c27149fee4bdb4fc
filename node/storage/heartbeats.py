"""Heartbeats: what this node signs of itself, and what those of others say about the units below.

Role: say which heartbeats are due and sign them; note what others name and what has not come; tell who is withheld.
Reach: storage tables, node.storage.statements. Invariant: how long something is lacking, or a unit silent, is counted
by the clock here, from when a statement came; a signer's clock only puts its own heartbeats in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, UnitPath
from node.storage.audit import audit_head
from node.storage.brake import shippable
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.meta import get_meta, set_meta
from node.storage.statements import KEPT, said_of, say
from node.storage.streams import OPEN, find_stream, streams
from sync_engine.names import is_within, unit_of
from sync_engine.statements import HEARTBEAT, Heartbeat

HOUR_MS = 3_600_000

ROUND_MS_MAX = 5 * 60 * 1000
"""What has changed is signed for after so long at the latest, and no sooner: a busy office seals every few seconds, and
each heartbeat goes to all nodes of its path."""

NAMED_MAX = 50
"""Of one stream: how long its oldest lacking batch has been lacking is what counts."""


@dataclass(frozen=True, slots=True)
class Round:
    """The scopes to sign for, and up to which stored batch that looks."""

    scopes: tuple[Scope, ...]
    upto: int
    at_ms: int


def due(connection: Connection, context: Context) -> Round | None:
    """What this node has to sign for now; None while it has done so of late, or must not sign at all."""
    now = context.now_ms()
    last_ms, last_no = _last_round(connection, context)
    interval = min(ROUND_MS_MAX, _fresh_ms(context))
    if last_ms <= now < last_ms + interval:
        return None
    if path_of(connection, context.unit, context.epoch) is None:
        return None  # a life that nobody can prove yet
    upto = int(execute(connection, "SELECT coalesce(max(no), 0) FROM _batch").scalar_one())
    own = {
        Scope(context.unit),
        *execute(connection, "SELECT DISTINCT scope FROM _stream WHERE origin = ?", (context.unit,)).scalars(),
    }
    changed = set(
        execute(
            connection,
            "SELECT DISTINCT scope FROM _stream WHERE no IN (SELECT DISTINCT stream FROM _batch WHERE no > ?)",
            (last_no,),
        ).scalars()
    )
    fresh = set(
        execute(
            connection,
            "SELECT scope FROM _statement WHERE tag = ? AND unit = ? AND epoch = ? AND came_ms BETWEEN ? AND ?",
            (HEARTBEAT, context.unit, context.epoch, now - _fresh_ms(context) + 1, now),
        ).scalars()
    )
    below = {scope for scope in changed if _confirms(context, scope)}
    return Round(tuple(sorted(Scope(each) for each in (own - fresh) | (own & changed) | below)), upto, now)


def _fresh_ms(context: Context) -> int:
    """How long a heartbeat is good for. A node that calls once a day must sign each time, an early call included."""
    return max(1_000, int(context.heartbeat_hours * HOUR_MS * 5 / 6))


def _last_round(connection: Connection, context: Context) -> tuple[int, int]:
    """When this life last signed, and up to which batch."""
    epoch, at_ms, no = (get_meta(connection, "heartbeat") or " 0 0").split(" ")
    return (int(at_ms), int(no)) if epoch == context.epoch else (0, 0)


def _confirms(context: Context, scope: str) -> bool:
    """Whether this node says of a scope what it holds: to those below who cannot ask it."""
    return unit_of(scope) != context.unit and is_within(unit_of(scope), context.unit)


def end_round(connection: Connection, context: Context, ended: Round) -> None:
    """All of a round is signed."""
    set_meta(connection, "heartbeat", f"{context.epoch} {ended.at_ms} {ended.upto}")
    execute(
        connection,
        "INSERT INTO _heard (unit, first_ms) SELECT DISTINCT unit, CAST(? AS BIGINT) FROM _certificate"
        " WHERE unit NOT IN (SELECT unit FROM _heard)",
        (ended.at_ms,),
    )


def sign(connection: Connection, context: Context, scopes: Sequence[Scope]) -> None:
    """Sign for these scopes, where it says something new or the last time is long ago."""
    for scope in scopes:
        held = {row.stream: row.held for row in streams(connection, scope) if row.held is not None}
        told = sorted(shippable(connection, held).values())
        heads = tuple(each for each in told if each.stream.origin == context.unit)
        holds = tuple(told) if _confirms(context, scope) else ()
        last = said_of(connection, HEARTBEAT, context.unit, context.epoch, scope)
        before = last.said if last is not None and isinstance(last.said, Heartbeat) else None
        now = context.now_ms()
        if before is not None and last is not None and (before.heads, before.holds) == (heads, holds):
            is_fresh = last.came_ms <= now < last.came_ms + _fresh_ms(context)
            if is_fresh or not (heads or scope == Scope(context.unit)):
                continue
        time = now if before is None else max(now, before.time_ms + 1)
        say(
            connection,
            context,
            Heartbeat(context.tree_id, context.unit, context.epoch, scope, heads, holds, time, audit_head(connection)),
        )


# --- what others say ---


def _note_named(connection: Connection, context: Context, said: Heartbeat) -> None:
    """Remember since when a head is known that has not come; forget those that have."""
    for head in said.heads:
        row = find_stream(connection, head.stream)
        held = 0 if row is None or row.held is None else row.held.seq
        key = (head.stream.origin, head.stream.epoch, head.stream.scope)
        execute(connection, "DELETE FROM _named WHERE unit = ? AND epoch = ? AND scope = ? AND seq <= ?", (*key, held))
        if head.seq > held and said.unit != context.unit:
            execute(
                connection,
                "INSERT INTO _named (unit, epoch, scope, seq, since_ms) SELECT ?, ?, ?, ?, ?"
                " WHERE (SELECT count(*) FROM _named WHERE unit = ? AND epoch = ? AND scope = ?) < ?"
                " ON CONFLICT DO NOTHING",
                (*key, head.seq, context.now_ms(), *key, NAMED_MAX),
            )


KEPT.setdefault(HEARTBEAT, []).append(_note_named)


@dataclass(frozen=True, slots=True)
class Lacking:
    """Batches of one stream that their origin has signed for and that have not come, the oldest since ``since_ms``."""

    unit: UnitPath
    scope: Scope
    batches: int
    seq: int
    """The oldest that is named: it ends there."""
    since_ms: int


def lacking(connection: Connection) -> list[Lacking]:
    """What heartbeats name and what is not here; streams that are left here on purpose are told of elsewhere."""
    rows = execute(
        connection,
        "SELECT unit, _named.scope, max(seq) - coalesce(held_seq, 0), min(seq), min(since_ms) FROM _named"
        " LEFT JOIN _stream ON origin = unit AND _stream.epoch = _named.epoch AND _stream.scope = _named.scope"
        " WHERE seq > coalesce(held_seq, 0) AND coalesce(state, ?) = ?"
        " GROUP BY unit, _named.epoch, _named.scope, held_seq ORDER BY min(since_ms), unit, _named.scope",
        (OPEN, OPEN),
    )
    return [
        Lacking(UnitPath(unit), Scope(scope), int(count), int(seq), int(since))
        for unit, scope, count, seq, since in rows
    ]


@dataclass(frozen=True, slots=True)
class Heard:
    """When a unit was last heard of by what it signed, by the clock here: of all its streams, and of the one of which
    that is longest ago. None before the first time; ``known_ms``: since when it is known to have a node."""

    known_ms: int
    latest_ms: int | None = None
    longest_ago_ms: int | None = None


def last_heard(connection: Connection) -> dict[UnitPath, Heard]:
    """By unit with a node. Its newest life alone counts: an older one signs no more."""
    heard = {
        UnitPath(unit): Heard(int(first)) for unit, first in execute(connection, "SELECT unit, first_ms FROM _heard")
    }
    rows = execute(
        connection,
        "SELECT unit, min(came_ms), max(came_ms) FROM _statement JOIN (SELECT unit AS of, epoch AS life FROM _statement"
        " WHERE no IN (SELECT max(no) FROM _statement WHERE tag = ? GROUP BY unit)) AS newest"
        " ON newest.of = unit AND newest.life = epoch"
        " WHERE tag = ? AND (scope = unit OR EXISTS"
        " (SELECT 1 FROM _stream WHERE origin = unit AND _stream.scope = _statement.scope) OR EXISTS"
        " (SELECT 1 FROM _named WHERE _named.unit = _statement.unit AND _named.scope = _statement.scope))"
        " GROUP BY unit",
        (HEARTBEAT, HEARTBEAT),
    )
    for unit, longest_ago, latest in rows:
        known = heard.get(UnitPath(unit))
        heard[UnitPath(unit)] = Heard(
            int(longest_ago) if known is None else known.known_ms, int(latest), int(longest_ago)
        )
    return heard


def holds_of(connection: Connection, unit: UnitPath, scopes: Sequence[Scope]) -> tuple[dict[Scope, list[Head]], int]:
    """What an ancestor's newest life has signed that it holds of these scopes, and when the last of that came."""
    found: dict[Scope, list[Head]] = {}
    last_ms = 0
    epoch = execute(
        connection, "SELECT epoch FROM _statement WHERE tag = ? AND unit = ? ORDER BY no DESC", (HEARTBEAT, unit)
    ).scalar()
    for scope in scopes:
        kept = None if epoch is None else said_of(connection, HEARTBEAT, unit, Epoch(epoch), scope)
        if kept is not None and isinstance(kept.said, Heartbeat):
            found[scope] = list(kept.said.holds)
            last_ms = max(last_ms, kept.came_ms)
    return found, last_ms
