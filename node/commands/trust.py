"""``dongbo rotate``, ``recover``, ``revoke``, ``approve``: the keys of a node and of its children."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from node.commands import Progress
from node.commands.exchange import sync
from node.keys import pending
from node.local import Node
from node.renewal import certify_root
from sync_engine.errors import LinkFault, NotCertifiedYet
from sync_engine.names import parent_of


async def rotate(node: Node, _arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """A new key under a new epoch, without a restart: ``certified`` tells whether it is in use already."""
    return await _new_life(node, progress, again=False)


async def recover(node: Node, _arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The same for a node that may have lost history: what is sealed first may have been sealed before."""
    return await _new_life(node, progress, again=True)


async def _new_life(node: Node, progress: Progress, *, again: bool) -> dict[str, Any]:
    if pending(node.home) is None:  # else one waits for its certificate, and would never get it if it were left
        await node.begin_life(node.context.epoch, again=again)
    reason, hint = "", ""
    try:
        if parent_of(node.config.unit) is None:
            await certify_root(node, datetime.now(UTC))
        else:
            await sync(node, {}, progress)
    except (LinkFault, NotCertifiedYet) as fault:  # the next call brings it about
        reason, hint = str(fault), fault.hint
    certified = node.keys.epoch == node.context.epoch
    return {"unit": node.config.unit, "epoch": node.context.epoch, "certified": certified, "why": reason, "hint": hint}
