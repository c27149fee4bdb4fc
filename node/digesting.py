"""Computes digests off the hot path, while the service has nothing better to do, and raises the alarm.

Role: a round every few minutes: scopes that have changed since, one after another; then neighbours' against ours.
Reach: node.local, node.storage. Invariant: no session waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from node.local import Node
from node.storage.alarms import Alarm, alarms
from node.storage.digests import changed_scopes
from sync_engine.errors import LocalFault

log = structlog.get_logger()

ROUND_S = 300.0
PAUSE_S = 0.05
"""Between two scopes: others come first."""


class Digester:
    """One node's, while its service runs."""

    def __init__(self, node: Node, round_s: float = ROUND_S) -> None:
        self.node, self.round_s = node, round_s
        self._told: set[Alarm] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self.round_s)
            try:
                await self.round()
            except LocalFault as fault:  # a full disk, a locked database: the next round may have more luck
                log.warning("digests not computed", reason=str(fault))

    async def round(self) -> None:
        for scope in await self.node.database.read(changed_scopes, self.node.context):
            await self.node.digest(scope)
            await asyncio.sleep(PAUSE_S)
        found = set(await self.node.database.read(alarms, self.node.context))
        for alarm in sorted(found - self._told, key=lambda each: (each.scope, each.peer)):
            log.error("digests differ", scope=alarm.scope, peer=alarm.peer, hint="run 'dongbo verify' on both nodes")
        self._told = found
