"""``dongbo approve FILE``: a request of a unit that has no line."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node import auditing, granting
from node.commands import Progress
from node.commands.carrying import exported, told
from node.commands.exchange import turn_of
from node.commands.trust import keys_of
from node.enrolment import may_certify_by_hand
from node.local import Node
from sync_engine.audit import Act
from sync_engine.enrolling import HandRequest, NoRequest
from sync_engine.words import words_of


async def look_at_request(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Who asks, and in which words its fingerprint is read out. Raises what ``approve_request`` would, as far as it can
    be known before."""
    asked, recover = _asked(node, arguments), bool(arguments.get("recover"))
    name = await node.database.read(may_certify_by_hand, node.context, asked, _name(arguments), recover=recover)
    return {"unit": asked.unit, "name": name, "recover": recover, "words": words_of(asked.digest)}


async def approve_request(node: Node, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Certify a request whose words were compared, and write the grant: ``file`` and its words."""
    asked, out = _asked(node, arguments), Path(arguments["out"])
    async with turn_of(node):
        grant, bundle = await granting.approve(
            node,
            keys_of(node, arguments),
            asked,
            _name(arguments),
            out,
            told(progress),
            recover=bool(arguments.get("recover")),
        )
        await auditing.record(node, Act.EXPORT, {"unit": asked.unit, "number": bundle.number})
    return {
        **exported(bundle),
        "files": [str(out)],
        "epoch": asked.epoch,
        "tree_words": words_of(node.context.tree_id),
        "words": words_of(grant.digest),
        "is_whole": len(bundle.files) == 1,
    }


def _asked(node: Node, arguments: Mapping[str, Any]) -> HandRequest:
    try:
        data = base64.b64decode(str(arguments["request"]), validate=True)
    except binascii.Error as error:
        raise NoRequest("this request is damaged") from error
    return granting.prove(data, node.context.unit)


def _name(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("name") or "")
