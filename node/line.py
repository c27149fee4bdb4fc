"""Who is served now, of the children that call at once: a line, first come, first served.

Role: let a few sessions work side by side while the others wait with their connection open; bound what all of them
hold unpacked. Which numbers and why: docs/decisions/0022.
Reach: asyncio. Invariant: at most ``AT_ONCE`` sessions have a turn; none keeps it from others while it only waits for
its peer, or after its share; however many children call, at most ``PROVEN_AT_ONCE`` batches are unpacked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

AT_ONCE = 8
"""Enough that the processor has work while peers far away answer; each more makes everybody's session longer."""

SILENT_S = 2.0
"""A peer that says nothing for so long, while nothing of what it sent is still to be stored, waits without a turn:
half-open and slow lines hold up nobody."""

SHARE_S = 2.0
"""After so long a large backlog lets the others go first, and joins the line again."""

PROVEN_AT_ONCE = 4
"""Batches proven and not stored yet, of all sessions together: unpacked, one takes some 9 MB, and one session alone
has use for four (two in its queue, one before it, one being stored)."""


T = TypeVar("T")


class Line:
    """The line of one server."""

    def __init__(self, at_once: int = AT_ONCE, proven_at_once: int = PROVEN_AT_ONCE) -> None:
        self.turns = asyncio.Semaphore(at_once)
        self.proven = asyncio.Semaphore(proven_at_once)
        self.waiting = 0


class Turn:
    """What one session may do now: its turns, one after another, and the batches it holds unpacked."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._since: float | None = None
        self._proven = 0

    async def take(self) -> None:
        """Wait for a turn; at once for who has it."""
        if self._since is None:
            self._line.waiting += 1
            try:
                await self._line.turns.acquire()
            finally:
                self._line.waiting -= 1
            self._since = self._now()

    def give(self) -> None:
        """Let the next one go on; nothing for who has no turn."""
        if self._since is not None:
            self._since = None
            self._line.turns.release()

    async def to_hear(
        self, receive: Callable[[], Awaitable[T | None]], stored: Callable[[], Awaitable[object]]
    ) -> T | None:
        """What ``receive`` brings, in a turn: given to others meanwhile where it is over or the peer is slow, and never
        before all that came from the peer is ``stored``, for which it may wait. None is the end, which needs no turn:
        the peer waits for us to end as well."""
        if self._since is not None and self._line.waiting and self._now() - self._since > SHARE_S:
            await stored()
            self.give()
        lending = asyncio.create_task(self._lend(stored))
        try:
            heard = await receive()
        finally:
            lending.cancel()
        if heard is not None:
            await self.take()
        return heard

    async def _lend(self, stored: Callable[[], Awaitable[object]]) -> None:
        await stored()
        await asyncio.sleep(SILENT_S)
        self.give()

    # --- unpacked batches ---

    async def unpack(self) -> None:
        """Wait until one more batch may be unpacked."""
        await self._line.proven.acquire()
        self._proven += 1

    def put_away(self) -> None:
        """One batch is not held unpacked any more."""
        self._proven -= 1
        self._line.proven.release()

    def put_all_away(self) -> None:
        while self._proven:
            self.put_away()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
