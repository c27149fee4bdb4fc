"""A child that calls anew is not kept out by its own older session, and what that had brought is not lost."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from node import __version__
from node.keys import KeyStore
from sync_engine.frames import Frame, Hello
from tests.e2e.conftest import DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, command, until
from tests.e2e.raw import Identity, Line, Refusal, exchange
from tests.e2e.writing import write_members

ROWS = 6_000


def hello_of(home: Home) -> Hello:
    """As the home's node would begin, without a look at its database."""
    keys = KeyStore.load(home.path)
    return Hello(
        unit=keys.unit,
        epoch=keys.epoch,
        tree_id=keys.tree_id,
        certificate_sha256=keys.certified.sha256,
        registry_version=(1, bytes(32)),
        time_ms=time.time_ns() // 1_000_000,
        nonce=bytes(16),
        digest=bytes(32),
        software=f"dongbo {__version__}",
    )


async def to_the_end(line: Line) -> Frame | None:
    while (frame := await line.hear()) is not None:
        pass
    return frame


def held(province: Home) -> int:
    return int(province.sql("SELECT count(*) FROM member")[0][0])


async def test_a_call_takes_the_place_of_a_session_that_hangs(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    await asyncio.to_thread(province.start)
    async with exchange(province.port, PROVINCE, Identity.at(district)) as hanging:
        await hanging.say(hello_of(district))
        assert isinstance(await hanging.hear(), Hello)
        done = await asyncio.to_thread(district.sync)
        assert done["ok"]
        assert done["seconds"] < 5
        with pytest.raises(Refusal, match="has called anew"):
            await to_the_end(hanging)


@pytest.mark.timeout(120)
async def test_what_the_older_session_had_brought_stays_and_the_rest_comes_with_the_next(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    district.configure(rate_kbit_s="1000")
    await asyncio.to_thread(write_members, district, ROWS, seed=3)
    await asyncio.to_thread(province.start)
    calling = [*command(), "sync", "--json", "--home", str(Path(district.path))]
    older = await asyncio.create_subprocess_exec(*calling, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await asyncio.to_thread(until, "some have come", lambda: held(province) > 0)
    async with exchange(province.port, PROVINCE, Identity.at(district)) as newer:
        await newer.say(hello_of(district))
        assert isinstance(await newer.hear(), Hello)
        _out, err = await asyncio.wait_for(older.communicate(), 30)
    assert older.returncode == 1
    assert b"has called anew" in err
    some = held(province)
    assert 0 < some < ROWS, "it was over too soon, or nothing had come"
    district.configure(rate_kbit_s="0")
    assert (await asyncio.to_thread(district.sync))["ok"]
    assert held(province) == ROWS
    assert not (await asyncio.to_thread(province.json, "status"))["caps"], "nobody was refused"
