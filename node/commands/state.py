"""``dongbo status``: this node, its parent, its children, and what needs a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from node import __version__
from node.commands import Progress
from node.config import Config
from node.local import Node, now_ms
from node.storage import peers, report
from node.storage.context import Context
from node.storage.engine import SQLITE_VERSION, execute
from node.storage.meta import get_meta
from node.storage.peers import Peer
from node.storage.registries import current_registry
from node.storage.sealing import pending_count
from sync_engine.names import parent_of

STALE_MS = 24 * 3600 * 1000
LATE_FACTOR = 3
"""Late: nothing came for three times the interval between calls; stale: for a day."""


async def status(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """The keys of ``status --json``; ``brief`` leaves the digests out. A scope whose edits cannot be sealed now (the
    node is fenced, or a program writes without a pause) has none."""
    answer = await node.database.read(_status, node.context, node.config)
    answer["running"] = bool(arguments.get("running"))
    answer["scopes"] = []
    for scope in await node.database.read(report.scopes_held, node.context):
        if arguments.get("brief"):
            continue
        digest = await node.digest(scope)
        if digest is not None:
            answer["scopes"].append(await node.database.read(report.scope_report, digest))
    return answer


def _status(connection: Connection, context: Context, config: Config) -> dict[str, Any]:
    registry = current_registry(connection, context)
    waiting, waiting_for = report.waiting(connection, context)
    still_open, held = report.conflict_counts(connection)
    left = report.left_streams(connection)
    parent = _parent(connection, config)
    names = dict(tuple(row) for row in execute(connection, "SELECT unit, name FROM _unit"))
    return {
        "unit": {
            "id": context.unit,
            "name": names.get(context.unit, config.name),
            "level": registry.level_of(context.unit),
        },
        "version": __version__,
        "registry_version": registry.version,
        "sqlite": SQLITE_VERSION,
        "parent": parent,
        "children": _children(connection, context, config, names),
        "pending_changes": pending_count(connection),
        "unsent_batches": 0 if parent is None else peers.behind(connection, parent["unit"], context.unit),
        "waiting_batches": waiting,
        "waiting_for": waiting_for,
        "conflicts_open": still_open,
        "held": held,
        "quarantined": 0,
        "frozen": [each["stream"] for each in left if each["state"] == "frozen"],
        "left_streams": left,
        "set_aside": report.set_aside(connection, context),
        "fenced": get_meta(connection, "fenced"),
        "records": report.records(connection, context),
        "schedule": {"every_s": config.schedule.every_s, "cron": config.schedule.cron},
    }


def _state(peer: Peer | None, config: Config) -> str:
    if peer is None or (peer.last_ok_ms is None and peer.last_error is None):
        return "never"
    if peer.fenced:
        return "fenced"
    if peer.last_error is not None:
        return "failing"
    silence = now_ms() - (peer.last_ok_ms or 0)
    if silence > STALE_MS:
        return "stale"
    return "late" if not config.schedule.cron and silence > LATE_FACTOR * config.schedule.every_s * 1000 else "ok"


def _parent(connection: Connection, config: Config) -> dict[str, Any] | None:
    unit = parent_of(config.unit)
    if unit is None:
        return None
    peer = peers.peer_of(connection, unit)
    return {
        "unit": unit,
        "address": config.parent_address,
        "state": _state(peer, config),
        "last_sync_at": None if peer is None else peer.last_ok_ms,
        "last_error": None if peer is None else peer.last_error,
        "clock_skew_ms": None if peer is None else peer.clock_skew_ms,
    }


def _children(
    connection: Connection, context: Context, config: Config, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    registry = current_registry(connection, context)
    known = set(execute(connection, "SELECT unit FROM _certificate UNION SELECT unit FROM _invitation").scalars())
    children = []
    for unit in sorted(unit for unit in known if parent_of(unit) == context.unit):
        peer = peers.peer_of(connection, unit)
        children.append(
            {
                "unit": unit,
                "name": names.get(unit, unit),
                "level": registry.level_of(unit),
                "state": _state(peer, config),
                "last_seen_at": None if peer is None else peer.last_ok_ms,
                "last_error": None if peer is None else peer.fenced or peer.last_error,
                "behind_batches": peers.behind(connection, unit, unit),
                "clock_skew_ms": None if peer is None else peer.clock_skew_ms,
            }
        )
    return children
