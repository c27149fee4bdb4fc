"""Windows, calls by hand and a slow line, with real services on a real clock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection

from node import scheduler as schedulers
from node.child_links import ChildLinks
from node.local import Node
from node.scheduler import Scheduler
from node.storage.engine import execute
from node.storage.peers import peer_of
from node.timetable import NextCall, Why
from tests.e2e.conftest import DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, until
from tests.e2e.writing import write_members


def opens_in(seconds: int, lasts: int = 600) -> tuple[datetime, str]:
    """A window that opens so soon, and how node.toml says it, in UTC."""
    begins = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
    ends = begins + timedelta(seconds=lasts)
    return begins, f'["{begins:%H:%M:%S}-{ends:%H:%M:%S}"]'


def held(home: Home) -> int:
    """How many members of the district are here."""
    return int(home.sql("SELECT count(*) FROM member WHERE unit = ?", DISTRICT)[0][0])


def test_edits_wait_sealed_while_shut_and_sync_by_hand_works_all_the_same(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    opens, windows = opens_in(3600)
    district.configure(time_zone='"UTC"', windows=windows, on_change="true", jitter_s="0")
    line.start(PROVINCE, DISTRICT)

    write_members(district, 3, seed=1)
    until("edits are sealed", lambda: not district.sql("SELECT 1 FROM _pending WHERE tbl > 0"), tail=line.tails)
    status = district.json("status")
    parent = status["parent"]
    assert (held(province), status["unsent_batches"], parent["next_sync_why"]) == (0, 1, "window")
    assert parent["next_sync_at"] == parent["paused_until"] == opens.timestamp() * 1000
    assert parent["state"] == "ok"
    assert re.search(
        rf"next call at .*{opens.astimezone():%H:%M:%S}, when its window opens", district.dongbo("status").out
    )

    assert district.sync()["sent_batches"] == 1
    assert held(province) == 3
    assert district.json("status")["parent"]["next_sync_at"] is None, "nothing is owed any more"


def test_what_waits_goes_up_when_the_window_opens(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    write_members(district, 3, seed=1)
    province.start()
    opens, windows = opens_in(5)
    district.configure(time_zone='"UTC"', windows=windows, on_change="true", jitter_s="0")
    district.start()
    until("the edits have arrived", lambda: held(province) == 3, tail=line.tails)
    assert datetime.now(UTC) >= opens
    assert district.json("status")["parent"]["paused_until"] is None


@asynccontextmanager
async def in_this_process(line: Cluster) -> AsyncIterator[tuple[Node, Node, ChildLinks]]:
    """The district's node and its parent's, which listens."""
    district, province = await Node.open(line[DISTRICT].path), await Node.open(line[PROVINCE].path)
    links = ChildLinks(province, on_news=lambda: None)
    await links.start()
    try:
        yield district, province, links
    finally:
        await links.stop()
        await district.close()
        await province.close()


@pytest.mark.timeout(30)
async def test_a_session_that_its_window_cuts_off_is_no_failure_at_either_end_and_goes_on_at_the_next(
    line: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "TICK_S", 0.05)
    clock = datetime(2027, 3, 1, 23, tzinfo=UTC)
    write_members(line[DISTRICT], 6_000, seed=3, at_once=6_000)
    line[DISTRICT].configure(
        time_zone='"UTC"', windows='["22:00-05:00"]', on_change="true", jitter_s="0", rate_kbit_s="1000"
    )
    async with in_this_process(line) as (district, province, links):
        scheduler = Scheduler(district, now=lambda: clock)
        await scheduler.start()
        await polled(lambda: province.database.read(arrived, 1))
        clock += timedelta(hours=8)
        opens = NextCall(datetime(2027, 3, 2, 22, tzinfo=UTC), Why.WINDOW)
        await polled(lambda: asyncio.sleep(0, district.next_call == opens and not links.busy))
        assert not await province.database.read(arrived, 6_000), "it was over too soon: more rows are needed"
        assert scheduler.failures == 0
        for node, other in ((district, PROVINCE), (province, DISTRICT)):
            peer = await node.database.read(peer_of, other)
            assert peer is not None
            assert peer.last_error is None

        district.config = replace(district.config, schedule=replace(district.config.schedule, rate_kbit_s=0))
        clock = datetime(2027, 3, 2, 23, tzinfo=UTC)
        await polled(lambda: province.database.read(arrived, 6_000))
        await scheduler.stop()


def arrived(connection: Connection, count: int) -> bool:
    found = execute(connection, "SELECT count(*) FROM member WHERE unit = ?", (DISTRICT,)).scalar_one()
    return int(found) >= count


async def polled(done: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1_000):
        if await done():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not within 20 s")


def test_sync_by_hand_keeps_to_the_rate(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    write_members(district, 4_000, seed=4, at_once=4_000)
    district.configure(rate_kbit_s="2000")
    province.start()
    answer = district.sync()
    rate = (answer["sent_bytes"] * 8 / 1000) / answer["seconds"]
    print(f"\n{answer['sent_bytes']} bytes in {answer['seconds']} s: {rate:.0f} kbit/s")
    assert answer["ok"]
    assert rate < 2_000 * 1.1


def test_a_schedule_that_cannot_be_is_named_before_anything_is_done(line: Cluster) -> None:
    line[DISTRICT].configure(windows='["22:00"]')
    for command in ("run", "status"):
        assert "node.toml: sync.windows" in line[DISTRICT].dongbo(command, code=1).complaint
