"""Canonical forms: what people may write, what may be on the wire, and the way to SQL and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflict.policies import Policy
from sync_engine.errors import BadInput, Malformed
from sync_engine.fields import check_column, column_decoder_type, from_sql, normalise, rule_breaks, to_sql
from sync_engine.registry import Field, FieldType


def field(type_name: str, **more: Any) -> Field:
    return Field("f", FieldType(type_name), "F", Policy.LATEST, **more)


TEXT, INT, REAL, BOOL = field("text"), field("int"), field("real"), field("bool")
DATE, PARTIAL, TIMESTAMP = field("date"), field("date", partial=True), field("timestamp")
ENUM, SET, CODE, BYTES = field("enum", values=("nam", "nữ")), field("set"), field("code", kind="k"), field("bytes")
DIGITS, PAGES, NEEDED = field("text", digits=3), field("int", values=(1, 4)), field("text", required=True)
ALL = [TEXT, INT, REAL, BOOL, DATE, PARTIAL, TIMESTAMP, ENUM, SET, CODE, BYTES, DIGITS, PAGES, NEEDED]

ACCEPTED = {
    "text is composed": (TEXT, "Nguye\u0302\u0303n", "Nguyễn"),
    "text is not stripped": (TEXT, " a ", " a "),
    "a number is text where text is meant": (TEXT, 12, "12"),
    "empty text is text": (TEXT, "", ""),
    "nothing is nothing": (TEXT, None, None),
    "empty is nothing elsewhere": (DATE, "", None),
    "digits": (DIGITS, "007", "007"),
    "a number as text": (INT, "-42", -42),
    "a whole real": (INT, 4.0, 4),
    "a listed number": (PAGES, "4", 4),
    "a real as text": (REAL, "2.5", 2.5),
    "a decimal comma": (REAL, "-2,5", -2.5),
    "minus zero": (REAL, -0.0, 0.0),
    "yes in words": (BOOL, "Có", True),
    "a cross": (BOOL, "X", True),
    "right": (BOOL, "Đúng", True),
    "wrong": (BOOL, "sai", False),
    "yes in SQL": (BOOL, 1, True),
    "no in SQL": (BOOL, 0, False),
    "an ISO date": (DATE, "2024-02-29", "2024-02-29"),
    "a written date": (DATE, "3/2/1930", "1930-02-03"),
    "a written month": (PARTIAL, "08/1945", "1945-08"),
    "a year": (PARTIAL, "1945", "1945"),
    "a year as a number": (PARTIAL, 1945, "1945"),
    "a time in another zone": (TIMESTAMP, "2024-01-01T06:30:00+07:00", "2023-12-31T23:30:00Z"),
    "a time without a zone": (TIMESTAMP, "2024-01-01 06:30:00", "2024-01-01T06:30:00Z"),
    "a time in milliseconds": (TIMESTAMP, "2024-01-01T06:30:00.1239Z", "2024-01-01T06:30:00.123Z"),
    "an enum in any case": (ENUM, "NƯ\u0303", "nữ"),
    "an enum is composed": (ENUM, "nư\u0303", "nữ"),
    "a set as JSON": (SET, '["b", "a", "b"]', ("a", "b")),
    "a set as a list of things": (SET, "Anh; Pháp;", ("Anh", "Pháp")),
    "a set as a list": (SET, ["b", "a"], ("a", "b")),
    "elements that compose to one": (SET, ["e\u0301", "é"], ("é",)),
    "bytes in hexadecimal": (BYTES, "00ff", b"\x00\xff"),
}


@pytest.mark.parametrize(("what", "raw", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_people_write_becomes_canonical(what: Field, raw: object, value: object) -> None:
    made = normalise(what, raw)
    assert made == value
    assert type(made) is type(value)
    wire = list(made) if isinstance(made, tuple) else made
    check_column(what, [wire, None])
    assert from_sql(what, to_sql(what, [wire, None])) == [wire, None]


REFUSED = {
    "bytes for text": (TEXT, b"a", "text"),
    "NUL": (TEXT, "a\0", "NUL"),
    "half a character": (TEXT, "\ud800", "half"),
    "nothing where something is required": (NEEDED, None, "required"),
    "empty where something is required": (NEEDED, "", "required"),
    "two digits": (DIGITS, "12", "3 digits"),
    "digits of another script": (DIGITS, "١٢٣", "3 digits"),
    "half a number": (INT, "1.5", "whole number"),
    "true for a number": (INT, True, "whole number"),
    "a number beyond 64 bits": (INT, 2**63, "whole number"),
    "a number not listed": (PAGES, 2, "one of 1, 4"),
    "thousands apart": (REAL, "1.234,5", "a number"),
    "infinity": (REAL, "inf", "finite"),
    "not a number": (REAL, "nan", "finite"),
    "maybe": (BOOL, "maybe", "1 or 0"),
    "2 for a bool": (BOOL, 2, "1 or 0"),
    "30 February": (DATE, "30/02/2024", "calendar"),
    "a month where a day is wanted": (DATE, "1945-08", "YYYY-MM-DD"),
    "month 13": (PARTIAL, "1945-13", "calendar"),
    "the year 0": (PARTIAL, "0000", "calendar"),
    "a day where a time is wanted": (TIMESTAMP, "2024-01-01", "UTC"),
    "an unlisted word": (ENUM, "khác", "one of nam, nữ"),
    "a set of numbers": (SET, "[1]", "set of texts"),
    "a set with an empty element": (SET, ["a", ""], "empty element"),
    "half a JSON array": (SET, '["a"', "JSON"),
    "odd hexadecimal": (BYTES, "0", "hexadecimal"),
}


@pytest.mark.parametrize(("what", "raw", "right"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused_with_what_is_right(what: Field, raw: object, right: str) -> None:
    with pytest.raises(BadInput, match=right) as caught:
        normalise(what, raw)
    assert str(caught.value).startswith("f: ")


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(BadInput) as caught:
        normalise(DATE, "Nguyễn Văn A")
    assert "Nguyễn" not in str(caught.value)


MALFORMED = {
    "a number among texts": (TEXT, ["a", 1]),
    "decomposed text": (TEXT, ["a", "e\u0301"]),
    "NUL in text": (TEXT, ["a\0"]),
    "true among numbers": (INT, [1, True]),
    "a number beyond 64 bits": (INT, [2**63]),
    "a whole number for a real": (REAL, [1]),
    "not a number": (REAL, [float("nan")]),
    "minus zero behind zero": (REAL, [0.0, -0.0]),
    "1 for a bool": (BOOL, [1]),
    "a date of no calendar": (DATE, ["2023-02-29"]),
    "a date with a line break": (DATE, ["2023-02-28\n"]),
    "a partial date": (DATE, ["2023-02"]),
    "a time without a zone": (TIMESTAMP, ["2023-02-01T00:00:00"]),
    "an hour of no day": (TIMESTAMP, ["2023-02-01T25:00:00Z"]),
    "an empty code": (CODE, [""]),
    "a decomposed code": (CODE, ["e\u0301"]),
    "an unsorted set": (SET, [["b", "a"]]),
    "an element twice": (SET, [["a", "a"]]),
    "an empty element": (SET, [["", "a"]]),
    "a number in a set": (SET, [[1]]),
    "a tuple for a set": (SET, [("a",)]),
    "text for bytes": (BYTES, ["00"]),
}


@pytest.mark.parametrize(("what", "column"), MALFORMED.values(), ids=MALFORMED)
def test_a_column_that_is_not_canonical_is_malformed(what: Field, column: list[object]) -> None:
    with pytest.raises(Malformed, match="column f "):
        check_column(what, column)


BREAKS = {
    "a number not listed": (PAGES, [1, 2, None], [1]),
    "an unlisted word": (ENUM, [None, "x"], [1]),
    "four digits": (DIGITS, ["1234", "123", "12a", None], [0, 2]),
    "nothing where something is required": (NEEDED, ["a", None, ""], [1, 2]),
    "nothing, an unlisted word": (replace(ENUM, required=True), [None, "x"], [0, 1]),
    "right ones": (PAGES, [1, 4, None], []),
}


@pytest.mark.parametrize(("what", "column", "places"), BREAKS.values(), ids=BREAKS)
def test_a_value_that_breaks_its_fields_rule_is_well_formed(
    what: Field, column: list[object], places: list[int]
) -> None:
    check_column(what, column)
    assert rule_breaks(what, column) == places


@pytest.mark.parametrize("what", ALL, ids=lambda one: f"{one.type}")
def test_a_column_of_nothing_is_canonical(what: Field) -> None:
    check_column(what, [])
    check_column(what, [None, None])


def test_texts_do_not_compose_across_rows() -> None:
    check_column(TEXT, ["e", "\u0301"])


def test_a_column_decodes_to_its_type() -> None:
    packed = msgspec.msgpack.encode([["a", "b"], None])
    assert msgspec.msgpack.decode(packed, type=column_decoder_type(SET)) == [["a", "b"], None]
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(packed, type=column_decoder_type(TEXT))


def test_sql_forms_that_are_the_wire_form_are_not_copied() -> None:
    column = ["a", None]
    assert to_sql(TEXT, column) is column
    assert from_sql(TEXT, column) is column


def test_sql_forms() -> None:
    assert to_sql(BOOL, [True, None, False]) == [1, None, 0]
    assert to_sql(SET, [["Anh", "Đức"], [], None]) == ['["Anh","Đức"]', None, None]


def test_an_empty_set_and_no_set_are_one() -> None:
    assert normalise(SET, "[]") == ()
    assert from_sql(SET, ["[]", None]) == [None, None]


@pytest.mark.parametrize(("what", "stored"), [(BOOL, 2), (SET, "x"), (SET, "[1]"), (SET, 5)])
def test_a_table_that_holds_something_else_is_said(what: Field, stored: object) -> None:
    with pytest.raises(BadInput, match=r"^f: "):
        from_sql(what, [stored])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.binary(max_size=4)


@given(what=st.sampled_from(ALL), raw=SCALARS | st.lists(SCALARS, max_size=3))
def test_whatever_is_accepted_is_canonical_on_the_wire(what: Field, raw: object) -> None:
    try:
        value = normalise(what, raw)
    except BadInput:
        return
    wire = (list(value) or None) if isinstance(value, tuple) else value  # an empty set travels as nothing
    check_column(what, [wire])
    assert from_sql(what, to_sql(what, [wire])) == [wire]
    assert normalise(what, value) == value
