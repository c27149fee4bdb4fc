"""``dongbo sync``: one exchange with the parent now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from node.commands import Progress
from node.local import Node
from node.parent_link import sync_with_parent
from node.storage.brake import open_brakes
from node.summary import Summary
from sync_engine.names import parent_of

_turns: dict[int, asyncio.Lock] = {}


def turn_of(node: Node) -> asyncio.Lock:
    """One session with the parent at a time: a call by hand waits for the scheduled one, and finds its work done."""
    return _turns.setdefault(id(node), asyncio.Lock())


async def sync(node: Node, _arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The keys of ``sync --json``. Raises a typed error; what was acknowledged until then is safe."""
    began = time.monotonic()
    told = [0.0]

    def tell(summary: Summary) -> None:
        if time.monotonic() - told[0] > 0.2:
            told[0] = time.monotonic()
            progress({"sent_batches": summary.sent_batches, "received_batches": summary.received_batches})

    async with turn_of(node):
        summary = await sync_with_parent(node, tell)
    answer = asdict(summary)
    refused = answer.pop("refused")
    return {
        "ok": not refused,
        **answer,
        "peer": str(parent_of(node.config.unit)),
        "seconds": round(time.monotonic() - began, 3),
        "refused": refused,
        "brakes": len(await node.database.read(open_brakes)),
        "error": "; ".join(refused) or None,
    }
