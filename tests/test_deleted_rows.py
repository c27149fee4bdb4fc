"""What becomes of deleted rows: beside an edit, restored, and entered again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.storage import review
from node.storage.tables import NOW_MS
from tests.test_sealing import digest
from tests.world import SHIPPED, World, WorldNode

HUE, VANG, VN = "hue.vn", "phu-vang.hue.vn", "vn"
ALL = (VANG, HUE, VN)
FIELDS = (
    "full_name, birth_date, sex, languages, address_line, address_commune, address_province, admitted_on, status, note"
)
CARD: tuple[Any, ...] = (
    "Lê Văn Cừ", "1960-02", "nam", '["Anh","Nga"]', "Tổ 4", "Phú Mỹ", "Huế", "1985-05-19", "official", "thẻ cũ",
)  # fmt: skip


def world_with(folder: Path, delete: str) -> World:
    """One member with a full card at three levels; ``delete`` is the table's policy."""
    toml = SHIPPED.replace('delete = "review"', f'delete = "{delete}"', 1)
    assert delete in toml
    world = World(folder, registry=toml)
    marks = ", ".join("?" * (2 + len(CARD)))
    world.node(VANG).sql(f"INSERT INTO member (unit, id, {FIELDS}) VALUES ({marks})", VANG, "17", *CARD)
    world.settle(2)
    return world


def cards(node: WorldNode) -> list[tuple[Any, ...]]:
    return node.sql(f"SELECT {FIELDS} FROM member WHERE id = '17'")


def clock(node: WorldNode) -> int:
    """What captured edits are timed by, in milliseconds."""
    return int(node.sql(f"SELECT {NOW_MS}")[0][0])


def conflicts(node: WorldNode) -> list[tuple[int, str, str]]:
    with node.read() as connection:
        found = review.conflicts(connection, node.context)
    return [(each["id"], each["field"], each["state"]) for each in found if each["state"] != "overwritten"]


POLICIES = {
    "review: the row stays, and a person decides": ("review", True, "open"),
    "keep: the row stays": ("keep", True, "settled"),
    "delete: the row goes": ("delete", False, "settled"),
}


@pytest.mark.parametrize(("delete", "stays", "state"), POLICIES.values(), ids=POLICIES)
def test_a_delete_beside_an_edit(tmp_path: Path, delete: str, stays: bool, state: str) -> None:
    world = world_with(tmp_path, delete)
    world.node(VANG).sql("DELETE FROM member WHERE id = '17'")
    world.node(HUE).sql("UPDATE member SET note = 'vừa sửa' WHERE id = '17'")
    world.settle(3)
    expected = [(*CARD[:-1], "vừa sửa")] if stays else []
    journals = {tuple(conflicts(world.node(unit))) for unit in ALL}
    assert [cards(world.node(unit)) for unit in ALL] == [expected] * 3
    ((conflict,),) = journals
    assert conflict[1:] == ("_alive", state)
    assert digest(world.node(VANG)) == digest(world.node(HUE))


def test_a_row_that_an_edit_brings_back_may_be_deleted_for_good(tmp_path: Path) -> None:
    world = world_with(tmp_path, "review")
    world.node(VANG).sql("DELETE FROM member WHERE id = '17'")
    world.node(HUE).sql("UPDATE member SET note = 'vừa sửa' WHERE id = '17'")
    world.settle(3)
    world.node(VANG).sql("DELETE FROM member WHERE id = '17'")
    world.settle(3)
    assert [cards(world.node(unit)) for unit in ALL] == [[]] * 3
    assert {conflicts(world.node(unit))[0][2] for unit in ALL} == {"settled"}


LIVES = {"the same person": "Lê Văn Cừ", "another person": "Ngô Thị Dần"}


@pytest.mark.parametrize("name", LIVES.values(), ids=LIVES)
@pytest.mark.parametrize("at_once", [True, False], ids=["before it was sealed", "long after"])
def test_a_key_entered_again_is_a_new_life(tmp_path: Path, name: str, at_once: bool) -> None:
    """Nothing of the former life is shown: a field that the new one leaves empty is empty."""
    world = world_with(tmp_path, "review")
    node = world.node(VANG)
    node.sql("DELETE FROM member WHERE id = '17'")
    if not at_once:
        world.settle(2)
        assert [cards(world.node(unit)) for unit in ALL] == [[]] * 3
    node.sql(
        "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, '17', ?, '1960-02', 'nam')", VANG, name
    )
    world.settle(3)
    assert [cards(world.node(unit)) for unit in ALL] == [[(name, "1960-02", "nam", *[None] * 7)]] * 3
    assert [conflicts(world.node(unit)) for unit in ALL] == [[]] * 3
    assert digest(world.node(VANG)) == digest(world.node(HUE))


def test_an_edit_of_the_former_life_stands_beside_the_new_one(tmp_path: Path) -> None:
    """Who edited had not heard of the delete: nothing is lost, all agree, the later of the two notes is shown."""
    world = world_with(tmp_path, "review")
    world.node(HUE).sql("UPDATE member SET note = 'ở tỉnh' WHERE id = '17'")
    node = world.node(VANG)
    before = clock(world.node(HUE))
    while clock(node) <= before:  # a machine's clock may be set back, and then both edits are of one time
        pass
    node.sql("DELETE FROM member WHERE id = '17'")
    node.sql(
        "INSERT INTO member (unit, id, full_name, birth_date, sex, note) VALUES (?, '17', ?, '1960-02', 'nam', 'mới')",
        VANG,
        "Lê Văn Cừ",
    )
    world.settle(3)
    assert {tuple(cards(world.node(unit))) for unit in ALL} == {((*CARD[:3], *[None] * 6, "mới"),)}
    assert {tuple(each[1:] for each in conflicts(world.node(unit))) for unit in ALL} == {(("note", "settled"),)}
