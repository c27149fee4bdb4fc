"""When a node calls its parent: by interval or cron, as soon as something was edited, and again after a failure.

Role: timetable, jitter, back-off. Schedules live in memory; the last success is in the database, so a start catches
up once.
Reach: apscheduler 3, node.parent_link.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from node.commands.exchange import sync
from node.local import Node, now_ms
from node.storage.peers import peer_of
from node.storage.sealing import has_pending
from sync_engine.errors import LocalFault, ReplicationError
from sync_engine.names import parent_of

log = structlog.get_logger()

WATCH_S = 0.5
"""How often the service looks for edits by programs that know nothing of us."""

NEWS_S = 0.1
"""News of several children at once goes up in one call."""

AFTER_FAULT_S = 10.0
BACKOFF_FROM_S = 2.0


class Scheduler:
    """Calls the parent of one node when it is time."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.parent = parent_of(node.config.unit)
        self.failures = 0
        self._jobs = AsyncIOScheduler(job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None})
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; a call that was missed while the node was off is made once, soon."""
        schedule = self.node.config.schedule
        if self.parent is not None and (schedule.cron or schedule.every_s > 0):
            trigger = (
                CronTrigger.from_crontab(schedule.cron, timezone=schedule.time_zone)
                if schedule.cron
                else IntervalTrigger(
                    seconds=schedule.every_s, jitter=min(schedule.jitter_s, schedule.every_s / 2) or None
                )
            )
            self._jobs.add_job(self._job, trigger, id="timetable")
            if await self._is_overdue():
                self._soon(random.uniform(0, min(schedule.jitter_s, 5)))  # noqa: S311 - spreads load, hides nothing
        self._jobs.start()
        if schedule.on_change:
            self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        self._jobs.shutdown(wait=False)
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def _is_overdue(self) -> bool:
        assert self.parent is not None  # noqa: S101 - start() asked
        peer = await self.node.database.read(peer_of, self.parent)
        schedule = self.node.config.schedule
        last = peer.last_ok_ms if peer is not None else None
        if last is None:
            return True
        if schedule.cron:
            trigger = CronTrigger.from_crontab(schedule.cron, timezone=schedule.time_zone)
            before = datetime.fromtimestamp(last / 1000).astimezone()
            missed = trigger.get_next_fire_time(None, before)
            return missed is not None and missed < datetime.now().astimezone()
        return now_ms() - last > schedule.every_s * 1000

    def on_news(self) -> None:
        """A child brought something: it goes on up at once, unless the parent is out of reach or only the
        timetable counts."""
        if self.parent is not None and self.node.config.schedule.on_change and not self.failures:
            self._soon(NEWS_S)

    def _soon(self, seconds: float) -> None:
        at = datetime.now().astimezone() + timedelta(seconds=seconds)
        self._jobs.add_job(self._job, DateTrigger(at), id="soon", replace_existing=True)

    async def _job(self) -> None:
        """One call by timetable; a stop that falls into it is no fault, which APScheduler would log as one."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._call()

    async def _call(self) -> None:
        """One call; a failure is told once in words and tried again, later each time."""
        try:
            summary = await sync(self.node, {}, lambda _progress: None)
        except LocalFault as fault:
            log.error("sync stopped", reason=str(fault), hint=fault.hint)
        except ReplicationError as fault:
            self.failures += 1
            wait = min(BACKOFF_FROM_S * 2 ** (self.failures - 1), self.node.config.schedule.backoff_max_s)
            wait *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, hides nothing
            log.warning(
                "sync failed", reason=str(fault), hint=fault.hint, failures=self.failures, retry_s=round(wait, 1)
            )
            self._soon(wait)
        else:
            self.failures = 0
            if summary["sent_batches"] or summary["received_batches"]:
                log.info("sync", **{key: summary[key] for key in ("sent_batches", "received_batches", "seconds")})

    async def _watch(self) -> None:
        """Seal edits as they come, and carry them up at once unless the parent is out of reach."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if not await self.node.database.read(has_pending):
                    continue
                if self.parent is None or self.failures:
                    await self.node.seal()
                else:
                    await self._call()
            except ReplicationError as fault:
                log.error("edits could not be sealed", reason=str(fault), hint=fault.hint)
                await asyncio.sleep(AFTER_FAULT_S)
            except Exception:  # the watch must outlive what nobody foresaw; the log says what it was
                log.exception("watching for edits failed")
                await asyncio.sleep(AFTER_FAULT_S)
