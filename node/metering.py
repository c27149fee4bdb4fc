"""One session's frames on their way in and out, weighed against what they bring.

Role: charge what a peer sends, give back what was of use, let it wait when its account is empty, cut it when it takes
nothing or brings nothing.
Reach: node.caps, frames. Source: decision 0029. Invariant: an honest session never waits here: what it sends is given
back with the ack, or was sent in answer to what it was sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from conflict.values import Head, StreamId
from node.caps import Caps, PeerCaps
from sync_engine import wire
from sync_engine.errors import LimitExceeded, LinkFault, Malformed
from sync_engine.frames import Ack, HeadsFrame, decode

WRITE_S = 400.0
"""As node.session's IDLE_S: so long the largest frame takes at 128 kbit/s, for a peer that takes it."""

STALLED_S = 1_200.0
"""A session that talks, and in which nothing is brought or taken for so long, is at an end. The largest frame of the
slowest line comes through three times meanwhile, and a child that stands in line has its turn."""

WAIT_STEP_S = 0.05

UNDER_WAY_MAX = 8
"""Batches that have been read and may still be found useful: two read ahead, one before the queue, two in it, one being
stored; what was sent before them was of no use."""

WAITED_S_MAX = 120.0
"""So long a peer waits with an empty account, nothing of use between, before its session is cut."""

HELLO, HEADS, CERTIFICATES, BATCH, ACK, CREDIT, REFUSAL, RECEIPT, DONE, STATEMENTS = 1, 2, 3, 4, 5, 6, 7, 9, 10, 13
KIB, MIB = 1024, 1024 * 1024

FRAME_MS = 1.0
BATCH_MS, BATCH_MS_A_MIB = 10.0, 600.0
LIST_MS_A_KIB = 0.4
SIGNED_MS_A_KIB = 2.0
WRITTEN_MS = 8.0
"""Measured roughly, in milliseconds of one processor: a frame read; a batch proven and its refusal told; heads;
certificates and statements, of which one has about a kibibyte; and what takes a turn of the database's writer, such as
the proof of a fork, of which an honest peer tells in each session. A kind that is not known is charged like that."""

STORED_MS, SENT_MS = 10.0, 4.0
"""Given back beside a stored batch's own charge: its certificate came with it; and for a batch sent, which is
answered by an ack, credit, or a refusal."""


def charge(data: bytes) -> tuple[int, float]:
    """What kind of frame it is, and what it may cost to take it in, in milliseconds."""
    try:
        kind = next((number for number, _, _ in wire.fields(data)), 0)
    except Malformed:
        return 0, FRAME_MS
    size = len(data)
    if kind == BATCH:
        return kind, BATCH_MS + BATCH_MS_A_MIB * size / MIB
    if kind in (HELLO, HEADS, ACK, REFUSAL):
        return kind, FRAME_MS + LIST_MS_A_KIB * size / KIB
    if kind in (CREDIT, DONE) and size < KIB:
        return kind, FRAME_MS
    once = FRAME_MS if kind in (CERTIFICATES, STATEMENTS, RECEIPT) else WRITTEN_MS
    return kind, once + SIGNED_MS_A_KIB * size / KIB


class Metered:
    """``read`` and ``write`` of one call, between gRPC and the session."""

    def __init__(
        self,
        read: Callable[[], Awaitable[Any]],
        write: Callable[[bytes], Awaitable[None]],
        peer: PeerCaps,
        caps: Caps,
    ) -> None:
        self._read, self._write, self._peer, self._caps = read, write, peer, caps
        self._under_way: deque[float] = deque(maxlen=UNDER_WAY_MAX)
        self._held: dict[StreamId, int] = {}
        self._waited = 0.0
        self._useful_at = caps.clock()

    async def read(self) -> Any:
        """The next frame, when its sender may be heard. Raises LimitExceeded or LinkFault."""
        await self._pay()
        data = await self._read()
        if isinstance(data, bytes):
            self._came(data)
        return data

    async def _pay(self) -> None:
        """Wait while the account is empty; what is stored meanwhile is given back, and ends the waiting."""
        while (wait := self._peer.waste.wait_s(self._caps.clock())) > 0:
            if self._waited > WAITED_S_MAX:
                raise self._cut(LimitExceeded(f"{self._peer.unit} sends much that brings nothing"))
            wait = max(min(wait, WAIT_STEP_S), 0.001)
            self._waited += wait
            if self._peer.waste.level(self._caps.clock()) + sum(self._under_way) < 0:
                self._peer.slowed_s += wait
                self._peer.note("sends much that brings nothing")
            await self._caps.sleep(wait)  # else large batches are under way, of which nobody knows yet what they bring

    def _came(self, data: bytes) -> None:
        now = self._caps.clock()
        kind, cost = charge(data)
        self._peer.waste.take(cost, now)
        if kind == BATCH:
            self._under_way.append(cost)
        elif now - self._useful_at > STALLED_S:
            raise self._cut(LinkFault(f"{self._peer.unit} talks, and nothing came of it for {STALLED_S:.0f} seconds"))

    async def write(self, data: bytes) -> None:
        """Raises LinkFault where the peer takes nothing."""
        self._goes(data)
        try:
            async with asyncio.timeout(WRITE_S):
                await self._write(data)
        except TimeoutError:
            raise self._cut(LinkFault(f"{self._peer.unit} has taken nothing for {WRITE_S:.0f} seconds")) from None

    def _goes(self, data: bytes) -> None:
        """What we say tells what came of what we heard."""
        kind, _ = charge(data)
        if kind == BATCH:
            self._was_useful(SENT_MS)
        elif kind == REFUSAL and self._under_way:
            self._under_way.popleft()
        elif kind in (HEADS, ACK) and isinstance(said := decode(data), HeadsFrame | Ack):
            brought = self._note(said.heads)
            if kind == ACK and self._under_way:
                cost = self._under_way.popleft()
                if brought:
                    self._was_useful(cost + STORED_MS)

    def _note(self, heads: Iterable[Head]) -> bool:
        """Whether more is held than was said before."""
        more = [head for head in heads if self._held.get(head.stream, 0) < head.seq]
        self._held.update((head.stream, head.seq) for head in more)
        return bool(more)

    def _was_useful(self, given_back: float) -> None:
        now = self._caps.clock()
        self._peer.waste.take(-given_back, now)
        self._waited, self._useful_at = 0.0, now

    def _cut(self, fault: LimitExceeded | LinkFault) -> LimitExceeded | LinkFault:
        self._peer.cut_sessions += 1
        self._peer.note(str(fault))
        return fault
