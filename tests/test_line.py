"""The line of children: who has a turn, who lends it, and what all of them may hold unpacked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from node import line as lines
from node.line import Line, Turn

SHORT_S = 0.01


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SILENT_S", SHORT_S)
    monkeypatch.setattr(lines, "SHARE_S", SHORT_S)


class Peer:
    """What comes from the other side of one session, when the test says so."""

    def __init__(self, line: Line) -> None:
        self.turn = Turn(line)
        self.frames: asyncio.Queue[str | None] = asyncio.Queue()
        self.stored = asyncio.Event()
        self.stored.set()

    async def hear(self) -> str | None:
        return await self.turn.to_hear(self.frames.get, self.stored.wait)


async def waits(work: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
    """Work that has begun, and waits."""

    async def run() -> None:
        await work()

    task = asyncio.create_task(run())
    await settled()
    assert not task.done()
    return task


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def ends(task: asyncio.Task[None]) -> None:
    await asyncio.wait_for(task, 5)


async def test_so_many_have_a_turn_and_the_others_follow_as_they_came() -> None:
    line, order = Line(at_once=2), list[int]()
    turns = [Turn(line) for _ in range(5)]

    async def session(number: int) -> None:
        await turns[number].take()
        order.append(number)

    tasks = [asyncio.create_task(session(number)) for number in range(5)]
    await settled()
    assert order == [0, 1]
    for number in range(5):
        turns[number].give()
        await settled()
        assert order == [*range(min(5, number + 3))]
    await asyncio.gather(*tasks)


async def test_a_peer_that_speaks_at_once_keeps_its_turn() -> None:
    line = Line(at_once=1)
    first, second = Peer(line), Peer(line)
    await first.turn.take()
    first.frames.put_nowait("hello")
    assert await first.hear() == "hello"
    waiting = await waits(second.turn.take)
    first.turn.give()
    await ends(waiting)


async def test_a_silent_peer_lends_its_turn_and_joins_the_line_when_it_speaks() -> None:
    line = Line(at_once=1)
    silent, other = Peer(line), Peer(line)
    await silent.turn.take()
    hearing = await waits(silent.hear)
    await asyncio.wait_for(other.turn.take(), 5)
    silent.frames.put_nowait("late")
    await settled()
    assert not hearing.done()
    other.turn.give()
    await ends(hearing)


async def test_a_turn_is_not_lent_while_something_is_to_be_stored() -> None:
    line = Line(at_once=1)
    busy, other = Peer(line), Peer(line)
    busy.stored.clear()
    await busy.turn.take()
    hearing = await waits(busy.hear)
    waiting = await waits(other.turn.take)
    await asyncio.sleep(3 * SHORT_S)
    assert not waiting.done()
    busy.stored.set()
    await ends(waiting)
    other.turn.give()
    busy.frames.put_nowait("more")
    await ends(hearing)


async def test_a_large_backlog_lets_others_go_first_after_its_share() -> None:
    line = Line(at_once=1)
    large, other = Peer(line), Peer(line)
    await large.turn.take()
    waiting = await waits(other.turn.take)
    await asyncio.sleep(2 * SHORT_S)
    large.frames.put_nowait("the next of a thousand")
    hearing = await waits(large.hear)
    await ends(waiting)
    other.turn.give()
    await ends(hearing)


async def test_a_large_backlog_goes_on_where_nobody_waits() -> None:
    large = Peer(Line(at_once=1))
    await large.turn.take()
    await asyncio.sleep(2 * SHORT_S)
    large.frames.put_nowait("the next of a thousand")
    assert await asyncio.wait_for(large.hear(), 5) == "the next of a thousand"


async def test_the_end_of_a_session_needs_no_turn() -> None:
    line = Line(at_once=1)
    done, other = Peer(line), Peer(line)
    await done.turn.take()
    hearing = await waits(done.hear)
    await asyncio.wait_for(other.turn.take(), 5)
    done.frames.put_nowait(None)
    await ends(hearing)


async def test_a_session_that_is_given_up_in_line_leaves_it() -> None:
    line = Line(at_once=1)
    first, gone, last = Turn(line), Turn(line), Turn(line)
    await first.take()
    waiting = await waits(gone.take)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert line.waiting == 0
    gone.give()
    after = await waits(last.take)
    first.give()
    await ends(after)


async def test_unpacked_batches_are_counted_over_all_sessions_and_put_away_with_theirs() -> None:
    line = Line(at_once=2, proven_at_once=3)
    one, other = Turn(line), Turn(line)
    await one.unpack()
    await one.unpack()
    await other.unpack()
    waiting = await waits(other.unpack)
    one.put_away()
    await ends(waiting)
    waiting = await waits(other.unpack)
    one.put_all_away()
    await ends(waiting)
