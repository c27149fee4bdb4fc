"""``dongbo quarantine``: values that are held back from the tables, and persons' decisions about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.commands import Progress
from node.commands.bulk import editor
from node.commands.journal import reason_of
from node.local import Node
from node.storage import review
from node.storage.audit import decided, noted
from node.storage.decisions import refuse, release
from sync_engine.audit import Act


async def quarantine(node: Node, _arguments: Mapping[str, Any], _progress: Progress) -> list[dict[str, Any]]:
    """All values that are held here, with their reasons."""
    return await node.database.read(review.quarantine, node.context)


async def release_held(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Show a held value after all, everywhere. Raises NotDecided."""
    by, why = editor(arguments.get("by")), reason_of(arguments.get("why"))
    return await node.rewrite(noted(release, Act.RELEASE_HELD, decided), int(arguments["number"]), by, why)


async def refuse_held(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Let what is shown stand, everywhere. Raises NotDecided."""
    by, why = editor(arguments.get("by")), reason_of(arguments.get("why"))
    return await node.rewrite(noted(refuse, Act.REFUSE_HELD, decided), int(arguments["number"]), by, why)
