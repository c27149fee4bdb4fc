"""A table that is read up to the province, in a tree of four levels: what the centre has of it, and what it may do."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy.exc import DBAPIError

from conflict.values import level_of
from node.commands import proof
from node.commands.bulk import dump, load
from node.database import Database
from node.local import Node
from node.storage.decisions import may_settle
from node.storage.digests import ScopeDigest, digest_scope
from node.storage.engine import execute
from node.storage.inbox import Taken
from node.storage.outbox import for_peer
from sync_engine.batch import SealedBatch, encode_batch, parse_batch
from sync_engine.chunks import inflate
from sync_engine.errors import BadSignature, RuleBroken
from sync_engine.merge import ALIVE, TWIN
from sync_engine.registry import parse_registry
from tests.forging import Stream, deletes, rows
from tests.test_dump import opened
from tests.world import World, WorldNode

VN, HUE, VANG, AN = "vn", "hue.vn", "phu-vang.hue.vn", "phu-an.phu-vang.hue.vn"
ALL = (VN, HUE, VANG, AN)

REGISTRY = """
version = 1
name = "cases"
levels = ["central", "province", "district", "commune"]

[tables.discipline]
label = "Kỷ luật"
read_up_to = "province"

[tables.discipline.fields]
person = { type = "text", required = true, label = "Người", identifies = true }
reason = { type = "text", label = "Lý do", merge = "review" }
place = { type = "text", label = "Nơi", group = "decision" }
by_whom = { type = "text", label = "Ai", group = "decision" }
papers = { type = "set", label = "Giấy tờ", merge = "union" }
scan = { type = "bytes", label = "Bản quét" }
witness = { type = "text", label = "Người làm chứng", read_up_to = "district" }

[tables.tally]
label = "Sổ"
[tables.tally.fields]
what = { type = "text", label = "Gì" }

[tables.catalog]
label = "Danh mục"
catalogue = true
[tables.catalog.fields]
kind = { type = "text", required = true, label = "Loại" }
code = { type = "text", required = true, label = "Mã" }
label = { type = "text", label = "Tên" }
"""

FIELDS = ("person", "reason", "place", "by_whom", "papers", "scan", "witness")
NARROW = "witness"
"""The one field that ends at the district."""


def marker(field: str, row: str) -> str:
    return f"MARK-{field}-{row}"


def values(row: str) -> dict[str, Any]:
    marked: dict[str, Any] = {name: marker(name, row) for name in (*FIELDS, "edited_by")}
    return marked | {"papers": f'["{marked["papers"]}"]', "scan": marked["scan"].encode()}


def insert(node: WorldNode, unit: str, row: str) -> None:
    given = {"unit": unit, "id": row, **values(row)}
    node.sql(f"INSERT INTO discipline ({', '.join(given)}) VALUES ({', '.join('?' * len(given))})", *given.values())


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, registry=REGISTRY)
    world.node(AN)
    insert(world.node(AN), AN, "1")
    insert(world.node(VANG), AN, "2")
    world.settle(4)
    yield world
    for node in world.nodes.values():
        node.engine.dispose()


def unpacked(node: WorldNode) -> bytes:
    """All that the node's batches say, decompressed."""
    found = []
    for (data,) in node.sql("SELECT data FROM _batch"):
        batch = parse_batch(data)
        for section, described in zip(batch.chunks, batch.header.sections, strict=True):
            found += [inflate(chunk, described.columns[at].plain_size) for at, chunk in section.items()]
    return b"\n".join(found)


def on_disk(node: WorldNode) -> bytes:
    """The bytes of the database, its log and index, and of its batches unpacked."""
    files = sorted(node.path.parent.glob(f"{node.path.name}*"))
    assert node.path in files
    return b"\n".join([*(each.read_bytes() for each in files), unpacked(node)])


def met(node: WorldNode, *row_ids: str) -> set[str]:
    """The fields of which a marker of any of these rows is somewhere on the node's disk."""
    data = on_disk(node)
    return {name for name in (*FIELDS, "edited_by") for row in row_ids if marker(name, row).encode() in data}


def shown(node: WorldNode) -> list[tuple[Any, ...]]:
    return node.sql(f"SELECT id, {', '.join(FIELDS)}, edited_by FROM discipline ORDER BY id")


def live_everything(world: World) -> None:
    """Edits, rival values, a delete beside an edit, a row that is gone, two persons under one id."""
    commune, district, province = (world.node(unit) for unit in (AN, VANG, HUE))
    province.sql("UPDATE discipline SET reason = 'MARK-reason-3', edited_by = 'MARK-edited_by-3' WHERE id = '1'")
    commune.sql("UPDATE discipline SET reason = 'MARK-reason-4', place = 'MARK-place-4' WHERE id = '1'")
    commune.sql("""UPDATE discipline SET papers = '["MARK-papers-4"]', witness = 'MARK-witness-4' WHERE id = '2'""")
    district.sql("DELETE FROM discipline WHERE id = '2'")
    insert(commune, AN, "5")
    insert(district, AN, "6")
    insert(commune, AN, "7")
    district.sql("INSERT INTO discipline (unit, id, person) VALUES (?, '7', 'MARK-person-8')", AN)
    world.settle(4)
    district.sql("DELETE FROM discipline WHERE id = '6'")
    world.settle(4)


def digest_of(node: WorldNode, scope: str = AN) -> ScopeDigest:
    with node.read() as connection:
        return digest_scope(connection, node.context, scope)


def test_no_byte_of_the_table_reaches_the_centre(world: World) -> None:
    live_everything(world)
    every = {*FIELDS, "edited_by"}
    marked = [str(number) for number in range(1, 9)]
    assert met(world.node(AN), *marked) == met(world.node(VANG), *marked) == every
    assert met(world.node(HUE), *marked) == every - {NARROW}
    assert met(world.node(VN), *marked) == set()


def test_above_its_level_the_table_shows_keys(world: World) -> None:
    full = [(row, *(values(row)[name] for name in (*FIELDS, "edited_by"))) for row in "12"]
    assert shown(world.node(AN)) == shown(world.node(VANG)) == full
    assert shown(world.node(HUE)) == [(*each[:-2], None, each[-1]) for each in full]
    assert shown(world.node(VN)) == [(row, *[None] * (len(FIELDS) + 1)) for row in "12"]
    world.node(AN).sql("DELETE FROM discipline WHERE id = '1'")
    world.settle(4)
    assert [each[0] for each in shown(world.node(VN))] == ["2"]


def test_all_levels_agree_on_what_both_hold(world: World) -> None:
    live_everything(world)
    found = {unit: digest_of(world.node(unit)) for unit in ALL}
    registers = ("person", "reason", "decision", "papers", "scan", "witness")
    held = {unit: {name for name in each.columns if name.startswith("discipline.")} for unit, each in found.items()}
    assert held[AN] == held[VANG] == {f"discipline.{name}" for name in ("_alive", *registers)}
    assert held[HUE] == held[AN] - {f"discipline.{NARROW}"}
    assert held[VN] == {"discipline._alive"}
    for name in held[AN]:
        assert len({each.columns[name] for each in found.values() if name in each.columns}) == 1, name
    assert len({each.digest for each in found.values()}) == len({each.rows for each in found.values()}) == 1


def test_rows_have_the_same_conflicts_at_every_level_and_values_where_they_are_read(world: World) -> None:
    live_everything(world)
    still_open = "SELECT number, field FROM _conflict WHERE live = 1 AND state = 'open'"
    journals = {unit: set(world.node(unit).sql(still_open)) for unit in ALL}
    assert journals[AN] == journals[HUE]
    assert {field for _, field in journals[HUE]} == {"_alive", "_twin", "reason"}
    assert journals[VN] == {each for each in journals[HUE] if each[1] != "reason"}


def test_nodes_that_come_late_get_all_of_it_through_the_province(tmp_path: Path) -> None:
    world = World(tmp_path, registry=REGISTRY)
    province = world.node(HUE)
    with province.write() as connection:
        for unit in (VANG, AN):  # their records are entered for them, before they have nodes
            execute(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (unit,))
    insert(province, VANG, "1")
    province.sql("INSERT INTO discipline (unit, id, person, reason) VALUES (?, '2', ?, 'MARK-reason-2')", AN, "Mẫu")
    world.settle(2)
    world.node(AN)
    world.settle(4)
    entered = ("1", *(values("1")[name] for name in (*FIELDS, "edited_by")))
    assert shown(world.node(VANG)) == shown(province) == [entered, ("2", "Mẫu", "MARK-reason-2", *[None] * 6)]
    assert [each[:3] for each in shown(world.node(AN))] == [("2", "Mẫu", "MARK-reason-2")]
    assert met(world.node(VN), "1", "2") == set()
    for scope, nodes in ((VANG, (VN, HUE, VANG)), (AN, ALL)):
        found = [digest_of(world.node(unit), scope) for unit in nodes]
        assert len({each.digest for each in found}) == 1
        assert found[1].columns == found[2].columns or scope == AN
    for node in world.nodes.values():
        node.engine.dispose()


def test_batches_of_a_level_that_lacks_chunks_are_not_taken_below(world: World) -> None:
    """What a province may not read it cannot give back; only the unit that wrote it takes what is left of it."""
    (data,) = world.node(HUE).sql("SELECT data FROM _batch ORDER BY length(data) DESC LIMIT 1")[0]
    lean = parse_batch(data)
    assert any(len(chunks) < len(each.columns) for chunks, each in zip(lean.chunks, lean.header.sections, strict=True))
    assert lean.header.stream.origin == AN
    assert world.node(AN).take(data) is Taken.KNOWN
    with pytest.raises(BadSignature, match="left out"):
        world.node(VANG).take(data)


# --- what a node may not read it may not change ---

REFUSED = {
    "an insert": "INSERT INTO discipline (unit, id, person) VALUES ('{unit}', '9', 'x')",
    "an insert of nothing": "INSERT INTO discipline (unit, id) VALUES ('{unit}', '9')",
    "an insert in the place of a row": "REPLACE INTO discipline (unit, id, person) VALUES ('{unit}', '1', 'x')",
    "an edit": "UPDATE discipline SET reason = 'x' WHERE unit = '{unit}' AND id = '1'",
    "an edit of the editor": "UPDATE discipline SET edited_by = 'x' WHERE unit = '{unit}' AND id = '1'",
    "an upsert": "INSERT INTO discipline (unit, id, person) VALUES ('{unit}', '1', 'x')"
    " ON CONFLICT DO UPDATE SET reason = 'x'",
    "a delete": "DELETE FROM discipline WHERE unit = '{unit}' AND id = '1'",
}  # fmt: skip


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
def test_who_may_not_read_the_table_may_not_change_it(world: World, statement: str) -> None:
    centre = world.node(VN)
    with centre.write() as connection:
        execute(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (AN,))
    with pytest.raises(DBAPIError, match=r"discipline\.unit: only province and the levels below it may read or write"):
        centre.sql(statement.format(unit=AN))
    assert centre.sql("SELECT count(*) FROM _pending") == [(0,)]
    assert shown(centre) == [(row, *[None] * (len(FIELDS) + 1)) for row in "12"]


def test_other_tables_and_nearer_rows_are_the_centres_to_change(world: World) -> None:
    centre = world.node(VN)
    with centre.write() as connection:
        execute(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (AN,))
    centre.sql("INSERT INTO tally (unit, id, what) VALUES (?, '1', 'x')", AN)
    centre.sql("INSERT INTO discipline (unit, id, person, reason) VALUES (?, '1', 'x', 'y')", HUE)
    centre.sql("UPDATE discipline SET reason = 'z' WHERE unit = ?", HUE)
    world.settle(4)
    assert world.node(HUE).sql("SELECT person, reason FROM discipline WHERE unit = ?", HUE) == [("x", "z")]
    assert world.node(AN).sql("SELECT what FROM tally") == [("x",)]
    centre.sql("DELETE FROM discipline WHERE unit = ?", HUE)
    world.settle(4)
    assert world.node(HUE).sql("SELECT 1 FROM discipline WHERE unit = ?", HUE) == []


def test_the_province_writes_what_it_reads_and_not_the_narrower_field(world: World) -> None:
    province = world.node(HUE)
    province.sql("UPDATE discipline SET reason = 'x' WHERE id = '1'")
    with pytest.raises(DBAPIError, match=r"discipline\.witness: only district and the levels below it"):
        province.sql("UPDATE discipline SET witness = 'x' WHERE id = '1'")
    province.sql("DELETE FROM discipline WHERE id = '2'")
    world.settle(4)
    assert shown(world.node(AN)) == [("1", marker("person", "1"), "x", *shown(world.node(AN))[0][3:])]


HOSTILE = {
    "rows": lambda table: rows(table, ("9", 10, {"person": "x"}), new=True),
    "an empty edit": lambda table: rows(table, ("1", 10, {}), identity=bytes(8)),
    "deletes": lambda table: deletes(table, ("1", 10)),
}


@pytest.mark.parametrize("made", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_centre_that_signs_such_rows_loses_its_stream(world: World, made: Any) -> None:
    stream = Stream(world, VN, AN, epoch="00000000000000ff").certify(*(world.node(unit) for unit in ALL))
    assert stream.registry is not None
    batch = stream.batch(made(stream.registry.tables["discipline"]))
    for unit in (HUE, VANG, AN):
        with pytest.raises(RuleBroken, match="may know the keys only"):
            world.node(unit).take(batch.data)
        assert [each[0] for each in shown(world.node(unit))] == ["1", "2"]


def test_a_province_may_sign_what_the_centre_may_not(world: World) -> None:
    stream = Stream(world, HUE, AN, epoch="00000000000000ff").certify(*(world.node(unit) for unit in ALL))
    assert stream.registry is not None
    batch = stream.batch(rows(stream.registry.tables["discipline"], ("9", 10, {"person": "x"}), new=True))
    assert world.node(AN).take(batch.data) is Taken.APPLIED


# --- every way out ---


def names_in(batch: SealedBatch) -> set[str]:
    both = zip(batch.chunks, batch.header.sections, strict=True)
    return {described.columns[at].name for chunks, described in both for at in chunks}


def test_what_goes_to_the_centre_is_keys_and_a_relay_may_not_leave_out_more(world: World) -> None:
    born = "SELECT batch FROM _row WHERE tbl = 11 AND id = '1'"
    (data,) = world.node(AN).sql(f"SELECT data FROM _batch WHERE no = ({born})")[0]
    whole = parse_batch(data)
    with world.node(HUE).read() as connection:
        given = {unit: parse_batch(for_peer(connection, world.node(HUE).context, unit, whole)) for unit in ALL}
    assert names_in(given[VN]) == {"id", "_identity", "_time", "_new"}
    assert names_in(given[HUE]) == names_in(whole) - {NARROW}
    assert given[VANG].data == given[AN].data == data
    world.node(VN).take(given[VN].data)
    for left_out, unit in (("_new", VN), ("_by", HUE), ("reason", HUE), (NARROW, VANG)):
        kept = tuple(
            {at: chunk for at, chunk in chunks.items() if each.columns[at].name != left_out}
            for chunks, each in zip(given[unit].chunks, whole.header.sections, strict=True)
        )
        with pytest.raises(BadSignature, match="left out"):
            world.node(unit).take(encode_batch(whole.header_bytes, whole.signature, kept))


def test_verify_counts_what_is_withheld_and_finds_what_is_missing(world: World) -> None:
    def verified(unit: str) -> dict[str, Any]:
        return asyncio.run(_verify(world.node(unit)))

    async def _verify(node: WorldNode) -> dict[str, Any]:
        database = Database(node.path)
        one = SimpleNamespace(
            database=database,
            context=node.context,
            digest=_no_digest,
            home=node.path.parent,
            seal=_nothing,
            apply_ready=_nothing,
        )
        try:
            return await proof.verify(cast(Node, one), {}, lambda _said: None)
        finally:
            await database.close()

    async def _no_digest(_scope: str) -> None:
        return None

    async def _nothing() -> int:
        return 0

    # Of two rows sealed by two units: everything but keys at the centre, one field at the province.
    every = len(FIELDS) + 2  # a union has two columns; and who edited
    assert {unit: (verified(unit)["ok"], verified(unit)["withheld"]) for unit in ALL} == {
        VN: (True, 2 * every), HUE: (True, 2), VANG: (True, 0), AN: (True, 0),
    }  # fmt: skip
    (data,) = world.node(HUE).sql("SELECT data FROM _batch ORDER BY length(data) DESC LIMIT 1")[0]
    batch = parse_batch(data)
    with world.node(HUE).read() as connection:
        lean = for_peer(connection, world.node(HUE).context, VN, batch)
    world.node(HUE).sql("UPDATE _batch SET data = ? WHERE data = ?", lean, data)
    found = verified(HUE)
    assert not found["ok"]
    assert [each["seq"] for each in found["bad"]] == [batch.header.seq]
    assert "left out" in found["bad"][0]["reason"]


# --- files ---


def test_a_file_of_the_table_holds_keys_alone_and_cannot_be_loaded_there(world: World, tmp_path: Path) -> None:
    centre, file = world.node(VN), tmp_path / "out.csv"
    with centre.write() as connection:
        execute(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (AN,))

    async def both() -> dict[str, Any]:
        node = opened(centre, tmp_path)
        try:
            await dump(node, {"table": "discipline", "file": str(file)}, lambda _said: None)
            return await load(node, {"table": "discipline", "file": str(file)}, lambda _said: None)
        finally:
            await node.database.close()

    answer = asyncio.run(both())
    with file.open(encoding="utf-8-sig", newline="") as text:
        read = list(csv.DictReader(text))
    assert [(each["unit"], each["id"]) for each in read] == [(AN, "1"), (AN, "2")]
    assert not any(value for each in read for name, value in each.items() if name not in ("unit", "id"))
    assert (answer["inserted"], answer["updated"], answer["rejected_rows"]) == (0, 0, 2)
    reasons = {(each["field"], each["reason"]) for each in answer["rejected"]}
    assert ("unit", "only province and the levels below it may read or write this unit's rows") in reasons
    assert centre.sql("SELECT count(*) FROM _pending") == [(0,)]


SETTLES = {
    "the centre, whether a row stands": (VN, ALIVE, False),
    "the centre, who is shown": (VN, TWIN, False),
    "the centre, a field": (VN, "reason", False),
    "the province, whether a row stands": (HUE, ALIVE, True),
    "the province, who is shown: it does not read all of them": (HUE, TWIN, False),
    "the district, who is shown": (VANG, TWIN, True),
}


@pytest.mark.parametrize(("unit", "field", "may"), SETTLES.values(), ids=SETTLES)
def test_nobody_settles_what_others_would_refuse(unit: str, field: str, may: bool) -> None:
    table = parse_registry(REGISTRY).tables["discipline"]
    assert may_settle(table, field, level_of(unit), AN) is may
