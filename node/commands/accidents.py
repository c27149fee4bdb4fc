"""``dongbo release`` and ``dongbo undo``: what becomes of an accident that the brake holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.commands import Progress
from node.local import Node
from node.storage.audit import noted
from node.storage.brake import Brake
from node.storage.undo import ROWS_AT_ONCE, change_back, find_brakes, settle, wanted_rows
from sync_engine.audit import Act


async def _brakes(node: Node, arguments: Mapping[str, Any]) -> list[Brake]:
    number = arguments.get("number")
    await node.seal()  # what is pending may be the rest of the accident
    return await node.database.read(
        find_brakes, None if number is None else int(number), all_of_them=bool(arguments.get("all"))
    )


async def release(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Let what the brake holds go out as it is. Raises NoBrake."""
    brakes = await _brakes(node, arguments)
    for brake in brakes:
        await node.rewrite(noted(settle, Act.RELEASE, {"number": brake.no}), brake, undone=False)
    return {"scopes": [brake.stream.scope for brake in brakes]}


async def undo(node: Node, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Change back what still shows the accident, then let the stream go on: others never see the accident's values.
    ``by`` is the person who does it. Raises NoBrake; a run that was cut off is run again."""
    brakes, by = await _brakes(node, arguments), arguments.get("by")
    rows = [await _undo(node, brake, None if by is None else str(by), progress) for brake in brakes]
    return {"scopes": [brake.stream.scope for brake in brakes], "rows": sum(rows)}


async def _undo(node: Node, brake: Brake, by: str | None, progress: Progress) -> int:
    rows = 0
    for table in sorted({name for name, _register in brake.registers}):
        wanted = await node.database.read(wanted_rows, node.context, brake, table)
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            rows += await node.rewrite(change_back, brake, table, wanted[start : start + ROWS_AT_ONCE], by)
            progress({"rows": rows, "of": len(wanted)})
    await node.rewrite(noted(settle, Act.UNDO, {"number": brake.no, "rows": rows}), brake, undone=True)
    return rows
