"""``dongbo conflicts``: the conflict journal, what is open in it, and persons' decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unicodedata import normalize

from node.commands import Progress
from node.commands.bulk import editor
from node.local import Node
from node.storage import review
from node.storage.audit import decided, noted
from node.storage.decisions import Choice, NotDecided, resolve
from node.storage.review import Wanted
from sync_engine.audit import Act
from sync_engine.entries import WHY_CHARS_MAX
from sync_engine.merge import TWIN


async def conflicts(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> list[dict[str, Any]]:
    """The journal, newest first, filtered; ``open`` limits it to what waits for a person of this node."""
    wanted = Wanted(
        bool(arguments.get("open")),
        arguments.get("unit"),
        arguments.get("table"),
        arguments.get("field"),
        arguments.get("since"),
        arguments.get("number"),
    )
    return await node.database.read(review.conflicts, node.context, wanted)


async def resolve_conflict(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Keep one of a conflict's writes, set a value, or give who waits another id. Raises NotDecided."""
    choice = Choice(
        int(arguments["number"]),
        arguments.get("keep"),
        arguments.get("value"),
        arguments.get("new_id"),
        editor(arguments.get("by")),
        reason_of(arguments.get("why")),
    )
    if sum(each is not None for each in (choice.keep, choice.value, choice.new_id)) != 1:
        raise NotDecided("say one thing: which write is kept, the right value, or a new id")
    came_to = await node.rewrite(noted(resolve, _act, decided), choice)
    await node.apply_ready()
    return came_to


def _act(came_to: Mapping[str, Any]) -> Act:
    if came_to["field"] == TWIN:
        return Act.RENAME
    return Act.OVERTURN if came_to["overturned"] else Act.RESOLVE


def reason_of(why: str | None) -> str | None:
    """A reason in words. Raises NotDecided where it is too long to travel."""
    text = normalize("NFC", (why or "").replace("\0", " ").strip())
    if len(text) > WHY_CHARS_MAX:
        raise NotDecided(f"a reason has at most {WHY_CHARS_MAX} characters", hint="say it shorter")
    return text or None
