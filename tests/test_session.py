"""A session brings over all that is due; it ends in order, what is on its way going first, or at once by a fault."""

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
from node.storage.inbox import Outcome
from node.storage.proving import Verified
from sync_engine.batch import parse_batch
from sync_engine.errors import DiskFull, LinkFault, NotYet, RuleBroken
from sync_engine.exchange import Finish, Send
from sync_engine.frames import BatchFrame, Done, decode
from sync_engine.names import parent_of
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


async def test_a_batch_is_looked_at_again_once_what_came_before_it_is_stored() -> None:
    """Such as the registry version that it was sealed under: it may have come in this very session."""
    stored: list[bytes] = []

    async def verify(data: bytes, _peer: str) -> bytes:
        if not stored:
            raise NotYet("registry version 2 must be here")
        return data

    child = UnitPath("hue.vn")
    node = cast(Node, SimpleNamespace(verify=verify))
    session = Session(node, SlowLink(), child=child, peer=child, progress=lambda _: None)
    session._inbox.put_nowait(cast(Any, b"registry"))
    proving = asyncio.create_task(session._verified(b"batch"))
    await asyncio.sleep(0)
    assert not proving.done()
    stored.append(cast(Any, session._inbox.get_nowait()))
    session._inbox.task_done()
    assert await asyncio.wait_for(proving, SOON_S) == b"batch"


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
        self.batches = self.frames = 0
        self.is_ahead = asyncio.Event()

    async def send(self, data: bytes) -> None:
        self.frames += 1
        self.batches += isinstance(decode(data), BatchFrame)
        if self.batches == 6:  # more than are stored, proven and read ahead
            self.is_ahead.set()
        await self.writes.put(data)

    async def receive(self) -> bytes | None:
        return await self.reads.get()


class Two:
    """A child and its parent, each with its real database, and the production session on both ends of a pipe."""

    def __init__(self, world: World, child: UnitPath) -> None:
        there, back = asyncio.Queue[bytes | None](), asyncio.Queue[bytes | None]()
        keys = cast(Any, SimpleNamespace(certified=SimpleNamespace(sha256=b"")))
        self.child, self.parent = (
            Node(world.folder, cast(Any, None), keys, each.context, Database(each.path))
            for each in (world.node(child), world.node(str(parent_of(child))))
        )
        self.down, self.up = Pipe(there, back), Pipe(back, there)
        self.sessions = [
            Session(node, link, child=child, peer=peer, progress=lambda _: None)
            for node, link, peer in (
                (self.child, self.down, self.parent.context.unit),
                (self.parent, self.up, child),
            )
        ]
        self.parents_fault: BaseException | None = None

    async def run(self) -> None:
        """Raises what the child's session ends with."""
        parent = asyncio.create_task(self.sessions[1].run())
        try:
            await asyncio.wait_for(self.sessions[0].run(), SOON_S)
        finally:
            self.up.reads.put_nowait(None)
            await asyncio.wait([parent], timeout=SOON_S)
            self.parents_fault = parent.exception()
            for node in (self.child, self.parent):
                await node.close()


async def test_a_disk_that_is_full_ends_a_session_whose_reader_is_ahead(tmp_path: Path) -> None:
    """The reader waits until what it has proven is stored; it must not wait for a store that has given up."""
    world, unit = World(tmp_path), UnitPath("hue.vn")
    world.node(unit)
    root = world.node("vn")
    for name in "abcdefgh":
        root.sql("UPDATE _unit SET name = ? WHERE unit = 'hue.vn'", name)
        root.seal()
    two = Two(world, unit)

    async def no_room(_verified: Verified) -> Outcome:
        await two.up.is_ahead.wait()
        raise DiskFull("there is no space left for the database")

    two.child.take = no_room  # type: ignore[method-assign]
    with pytest.raises(DiskFull):
        await two.run()


async def test_a_session_does_not_end_before_what_is_pending_for_it_has_gone_over(tmp_path: Path) -> None:
    """Only one batch is sealed before a session begins, here one that is none of this child's business."""
    world = World(tmp_path)
    world.node("a.hue.vn"), world.node("b.hue.vn")
    world.settle(3)
    for unit in ("a.hue.vn", "b.hue.vn"):
        world.node("hue.vn").sql(
            "INSERT INTO member (unit, id, full_name, birth_date, sex)"
            " VALUES (?, '1', 'Nguyễn Văn Mẫu', '1950', 'nam')",
            unit,
        )
    await Two(world, UnitPath("b.hue.vn")).run()
    assert world.node("b.hue.vn").sql("SELECT full_name FROM member") == [("Nguyễn Văn Mẫu",)]


async def test_a_refusal_does_not_break_a_session_in_which_more_of_that_stream_was_under_way(tmp_path: Path) -> None:
    """The child that was told of it waits for no further answer to what it sent, and the parent still stores that."""
    world, unit = World(tmp_path), UnitPath("hue.vn")
    child = world.node(unit)
    world.settle(2)
    for key in "12":
        child.sql(
            "INSERT INTO member (unit, id, full_name, birth_date, sex)"
            " VALUES ('hue.vn', ?, 'Nguyễn Văn Mẫu', '1950', 'nam')",
            key,
        )
        child.seal()
    two = Two(world, unit)
    sound, refused = two.parent.verify, list[bytes]()

    async def verify(data: bytes, peer: str) -> Verified:
        if not refused:
            refused.append(data)
            raise RuleBroken("this batch breaks a rule", head=parse_batch(data).head)
        return await sound(data, peer)

    take = two.parent.take

    async def take_late(verified: Verified) -> Outcome:
        while not two.sessions[0]._exchange.is_refused(verified.batch.header.stream):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return await take(verified)

    two.parent.verify, two.parent.take = verify, take_late  # type: ignore[method-assign]
    await two.run()
    assert refused
    assert two.parents_fault is None
