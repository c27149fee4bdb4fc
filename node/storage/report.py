"""What ``status`` and its relatives tell, read from the database.

Role: counts, heads, waiting, conflicts; no colours, and no words but what a batch waits for.
Reach: storage tables, node.messages.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from conflict.values import UnitPath, level_of
from node.messages import say
from node.storage.batches import WAITING
from node.storage.brake import UNDOING, open_brakes
from node.storage.context import Context
from node.storage.damaged import waiting_at
from node.storage.digests import ScopeDigest
from node.storage.engine import execute
from node.storage.inbox import missing_causes
from node.storage.registries import current_registry, standing_of, waiting_versions
from node.storage.revocations import cause, is_out
from node.storage.streams import FROZEN, OPEN, REFUSED, StreamRow, streams
from sync_engine.merge import ALIVE
from sync_engine.names import is_held_by, unit_of


def records(connection: Connection, context: Context) -> dict[str, int]:
    """Rows shown, by table of the registry."""
    registry = current_registry(connection, context)
    return {name: int(execute(connection, f'SELECT count(*) FROM "{name}"').scalar_one()) for name in registry.tables}


def scopes_held(connection: Connection, context: Context) -> list[str]:
    """Scopes of which this node has merged something."""
    return sorted({row.stream.scope for row in streams(connection) if row.applied is not None})


def scope_report(connection: Connection, digest: ScopeDigest) -> dict[str, Any]:
    """One scope of ``status --json``."""
    heads = {
        f"{row.stream.origin}@{row.stream.epoch}": {"seq": row.applied.seq, "hash": row.applied.hash.hex()}
        for row in streams(connection, digest.scope)
        if row.applied is not None
    }
    return {
        "scope": digest.scope,
        "unit": unit_of(digest.scope),
        "rows": digest.rows,
        "digest": digest.digest.hex(),
        "digests": {name: value.hex() for name, value in sorted(digest.columns.items())},
        "heads": heads,
    }


def waiting(connection: Connection, context: Context) -> tuple[int, list[dict[str, Any]]]:
    """How many batches wait, and for what: the first waiting batch of each stream names it."""
    count = execute(connection, "SELECT count(*) FROM _batch WHERE state = ?", (WAITING,)).scalar_one()
    reasons = []
    for row in streams(connection) if count else ():
        held = 0 if row.held is None else row.held.seq
        applied = 0 if row.applied is None else row.applied.seq
        if held > applied and row.state == OPEN:
            reasons.append({"stream": str(row.stream), "seq": applied + 1, "for": _causes(connection, context, row)})
    return int(count), reasons


def _causes(connection: Connection, context: Context, row: StreamRow) -> list[str]:
    found = waiting_at(connection, row.no, 1 if row.applied is None else row.applied.seq + 1)
    if found is None:
        return []
    if found[2] is None:
        return [say("damaged.cause")]
    causes = [f"{head.stream} {head.seq}" for head in missing_causes(connection, found[2])]
    if (waiting := standing_of(connection, context, found[2])) is not None:
        causes.append(say(f"registry.cause.{waiting.standing}", version=waiting.version))
    if (key := cause(connection, row, found[2].head)) is not None:
        causes.append(key)
    return causes


def newer_registries(connection: Connection, context: Context) -> list[dict[str, Any]]:
    """The registry versions that have come and are not in force here, why, and how many batches wait for each."""
    found = execute(connection, "SELECT registry, count(*) FROM _batch WHERE state = ? GROUP BY registry", (WAITING,))
    batches = {int(version): int(count) for version, count in found}
    return [
        {
            "version": each.version,
            "standing": each.standing.value,
            "reason": each.reason,
            "batches": batches.get(each.version, 0),
        }
        for each in waiting_versions(connection, context)
    ]


def left_streams(connection: Connection) -> list[dict[str, str]]:
    """Streams of which nothing more is taken: forks (frozen) and broken rules (refused)."""
    return [
        {
            "stream": str(row.stream),
            "unit": row.stream.origin,
            "scope": row.stream.scope,
            "state": row.state,
            "reason": row.reason or "",
        }
        for row in streams(connection)
        if row.state in (FROZEN, REFUSED)
    ]


def brakes(connection: Connection) -> list[dict[str, Any]]:
    """Accidents that the brake holds, oldest first, with what they did."""
    return [
        {
            "number": brake.no,
            "scope": brake.stream.scope,
            "unit": unit_of(brake.stream.scope),
            "at": brake.noted_ms,
            "undoing": brake.state == UNDOING,
            "changes": [
                {
                    "table": each.table,
                    "field": None if each.register == ALIVE else each.register,
                    "rows": each.rows,
                    "of": each.of,
                }
                for each in brake.changes
            ],
        }
        for brake in open_brakes(connection)
    ]


def set_aside(connection: Connection, context: Context) -> list[dict[str, Any]]:
    """Rows that may not travel and stay local, with the reason."""
    registry = current_registry(connection, context)
    rows = execute(connection, "SELECT unit, tbl, id, reason FROM _set_aside ORDER BY unit, tbl, id").all()
    return [
        {"unit": unit, "table": registry.by_number[tbl].name, "key": key, "reason": reason}
        for unit, tbl, key, reason in rows
    ]


def units(connection: Connection, context: Context) -> list[dict[str, Any]]:
    """Every unit this node knows of: names, levels, and whether it has a node."""
    registry = current_registry(connection, context)
    names = dict(tuple(row) for row in execute(connection, "SELECT unit, name FROM _unit"))
    with_node = set(execute(connection, "SELECT DISTINCT unit FROM _certificate").scalars())
    open_ones = "SELECT unit, max(expires_ms) FROM _invitation WHERE request IS NULL GROUP BY unit"
    invited = dict(tuple(row) for row in execute(connection, open_ones))
    known = {context.unit, *names, *with_node}
    return [
        {
            "unit": unit,
            "name": names.get(unit, unit),
            "level": registry.level_name(level_of(unit)),
            "has_node": unit in with_node,
            "invited_until_ms": None if unit in with_node else invited.get(unit),
            "within": is_held_by(unit, context.unit),
            "revoked": is_out(connection, UnitPath(unit)),
        }
        for unit in sorted(known, key=lambda each: each.split(".")[::-1])
    ]
