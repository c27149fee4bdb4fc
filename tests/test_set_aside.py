"""Rows that may not travel stay here, whole, with all that was noted of them."""

from __future__ import annotations

import pytest

from node.storage.engine import execute
from tests.test_registry_change import NEXT, equal, publish, version
from tests.test_sealing import agree, aside, by_another_client, insert
from tests.world import World

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"


BESIDE = {
    "too long": "CAST(zeroblob(1100000) AS TEXT)",
    "not UTF-8": "CAST(x'FF' AS TEXT)",
    "a missed value": "'no date'",
}


@pytest.mark.parametrize("value", BESIDE.values(), ids=BESIDE)
def test_one_that_took_the_place_of_a_deleted_row_stays_here_too(world: World, value: str) -> None:
    vang = world.node(VANG)
    insert(vang)
    agree(world, "full_name")
    vang.sql("DELETE FROM member")
    insert(vang, full_name="Trần Văn Khác")
    with vang.write() as connection:
        execute(connection, "UPDATE _capture SET applying = 1")
        name = "admitted_on" if "date" in value else "note"
        execute(connection, f"UPDATE member SET {name} = {value}")
        execute(connection, "UPDATE _capture SET applying = 0")
    world.sync(VANG)
    assert vang.sql("SELECT full_name FROM member") == [("Trần Văn Khác",)]
    assert len(aside(vang)) == 1
    by_another_client(vang, f"UPDATE member SET {name} = '2020-01-02'")
    assert agree(world, "full_name", name) == [("Trần Văn Khác", "2020-01-02")]


LONG = "x" * 1_100_000
EARLIER = NEXT.replace("full_name =", 'aaa = { type = "text" }\nfull_name =', 1)
WIDE = NEXT.replace("full_name =", "".join(f'f{at} = {{ type = "int" }}\n' for at in range(40)) + "full_name =", 1)


@pytest.mark.parametrize(
    "toml", [EARLIER, WIDE], ids=["a field before all others", "more registers than a word has bits"]
)
def test_a_row_set_aside_before_travels_after_as_it_was_edited(world: World, toml: str) -> None:
    vang = world.node(VANG)
    for key in "12":
        insert(vang, key, languages='["Anh"]')
    world.settle(2)
    vang.sql("UPDATE member SET note = ?, home_town = 'y', languages = '[\"Nga\"]'", LONG)
    vang.sql("UPDATE member SET birth_place = 'z' WHERE id = '1'")
    vang.sql("DELETE FROM member WHERE id = '2'")
    insert(vang, "2", note=LONG, full_name="Người Khác")
    vang.seal()
    assert [key for key, _ in aside(vang)] == ["1", "2"]
    publish(world, toml)
    world.node(HUE).sql("UPDATE member SET cell = 'c', other_name = 'Hai' WHERE id = '1'")
    world.settle(2)
    assert version(vang) == 2
    vang.sql("UPDATE member SET note = 'short'")
    query = "SELECT id, full_name, note, home_town, birth_place, languages, cell, other_name FROM member ORDER BY id"
    assert equal(world, query) == [
        ("1", "Nguyễn Thị Mẫu", "short", "y", "z", '["Nga"]', "c", "Hai"),
        ("2", "Người Khác", "short", None, None, None, None, None),
    ]
