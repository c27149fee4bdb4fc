"""When a node calls its parent: by timetable, as soon as something was edited, and again after a failure.

Role: keep what has been, ask the timetable, wait, call, and end a call whose window closes. The last success is in the
database, so a start catches up once.
Reach: node.timetable, node.commands.exchange. Invariant: one call at a time, none while windows are shut; the clock is
read anew at least every TICK_S, because a machine sleeps and its clock is set.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import structlog
from sqlalchemy import Connection

from node.commands.exchange import sync
from node.local import Node
from node.storage import peers
from node.storage.brake import open_brakes
from node.storage.sealing import has_pending
from node.timetable import Calls, Timetable
from sync_engine.errors import LocalFault, ReplicationError, TooOften
from sync_engine.names import parent_of

log = structlog.get_logger()

WATCH_S = 0.5
"""How often the service looks for edits by programs that know nothing of us."""

NEWS_S = 0.1
"""News of several children at once goes up in one call."""

TICK_S = 30.0
AFTER_FAULT_S = 10.0
BACKOFF_FROM_S = 2.0
BACKOFF_SPREAD = 0.25

Summary: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What there may be to carry up: edits not sealed yet, batches that a command or a child's session has sealed
    meanwhile, and what a person has released."""

    pending: bool
    sealed: int
    braked: int


def work_of(connection: Connection, unit: str) -> Work:
    return Work(has_pending(connection), peers.sealed_by(connection, unit), len(open_brakes(connection)))


def utc_now() -> datetime:
    return datetime.now(UTC)


async def call_parent(node: Node) -> Summary:
    """One exchange, as ``dongbo sync`` makes it."""
    return await sync(node, {}, lambda _progress: None)


class Scheduler:
    """Calls the parent of one node when it is time. ``call`` makes one call; ``now``, ``sleep`` and ``chance`` (a
    number in [0, 1)) are the world's."""

    def __init__(
        self,
        node: Node,
        *,
        call: Callable[[Node], Awaitable[Summary]] = call_parent,
        now: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.node = node
        self.parent = parent_of(node.config.unit) if node.config.parent_address else None  # else it lives by stick
        self.failures = 0
        self._call_parent, self._now, self._sleep, self._chance = call, now, sleep, chance
        self._timetable = Timetable(node.config.schedule)
        self._latest = now()
        self._calls = Calls(self._latest)
        self._spread = chance()
        self._calling = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin; a call that was missed while the node was off is made once, soon."""
        if self.parent is not None:
            await self._remember(self.parent)
            self.node.on_in_step = self._in_step
            self._tasks.append(asyncio.create_task(self._keep_time()))
        if self.node.config.schedule.on_change:
            known = await self.node.database.read(work_of, self.node.config.unit)
            self._tasks.append(asyncio.create_task(self._watch(known)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.node.next_call = None

    async def _remember(self, parent: str) -> None:
        """What an earlier run left to do."""
        now = self._now()
        peer = await self.node.database.read(peers.peer_of, parent)
        last = None if peer is None or peer.last_ok_ms is None else datetime.fromtimestamp(peer.last_ok_ms / 1000, UTC)
        if last is not None and last > now:
            last = None  # the clock was wrong then, or is now: a call too many does no harm
        unsent = self.node.config.schedule.on_change and await self._unsent(parent)
        self._calls = Calls(now, last=last, unsent=unsent)

    async def _unsent(self, parent: str) -> bool:
        return await self.node.database.read(peers.behind, parent, self.node.config.unit) > 0

    def on_news(self) -> None:
        """A child brought something: it goes on up at once, unless only the timetable counts."""
        if self.parent is not None and self.node.config.schedule.on_change:
            self._want(self._now() + timedelta(seconds=NEWS_S))

    def _want(self, at: datetime) -> None:
        if self._calls.wanted is None:
            self._change(wanted=at)

    def _in_step(self, seconds: float) -> None:
        """A session of so many seconds ended well, by hand or by timetable: nothing is owed to the parent but what
        came meanwhile."""
        self.failures = 0
        now = self._now()
        wanted = self._calls.wanted
        if wanted is not None and wanted <= now - timedelta(seconds=seconds):
            wanted = None
        last = self._calls.last if self._calling else now
        self._change(last=last, unsent=False, wanted=wanted, retry=None, cut_off=None)

    def _change(self, **changes: Any) -> None:
        self._calls = replace(self._calls, **changes)
        self._changed.set()

    # --- calling ---

    async def _keep_time(self) -> None:
        """Wait for the next call, make it, and so on."""
        while True:
            try:
                await self._wait_or_call()
            except Exception:  # the timetable must outlive what nobody foresaw; the log says what it was
                log.exception("keeping the timetable failed")
                await self._sleep(AFTER_FAULT_S)

    async def _wait_or_call(self) -> None:
        self._changed.clear()
        now = self._now()
        if now < self._latest:  # the clock was put back
            self._calls = self._calls.not_after(now)
        self._latest = now
        plan = self.node.next_call = self._timetable.next_call(self._calls, now, self._spread)
        if plan is not None and plan.at <= now:
            await self._call()
            self._spread = self._chance()
        else:
            wait = TICK_S if plan is None else min((plan.at - now).total_seconds(), TICK_S)
            await self._first(asyncio.create_task(self._changed.wait()), wait)

    async def _call(self) -> None:
        """One call, to its end or to that of the window; a failure is told once in words and tried again, later each
        time."""
        began = self._now()
        self._change(last=began, unsent=False, wanted=None, cut_off=None)  # what comes from now on is for the next
        self._calling = True
        try:
            summary = await self._until_shut(asyncio.ensure_future(self._call_parent(self.node)))
        except LocalFault as fault:
            self._failed()
            log.error("sync stopped", reason=str(fault), hint=fault.hint, failures=self.failures)
        except ReplicationError as fault:
            wait = self._failed(fault.retry_s if isinstance(fault, TooOften) else 0.0)
            log.warning(
                "sync failed", reason=str(fault), hint=fault.hint, failures=self.failures, retry_s=round(wait, 1)
            )
        except Exception:  # calls must go on whatever nobody foresaw; the log says what it was
            self._failed()
            log.exception("calling the parent failed")
        else:
            if summary is None:
                self._change(cut_off=self._now(), retry=None)
                log.info("sync paused", reason="its window has closed; it goes on when the next one opens")
            elif summary["sent_batches"] or summary["received_batches"]:
                log.info("sync", **{key: summary[key] for key in ("sent_batches", "received_batches", "seconds")})
        finally:
            self._calling = False

    def _failed(self, at_least: float = 0.0) -> float:
        """How long to wait now; ``at_least`` is what the parent asked for."""
        self.failures += 1
        doubled: float = BACKOFF_FROM_S * 2.0 ** min(self.failures - 1, 30)
        wait = min(doubled, self.node.config.schedule.backoff_max_s)
        wait *= 1 - BACKOFF_SPREAD + 2 * BACKOFF_SPREAD * self._chance()
        wait = max(wait, at_least)
        self._change(retry=self._now() + timedelta(seconds=wait))
        return wait

    async def _until_shut(self, calling: asyncio.Future[Summary]) -> Summary | None:
        """What the call came to; None if its window closed: it was ended then, and what was acknowledged is safe."""
        try:
            while not calling.done():
                now = self._now()
                span = self._timetable.open_until(now)
                if span is None:
                    return None
                wait = TICK_S if span.ends is None else min((span.ends - now).total_seconds(), TICK_S)
                await self._first(calling, wait, keep=True)
            return await calling
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)

    async def _first(self, awaited: asyncio.Future[Any], seconds: float, *, keep: bool = False) -> None:
        """Wait for something, but no longer than that; ``keep``: it goes on if it is not done."""
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait({awaited, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            if not keep:
                awaited.cancel()

    # --- edits ---

    async def _watch(self, known: Work) -> None:
        """See edits as they come: a call carries them up at once, and seals them as it goes. Where none may be made
        now, they are sealed all the same."""
        while True:
            await self._sleep(WATCH_S)
            try:
                known = await self._look(known)
            except ReplicationError as fault:
                log.error("edits could not be sealed", reason=str(fault), hint=fault.hint)
                await self._sleep(AFTER_FAULT_S)
            except Exception:  # the watch must outlive what nobody foresaw; the log says what it was
                log.exception("watching for edits failed")
                await self._sleep(AFTER_FAULT_S)

    async def _look(self, known: Work) -> Work:
        """What there is now; something pending, sealed or released since ``known`` is carried up."""
        work = await self.node.database.read(work_of, self.node.config.unit)
        if self.parent is None:
            if work.pending:
                await self.node.seal()
            return work
        if work.pending:
            now = self._now()
            self._want(now)
            if self.failures or self._timetable.open_until(now) is None:
                await self.node.seal()
        elif self._calling:
            return known  # the call seals, and has not told yet what has gone up
        elif work != known and await self._unsent(self.parent):
            self._want(self._now())
        return work
