"""Attacks on fields: short histories, each of which once broke a promise. What is still broken is marked so.

A: silent loss, wrong hands, honest nodes that differ, one unit that stops others; B: stuck, or a wrong row is shown.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from conflict.register import add_write, rivals
from conflict.values import TIME_MAX, Epoch, Head, Hold, Scope, StreamId, UnitPath, Write
from conflict.vector import Vector
from node.storage.decisions import Choice, NotDecided, refuse, release, resolve
from node.storage.inbox import Taken
from node.storage.review import Wanted, conflicts, open_count, quarantine
from sync_engine.batch import SealedBatch
from sync_engine.entries import Act, Decision
from sync_engine.errors import NotYet
from sync_engine.fields import rule_breaks
from sync_engine.limits import ROW_BYTES_MAX
from sync_engine.registry import parse_registry
from tests.forging import PERSON, Stream, rows
from tests.test_digest import digest
from tests.test_mixed_versions import PRIVATE, of_version
from tests.test_registry_change import publish
from tests.test_sealing import insert
from tests.world import SHIPPED, World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
ALL = (VANG, HUE, ROOT)
MEMBER = parse_registry(SHIPPED).tables["member"]
OTHER = {"full_name": "Trần Thị Thử", "birth_date": "1960", "sex": "nữ"}
DAY_MS = 24 * 3_600_000


def broken(why: str) -> pytest.MarkDecorator:
    """A test that fails, as strictly as that: whoever mends it takes the mark away."""
    return pytest.mark.xfail(strict=True, reason=why)


def shown(world: World, column: str, key: str = "1") -> list[list[Any]]:
    """What each node shows, from the district up."""
    return [[v for (v,) in world.node(u).sql(f"SELECT {column} FROM member WHERE id = ?", key)] for u in ALL]


def held(node: WorldNode) -> list[tuple[Any, ...]]:
    return [tuple(each[name] for name in ("key", "field", "reason", "value")) for each in node.look(quarantine)]


def digests(world: World) -> int:
    return len({digest(world.node(unit)).digest for unit in ALL})


def rogue(world: World, origin: str = VANG) -> Stream:
    """A unit that signs what its own table would refuse."""
    nodes = [world.node(unit) for unit in ALL if unit != origin]
    return Stream(world, origin, epoch="00000000000000ff").certify(*nodes)


def take(world: World, *batches: SealedBatch) -> None:
    for unit in (HUE, ROOT):
        for made in batches:
            assert world.node(unit).take(made.data) is Taken.APPLIED


def decide(node: WorldNode, work: Any, *args: Any) -> None:
    """A person decides; to be told that there is nothing to decide is as good."""
    with contextlib.suppress(NotDecided):
        node.rewrite(work, *args)


def code_comes(node: WorldNode, code: str) -> None:
    sql = "INSERT INTO catalog (unit, id, kind, code) VALUES (?, ?, 'profession', ?)"
    node.sql(sql, node.unit, code, code)
    node.seal()
    node.apply_ready()


def both(world: World, column: str, below: Any, above: Any) -> None:
    world.node(VANG).sql(f"UPDATE member SET {column} = ? WHERE id = '1'", below)
    world.node(HUE).sql(f"UPDATE member SET {column} = ? WHERE id = '1'", above)
    world.settle(3)


def twins(world: World, **more: Any) -> int:
    insert(world.node(VANG), "2", note="district")
    world.node(VANG).seal()
    world.now += 1
    insert(world.node(HUE), "2", **{**OTHER, **more})
    world.settle(3)
    (number,) = {each["id"] for unit in ALL for each in world.node(unit).look(conflicts, Wanted(only_open=True))}
    return int(number)


# --- one unit stops others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [False, True], ids=["an edit of two fields", "an insert"])
def test_a_decision_on_an_entry_of_several_registers_stops_nobody(world: World, new: bool) -> None:
    stream = rogue(world)
    if not new:
        take(world, stream.batch(rows(MEMBER, ("1", 10, PERSON), new=True)))
    told = rows(MEMBER, ("1", 20, PERSON if new else {"note": "n", "cell": "c"}), new=new)
    told.decisions = [Decision(Act.RESOLVE, 7)]
    take(world, stream.batch(told))


@pytest.mark.parametrize(
    ("rule", "good"), [('type = "set"', ["a"]), ('type = "text", digits = 3', "123")], ids=["set", "digits"]
)
def test_nothing_breaks_the_rule_of_any_required_field(rule: str, good: Any) -> None:
    """Of a set it raises TypeError where another entry of the section has one: no honest node can seal or take it."""
    table = f"[tables.team.fields]\nwho = {{ {rule}, required = true }}\n\n[tables.catalog]"
    field = parse_registry(SHIPPED.replace("[tables.catalog]", table)).tables["team"].field("who")
    assert rule_breaks(field, [good, None]) == [1]


# --- divergence ------------------------------------------------------------------------------------------------------


NEXT = SHIPPED.replace("version = 1", "version = 2").replace(
    "other_name =", 'medal = { type = "text", label = "m", write_from = "province" }\nother_name ='
)


def test_entering_again_beside_a_new_field_comes_to_the_same_in_either_order(world: World) -> None:
    insert(world.node(VANG))
    world.settle(2)
    publish(world, NEXT)
    world.settle(2)
    world.node(HUE).sql("UPDATE member SET medal = 'gold'")
    world.now += 1000
    world.node(VANG).sql("DELETE FROM member")
    insert(world.node(VANG), note="again")
    world.settle(3)
    assert shown(world, "medal") == [["gold"]] * 3
    assert digests(world) == 1


def rule_broken_status(world: World) -> None:
    """A district's node wrote a word that is not listed, and the province knows no better."""
    stream = rogue(world)
    hue, root = world.node(HUE), world.node(ROOT)
    first = stream.batch(rows(MEMBER, ("1", 10, PERSON), new=True))
    second = stream.batch(rows(MEMBER, ("1", 20, {"status": "retired"})))
    hue.take(first.data)
    hue.sql("UPDATE member SET status = 'official'")
    hue.seal()
    hue.take(second.data)
    root.take(first.data)
    world.sync(HUE)
    assert [each.sql("SELECT status FROM member") for each in (hue, root)] == [[("official",)]] * 2


def test_keeping_a_value_that_breaks_its_rule_comes_to_the_same_everywhere(world: World) -> None:
    rule_broken_status(world)
    hue, root = world.node(HUE), world.node(ROOT)
    (entry,) = hue.look(conflicts, Wanted(field="status"))
    n = next(each["n"] for each in entry["writes"] if each["value"] == "retired")
    decide(hue, resolve, Choice(entry["id"], keep=n))
    world.sync(HUE)
    assert hue.sql("SELECT status FROM member") == root.sql("SELECT status FROM member")


def test_refusing_what_an_insert_broke_ends_it_everywhere(world: World) -> None:
    stream, hue, root = rogue(world), world.node(HUE), world.node(ROOT)
    made = stream.batch(rows(MEMBER, ("1", 10, {**PERSON, "sex": "x"}), new=True))
    for node in (hue, root):
        node.take(made.data)
    (found,) = hue.look(quarantine)
    decide(hue, refuse, found["id"], None, None)
    world.sync(HUE)
    assert held(hue) == held(root)


# --- twins -----------------------------------------------------------------------------------------------------------


def test_a_new_id_takes_held_values_along(world: World) -> None:
    number = twins(world, occupation="phi-cong")
    key = world.node(VANG).rewrite(resolve, Choice(number, new_id="3"))["value"]
    world.settle(3)
    code_comes(world.node(ROOT), "phi-cong")
    world.settle(3)
    in_journal = [
        write["value"]
        for entry in world.node(HUE).look(conflicts, Wanted(field="occupation"))
        for write in entry["writes"]
    ]
    assert shown(world, "occupation", key) == [["phi-cong"]] * 3 or "phi-cong" in in_journal or held(world.node(HUE))


@pytest.mark.parametrize(
    "heard", [True, pytest.param(False, marks=broken("B: nothing tells that one person has got two ids"))]
)
def test_who_has_an_id_of_their_own_gets_no_second_row_in_silence(world: World, heard: bool) -> None:
    number = twins(world)
    decide(world.node(VANG), resolve, Choice(number, new_id="3"))
    if heard:
        world.settle(3)
    decide(world.node(HUE), resolve, Choice(number, new_id="4"))
    world.settle(3)
    there = world.node(HUE).sql("SELECT id FROM member WHERE full_name = ?", OTHER["full_name"])
    assert there == [("3",)] or (not heard and world.node(HUE).look(open_count))


# --- journal ---------------------------------------------------------------------------------------------------------


def test_what_was_open_for_long_is_kept_after_it_is_settled(world: World) -> None:
    insert(world.node(VANG))
    world.settle(2)
    both(world, "birth_date", "1951", "1952")
    (entry,) = world.node(HUE).look(conflicts, Wanted(only_open=True))
    world.now += 401 * DAY_MS
    world.node(HUE).rewrite(resolve, Choice(entry["id"], keep=1))
    world.settle(3)
    both(world, "note", "a", "b")
    assert [len(world.node(unit).look(conflicts, Wanted(number=entry["id"]))) for unit in ALL] == [1, 1, 1]


def test_a_decision_marks_only_what_its_entry_writes(world: World) -> None:
    """Anybody who may write anything in a scope names any number of it."""
    insert(world.node(VANG), card_number="1")
    world.settle(2)
    world.node(HUE).sql("UPDATE member SET card_number = '2'")
    world.node(ROOT).sql("UPDATE member SET card_number = '3'")
    world.settle(3)
    entry = world.node(HUE).look(conflicts, Wanted(field="card_number"))[0]
    stream = rogue(world)
    edit = rows(MEMBER, ("9", 20, {"note": "n"}))
    edit.decisions = [Decision(Act.OVERTURN, entry["id"], "the province says so")]
    world.node(HUE).take(stream.batch(rows(MEMBER, ("9", 10, PERSON), new=True)).data)
    world.node(HUE).take(stream.batch(edit).data)
    after = world.node(HUE).look(conflicts, Wanted(field="card_number"))[0]
    assert after["decided"] is None


def test_an_old_number_does_not_settle_what_has_come_since(world: World) -> None:
    insert(world.node(VANG))
    world.settle(2)
    both(world, "birth_date", "1951", "1952")
    (entry,) = world.node(HUE).look(conflicts, Wanted(only_open=True))
    world.node(ROOT).sql("UPDATE member SET note = 'x'")
    world.node(VANG).sql("UPDATE member SET birth_date = '1953'")
    world.node(ROOT).sql("UPDATE member SET birth_date = '1954'")
    world.settle(3)
    (now,) = world.node(HUE).look(conflicts, Wanted(only_open=True))
    assert now["id"] != entry["id"]
    with pytest.raises(NotDecided):
        world.node(HUE).rewrite(resolve, Choice(entry["id"], keep=1))


def test_refusing_beside_a_released_code_leaves_nothing_held(world: World) -> None:
    insert(world.node(VANG), occupation="phi-cong")
    world.settle(2)
    (found,) = world.node(HUE).look(quarantine)
    world.node(HUE).rewrite(release, found["id"], None, None)
    world.settle(3)
    world.node(VANG).sql("UPDATE member SET occupation = 'abc'")
    world.settle(3)
    (found,) = world.node(HUE).look(quarantine)
    assert found["value"] == "abc"
    world.node(HUE).rewrite(refuse, found["id"], None, None)
    world.settle(3)
    assert [held(world.node(unit)) for unit in ALL] == [[], [], []]


# --- codes -----------------------------------------------------------------------------------------------------------


def test_a_code_that_comes_drops_nothing_that_its_batch_wrote_later(world: World) -> None:
    stream, hue = rogue(world), world.node(HUE)
    hue.take(stream.batch(rows(MEMBER, ("1", 10, PERSON), new=True)).data)
    hue.take(stream.batch(rows(MEMBER, ("1", 20, {"occupation": "u1"}), ("1", 30, {"occupation": "u2"}))).data)
    code_comes(hue, "u1")
    assert hue.sql("SELECT occupation FROM member") == [("u1",)]
    assert held(hue) == [("1", "occupation", "code", "u2")]


def test_the_same_value_typed_again_past_all_times_stays_in_its_register() -> None:
    """A hostile write at the greatest time there is makes later edits equal in time: they are no one edit for that."""
    district, province = (StreamId(UnitPath(u), Epoch("1"), Scope(VANG)) for u in (VANG, HUE))
    theirs = Head(district, 1, b"1")
    first, second = Head(province, 1, b"2"), Head(province, 2, b"3")
    kept = frozenset({Write("a", TIME_MAX, UnitPath(VANG), frozenset({theirs}))})
    for dot, seen in ((first, [theirs]), (second, [theirs, first])):
        write = Write("phi-cong", TIME_MAX, UnitPath(HUE), frozenset({dot}), Hold.CODE)
        kept = add_write(kept, write, Vector.of(seen))
    assert {each.value for each in rivals(kept)} == {"phi-cong"}


# --- reading levels --------------------------------------------------------------------------------------------------


def test_who_may_not_read_a_field_sets_it_with_no_insert(world: World) -> None:
    stream = rogue(world, ROOT)
    made = stream.batch(rows(MEMBER, ("1", 10, {**PERSON, "phone": "0900"}), new=True))
    for unit in (HUE, VANG):
        assert world.node(unit).take(made.data) is Taken.APPLIED
        assert world.node(unit).sql("SELECT phone FROM member") == [(None,)]


def test_a_whole_batch_of_a_version_that_has_not_come_brings_nothing_that_may_not_be_read(world: World) -> None:
    """A relay that withheld nothing: what may not be read reaches the disk, and the table once the version is there."""
    root = world.node(ROOT)
    newer, stream = of_version(PRIVATE, world, root)
    made = stream.batch(rows(newer.tables["member"], ("1", 10, {**PERSON, "nick_name": "~mark~"}), new=True))
    with contextlib.suppress(NotYet):
        root.take(made.data)
    publish(world, PRIVATE)
    with contextlib.suppress(NotYet):
        root.take(made.data)
    assert root.sql("SELECT nick_name FROM member") == [(None,)]
    assert b"~mark~" not in b"".join(each.read_bytes() for each in world.folder.glob("vn.db*"))


# --- rights that change ----------------------------------------------------------------------------------------------


@broken("A: what a barred field was before is not remembered")
def test_what_was_set_aside_before_a_right_was_taken_away_shows_nothing_of_its_own(world: World) -> None:
    vang = world.node(VANG)
    insert(vang, other_name="good")
    world.settle(2)
    vang.sql("UPDATE member SET other_name = 'mine', note = ?", "x" * (ROW_BYTES_MAX + 1))
    vang.seal()
    taken = SHIPPED.replace("version = 1", "version = 2")
    publish(world, taken.replace('"Tên đang dùng"', '"Tên đang dùng", write_from = "province"'))
    world.settle(3)
    vang.sql("UPDATE member SET note = 'short'")
    world.settle(3)
    assert shown(world, "other_name") == [["good"]] * 3
