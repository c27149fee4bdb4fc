"""Equal batches and unequal registers: told by receipts, named by scope and neighbour, never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conflict.values import UnitPath
from node.digesting import Digester
from node.local import Node
from node.storage.alarms import Alarm, agrees_with, alarms
from node.storage.engine import execute
from tests.test_digest import filled
from tests.test_session import Two
from tests.world import World, WorldNode

VANG, HUE = "phu-vang.hue.vn", "hue.vn"


async def session(world: World, *, digested: bool = True) -> None:
    """A session in which something moves, between nodes that have computed their digests; then both compute anew."""
    two = Two(world, UnitPath(VANG))
    for node in (two.child, two.parent):
        if digested:
            await Digester(node).round()
    await two.run()
    assert two.parents_fault is None


def found(node: WorldNode) -> list[Alarm]:
    return list(node.look(alarms))


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> World:
    world = World(tmp_path)
    filled(world).seal()
    world.settle(3)
    return world


async def test_nodes_in_order_agree_and_nobody_is_alarmed(world: World) -> None:
    world.node(HUE).sql("INSERT INTO catalog (unit, id, kind, code) VALUES ('hue.vn', 'x', 'profession', 'x')")
    await session(world)
    assert (found(world.node(VANG)), found(world.node(HUE))) == ([], [])
    assert world.node(VANG).look(agrees_with, HUE, VANG) is True
    assert world.node(HUE).look(agrees_with, VANG, VANG) is True


async def test_registers_that_differ_at_equal_heads_raise_the_alarm_on_both_sides(world: World) -> None:
    with world.node(HUE).write() as connection:
        execute(connection, "UPDATE _row SET time = time + 1 WHERE id = '2'")
        execute(connection, "DELETE FROM _digest")
    world.node(HUE).sql("INSERT INTO catalog (unit, id, kind, code) VALUES ('hue.vn', 'x', 'profession', 'x')")
    await session(world)
    assert found(world.node(VANG)) == [Alarm(VANG, HUE)]
    assert found(world.node(HUE)) == [Alarm(VANG, VANG)]
    assert world.node(VANG).look(agrees_with, HUE, VANG) is False


async def test_at_unequal_heads_nothing_is_compared(world: World) -> None:
    world.node(HUE).sql("INSERT INTO catalog (unit, id, kind, code) VALUES ('hue.vn', 'x', 'profession', 'x')")
    await session(world)
    node = world.node(VANG)
    node.sql("UPDATE member SET note = 'x' WHERE id = '1'")
    node.seal()
    assert node.look(agrees_with, HUE, VANG) is None
    assert found(node) == []


async def test_what_was_told_is_not_told_again(world: World) -> None:
    world.node(HUE).sql("INSERT INTO catalog (unit, id, kind, code) VALUES ('hue.vn', 'x', 'profession', 'x')")
    two = Two(world, UnitPath(VANG))
    told: Any = two.child.told_digests
    await Digester(two.child).round()
    await two.run()
    assert {scope for _peer, scope in told} >= {VANG}
    assert isinstance(two.child, Node)
