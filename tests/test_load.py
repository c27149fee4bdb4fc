"""What a load does to a table: upsert by key, the rules of levels, codes, repeats; and how much it remembers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.bulk import rejections, source
from node.bulk.headings import Headings
from node.bulk.keys import SeenKeys
from node.bulk.spool import Spool
from node.commands.bulk import ground_of
from node.demo.members import FIELDS, members
from sync_engine.errors import BadInput
from sync_engine.limits import ROW_BYTES_MAX
from tests.capturing import MEMBERS
from tests.loading import ground, load_file, read_file, write_csv
from tests.world import World, WorldNode

HUE, VANG = "hue.vn", "phu-vang.hue.vn"
HEADER = ["id", "full_name", "birth_date", "sex"]
AN, BA = ["1", "Nguyễn Văn An", "1950-05-19", "nam"], ["2", "Trần Thị Ba", "1961", "nữ"]


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> World:
    return World(tmp_path)


def notes(node: WorldNode) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in node.sql("SELECT unit, id, kind FROM _pending WHERE tbl > 10")}


# -- upsert -----------------------------------------------------------------------------------------------------------


def test_new_rows_are_inserted_known_ones_changed_where_they_differ(world: World, tmp_path: Path) -> None:
    node = world.node("vn")
    first = load_file(node, "member", write_csv(tmp_path / "a.csv", [*HEADER, "note"], [[*AN, "x"], [*BA, "y"]]))
    assert (first.counts.inserted, first.counts.updated, first.counts.unchanged) == (2, 0, 0)
    node.seal()
    path = write_csv(tmp_path / "b.csv", [*HEADER, "note"], [[*AN, ""], [*BA, "y"], ["3", *BA[1:], ""]])
    second = load_file(node, "member", path)
    assert (second.counts.inserted, second.counts.updated, second.counts.unchanged) == (1, 1, 1)
    assert second.counts.cleared == 1
    assert notes(node) == {("vn", "1", "E"), ("vn", "3", "I")}
    assert node.sql("SELECT id, note FROM member ORDER BY id") == [("1", None), ("2", "y"), ("3", None)]
    node.seal()
    third = load_file(node, "member", path)
    assert (third.counts.inserted, third.counts.updated, third.counts.unchanged) == (0, 0, 3)
    assert notes(node) == set()


def test_a_column_that_the_file_does_not_have_stays_as_it_is(world: World, tmp_path: Path) -> None:
    node = world.node("vn")
    load_file(node, "member", write_csv(tmp_path / "a.csv", [*HEADER, "note"], [[*AN, "x"]]))
    node.seal()
    loaded = load_file(node, "member", write_csv(tmp_path / "b.csv", ["id", "cell"], [["1", "Chi bộ 1"], ["2", "y"]]))
    assert node.sql("SELECT full_name, note, cell FROM member") == [(AN[1], "x", "Chi bộ 1")]
    assert [(line, field) for line, field, _ in loaded.rejected] == [(3, "birth_date"), (3, "full_name"), (3, "sex")]
    assert "not here yet" in loaded.rejected[0][2]


def test_who_changed_is_named_for_rows_that_change(world: World, tmp_path: Path) -> None:
    node = world.node("vn")
    load_file(node, "member", write_csv(tmp_path / "a.csv", [*HEADER, "edited_by"], [[*AN, "Hoa"], [*BA, "Hoa"]]))
    path = write_csv(tmp_path / "b.csv", [*HEADER, "note", "Người sửa"], [[*AN, "x", "Tư"], [*BA, "", "Tư"]])
    load_file(node, "member", path, by="Lan")
    assert node.sql("SELECT id, edited_by FROM member ORDER BY id") == [("1", "Lan"), ("2", "Hoa")]


UNCHANGED = {
    "blanks around": "UPDATE member SET other_name = ' x\u00a0'",
    "no text, and an empty one": "UPDATE member SET note = ''",
    "a set with blanks": 'UPDATE member SET languages = \'[ "a", "b" ]\'',
    "no set, and an empty one": "UPDATE member SET badges = '[]'",
}


@pytest.mark.parametrize("statement", UNCHANGED.values(), ids=UNCHANGED)
def test_what_a_file_cannot_show_is_no_change(world: World, tmp_path: Path, statement: str) -> None:
    node = world.node("vn")
    header = [*HEADER, "other_name", "note", "languages", "badges"]
    path = write_csv(tmp_path / "a.csv", header, [[*AN, "x", "", "a;b", ""]])
    load_file(node, "member", path)
    node.sql(statement)
    node.seal()
    assert load_file(node, "member", path).counts.unchanged == 1
    assert notes(node) == set()


# -- rules ------------------------------------------------------------------------------------------------------------


def test_a_parent_loads_the_rows_of_its_units_and_of_no_other(world: World, tmp_path: Path) -> None:
    world.node(VANG)
    node = world.node(HUE)
    units = [VANG, "phu-vang", HUE, "huong-thuy.hue.vn", "vn"]
    path = write_csv(tmp_path / "a.csv", ["unit", *HEADER], [[unit, str(at), *AN[1:]] for at, unit in enumerate(units)])
    loaded = load_file(node, "member", path)
    assert notes(node) == {(VANG, "0", "I"), (VANG, "1", "I"), (HUE, "2", "I")}
    assert [(line, field) for line, field, _ in loaded.rejected] == [(5, "unit"), (6, "unit")]


def test_a_catalogue_is_written_by_its_own_unit_alone(world: World, tmp_path: Path) -> None:
    world.node(VANG)
    path = write_csv(tmp_path / "a.csv", ["unit", "id", "kind", "Mã"], [[HUE, "1", "k", "c"], [VANG, "2", "k", "c"]])
    loaded = load_file(world.node(HUE), "catalog", path)
    assert loaded.counts.inserted == 1
    assert loaded.rejected == [(3, "unit", "must be this node's own unit, hue.vn")]


def test_a_field_that_only_higher_levels_may_change_is_set_by_an_insert_alone(world: World, tmp_path: Path) -> None:
    node = world.node(VANG)
    header = [*HEADER, "card_number", "note"]
    load_file(node, "member", write_csv(tmp_path / "a.csv", header, [[*AN, "99.1", ""], [*BA, "", ""]]))
    rows = [[*AN, "99.2", "x"], [*BA, "", "x"], ["3", *BA[1:], "99.3", ""]]
    loaded = load_file(node, "member", write_csv(tmp_path / "b.csv", header, rows))
    assert loaded.rejected == [(2, "card_number", "only province and the levels above it may change it")]
    assert (loaded.counts.inserted, loaded.counts.updated) == (1, 1)
    assert node.sql("SELECT id, card_number, note FROM member ORDER BY id") == [
        ("1", "99.1", None),
        ("2", None, "x"),
        ("3", "99.3", None),
    ]


def test_a_field_that_this_level_may_not_read_is_not_written_either(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "a.csv", ["unit", *HEADER, "phone"], [["vn", *AN, "1"], [VANG, *BA, "1"], [VANG, *AN, ""]]
    )
    loaded = read_file(ground(MEMBERS, "member", "vn", VANG), path)
    assert loaded.rejected == [(3, "phone", "only province and the levels below it may read or write it")]
    assert len(loaded.values) == 2


def test_a_row_that_could_not_travel_is_kept_out(world: World, tmp_path: Path) -> None:
    node = world.node("vn")
    half = "x" * (ROW_BYTES_MAX // 2)
    rows = [[*AN, half, half], [*BA, half, ""]]
    loaded = load_file(node, "member", write_csv(tmp_path / "a.csv", [*HEADER, "note", "health"], rows))
    assert [(line, field) for line, field, _ in loaded.rejected] == [(2, None)]
    again = load_file(node, "member", write_csv(tmp_path / "b.csv", ["id", "health"], [["2", half]]))
    assert [(line, field) for line, field, _ in again.rejected] == [(2, None)]
    assert "longer than" in again.rejected[0][2]
    assert node.sql("SELECT id, health FROM member") == [("2", None)]


CODES: dict[str, tuple[str, str | None]] = {
    "a code": ("kinh", "kinh"),
    "in capitals": ("KINH", "kinh"),
    "its name": ("Kinh", "kinh"),
    "the name of another, decomposed": ("ta\u0300y", "tay"),
    "no code at all": ("Atlantis", None),
    "the name of two": ("Hai", None),
    "a code out of use": ("cu", "cu"),
    "the name of one out of use and of one in use": ("Mới", "moi"),
}


@pytest.mark.parametrize(("written", "code"), CODES.values(), ids=CODES)
def test_a_code_may_be_written_as_its_name(world: World, tmp_path: Path, written: str, code: str | None) -> None:
    node = world.node("vn")
    node.sql("DELETE FROM catalog WHERE kind = 'ethnic_group'")
    own = [
        ("kinh", "Kinh", 0),
        ("tay", "Tày", 0),
        ("h1", "hai", 0),
        ("h2", "Hai", 0),
        ("cu", "Mới", 1),
        ("moi", "Mới", 0),
    ]
    for at, (one, label, retired) in enumerate(own):
        node.sql(
            "INSERT INTO catalog (unit, id, kind, code, label, retired) VALUES ('vn', ?, 'ethnic_group', ?, ?, ?)",
            f"x{at}", one, label, retired,
        )  # fmt: skip
    loaded = load_file(node, "member", write_csv(tmp_path / "a.csv", [*HEADER, "Dân tộc"], [[*AN, written]]))
    if code is None:
        ((line, field, reason),) = loaded.rejected
        assert (line, field, "ethnic_group" in reason) == (2, "ethnic_group", True)
    else:
        assert node.sql("SELECT ethnic_group FROM member") == [(code,)]


def test_a_key_that_comes_twice_is_kept_out_the_second_time(world: World, tmp_path: Path) -> None:
    node = world.node("vn")
    rows = [[str(at), *AN[1:]] for at in (*range(3000), 5, 2999)]
    loaded = load_file(node, "member", write_csv(tmp_path / "a.csv", HEADER, rows))
    assert loaded.counts.inserted == 3000
    assert loaded.rejected == [
        (3002, "id", "the same unit and id stand on line 7 already"),
        (3003, "id", "the same unit and id stand on line 3001 already"),
    ]


def test_a_key_is_called_a_repeat_only_after_it_was_compared_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.bulk.keys.hash", lambda _key: 7, raising=False)
    keys = SeenKeys()
    keys.note(["a", "a", "b"], ["1", "2", "1"])
    keys.note(["a"], ["2"])
    keys.close()
    assert keys.repeats(["a", "a", "b"], ["1", "2", "1"], [2, 3, 4]) == {}
    assert keys.repeats(["a"], ["2"], [5]) == {0: 3}


def test_thirty_seven_bad_lines_among_two_thousand_are_found_exactly(world: World, tmp_path: Path) -> None:
    harm = {"birth_date": "31/02/1970", "sex": "x", "citizen_id": "12", "full_name": "", "card_pages": "3", "id": ""}
    rows = [dict(zip(FIELDS, row, strict=True)) for row in members(2000, seed=5, communes=["Vỹ Dạ"], random_ids=True)]
    rng = Random(37)
    bad = {at: rng.sample(sorted(harm), rng.randint(1, 3)) for at in rng.sample(range(2000), 37)}
    for at, names in bad.items():
        rows[at] |= {name: harm[name] for name in names}
    path = write_csv(tmp_path / "a.csv", FIELDS, [list(row.values()) for row in rows])
    loaded = load_file(world.node("vn"), "member", path)
    assert [(line, field) for line, field, _ in loaded.rejected] == sorted(
        (at + 2, name) for at, names in bad.items() for name in names
    )
    assert (loaded.rows, loaded.counts.inserted) == (2000, 2000 - 37)


# -- whole or not at all ----------------------------------------------------------------------------------------------


def test_a_register_that_changes_meanwhile_leaves_the_table_as_it_was(world: World, tmp_path: Path) -> None:
    node = world.node("vn")
    with node.read() as connection:
        known = ground_of(connection, node.context, "member")
    older = replace(known, registry=replace(known.registry, version=known.registry.version - 1))
    with pytest.raises(BadInput, match="new version"):
        load_file(node, "member", write_csv(tmp_path / "a.csv", HEADER, [AN]), known=older)
    assert node.sql("SELECT count(*) FROM member") == [(0,)]


def test_a_table_is_named_by_its_name_or_label(world: World) -> None:
    node = world.node("vn")
    with node.read() as connection:
        assert ground_of(connection, node.context, "phiếu  ĐẢNG viên").table.name == "member"
        for name in ("members", "_registry", "_unit", "_pending"):
            with pytest.raises(BadInput, match="it has member, catalog"):
                ground_of(connection, node.context, name)


def test_the_spool_is_unreadable_and_has_no_name(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    chunk: dict[str, list[Any]] = {"": [2, 3], "name": ["Nguyễn", None], "serial": [b"\xff", b""], "price": [0.1, 2]}
    for _ in range(3):
        spool.put(chunk)
    (held,) = [
        name.read_bytes()
        for name in Path("/proc/self/fd").iterdir()
        if os.path.realpath(name).startswith(str(tmp_path))
    ]
    assert "Nguyễn".encode() not in held
    assert list(tmp_path.iterdir()) == []
    assert list(spool.chunks()) == [chunk] * 3
    spool.close()


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_faults_are_kept_up_to_a_bound_and_counted_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "KEPT_MAX", 3)
    kept = rejections.Rejections(Headings(MEMBERS.tables["member"]).label_of)
    for line in range(9, 4, -1):
        kept.add(line, [("sex", "a"), ("id", "b")])
    assert (kept.rows, kept.faults, len(kept.answer())) == (5, 10, 3)
    assert [each["line"] for each in kept.answer()] == [8, 9, 9]


def test_a_chunk_is_bounded_in_rows_and_in_letters(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["id", "note"], [[str(at), "x" * 9000] for at in range(600)])
    opened = source.open_source(path, None, lambda _cell: True)
    sizes = [len(chunk.rows) for chunk in opened.chunks()]
    opened.close()
    assert sum(sizes) == 600
    assert max(sizes) * 9000 < source.CHARS_AT_ONCE + 10_000


def test_a_file_of_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.bulk.reading.ROWS_MAX", 2)
    path = write_csv(tmp_path / "a.csv", HEADER, [AN, BA, AN])
    with pytest.raises(source.Unreadable, match="more than 2 rows"):
        read_file(ground(MEMBERS), path)
