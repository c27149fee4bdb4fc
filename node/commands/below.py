"""The units of the subtree as ``status`` tells of them: who has been heard of, and what a relay keeps back.

Role: judge by what units sign and by what comes, with the clock here.
Reach: node.storage. A unit is ``stale`` where it has signed for batches that have not come, or where nothing that it
signs comes while its parent is in touch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from conflict.values import UnitPath
from node.storage.confirmed import Confirmed, confirmed
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.heartbeats import HOUR_MS, Heard, Lacking, holds_of, lacking, last_heard
from node.storage.registries import current_registry
from sync_engine.names import is_within, parent_of
from sync_engine.registry import Registry

SILENT_FACTOR = 1.25
"""A unit that calls once a day is a little late now and then."""


def units_below(
    connection: Connection, context: Context, names: Mapping[str, str], children: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """All units of the subtree that have a node. ``children`` are told of as their own links know them, and marked
    where what they sign says otherwise."""
    registry, now = current_registry(connection, context), context.now_ms()
    seen = {each["unit"]: each for each in children}
    heard, missing, proofs = last_heard(connection), _missing(connection, context), confirmed(connection, context)
    with_node = execute(connection, "SELECT DISTINCT unit FROM _certificate").scalars()
    found = []
    for unit in sorted(map(UnitPath, with_node), key=lambda each: each.split(".")[::-1]):
        if unit == context.unit or not is_within(unit, context.unit):
            continue
        lacks = missing.get(unit, [])
        overdue = [each for each in lacks if now - each.since_ms > context.withheld_hours * HOUR_MS]
        of_unit = heard.get(unit, Heard(now))
        silent_ms = of_unit.known_ms if of_unit.longest_ago_ms is None else of_unit.longest_ago_ms
        is_silent = unit not in seen and _is_silent(context, unit, silent_ms, heard, seen)
        state = seen[unit]["state"] if unit in seen else "never" if of_unit.latest_ms is None else "ok"
        if (overdue or is_silent) and state in ("ok", "late", "never"):
            state = "stale"
        if unit in seen:
            seen[unit]["state"] = state
        relay = _relay(connection, context, overdue[0]) if overdue else parent_of(unit)
        found.append(
            {
                "unit": unit,
                "name": names.get(unit, unit),
                "level": registry.level_of(unit),
                "state": state,
                "relay": relay,
                "relay_name": names.get(str(relay), relay),
                "heard_at": of_unit.latest_ms,
                "missing_batches": sum(each.batches for each in lacks),
                "missing_since": min((each.since_ms for each in lacks), default=None),
                "withheld": bool(overdue),
                "silent_since": silent_ms if is_silent and not overdue else None,
                "confirmed": as_told(registry, proofs.get(unit)),
            }
        )
    return found


def as_told(registry: Registry, both: tuple[Confirmed, Confirmed] | None) -> dict[str, dict[str, Any] | None]:
    """Keys of ``status --json``; at the root there is nobody to confirm."""
    if both is None:
        return {"parent": None, "centre": None}
    return {
        key: {
            "unit": each.unit,
            "level": registry.level_of(each.unit),
            "at": each.at_ms,
            "batches": each.batches,
            "of": each.of,
        }
        for key, each in zip(("parent", "centre"), both, strict=True)
    }


def _missing(connection: Connection, context: Context) -> dict[UnitPath, list[Lacking]]:
    found: dict[UnitPath, list[Lacking]] = {}
    for each in lacking(connection):
        if is_within(each.unit, context.unit):
            found.setdefault(each.unit, []).append(each)
    return found


def _is_silent(
    context: Context, unit: UnitPath, last_ms: int, heard: Mapping[UnitPath, Heard], seen: Mapping[str, Any]
) -> bool:
    """Whether nothing that the unit signs comes any more while its parent is in touch: else the parent is what to
    look at."""
    now, patience = context.now_ms(), context.withheld_hours * HOUR_MS * SILENT_FACTOR
    relay = parent_of(unit)
    if now - last_ms <= patience or relay is None:
        return False
    signs = [seen[relay]["last_seen_at"]] if relay in seen else []
    signs += [heard[relay].latest_ms] if relay in heard else []
    return any(at is not None and now - at <= patience for at in signs)


def _relay(connection: Connection, context: Context, lacks: Lacking) -> UnitPath:
    """Who holds what has not come, by its own signature: the nearest of those between; else the unit's parent."""
    between: list[UnitPath] = []
    step = parent_of(lacks.unit)
    while step is not None and step != context.unit:
        between.insert(0, step)
        step = parent_of(step)
    for each in between:
        holds, _at = holds_of(connection, each, [lacks.scope])
        if any(head.stream.origin == lacks.unit and head.seq >= lacks.seq for head in holds.get(lacks.scope, ())):
            return each
    return parent_of(lacks.unit) or lacks.unit
