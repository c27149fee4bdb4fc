"""One day of an administration, with real processes: a big list from Excel, a line that is open at night only, an
accident taken back and a large change let through, and a new registry that reaches one district three rounds late."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.demo.members import FIELDS, members
from node.setup import SHIPPED_REGISTRY
from sync_engine.registry import parse_registry
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE, SECOND
from tests.e2e.processes import Cluster, Home, until

ROWS, BAD = int(os.environ.get("DAY_ROWS", "12000")), 37
"""DAY_ROWS=50000 for a large district's whole list."""
PLACES = ("Xã Phú Mậu", "Xã Phú Diên", "Thị trấn Phú Đa", "Xã Vinh Thanh")
MANY = 3_000
SOME = f"SELECT id FROM member ORDER BY id LIMIT {MANY}"
"""More than a twentieth."""
WAIT_S = 90.0
OPENS_IN_S = 25

LINE = Sequence[Any]


def excel_list(path: Path) -> list[int]:
    """What a clerk saves from Excel: labels, semicolons, dd/mm/yyyy, Excel's habits; returns the numbers of the lines
    that are wrong."""
    fields = {each.name: each for each in parse_registry(SHIPPED_REGISTRY.read_text("utf-8")).tables["member"].fields}
    names = [name for name in FIELDS if name != "id"]
    rows = [dict(zip(FIELDS, row, strict=True)) for row in members(ROWS, seed=7, communes=PLACES, random_ids=False)]
    spoil(rows)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\r\n")
    writer.writerow(["STT", "id", *(fields[name].label for name in names)])
    for number, row in enumerate(rows, start=1):
        writer.writerow([number, row["id"], *(as_excel(row[name]) for name in names)])
    path.write_bytes(b"\xef\xbb\xbf" + out.getvalue().encode())
    return [number + 2 for number in range(0, ROWS, ROWS // BAD)][:BAD]


def as_excel(value: Any) -> str:
    """Dates as they are written here, sets with semicolons, the leading zeros of numbers gone."""
    if value is None:
        return ""
    text = str(value)
    if len(text) == 10 and text[4] == text[7] == "-":
        return "/".join(reversed(text.split("-")))
    if text.startswith("["):
        return ";".join(json.loads(text))
    return text.lstrip("0") if len(text) == 12 and text.isdigit() else text


def spoil(rows: list[dict[str, Any]]) -> None:
    """37 lines with a fault each."""
    faults: list[tuple[str, Any]] = [
        ("birth_date", "31/02/1970"),
        ("full_name", ""),
        ("sex", "không rõ"),
        ("citizen_id", "0123-ABC"),
        ("religion", "không có mã này"),
        ("citizen_id", "3.01234E+11"),
    ]
    for at, number in enumerate(list(range(0, ROWS, ROWS // BAD))[:BAD]):
        field, value = faults[at % len(faults)]
        rows[number][field] = value


def count(home: Home, where: str = "1") -> int:
    return int(home.sql(f"SELECT count(*) FROM member WHERE {where}")[0][0])


def clock(moment: datetime) -> str:
    return moment.strftime("%H:%M:%S")


def night(home: Home, opens: datetime) -> None:
    """The line may be used from then on only, for ten minutes."""
    window = f'["{clock(opens)}-{clock(opens + timedelta(minutes=10))}"]'
    home.configure(on_change="true", jitter_s="0.5", time_zone='"UTC"', windows=window)


@pytest.mark.timeout(300)
def test_a_whole_day(tree: Cluster, tmp_path: Path) -> None:
    centre, province, district, second = (tree[unit] for unit in (CENTRE, PROVINCE, DISTRICT, SECOND))
    province.configure(on_change="true")
    second.configure(registry='"by hand"')
    wrong = excel_list(tmp_path / "danh-sach.csv")
    opens = datetime.now(UTC) + timedelta(seconds=OPENS_IN_S)
    night(district, opens)
    tree.start()

    # By day: a list of 50,000 is entered while the line is shut.
    loaded = district.json("load", "member", str(tmp_path / "danh-sach.csv"))
    assert (loaded["rows"], loaded["inserted"], loaded["updated"]) == (ROWS, ROWS - BAD, 0)
    assert [each["line"] for each in loaded["rejected"]] == wrong
    planned = until("a call is planned", lambda: district.json("status")["parent"]["next_sync_at"], tail=tree.tails)
    assert planned >= int(opens.timestamp()) * 1000
    if datetime.now(UTC) < opens - timedelta(seconds=1):
        assert count(province) == 0

    # At night it goes up, level by level, by itself.
    good = ROWS - BAD
    until("the list is at the centre", lambda: count(centre) == good, WAIT_S, tree.tails)

    # An accident: it stays at home, is seen in status, and is taken back unseen.
    district.sql(f"UPDATE member SET status = 'deceased', edited_by = 'Lan' WHERE id IN ({SOME})")
    before = province.sql("SELECT status, count(*) FROM member GROUP BY status ORDER BY status")
    (brake,) = until("the brake is pulled", lambda: district.json("status")["brakes"], WAIT_S, tree.tails)
    assert [each["field"] for each in brake["changes"]] == ["status"]
    assert "BRAKE" in district.dongbo("status").out
    province.sql("UPDATE member SET position = 'Bí thư' WHERE id = (SELECT min(id) FROM member)")
    district.sync()
    assert count(district, "position = 'Bí thư'") == count(province, "position = 'Bí thư'")  # what comes in goes on
    assert province.sql("SELECT status, count(*) FROM member GROUP BY status ORDER BY status") == before
    assert ROWS // 20 < district.json("undo")["rows"] <= MANY
    district.sync()
    assert province.sql("SELECT status, count(*) FROM member GROUP BY status ORDER BY status") == before
    assert district.sql("SELECT status, count(*) FROM member GROUP BY status ORDER BY status") == before

    # A large change that is meant: it waits for a person, who lets it through.
    district.sql(f"DELETE FROM member WHERE id IN ({SOME})")
    district.sync()
    assert count(province) == good
    district.dongbo("release")
    district.sync()
    until("the change is at the centre", lambda: count(centre) == good - MANY, WAIT_S, tree.tails)

    # A new registry: one district goes on with the old one for three rounds, then takes it.
    centre.dongbo("registry", "apply", str(next_registry(tmp_path)), "--yes")
    province.sync()
    district.sync()
    for turn in range(3):
        district.sql("UPDATE member SET insurance = ? WHERE id = (SELECT max(id) FROM member)", f"BH{turn}")
        second.sql(
            "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, 'Hồ Thị Sen', '1990', 'nữ')",
            SECOND,
            f"s{turn}",
        )
        province.sql("INSERT INTO award (unit, id, title) VALUES (?, ?, 'Huân chương')", SECOND, f"a{turn}")
        tree.settle(1)
    late = second.json("status")
    assert late["registry_version"] == 1
    assert late["waiting_batches"] > 0
    second.dongbo("registry", "apply", "--yes")
    assert second.sql("SELECT count(*) FROM award") == [(3,)]

    # In the evening all hold the same.
    tree.settle(2)
    tree.assert_in_step(deadline_s=30)
    assert centre.sql("SELECT insurance FROM member WHERE insurance IS NOT NULL") == [("BH2",)]
    events = district.json("history", "member", district.sql("SELECT max(id) FROM member")[0][0])["events"]
    assert events[0]["kind"] == "insert"
    assert all(each["proven"] for each in events)
    for unit in (centre, province, district, second):
        assert unit.json("verify")["ok"]
    assert time.time() > opens.timestamp()


def next_registry(folder: Path) -> Path:
    """The shipped register, with one more field and one more table."""
    text = SHIPPED_REGISTRY.read_text("utf-8").replace("version = 1", "version = 2", 1)
    text = text.replace("note = {", 'insurance = { type = "text", label = "Số bảo hiểm" }\nnote = {', 1)
    text += '\n[tables.award]\nlabel = "Khen thưởng"\n\n[tables.award.fields]\n'
    text += 'title = { type = "text", required = true, label = "Hình thức" }\n'
    path = folder / "registry.toml"
    path.write_text(text, encoding="utf-8")
    return path
