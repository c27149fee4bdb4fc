"""``dongbo audit``: what was done here and by whom, and the proof that the record is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from node.commands import Progress
from node.local import Node
from node.storage.anchors import others_anchors, own_anchors
from node.storage.audit import proven, recorded
from node.storage.context import Context
from sync_engine.audit import Anchor, Link, head_from_wire
from sync_engine.errors import BadInput

SHOWN = 100


async def audit(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """``records`` (oldest first; the last ``SHOWN``, where neither ``since`` nor ``all`` is said), ``more`` (there are
    older ones), and with ``verify`` the ``proof``. Raises BadInput for a day or a head that is none."""
    since = _since(arguments.get("since"))
    limit = None if since is not None or arguments.get("all") else SHOWN
    if arguments.get("verify"):
        given = _given(node.context, arguments.get("head"))
        return {"proof": await node.database.read(_proof, node.context, given)}
    links = await node.database.read(recorded, since, limit)
    return {
        "unit": node.context.unit,
        "records": [_told(each) for each in links],
        "more": limit is not None and bool(links) and links[0].record.no > 1,
    }


def _since(day: str | None) -> int | None:
    """A day as people write it, 24/11/2026 or 2026-11-24; its beginning here. Raises BadInput."""
    if not day:
        return None
    for form in ("%d/%m/%Y", "%Y-%m-%d"):
        try:
            return round(datetime.strptime(day, form).astimezone().timestamp() * 1000)
        except ValueError:
            continue
    raise BadInput("that is no day", hint="write it such as 24/11/2026")


def _given(context: Context, text: str | None) -> list[Anchor]:
    """A head as the unit above reads it out: NUMBER:HASH, or as many digits of the hash as were read. Raises
    BadInput."""
    if not text:
        return []
    number, _, digits = text.partition(":")
    try:
        found = head_from_wire(int(number).to_bytes(8) + bytes.fromhex(digits))
    except (ValueError, OverflowError):
        found = None
    if found is None:
        raise BadInput("that is no head of an audit record", hint="write it as the unit above shows it: NUMBER:HASH")
    return [Anchor(context.unit, "", *found, signed_ms=context.now_ms())]


def _told(each: Link) -> dict[str, Any]:
    record = each.record
    return {
        "no": record.no,
        "at": record.time_ms,
        "act": record.act,
        "subject": json.loads(record.subject),
        "by": record.by,
        "outcome": record.outcome,
        "hash": each.hash.hex(),
    }


def _proof(connection: Connection, context: Context, given: list[Anchor]) -> dict[str, Any]:
    walk = proven(connection, [*own_anchors(connection, context), *given])
    judged = walk.judged()
    return {
        "ok": not walk.faults and all(verdict in ("holds", "former") for _, verdict in judged),
        "unit": context.unit,
        "records": walk.no,
        "head": f"{walk.no}:{walk.hash.hex()}" if walk.no else None,
        "faults": [{"no": each.no, "kind": each.kind} for each in walk.faults],
        "anchors": [{**_anchor(each), "verdict": verdict} for each, verdict in judged],
        "others": [_anchor(each) for each in others_anchors(connection, context)],
    }


def _anchor(each: Anchor) -> dict[str, Any]:
    head = f"{each.no}:{each.hash.hex()}"
    return {"unit": each.unit, "epoch": each.epoch, "no": each.no, "head": head, "at": each.signed_ms}
