"""What one peer may ask of this node: calls, work that brings nothing, and time.

Role: count for each child, make it wait where it asks for more, refuse it where waiting does not help; say so.
Reach: asyncio, errors. Source: decision 0029. Invariant: every limit is one child's own: whoever is over it waits by
itself, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sync_engine.errors import TooOften
from sync_engine.names import parent_of

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

CALLS_A_SECOND, CALLS_AT_FIRST = 2.0, 30.0
"""A child whose clerks write without a pause calls as soon as its last call has ended, a few times a second. Above this
each call waits; who has several waiting is refused."""

CALL_WAITS_S = 5.0
"""So long a call is kept waiting for its turn among this child's own; longer, and it is told when to call again."""

REFUSED_AFTER_S = 1.0
"""A refusal takes its time: it costs this node more than whoever asked for it."""

CALLS_AT_ONCE = 8
"""One session, one that it takes the place of, and what a monitor asks; of each child."""

CALLS_HELD = 64
"""So many are kept waiting for their refusal; more are refused at once."""

ENROLS_A_SECOND, ENROLS_AT_FIRST = 0.1, 5.0
"""Keys are certified rarely, and certifying is dear."""

WASTE_MS_A_SECOND, WASTE_MS_MAX = 100.0, 3_000.0
"""Work that brought nothing: a tenth of the time. What may come at once covers what an honest session has
under way, and the streams that a parent refuses an honest relay."""

NOTES_A_SECOND, NOTES_AT_FIRST = 1 / 300, 20.0
"""Refusals in the audit chain, which is kept for ever: some 50 KB a day of one peer at most."""

LOGGED_EVERY_S = 60.0

FILES_KEPT = 256
"""Open files for the database, the command line and the calls that this node makes itself."""

CONNECTIONS_MAX = 16_384


class Bucket:
    """So much at first, then so much a second."""

    def __init__(self, a_second: float, most: float, now: float) -> None:
        self.a_second, self.most = a_second, most
        self._level, self._at = most, now

    def level(self, now: float) -> float:
        self._level = min(self.most, self._level + max(0.0, now - self._at) * self.a_second)
        self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        """Take, if need be on credit; a negative amount is given back."""
        self._level = min(self.most, self.level(now) - amount)

    def wait_s(self, now: float) -> float:
        """Until what was taken on credit is paid."""
        return max(0.0, -self.level(now) / self.a_second)


@dataclass
class PeerCaps:
    """One child's account."""

    unit: str
    calls: Bucket
    enrols: Bucket
    waste: Bucket
    notes: Bucket
    at_once: int = 0
    refused_calls: int = 0
    replaced_calls: int = 0
    cut_sessions: int = 0
    slowed_s: float = 0.0
    logged_at: float | None = None
    last_ms: int | None = None
    last_why: str | None = None

    def told(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "refused_calls": self.refused_calls,
            "replaced_calls": self.replaced_calls,
            "cut_sessions": self.cut_sessions,
            "slowed_s": round(self.slowed_s, 1),
            "last_at": self.last_ms,
            "last_why": self.last_why,
        }

    def note(self, why: str) -> None:
        self.last_ms, self.last_why = time.time_ns() // 1_000_000, why


STRANGERS = "others"
"""One account for all who have a certificate of the tree and no business here: names below a unit cost it nothing."""

INVITED = "{unit} (by invitation)"


class Caps:
    """The accounts of one node, since it was started."""

    def __init__(self, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self.clock, self.sleep = clock, sleep
        self._peers: dict[str, PeerCaps] = {}

    def of(self, unit: str) -> PeerCaps:
        found = self._peers.get(unit)
        if found is None:
            now = self.clock()
            found = self._peers[unit] = PeerCaps(
                unit,
                Bucket(CALLS_A_SECOND, CALLS_AT_FIRST, now),
                Bucket(ENROLS_A_SECOND, ENROLS_AT_FIRST, now),
                Bucket(WASTE_MS_A_SECOND, WASTE_MS_MAX, now),
                Bucket(NOTES_A_SECOND, NOTES_AT_FIRST, now),
            )
        return found

    def caller(self, unit: str, here: str, *, invited: bool = False) -> PeerCaps:
        """Whose account a call is on. An invitation has its own: a copy of a unit's home that asks and asks for a key
        must not be in the way of the machine that is to take its place."""
        if parent_of(unit) != here:
            return self.of(STRANGERS)
        return self.of(INVITED.format(unit=unit) if invited else unit)

    def may_note(self, peer: str) -> bool:
        """Whether one more refusal of a peer is put on record."""
        notes, now = self.of(peer).notes, self.clock()
        if notes.level(now) < 1:
            return False
        notes.take(1, now)
        return True

    @asynccontextmanager
    async def call(self, peer: PeerCaps, *, enrols: bool = False) -> AsyncIterator[None]:
        """One call, from its beginning to its end. Raises TooOften."""
        if peer.at_once >= CALLS_AT_ONCE:
            peer.refused_calls += 1
            peer.note("too many calls at once")
            if peer.at_once < CALLS_HELD:
                await self._held(peer)
            raise TooOften(f"{peer.unit} has {CALLS_AT_ONCE} calls open already", retry_s=REFUSED_AFTER_S)
        peer.at_once += 1
        try:
            await self._turn(peer, enrols)
            yield
        finally:
            peer.at_once -= 1

    async def _held(self, peer: PeerCaps) -> None:
        peer.at_once += 1
        try:
            await self.sleep(REFUSED_AFTER_S)
        finally:
            peer.at_once -= 1

    async def _turn(self, peer: PeerCaps, enrols: bool) -> None:
        """Wait till the call is within its rate."""
        bucket = peer.enrols if enrols else peer.calls
        wait = bucket.wait_s(self.clock())
        if wait > (0 if enrols else CALL_WAITS_S):
            peer.refused_calls += 1
            peer.note("calls too often")
            await self.sleep(REFUSED_AFTER_S)
            raise TooOften(f"{peer.unit} calls too often", retry_s=max(wait, REFUSED_AFTER_S))
        bucket.take(1, self.clock())
        wait = bucket.wait_s(self.clock())
        if wait and not enrols:
            peer.slowed_s += wait
            peer.note("calls often")
            await self.sleep(wait)

    def is_news(self, peer: PeerCaps) -> bool:
        """Whether the log should say again that a peer was refused: a line each would fill the disk instead."""
        now = self.clock()
        if peer.logged_at is not None and now - peer.logged_at < LOGGED_EVERY_S:
            return False
        peer.logged_at = now
        return True

    def told(self) -> list[dict[str, Any]]:
        """Those who were refused, cut or slowed, by unit."""
        return [
            peer.told()
            for _, peer in sorted(self._peers.items())
            if peer.refused_calls or peer.cut_sessions or peer.slowed_s >= 1
        ]

    def refused_calls(self, unit: str) -> int:
        found = self._peers.get(unit)
        return 0 if found is None else found.refused_calls


def connections_max() -> int:
    """How many connections a server takes: so many that files are left for the database."""
    if sys.platform == "win32":
        return CONNECTIONS_MAX
    import resource

    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(soft // 2, min(soft - FILES_KEPT, CONNECTIONS_MAX))
