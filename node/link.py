"""Frames over one gRPC stream, the same for both ends.

Role: a reader of its own feeds a short queue, because giving up a pending read of grpc.aio gives up the whole call.
Reach: asyncio, errors. Invariant: at most ``AHEAD`` frames are held beyond what the session has taken; gRPC's flow
control does the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sync_engine.errors import LinkFault

AHEAD = 2

SETTLE_S = 2.0
"""So long the end of a session waits for what it was writing: a peer that takes nothing more needs no reason either."""


class Link(Protocol):
    """Frames of one session, in order; None when the other side has ended."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes | None: ...


class StreamLink:
    """``read`` gives bytes, or anything else at the stream's end; ``write`` sends bytes."""

    def __init__(self, read: Callable[[], Awaitable[Any]], write: Callable[[bytes], Awaitable[None]]) -> None:
        self._read, self._write = read, write
        self._frames: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(maxsize=AHEAD)
        self._closed = False
        self._writing: asyncio.Future[None] | None = None
        self._reader: asyncio.Task[None] | None = asyncio.create_task(self._feed())

    async def _feed(self) -> None:
        try:
            while isinstance(data := await self._read(), bytes):
                await self._frames.put(data)
            await self._frames.put(None)
        except asyncio.CancelledError:
            if not self._closed:  # grpc.aio says so to readers of a call that was given up
                await self._frames.put(LinkFault("the connection was closed in mid-session"))
            raise
        except Exception as error:
            await self._frames.put(error)

    async def send(self, data: bytes) -> None:
        """May be cancelled without harm: what was begun goes out."""
        self._writing = asyncio.ensure_future(self._write(data))
        await asyncio.shield(self._writing)

    async def settle(self) -> None:
        """Wait for a write that its session has left: until it is done gRPC takes nothing else, and the peer would not
        hear why its call has ended."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=SETTLE_S)

    async def receive(self) -> bytes | None:
        """The next frame; None at the end. Raises what the stream ended with. May be cancelled without harm."""
        frame = await self._frames.get()
        if isinstance(frame, BaseException):
            raise frame
        return frame

    async def drain(self) -> None:
        """Take in what the other side still has on the way, up to the stream's end."""
        while await self.receive() is not None:
            pass

    def close(self) -> None:
        """Read no more. The reader is let go as well: what it ended with refers to this link and to its call, and gRPC
        keeps the connection for as long as there is the call."""
        self._closed = True
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        if self._writing is not None:
            self._writing.add_done_callback(_look_away)
            self._writing = None


def _look_away(written: asyncio.Future[None]) -> None:
    """Nobody asks any more how a write ended; asyncio would complain of it."""
    if not written.cancelled():
        written.exception()
