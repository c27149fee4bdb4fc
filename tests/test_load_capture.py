"""A load notes what the triggers would have noted of the same rows, and so seals into the same batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from node.bulk.writing import TableWriter
from node.storage.engine import execute
from node.storage.proving import decoded
from node.storage.registries import current_registry
from sync_engine.batch import parse_batch
from tests.capturing import LIBRARY
from tests.loading import load_file
from tests.world import SHIPPED, World, WorldNode

ROOT = "vn"
AN = {"id": "1", "full_name": "Nguyễn Văn An", "birth_date": "1950-05-19", "sex": "nam"}
BA = {"id": "2", "full_name": "Trần Thị Ba", "birth_date": "1961", "sex": "nữ"}
BOOK = {"id": "1", "title": "T", "serial": b"\x00\xff", "price": 2.5, "copies": 3, "lent": 1}

Row = dict[str, Any]


@dataclass
class Case:
    """What was there, sealed; what was changed since, not sealed; and the rows of the file."""

    rows: list[Row]
    sealed: list[Row] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    table: str = "member"


NO_NOTES = [{**AN, "note": None}, {**BA, "note": None}]
NGA = {**AN, "languages": '["Nga"]', "badges": '["30 năm"]'}
HERE = f"INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES ('{ROOT}', '1', 'A', '1950', 'nam')"
GONE = "DELETE FROM member"
NOTED = "UPDATE member SET note = 'x'"
CASES = {
    "rows that are new": Case([AN, BA]),
    "fields that change": Case([{**AN, "note": "x", "has_handbook": 1, "card_pages": 4}], [AN]),
    "a field that is cleared": Case([{**AN, "note": None}], [{**AN, "note": "x"}]),
    "rows that are as they were": Case([AN, BA], [AN, BA]),
    "new, changed, neither": Case(
        [{**AN, "note": "x"}, {**BA, "note": None}, {**BA, "id": "3", "note": "y"}], NO_NOTES
    ),
    "one field of a group": Case([{**AN, "address_line": "12 Lê Lợi"}], [{**AN, "address_commune": "Vỹ Dạ"}]),
    "a set that is a union": Case([{**AN, "languages": '["Anh","Nga"]'}], [NGA]),
    "a union beside other fields": Case([{**AN, "languages": None, "note": "x"}], [NGA]),
    "a union changed before": Case([{**AN, "languages": '["Anh"]'}], [NGA], ["UPDATE member SET languages = NULL"]),
    "a row that was deleted since": Case([AN], [AN], [GONE]),
    "another person under an id that was deleted": Case([{**BA, "id": "1"}], [AN], [GONE]),
    "a row edited, deleted, and here again": Case([AN], [AN], [NOTED, GONE]),
    "a row that is pending itself": Case([{**AN, "note": "x"}], [], [HERE]),
    "an edit that is noted already": Case([{**AN, "note": "y"}], [AN], [NOTED]),
    "who edited, with what changed": Case([{**AN, "note": "x", "edited_by": "Lan"}], [{**AN, "edited_by": "Hoa"}]),
    "more registers than a word has bits": Case(
        [{**BOOK, "title": "U", "mark_60": "x", "room": "r"}, {**BOOK, "id": "2"}], [BOOK], table="asset"
    ),
    "bytes, numbers and unions of a wide table": Case(
        [{**BOOK, "serial": b"\x01", "price": 0.1, "lent": 0, "subjects": '["a"]'}], [BOOK], table="asset"
    ),
}


def node_of(folder: Path, case: Case) -> WorldNode:
    """A node where the case's past has happened."""
    folder.mkdir()
    world = World(folder, registry=SHIPPED if case.table == "member" else LIBRARY.toml)
    node = world.node(ROOT)
    upsert(node, case.table, case.sealed)
    node.seal()
    for statement in case.pending:
        node.sql(statement)
    return node


def upsert(node: WorldNode, table: str, rows: list[Row]) -> None:
    """What a program does that writes these rows with plain SQL."""
    for row in rows:
        names = ["unit", *row]
        sets = ", ".join(f"{name} = excluded.{name}" for name in row)
        node.sql(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            f" ON CONFLICT (unit, id) DO UPDATE SET {sets}",
            node.unit,
            *row.values(),
        )


def load(node: WorldNode, table: str, rows: list[Row], path: Path) -> None:
    """The same rows as a file."""
    names = list({name: None for row in rows for name in row})
    with node.read() as connection:
        fields = current_registry(connection, node.context).tables[table]
    with path.open("w", encoding="utf-8", newline="") as text:
        writer = TableWriter(text, fields, labels=False)
        page = [[row.get("id"), *(row.get(each.name) for each in fields.fields), row.get("edited_by")] for row in rows]
        writer.write(node.unit, page)
    absent = [each.name for each in fields.fields if each.name not in names]
    loaded = load_file(node, table, path, skip=[*absent, *([] if "edited_by" in names else ["edited_by"])])
    assert loaded.rejected == []


def notes(node: WorldNode) -> list[tuple[Any, ...]]:
    return node.sql(
        "SELECT unit, tbl, id, kind, mask, typeof(mask), image, first < last FROM _pending ORDER BY 1, 2, 3, 4, 5"
    )


def batches(node: WorldNode) -> list[Any]:
    """What this node has sealed, times and their like left out."""
    found = []
    with node.read() as connection:
        for (data,) in execute(connection, "SELECT data FROM _batch ORDER BY no").all():
            batch = parse_batch(data)
            registry = current_registry(connection, node.context)
            if batch.header.stream.origin == node.unit and batch.header.stream.scope == node.unit:
                found += [
                    (each.table.name, each.kind, each.ids, each.identities, each.masks, each.new, each.by)
                    for each in decoded(batch, registry)
                ]
                found += [(each.columns, each.removed, each.registers) for each in decoded(batch, registry)]
    return found


def content(node: WorldNode, table: str) -> list[tuple[Any, ...]]:
    return node.sql(f"SELECT * FROM {table} ORDER BY unit, id")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_load_is_what_the_same_rows_by_sql_are(tmp_path: Path, case: Case) -> None:
    by_sql, by_load = node_of(tmp_path / "sql", case), node_of(tmp_path / "load", case)
    upsert(by_sql, case.table, case.rows)
    load(by_load, case.table, case.rows, tmp_path / "file.csv")
    assert content(by_load, case.table) == content(by_sql, case.table)
    assert notes(by_load) == notes(by_sql)
    assert by_load.seal() == by_sql.seal()
    assert batches(by_load) == batches(by_sql)
    assert by_load.sql("SELECT applying FROM _capture") == [(0,)]


def test_times_are_those_of_the_load_and_the_first_is_kept(tmp_path: Path) -> None:
    node = node_of(
        tmp_path / "a", Case([], [AN], ["UPDATE member SET note = 'x'", "UPDATE _pending SET first = 1, last = 2"])
    )
    before = node.sql("SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000")[0][0]
    load(node, "member", [{**AN, "note": "y"}, BA], tmp_path / "file.csv")
    (edit,) = node.sql("SELECT first, last FROM _pending WHERE id = '1'")
    (insert,) = node.sql("SELECT first, last FROM _pending WHERE id = '2'")
    assert edit[0] == 1
    assert insert[0] == insert[1]
    for time in (edit[1], insert[1]):
        assert time & 0xFFFF == 0
        assert 0 <= (time >> 16) - before < 60_000


def test_the_comparison_would_see_a_missing_note(tmp_path: Path) -> None:
    node = node_of(tmp_path / "a", Case([], [AN]))
    load(node, "member", [{**AN, "languages": '["Anh"]'}], tmp_path / "file.csv")
    assert {(kind, mask != 0) for _unit, _tbl, _id, kind, mask, *_rest in notes(node)} == {("B", False), ("E", True)}
