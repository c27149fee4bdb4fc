"""What an operator reads on a bad day: rows changed behind the program's back, and a bit that flipped in a stored
batch; nothing is mended unasked, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync_engine.batch import parse_batch
from tests.e2e.processes import Cluster, Home, command
from tests.e2e.writing import write_members

ROOT, HUE, VANG = "vn", "hue.vn", "phu-vang.hue.vn"


LARGE = 20_000
ROOM_KIB = 60 * 1024
"""What comparing may take beside what a node takes anyway: the caches of two databases, and a page of keys."""


@pytest.fixture(name="made", scope="module")
def made_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("made")) as tree:
        root = tree.root("vn", "Trung ương")
        root.start()
        hue = tree.join(root, "hue", "Huế", listens=True)
        hue.start()
        vang = tree.join(hue, "phu-vang", "Phú Vang")
        write_members(vang, 40, seed=6)
        tree.settle()
        hue.stop()
        root.stop()
        yield tree


@pytest.fixture(name="tree")
def tree_fixture(made: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    with made.copy(tmp_path) as tree:
        tree.start(ROOT, HUE)
        yield tree


def behind(home: Home, *statements: str) -> None:
    """A program that knows how to keep the triggers silent."""
    home.sql("UPDATE _capture SET applying = 1")
    for statement in statements:
        home.sql(statement)
    home.sql("UPDATE _capture SET applying = 0")


def flip(home: Home, part: str) -> tuple[int, bytes]:
    """Turn one bit of the members' batch as it is stored; returns its number and what it was."""
    no, data = home.sql(
        "SELECT _batch.no, data FROM _batch JOIN _stream ON _stream.no = _batch.stream WHERE scope = ? AND origin = ?"
        " ORDER BY entries DESC LIMIT 1",
        *(VANG, VANG),
    )[0]
    batch = parse_batch(data)
    chunk = max((each for section in batch.chunks for each in section.values()), key=len)
    at = data.index(batch.header_bytes if part == "header" else chunk) + 60
    home.sql("UPDATE _batch SET data = ? WHERE no = ?", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], no)
    return no, data


def test_rows_changed_behind_the_triggers_are_found_and_repaired(tree: Cluster) -> None:
    home = tree[VANG]
    before = home.sql("SELECT * FROM member ORDER BY id")
    victim, gone = before[3][1], before[5][1]
    behind(
        home,
        f"UPDATE member SET full_name = 'Kẻ Gian' WHERE id = '{victim}'",
        f"DELETE FROM member WHERE id = '{gone}'",
        f"INSERT INTO member (unit, id, full_name) VALUES ('{VANG}', 'ghost', 'Ma')",
    )
    home.sql("UPDATE member SET note = 'của cán bộ' WHERE id = ?", victim)  # an honest edit beside it

    found = home.dongbo("verify", code=1)
    assert f"{VANG}: rows of table member that are not what their signed batches say, 3 in all" in found.out
    assert "1 changed (full_name), 1 missing, 1 that nobody entered" in found.out
    assert "'dongbo verify --repair' puts the rows back" in found.out
    assert "Kẻ Gian" not in found.out + found.err
    assert home.sql("SELECT full_name FROM member WHERE id = ?", victim) == [("Kẻ Gian",)], "nothing is mended unasked"

    mended = home.dongbo("verify", "--repair")
    assert "Rows put back: 3. What stood there before is kept in" in mended.out
    assert "Every table shows what its signed batches say." in mended.out
    [kept] = home.path.glob("repairs-*.jsonl")
    records = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    assert {each["id"] for each in records} == {victim, gone, "ghost"}
    assert "Kẻ Gian" in kept.read_text(encoding="utf-8"), "nothing is lost"

    assert home.sql("SELECT note FROM member WHERE id = ?", victim) == [("của cán bộ",)]
    assert [row[:3] for row in home.sql("SELECT * FROM member ORDER BY id")] == [row[:3] for row in before]
    tree.settle()
    tree.assert_in_step()
    assert tree[ROOT].sql("SELECT note FROM member WHERE id = ?", victim) == [("của cán bộ",)]
    assert home.json("verify", "--repair")["repaired"]["rows"] == 0


def test_a_service_repairs_while_it_runs(tree: Cluster) -> None:
    hue = tree[HUE]
    behind(hue, "DELETE FROM member", "DELETE FROM _row WHERE id > '3'")
    assert not hue.json("verify", code=1)["ok"]
    mended = hue.json("verify", "--repair")
    assert mended["ok"]
    assert mended["repaired"]["rows"] >= 40
    tree.settle()
    tree.assert_in_step()


@pytest.mark.parametrize("part", ["header", "chunk"])
def test_a_flipped_bit_is_found_and_fetched_again_from_the_parent(tree: Cluster, part: str) -> None:
    home = tree[VANG]
    no, data = flip(home, part)
    found = home.dongbo("verify", code=1)
    assert f"of {VANG} ({VANG}) is stored damaged. It is asked for again, and will come from: {HUE}." in found.out
    assert found.out.count("could not be compared") == 1
    assert home.json("status")["damaged_batches"] == 1
    mended = home.dongbo("verify", "--repair")
    assert "Fetched again, and whole: batch" in mended.out
    assert home.sql("SELECT data FROM _batch WHERE no = ?", no) == [(data,)]
    assert home.json("status")["damaged_batches"] == 0
    tree.assert_in_step()


def test_a_flipped_bit_at_the_province_is_fetched_again_from_the_district_when_it_calls(tree: Cluster) -> None:
    """The centre may not read every column, so what it has is not enough."""
    hue = tree[HUE]
    no, data = flip(hue, "chunk")
    found = hue.json("verify", "--repair", code=1)
    [wanted] = found["wanted"]
    assert wanted["from"] == [ROOT, VANG]
    assert "Stored batches that are damaged here and asked for again: 1." in " ".join(hue.dongbo("status").out.split())
    answer: dict[str, Any] = tree[VANG].sync()
    assert answer["ok"]
    assert hue.sql("SELECT data FROM _batch WHERE no = ?", no) == [(data,)]
    assert hue.json("verify")["ok"]


def peak_kib(home: Home, *arguments: str) -> int:
    """The most memory that a command took."""
    process = subprocess.Popen(
        [*command(), *arguments, "--home", str(home.path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss


@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="no way to measure it here")
def test_a_large_scope_is_compared_in_bounded_memory(tmp_path: Path) -> None:
    with Cluster(tmp_path) as tree:
        root = tree.root("vn", "Trung ương")
        write_members(root, LARGE, seed=7)
        root.dongbo("status")
        at_rest = peak_kib(root, "status")
        assert peak_kib(root, "verify") < at_rest + ROOM_KIB
        behind(root, "DELETE FROM member WHERE id > '8'")
        left = root.sql("SELECT count(*) FROM member")[0][0]
        assert left < LARGE
        assert peak_kib(root, "verify", "--repair") < at_rest + ROOM_KIB
        assert root.sql("SELECT count(*) FROM member") == [(LARGE,)]


def test_a_database_whose_pages_are_broken_leads_to_a_backup_or_the_parent(tree: Cluster) -> None:
    home = tree[VANG]
    home.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(home.database.read_bytes())
    size = int.from_bytes(raw[16:18], "big")
    for page in range(len(raw) // size // 2, len(raw) // size):
        raw[page * size : page * size + 64] = b"\xa5" * 64
    home.database.write_bytes(bytes(raw))
    answer = home.dongbo("verify", code=1)
    assert "Traceback" not in answer.err
    assert "damaged" in answer.out + answer.err
    assert "'dongbo recover --from-parent'" in answer.out + answer.err
