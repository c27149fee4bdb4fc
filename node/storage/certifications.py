"""What this unit's CA was asked to certify for its children, and what it answered.

Role: record requests, so that the same one gets the same answer and one without the CA key waits.
Reach: storage tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from conflict.values import Epoch, UnitPath
from node.storage.context import Context
from node.storage.engine import execute


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that waits for the CA key: of a child under its key (``from_epoch``), or with an invitation (SHA-256 of
    its certificate)."""

    unit: UnitPath
    epoch: Epoch
    from_epoch: Epoch | None
    invitation: bytes | None
    request: bytes


def note_asked(connection: Connection, context: Context, asked: Asked, response: bytes | None = None) -> None:
    """Record what a child asked, and what it was given; without a response it waits, in the place of what that key had
    asked before."""
    execute(
        connection,
        "DELETE FROM _certification WHERE unit = ? AND from_epoch = ? AND response IS NULL",
        (asked.unit, asked.from_epoch),
    )
    execute(
        connection,
        "INSERT INTO _certification (unit, epoch, from_epoch, invitation, request, response, asked_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (unit, epoch) DO UPDATE SET from_epoch = excluded.from_epoch,"
        " invitation = excluded.invitation, request = excluded.request, response = excluded.response,"
        " asked_ms = excluded.asked_ms",
        (asked.unit, asked.epoch, asked.from_epoch, asked.invitation, asked.request, response, context.now_ms()),
    )


def answer_to(connection: Connection, unit: UnitPath, epoch: Epoch) -> bytes | None:
    """What was answered for one epoch of a child, last."""
    found = execute(connection, "SELECT response FROM _certification WHERE unit = ? AND epoch = ?", (unit, epoch))
    response = found.scalar()
    return None if response is None else bytes(response)


def last_answer(connection: Connection, unit: UnitPath) -> tuple[Epoch, bytes] | None:
    """What a child was given last for a key of its own, and for which epoch."""
    row = execute(
        connection,
        "SELECT epoch, response FROM _certification WHERE unit = ? AND from_epoch IS NOT NULL AND response IS NOT NULL"
        " ORDER BY asked_ms DESC, epoch LIMIT 1",
        (unit,),
    ).one_or_none()
    return None if row is None else (Epoch(row[0]), bytes(row[1]))


def forget_asked(connection: Connection, asked: Asked) -> None:
    execute(connection, "DELETE FROM _certification WHERE unit = ? AND epoch = ?", (asked.unit, asked.epoch))


def waiting(connection: Connection) -> list[Asked]:
    """What waits for the CA key."""
    rows = execute(
        connection,
        "SELECT unit, epoch, from_epoch, invitation, request FROM _certification WHERE response IS NULL"
        " ORDER BY asked_ms",
    )
    return [
        Asked(UnitPath(unit), Epoch(epoch), None if before is None else Epoch(before), invitation, bytes(request))
        for unit, epoch, before, invitation, request in rows
    ]


def waiting_requests(connection: Connection) -> list[dict[str, Any]]:
    """The same, as status tells it."""
    return [{"unit": each.unit, "epoch": each.epoch} for each in waiting(connection)]
