"""Workbooks: what cells mean, and what is refused before it is unpacked."""

from __future__ import annotations

import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from node.bulk import xlsx_file
from node.bulk.source import Unreadable
from tests.capturing import LIBRARY, MEMBERS
from tests.loading import ground, read_file

GROUND = ground(MEMBERS)
HEADER = ["STT", "Mã", "Họ và tên khai sinh", "Ngày sinh", "Giới tính"]


def workbook(path: Path, *rows: list[Any], title: str = "Tháng 11", formats: dict[str, str] | None = None) -> Path:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = title
    for row in rows:
        sheet.append(row)
    for cell, shown in (formats or {}).items():
        sheet[cell].number_format = shown
    book.save(path)
    return path


def test_a_sheet_is_read_with_the_numbers_of_its_rows(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "members.xlsx",
        HEADER,
        [1, 17, "Nguyễn Văn An", datetime.fromisoformat("1970-05-19"), "nam"],
        [],
        [2, None, "Trần Thị Ba", 1961, "nữ", None, " "],
        [3, "0018", "Lê Văn Tư", "05/1945", "NAM"],
    )
    loaded = read_file(GROUND, path)
    assert loaded.rows == 3
    assert [(row["id"], row["birth_date"], row["sex"]) for row in loaded.values] == [
        ("17", "1970-05-19", "nam"),
        ("0018", "1945-05", "nam"),
    ]
    assert [(line, field) for line, field, _ in loaded.rejected] == [(4, "id")]


CELLS: dict[str, tuple[str, Any, str, Any]] = {
    "a day": ("Ngày sinh", date(1970, 5, 19), "dd/mm/yyyy", "1970-05-19"),
    "a month that Excel keeps as its first day": ("Ngày sinh", date(1945, 8, 1), "mmm-yy", "1945-08"),
    "a month in words of Vietnam": ("Ngày sinh", date(1945, 8, 1), '[$-42A]mm"/"yyyy', "1945-08"),
    "a year shown of a day": ("Ngày sinh", date(1945, 1, 1), "yyyy", "1945"),
    "a number for text": ("Điện thoại", 905000001, "General", "905000001"),
    "a number for digits, whose zero Excel ate": ("Số định danh cá nhân", 46070012345, "0", "046070012345"),
    "a number with a point that is whole": ("Số trang đã nhập", 4.0, "0.00", 4),
    "true": ("Đã cài Sổ tay đảng viên", True, "General", 1),
    "a set": ("Ngoại ngữ", "Nga; Anh", "General", '["Anh","Nga"]'),
    "nothing": ("Ghi chú", None, "General", None),
}


@pytest.mark.parametrize(("label", "cell", "shown", "value"), CELLS.values(), ids=CELLS)
def test_a_cell_means_what_it_shows(tmp_path: Path, label: str, cell: Any, shown: str, value: Any) -> None:
    row = {"Mã": "1", "Họ và tên khai sinh": "An", "Ngày sinh": "1970", "Giới tính": "nam", label: cell}
    place = "ABCDE"[list(row).index(label)]
    path = workbook(tmp_path / "m.xlsx", list(row), list(row.values()), formats={f"{place}2": shown})
    loaded = read_file(GROUND, path)
    assert loaded.rejected == []
    (name,) = (each.name for each in MEMBERS.tables["member"].fields if each.label == label)
    assert loaded.values[0][name] == value


FAULTS: dict[str, tuple[str, Any, str]] = {
    "10/12 that Excel made a date of": ("Giáo dục phổ thông", date(2026, 12, 10), "made a date"),
    "a card number that it made a date of": ("Số định danh cá nhân", date(2026, 12, 10), "made a date"),
    "a formula that failed": ("Ghi chú", "#N/A", "formula"),
    "a time of day": ("Ngày sinh", datetime.fromisoformat("1970-05-19T12:30"), "date of the calendar"),
    "half a number": ("Số trang đã nhập", 1.5, "whole number"),
}


@pytest.mark.parametrize(("label", "cell", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_cell_is_a_fault_of_its_row(tmp_path: Path, label: str, cell: Any, reason: str) -> None:
    row = {"Mã": "1", "Họ và tên khai sinh": "An", "Ngày sinh": "1970", "Giới tính": "nam", label: cell}
    loaded = read_file(GROUND, workbook(tmp_path / "m.xlsx", list(row), list(row.values())))
    ((line, _field, said),) = loaded.rejected
    assert line == 2
    assert reason in said


def test_a_real_and_a_time_keep_all_they_have(tmp_path: Path) -> None:
    rows = (
        ["id", "title", "serial", "price", "seen_at"],
        ["1", "T", "00ff", 0.1, datetime.fromisoformat("2026-11-24T10:04:05")],
    )
    loaded = read_file(ground(LIBRARY, "asset"), workbook(tmp_path / "m.xlsx", *rows))
    assert (loaded.values[0]["price"], loaded.values[0]["serial"]) == (0.1, b"\x00\xff")
    assert loaded.values[0]["seen_at"] == "2026-11-24T10:04:05Z"


def test_a_sheet_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = workbook(tmp_path / "m.xlsx", HEADER, [1, "1", "An", "1970", "nam"])
    assert len(read_file(GROUND, path, sheet=" tháng 11").values) == 1
    with pytest.raises(Unreadable, match="no sheet 'Tháng 12'; it has Tháng 11"):
        read_file(GROUND, path, sheet="Tháng 12")


def test_a_hidden_sheet_is_not_the_first(tmp_path: Path) -> None:
    book = Workbook()
    first = book.active
    assert first is not None
    first.sheet_state = "hidden"
    second = book.create_sheet("Danh sách")
    for row in (HEADER, [1, "1", "An", "1970", "nam"]):
        second.append(row)
    book.save(tmp_path / "m.xlsx")
    assert len(read_file(GROUND, tmp_path / "m.xlsx").values) == 1


def test_an_empty_sheet_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="empty"):
        read_file(GROUND, workbook(tmp_path / "m.xlsx"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _rotten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(60, len(data), 97):
        data[at] ^= 0x5A
    path.write_bytes(bytes(data))


def _another_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")


def _entities(path: Path) -> None:
    """Text that would unfold to a thousand million letters."""
    names = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "aaaaaaaaaa">{names}]>'
    parts = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            parts[name] = archive.read(name)
    sheet = parts["xl/worksheets/sheet1.xml"].decode()
    parts["xl/worksheets/sheet1.xml"] = (bomb + sheet.replace("<v>1</v>", "<v>&e9;</v>")).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("harm", [_cut, _rotten, _another_zip, _entities], ids=lambda harm: harm.__name__.strip("_"))
def test_a_broken_workbook_is_refused_in_one_sentence(tmp_path: Path, harm: Any) -> None:
    path = workbook(tmp_path / "m.xlsx", HEADER, [1, "1", "An", "1970", "nam"])
    harm(path)
    with pytest.raises(Unreadable, match="cannot be read as a workbook"):
        read_file(GROUND, path)


@pytest.mark.parametrize("part", ["xl/sharedStrings.xml", "xl/worksheets/sheet1.xml", "xl/styles.xml"])
def test_a_workbook_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workbook(tmp_path / "m.xlsx", HEADER, [1, "1", "An", "1970", "nam"])
    for limit in ("PART_BYTES_MAX", "SHEET_BYTES_MAX", "TEXTS_BYTES_MAX"):
        monkeypatch.setattr(xlsx_file, limit, 1_000_000)
    assert read_file(GROUND, path).rows == 1
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{part}.xml" if "styles" in part else part.replace("1.xml", "2.xml"), b" " * 1_000_001)
    with pytest.raises(Unreadable, match="unpacks to more"):
        read_file(GROUND, path)


def test_a_cell_far_to_the_right_is_refused(tmp_path: Path) -> None:
    row: list[Any] = [1, "1", "An", "1970", "nam"]
    with pytest.raises(Unreadable, match="unpacks to more"):
        read_file(GROUND, workbook(tmp_path / "m.xlsx", HEADER, [*row, *[None] * xlsx_file.CELLS_MAX, "x"]))
