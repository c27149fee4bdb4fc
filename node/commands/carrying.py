"""``dongbo export`` and ``dongbo import``: what is carried by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from conflict.values import UnitPath
from node import auditing, carrying, envelope
from node.bundle_file import PART_BYTES, Bundle, candidates, explain, place_of, prove
from node.commands import Progress
from node.commands.exchange import turn_of
from node.desk import FileDesk
from node.local import Node
from node.storage.certificates import certified_children
from node.storage.named import unit_named
from node.summary import Summary
from sync_engine.audit import BEGUN, Act
from sync_engine.bundle import NotForHere, check_age
from sync_engine.errors import BadInput, LocalFault, RemoteFault, ReplicationError
from sync_engine.names import parent_of

TELL_S = 0.2


async def export(node: Node, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The keys of ``export --json``. Raises BadInput, DiskFull or NoCarryKeyOf."""
    began = time.monotonic()
    to = await node.database.read(_neighbour, node.context.unit, str(arguments["to"]))
    desk = FileDesk(place_of(Path(arguments["out"]), int(arguments.get("part_bytes") or PART_BYTES)))
    async with turn_of(node):
        await auditing.record(node, Act.EXPORT, {"unit": to}, outcome=BEGUN)
        done = await carrying.export(node, to, desk, told(progress))
        await auditing.record(node, Act.EXPORT, {"unit": to, "number": done.number})
    return {**exported(done), "seconds": round(time.monotonic() - began, 3)}


async def import_(node: Node, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The keys of ``import --json``. Every file is proven before anything of one is taken: a file that is named alone
    and cannot be taken is refused, others are passed over and told. Raises BadInput, or what is wrong with a file."""
    began = time.monotonic()
    given = [Path(each) for each in arguments["files"]]
    bundles, left = await _proven(node, given, expired=bool(arguments.get("expired")))
    answers = []
    async with turn_of(node):
        for sender in sorted({each.header.sender for each in bundles}):
            some = [each for each in bundles if each.header.sender == sender]
            out = Path(arguments["out"]) if arguments.get("out") else some[0].path.parent
            await auditing.record(node, Act.IMPORT, {"unit": sender}, outcome=BEGUN)
            answers.append(imported(await carrying.take_in(node, some, FileDesk(place_of(out)), told(progress))))
            await auditing.record(node, Act.IMPORT, {"unit": sender})
    return {
        "ok": not any(each["refused"] for each in answers),
        "from": answers,
        "left": left,
        "seconds": round(time.monotonic() - began, 3),
    }


def _neighbour(connection: Connection, unit: UnitPath, said: str) -> UnitPath:
    """A unit by its full name, or by its first label. Raises BadInput."""
    parent = parent_of(unit)
    return UnitPath(unit_named([*certified_children(connection, unit), *([parent] if parent else [])], said))


async def _proven(node: Node, given: Sequence[Path], *, expired: bool) -> tuple[list[Bundle], list[str]]:
    """The bundles among some files and folders, and a line about each file that is none for here. Raises what is wrong
    with a file that was named alone."""
    keys = await asyncio.to_thread(envelope.load_all, node.home)
    found: list[Bundle] = []
    left: list[str] = []
    for path in candidates(given):
        try:
            bundle = await asyncio.to_thread(prove, path, keys, node.context.unit, node.context.tree_id)
            if not expired:
                check_age(bundle.header, node.context.now_ms())
            found.append(bundle)
        except (RemoteFault, BadInput, OSError) as fault:
            if given == [path]:
                if isinstance(fault, ReplicationError):
                    raise
                raise LocalFault(explain(path, fault), hint="is the stick still in?") from fault
            if path in given or not isinstance(fault, NotForHere):
                left.append(explain(path, fault))
    if not found:
        raise BadInput(
            "; ".join(left) or "there is no bundle for this unit there",
            hint="nothing was taken; name the file, or the folder, that was carried here",
        )
    return found, left


def told(progress: Progress) -> Callable[[Summary], None]:
    """What a session has come to, told not too often."""
    last = [0.0]

    def tell(summary: Summary) -> None:
        if time.monotonic() - last[0] > TELL_S:
            last[0] = time.monotonic()
            progress({"sent_batches": summary.sent_batches, "received_batches": summary.received_batches})

    return tell


def exported(done: carrying.Exported) -> dict[str, Any]:
    """A bundle that was written, as JSON tells it."""
    return {
        "unit": done.unit,
        "files": [str(path) for path in done.files],
        "bytes": done.size,
        "batches": done.batches,
        "number": done.number,
    }


def imported(done: carrying.Imported) -> dict[str, Any]:
    """What came of one neighbour's bundles, as JSON tells it."""
    summary = asdict(done.summary)
    return {
        "unit": done.sender,
        **{key: summary[key] for key in ("received_batches", "received_bytes", "applied_rows", "conflicts", "refused")},
        "is_news": done.is_news,
        "missing": done.missing,
        "answer": exported(done.answer),
    }
