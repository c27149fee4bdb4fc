"""Each node signs how far its batches go: who passes on less is noticed, and who is far away can confirm."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.cli.views import _confirmed, attention
from node.commands import state
from node.config import Config
from node.storage import outbox, statements
from node.storage.context import Context
from node.storage.heartbeats import due
from node.storage.statements import Kept, said
from sync_engine.statements import HEARTBEAT, Heartbeat
from tests.test_receipts import IN_STEP, add_member, sync
from tests.world import World, WorldNode

COMMUNE, DISTRICT, PROVINCE, CENTRE = "vinh-an.phu-vang.hue.vn", "phu-vang.hue.vn", "hue.vn", "vn"
PATH = (COMMUNE, DISTRICT, PROVINCE)
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.node(DISTRICT)
    return world


async def round_of(world: World, *units: str) -> list[int]:
    return [await sync(world, unit) for unit in units or (DISTRICT, PROVINCE)]


async def quiet(world: World, *units: str) -> int:
    """Sync until nothing is said any more, and those above have signed for what came; after how many rounds."""
    rested = False
    for count in range(9):
        if all(each == IN_STEP for each in await round_of(world, *units)):
            if rested:
                return count - 2
            rested = True
            world.now += 6 * MINUTE_MS
    raise AssertionError("it does not come to rest")


def heartbeats(node: WorldNode, unit: str) -> dict[str, Heartbeat]:
    with node.read() as connection:
        kept = [each.said for each in said(connection, HEARTBEAT, unit)]
    return {each.scope: each for each in kept if isinstance(each, Heartbeat)}


def status(node: WorldNode) -> dict[str, Any]:
    with node.read() as connection, mock.patch("node.commands.state.now_ms", node.context.now_ms):
        return state._status(connection, node.context, Config(UnitPath(node.unit), node.unit), None)


def unit_of_status(node: WorldNode, unit: str) -> dict[str, Any]:
    (found,) = [each for each in status(node)["units"] if each["unit"] == unit]
    return found


@contextmanager
def withholding(world: World, unit: str, from_above: str, *, heartbeats_too: bool = False) -> Iterator[None]:
    """The node of ``from_above`` does not tell its parent of what ``unit`` makes from now on."""
    with world.node(from_above).read() as connection:
        told = outbox.held_on_link(connection, world.node(from_above).context, UnitPath(from_above))
    held, link_said, said_on_link = outbox.held_on_link, statements.digests_on_link, statements.for_link

    def fewer(connection: Connection, context: Context, child: UnitPath) -> dict[StreamId, Head]:
        found = held(connection, context, child)
        if child != from_above:
            return found
        return {each: told.get(each, head) if each.origin == unit else head for each, head in found.items()}

    def fewer_digests(connection: Connection, child: UnitPath) -> dict[Scope, bytes]:
        found = link_said(connection, child)
        return {scope: each for scope, each in found.items() if child != from_above or scope != unit}

    def fewer_said(connection: Connection, child: UnitPath, scopes: Collection[Scope] | None = None) -> list[Kept]:
        return [
            each for each in said_on_link(connection, child, scopes) if child != from_above or each.said.unit != unit
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.storage.outbox.held_on_link", fewer)
        patch.setattr("node.shipping.held_on_link", fewer)
        if heartbeats_too:
            patch.setattr("node.storage.outbox.digests_on_link", fewer_digests)
            patch.setattr("node.telling.digests_on_link", fewer_digests)
            patch.setattr("node.telling.for_link", fewer_said)
        yield


# --- what is signed ---


async def test_every_node_signs_how_far_its_streams_go_and_it_comes_to_rest(world: World) -> None:
    add_member(world.node(DISTRICT), "1")
    await quiet(world)
    at_centre = heartbeats(world.node(CENTRE), DISTRICT)[DISTRICT]
    assert [(each.stream.origin, each.seq) for each in at_centre.heads] == [(DISTRICT, 1)]
    assert set(heartbeats(world.node(DISTRICT), PROVINCE)) == {DISTRICT}, "of other scopes it may know nothing"
    for _ in range(3):
        world.now += 6 * MINUTE_MS
        assert await round_of(world) == [IN_STEP, IN_STEP], "nothing had changed"


async def test_without_any_change_it_is_signed_anew_once_a_day_and_costs_one_longer_session(world: World) -> None:
    await quiet(world)
    first = heartbeats(world.node(CENTRE), DISTRICT)[DISTRICT]
    world.now += 19 * HOUR_MS
    assert await round_of(world) == [IN_STEP, IN_STEP]
    world.now += 4 * HOUR_MS  # a call of every night that is early today
    assert await round_of(world) != [IN_STEP, IN_STEP]
    assert heartbeats(world.node(CENTRE), DISTRICT)[DISTRICT].time_ms == world.now > first.time_ms
    assert await quiet(world) <= 1


async def test_a_change_is_signed_for_with_the_next_call_but_not_with_each(world: World) -> None:
    district = world.node(DISTRICT)
    await quiet(world)
    signed = []
    for key in "1234":
        add_member(district, key)
        world.now += 2 * MINUTE_MS
        await round_of(world)
        signed.append(sum(each.seq for each in heartbeats(world.node(CENTRE), DISTRICT)[DISTRICT].heads))
    assert signed == [0, 0, 3, 3]


async def test_a_clock_that_is_set_back_stops_nobody_from_signing(world: World) -> None:
    add_member(world.node(DISTRICT), "1")
    await quiet(world)
    first = heartbeats(world.node(CENTRE), DISTRICT)[DISTRICT]
    world.now -= 400 * 24 * HOUR_MS
    add_member(world.node(DISTRICT), "2")
    await quiet(world)
    second = heartbeats(world.node(CENTRE), DISTRICT)[DISTRICT]
    assert (second.heads[0].seq, second.time_ms) == (2, first.time_ms + 1)


async def test_a_node_that_is_stopped_signs_nothing(world: World) -> None:
    district = world.node(DISTRICT)
    with district.write() as connection:
        assert due(connection, district.context) is not None
        district.context.epoch = Epoch("f" * 16)  # a new life, whose key nobody has certified yet
        assert due(connection, district.context) is None


# --- who is withheld ---


async def test_a_relay_that_withholds_one_childs_stream_is_noticed_within_a_day(world: World) -> None:
    district, centre = world.node(DISTRICT), world.node(CENTRE)
    add_member(district, "1")
    await quiet(world)
    with withholding(world, DISTRICT, PROVINCE):
        add_member(district, "2")
        add_member(district, "3")
        world.now += 6 * MINUTE_MS
        since = world.now
        await round_of(world)
        assert unit_of_status(centre, DISTRICT)["state"] == "ok", "it may be on its way"
        assert unit_of_status(centre, DISTRICT)["missing_batches"] == 2
        for _ in range(25):
            world.now += HOUR_MS
            await round_of(world)
        found = unit_of_status(centre, DISTRICT)
        assert (found["state"], found["missing_batches"], found["missing_since"]) == ("stale", 2, since)
        assert found["relay"] == PROVINCE
        (line,) = [each for each in attention(status(centre)) if "passes on less" in each]
        assert f"Batches of {DISTRICT} missing since" in line
        assert ": 2. Ask" in line
        assert unit_of_status(world.node(PROVINCE), DISTRICT)["state"] == "ok", "who has them misses nothing"
    await quiet(world)
    assert unit_of_status(centre, DISTRICT)["state"] == "ok"
    assert attention(status(centre)) == []


async def test_a_relay_that_withholds_the_heartbeats_too_is_noticed(world: World) -> None:
    district, centre = world.node(DISTRICT), world.node(CENTRE)
    add_member(district, "1")
    await quiet(world)
    with withholding(world, DISTRICT, PROVINCE, heartbeats_too=True):
        add_member(district, "2")
        for _ in range(29):
            world.now += HOUR_MS
            await round_of(world)
            assert unit_of_status(centre, DISTRICT)["state"] == "ok"
        for _ in range(2):
            world.now += HOUR_MS
            await round_of(world)
        found = unit_of_status(centre, DISTRICT)
        assert (found["state"], found["withheld"]) == ("stale", False)
        (line,) = [each for each in attention(status(centre)) if "nothing signed" in each]
        assert PROVINCE in line
    await quiet(world)
    assert unit_of_status(centre, DISTRICT)["state"] == "ok"


async def test_where_the_relay_is_silent_itself_the_unit_behind_it_is_not_accused(world: World) -> None:
    add_member(world.node(DISTRICT), "1")
    await quiet(world)
    world.now += 40 * HOUR_MS
    found = unit_of_status(world.node(CENTRE), DISTRICT)
    assert (found["state"], found["silent_since"]) == ("ok", None)
    assert [each["state"] for each in status(world.node(CENTRE))["children"] if each["unit"] == PROVINCE] == ["stale"]


async def test_of_two_relays_the_one_that_has_signed_for_it_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    commune, centre = world.node(COMMUNE), world.node(CENTRE)
    add_member(commune, "1")
    await quiet(world, *PATH)
    for unit, above, named in ((PROVINCE, PROVINCE, PROVINCE), (DISTRICT, DISTRICT, DISTRICT)):
        with withholding(world, COMMUNE, above):
            add_member(commune, unit)
            for _ in range(26):
                world.now += HOUR_MS
                await round_of(world, *PATH)
            found = unit_of_status(centre, COMMUNE)
            assert (found["state"], found["relay"]) == ("stale", named)
        await quiet(world, *PATH)
        assert unit_of_status(centre, COMMUNE)["state"] == "ok"


# --- who has confirmed ---


def counts(node: WorldNode) -> list[tuple[int, int]]:
    told = status(node)["confirmed"]
    return [(told[key]["batches"], told[key]["of"]) for key in ("parent", "centre")]


async def test_a_district_learns_what_the_province_and_the_centre_have_confirmed(world: World) -> None:
    district = world.node(DISTRICT)
    assert "nothing of this unit's to confirm" in _confirmed(status(district))
    add_member(district, "1")
    assert _confirmed(status(district)).startswith("the province (hue.vn) has not confirmed the one batch there is yet")
    for key in "23":
        add_member(district, key)
    assert counts(district) == [(0, 3), (0, 3)]
    assert _confirmed(status(district)).startswith("the province (hue.vn) has confirmed none of 3 batches yet")
    await sync(world, DISTRICT)
    assert counts(district) == [(3, 3), (0, 3)], "the province has it, and the centre knows nothing yet"
    assert "has confirmed all 3 batches, at" in _confirmed(status(district))
    await sync(world, PROVINCE)
    await sync(world, DISTRICT)
    assert counts(district) == [(3, 3), (0, 3)], "the centre has it, and has not said so"
    world.now += 6 * MINUTE_MS
    await sync(world, PROVINCE)
    await sync(world, DISTRICT)
    assert counts(district) == [(3, 3), (3, 3)]
    assert status(world.node(CENTRE))["confirmed"] == {"parent": None, "centre": None}
    add_member(district, "4")
    assert counts(district) == [(3, 4), (3, 4)]
    assert "the centre (vn) has confirmed 3 of 4 batches, at" in _confirmed(status(district))


async def test_where_the_parent_is_the_centre_its_receipt_is_the_centres_word(world: World) -> None:
    province = world.node(PROVINCE)
    add_member(province, "1")
    await sync(world, PROVINCE)
    (parent, centre) = counts(province)
    assert parent == centre
    assert parent[0] == parent[1] > 0
    assert _confirmed(status(province)).count("confirmed") == 1


async def test_a_relay_is_told_of_each_unit_below_what_those_above_have_confirmed(world: World) -> None:
    add_member(world.node(DISTRICT), "1")
    await sync(world, DISTRICT)
    told = unit_of_status(world.node(PROVINCE), DISTRICT)["confirmed"]["parent"]
    assert (told["unit"], told["batches"], told["of"]) == (CENTRE, 0, 1)
    await sync(world, PROVINCE)
    assert unit_of_status(world.node(PROVINCE), DISTRICT)["confirmed"]["parent"]["batches"] == 1
