"""``dongbo history``: the life of one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.commands import Progress
from node.local import Node
from node.storage import history as storage


async def history(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """``events`` of one row, oldest first, from the signed batches; what is pending is sealed before. Raises BadInput
    where the table, the unit or the row is not known."""
    await node.seal()
    unit = arguments.get("unit")
    return await node.database.read(
        storage.history,
        node.context,
        str(arguments["table"]),
        str(arguments["key"]),
        None if unit is None else str(unit),
    )
