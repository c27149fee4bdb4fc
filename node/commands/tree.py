"""``dongbo invite`` and ``dongbo units``: the tree as seen from here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from node.commands import Progress
from node.commands.trust import keys_of
from node.enrolment import invite as make_invitation
from node.invitation import encode
from node.local import Node
from node.storage import report
from sync_engine.errors import BadInput

TTL_HOURS_MAX = 24 * 366
"""A year: an invitation that lies about for longer is forgotten, not used."""


async def invite(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """A one-time invitation: ``token``, for whom, and until when."""
    hours = float(arguments["ttl_hours"])
    if not 0 < hours <= TTL_HOURS_MAX:
        raise BadInput(f"an invitation is good for more than 0 and at most {TTL_HOURS_MAX} hours")
    ttl = timedelta(hours=hours)
    recover = bool(arguments.get("recover"))
    made = await make_invitation(
        node, keys_of(node, arguments), str(arguments["label"]), str(arguments["name"] or ""), ttl, recover=recover
    )
    return {
        "token": encode(made),
        "unit": made.unit,
        "name": made.name,
        "address": made.address,
        "expires": made.expires.isoformat(),
        "recover": recover,
    }


async def units(node: Node, _arguments: Mapping[str, Any], _progress: Progress) -> list[dict[str, Any]]:
    """Every unit this node knows of."""
    return await node.database.read(report.units, node.context)
