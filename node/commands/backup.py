"""``dongbo backup``: the home in one sealed file, while the node works."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from node import __version__, auditing, backup
from node.commands import Progress
from node.local import Node, now_ms
from node.sealed_file import FileKey
from node.storage.meta import get_meta, set_meta
from sync_engine.audit import BEGUN, Act

LAST = "last_backup"
"""In ``_meta``: when the last backup was made from here, in milliseconds."""

TELL_S = 0.2

_turns: dict[int, asyncio.Lock] = {}


async def backup_home(node: Node, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The keys of ``backup --json``. The file's key is an argument, made of a passphrase that stays where it was
    typed. Raises BadInput or DiskFull."""
    began, moment = time.monotonic(), now_ms()
    file = Path(arguments["file"])
    key = FileKey(bytes.fromhex(arguments["salt"]), bytes.fromhex(arguments["key"]))
    said = {
        "made_at": moment,
        "made_by": __version__,
        "unit": node.keys.unit,
        "name": node.config.name,
        "epoch": node.context.epoch,
    }
    async with _turns.setdefault(id(node), asyncio.Lock()):
        await auditing.record(node, Act.BACKUP, {"file": file.name}, outcome=BEGUN)
        size = await _beside(node.home, file, key, said, progress)
        await node.database.write(set_meta, LAST, str(moment))
        await auditing.record(node, Act.BACKUP, {"file": file.name})
    return {
        "unit": node.keys.unit,
        "file": str(file),
        "bytes": size,
        "at": moment,
        "holds_ca": (node.home / "keys" / "ca.key").exists() or not (node.home / "keys" / "ca.pem").exists(),
        "seconds": round(time.monotonic() - began, 3),
    }


class _GivenUp(Exception):
    """Whoever asked for the backup has gone away."""


async def _beside(home: Path, file: Path, key: FileKey, said: Mapping[str, Any], progress: Progress) -> int:
    """The work in a thread of its own, which ends soon after it was given up."""
    loop, stop, told = asyncio.get_running_loop(), threading.Event(), [0.0]

    def tell(done: int, of: int) -> None:
        if stop.is_set():
            raise _GivenUp
        if time.monotonic() - told[0] >= TELL_S:
            told[0] = time.monotonic()
            loop.call_soon_threadsafe(progress, {"done": done, "of": of})

    work = loop.run_in_executor(None, backup.make, home, file, key, said, tell)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({work})
        work.exception()  # it has been told, and this is how it says so
        raise


def last_backup_at(connection: Connection) -> int | None:
    """When the last one was made, if there ever was one."""
    found = get_meta(connection, LAST)
    return None if found is None else int(found)
