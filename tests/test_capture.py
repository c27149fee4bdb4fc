"""Capture: what is noted of what a program that knows nothing of us writes.

The clients are Python's own sqlite3 and the sqlite3 shell: other SQLite versions than the node's driver.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from node.storage.capture import capture_schema_sql, is_wide
from node.storage.nfc import characters
from sync_engine.registry import parse_registry
from tests.capturing import (
    BOOK,
    HUE,
    LIBRARY,
    MEMBERS,
    PERSON,
    VANG,
    Open,
    client_fixture,
    image,
    insert,
    open_node_fixture,
    pending,
    prepare,
    seal,
)

__all__ = ["client_fixture", "open_node_fixture"]  # fixtures, found by pytest under their own names


# -- what is noted ----------------------------------------------------------------------------------------------------


def test_an_insert_is_noted_with_its_time(client: sqlite3.Connection) -> None:
    insert(client)
    now = client.execute("SELECT strftime('%s', 'now') * 1000").fetchone()[0]
    unit, table, identifier, kind, mask, first, last, kept = client.execute("SELECT * FROM _pending").fetchone()
    assert (unit, table, identifier, kind, mask, kept) == (VANG, 11, "1", "I", 0, None)
    assert first == last
    assert abs((first >> 16) - now) < 5_000
    assert first & 0xFFFF == 0


def test_many_rows_in_one_statement_are_noted_each(client: sqlite3.Connection) -> None:
    client.execute(
        "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES "
        + ", ".join(f"('{VANG}', '{number}', 'A', '1950', 'nam')" for number in range(5))
    )
    assert pending(client) == {(str(number), "I") for number in range(5)}


def test_a_row_without_an_id_gets_one_of_version_7(client: sqlite3.Connection) -> None:
    for _ in range(3):
        client.execute("INSERT INTO member (unit, full_name, birth_date, sex) VALUES (?, 'A', '1950', 'nam')", (VANG,))
    made = [row[0] for row in client.execute("SELECT id FROM member")]
    assert len(set(made)) == 3
    for one in made:
        assert [len(part) for part in one.split("-")] == [8, 4, 4, 4, 12]
        assert (one[14], one[19] in "89ab") == ("7", True)
    assert pending(client) == {(one, "I") for one in made}


def test_an_edit_notes_its_registers_and_a_group_as_one(client: sqlite3.Connection) -> None:
    insert(client)
    seal(client)
    client.execute("UPDATE member SET note = 'x', address_line = 'y', address_province = 'z'")
    assert pending(client) == {("1", "E", "address", "note")}


def test_a_repeated_edit_only_moves_its_last_time(client: sqlite3.Connection) -> None:
    insert(client)
    seal(client)
    client.execute("UPDATE member SET note = 'x'")
    client.execute("UPDATE _pending SET first = 1, last = 2")
    client.execute("UPDATE member SET note = 'y'")
    client.execute("UPDATE member SET cell = 'y'")
    assert pending(client) == {("1", "E", "note"), ("1", "E", "cell")}
    ((first, last),) = client.execute("SELECT first, last FROM _pending WHERE first = 1").fetchall()
    assert (first, last > 2) == (1, True)


NOTHING = {
    "the value it has": "UPDATE member SET note = 'x'",
    "who edited, and no more": "UPDATE member SET edited_by = 'me'",
    "the key it has": "UPDATE member SET unit = unit, id = id",
    "ignored because it exists": "INSERT OR IGNORE INTO member (unit, id, note) VALUES ('{unit}', '1', 'other')",
    "an upsert of nothing": "INSERT INTO member (unit, id, note) VALUES ('{unit}', '1', '') ON CONFLICT DO NOTHING",
    "replaced by the same": "REPLACE INTO member SELECT * FROM member",
    "an upsert of the same": (
        "INSERT INTO member (unit, id, note) VALUES ('{unit}', '1', 'x') "
        "ON CONFLICT (unit, id) DO UPDATE SET note = excluded.note"
    ),
}


@pytest.mark.parametrize("statement", NOTHING.values(), ids=NOTHING)
def test_what_changes_nothing_notes_nothing(client: sqlite3.Connection, statement: str) -> None:
    insert(client, note="x", languages='["Nga"]')
    seal(client)
    client.execute(statement.format(unit=VANG))
    assert pending(client) == set()
    assert client.execute("SELECT note, full_name FROM member").fetchall() == [("x", PERSON["full_name"])]


def test_an_upsert_is_an_insert_or_an_edit(client: sqlite3.Connection) -> None:
    upsert = (
        f"INSERT INTO member (unit, id, full_name, birth_date, sex, note) VALUES ('{VANG}', ?, 'A', '1950', 'nam', ?) "
        "ON CONFLICT (unit, id) DO UPDATE SET note = excluded.note"
    )
    client.execute(upsert, ("1", "x"))
    assert pending(client) == {("1", "I")}
    seal(client)
    client.execute(upsert, ("1", "y"))
    assert pending(client) == {("1", "E", "note")}


def test_replace_is_an_edit_of_what_it_changes(client: sqlite3.Connection) -> None:
    insert(client, note="x", cell="c")
    seal(client)
    insert(client, verb="REPLACE", note="y", cell="c")
    assert pending(client) == {("1", "E", "note")}
    insert(client, verb="INSERT OR REPLACE", id="2", note="y")
    assert pending(client) == {("1", "E", "note"), ("2", "I")}


@pytest.mark.parametrize("before", ["OR IGNORE", "upsert", "REPLACE"])
def test_what_an_earlier_insert_left_behind_misleads_nobody(client: sqlite3.Connection, before: str) -> None:
    insert(client, note="x")
    if before == "upsert":
        client.execute(
            f"INSERT INTO member (unit, id, note) VALUES ('{VANG}', '1', 'y') ON CONFLICT DO UPDATE SET note = 'z'"
        )
    else:
        insert(client, verb="REPLACE" if before == "REPLACE" else f"INSERT {before}", note="y")
    for applying in (0, 1):
        client.execute("UPDATE _capture SET applying = ?", (applying,))
        client.execute("DELETE FROM member")
        client.execute("UPDATE _capture SET applying = 0")
        seal(client)
        insert(client, note="again")
        assert pending(client) == {("1", "I")}


@pytest.mark.parametrize("policy", ["", "OR IGNORE", "OR REPLACE", "OR FAIL", "OR ROLLBACK", "OR ABORT"])
def test_the_clients_conflict_clause_does_not_reach_into_capture(client: sqlite3.Connection, policy: str) -> None:
    insert(client)
    client.execute(f"UPDATE {policy} member SET note = 'a'")
    client.execute("UPDATE _pending SET first = 1")
    client.execute(f"UPDATE {policy} member SET note = 'b'")
    assert pending(client) == {("1", "I"), ("1", "E", "note")}
    assert client.execute("SELECT DISTINCT first FROM _pending").fetchall() == [(1,)]
    insert(client, id="2", verb=f"INSERT {policy}")
    client.execute("DELETE FROM member WHERE id = '2'")
    insert(client, id="2", verb=f"INSERT {policy}")
    assert {note for note in pending(client) if note[0] == "2"} == {("2", "I"), ("2", "D")}
    with pytest.raises(sqlite3.IntegrityError, match=r"member\.sex"):
        client.execute(f"UPDATE {policy} member SET sex = 'x'")
    with pytest.raises(sqlite3.IntegrityError, match=r"member\.sex"):
        insert(client, id="3", sex="x", verb=f"INSERT {policy}")
    assert client.execute("SELECT count(*) FROM member").fetchone() == (2,)


def test_delete_without_where_keeps_the_image_of_every_row(client: sqlite3.Connection) -> None:
    insert(client, id="1", note="x", languages='["Nga"]', has_handbook=1, edited_by="me")
    insert(client, id="2")
    seal(client)
    client.execute("DELETE FROM member")
    assert pending(client) == {("1", "D"), ("2", "D")}
    kept = json.loads(client.execute("SELECT image FROM _pending WHERE id = '1'").fetchone()[0])
    assert {field.name for field in MEMBERS.tables["member"].fields} | {"edited_by"} == kept.keys()
    assert (kept["note"], kept["languages"], kept["has_handbook"], kept["cell"]) == ("x", '["Nga"]', 1, None)


def test_an_edit_before_a_delete_stays_noted(client: sqlite3.Connection) -> None:
    insert(client, note="x")
    seal(client)
    client.execute("UPDATE member SET note = 'y'")
    client.execute("DELETE FROM member")
    assert pending(client) == {("1", "E", "note"), ("1", "D")}
    assert image(client, "D")["note"] == "y"


def test_the_image_is_that_of_the_first_delete(client: sqlite3.Connection) -> None:
    insert(client, note="first")
    seal(client)
    client.execute("DELETE FROM member")
    insert(client, note="second")
    client.execute("DELETE FROM member")
    assert pending(client) == {("1", "D"), ("1", "I")}
    assert image(client, "D")["note"] == "first"


@pytest.mark.parametrize("way", ["update", "replace"])
def test_a_union_set_is_kept_as_it_was_before_its_first_edit(client: sqlite3.Connection, way: str) -> None:
    insert(client, languages='["Nga"]', badges='["30 năm"]')
    seal(client)
    client.execute("UPDATE member SET note = 'x'")
    assert pending(client) == {("1", "E", "note")}
    for value in ('["Anh","Nga"]', None):
        if way == "update":
            client.execute("UPDATE member SET languages = ?", (value,))
        else:
            insert(client, verb="REPLACE", note="x", languages=value, badges='["30 năm"]')
    assert pending(client) == {("1", "E", "note"), ("1", "E", "languages"), ("1", "B")}
    codes = dict.fromkeys(("ethnic_group", "religion", "occupation", "degree"))
    assert image(client, "B") == {"languages": '["Nga"]', "introducers": None, "badges": '["30 năm"]', **codes}


def test_nothing_is_noted_or_judged_while_we_apply(client: sqlite3.Connection) -> None:
    client.execute("UPDATE _capture SET applying = 1")
    insert(client, unit="elsewhere.vn", sex="?", birth_date=None)
    insert(client, verb="REPLACE", unit="elsewhere.vn", sex="!")
    client.execute("UPDATE member SET citizen_id = 'x'")
    client.execute("DELETE FROM member")
    assert pending(client) == set()
    client.execute("UPDATE _capture SET applying = 0")
    insert(client)
    assert pending(client) == {("1", "I")}


def test_what_is_rolled_back_was_never_noted(client: sqlite3.Connection) -> None:
    client.execute("BEGIN")
    insert(client)
    client.execute("ROLLBACK")
    assert pending(client) == set()


def test_a_statement_that_is_refused_leaves_nothing(client: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        client.execute(
            f"INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES ('{VANG}', '1', 'A', '1950', 'nam'), "
            f"('{VANG}', '2', 'A', '1950', 'other')"
        )
    assert pending(client) == set()
    assert client.execute("SELECT count(*) FROM member").fetchone() == (0,)


@pytest.mark.parametrize("policy", ["", "OR IGNORE", "OR REPLACE", "OR FAIL"])
@pytest.mark.parametrize("change", ["id = '2'", f"unit = '{HUE}'"])
def test_a_key_never_changes(client: sqlite3.Connection, policy: str, change: str) -> None:
    insert(client)
    insert(client, id="2")
    with pytest.raises(sqlite3.IntegrityError, match="delete the row and insert it anew"):
        client.execute(f"UPDATE {policy} member SET {change} WHERE id = '1'")
    assert client.execute("SELECT count(*) FROM member").fetchone() == (2,)


def test_recursive_triggers_lose_nothing(client: sqlite3.Connection) -> None:
    client.execute("PRAGMA recursive_triggers = ON")
    insert(client, note="x")
    seal(client)
    insert(client, verb="REPLACE", note="y")
    assert ("1", "E", "note") in pending(client) or {("1", "D"), ("1", "I")} <= pending(client)


# -- another registry, another client ---------------------------------------------------------------------------------


def test_another_registry_with_more_registers_than_a_word_has_bits(open_node: Open) -> None:
    asset = LIBRARY.tables["asset"]
    assert is_wide(asset)
    node = open_node(LIBRARY, "a.b", ("a.b",))
    insert(node, "asset", unit="a.b", **BOOK)
    seal(node)
    node.execute("UPDATE asset SET title = 'U', mark_60 = 'x', room = 'r'")
    assert pending(node, LIBRARY) == {("1", "E", "title", "where", "mark_60")}
    seal(node)
    node.execute("UPDATE asset SET title = title, edited_by = 'me'")
    insert(node, "asset", verb="REPLACE", unit="a.b", **{**BOOK, "title": "U"}, room="r", mark_60="x", edited_by="me")
    assert pending(node, LIBRARY) == set()
    node.execute("DELETE FROM asset")
    assert image(node, "D")["serial"] == "00FF"
    assert image(node, "D")["mark_60"] == "x"


def test_installing_again_changes_nothing_and_a_new_registry_adds_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    prepare(path, MEMBERS, VANG, (VANG,))
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        insert(conn)
        schema = conn.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    prepare(path, MEMBERS, VANG, ())
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        assert conn.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == schema
        assert pending(conn) == {("1", "I")}
    toml = MEMBERS.toml.replace("version = 1", "version = 2").replace(
        "[tables.catalog]", 'shoe_size = { type = "int", label = "Shoe size" }\n\n[tables.catalog]'
    )
    newer = parse_registry(toml)
    prepare(path, newer, VANG, ())
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        seal(conn)
        conn.execute("UPDATE member SET shoe_size = 40")
        assert pending(conn, newer) == {("1", "E", "shoe_size")}
        insert(conn, id="2", verb="REPLACE", shoe_size=41)
        assert ("2", "I") in pending(conn, newer)


def test_captures_own_tables_can_be_made_again() -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        for _ in range(2):
            for statement in capture_schema_sql():
                conn.execute(statement)
        assert conn.execute("SELECT applying FROM _capture").fetchall() == [(0,)]
        assert conn.execute("SELECT count(*) FROM _nfc_char").fetchone() == (len(characters()),)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 shell here")
def test_the_sqlite3_shell_is_captured_and_refused_like_any_client(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    prepare(path, MEMBERS, VANG, (VANG,))

    def shell(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sqlite3", str(path)], input=script, capture_output=True, text=True, check=False)

    row = f"(unit, id, full_name, birth_date, sex, note) VALUES ('{VANG}', '1', 'Trần Văn Mẫu', '1950-01', 'nam'"
    for script in (
        f"INSERT INTO member {row}, 'a');",
        f"REPLACE INTO member {row}, 'b');",
        f"INSERT INTO member {row}, 'c') ON CONFLICT (unit, id) DO UPDATE SET cell = excluded.note;",
        f"INSERT OR IGNORE INTO member {row}, 'd');",
    ):
        assert shell(script).stderr == ""
    refused = shell("UPDATE member SET sex = 'x';")
    assert "member.sex: one of nam, nữ" in refused.stderr
    with closing(sqlite3.connect(path)) as conn:
        assert pending(conn) == {("1", "I"), ("1", "E", "note"), ("1", "E", "cell")}
