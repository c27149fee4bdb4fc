"""A node whose calls are counted instead of made, and a clock that the test turns.

``Station(World("2027-03-01 12:00"), schedule)`` is a node at noon; ``at_work(station)`` runs its scheduler.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from conflict.values import UnitPath
from node.config import Config, Schedule
from node.local import Node
from node.scheduler import Scheduler, Work, work_of
from node.storage import peers
from node.storage.peers import Peer
from node.timetable import NextCall
from tests.test_timetable import at

NOTHING = {"sent_batches": 0, "received_batches": 0, "seconds": 0.0}


class World:
    """Time that passes when the test says so."""

    def __init__(self, begins: str) -> None:
        self.now = at(begins)
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._number = 0

    async def sleep(self, seconds: float) -> None:
        self._number += 1
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + timedelta(seconds=seconds), self._number, future))
        await future

    async def until(self, moment: str | datetime) -> None:
        """Let time pass, waking each sleeper at its moment."""
        end = at(moment) if isinstance(moment, str) else moment
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            wakes, _number, future = heapq.heappop(self._sleepers)
            if not future.done():
                self.now = max(self.now, wakes)
                future.set_result(None)
                if not self._sleepers or self._sleepers[0][0] > wakes:
                    await self.settle()
        self.now = end
        await self.settle()

    async def passes(self, seconds: float) -> None:
        await self.until(self.now + timedelta(seconds=seconds))

    async def settle(self) -> None:
        for _ in range(25):
            await asyncio.sleep(0)

    def set_clock(self, moment: str) -> None:
        """The clock is set; who sleeps goes on sleeping as long as was left."""
        shift = at(moment) - self.now
        self.now += shift
        self._sleepers = [(wakes + shift, number, future) for wakes, number, future in self._sleepers]


@dataclass
class Station:
    """A node that counts its calls instead of making them."""

    world: World
    schedule: Schedule
    unit: str = "hue.vn"
    last: str | None = None
    behind: int = 0
    pending: bool = False
    call_s: float = 0
    fault: BaseException | None = None
    calls: list[datetime] = field(default_factory=list)
    ended: list[tuple[datetime, str]] = field(default_factory=list)
    sealed: int = 0
    braked: int = 0
    chance: Callable[[], float] = lambda: 0.5

    def __post_init__(self) -> None:
        self.config = Config(UnitPath(self.unit), "Huế", "vn:1", schedule=self.schedule)
        self.database = self
        self.next_call: NextCall | None = None
        self.on_in_step: Callable[[float], None] = lambda _seconds: None
        self.scheduler = Scheduler(
            cast(Node, self), call=self._call, now=lambda: self.world.now, sleep=self.world.sleep, chance=self.chance
        )

    async def read(self, work: Callable[..., Any], *_arguments: Any) -> Any:
        last_ms = None if self.last is None else round(at(self.last).timestamp() * 1000)
        return {
            peers.peer_of: Peer("vn", last_ms, None, None, None),
            peers.behind: self.behind,
            work_of: Work(self.pending, self.sealed, self.braked),
        }[work]

    async def seal(self) -> int:
        self.sealed += self.pending
        self.pending = False
        return 1

    async def _call(self, _node: Node) -> dict[str, Any]:
        self.calls.append(self.world.now)
        try:
            if self.call_s:
                await self.world.sleep(self.call_s)
            if self.fault is not None:
                raise self.fault
        except BaseException as fault:
            self.ended.append((self.world.now, type(fault).__name__))
            raise
        self.ended.append((self.world.now, "well"))
        self.pending = False
        self.on_in_step(self.call_s)
        return NOTHING

    def sync_by_hand(self) -> None:
        """What ``dongbo sync`` comes to when it ends well."""
        self.pending = False
        self.on_in_step(0.0)

    @property
    def called(self) -> list[str]:
        return [each.strftime("%d %H:%M:%S") for each in self.calls]

    @property
    def planned(self) -> tuple[str, str] | None:
        return self.next_call and (
            self.next_call.at.astimezone(at("2027-03-01").tzinfo).strftime("%d %H:%M:%S"),
            self.next_call.why,
        )


@asynccontextmanager
async def at_work(station: Station) -> AsyncIterator[Station]:
    await station.scheduler.start()
    try:
        yield station
    finally:
        await station.scheduler.stop()
