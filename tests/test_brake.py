"""A sealing that changes unusually much goes nowhere until a person has decided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.storage.brake import open_brakes
from node.storage.context import BrakeRule
from node.storage.engine import bulk, execute
from node.storage.inbox import SealFirst, apply_waiting, next_ready
from node.storage.sealing import seal_next
from node.storage.undo import ROWS_AT_ONCE, NoBrake, change_back, find_brakes, settle, wanted_rows
from tests.test_sealing import digest
from tests.world import World, WorldNode

HUE, VANG, VN = "hue.vn", "phu-vang.hue.vn", "vn"
FEW = BrakeRule(share=0.05, rows_min=5)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two hundred members of one district, known at all three levels."""
    world = World(tmp_path, brake=FEW)
    rows = [(VANG, str(number), f"Người {number}", "1980-05-01", "nam", f"09{number:08}") for number in range(200)]
    with world.node(VANG).write() as connection:
        sql = "INSERT INTO member (unit, id, full_name, birth_date, sex, phone) VALUES (?, ?, ?, ?, ?, ?)"
        bulk(connection, sql, rows)
    world.settle(2)
    assert count(world.node(VN)) == 200
    return world


def count(node: WorldNode) -> int:
    return int(node.sql("SELECT count(*) FROM member")[0][0])


def seals(node: WorldNode, work: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """A step that seals first where too much is pending."""
    while True:
        try:
            with node.write() as connection:
                return work(connection, node.context, *args, **more)
        except SealFirst:
            node.seal()


def undo(node: WorldNode) -> int:
    with node.read() as connection:
        (brake,) = find_brakes(connection, None)
        tables = {name: wanted_rows(connection, node.context, brake, name) for name, _ in brake.registers}
    changed = 0
    for name, rows in tables.items():
        for start in range(0, len(rows), ROWS_AT_ONCE):
            changed += seals(node, change_back, brake, name, rows[start : start + ROWS_AT_ONCE], None)
    seals(node, settle, brake, undone=True)
    return changed


def release(node: WorldNode) -> None:
    with node.read() as connection:
        (brake,) = find_brakes(connection, None)
    seals(node, settle, brake, undone=False)


def brakes(node: WorldNode) -> list[tuple[str, str, int, int]]:
    with node.read() as connection:
        found = open_brakes(connection)
    return [(each.table, each.register, each.rows, each.of) for brake in found for each in brake.changes]


def equal(world: World) -> None:
    """Everybody holds and shows the same."""
    world.settle(3)
    rows = "SELECT id, full_name, note, status FROM member WHERE unit = ? ORDER BY id"
    shown = [world.node(unit).sql(rows, VANG) for unit in (VANG, VN)]
    assert shown[0] == shown[1]
    assert digest(world.node(VANG)) == digest(world.node(HUE))


ACCIDENTS = {
    "many rows deleted": ("DELETE FROM member WHERE CAST(id AS INTEGER) < 30", ("member", "_alive", 30, 200)),
    "one field of all": ("UPDATE member SET other_name = 'x'", ("member", "other_name", 200, 200)),
    "a group": ("UPDATE member SET address_line = 'x'", ("member", "address", 200, 200)),
}


@pytest.mark.parametrize(("statement", "change"), ACCIDENTS.values(), ids=ACCIDENTS)
def test_an_accident_is_sealed_and_not_shipped(world: World, statement: str, change: tuple[str, str, int, int]) -> None:
    node = world.node(VANG)
    node.sql(statement)
    node.seal()
    assert brakes(node) == [change]
    before = world.node(HUE).sql("SELECT id, other_name FROM member ORDER BY id")
    world.settle(2)
    assert world.node(HUE).sql("SELECT id, other_name FROM member ORDER BY id") == before
    with node.read() as connection:
        assert execute(connection, "SELECT count(*) FROM _pending").scalar() == 0


def test_what_stays_below_the_share_is_shipped(world: World) -> None:
    node = world.node(VANG)
    node.sql("DELETE FROM member WHERE CAST(id AS INTEGER) < 10")
    node.sql("UPDATE member SET note = 'x' WHERE CAST(id AS INTEGER) BETWEEN 20 AND 29")
    node.seal()
    assert brakes(node) == []
    equal(world)
    assert count(world.node(VN)) == 190


def test_new_rows_and_rows_written_again_pull_no_brake(world: World) -> None:
    node = world.node(VANG)
    with node.write() as connection:
        rows = [(VANG, f"n{number}", "Người", "1990", "nữ") for number in range(300)]
        bulk(connection, "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, ?, ?, ?)", rows)
        execute(connection, "UPDATE member SET note = 'new' WHERE id LIKE 'n%'")
        execute(connection, "CREATE TEMP TABLE copy AS SELECT * FROM member WHERE id NOT LIKE 'n%'")
        execute(connection, "DELETE FROM member WHERE id NOT LIKE 'n%'")
        execute(connection, "INSERT INTO member SELECT * FROM copy")
    node.seal()
    assert brakes(node) == []


def test_what_comes_in_goes_on_under_the_brake(world: World) -> None:
    world.node(VANG).sql("UPDATE member SET note = 'x'")
    world.node(HUE).sql("UPDATE member SET position = 'Bí thư' WHERE id = '7'")
    world.settle(2)
    assert world.node(VANG).sql("SELECT position FROM member WHERE id = '7'") == [("Bí thư",)]
    assert world.node(VN).sql("SELECT count(*) FROM member WHERE note = 'x'") == [(0,)]


def test_a_run_of_many_batches_is_braked_as_a_whole(world: World) -> None:
    node = world.node(VANG)
    node.sql("UPDATE member SET note = 'x'")
    with node.write() as connection:
        assert seal_next(connection, node.context, 150)
    node.seal()
    world.settle(2)
    assert world.node(HUE).sql("SELECT count(*) FROM member WHERE note = 'x'") == [(0,)]
    release(node)
    equal(world)
    assert world.node(VN).sql("SELECT count(*) FROM member WHERE note = 'x'") == [(200,)]


def test_release_sends_it_as_it_is(world: World) -> None:
    node = world.node(VANG)
    node.sql("DELETE FROM member WHERE CAST(id AS INTEGER) < 30")
    node.seal()
    release(node)
    assert brakes(node) == []
    equal(world)
    assert count(world.node(VN)) == 170


def watched(world: World, unit: str, query: str) -> list[Any]:
    """What a reader of a unit's table sees after every single batch that is applied there."""
    node = world.node(unit)
    seen: list[Any] = []
    take = node.take

    def one(data: bytes) -> Any:
        outcome = take(data)
        seen.append(node.sql(query))
        return outcome

    node.take = one  # type: ignore[method-assign]
    return seen


def test_what_is_undone_is_never_seen_elsewhere(world: World) -> None:
    node = world.node(VANG)
    node.sql("UPDATE member SET note = 'đúng' WHERE CAST(id AS INTEGER) < 9")
    world.settle(2)
    node.sql("UPDATE member SET note = 'sai', status = 'deceased'")
    node.sql("UPDATE member SET phone = '0999' WHERE id = '3'")  # an innocent edit of the same sealing
    node.sql("DELETE FROM member WHERE CAST(id AS INTEGER) >= 100")
    node.seal()
    node.sql("UPDATE member SET note = 'sau' WHERE id = '5'")  # an innocent edit made since
    assert sorted(brakes(node)) == [
        ("member", "_alive", 100, 200),
        ("member", "note", 200, 200),
        ("member", "status", 200, 200),
    ]
    seen = watched(world, HUE, "SELECT count(*), sum(note = 'sai'), sum(status = 'deceased') FROM member")
    assert undo(node) == 200
    world.settle(2)
    assert len(seen) >= 3
    assert {rows for ((rows, *_),) in seen} == {200}
    assert {each for ((_, *wrong),) in seen for each in wrong} <= {0, None}
    equal(world)
    for unit in (VANG, HUE, VN):
        one = world.node(unit)
        assert count(one) == 200
        assert one.sql("SELECT count(*) FROM member WHERE note = 'sai' OR status IS NOT NULL") == [(0,)]
        assert one.sql("SELECT note FROM member WHERE id IN ('2', '5') ORDER BY id") == [("đúng",), ("sau",)]
    assert world.node(HUE).sql("SELECT phone FROM member WHERE id = '3'") == [("0999",)]
    assert world.node(HUE).sql("SELECT phone FROM member WHERE id = '150'") == [("0900000150",)]


def test_a_union_is_changed_back_element_by_element(world: World) -> None:
    node = world.node(VANG)
    node.sql("""UPDATE member SET languages = '["Anh","Pháp"]' WHERE CAST(id AS INTEGER) < 8""")
    world.settle(2)
    node.sql("""UPDATE member SET languages = '["Anh","Nga"]'""")
    node.seal()
    undo(node)
    equal(world)
    for unit in (VANG, HUE):
        rows = world.node(unit).sql("SELECT languages, count(*) FROM member GROUP BY languages ORDER BY 1")
        assert rows == [(None, 192), ('["Anh","Pháp"]', 8)]


def test_a_receiver_waits_for_the_decision_whatever_it_was_sent(world: World) -> None:
    """A peer may hold the braked batches and not yet what settles them: it keeps them and shows nothing."""
    node, hue = world.node(VANG), world.node(HUE)
    node.sql("UPDATE member SET note = 'sai'")
    node.seal()
    with node.read() as connection:
        (brake,) = find_brakes(connection, None)
        data = execute(connection, "SELECT data FROM _batch ORDER BY no DESC LIMIT 1").scalar_one()
    hue.take(data)
    assert hue.sql("SELECT count(*) FROM member WHERE note = 'sai'") == [(0,)]
    release(node)
    world.settle(1)
    while True:
        with hue.write() as connection:
            ready = next_ready(connection, hue.context)
            if ready is None:
                break
            apply_waiting(connection, hue.context, ready)
    equal(world)
    assert brake.from_seq >= 1
    assert hue.sql("SELECT count(*) FROM member WHERE note = 'sai'") == [(200,)]


def test_several_brakes_are_named_or_taken_all_together(world: World) -> None:
    """A province's program that goes over the rows of all units pulls a brake for each of them."""
    loc, hue = "phu-loc.hue.vn", world.node(HUE)
    rows = [(loc, str(number), f"Người {number}", "1980-05-01", "nam") for number in range(50)]
    with world.node(loc).write() as connection:
        bulk(connection, "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, ?, ?, ?)", rows)
    world.settle(2)
    hue.sql("UPDATE member SET note = 'x'")
    hue.seal()
    with hue.read() as connection:
        with pytest.raises(NoBrake, match="2 brakes"):
            find_brakes(connection, None)
        with pytest.raises(NoBrake, match="no brake 9"):
            find_brakes(connection, 9)
        both = find_brakes(connection, None, all_of_them=True)
        assert [find_brakes(connection, each.no)[0] for each in both] == both
    for brake in both:
        seals(hue, settle, brake, undone=False)
    equal(world)
    assert world.node(VANG).sql("SELECT count(*) FROM member WHERE note = 'x'") == [(200,)]


def test_what_others_wrote_beside_the_accident_stays(world: World) -> None:
    """It came in while the brake held, and the accident had not seen it."""
    node = world.node(VANG)
    node.sql("UPDATE member SET status = 'deceased', note = 'sai'")
    node.seal()
    world.node(HUE).sql("UPDATE member SET status = 'official', note = 'tỉnh' WHERE id = '7'")
    world.settle(2)
    undo(node)
    equal(world)
    for unit in (VANG, HUE, VN):
        rows = world.node(unit).sql("SELECT status, note, count(*) FROM member GROUP BY 1, 2 ORDER BY 1")
        assert rows == [(None, None, 199), ("official", "tỉnh", 1)]


def test_rows_entered_in_the_same_sealing_get_back_what_they_were_entered_with(world: World) -> None:
    node = world.node(VANG)
    with node.write() as connection:
        rows = [(VANG, f"a{number}", "Người", "1990", "nữ", "mới") for number in range(5)]
        sql = "INSERT INTO member (unit, id, full_name, birth_date, sex, note) VALUES (?, ?, ?, ?, ?, ?)"
        bulk(connection, sql, rows)
        execute(connection, "UPDATE member SET note = 'sai' WHERE id < 'a'")
    node.seal()
    node.sql("UPDATE member SET note = 'sai nữa'")
    node.seal()
    undo(node)
    equal(world)
    for unit in (VANG, HUE, VN):
        rows = world.node(unit).sql("SELECT note, count(*) FROM member GROUP BY note ORDER BY note")
        assert rows == [(None, 200), ("mới", 5)]
