"""A row's life from the signed batches, and who made an edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.storage import review
from node.storage.engine import execute
from node.storage.history import history
from sync_engine.errors import BadInput
from tests.world import World, WorldNode

HUE, VANG, LOC, VN = "hue.vn", "phu-vang.hue.vn", "phu-loc.hue.vn", "vn"
NEW = (
    "INSERT INTO member (unit, id, full_name, birth_date, sex, phone, edited_by)"
    " VALUES (?, '17', 'Trần Thị Bưởi', '1975', 'nữ', '0912', 'Lan')"
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.node(VANG).sql(NEW, VANG)
    world.settle(2)
    return world


def told(node: WorldNode, key: str = "17", unit: str | None = None) -> list[tuple[Any, ...]]:
    with node.read() as connection:
        found = history(connection, node.context, "member", key, unit)
    assert found["damaged"] == found["unknown"] == 0
    assert all(each["proven"] for each in found["events"])
    return [(each["kind"], each["unit"], each["person"], each["changes"]) for each in found["events"]]


def test_a_life_is_told_alike_on_every_level(world: World) -> None:
    vang, hue = world.node(VANG), world.node(HUE)
    hue.sql("UPDATE member SET status = 'official', edited_by = 'Minh' WHERE id = '17'")
    world.settle(2)
    world.now += 1000
    vang.sql("""UPDATE member SET languages = '["Anh"]', edited_by = NULL WHERE id = '17'""")
    world.settle(2)
    world.now += 1000
    hue.sql("DELETE FROM member WHERE id = '17'")
    world.settle(2)
    entered = {"full_name": "Trần Thị Bưởi", "birth_date": "1975", "sex": "nữ", "phone": "0912"}
    expected = [
        ("insert", VANG, "Lan", entered),
        ("edit", HUE, "Minh", {"status": "official"}),
        ("edit", VANG, None, {"languages": {"added": ["Anh"], "removed": []}}),
        ("delete", HUE, None, {}),
    ]
    assert told(vang) == told(hue) == expected
    del entered["phone"]
    assert told(world.node(VN)) == expected


def test_what_a_level_may_not_read_is_said_so(world: World) -> None:
    node = world.node(VN)
    with node.read() as connection:
        (event,) = history(connection, node.context, "member", "17", None)["events"]
    assert event["withheld"] == ["phone"]


def test_the_same_id_in_two_units_asks_which(world: World) -> None:
    world.node(LOC).sql(NEW.replace("Bưởi", "Cam"), LOC)
    world.settle(2)
    hue = world.node(HUE)
    with pytest.raises(BadInput, match="2 units"):
        told(hue)
    assert told(hue, unit="phu-loc")[0][3]["full_name"] == told(hue, unit=LOC)[0][3]["full_name"] == "Trần Thị Cam"


@pytest.mark.parametrize(
    ("table", "key", "unit"), [("nothing", "17", None), ("member", "18", None), ("member", "17", "xa")]
)
def test_what_is_not_there_is_refused_in_words(world: World, table: str, key: str, unit: str | None) -> None:
    node = world.node(HUE)
    with node.read() as connection, pytest.raises(BadInput):
        history(connection, node.context, table, key, unit)


def test_a_damaged_batch_is_counted_and_the_rest_is_told(world: World) -> None:
    node = world.node(VANG)
    node.sql("UPDATE member SET note = 'x' WHERE id = '17'")
    node.seal()
    with node.write() as connection:
        sql = "UPDATE _batch SET data = substr(data, 1, length(data) - 9) WHERE no = (SELECT max(no) FROM _batch)"
        execute(connection, sql)
    with node.read() as connection:
        found = history(connection, node.context, "member", "17", None)
    assert found["damaged"] == 1
    assert [each["kind"] for each in found["events"]] == ["insert"]


def test_a_conflict_names_the_persons(world: World) -> None:
    world.node(VANG).sql("UPDATE member SET status = 'exempt', edited_by = 'Lan' WHERE id = '17'")
    world.node(HUE).sql("UPDATE member SET status = 'official', edited_by = 'Minh' WHERE id = '17'")
    world.settle(2)
    for unit in (VANG, HUE, VN):
        node = world.node(unit)
        with node.read() as connection:
            (conflict,) = review.conflicts(connection, node.context)
        persons = {write["value"]: write["person"] for write in conflict["writes"]}
        assert persons == {"exempt": "Lan", "official": "Minh"}
