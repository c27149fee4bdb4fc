"""A session ends in order: what is on its way goes out first, and a call that was given up is noticed at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from conflict.values import UnitPath
from node.database import Database
from node.link import StreamLink
from node.local import Node
from node.session import Session
from node.storage.inbox import Outcome, Verified
from sync_engine.errors import DiskFull, LinkFault, ReplicationError
from sync_engine.exchange import Finish, Send
from sync_engine.frames import BatchFrame, Done, decode
from tests.world import World

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


class Pipe:
    """One end of a link in memory."""

    def __init__(self, reads: asyncio.Queue[bytes | None], writes: asyncio.Queue[bytes | None]) -> None:
        self.reads, self.writes = reads, writes
        self.batches = 0
        self.is_ahead = asyncio.Event()

    async def send(self, data: bytes) -> None:
        self.batches += isinstance(decode(data), BatchFrame)
        if self.batches == 6:  # more than are stored, proven and read ahead
            self.is_ahead.set()
        await self.writes.put(data)

    async def receive(self) -> bytes | None:
        return await self.reads.get()


async def test_a_disk_that_is_full_ends_a_session_whose_reader_is_ahead(tmp_path: Path) -> None:
    """The reader waits until what it has proven is stored; it must not wait for a store that has given up."""
    world, unit = World(tmp_path), UnitPath("hue.vn")
    world.node(unit)
    root = world.node("vn")
    for name in "abcdefgh":
        root.sql("UPDATE _unit SET name = ? WHERE unit = 'hue.vn'", name)
        root.seal()
    there, back = asyncio.Queue[bytes | None](), asyncio.Queue[bytes | None]()
    keys = cast(Any, SimpleNamespace(certified=SimpleNamespace(sha256=b"")))
    nodes = {
        each: Node(tmp_path, cast(Any, None), keys, world.node(each).context, Database(world.node(each).path))
        for each in (unit, "vn")
    }
    links = {unit: Pipe(there, back), "vn": Pipe(back, there)}

    async def no_room(_verified: Verified) -> Outcome:
        await links["vn"].is_ahead.wait()
        raise DiskFull("there is no space left for the database")

    nodes[unit].take = no_room  # type: ignore[method-assign]
    sessions = {
        each: Session(nodes[each], links[each], child=unit, peer=peer, progress=lambda _: None)
        for each, peer in ((unit, UnitPath("vn")), ("vn", unit))
    }
    parent = asyncio.create_task(sessions["vn"].run())
    try:
        with pytest.raises(DiskFull):
            await asyncio.wait_for(sessions[unit].run(), SOON_S)
    finally:
        back.put_nowait(None)
        with pytest.raises(ReplicationError):
            await parent
        for node in nodes.values():
            await node.close()
