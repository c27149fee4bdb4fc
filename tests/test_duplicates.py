"""Persons entered twice: found by the numbers that belong to one person, at the lowest unit that can see both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.cli.duplicates import show_duplicates
from node.commands.duplicates import duplicates
from node.storage import duplicates as storage
from node.storage.duplicates import lowest_common
from node.storage.engine import execute
from sync_engine.errors import BadInput
from tests.test_dump import opened
from tests.world import SHIPPED, World, WorldNode

VN, HUE, QUANG = "vn", "hue.vn", "quang-nam.vn"
VANG, LOC = "phu-vang.hue.vn", "phu-loc.hue.vn"
ONE, TWO = "046070000001", "046070000002"
AN = {"Họ và tên khai sinh": "Trần An", "Ngày sinh": "1970-05", "Giới tính": "nam"}

REGISTRY = (
    SHIPPED
    + """
[tables.award]
label = "Khen thưởng"
[tables.award.fields]
number = { type = "int", label = "Số", identifies = true }
paper = { type = "text", label = "Giấy", identifies = true }
[tables.note]
[tables.note.fields]
text = { type = "text" }
"""
)


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, registry=REGISTRY)
    for unit in (VANG, LOC, QUANG):
        world.node(unit)
    world.settle(1)
    yield world
    for node in world.nodes.values():
        node.engine.dispose()


def enter(world: World, unit: str, key: str, number: str | None, name: str = "Trần An", at: str | None = None) -> None:
    world.node(at or unit).sql(
        "INSERT INTO member (unit, id, full_name, birth_date, sex, citizen_id) VALUES (?, ?, ?, '1970-05', 'nam', ?)",
        *(unit, key, name, number),
    )


def answer(node: WorldNode, **arguments: Any) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        one = opened(node, node.path.parent)
        try:
            return await duplicates(one, arguments, lambda _said: None)
        finally:
            await one.database.close()

    return asyncio.run(ask())


def listed(node: WorldNode, **arguments: Any) -> list[tuple[Any, ...]]:
    """(value, where, the rows' keys) of each."""
    found = answer(node, **arguments)["found"]
    return [(one["value"], one["at"], [(row["unit"], row["key"]) for row in one["rows"]]) for one in found]


def everywhere(world: World, **arguments: Any) -> dict[str, list[tuple[Any, ...]]]:
    found = {unit: listed(node, **arguments) for unit, node in world.nodes.items()}
    return {unit: each for unit, each in found.items() if each}


def test_one_number_in_two_districts_is_found_at_their_province_alone(world: World) -> None:
    enter(world, VANG, "1", ONE)
    enter(world, LOC, "9", ONE)
    world.settle(3)
    assert everywhere(world) == everywhere(world, all=True) == {HUE: [(ONE, HUE, [(LOC, "9"), (VANG, "1")])]}


def test_one_number_twice_in_a_unit_is_that_units_to_look_at(world: World) -> None:
    enter(world, VANG, "1", ONE)
    enter(world, VANG, "2", ONE)
    world.settle(3)
    found = [(ONE, VANG, [(VANG, "1"), (VANG, "2")])]
    assert everywhere(world) == {VANG: found}
    assert everywhere(world, all=True) == {VANG: found, HUE: found}


def test_each_unit_is_told_of_what_no_lower_one_sees_whole(world: World) -> None:
    """Two in one district, a third in another: the district settles its two, the province all three."""
    enter(world, VANG, "1", ONE)
    enter(world, VANG, "2", ONE)
    enter(world, LOC, "1", ONE)
    enter(world, HUE, "1", TWO)
    enter(world, LOC, "2", TWO)
    world.settle(3)
    assert everywhere(world) == {
        VANG: [(ONE, VANG, [(VANG, "1"), (VANG, "2")])],
        HUE: [(ONE, HUE, [(LOC, "1"), (VANG, "1"), (VANG, "2")]), (TWO, HUE, [(HUE, "1"), (LOC, "2")])],
    }


def test_what_nobody_above_may_read_is_not_found(world: World) -> None:
    """Districts of two provinces: only the centre stands above both, and may not read the number."""
    enter(world, VANG, "1", ONE)
    enter(world, "tam-ky.quang-nam.vn", "1", ONE)
    world.settle(3)
    assert world.node(VN).sql("SELECT count(*), max(citizen_id) FROM member") == [(2, None)]
    assert everywhere(world, all=True) == {}


def test_a_field_that_all_read_is_compared_at_the_centre(world: World) -> None:
    for unit in (VANG, QUANG):
        world.node(unit).sql("INSERT INTO award (unit, id, number, paper) VALUES (?, '1', 7, 'A')", unit)
    world.node(LOC).sql("INSERT INTO award (unit, id, number, paper) VALUES (?, '1', 8, '')", LOC)
    world.node(QUANG).sql("INSERT INTO award (unit, id, number, paper) VALUES (?, '2', NULL, '')", QUANG)
    world.settle(3)
    where = [(VANG, "1"), (QUANG, "1")]
    assert everywhere(world) == {VN: [(7, VN, where), ("A", VN, where)]}
    (number, paper) = answer(world.node(VN), table="khen thưởng")["found"]
    assert (number["field"], number["label"], paper["field"], number["rows"][0]["row"]) == ("number", "Số", "paper", {})


def test_no_number_is_nobodys(world: World) -> None:
    enter(world, VANG, "1", None)
    enter(world, VANG, "2", None)
    assert everywhere(world, all=True) == {}


def test_a_deleted_or_corrected_record_shares_nothing_any_more(world: World) -> None:
    for key, number in (("1", ONE), ("2", ONE), ("3", TWO), ("4", TWO)):
        enter(world, VANG, key, number)
    world.settle(3)
    assert [value for value, *_ in listed(world.node(VANG))] == [ONE, TWO]
    world.node(VANG).sql("DELETE FROM member WHERE id = '1'")
    world.node(HUE).sql("UPDATE member SET citizen_id = '046070000003' WHERE id = '3'")
    world.settle(3)
    assert everywhere(world, all=True) == {}


def test_a_person_who_waits_hidden_behind_another_does_not_count(world: World) -> None:
    enter(world, VANG, "1", ONE)
    world.now += 1000
    enter(world, VANG, "1", ONE, name="Lê Bình", at=HUE)
    world.settle(3)
    rows = world.node(HUE).sql("SELECT count(*) FROM _row WHERE tbl = 11")
    assert rows == [(2,)]
    assert everywhere(world, all=True) == {}


def test_the_answer_tells_the_persons_apart(world: World) -> None:
    enter(world, VANG, "1", ONE)
    enter(world, LOC, "9", ONE, name="Trần Văn An")
    world.settle(3)
    assert answer(world.node(HUE)) == {
        "found": [
            {
                "table": "member", "field": "citizen_id", "label": "Số định danh cá nhân", "value": ONE, "at": HUE,
                "count": 2,
                "rows": [
                    {"unit": LOC, "key": "9", "row": {**AN, "Họ và tên khai sinh": "Trần Văn An"}},
                    {"unit": VANG, "key": "1", "row": AN},
                ],
            }
        ],
        "more": False,
        "fields": 3,
        "dates": {"member": ["Ngày sinh"], "award": []},
    }  # fmt: skip


def test_people_read_whose_record_it_is_and_what_to_do(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    enter(world, VANG, "1", ONE)
    enter(world, LOC, "9", ONE, name="Trần Văn An")
    world.settle(3)
    show_duplicates(answer(world.node(HUE)), below=False)
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert lines[0] == f"Số định danh cá nhân {ONE} 2 records of {HUE} and the units below it".split()
    assert lines[1] == [LOC, "9", "Trần", "Văn", "An", "05/1970", "nam"]
    assert lines[2] == [VANG, "1", "Trần", "An", "05/1970", "nam"]
    assert " ".join(said.split()).endswith("Nothing is blocked or deleted by itself.")


@pytest.mark.parametrize(
    ("arguments", "words"), [({}, "--all looks at the units below as well"), ({"all": True}, "in two records here")]
)
def test_nothing_found_is_said_so(
    world: World, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], words: str
) -> None:
    show_duplicates(answer(world.node(VANG), **arguments), below=bool(arguments))
    assert words in " ".join(capsys.readouterr().out.split())


def many(world: World, of_each: int = 2, count: int = 7) -> WorldNode:
    node = world.node(HUE)
    with node.write() as connection:
        for at in range(count * of_each):
            sql = "INSERT INTO award (unit, id, number) VALUES (?, ?, ?)"
            execute(connection, sql, ((HUE, VANG, LOC)[at % 3], f"{at:03}", at // of_each))
    return node


@pytest.mark.parametrize("below", [False, True])
def test_pages_come_to_the_same_list(world: World, monkeypatch: pytest.MonkeyPatch, below: bool) -> None:
    node = many(world)
    whole = listed(node, table="award", all=below)
    assert [value for value, *_ in whole] == list(range(7))
    for size in (1, 2, 6, 7, 8):
        monkeypatch.setattr(storage, "VALUES_AT_ONCE", size)
        assert listed(node, table="award", all=below) == whole
        assert listed(node, table="award", all=below, limit=3) == whole[:3]


def test_a_long_list_is_cut_and_says_so(world: World) -> None:
    node = many(world)
    assert [answer(node, limit=limit)["more"] for limit in (6, 7, 8)] == [True, False, False]
    many_rows = storage.ROWS_KEPT + 5
    for at in range(many_rows):
        enter(world, VANG, f"{at:02}", ONE, at=HUE)
    (one,) = answer(node, table="member", all=True)["found"]
    assert (one["count"], len(one["rows"]), one["at"]) == (many_rows, storage.ROWS_KEPT, VANG)


@pytest.mark.parametrize("table", ["note", "nothing"])
def test_a_table_that_has_no_such_field_is_refused(world: World, table: str) -> None:
    with pytest.raises(BadInput):
        answer(world.node(VANG), table=table)


COMMON = {
    "one unit": (VANG, VANG, VANG),
    "two of one parent": (VANG, LOC, HUE),
    "a unit and the one above": (VANG, HUE, HUE),
    "a unit and the root": (VN, LOC, VN),
    "two provinces": (VANG, QUANG, VN),
    "names that end alike": ("hue.vn", "thua-hue.vn", VN),
}


@pytest.mark.parametrize(("one", "other", "common"), COMMON.values(), ids=COMMON)
def test_the_lowest_unit_above_both(one: str, other: str, common: str) -> None:
    assert lowest_common(one, other) == lowest_common(other, one) == common
