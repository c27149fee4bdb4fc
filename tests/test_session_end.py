"""A session ends in order: what is on its way goes out first, and a call that was given up is noticed at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from conflict.values import UnitPath
from node.link import StreamLink
from node.local import Node
from node.session import Session
from sync_engine.errors import LinkFault
from sync_engine.exchange import Finish, Send
from sync_engine.frames import Done

SOON_S = 5.0


class SlowLink:
    """A link on which one frame is under way until it is let through."""

    def __init__(self) -> None:
        self.let_through = asyncio.Event()
        self.sent: list[bytes] = []

    async def send(self, data: bytes) -> None:
        await self.let_through.wait()
        self.sent.append(data)

    async def receive(self) -> bytes | None:
        return None


async def test_a_session_does_not_end_before_the_frame_under_way_has_gone_out() -> None:
    link = SlowLink()
    child = UnitPath("hue.vn")
    session = Session(cast(Node, SimpleNamespace()), link, child=child, peer=child, progress=lambda _: None)
    storing = asyncio.create_task(session._perform([Send(Done())]))  # such as the ack of the last batch
    await asyncio.sleep(0)
    reading = asyncio.create_task(session._perform([Finish()]))
    await asyncio.sleep(0)
    assert not session._ended.done()
    link.let_through.set()
    await asyncio.wait_for(asyncio.gather(storing, reading), SOON_S)
    assert session._ended.done()
    assert len(link.sent) == 1


@pytest.mark.parametrize("frames", [0, 1, 2], ids=["nothing to read", "a frame to read", "the queue is full"])
async def test_whoever_reads_from_a_call_that_was_given_up_is_told(frames: int) -> None:
    coming: list[Any] = [b"frame"] * frames

    async def read() -> Any:
        if coming:
            return coming.pop()
        raise asyncio.CancelledError  # what grpc.aio raises to a reader when its call is cancelled

    async def write(_data: bytes) -> None:
        """Nothing is sent here."""

    link = StreamLink(read, write)
    try:
        with pytest.raises(LinkFault):
            await asyncio.wait_for(link.drain(), SOON_S)
    finally:
        link.close()
