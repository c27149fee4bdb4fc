"""Capture: what a real table refuses, and what it says is right."""

from __future__ import annotations

import sqlite3
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from sync_engine.fields import check_column, normalise
from tests.capturing import (
    BOOK,
    HUE,
    LIBRARY,
    MEMBERS,
    PERSON,
    VANG,
    Open,
    client_fixture,
    insert,
    open_node_fixture,
    pending,
    seal,
)
from tests.world import World

__all__ = ["client_fixture", "open_node_fixture"]  # fixtures, found by pytest under their own names


# -- what is refused --------------------------------------------------------------------------------------------------

LONG = "x" * 201
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a unit that is not ours": ({"unit": HUE}, r"member\.unit: must be this node's unit"),
    "an empty id": ({"id": ""}, r"member\.id: a text of 1 to 200"),
    "a long id": ({"id": LONG}, r"member\.id: a text of 1 to 200"),
    "an id of bytes": ({"id": b"1"}, r"member\.id: a text of 1 to 200"),
    "an id that is not composed": ({"id": "e\u0301"}, r"member\.id: .*NFC"),
    "no name": ({"full_name": None}, r"member\.full_name: required"),
    "an empty name": ({"full_name": ""}, r"member\.full_name: required"),
    "a name of bytes": ({"full_name": b"A"}, r"member\.full_name: text"),
    "no date": ({"birth_date": None}, r"member\.birth_date: required"),
    "30 February": ({"birth_date": "2024-02-30"}, r"member\.birth_date: a date of the calendar"),
    "29 February of no leap year": ({"birth_date": "2023-02-29"}, r"member\.birth_date"),
    "month 13": ({"birth_date": "1945-13"}, r"member\.birth_date"),
    "the year 0": ({"birth_date": "0000"}, r"member\.birth_date"),
    "a written date": ({"birth_date": "03/02/1930"}, r"member\.birth_date"),
    "a date and time": ({"card_issued_on": "2024-01-01 10:00"}, r"member\.card_issued_on"),
    "a julian day": ({"card_issued_on": "2460000.50"}, r"member\.card_issued_on"),
    "now": ({"card_issued_on": "now"}, r"member\.card_issued_on: a date of the calendar, YYYY-MM-DD$"),
    "an empty date": ({"card_issued_on": ""}, r"member\.card_issued_on"),
    "a date of bytes": ({"card_issued_on": b"2024-01-01"}, r"member\.card_issued_on"),
    "a partial date where the day is wanted": ({"card_issued_on": "2024-01"}, r"member\.card_issued_on"),
    "an unlisted word": ({"sex": "x"}, "member.sex: one of nam, nữ"),
    "eleven digits": ({"citizen_id": "1" * 11}, r"member\.citizen_id: 12 digits"),
    "a letter among digits": ({"citizen_id": "1" * 11 + "x"}, r"member\.citizen_id: 12 digits"),
    "digits of bytes": ({"citizen_id": b"1" * 12}, r"member\.citizen_id: 12 digits"),
    "digits and a hidden rest": ({"citizen_id": "1" * 12 + "\0x"}, r"member\.citizen_id: 12 digits"),
    "an empty code": ({"religion": ""}, r"member\.religion: a code"),
    "an unlisted number": ({"card_pages": 2}, r"member\.card_pages: one of 1, 4"),
    "a word for a number": ({"card_pages": "four"}, r"member\.card_pages"),
    "2 for a bool": ({"has_handbook": 2}, r"member\.has_handbook: 0 or 1"),
    "a set that is no JSON": ({"languages": "Nga"}, r"member\.languages: a JSON array"),
    "a set that is an object": ({"languages": '{"a": "b"}'}, r"member\.languages"),
    "a set of numbers": ({"languages": "[1, 2]"}, r"member\.languages"),
    "an unsorted set": ({"languages": '["b","a"]'}, r"member\.languages"),
    "an unsorted set of three": ({"languages": '["a","c","b"]'}, r"member\.languages"),
    "an element twice": ({"languages": '["a","a"]'}, r"member\.languages"),
    "an element twice in three": ({"languages": '["a", "a", "b"]'}, r"member\.languages"),
    "an empty element": ({"languages": '[""]'}, r"member\.languages"),
    "an empty element beside another": ({"languages": '["","a"]'}, r"member\.languages"),
    "an element in escapes that hide it": ({"languages": '["e\\u0301"]'}, r"member\.languages"),
    "a set inside a set": ({"languages": '[["a"]]'}, r"member\.languages"),
    "a set that is not composed": ({"languages": '["e\u0301"]'}, r"member\.languages: .*NFC"),
    "a name that is not composed": ({"full_name": "Nguye\u0302\u0303n"}, r"member\.full_name: .*NFC"),
    "a note that is not composed": ({"note": "ba\u0323n"}, r"member\.note: .*NFC"),
    "a note with NUL": ({"note": "a\0b"}, r"member\.note: .*NUL"),
    "the Kelvin sign": ({"note": "\u212a"}, r"member\.note: .*NFC"),
    "an editor that is not composed": ({"edited_by": "e\u0301"}, r"member\.edited_by: .*NFC"),
    "an editor of bytes": ({"edited_by": b"e"}, r"member\.edited_by: text"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_refused_and_told_what_is_right(
    client: sqlite3.Connection, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=message):
        insert(client, **row)
    if row.keys() & {"unit", "id"}:
        return
    insert(client)
    ((name, value),) = row.items()
    with pytest.raises(sqlite3.IntegrityError, match=message):
        client.execute(f"UPDATE member SET {name} = ?", (value,))


RIGHT: dict[str, dict[str, Any]] = {
    "sets of none to four": {"languages": "[]", "badges": '["a"]', "introducers": '["a","b"]'},
    "a set of four": {"languages": '["a","b","c","d"]'},
    "a set written with spaces": {"languages": '[ "a", "b" ]'},
    "a set with quotes and commas in it": {"languages": '["a\\",\\"b","c"]', "badges": '["a,b","c;d"]'},
    "dates whole and partial": {"birth_date": "2024-02-29", "admitted_on": "1945", "official_on": "1946-12"},
    "marks that compose with nothing": {"note": "q\u0301 x\u0323 \u0301"},
    "numbers as text, as a careless client writes them": {"card_pages": "4", "has_handbook": "1"},
    "a long text with a mark far in": {"note": "ế" * 20_000 + "q\u0301"},
}


@pytest.mark.parametrize("row", RIGHT.values(), ids=RIGHT)
def test_right_values_pass(client: sqlite3.Connection, row: dict[str, Any]) -> None:
    insert(client, **row)
    for name, value in row.items():
        client.execute(f"UPDATE OR REPLACE member SET {name} = ?", (PERSON.get(name),))
        client.execute(f"UPDATE member SET {name} = ?", (value,))
    stored = client.execute(f"SELECT {', '.join(row)} FROM member").fetchone()
    for name, value in zip(row, stored, strict=True):
        field = MEMBERS.tables["member"].field(name)
        made = normalise(field, value)
        check_column(field, [list(made) if isinstance(made, tuple) else made])


def test_only_what_changes_is_judged_in_an_edit(client: sqlite3.Connection) -> None:
    client.execute("UPDATE _capture SET applying = 1")
    insert(client, sex="as the registry of last year had it", other_name="e\u0301")
    client.execute("UPDATE _capture SET applying = 0")
    client.execute("UPDATE member SET note = 'x'")
    assert pending(client) == {("1", "E", "note")}


MARKS = st.sampled_from(
    "aeơâậăqZ đ\u0300\u0301\u0302\u0303\u0306\u0309\u031b\u0323\u0316\u0327\u0345\u0391\u03b9\u0374"
)


@given(text=st.text(MARKS, min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
def test_the_table_and_unicode_agree_on_what_is_composed(client: sqlite3.Connection, text: str) -> None:
    client.execute("BEGIN")
    try:
        insert(client, note=text)
        taken = True
    except sqlite3.IntegrityError:
        taken = False
    client.execute("ROLLBACK")
    assert taken == unicodedata.is_normalized("NFC", text)


def test_a_mark_is_found_wherever_it_stands_in_a_long_text(client: sqlite3.Connection) -> None:
    for place in (0, 468, 469, 470, 471, 498, 499, 500, 501, 969, 999, 1500):
        with pytest.raises(sqlite3.IntegrityError, match="NFC"):
            insert(client, note="x" * place + "e\u0301" + "x" * 700)


def test_a_long_text_with_a_mark_in_it_is_judged_in_reasonable_time(client: sqlite3.Connection) -> None:
    insert(client, note="q\u0301" + "x" * 200_000)
    assert pending(client) == {("1", "I")}


# -- what a level may write -------------------------------------------------------------------------------------------


def test_a_field_written_from_above_is_set_by_an_insert_and_not_changed_after(client: sqlite3.Connection) -> None:
    insert(client, card_number="07")
    for statement in ("UPDATE member SET card_number = '08'", "UPDATE member SET card_number = NULL"):
        with pytest.raises(sqlite3.IntegrityError, match=r"member\.card_number: only province and the levels above"):
            client.execute(statement)
    with pytest.raises(sqlite3.IntegrityError, match=r"member\.card_number: only province"):
        insert(client, verb="REPLACE", card_number="08")
    insert(client, verb="REPLACE", card_number="07", note="x")
    assert client.execute("SELECT card_number, note FROM member").fetchall() == [("07", "x")]


def test_the_level_it_is_written_from_changes_it(open_node: Open) -> None:
    province = open_node(unit=HUE, writable=(HUE, VANG))
    insert(province, card_number="07")
    seal(province)
    province.execute("UPDATE member SET card_number = '08'")
    assert pending(province) == {("1", "E", "card_number")}


def test_a_level_that_does_not_read_a_field_does_not_write_it(open_node: Open) -> None:
    centre = open_node(unit="vn", writable=("vn", HUE, VANG))
    with pytest.raises(sqlite3.IntegrityError, match=r"member\.phone: only province and the levels below"):
        insert(centre, phone="09")
    insert(centre)
    with pytest.raises(sqlite3.IntegrityError, match=r"member\.phone: only province"):
        centre.execute("UPDATE member SET phone = '09'")
    insert(centre, unit=HUE, phone="09")  # a parent always reads
    assert pending(centre) == {("1", "I")}


def test_a_catalogue_is_written_by_its_own_unit(open_node: Open) -> None:
    province = open_node(unit=HUE, writable=(HUE, VANG))
    with pytest.raises(sqlite3.IntegrityError, match=r"catalog\.unit: must be this node's own unit, hue\.vn"):
        insert(province, "catalog", unit=VANG, kind="religion", code="x")
    insert(province, "catalog", unit=HUE, kind="religion", code="x")


def test_the_registry_is_written_by_the_root(open_node: Open) -> None:
    root, below = open_node(unit="vn", writable=("vn",)), open_node(unit=HUE, writable=(HUE,))
    with pytest.raises(sqlite3.IntegrityError, match=r"_registry\.unit: only the root"):
        insert(below, "_registry", unit=HUE, toml="x")
    with pytest.raises(sqlite3.IntegrityError, match=r"_registry\.unit"):
        insert(root, "_registry", unit=HUE, toml="x")
    insert(root, "_registry", unit="vn", toml="x")
    insert(root, "_unit", unit="vn", id="-", name="Việt Nam")


# -- another registry's types

OTHER_TYPES = {
    "a time without a zone": ({"seen_at": "2024-01-01T10:00:00"}, r"asset\.seen_at: a time in UTC"),
    "second 60": ({"seen_at": "2024-01-01T10:00:60Z"}, r"asset\.seen_at"),
    "hour 24": ({"seen_at": "2024-01-01T24:00:00Z"}, r"asset\.seen_at"),
    "a word for a real": ({"price": "much"}, r"asset\.price: a number"),
    "infinity": ({"price": 9e999}, r"asset\.price: a number"),
    "text for bytes": ({"serial": "00"}, r"asset\.serial: bytes"),
    "no bytes": ({"serial": b""}, r"asset\.serial: required"),
    "half a number": ({"copies": 1.5}, r"asset\.copies: a whole number"),
    "what the nation sets": ({"valuation": 1}, None),
}


@pytest.mark.parametrize(("row", "message"), OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_the_other_types(open_node: Open, row: dict[str, Any], message: str | None) -> None:
    node = open_node(LIBRARY, "a.b", ("a.b",))
    right: dict[str, Any] = {
        "seen_at": "2024-02-29T10:00:00.345Z",
        "price": 2,
        "copies": 3,
        "lent": 0,
        "bought": "2000-02-29",
    }
    insert(node, "asset", unit="a.b", **{**BOOK, **right})
    if message is None:
        return
    with pytest.raises(sqlite3.IntegrityError, match=message):
        insert(node, "asset", unit="a.b", id="2", **{**BOOK, **row})


def test_every_millisecond_is_a_time(open_node: Open) -> None:
    node = open_node(LIBRARY, "a.b", ("a.b",))
    for number in range(0, 1000, 7):
        moment = f"2024-01-01T10:00:59.{number:03}Z"
        insert(node, "asset", unit="a.b", id=str(number), **BOOK, seen_at=moment)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE _registry SET toml = 'x'",
        "DELETE FROM _registry",
        "REPLACE INTO _registry (unit, id, toml) VALUES ('vn', '1', 'x')",
    ],
)
def test_a_published_registry_is_never_changed(tmp_path: Path, statement: str) -> None:
    root = World(tmp_path).node("vn")
    with pytest.raises(DBAPIError, match="cannot be changed"):
        root.sql(statement)
    assert root.seal() == 0
