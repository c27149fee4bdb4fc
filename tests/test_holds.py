"""Values that are held: in their registers like any other, out of sight until a code has come or a person decided."""

from __future__ import annotations

from typing import Any

import pytest

from node.storage.decisions import NotDecided, refuse, release
from node.storage.inbox import Taken
from node.storage.review import Wanted, conflicts, quarantine
from sync_engine.registry import parse_registry
from tests.forging import PERSON, Stream, rows
from tests.test_digest import digest
from tests.test_sealing import insert
from tests.world import SHIPPED, World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
ALL = (VANG, HUE, ROOT)
MEMBER = parse_registry(SHIPPED).tables["member"]


def held(node: WorldNode) -> list[tuple[Any, ...]]:
    told = ("key", "field", "reason", "value", "shown", "origin")
    return [tuple(each[name] for name in told) for each in node.look(quarantine)]


def add_code(node: WorldNode, kind: str, code: str) -> None:
    node.sql("INSERT INTO catalog (unit, id, kind, code) VALUES (?, ?, ?, ?)", node.unit, f"{kind}-{code}", kind, code)


def shown(world: World, column: str) -> set[Any]:
    return {world.node(unit).sql(f"SELECT {column} FROM member WHERE id = '1'")[0][0] for unit in ALL}


def alike(world: World) -> None:
    world.settle(3)
    assert len({digest(world.node(unit)).digest for unit in ALL}) == 1


# --- codes -----------------------------------------------------------------------------------------------------------


def test_an_unknown_code_is_held_alone_and_the_last_good_one_stays(world: World) -> None:
    insert(world.node(VANG), occupation="giao-vien")
    insert(world.node(VANG), "2")
    alike(world)
    world.node(VANG).sql("UPDATE member SET occupation = 'phi-cong', note = 'n' WHERE id = '1'")
    alike(world)
    assert (shown(world, "occupation"), shown(world, "note")) == ({"giao-vien"}, {"n"})
    for unit in ALL:
        assert held(world.node(unit)) == [("1", "occupation", "code", "phi-cong", "giao-vien", VANG)]
    assert len({each["id"] for unit in ALL for each in world.node(unit).look(quarantine)}) == 1, "one number"


@pytest.mark.parametrize("at", [VANG, HUE, ROOT])
def test_it_is_released_by_itself_when_its_code_comes(world: World, at: str) -> None:
    insert(world.node(VANG), occupation="phi-cong")
    alike(world)
    assert shown(world, "occupation") == {None}
    add_code(world.node(at), "profession", "phi-cong")
    alike(world)
    assert shown(world, "occupation") == {"phi-cong"}
    assert [held(world.node(unit)) for unit in ALL] == [[], [], []]


def test_a_code_of_another_branch_is_not_known_here(world: World) -> None:
    insert(world.node(VANG), occupation="phi-cong")
    add_code(world.node("a-luoi.hue.vn"), "profession", "phi-cong")
    alike(world)
    assert shown(world, "occupation") == {None}


def test_a_code_that_was_taken_away_holds_nothing_back(world: World) -> None:
    add_code(world.node(ROOT), "profession", "phi-cong")
    alike(world)
    world.node(ROOT).sql("DELETE FROM catalog WHERE code = 'phi-cong'")
    insert(world.node(VANG), occupation="phi-cong")
    alike(world)
    assert shown(world, "occupation") == {"phi-cong"}


def test_a_later_good_edit_supersedes_a_held_value_which_goes_to_the_journal(world: World) -> None:
    insert(world.node(VANG), occupation="phi-cong")
    alike(world)
    (number,) = {each["id"] for each in world.node(HUE).look(quarantine)}
    world.node(HUE).sql("UPDATE member SET occupation = 'bac-si'")
    alike(world)
    assert shown(world, "occupation") == {"bac-si"}
    for unit in ALL:
        assert held(world.node(unit)) == []
        (entry,) = world.node(unit).look(conflicts, Wanted(number=number))
        assert (entry["state"], [each["value"] for each in entry["writes"] if not each["won"]]) == (
            "superseded",
            ["phi-cong"],
        )


def test_two_unknown_codes_in_turn_come_to_the_same_on_every_node_whichever_code_comes(world: World) -> None:
    insert(world.node(VANG), occupation="giao-vien")
    alike(world)
    for code in ("phi-cong", "thuyen-truong"):
        world.node(VANG).sql("UPDATE member SET occupation = ?", code)
        world.node(VANG).seal()
    alike(world)
    assert shown(world, "occupation") == {"giao-vien"}
    add_code(world.node(ROOT), "profession", "phi-cong")
    alike(world)
    assert shown(world, "occupation") == {"phi-cong"}
    add_code(world.node(HUE), "profession", "thuyen-truong")
    alike(world)
    assert shown(world, "occupation") == {"thuyen-truong"}


# --- rights and rules ------------------------------------------------------------------------------------------------


def rogue(world: World) -> Stream:
    """A district that signs what its own table would refuse."""
    return Stream(world, VANG, epoch="00000000000000ff").certify(world.node(HUE), world.node(ROOT))


def take(world: World, *batches: Any) -> None:
    for unit in (HUE, ROOT):
        for made in batches:
            assert world.node(unit).take(made.data) is Taken.APPLIED


def test_a_field_its_origin_may_not_write_is_held_alone(world: World) -> None:
    stream = rogue(world)
    take(
        world,
        stream.batch(rows(MEMBER, ("1", 10, {**PERSON, "card_number": "1"}), ("2", 10, PERSON), new=True)),
        stream.batch(rows(MEMBER, ("1", 20, {"card_number": "2", "note": "n"}), ("2", 20, {"note": "m"}))),
    )
    for unit in (HUE, ROOT):
        node = world.node(unit)
        assert node.sql("SELECT card_number, note FROM member ORDER BY id") == [("1", "n"), (None, "m")]
        assert held(node) == [("1", "card_number", "right", "2", "1", VANG)]


def test_an_insert_over_a_row_that_is_there_is_no_way_round(world: World) -> None:
    stream = rogue(world)
    take(
        world,
        stream.batch(rows(MEMBER, ("1", 10, {**PERSON, "card_number": "1"}), new=True)),
        stream.batch(rows(MEMBER, ("1", 20, {**PERSON, "card_number": "2", "note": "n"}), new=True)),
        stream.batch(rows(MEMBER, ("1", 30, PERSON), new=True)),
    )
    for unit in (HUE, ROOT):
        assert world.node(unit).sql("SELECT card_number FROM member") == [("1",)]
        assert [each[:4] for each in held(world.node(unit))] == [("1", "card_number", "right", "2")]


def test_a_district_that_enters_a_member_again_keeps_the_provinces_card_number(world: World) -> None:
    insert(world.node(VANG))
    alike(world)
    world.node(HUE).sql("UPDATE member SET card_number = '99.1'")
    alike(world)
    world.node(VANG).sql("DELETE FROM member")
    insert(world.node(VANG), note="again")
    alike(world)
    assert (shown(world, "card_number"), shown(world, "note")) == ({"99.1"}, {"again"})
    assert [held(world.node(unit)) for unit in ALL] == [[], [], []]


BROKEN: dict[str, tuple[str, Any]] = {
    "a word that is not listed": ("status", "retired"),
    "a number that is not listed": ("card_pages", 3),
    "too few digits": ("citizen_id", "123"),
    "nothing where something is required": ("sex", None),
}


@pytest.mark.parametrize(("field", "value"), BROKEN.values(), ids=BROKEN)
def test_a_value_that_breaks_its_rule_is_held_and_stops_nothing(world: World, field: str, value: Any) -> None:
    stream, hue = rogue(world), world.node(HUE)
    take(
        world,
        stream.batch(rows(MEMBER, ("1", 10, PERSON), ("2", 10, PERSON), new=True)),
        stream.batch(rows(MEMBER, ("1", 20, {field: value}), ("2", 20, {"note": "m"}))),
    )
    assert hue.sql("SELECT note FROM member WHERE id = '2'") == [("m",)]
    (found,) = hue.look(quarantine)
    assert (found["reason"], found["value"]) == ("rule", value)
    with pytest.raises(NotDecided, match="breaks the rule"):
        hue.rewrite(release, found["id"], None, None)
    hue.rewrite(refuse, found["id"], "An", "no such value")
    assert hue.look(quarantine) == []


# --- decisions -------------------------------------------------------------------------------------------------------


def hold_a_card(world: World) -> int:
    stream = rogue(world)
    take(
        world,
        stream.batch(rows(MEMBER, ("1", 10, {**PERSON, "card_number": "1"}), new=True)),
        stream.batch(rows(MEMBER, ("1", 20, {"card_number": "2"}))),
    )
    (found,) = world.node(HUE).look(quarantine)
    return int(found["id"])


@pytest.mark.parametrize(("decide", "card"), [(release, "2"), (refuse, "1")], ids=["release", "refuse"])
def test_a_decision_travels_with_its_reason(world: World, decide: Any, card: str) -> None:
    number = hold_a_card(world)
    world.node(HUE).rewrite(decide, number, "Lan", "seen the card")
    world.sync(HUE)
    for unit in (HUE, ROOT):
        node = world.node(unit)
        assert node.sql("SELECT card_number FROM member") == [(card,)]
        assert node.look(quarantine) == []
        (entry,) = node.look(conflicts, Wanted(number=number))
        told = entry["decided"]
        assert (told["act"], told["unit"], told["person"], told["why"]) == (
            decide.__name__,
            HUE,
            "Lan",
            "seen the card",
        )


@pytest.mark.parametrize("decide", [release, refuse])
def test_a_decision_about_a_held_value_brings_no_deleted_row_back(world: World, decide: Any) -> None:
    insert(world.node(VANG), occupation="phi-cong")
    alike(world)
    world.node(VANG).sql("DELETE FROM member WHERE id = '1'")
    alike(world)
    (found,) = world.node(HUE).look(quarantine)
    world.node(HUE).rewrite(decide, found["id"], None, None)
    alike(world)
    assert [world.node(unit).sql("SELECT id FROM member") for unit in ALL] == [[], [], []]
    assert [held(world.node(unit)) for unit in ALL] == [[], [], []]


def test_an_unknown_code_may_be_released_by_hand(world: World) -> None:
    insert(world.node(VANG), occupation="phi-cong")
    alike(world)
    (found,) = world.node(HUE).look(quarantine)
    world.node(HUE).rewrite(release, found["id"], None, None)
    alike(world)
    assert shown(world, "occupation") == {"phi-cong"}
    assert [held(world.node(unit)) for unit in ALL] == [[], [], []]


def test_who_may_not_write_a_field_decides_nothing_about_it(world: World) -> None:
    commune = f"thon.{VANG}"
    stream = Stream(world, commune, scope=commune, epoch="00000000000000ff")
    district = world.node(VANG)
    stream.certify(district)
    district.take(stream.batch(rows(MEMBER, ("1", 10, {**PERSON, "card_number": "1"}), new=True)).data)
    district.take(stream.batch(rows(MEMBER, ("1", 20, {"card_number": "2"}))).data)
    (found,) = district.look(quarantine)
    assert found["may_decide"] is False
    for decide in (release, refuse):
        with pytest.raises(NotDecided, match="may not change"):
            district.rewrite(decide, found["id"], None, None)


def test_a_number_that_is_held_nowhere_is_refused(world: World) -> None:
    with pytest.raises(NotDecided, match="no value is held"):
        world.node(HUE).rewrite(release, 17, None, None)


def test_two_codes_that_come_together_show_the_later_write(world: World) -> None:
    insert(world.node(VANG), occupation="giao-vien")
    for code in ("phi-cong", "thuyen-truong"):
        world.node(VANG).sql("UPDATE member SET occupation = ?", code)
        world.node(VANG).seal()
    alike(world)
    with world.node(ROOT).write() as connection:
        for code in ("thuyen-truong", "phi-cong"):
            connection.exec_driver_sql(
                "INSERT INTO catalog (unit, id, kind, code) VALUES (?, ?, 'profession', ?)", (ROOT, code, code)
            )
    alike(world)
    assert shown(world, "occupation") == {"thuyen-truong"}
    assert [held(world.node(unit)) for unit in ALL] == [[], [], []]
    assert {world.node(unit).sql("SELECT count(*) FROM _write WHERE register = 'occupation'")[0] for unit in ALL} == {
        (1,)
    }
