"""The root publishes the next version, or nothing has happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.storage.publishing import NotPublished, NotTheRoot, PlanChanged, publish
from sync_engine.errors import RegistryError
from sync_engine.registry import parse_registry
from tests.test_registry_change import AWARDS, NEXT, version
from tests.test_sealing import insert
from tests.world import World

HUE, ROOT, VANG = "hue.vn", "vn", "phu-vang.hue.vn"


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.node(HUE)
    yield world
    for node in world.nodes.values():
        node.engine.dispose()


def publish_at(world: World, unit: str, toml: str, planned_from: int = 1) -> None:
    node = world.node(unit)
    with node.write() as connection:
        publish(connection, node.context, parse_registry(toml), planned_from)


def test_it_is_in_force_at_once_and_seals_what_was_pending_before(world: World) -> None:
    world.node(VANG)
    world.settle(1)
    insert(world.node(ROOT))
    publish_at(world, ROOT, AWARDS)
    assert version(world.node(ROOT)) == 2
    assert world.node(ROOT).sql("SELECT registry FROM _batch ORDER BY no DESC LIMIT 2") == [(0,), (1,)]
    world.settle(1)
    assert version(world.node(HUE)) == 2


REFUSED = {
    "at another unit": (HUE, NEXT, 1, NotTheRoot, "only the root publishes"),
    "another plan": (ROOT, NEXT, 7, PlanChanged, "version 1 is in force now"),
    "the same number": (ROOT, NEXT.replace("version = 2", "version = 1"), 1, RegistryError, "more than 1"),
    "a value taken away": (ROOT, NEXT.replace('"nam", "nữ"', '"nam"'), 1, RegistryError, "taken away"),
}


@pytest.mark.parametrize(("unit", "toml", "planned", "fault", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing_behind(
    world: World, unit: str, toml: str, planned: int, fault: type[Exception], words: str
) -> None:
    with pytest.raises(fault, match=words):
        publish_at(world, unit, toml, planned)
    assert world.node(unit).sql("SELECT id FROM _registry") == [("1",)]
    assert version(world.node(unit)) == 1
    publish_at(world, ROOT, AWARDS)
    assert world.node(ROOT).sql("SELECT 1 FROM award") == [], "not the text that was refused under this number"


def test_a_number_that_plain_sql_has_used_up_is_named(world: World) -> None:
    root = world.node(ROOT)
    root.sql("INSERT INTO _registry (unit, id, toml) VALUES ('vn', '2', 'no registry')")
    root.seal()
    with pytest.raises(NotPublished, match="number 2 stands in _registry already") as caught:
        publish_at(world, ROOT, AWARDS)
    assert caught.value.hint == "give this one the number 3"
    publish_at(world, ROOT, AWARDS.replace("version = 2", "version = 3"))
    assert version(root) == 3
