"""Who lives by stick, as ``status`` and ``units`` tell it.

Role: when a bundle was written last and one came last, what no receipt names yet, and how a neighbour stands by that.
Reach: node.storage.carried, node.storage.peers. A neighbour lives by stick while what was carried is newer than the
last session with it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from conflict.values import UnitPath
from node.storage import peers
from node.storage.carried import Carried, carried_of

DAY_MS = 24 * 3600 * 1000
LATE_MS, STALE_MS = 14 * DAY_MS, 31 * DAY_MS
"""Somebody walks once a week: a journey that fell out is no fault, a month without one is."""


def by_hand(
    connection: Connection, unit: UnitPath, child: UnitPath, now_ms: int, *, has_line: bool = True
) -> dict[str, Any]:
    """What is to be told of one neighbour: ``unconfirmed_batches`` is what would have to be carried again if the stick
    that is on its way were lost. Nothing is lost with it."""
    known = carried_of(connection, unit)
    lives_by_stick = known.by_hand or not has_line
    return {
        "lives_by_stick": lives_by_stick,
        "written_at": known.out_ms,
        "came_at": known.in_ms,
        "unconfirmed_batches": peers.behind(connection, unit, child),
        "state": _state(known, now_ms) if lives_by_stick else None,
    }


def _state(known: Carried, now_ms: int) -> str:
    if known.in_ms is None:
        return "never"
    silence = now_ms - known.in_ms
    return "stale" if silence > STALE_MS else "late" if silence > LATE_MS else "ok"
