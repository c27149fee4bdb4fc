"""``dongbo run``: one node at work until it is asked to end.

Role: open the home, listen for children, keep the timetable, answer commands.
Reach: everything in node. Invariant: a process that was killed starts again by itself: nothing of importance is in
memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from node import __version__, auditing, platform
from node import config as configs
from node.child_links import ChildLinks
from node.control import Control
from node.digesting import Digester
from node.local import Node
from node.scheduler import Scheduler
from node.storage.engine import SQLITE_VERSION
from sync_engine.names import parent_of

log = structlog.get_logger()

NO_CALLS = "node.toml has no parent_address: this unit lives by stick; edits are sealed, and units below are served"


@contextlib.asynccontextmanager
async def running(home: Path) -> AsyncIterator[Node]:
    """A node with everything that serves it. Raises HomeLocked, NotSetUp, PortTaken and their like; leaves nothing
    behind."""
    configs.load(home)  # says that there is no node before a lock file is made
    with platform.HomeLock(home):
        node = await Node.open(home)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(node.close)
            await auditing.started(node)
            stack.push_async_callback(auditing.stopped, node)
            control = Control(node)
            await control.start()
            stack.push_async_callback(control.stop)
            scheduler = Scheduler(node)
            await scheduler.start()
            stack.push_async_callback(scheduler.stop)
            digester = Digester(node)
            digester.start()
            stack.push_async_callback(digester.stop)
            if node.config.listen:
                links = ChildLinks(node, on_news=scheduler.on_news)
                await links.start()
                stack.push_async_callback(links.stop)
            yield node


async def serve(home: Path) -> None:
    """Run until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    platform.on_stop(asyncio.get_running_loop(), stop.set)
    async with running(home) as node:
        log.info(
            "running",
            unit=node.config.unit,
            listen=node.config.listen or None,
            version=__version__,
            sqlite=SQLITE_VERSION,
            database=str(node.database.path),
        )
        parent = parent_of(node.config.unit)
        if parent is not None and not node.config.parent_address:
            log.info("no calls", peer=parent, reason=NO_CALLS)
        await stop.wait()
        log.info("stopping")
    log.info("stopped")
