"""``dongbo status``: this node, its parent, its children, and what needs a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from conflict.values import UnitPath
from node import __version__
from node.commands import Progress
from node.commands.backup import last_backup_at
from node.commands.below import as_told, units_below
from node.commands.by_hand import by_hand
from node.config import Config
from node.keys import pending
from node.local import Node, now_ms
from node.storage import peers, report, review, revocations
from node.storage.alarms import alarms
from node.storage.audit import last_time_of
from node.storage.certifications import waiting_requests
from node.storage.confirmed import confirmed
from node.storage.context import Context
from node.storage.damaged import noted
from node.storage.engine import SQLITE_VERSION, execute
from node.storage.held import held_count
from node.storage.peers import Peer
from node.storage.registries import current_registry
from node.storage.sealing import pending_count
from node.timetable import NextCall, Timetable
from sync_engine.audit import Act
from sync_engine.names import parent_of

STALE_MS = 24 * 3600 * 1000
LATE_FACTOR = 3
"""A child is late when nothing came for three times the interval between calls, stale after a day. For the parent,
whose calls this node makes itself, its timetable says what is late."""


async def status(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """The keys of ``status --json``; ``brief`` leaves the digests out. A scope whose edits cannot be sealed now (a
    program writes without a pause) has none."""
    answer = await node.database.read(_status, node.context, node.config, node.next_call)
    answer["running"] = bool(arguments.get("running"))
    answer["key"] = {
        "epoch": node.keys.epoch,
        "valid_until": round(node.keys.certified.not_after.timestamp() * 1000),
        "new_key_waits": pending(node.home) is not None,
        "why": node.renewal_waits,
    }
    if answer["parent"] is not None:
        refused = await node.database.read(peers.refused_by, answer["parent"]["unit"], node.keys.epoch)
        answer["parent"]["refused"] = refused
    answer["caps"] = node.caps.told()
    for child in answer["children"]:
        child["refused_calls"] = node.caps.refused_calls(child["unit"])
    answer["scopes"] = []
    for scope in await node.database.read(report.scopes_held, node.context):
        if arguments.get("brief"):
            continue
        digest = await node.digest(scope)
        if digest is not None:
            answer["scopes"].append(await node.database.read(report.scope_report, digest))
    answer["alarms"] = [asdict(each) for each in await node.database.read(alarms, node.context)]
    return answer


def _status(connection: Connection, context: Context, config: Config, next_call: NextCall | None) -> dict[str, Any]:
    registry = current_registry(connection, context)
    waiting, waiting_for = report.waiting(connection, context)
    left = report.left_streams(connection)
    held_back = revocations.quarantined(connection)
    parent = _parent(connection, context, config, next_call)
    names = dict(tuple(row) for row in execute(connection, "SELECT unit, name FROM _unit"))
    children = _children(connection, context, config, names)
    units = units_below(connection, context, names, children)
    return {
        "unit": {
            "id": context.unit,
            "name": names.get(context.unit, config.name),
            "level": registry.level_of(context.unit),
        },
        "version": __version__,
        "registry_version": registry.version,
        "newer_registries": report.newer_registries(connection, context),
        "sqlite": SQLITE_VERSION,
        "parent": parent,
        "children": children,
        "units": units,
        "confirmed": as_told(registry, confirmed(connection, context).get(context.unit)),
        "damaged_batches": len(noted(connection)),
        "pending_changes": pending_count(connection),
        "unsent_batches": 0 if parent is None else peers.behind(connection, parent["unit"], context.unit),
        "waiting_batches": waiting,
        "waiting_for": waiting_for,
        "conflicts_open": review.open_count(connection, context),
        "held": held_count(connection),
        "brakes": report.brakes(connection),
        "quarantined": sum(each["batches"] for each in held_back),
        "held_back": held_back,
        "keys": revocations.key_alarms(connection, context),
        "former_machines": revocations.former_machines(connection),
        "counts_with_next_edit": revocations.waits_for_an_edit(connection, context),
        "certificates_waiting": waiting_requests(connection),
        "frozen": [each["stream"] for each in left if each["state"] == "frozen"],
        "left_streams": left,
        "set_aside": report.set_aside(connection, context),
        "records": report.records(connection, context),
        "at_rest": config.at_rest.database,
        "last_backup_at": last_backup_at(connection),
        "new_life_at": last_time_of(connection, Act.NEW_LIFE),
        "recovered_at": last_time_of(connection, Act.RECOVER),
        "schedule": {
            key: getattr(config.schedule, key) for key in ("every_s", "cron", "windows", "blackout", "rate_kbit_s")
        },
    }


def _state(peer: Peer | None, config: Config) -> str:
    state = _known_state(peer)
    if state or peer is None:
        return state or "never"
    silence = now_ms() - (peer.last_ok_ms or 0)
    if silence > STALE_MS:
        return "stale"
    return "late" if not config.schedule.cron and silence > LATE_FACTOR * config.schedule.every_s * 1000 else "ok"


def _known_state(peer: Peer | None) -> str | None:
    """What needs no timetable to be told."""
    if peer is None or (peer.last_ok_ms is None and peer.last_error is None):
        return "never"
    return None if peer.last_error is None else "failing"


def _parents_state(peer: Peer | None, timetable: Timetable, now: datetime, next_call: NextCall | None) -> str:
    """Shut windows make nobody late, nor does a call that is under way: over a slow line it may take hours."""
    state = _known_state(peer)
    if state or peer is None or peer.last_ok_ms is None:
        return state or "never"
    if next_call is not None and next_call.at <= now:
        return "ok"
    late = timetable.is_late(_moment(peer.last_ok_ms), now)
    silent = now_ms() - peer.last_ok_ms > STALE_MS
    if silent and (late or timetable.is_empty):
        return "stale"
    return "late" if late else "ok"


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _parent(
    connection: Connection, context: Context, config: Config, next_call: NextCall | None
) -> dict[str, Any] | None:
    unit = parent_of(config.unit)
    if unit is None:
        return None
    peer = peers.peer_of(connection, unit)
    timetable, now = Timetable(config.schedule), _moment(now_ms())
    stick = by_hand(connection, unit, context.unit, now_ms(), has_line=bool(config.parent_address))
    return {
        "unit": unit,
        "address": config.parent_address,
        "state": stick["state"] or _parents_state(peer, timetable, now, next_call),
        "by_hand": stick,
        "last_sync_at": None if peer is None else peer.last_ok_ms,
        "last_error": None if peer is None else peer.last_error,
        "last_error_at": None if peer is None else peer.last_error_ms,
        "next_sync_at": None if next_call is None else _milliseconds(next_call.at),
        "next_sync_why": None if next_call is None else next_call.why,
        "paused_until": _milliseconds(timetable.paused_until(now)),
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
        stick = by_hand(connection, UnitPath(unit), UnitPath(unit), now_ms())
        state = "revoked" if revocations.is_out(connection, UnitPath(unit)) else stick["state"] or _state(peer, config)
        children.append(
            {
                "unit": unit,
                "name": names.get(unit, unit),
                "level": registry.level_of(unit),
                "state": state,
                "by_hand": stick,
                "last_seen_at": None if peer is None else peer.last_ok_ms,
                "last_error": None if peer is None else peer.last_error,
                "behind_batches": peers.behind(connection, unit, unit),
                "clock_skew_ms": None if peer is None else peer.clock_skew_ms,
            }
        )
    return children
