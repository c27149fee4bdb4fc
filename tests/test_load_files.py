"""What a load takes of Excel's habits, and what it refuses as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.bulk.source import ROW_CHARS_MAX, Unreadable
from tests.capturing import MEMBERS
from tests.loading import ground, read_file

GROUND = ground(MEMBERS)
AN = {"id": "1", "full_name": "Nguyễn Văn An", "birth_date": "1970-05-19", "sex": "nam"}

HEAD, ROW = "id,full_name,birth_date,sex", "1,Nguyễn Văn An,1970-05-19,nam"
WRITTEN = "1,Nguyễn Văn An,19/05/1970,nam"
LABELS = "Mã,Họ và tên khai sinh,Ngày sinh,Giới tính"
ODD_LABELS = '"MÃ *","HO\u0323 VA\u0300\nTÊN  KHAI SINH",ngày sinh:, Giới tính '


def tabs(*lines: str) -> str:
    return "\r\n".join(lines).replace(",", "\t")


def semicolons(*lines: str) -> str:
    return "\n".join(lines).replace(",", ";")


FILES: dict[str, bytes] = {
    "UTF-8": f"{HEAD}\n{ROW}\n".encode(),
    "UTF-8 with a mark, as Excel saves it": f"{HEAD}\r\n{WRITTEN}\r\n".encode("utf-8-sig"),
    "semicolons": semicolons(HEAD, WRITTEN).encode(),
    "Unicode text, as Excel saves it": tabs(HEAD, WRITTEN).encode("utf-16"),
    "the other way round": b"\xfe\xff" + tabs(HEAD, ROW).encode("utf-16-be"),
    "a first line that names the separator": semicolons("sep=;", HEAD, ROW).encode(),
    "that line in quotes, and a tab": tabs('"sep=,"', HEAD, ROW).encode(),
    "labels": f"{LABELS}\n{WRITTEN}\n".encode(),
    "labels in any case, decomposed, with line breaks": f"{ODD_LABELS}\n{ROW}\n".encode(),
    "a running number": f"STT,{HEAD}\n7,{ROW}\n".encode(),
    "a label with a comma, and semicolons": f'"Xã, phường quản lý";{semicolons(HEAD)}\n;{semicolons(ROW)}'.encode(),
    "empty columns and rows at the end": f"{HEAD},,\n{ROW},,\n,,,,,\n\n , ,,,,\n".encode(),
    "empty lines before": f"\n,,,\n{HEAD}\n{ROW}\n".encode(),
    "this node's own unit": f"unit,{HEAD}\nHUE.VN,{ROW}\n".encode(),
    "its first label": f"Đơn vị,{HEAD}\nhue,{ROW}\n".encode(),
    "blanks and hard blanks around": f"{HEAD}\n 1 ,\u00a0Nguyễn Văn An ,\u00a01970-05-19 ,nam\u00a0\n".encode(),
    "no line break at the end": f"{HEAD}\n{ROW}".encode(),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_all_these_files_say_the_same(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "members.csv"
    path.write_bytes(content)
    loaded = read_file(GROUND, path)
    assert loaded.rejected == []
    assert loaded.rows == 1
    (row,) = loaded.values
    assert {name: row[name] for name in ("unit", *AN)} == {"unit": "hue.vn", **AN}


CELLS: dict[str, tuple[str, str, Any]] = {
    "text is composed": ("other_name", "Hoa\u0300", "Hoà"),
    "nothing is nothing": ("note", "", None),
    "blanks are nothing": ("note", " \u00a0 ", None),
    "a line break stays": ("note", '"a\nb"', "a\nb"),
    "quotes are doubled": ("note", '"a ""b"""', 'a "b"'),
    "it may begin with =": ("note", "=1+1", "=1+1"),
    "a number is text where text is meant": ("phone", "0905000001", "0905000001"),
    "a partial date": ("birth_date", "8/1945", "1945-08"),
    "a year": ("birth_date", "1945", "1945"),
    "dashes": ("birth_date", "19-5-1970", "1970-05-19"),
    "a day with the time that Excel adds": ("birth_date", "1970-05-19 00:00:00", "1970-05-19"),
    "the same by hand": ("birth_date", "19/05/1970 0:00", "1970-05-19"),
    "a word of a list in any case": ("sex", "NAM", "nam"),
    "decomposed": ("sex", "Nư\u0303", "nữ"),
    "yes": ("has_handbook", "Có", 1),
    "a cross": ("has_handbook", "X", 1),
    "right": ("has_handbook", "đúng", 1),
    "TRUE": ("has_handbook", "TRUE", 1),
    "no": ("has_handbook", "không", 0),
    "wrong": ("has_handbook", "Sai", 0),
    "a set": ("languages", "Nga; Anh;;Nga", '["Anh","Nga"]'),
    "a set as JSON": ("languages", '"[""b;c"",""a""]"', '["a","b;c"]'),
    "an empty set": ("languages", ";", None),
    "digits": ("citizen_id", "046070012345", "046070012345"),
    "a zero that Excel ate": ("citizen_id", "46070012345", "046070012345"),
    "two of them": ("citizen_id", "1070012345", "001070012345"),
    "a listed number": ("card_pages", "4", 4),
    "a code of a kind that is not known here": ("religion", "xyz", "xyz"),
}


@pytest.mark.parametrize(("name", "written", "value"), CELLS.values(), ids=CELLS)
def test_a_cell_becomes_a_value(tmp_path: Path, name: str, written: str, value: Any) -> None:
    loaded = read_row(tmp_path, name, written)
    assert loaded.rejected == []
    assert loaded.values[0][name] == value
    assert type(loaded.values[0][name]) is type(value)
    assert loaded.padded == (written in ("46070012345", "1070012345"))


def read_row(folder: Path, name: str, written: str) -> Any:
    path = folder / "members.csv"
    row = {"id": "1", "full_name": "An", "birth_date": "1970", "sex": "nam", name: written}
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n", encoding="utf-8")
    return read_file(GROUND, path)


FAULTS: dict[str, tuple[str, str, str]] = {
    "no id": ("id", "", "number the rows"),
    "a long id": ("id", "x" * 201, "at most 200 characters"),
    "nothing that is required": ("sex", "", "required"),
    "no name": ("full_name", " ", "required"),
    "a month and day the other way round": ("birth_date", "05/19/1970", "date of the calendar"),
    "30 February": ("birth_date", "30/02/1970", "date of the calendar"),
    "two digits of a year": ("birth_date", "19/05/70", "date of the calendar"),
    "a partial date where the day is wanted": ("card_issued_on", "05/2020", "date of the calendar"),
    "another word": ("sex", "khác", "one of nam, nữ"),
    "perhaps": ("has_handbook", "?", "yes or no"),
    "half a number": ("card_pages", "1.5", "whole number"),
    "a number that is not listed": ("card_pages", "2", "one of 1, 4"),
    "an old identity card, of nine digits": ("citizen_id", "190012345", "12 digits"),
    "letters among digits": ("citizen_id", "04607001234x", "12 digits"),
    "a number that Excel shortened": ("citizen_id", "4.6E+10", "shortened"),
    "with a decimal comma": ("citizen_id", '"4,607E+10"', "shortened"),
    "in a text": ("card_number", "4.60712E+10", "shortened"),
    "in an id": ("id", "4.60712E+10", "shortened"),
    "a formula that failed": ("note", "#N/A", "formula"),
    "in a date": ("birth_date", "#VALUE!", "formula"),
    "a column too narrow": ("note", "########", "formula"),
    "half a JSON array": ("languages", '"[""a"""', "JSON"),
    "a NUL": ("note", "a\0b", "NUL"),
    "another unit": ("unit", "da-nang.vn", "this node's unit or one below it"),
    "no unit in a column of units": ("unit", "", "required"),
}


@pytest.mark.parametrize(("name", "written", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_said_with_its_line_and_field_and_never_repeated(
    tmp_path: Path, name: str, written: str, reason: str
) -> None:
    loaded = read_row(tmp_path, name, written)
    ((line, field, said),) = loaded.rejected
    assert (line, field) == (2, name)
    assert reason in said
    assert loaded.values == []
    assert len(written) < 3 or written.strip('"') not in said


def test_a_line_is_where_its_row_begins_and_all_its_faults_are_said(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text(
        'id,full_name,birth_date,sex,note\n1,A,1970,nam,"one\ntwo\r\nthree"\n2,,1970,x,\n\n,"B\nb",,nam,\n5,A,1970,nam\n',
        encoding="utf-8",
        newline="",
    )
    loaded = read_file(GROUND, path)
    assert [(line, field) for line, field, _ in loaded.rejected] == [
        (5, "full_name"),
        (5, "sex"),
        (7, "birth_date"),
        (7, "id"),
    ]
    assert [row["id"] for row in loaded.values] == ["1", "5"]
    assert loaded.values[1]["note"] is None  # Excel leaves separators out at the end of a row
    assert loaded.rows == 4


def test_what_stands_beyond_the_header_is_a_fault_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text("id,full_name,birth_date,sex,\n1,A,1970,nam,,\n2,A,1970,nam,x\n3,A, B,1970,nam,,y\n", "utf-8")
    loaded = read_file(GROUND, path)
    assert [row["id"] for row in loaded.values] == ["1"]
    assert [(line, field) for line, field, reason in loaded.rejected if "column" in reason] == [
        (3, None),
        (4, None),
        (4, None),
    ]


def test_a_quotation_mark_that_is_not_doubled_costs_its_own_line_only(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text('id,full_name,birth_date,sex\n1,"A"B",1970,nam\n2,A,1970,nam\n3,A,1970,"nam', encoding="utf-8")
    loaded = read_file(GROUND, path)
    assert [row["id"] for row in loaded.values] == ["2"]
    assert [(line, field) for line, field, _ in loaded.rejected] == [(2, None), (4, None)]


def test_columns_may_be_left_out_on_purpose(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text("id,full_name,birth_date,sex,Nhóm máu,note\n1,A,1970,nam,O,x\n", encoding="utf-8")
    loaded = read_file(GROUND, path, skip=["nhóm  MÁU", "note"])
    assert "note" not in loaded.values[0]
    with pytest.raises(Unreadable, match="no column 'Nhom'"):
        read_file(GROUND, path, skip=["Nhóm máu", "Nhom"])


WHOLE = {
    "an unknown column": ("id,full_name,Ngày xinh\n1,A,1970\n".encode(), "column 'Ngày xinh' is none of member"),
    "two columns of one field": (b"id,full_name,H\xe1\xbb\x8d v\xc3\xa0 t\xc3\xaan khai sinh\n1,A,B\n", "two columns"),
    "no id": (b"full_name,sex\nA,nam\n", "no column 'id'"),
    "no header": ("17,Nguyễn Văn An,nam\n".encode(), "the first row names no column of member"),
    "nothing at all": (b"", "empty"),
    "nothing but separators": (b",,,\n\n", "empty"),
    "letters of another time": (b"id,full_name\n1,Nguy\xea\xden", "not in UTF-8"),
    "the same far down": (b"id,full_name\n" + b"1,A\n" * 9000 + b"2,\xcb\n", "not in UTF-8"),
    "UTF-16 without a mark": ("id,full_name\n1,A\n".encode("utf-16-le"), "no text"),
    "half a UTF-16": (b"\xff\xfei\x00d\x00\n\x00a", "not in UTF-8"),
    "a workbook of the old format": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old format"),
    "a quotation mark that is not closed": (b'id,note\n1,"a\n2,b\n3,c\n', "line 2: .*not closed"),
    "one that closes far below": (b'id,note\n1,"a\n2,b"c\n3,c\n', "line 2: .*not closed"),
    "a row without an end": (b'id,note\n1,"' + b"x" * (ROW_CHARS_MAX + 1), "line 2: .*does not end"),
    "a line without an end": (b"id,note\n1,a\n2," + b"x" * (ROW_CHARS_MAX + 1), "line 3: .*does not end"),
}


@pytest.mark.parametrize(("content", "reason"), WHOLE.values(), ids=WHOLE)
def test_a_file_that_cannot_be_told_is_refused_whole(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "members.csv"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason) as caught:
        read_file(GROUND, path)
    assert "Nguyễn" not in str(caught.value)


def test_the_nearest_label_is_offered(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text("id,full_name,Ngày xinh\n1,A,1970\n", encoding="utf-8")
    with pytest.raises(Unreadable) as caught:
        read_file(GROUND, path)
    assert caught.value.hint == "did you mean 'Ngày sinh' (birth_date)? to leave it out on purpose: --skip 'Ngày xinh'"


def test_a_sheet_can_only_be_asked_of_a_workbook(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text("id\n1\n", encoding="utf-8")
    with pytest.raises(Unreadable, match="no workbook"):
        read_file(GROUND, path, sheet="Tháng 11")
