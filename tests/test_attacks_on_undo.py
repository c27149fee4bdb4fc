"""Attacks on undo: an accident that hits fields with held or covered values must give back what was shown before it."""

from __future__ import annotations

from node.storage.context import BrakeRule
from tests.forging import PERSON, rows
from tests.test_attacks_on_fields import HUE, MEMBER, ROOT, VANG, rogue, shown
from tests.test_brake import undo
from tests.test_sealing import insert
from tests.world import World, WorldNode


def accident(node: WorldNode, statement: str) -> None:
    node.context.brake = BrakeRule(share=0.0, rows_min=1)
    node.sql(statement)
    node.seal()
    undo(node)


def test_undo_gives_back_what_was_shown_beside_a_held_value(world: World) -> None:
    stream, hue = rogue(world), world.node(HUE)
    hue.take(stream.batch(rows(MEMBER, ("1", 10, {**PERSON, "card_number": "1"}), new=True)).data)
    hue.take(stream.batch(rows(MEMBER, ("1", 20, {"card_number": "2"}))).data)
    assert hue.sql("SELECT card_number FROM member") == [("1",)]
    accident(hue, "UPDATE member SET card_number = 'x'")
    assert hue.sql("SELECT card_number FROM member") == [("1",)]


def test_undo_of_an_accident_with_codes_shows_no_accident(world: World) -> None:
    insert(world.node(VANG), occupation="giao-vien")
    world.settle(2)
    world.node(VANG).sql("UPDATE member SET occupation = 'phi-cong'")
    world.settle(3)
    assert shown(world, "occupation") == [["giao-vien"]] * 3
    accident(world.node(HUE), "UPDATE member SET occupation = 'bac-si'")
    world.settle(3)
    assert shown(world, "occupation") == [["giao-vien"]] * 3


def test_undo_gives_back_what_entering_again_had_left_alone(world: World) -> None:
    insert(world.node(VANG))
    world.settle(2)
    world.node(HUE).sql("UPDATE member SET card_number = '99.1'")
    world.settle(3)
    world.node(VANG).sql("DELETE FROM member")
    insert(world.node(VANG), note="again")
    world.settle(3)
    assert shown(world, "card_number") == [["99.1"]] * 3
    accident(world.node(HUE), "UPDATE member SET card_number = 'x'")
    world.settle(3)
    assert shown(world, "card_number") == [["99.1"]] * 3


def test_a_code_that_an_undone_accident_brought_is_known_everywhere_or_nowhere(world: World) -> None:
    root = world.node(ROOT)
    accident(root, "UPDATE catalog SET code = 'x-' || code WHERE kind = 'profession'")
    world.settle(3)
    insert(world.node(VANG), occupation="x-bac-si")
    world.settle(3)
    assert len({str(each) for each in shown(world, "occupation")}) == 1
