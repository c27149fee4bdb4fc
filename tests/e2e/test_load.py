"""``dongbo load`` and ``dongbo dump`` as people run them: real processes, with and without a service, and killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from openpyxl import Workbook

from node.demo.members import FIELDS, members
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, command, until
from tests.loading import write_csv

MANY = 20_000
"""So many that the writing transaction can be met."""


@pytest.fixture(name="many", scope="module")
def many_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(members(MANY, seed=9, communes=["Phú Mỹ"], random_ids=True))
    return write_csv(tmp_path_factory.mktemp("many") / "members.csv", FIELDS, rows)


def count(home: Home) -> int:
    return int(home.sql("SELECT count(*) FROM member")[0][0])


def is_writing(home: Home) -> bool:
    """Whether somebody holds the writing lock."""
    with closing(sqlite3.connect(home.database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


def begin_load(home: Home, file: Path) -> subprocess.Popen[bytes]:
    """A load of many rows that has begun to write."""
    arguments = [*command(), "load", "member", str(file), "--home", str(home.path)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until("the load writes", lambda: process.poll() is not None or is_writing(home))
    assert process.poll() is None, process.stdout and process.stdout.read()
    return process


def end(process: subprocess.Popen[bytes], number: int) -> None:
    process.send_signal(number)
    process.communicate(timeout=20)


def test_a_file_goes_in_bad_lines_stay_out_and_both_are_told(line: Cluster, tmp_path: Path) -> None:
    home = line[DISTRICT]
    rows = [list(row) for row in members(60, seed=1, communes=["Phú Mỹ"])]
    sex, born = FIELDS.index("sex"), FIELDS.index("birth_date")
    rows[10][sex], rows[20][born], rows[20][sex] = "x", "1970-02-30", "y"
    file = write_csv(tmp_path / "members.csv", FIELDS, rows)
    line.start(CENTRE, PROVINCE)
    done = home.json("load", "member", str(file))
    assert {key: done[key] for key in ("rows", "inserted", "updated", "unchanged", "rejected_rows")} == {
        "rows": 60, "inserted": 58, "updated": 0, "unchanged": 0, "rejected_rows": 2,
    }  # fmt: skip
    assert [(each["line"], each["field"]) for each in done["rejected"]] == [
        (12, "sex"),
        (22, "birth_date"),
        (22, "sex"),
    ]
    assert done["rejected"][0]["reason"] == "must be one of nam, nữ"
    home.sync()
    line[PROVINCE].sync()
    line.assert_in_step()
    assert count(line[CENTRE]) == 58


def test_people_are_told_in_words_and_loudly(line: Cluster, tmp_path: Path) -> None:
    home = line[DISTRICT]
    file = tmp_path / "thành viên.csv"
    good = "1;Nguyễn Văn An;19/05/1970;Nam;046\n"
    file.write_bytes(("Mã;Họ và tên khai sinh;Ngày sinh;Giới tính;Ghi chú\n" + good + "2;;1970;khác;\n" * 30).encode())
    errors = tmp_path / "errors.csv"
    said = home.dongbo("load", "member", str(file), "--errors", str(errors), "--by", "Lê Thị Lan")
    assert "Rows read: 31" in said.out
    assert "1 new, 0 changed, 0 as they were" in said.out
    assert "KEPT OUT: 30 of 31." in said.err
    assert "Họ và tên khai sinh  required" in said.err
    assert "must be one of nam, nữ" in said.err
    assert "khác" not in said.err
    assert "... and 40 more; --errors" in said.err
    assert len(errors.read_text("utf-8-sig").splitlines()) == 61
    assert home.sql("SELECT sex, birth_date, edited_by FROM member") == [("nam", "1970-05-19", "Lê Thị Lan")]


def test_out_and_in_again_changes_nothing(line: Cluster, tmp_path: Path) -> None:
    home = line[DISTRICT]
    home.start()
    file = write_csv(tmp_path / "members.csv", FIELDS, list(members(200, seed=1, communes=["Phú Mỹ"])))
    home.json("load", "member", str(file))
    out = tmp_path / "out.csv"
    said = subprocess.run(
        [*command(), "dump", "Phiếu đảng viên", "out.csv", "--labels", "--home", str(home.path)],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=True, timeout=30,
    )  # fmt: skip
    assert "Rows of member in out.csv: 200." in said.stdout
    assert home.json("load", "member", str(out))["unchanged"] == 200
    assert home.json("status")["pending_changes"] == 200


def test_a_workbook_goes_in_as_a_file_does(line: Cluster, tmp_path: Path) -> None:
    home = line[DISTRICT]
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["STT", "Mã", "Họ và tên khai sinh", "Ngày sinh", "Giới tính"], [1, 17, "Nguyễn Văn An", 1970, "nam"]):
        sheet.append(row)
    book.save(tmp_path / "members.xlsx")
    assert home.json("load", "member", str(tmp_path / "members.xlsx"))["inserted"] == 1
    assert home.sql("SELECT id, full_name, birth_date FROM member") == [("17", "Nguyễn Văn An", "1970")]


def test_what_cannot_be_taken_at_all_is_refused_in_one_line(line: Cluster, tmp_path: Path) -> None:
    home = line[DISTRICT]
    home.start()
    file = tmp_path / "members.csv"
    file.write_text("id,Ngày xinh\n", encoding="utf-8")
    refused = home.dongbo("load", "member", str(file), code=1)
    assert "column 'Ngày xinh' is none of member" in refused.complaint
    assert "--skip 'Ngày xinh'" in refused.err
    assert "no table 'members'" in home.dongbo("load", "members", str(file), code=1).complaint
    assert "nowhere" in home.dongbo("dump", "member", str(tmp_path / "nowhere" / "a.csv"), code=1).complaint
    assert "failed" not in home.log
    home.stop()
    assert "Ngày xinh" in home.dongbo("load", "member", str(file), code=1).complaint


ENDS = {"killed": signal.SIGKILL, "Ctrl-C": signal.SIGINT}


@pytest.mark.parametrize("number", ENDS.values(), ids=ENDS)
def test_a_load_that_ends_in_the_middle_has_changed_nothing(line: Cluster, many: Path, number: int) -> None:
    home = line[DISTRICT]
    files = set(os.listdir(home.path))
    end(begin_load(home, many), number)
    assert count(home) == 0
    assert home.sql("SELECT count(*) FROM _pending") == [(0,)]
    left = set(os.listdir(home.path)) - files - {"dongbo.db-wal", "dongbo.db-shm"}
    assert left <= {"lock"}
    done = home.json("load", "member", str(many))
    assert (done["inserted"], count(home)) == (MANY, MANY)


def test_the_service_gives_a_load_up_when_its_command_goes_away(line: Cluster, many: Path) -> None:
    home = line[DISTRICT]
    home.start()
    for number in (signal.SIGINT, signal.SIGKILL):
        end(begin_load(home, many), number)
        until("the lock is free", lambda: not is_writing(home), tail=home.tail)
        assert count(home) == 0
        assert home.json("status")["pending_changes"] == 0
    assert home.json("load", "member", str(many))["inserted"] == MANY
    assert "Traceback" not in home.log


def test_a_service_that_is_stopped_gives_its_load_up(line: Cluster, many: Path) -> None:
    home = line[DISTRICT]
    home.start()
    process = begin_load(home, many)
    assert home.stop() < 10
    said, _ = process.communicate(timeout=20)
    assert b"the service ended before it answered" in said
    assert process.returncode == 1
    assert count(home) == 0
    assert "Traceback" not in home.log


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_terminal_is_shown_how_far_it_is(line: Cluster, many: Path) -> None:
    home = line[DISTRICT]
    home.start()
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*command(), "load", "member", str(many), "--home", str(home.path)], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    process.communicate(timeout=30)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert " rows read (" in shown
    assert " rows put in ..." in shown
