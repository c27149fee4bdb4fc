"""Digests of scopes: equal for equal registers, and different for anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.storage import digests
from node.storage.digests import ROWS_BUCKETED, PendingFirst, ScopeDigest, digest_scope, forget, remember
from node.storage.engine import bulk, execute
from sync_engine.digest import BUCKETS, ColumnDigest, bucket_of, scope_digest
from tests.world import World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
WRITES = [("vn", 5, "x")]


def value(*rows: tuple[str, bytes, list[tuple[str, int, str]]], flush: bool = False) -> bytes:
    column = ColumnDigest()
    for key, identity, writes in rows:
        column.add(bucket_of(key), key, identity, writes)
        if flush:
            column.flush()
    return column.value()


CHANGED = {
    "another id": ("2", b"i", WRITES),
    "another identity": ("1", b"j", WRITES),
    "another unit": ("1", b"i", [("hue.vn", 5, "x")]),
    "another time": ("1", b"i", [("vn", 6, "x")]),
    "another value": ("1", b"i", [("vn", 5, "y")]),
    "a rival write": ("1", b"i", [*WRITES, ("vn", 6, "y")]),
}


@pytest.mark.parametrize("row", CHANGED.values(), ids=CHANGED)
def test_a_column_differs_by_every_part(row: tuple[str, bytes, list[tuple[str, int, str]]]) -> None:
    assert value(row) != value(("1", b"i", WRITES))


def test_a_column_is_the_same_in_whatever_pieces_it_is_read() -> None:
    rows = [(str(number), b"i", WRITES) for number in range(500)]
    assert value(*rows) == value(*rows, flush=True)


def test_rows_fall_into_all_buckets_by_their_id() -> None:
    assert {bucket_of(str(number)) for number in range(5_000)} == set(range(BUCKETS))


def test_a_scope_is_judged_by_the_columns_that_all_may_read() -> None:
    columns = {"a": b"1", "b": b"2", "secret": b"3"}
    assert scope_digest(columns, ["a", "b"]) == scope_digest({**columns, "secret": b"4"}, ["b", "a"])
    assert scope_digest(columns, ["a", "b"]) != scope_digest({**columns, "a": b"4"}, ["a", "b"])


def digest(node: WorldNode, scope: str = VANG) -> ScopeDigest:
    with node.read() as connection:
        return digest_scope(connection, node.context, scope)


def filled(world: World) -> WorldNode:
    node = world.node(VANG)
    for key in "123":
        node.sql(
            "INSERT INTO member (unit, id, full_name, birth_date, sex, phone, languages) VALUES (?, ?, ?, ?, ?, ?, ?)",
            VANG, key, "Nguyễn Thị Mẫu", "1945-08", "nữ", "0123", '["Anh"]',
        )  # fmt: skip
    return node


@pytest.fixture(name="world")
def world_fixture(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_nodes_of_a_path_agree_in_every_column_that_both_read(world: World) -> None:
    filled(world)
    world.node(VANG).seal()
    world.settle(2)
    mine, above, top = (digest(world.node(unit)) for unit in (VANG, HUE, ROOT))
    assert mine == above
    assert (mine.rows, mine.digest) == (top.rows, top.digest)
    assert {name for name in mine.columns if name not in top.columns} == {
        f"member.{name}" for name in ("citizen_id", "phone", "email", "marital_status", "health")
    }
    assert all(top.columns[name] == mine.columns[name] for name in top.columns)


def test_a_digest_is_remembered_by_applied_heads(world: World) -> None:
    node = filled(world)
    node.seal()
    first = digest(node)
    with node.write() as connection:
        remember(connection, node.context, first)
        execute(connection, "UPDATE _row SET time = time + 1 WHERE id = '1'")  # behind its back
    assert digest(node) == first
    node.sql("UPDATE member SET note = 'x' WHERE id = '2'")
    node.seal()
    assert digest(node).columns["member.phone"] != first.columns["member.phone"]


def test_a_deleted_row_keeps_its_registers_in_the_digest(world: World) -> None:
    node = filled(world)
    node.seal()
    first = digest(node)
    node.sql("DELETE FROM member WHERE id = '2'")
    node.seal()
    second = digest(node)
    assert (first.rows, second.rows) == (3, 2)
    changed = {name for name in first.columns if first.columns[name] != second.columns[name]}
    assert changed == {"member._alive"}


def test_an_edit_that_is_not_sealed_yet_is_sealed_before_a_digest_is_made(tmp_path: Path) -> None:
    node = World(tmp_path).node("phu-vang.hue.vn")
    node.sql(
        "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, '1', 'Trần An', '1970', 'nam')", node.unit
    )
    node.seal()
    node.sql("UPDATE member SET note = 'x' WHERE id = '1'")
    with node.read() as connection, pytest.raises(PendingFirst):
        digest_scope(connection, node.context, node.unit)


# --- dirty buckets ---


def large(world: World, rows: int = ROWS_BUCKETED + 100) -> WorldNode:
    """A node whose scope is large enough for its buckets to be kept, digested once."""
    node = world.node(VANG)
    with node.write() as connection:
        bulk(
            connection,
            "INSERT INTO member (unit, id, full_name, birth_date, sex, languages) VALUES (?, ?, 'Trần An', '1970',"
            " 'nam', '[\"Anh\"]')",
            [(VANG, f"{number:06}") for number in range(rows)],
        )
    node.seal()
    with node.write() as connection:
        remember(connection, node.context, digest_scope(connection, node.context, VANG))
    return node


def afresh(node: WorldNode) -> dict[str, bytes]:
    """What is computed where nothing is remembered."""
    with node.write() as connection:
        forget(connection, VANG)
        return digest_scope(connection, node.context, VANG).columns


CHANGES = {
    "an edit": "UPDATE member SET note = 'x' WHERE id = '000007'",
    "a delete": "DELETE FROM member WHERE id IN ('000007', '000008')",
    "an insert": "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES ('phu-vang.hue.vn', 'new', 'Lê Ba',"
    " '1950', 'nam')",
    "a set": "UPDATE member SET languages = '[\"Anh\",\"Pháp\"]' WHERE id = '000009'",
    "more than is worth looking at": "UPDATE member SET note = 'y' WHERE id < '002000'",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_digest_over_dirty_buckets_is_the_one_that_is_computed_afresh(world: World, change: str) -> None:
    node = large(world)
    before = digest(node)
    for statement in (change, "UPDATE member SET note = 'z' WHERE id = '000001'"):
        node.sql(statement)
        node.seal()
        with node.write() as connection:
            remember(connection, node.context, digest_scope(connection, node.context, VANG))
    over_buckets = digest(node).columns
    assert over_buckets != before.columns
    assert over_buckets == afresh(node)


def test_a_foreign_edit_dirties_its_bucket_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    node = large(world)
    world.sync(VANG)
    digest(node)
    world.node(HUE).sql("UPDATE member SET note = 'x' WHERE id = '000007'")
    world.sync(VANG)
    asked: list[Any] = []
    real = digests.load_keys
    monkeypatch.setattr(digests, "load_keys", lambda *args: asked.append(args[5]) or real(*args))
    found = digest(node).columns
    assert 0 < sum(map(len, asked)) < 2 * (ROWS_BUCKETED + 100) / BUCKETS + 40
    assert {bucket_of(key) for keys in asked for key in keys} == {bucket_of("000007")}
    assert found == afresh(node)


def test_a_small_scope_keeps_no_buckets(world: World) -> None:
    node = filled(world)
    node.seal()
    assert digest(node).kept is None
