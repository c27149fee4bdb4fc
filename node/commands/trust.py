"""``dongbo rotate``, ``recover``, ``revoke``, ``approve``: the keys of a node and of its children."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conflict.values import UnitPath
from node.commands import Progress
from node.commands.exchange import sync
from node.enrolment import certify_waiting
from node.keys import KeyStore, pending
from node.local import Node
from node.parent_link import LivesByStick
from node.renewal import certify_root
from node.storage import revocations
from node.storage.audit import note, noted
from node.storage.certifications import waiting
from sync_engine.audit import Act
from sync_engine.errors import LinkFault, NotCertifiedYet
from sync_engine.names import check_unit, parent_of


async def rotate(node: Node, _arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """A new key under a new epoch, without a restart: ``certified`` tells whether it is in use already."""
    return await _new_life(node, progress, again=False)


async def recover(node: Node, _arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The same for a node that may have lost history: what is sealed first may have been sealed before."""
    done = await _new_life(node, progress, again=True)
    await node.database.write(note, node.context, Act.RECOVER, {"unit": done["unit"], "epoch": done["epoch"]})
    return done


async def _new_life(node: Node, progress: Progress, *, again: bool) -> dict[str, Any]:
    if pending(node.home) is None:  # else one waits for its certificate, and would never get it if it were left
        await node.begin_life(node.context.epoch, again=again)
    reason = ""
    try:
        if parent_of(node.config.unit) is None:
            await certify_root(node, datetime.now(UTC))
        else:
            await sync(node, {}, progress)
    except (LinkFault, NotCertifiedYet, LivesByStick) as fault:  # the next call brings it about
        reason = f"{fault}; {fault.hint}"
    certified = pending(node.home) is None
    return {
        "unit": node.config.unit,
        "epoch": node.context.epoch,
        "certified": certified,
        "why": reason or node.renewal_waits,
    }


def keys_of(node: Node, arguments: Mapping[str, Any]) -> KeyStore:
    """The node's keys, with the CA key that was named for this one command, if one was. Raises KeyFault."""
    named = arguments.get("ca_key")
    return KeyStore.load(node.home, Path(named)) if named else node.keys


async def revoke(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """End a child's keys; running sessions end within seconds."""
    unit, reason = _child_of(node.config.unit, str(arguments["unit"])), str(arguments["reason"])
    ended = await node.database.write(
        noted(revocations.revoke, Act.REVOKE, {"unit": unit}),
        node.context,
        node.keys,
        unit,
        reason,
        keep_present=bool(arguments.get("old_keys")),
    )
    return {"unit": unit, "epochs": ended, "reason": reason}


def _child_of(parent: UnitPath, said: str) -> UnitPath:
    """A unit by its full path or, as 'invite' takes it, by its label. Raises BadName."""
    return check_unit(said if "." in said or said == parent else f"{said}.{parent}")


async def approve(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Certify what waits for the CA key. Raises CaKeyAway where it is not here either."""
    keys = keys_of(node, arguments)
    done = []
    for asked in await node.database.read(waiting):
        if await node.database.write(certify_waiting, node.context, keys, asked):
            done.append({"unit": asked.unit, "epoch": asked.epoch})
    if await certify_root(node, datetime.now(UTC), keys):
        done.append({"unit": node.keys.unit, "epoch": node.keys.epoch})
    return {"certified": done}
