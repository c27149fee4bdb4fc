"""Rows that are not what their signed batches say: found, told without a value, and put back; edits are no damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy.exc import DBAPIError

from node.commands.proof import verify
from node.database import Database
from node.local import Node
from node.messages import say
from node.storage.capture import PREFIX
from node.storage.engine import execute
from node.storage.replay import SCRATCH
from tests.test_digest import digest
from tests.world import World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
ALL = (VANG, HUE, ROOT)
SILENT = "UPDATE _capture SET applying = {}"


def insert(node: WorldNode, key: str, **more: Any) -> None:
    row = {
        "unit": VANG, "id": key, "full_name": "Trần An", "birth_date": "1970", "sex": "nam", "phone": "0123",
        "languages": '["Anh"]',
    } | more  # fmt: skip
    node.sql(f"INSERT INTO member ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())


def behind(node: WorldNode, *statements: str) -> None:
    """What capture does not see."""
    with node.write() as connection:
        execute(connection, SILENT.format(1))
        for statement in statements:
            execute(connection, statement)
        execute(connection, SILENT.format(0))


async def check(node: WorldNode, *, repair: bool = False) -> dict[str, Any]:
    """``dongbo verify`` on it."""
    keys = cast(Any, SimpleNamespace(certified=SimpleNamespace(sha256=b"")))
    home = node.path.parent / f"home-{node.unit}"
    home.mkdir(exist_ok=True)
    opened = Node(home, cast(Any, None), keys, node.context, Database(node.path))
    try:
        answer = await verify(opened, {"repair": repair}, lambda _progress: None)
    finally:
        await opened.close()
    assert list(home.glob(SCRATCH)) == []
    return answer


def everything(node: WorldNode) -> dict[str, list[tuple[Any, ...]]]:
    """All that a repair may touch."""
    return {
        table: node.sql(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
        for table in ("member", "catalog", "_unit", "_registry", "_row", "_write", "_code")
    }


def kept_in(path: Path) -> list[dict[str, Any]]:
    assert path.stat().st_mode & 0o077 == 0
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(name="made", scope="module")
def made_fixture(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three levels that hold three persons: one edited below, one above, one in conflict."""
    world = World(tmp_path_factory.mktemp("made"))
    low, middle = world.node(VANG), world.node(HUE)
    for key in ("1", "2", "3"):
        insert(low, key)
    world.settle(2)
    low.sql("UPDATE member SET note = 'n', languages = '[\"Anh\",\"Pháp\"]' WHERE id = '1'")
    middle.sql("UPDATE member SET full_name = 'Trần Bình' WHERE id = '2'")
    low.sql("UPDATE member SET full_name = 'Trần Cường' WHERE id = '2'")
    insert(low, "4")
    world.settle(2)
    low.sql("DELETE FROM member WHERE id = '4'")
    world.settle(2)
    for node in world.nodes.values():
        node.engine.dispose()  # the last connection that closes leaves one whole file
    return world


@pytest.fixture(name="world")
def world_fixture(made: World, tmp_path: Path) -> World:
    world = World(tmp_path, tree=made.tree, seed=2)
    for unit, node in made.nodes.items():
        (tmp_path / node.path.name).write_bytes(node.path.read_bytes())
        world.nodes[unit] = world._open(unit)
    return world


@pytest.mark.parametrize("unit", ALL)
async def test_a_node_in_order_has_nothing_to_repair(world: World, unit: str) -> None:
    node = world.node(unit)
    whole = everything(node)
    found = await check(node, repair=True)
    assert found["ok"], found
    assert (found["repaired"]["rows"], found["repaired"]["kept_in"]) == (0, None)
    assert found["compared"] > 3
    assert everything(node) == whole


DAMAGE: dict[str, tuple[str, str, int, set[str]]] = {
    "a value that its insert brought": (
        "UPDATE member SET phone = '999' WHERE id = '1'", "changed", 1, {"phone"}),
    "a value that was edited": ("UPDATE member SET note = 'zzz' WHERE id = '1'", "changed", 1, {"note"}),
    "a value of the wrong kind": ("UPDATE member SET languages = 'x' WHERE id = '1'", "changed", 1, {"(unreadable)"}),
    "text that is none": (
        "UPDATE member SET phone = CAST(x'ff00fe' AS TEXT) WHERE id = '1'", "changed", 1, {"(unreadable)"}),
    "a row deleted": ("DELETE FROM member WHERE id = '1'", "lost", 1, set()),
    "all rows deleted": ("DELETE FROM member", "lost", 3, set()),
    "a row inserted": (
        "INSERT INTO member (unit, id, full_name) VALUES ('phu-vang.hue.vn', '9', 'Ai')", "added", 1, set()),
    "a deleted row brought back": (
        "INSERT INTO member (unit, id, full_name) VALUES ('phu-vang.hue.vn', '4', 'Ai')", "added", 1, set()),
    "a row of a unit of which nothing came": (
        "INSERT INTO member (unit, id, full_name) VALUES ('a-luoi.hue.vn', '9', 'Ai')", "added", 1, set()),
    "a register's write lost": ("DELETE FROM _write WHERE id = '1' AND register = 'note'", "changed", 1,
        {"(history)"}),
    "a rival's write lost": (
        "DELETE FROM _write WHERE id = '2' AND value LIKE '%Bình%'", "changed", 1, {"(history)"}),
    "all writes lost": ("DELETE FROM _write", "changed", 2, set()),
    "a row's register lost": ("DELETE FROM _row WHERE id = '1' AND {here}", "changed", 1, set()),
    "all rows' registers lost": ("DELETE FROM _row WHERE {here}", "changed", 5, set()),
    "a time altered": ("UPDATE _row SET time = time + 1 WHERE id = '3'", "changed", 1, {"(history)"}),
    "a row said to be dead": ("UPDATE _row SET alive = 0 WHERE id = '3'", "changed", 1, {"(history)"}),
    "a batch named that is not here": ("UPDATE _row SET batch = 999999 WHERE id = '3'", "changed", 1,
        {"(unreadable)"}),
    "an open conflict forgotten": ("DELETE FROM _conflict", "changed", 1, {"(history)"}),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "kind", "rows", "fields"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("unit", [VANG, HUE])
async def test_damage_is_found_told_and_mended(
    world: World, unit: str, statement: str, kind: str, rows: int, fields: set[str]
) -> None:
    node = world.node(unit)
    statement = statement.replace("{here}", f"scope = (SELECT no FROM _scope WHERE name = '{VANG}')")
    whole, sums = everything(node), {each: digest(node, each).columns for each in (VANG, HUE)}
    behind(node, statement)
    broken = node.sql("SELECT quote(phone), full_name, id FROM member WHERE id <> '1'")

    found = await check(node)
    assert not found["ok"]
    assert sum(each["rows"] for each in found["rows"]) == rows
    assert sum(each[kind] for each in found["rows"]) == rows
    assert fields <= {name for each in found["rows"] for name in each["fields"]}
    assert "Trần" not in json.dumps(found, ensure_ascii=False)
    assert node.sql("SELECT quote(phone), full_name, id FROM member WHERE id <> '1'") == broken, "verify only looks"

    mended = await check(node, repair=True)
    assert mended["ok"], mended
    assert mended["repaired"]["rows"] == rows
    again = everything(node)
    assert {name: again[name] for name in ("member", "catalog", "_unit")} == {
        name: whole[name] for name in ("member", "catalog", "_unit")
    }
    assert {each: digest(node, each).columns for each in (VANG, HUE)} == sums
    world.settle(2)
    assert len({digest(world.node(each)).digest for each in ALL}) == 1


async def test_what_stood_there_is_kept_for_the_operator_alone(world: World) -> None:
    node = world.node(VANG)
    behind(node, "UPDATE member SET phone = '999' WHERE id = '1'", "DELETE FROM member WHERE id = '3'")
    records = kept_in(Path((await check(node, repair=True))["repaired"]["kept_in"]))
    assert [(each["id"], each["what"]) for each in records] == [("1", "changed"), ("3", "lost")]
    assert (records[0]["row"]["phone"], records[1]["row"]) == ("'999'", None)


async def test_edits_that_are_pending_are_no_damage_and_are_not_lost(world: World) -> None:
    node = world.node(VANG)
    node.sql("UPDATE member SET note = 'edited' WHERE id = '3'")
    insert(node, "5")
    node.sql("DELETE FROM member WHERE id = '1'")
    found = await check(node)
    assert (found["ok"], found["rows"]) == (True, [])
    node.sql("UPDATE member SET email = 'a@b.vn' WHERE id = '3'")
    behind(node, "UPDATE member SET phone = '999' WHERE id = '3'")
    mended = await check(node, repair=True)
    assert (mended["ok"], mended["repaired"]["rows"]) == (True, 1)
    assert node.sql("SELECT note, email, phone FROM member WHERE id = '3'") == [("edited", "a@b.vn", "0123")]
    assert node.sql("SELECT id FROM member ORDER BY id") == [("2",), ("3",), ("5",)]
    world.settle(2)
    assert len({digest(world.node(each)).digest for each in ALL}) == 1


async def test_a_row_that_may_not_travel_is_no_damage(world: World) -> None:
    node = world.node(VANG)
    behind(
        node,
        "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES ('phu-vang.hue.vn', '8', 'An', 'x', 'nam')",
        "INSERT INTO _pending SELECT 'phu-vang.hue.vn', tbl, '8', 'I', 0, 1, 1, NULL FROM _row WHERE id = '1'",
    )
    assert (await check(node))["ok"]
    assert node.sql("SELECT count(*) FROM _set_aside") == [(1,)]
    assert (await check(node, repair=True))["repaired"]["rows"] == 0
    assert node.sql("SELECT count(*) FROM member WHERE id = '8'") == [(1,)]


TRIGGERS: dict[str, tuple[Callable[[WorldNode], None], str]] = {
    "dropped": (lambda node: behind(node, f"DROP TRIGGER {PREFIX}member_update"), "missing"),
    "altered": (
        lambda node: behind(
            node,
            f"DROP TRIGGER {PREFIX}member_update",
            f"CREATE TRIGGER {PREFIX}member_update AFTER UPDATE ON member BEGIN SELECT 1; END",
        ),
        "altered",
    ),
    "silenced": (lambda node: cast(None, node.sql(SILENT.format(1))), "silenced"),
}


@pytest.mark.parametrize(("act", "what"), TRIGGERS.values(), ids=TRIGGERS)
async def test_a_table_that_is_not_watched_is_told_and_watched_again(
    world: World, act: Callable[[WorldNode], None], what: str
) -> None:
    node = world.node(VANG)
    act(node)
    node.sql("UPDATE member SET note = 'unseen' WHERE id = '3'")
    found = await check(node)
    assert not found["ok"]
    assert {"table": "member", "what": what} in found["capture"]
    assert say(f"verify.capture.{what}", table="member")
    mended = await check(node, repair=True)
    assert mended["ok"]
    assert "member" in mended["repaired"]["capture"]
    assert node.sql("SELECT note FROM member WHERE id = '3'") == [(None,)], "what nobody noted was no edit"
    node.sql("UPDATE member SET note = 'seen' WHERE id = '3'")
    world.settle(2)
    assert world.node(ROOT).sql("SELECT note FROM member WHERE id = '3'") == [("seen",)]


async def test_a_table_that_was_dropped_comes_back_with_its_rows(world: World) -> None:
    node = world.node(HUE)
    whole = everything(node)["member"]
    behind(node, "DROP TABLE member")
    assert (await check(node, repair=True))["ok"]
    assert everything(node)["member"] == whole


async def test_batches_are_merged_anew_causes_first_in_whatever_order_they_came(world: World) -> None:
    """The centre has the district's edit before the province's that it had seen."""
    top, middle, low = (world.node(unit) for unit in (ROOT, HUE, VANG))
    middle.sql("UPDATE member SET full_name = 'Lê Ba' WHERE id = '3'")
    world.sync(VANG)
    low.sql("UPDATE member SET full_name = 'Lê Tư' WHERE id = '3'")
    low.seal()
    last = (
        "SELECT data FROM _batch JOIN _stream ON _stream.no = _batch.stream WHERE origin = ? AND scope = ?"
        " ORDER BY seq DESC LIMIT 1"
    )
    assert top.take(low.sql(last, VANG, VANG)[0][0]) == "waiting"
    top.take(middle.sql(last, HUE, VANG)[0][0])
    assert top.sql("SELECT full_name FROM member WHERE id = '3'") == [("Lê Tư",)]
    answer = await check(top)
    assert answer["ok"], answer


async def test_a_damaged_batch_leaves_its_scope_untold_and_nothing_is_put_back_by_guess(world: World) -> None:
    node = world.node(ROOT)
    behind(
        node,
        "UPDATE member SET note = 'x' WHERE id = '3'",
        "UPDATE _batch SET data = x'00' WHERE no = (SELECT max(_batch.no) FROM _batch JOIN _stream"
        " ON _stream.no = _batch.stream WHERE scope = 'phu-vang.hue.vn')",
    )
    found = await check(node, repair=True)
    assert not found["ok"]
    assert [each["scope"] for each in found["unproven"]] == [VANG]
    assert len(found["wanted"]) == 1
    assert node.sql("SELECT note FROM member WHERE id = '3'") == [("x",)]


async def test_indexes_that_are_damaged_are_made_anew(world: World) -> None:
    node = world.node(VANG)
    with node.write() as connection:
        execute(connection, "PRAGMA writable_schema = ON")
        execute(
            connection,
            "UPDATE sqlite_master SET sql = 'CREATE INDEX _row_contested ON _row (scope, tbl, id) WHERE contested = 0'"
            " WHERE name = '_row_contested'",
        )
    node.engine.dispose()
    found = await check(node)
    assert not found["ok"]
    assert found["database"]
    mended = await check(node, repair=True)
    assert mended["database"] == []


# --- honest histories are no damage ---

VALUES: tuple[tuple[str, str | None], ...] = (
    ("full_name", "Trần An"), ("full_name", "Trần Cường"), ("note", "n"), ("note", None), ("languages", None),
    ("languages", '["Nga"]'), ("languages", '["Anh","Nga"]'), ("occupation", "x1"), ("occupation", "giao-vien"),
    ("occupation", "phi-cong"), ("address_line", "a"), ("badges", '["30"]'), ("sex", "nữ"),
)  # fmt: skip


def live_on(world: World, chance: Random) -> None:
    """One thing that somebody does: enters, deletes, edits, names a code, syncs."""
    world.now += chance.choice([1, 50, 3_600_000])
    node, key, act = world.node(chance.choice(ALL)), str(chance.randint(1, 6)), chance.random()
    with suppress(DBAPIError):  # what capture refuses
        if act < 0.25:
            insert(node, key, full_name=chance.choice(["Trần An", "Lê Ba"]), phone=None, occupation="x1")
        elif act < 0.32:
            node.sql("DELETE FROM member WHERE id = ?", key)
        elif act < 0.36:
            code = chance.choice(["phi-cong", "x1"])
            node.sql(
                "INSERT INTO catalog (unit, id, kind, code) VALUES (?, ?, 'profession', ?)", node.unit, f"c{code}", code
            )
        elif act < 0.7:
            name, value = chance.choice(VALUES)
            node.sql(f"UPDATE member SET {name} = ? WHERE id = ?", value, key)
        else:
            world.sync(chance.choice([VANG, HUE]))


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_people_do_is_no_damage(tmp_path: Path, seed: int) -> None:
    world, chance = World(tmp_path), Random(seed)
    world.node(VANG)
    for _ in range(40):
        live_on(world, chance)
    answers = [await check(world.node(unit)) for unit in ALL]
    world.settle(3)
    answers += [await check(world.node(unit)) for unit in ALL]
    assert [each for each in answers if not each["ok"]] == []
    assert world.node(ROOT).sql("SELECT count(*) FROM _row WHERE contested = 1")[0][0] > 0, "or it shows little"
