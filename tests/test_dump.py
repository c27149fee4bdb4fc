"""A table as a file, and back: nothing changes on the way; and loads that are given up."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import stat
import sys
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.bulk.cells import FORMULA_ERRORS
from node.bulk.writing import TableWriter
from node.commands import bulk
from node.commands.bulk import dump, load
from node.database import Database
from node.demo.members import FIELDS, members
from node.local import Node
from sync_engine.errors import BadInput
from tests.capturing import LIBRARY, MEMBERS
from tests.loading import ground, read_file, write_csv
from tests.world import World, WorldNode

VN, HUE, VANG = "vn", "hue.vn", "phu-vang.hue.vn"
INSERT = f"INSERT INTO member (unit, {', '.join(FIELDS)}) VALUES ({', '.join('?' * (len(FIELDS) + 1))})"

ODD = {
    "1": 'quotes "a", commas, ; and a tab\t.',
    "2": "one\ntwo\r\nthree\rfour",
    "3": "=SUM(A1)",
    "4": "'+-@",
    "5": "nghiêng ngả, q\u0301",
    "6": " blanks around\u00a0",
    "7": "",
    "8": "0123",
    "9": "19/05/1970",
    "10": '["a"]',
    "11": "\u2028 \x0b \x85 in the middle, \ufeff",
    "12": '"',
}


def opened(node: WorldNode, home: Path) -> Node:
    """What the commands need of a node."""
    return cast(Node, SimpleNamespace(home=home, database=Database(node.path), context=node.context))


@pytest.fixture(name="known")
def known_fixture(tmp_path: Path) -> WorldNode:
    return World(tmp_path).node(VN)


@pytest.fixture(name="node")
async def node_fixture(known: WorldNode, tmp_path: Path) -> AsyncIterator[Node]:
    node = opened(known, tmp_path)
    yield node
    await node.database.close()


def quiet(_progress: Any) -> None:
    """Nobody is watching."""


def insert(known: WorldNode, count: int, unit: str = VN) -> None:
    for row in members(count, seed=3, communes=["Vỹ Dạ"]):
        known.sql(INSERT, unit, *row)


@pytest.mark.parametrize("labels", [False, True], ids=["field names", "labels"])
async def test_what_is_dumped_is_loaded_without_a_change(
    known: WorldNode, node: Node, tmp_path: Path, labels: bool
) -> None:
    insert(known, 50)
    for key, text in ODD.items():
        known.sql(
            "INSERT INTO member (unit, id, full_name, birth_date, sex, note, languages, edited_by)"
            " VALUES ('vn', ?, 'A', '1945-08', 'nam', ?, ?, ?)",
            key, text, '[" c","a;b","d"]' if key == "1" else '["[x"]' if key == "2" else "[]", text,
        )  # fmt: skip
    known.seal()
    before = known.sql("SELECT * FROM member ORDER BY id")
    path = tmp_path / "out.csv"
    said = await dump(node, {"table": "member", "file": str(path), "labels": labels}, quiet)
    assert said["rows"] == 50 + len(ODD)
    done = await load(node, {"table": "member", "file": str(path)}, quiet)
    assert (done["rejected"], done["unchanged"], done["updated"]) == ([], 50 + len(ODD), 0)
    assert known.sql("SELECT * FROM member ORDER BY id") == before
    assert known.sql("SELECT count(*) FROM _pending") == [(0,)]


async def test_every_type_comes_back(tmp_path: Path) -> None:
    known = World(tmp_path, registry=LIBRARY.toml).node(VN)
    node = opened(known, tmp_path)
    columns = "unit, id, title, serial, price, copies, seen_at, lent, subjects, bought"
    for row in (
        ("1", "T", b"\x00\xff", 0.1, -3, "2026-11-24T10:04:05.123Z", 1, '["a","b"]', "2024-02-29"),
        ("2", "T", b"x", 1e300, 2**63 - 1, "2026-11-24T10:04:05.000Z", 0, None, None),
        ("3", "T", b"x", -2.5, None, "0001-01-01T00:00:00Z", None, '["q\\"q"]', None),
    ):
        known.sql(f"INSERT INTO asset ({columns}) VALUES ('vn', {', '.join('?' * len(row))})", *row)
    known.seal()
    for labels in (False, True):
        await dump(node, {"table": "asset", "file": str(tmp_path / "out.csv"), "labels": labels}, quiet)
        done = await load(node, {"table": "asset", "file": str(tmp_path / "out.csv")}, quiet)
        assert (done["rejected"], done["unchanged"]) == ([], 3)
    await node.database.close()


async def test_the_file_is_what_excel_opens_in_order_for_its_owner_alone(
    known: WorldNode, node: Node, tmp_path: Path
) -> None:
    known.sql("INSERT INTO _writable_unit VALUES ('hue.vn'), ('phu-vang.hue.vn')")
    for unit, key in ((VN, "2"), (VANG, "1"), (HUE, "3"), (VN, "10")):
        known.sql(
            "INSERT INTO member (unit, id, full_name, birth_date, sex, has_handbook, languages)"
            " VALUES (?, ?, 'An', '1970-05-19', 'nam', 1, '[\"Anh\",\"Nga\"]')",
            unit, key,
        )  # fmt: skip
    path = tmp_path / "out.csv"
    path.write_text("what was there before")
    await dump(node, {"table": "Phiếu đảng viên", "file": str(path), "labels": True}, quiet)
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf" + "Đơn vị,Mã,Họ và tên khai sinh,".encode())
    assert content.count(b"\r\n") == content.count(b"\n") == 5
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert [(row["Đơn vị"], row["Mã"]) for row in rows] == [(HUE, "3"), (VANG, "1"), (VN, "10"), (VN, "2")]
    shown = (rows[0]["Ngày sinh"], rows[0]["Đã cài Sổ tay đảng viên"], rows[0]["Ngoại ngữ"])
    assert shown == ("19/05/1970", "có", "Anh;Nga")
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = await dump(node, {"table": "member", "file": str(path), "unit": "hue"}, quiet)
    assert said["rows"] == 2
    assert path.read_text("utf-8-sig").startswith("unit,id,full_name,")
    with pytest.raises(BadInput, match="no rows of 'da-nang'"):
        await dump(node, {"table": "member", "file": str(path), "unit": "da-nang"}, quiet)


async def test_a_dump_that_fails_leaves_what_was_there(
    known: WorldNode, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(known, 3)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "out.csv").write_text("before")

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(TableWriter, "write", failing)
    with pytest.raises(BadInput, match="Input/output error"):
        await dump(node, {"table": "member", "file": str(folder / "out.csv")}, quiet)
    assert [(each.name, each.read_text()) for each in folder.iterdir()] == [("out.csv", "before")]
    with pytest.raises(BadInput, match="nowhere"):
        await dump(node, {"table": "member", "file": str(tmp_path / "nowhere" / "out.csv")}, quiet)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), labels=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_text_comes_back_but_for_blanks_around_it(tmp_path: Path, texts: list[str], labels: bool) -> None:
    table = MEMBERS.tables["member"]
    written = [unicodedata.normalize("NFC", text) for text in texts]
    written = [text for text in written if text.strip() not in FORMULA_ERRORS and text.strip().strip("#")]
    path = tmp_path / "out.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = TableWriter(file, table, labels=labels)
        empty = {"full_name": "A", "birth_date": "1970", "sex": "nam"}
        page = [
            [str(at), *(text if each.name == "note" else empty.get(each.name) for each in table.fields), None]
            for at, text in enumerate(written)
        ]
        if page:
            writer.write("hue.vn", page)
    loaded = read_file(ground(MEMBERS), path)
    assert loaded.rejected == []
    assert [row["note"] for row in loaded.values] == [text.strip() or None for text in written]


# -- given up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["reading", "writing"])
async def test_a_load_that_is_given_up_has_changed_nothing_and_can_be_run_again(
    known: WorldNode, node: Node, tmp_path: Path, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "TELL_S", 0)
    file, errors = tmp_path / "members.csv", tmp_path / "errors.csv"
    write_csv(file, FIELDS, [*members(6000, seed=1, communes=["Vỹ Dạ"]), ("x", *[None] * (len(FIELDS) - 1))])
    told: list[str] = []

    def stop(progress: Any) -> None:
        if phase in progress:
            told.append(phase)
            task.cancel()

    arguments = {"table": "member", "file": str(file), "errors": str(errors)}
    task = asyncio.create_task(load(node, arguments, stop))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told
    assert known.sql("SELECT count(*) FROM member") == [(0,)]
    assert known.sql("SELECT count(*) FROM _pending") == [(0,)]
    assert known.sql("SELECT applying FROM _capture") == [(0,)]
    assert set(os.listdir(tmp_path)) == {"members.csv", "vn.db", "vn.db-wal", "vn.db-shm"}
    done = await load(node, arguments, quiet)
    assert (done["inserted"], done["rejected_rows"]) == (6000, 1)
    assert errors.read_text("utf-8-sig").splitlines()[:2] == ["line,field,reason", "6002,Họ và tên khai sinh,required"]
    assert known.sql("SELECT count(*) FROM _pending") == [(6000,)]
    with pytest.raises(BadInput, match="overwrite"):
        await load(node, {**arguments, "errors": str(file)}, quiet)


async def test_other_writers_are_served_while_a_file_is_read(
    known: WorldNode, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "TELL_S", 0)
    file = write_csv(tmp_path / "members.csv", FIELDS, list(members(6000, seed=1, communes=["Vỹ Dạ"])))
    seen: list[int] = []

    def write(progress: Any) -> None:
        if "reading" in progress:
            known.sql(INSERT, VN, f"x{len(seen)}", *next(members(1, seed=2, communes=["Vỹ Dạ"]))[1:])
            seen.append(progress["reading"])

    done = await load(node, {"table": "member", "file": str(file)}, write)
    assert seen == [2000, 4000, 6000]
    assert done["inserted"] == 6000
    assert known.sql("SELECT count(*) FROM member") == [(6003,)]
