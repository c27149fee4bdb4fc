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
from node.bundle_file import PART_BYTES, Bundle, GivenUp, candidates, explain, place_of, prove, shown
from node.commands import Progress
from node.commands.exchange import turn_of
from node.desk import FileDesk
from node.envelope import KeyPair
from node.local import Node
from node.messages import say
from node.storage.certificates import certified_children
from node.storage.named import unit_named
from node.summary import Summary
from sync_engine.audit import BEGUN, Act
from sync_engine.bundle import NotForHere, check_age
from sync_engine.errors import BadInput, LocalFault, RemoteFault
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
    bundles, left = await _proven(node, given, progress, expired=bool(arguments.get("expired")))
    answers = []
    senders = sorted({each.header.sender for each in bundles})
    if len(senders) > 1 and arguments.get("out") and place_of(Path(arguments["out"])).stem:
        raise BadInput(f"{len(senders)} answers do not go into one file", hint="name a folder with --out")
    async with turn_of(node):
        for sender in senders:
            some = [each for each in bundles if each.header.sender == sender]
            out = Path(arguments["out"]) if arguments.get("out") else some[0].path.parent
            try:
                answers.append(await _take(node, some, out, progress))
            except RemoteFault as fault:
                fault.hint = fault.hint or f"nothing more of it is taken; tell the operator of {sender}"
                if len(senders) == 1:
                    raise
                left.append(f"{sender}: {fault}")
    return {
        "ok": len(answers) == len(senders) and not any(each["refused"] for each in answers),
        "from": answers,
        "left": left,
        "seconds": round(time.monotonic() - began, 3),
    }


async def _take(node: Node, bundles: Sequence[Bundle], out: Path, progress: Progress) -> dict[str, Any]:
    """What one neighbour has sent."""
    sender = bundles[0].header.sender
    await auditing.record(node, Act.IMPORT, {"unit": sender}, outcome=BEGUN)
    done = await carrying.take_in(node, bundles, FileDesk(place_of(out)), told(progress))
    await auditing.record(node, Act.IMPORT, {"unit": sender})
    return imported(done)


def _neighbour(connection: Connection, unit: UnitPath, said: str) -> UnitPath:
    """A unit by its full name, or by its first label. Raises NotANeighbour or BadInput."""
    parent = parent_of(unit)
    near = [*certified_children(connection, unit), *([parent] if parent else [])]
    if not any(said.casefold() in (each, each.partition(".")[0]) for each in near):
        raise carrying.NotANeighbour(f"{said} is neither the parent nor a child of {unit}")
    return UnitPath(unit_named(near, said))


async def _proven(
    node: Node, given: Sequence[Path], progress: Progress, *, expired: bool
) -> tuple[list[Bundle], list[str]]:
    """The bundles among some files and folders, and a line about each file that is none for here. Raises what is wrong
    with a file that was named alone."""
    keys = await asyncio.to_thread(envelope.load_all, node.home)
    found: list[Bundle] = []
    left: list[str] = []
    others = 0
    for path in candidates(given):
        try:
            bundle = await _prove(node, path, keys, progress)
            if not expired:
                check_age(bundle.header, node.context.now_ms())
            found.append(bundle)
        except (RemoteFault, LocalFault) as fault:
            if given == [path]:
                raise
            if path in given or not isinstance(fault, NotForHere):
                left.append(explain(path, fault))
            else:
                others += 1
    if left and not found:
        raise BadInput("; ".join(left), hint=say("import.all_left.hint"))
    if not found:
        words = say("import.none.others" if others else "import.none", unit=node.context.unit, others=others)
        raise BadInput(words, hint=say("import.none.hint", unit=node.context.unit))
    return found, left


async def _prove(node: Node, path: Path, keys: Sequence[KeyPair], progress: Progress) -> Bundle:
    """In a thread, which tells how far it is, and ends when this is given up."""
    loop, last, is_wanted = asyncio.get_running_loop(), time.monotonic(), True

    def tell(done: int) -> None:
        nonlocal last
        if not is_wanted:
            raise GivenUp
        if time.monotonic() - last > TELL_S:
            last = time.monotonic()
            loop.call_soon_threadsafe(progress, {"file": shown(path), "read_bytes": done})

    try:
        return await asyncio.to_thread(prove, path, keys, node.context.unit, node.context.tree_id, tell)
    finally:
        is_wanted = False


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
