"""Persons' decisions about conflicts: each is an ordinary signed edit that travels, ends the conflict everywhere, and
can be overturned; two people under one id each get a row; and what a stale screen wrote over is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.storage.decisions import Choice, NotDecided, resolve
from node.storage.review import Wanted, conflicts, open_count
from sync_engine.errors import BadInput
from tests.test_digest import digest
from tests.test_sealing import insert
from tests.world import World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
ALL = (VANG, HUE, ROOT)
HOUR_MS = 3_600_000


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    insert(world.node(VANG), occupation="giao-vien", phone="1", languages='["Anh"]')
    world.settle(2)
    world.now += 48 * HOUR_MS
    yield world
    for node in world.nodes.values():
        node.engine.dispose()


def both(world: World, column: str, below: Any, above: Any, at: str = HUE) -> None:
    """Two units edit one field without having heard of each other."""
    world.node(VANG).sql(f"UPDATE member SET {column} = ? WHERE id = '1'", below)
    world.node(at).sql(f"UPDATE member SET {column} = ? WHERE id = '1'", above)
    alike(world)


def alike(world: World) -> None:
    world.settle(3)
    assert len({digest(world.node(unit)).digest for unit in ALL}) == 1


def journal(node: WorldNode, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node.look(conflicts, Wanted(**wanted))
    return found


def shown(world: World, column: str) -> set[Any]:
    return {value for unit in ALL for (value,) in world.node(unit).sql(f"SELECT {column} FROM member WHERE id = '1'")}


def the_open_one(world: World) -> int:
    (number,) = {each["id"] for unit in ALL for each in journal(world.node(unit), only_open=True)}
    return int(number)


def decide(world: World, unit: str, number: int, **choice: Any) -> dict[str, Any]:
    told: dict[str, Any] = world.node(unit).rewrite(resolve, Choice(number, **choice))
    alike(world)
    return told


# --- the review queue ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ALL)
@pytest.mark.parametrize("keep", [1, 2])
def test_settling_at_one_level_settles_everywhere(world: World, at: str, keep: int) -> None:
    """Whether it confirms what is shown or not."""
    both(world, "birth_date", "1951", "1952")
    number = the_open_one(world)
    chosen = journal(world.node(at), number=number)[0]["writes"][keep - 1]["value"]
    decide(world, at, number, keep=keep, by="Lan", why="hồ sơ gốc")
    assert shown(world, "birth_date") == {chosen[1]}
    for unit in ALL:
        assert world.node(unit).look(open_count) == 0
        (entry,) = journal(world.node(unit), number=number)
        told = entry["decided"]
        assert entry["state"] == "settled"
        assert (told["act"], told["unit"], told["person"], told["why"]) == ("resolve", at, "Lan", "hồ sơ gốc")
        assert told["value"] == chosen


def test_a_value_that_nobody_wrote_may_be_the_right_one(world: World) -> None:
    both(world, "birth_date", "1951", "1952")
    decide(world, HUE, the_open_one(world), value={"birth_date": "02/09/1953"})
    assert shown(world, "birth_date") == {"1953-09-02"}
    assert shown(world, "full_name") == {"Nguyễn Thị Mẫu"}, "the group's other field stays"


def test_a_wrong_value_is_refused_and_nothing_is_settled(world: World) -> None:
    both(world, "birth_date", "1951", "1952")
    number = the_open_one(world)
    for choice in ({"value": {"birth_date": "31/02/1953"}}, {"value": "1953"}, {"keep": 3}, {"new_id": "2"}):
        with pytest.raises(BadInput):
            world.node(HUE).rewrite(resolve, Choice(number, **choice))
    assert the_open_one(world) == number


@pytest.mark.parametrize(("keep", "stays"), [(True, True), (False, False)])
def test_a_delete_beside_an_edit_is_settled_either_way(world: World, keep: bool, stays: bool) -> None:
    world.node(VANG).sql("DELETE FROM member WHERE id = '1'")
    world.node(HUE).sql("UPDATE member SET note = 'x' WHERE id = '1'")
    alike(world)
    number = the_open_one(world)
    (entry,) = journal(world.node(ROOT), number=number)
    n = next(each["n"] for each in entry["writes"] if each["value"] is keep)
    decide(world, ROOT, number, keep=n)
    assert bool(shown(world, "note")) is stays
    assert [journal(world.node(unit), only_open=True) for unit in ALL] == [[], [], []]


def test_a_deleted_row_asks_nothing_more_and_no_decision_brings_it_back(world: World) -> None:
    both(world, "status", "probationary", "official")
    world.node(HUE).sql("UPDATE member SET birth_date = '1951' WHERE id = '1'")
    world.node(ROOT).sql("UPDATE member SET birth_date = '1952' WHERE id = '1'")
    world.node(VANG).sql("DELETE FROM member WHERE id = '1'")
    alike(world)
    waits = {each["field"]: each for each in journal(world.node(VANG), only_open=True)}
    assert waits.keys() == {"identity", "_alive"}
    delete = next(each["n"] for each in waits["_alive"]["writes"] if not each["value"])
    decide(world, VANG, waits["_alive"]["id"], keep=delete)
    assert [world.node(unit).look(open_count) for unit in ALL] == [0, 0, 0]
    for entry in journal(world.node(HUE)):
        if entry["field"] in ("identity", "status"):
            decide(world, HUE, entry["id"], keep=1)
    assert shown(world, "id") == set()


def test_what_a_policy_settled_can_be_overturned_and_overturned_again(world: World) -> None:
    both(world, "status", "probationary", "official")
    assert shown(world, "status") == {"official"}
    (entry,) = [each for each in journal(world.node(VANG)) if each["field"] == "status"]
    values = {each["value"]: each["n"] for each in entry["writes"]}
    for value in ("probationary", "official", "probationary"):
        told = decide(world, VANG, entry["id"], keep=values[value], why="decision 12")
        assert told["overturned"]
        assert shown(world, "status") == {value}
        for unit in ALL:
            (entry,) = journal(world.node(unit), number=entry["id"])
            assert (entry["state"], entry["decided"]["act"]) == ("overturned", "overturn")


def test_two_levels_that_settle_apart_open_it_again_and_nothing_is_lost(world: World) -> None:
    both(world, "birth_date", "1951", "1952")
    number = the_open_one(world)
    for unit, keep in ((VANG, 1), (ROOT, 2)):
        world.node(unit).rewrite(resolve, Choice(number, keep=keep))
    alike(world)
    again = the_open_one(world)
    assert again != number
    decide(world, HUE, again, keep=1)
    assert [journal(world.node(unit), only_open=True) for unit in ALL] == [[], [], []]


def test_a_level_settles_only_what_it_may_change(world: World) -> None:
    both(world, "citizen_id", "999000000001", "999000000002")
    assert [len(journal(world.node(unit), only_open=True)) for unit in ALL] == [1, 1, 0]
    number = the_open_one(world)
    with pytest.raises(NotDecided, match="no conflict"):
        world.node(ROOT).rewrite(resolve, Choice(number, keep=1))
    both(world, "card_issued_on", None, "2020-01-01")
    decide(world, HUE, number, keep=1)


def test_a_reason_goes_only_to_those_who_may_read_what_it_is_about(world: World) -> None:
    both(world, "citizen_id", "999000000001", "999000000002")
    decide(world, HUE, the_open_one(world), keep=1, why="~the reason~")
    files = {unit: b"".join(each.read_bytes() for each in world.folder.glob(f"{unit}.db*")) for unit in ALL}
    assert journal(world.node(VANG), field="citizen_id")[0]["decided"]["why"] == "~the reason~"
    assert b"~the reason~" not in files[ROOT]
    assert b"999000000001" not in files[ROOT]


def test_a_set_is_settled_by_itself_and_an_element_can_be_brought_back(world: World) -> None:
    world.node(VANG).sql("UPDATE member SET languages = '[\"Pháp\"]'")
    world.node(HUE).sql('UPDATE member SET languages = \'["Anh","Nga"]\'')
    alike(world)
    assert shown(world, "languages") == {'["Nga","Pháp"]'}
    (entry,) = journal(world.node(HUE), field="languages") or [None]
    assert entry is None or entry["state"] == "settled"


def test_the_journal_is_filtered(world: World) -> None:
    both(world, "birth_date", "1951", "1952")
    both(world, "note", "a", "b")
    node, began = world.node(HUE), world.now
    world.now += HOUR_MS
    both(world, "status", "official", "exempt")
    assert {each["field"] for each in journal(node)} == {"identity", "note", "status"}
    assert [each["field"] for each in journal(node, field="birth_date")] == ["identity"]
    assert [each["field"] for each in journal(node, since_ms=began + 1)] == ["status"]
    assert journal(node, unit="a-luoi.hue.vn") == []
    assert len(journal(node, unit=VANG, table="member")) == 3


def test_what_ended_long_ago_is_forgotten_and_what_is_open_never(world: World) -> None:
    both(world, "birth_date", "1951", "1952")
    both(world, "note", "a", "b")
    world.node(HUE).sql("UPDATE member SET note = 'c'")
    alike(world)
    world.now += 401 * 24 * HOUR_MS
    both(world, "status", "official", "exempt")
    assert {each["field"] for each in journal(world.node(ROOT))} == {"identity", "status"}


# --- two people under one id -----------------------------------------------------------------------------------------

OTHER = {"full_name": "Trần Thị Thử", "birth_date": "1960", "sex": "nữ"}


def twins(world: World) -> int:
    insert(world.node(VANG), "2", note="district", phone="2", languages='["Nga"]')
    insert(world.node(HUE), "2", **OTHER, note="province", phone="3")
    alike(world)
    return the_open_one(world)


def test_the_one_who_waits_stands_in_review_with_the_whole_row(world: World) -> None:
    number = twins(world)
    for unit in ALL:
        (entry,) = journal(world.node(unit), number=number)
        waits = next(each["value"] for each in entry["writes"] if not each["won"])
        assert entry["field"] == "_twin"
        assert waits["Họ và tên khai sinh"] in ("Nguyễn Thị Mẫu", "Trần Thị Thử")
        assert ("Điện thoại" in waits) is (unit != ROOT)
    assert [each["may_settle"] for unit in ALL for each in journal(world.node(unit), number=number)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("new_id", ["3", ""])
def test_who_gets_an_id_of_their_own_is_a_row_like_any_other(world: World, new_id: str) -> None:
    number = twins(world)
    told = decide(world, VANG, number, new_id=new_id, by="Lan")
    key = told["value"]
    assert key == (new_id or key)
    for unit in ALL:
        rows = world.node(unit).sql("SELECT id, full_name, note, languages FROM member WHERE id <> '1' ORDER BY note")
        assert {row[1:] for row in rows} == {
            ("Nguyễn Thị Mẫu", "district", '["Nga"]'),
            ("Trần Thị Thử", "province", None),
        }
        assert {row[0] for row in rows} == {"2", key}
        assert journal(world.node(unit), only_open=True) == []
        (entry,) = journal(world.node(unit), number=number)
        assert (entry["state"], entry["decided"]["act"]) == ("settled", "rename")
    assert world.node(HUE).sql("SELECT phone FROM member WHERE id <> '1' ORDER BY phone") == [("2",), ("3",)]


def test_an_id_that_is_taken_or_was_is_refused(world: World) -> None:
    number = twins(world)
    insert(world.node(VANG), "9")
    world.node(VANG).sql("DELETE FROM member WHERE id = '9'")
    alike(world)
    for key in ("1", "2"):
        with pytest.raises(NotDecided, match="another record's"):
            world.node(VANG).rewrite(resolve, Choice(number, new_id=key))


# --- overwritten -----------------------------------------------------------------------------------------------------


def overwritten(node: WorldNode) -> list[tuple[str, Any, Any]]:
    return [
        (each["field"], *(write["value"] for write in sorted(each["writes"], key=lambda one: one["won"])))
        for each in journal(node)
        if each["state"] == "overwritten"
    ]


def test_a_stale_form_that_writes_over_what_just_came_is_told_with_both_values(world: World) -> None:
    world.node(HUE).sql("UPDATE member SET occupation = 'bac-si', note = 'from above'")
    alike(world)
    world.now += 23 * HOUR_MS
    world.node(VANG).sql("UPDATE member SET occupation = 'giao-vien', note = NULL, phone = '9'")
    alike(world)
    assert sorted(overwritten(world.node(VANG))) == [
        ("note", "from above", None),
        ("occupation", "bac-si", "giao-vien"),
    ]
    assert overwritten(world.node(HUE)) == []
    (entry,) = journal(world.node(VANG), field="occupation")
    decide(world, VANG, entry["id"], keep=next(each["n"] for each in entry["writes"] if each["value"] == "bac-si"))
    assert shown(world, "occupation") == {"bac-si"}


def test_what_came_in_a_whole_row_counts_as_well(world: World) -> None:
    insert(world.node(HUE), "2", note="entered above", languages='["Nga"]')
    alike(world)
    world.node(VANG).sql("UPDATE member SET note = 'below', languages = NULL, phone = '5' WHERE id = '2'")
    world.node(VANG).seal()
    assert sorted(overwritten(world.node(VANG)), key=repr) == [
        ("languages:Nga", True, False),
        ("note", "entered above", "below"),
    ]


def test_what_came_long_ago_and_ones_own_values_are_simply_edited(world: World) -> None:
    world.node(HUE).sql("UPDATE member SET note = 'from above'")
    alike(world)
    world.now += 25 * HOUR_MS
    world.node(VANG).sql("UPDATE member SET note = 'mine'")
    alike(world)
    world.node(VANG).sql("UPDATE member SET note = 'mine again'")
    alike(world)
    assert overwritten(world.node(VANG)) == []


def test_a_row_deleted_over_an_edit_that_just_came_is_told(world: World) -> None:
    world.node(HUE).sql("UPDATE member SET note = 'from above'")
    alike(world)
    world.node(VANG).sql("DELETE FROM member WHERE id = '1'")
    alike(world)
    assert overwritten(world.node(VANG)) == [("_alive", True, False)]
