"""``dongbo conflicts``: the conflict journal and what is open in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.commands import Progress
from node.local import Node
from node.storage import report


async def conflicts(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> list[dict[str, Any]]:
    """The journal, newest first; ``open`` limits it to what waits for a person."""
    return await node.database.read(report.conflicts, node.context, only_open=bool(arguments.get("open")))
