"""Sealing on a real database: what plain SQL did becomes batches that any other node can take.

Each world is a province and its district; what the province shows after one exchange is what travelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from random import Random
from typing import Any

import pytest
from sqlcipher3 import dbapi2

from node.storage.batches import all_batches
from node.storage.engine import bulk, execute
from node.storage.pending import image_row
from node.storage.report import set_aside
from node.storage.sealing import seal_next
from sync_engine.batch import SealedBatch, SectionKind, parse_batch
from sync_engine.entries import Entries
from sync_engine.limits import BATCH_BYTES_MAX, ENTRIES_MAX, PLAIN_BYTES_MAX, ROW_BYTES_MAX
from sync_engine.verify import decode
from tests import capturing
from tests.capturing import BOOK, LIBRARY, Open, open_node_fixture
from tests.test_digest import digest
from tests.world import World, WorldNode

__all__ = ["open_node_fixture"]  # a fixture, found by pytest under its own name

VANG, HUE = "phu-vang.hue.vn", "hue.vn"
PERSON = {"full_name": "Nguyễn Thị Mẫu", "birth_date": "1945-08", "sex": "nữ"}
DECOMPOSED, COMPOSED = "\u1112\u1161\u11ab", "\ud55c"
"""A Hangul syllable in two normal forms: the guard of the tables does not look for it."""


@pytest.fixture(name="world")
def world_fixture(tmp_path: object) -> Iterator[World]:
    world = World(tmp_path)  # type: ignore[arg-type]
    world.node(VANG)
    yield world
    for node in world.nodes.values():
        node.engine.dispose()


@pytest.fixture(name="vang")
def vang_fixture(world: World) -> WorldNode:
    return world.node(VANG)


def insert(node: WorldNode, key: str = "1", **values: Any) -> None:
    row = {"unit": VANG, "id": key, **PERSON, **values}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    node.sql(f"INSERT INTO member ({names}) VALUES ({marks})", *row.values())


def many(node: WorldNode, keys: list[str]) -> None:
    values = [(VANG, key, *PERSON.values()) for key in keys]
    with node.write() as connection:
        bulk(connection, "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, ?, ?, ?)", values)


def batches(node: WorldNode) -> list[SealedBatch]:
    """What this node sealed of its members."""
    with node.read() as connection:
        found = [parse_batch(data) for _, data in all_batches(connection)]
    return [each for each in found if each.header.stream.origin == node.unit and each.header.stream.scope == VANG]


def last(node: WorldNode) -> list[Entries]:
    batch = batches(node)[-1]
    (registry,) = (each for each in node.context.registries.values() if each.version)
    return decode(batch, registry)


def shift(node: WorldNode, milliseconds: int) -> None:
    """As if the clock that noted what is pending had been wrong."""
    node.sql("UPDATE _pending SET first = first + ?, last = last + ?", *[milliseconds << 16] * 2)


def agree(world: World, *columns: str, table: str = "member") -> list[tuple[Any, ...]]:
    """One exchange; then both nodes show the same rows and have the same digests. Returns the rows."""
    world.sync(VANG)
    world.sync(VANG)
    query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY id"
    mine, theirs = (world.node(unit).sql(query) for unit in (VANG, HUE))
    assert mine == theirs
    assert digest(world.node(VANG)) == digest(world.node(HUE))
    return mine


def aside(node: WorldNode) -> list[tuple[str, str]]:
    with node.read() as connection:
        return [(each["key"], each["reason"]) for each in set_aside(connection, node.context)]


# -- what one batch says ------------------------------------------------------------------------------------------


def test_several_edits_of_one_field_travel_once(world: World, vang: WorldNode) -> None:
    insert(vang)
    vang.seal()
    vang.sql("UPDATE member SET note = 'first'")
    first = vang.sql("SELECT first FROM _pending")[0][0]
    vang.sql("UPDATE member SET note = 'last'")
    vang.sql("UPDATE _pending SET last = last + 5")
    vang.seal()
    (entries,) = last(vang)
    assert (entries.columns, entries.firsts) == ({"note": ["last"]}, [first])
    assert entries.times[0] > first
    assert agree(world, "note") == [("last",)]


def test_an_insert_edited_later_is_two_entries_and_one_row(world: World, vang: WorldNode) -> None:
    insert(vang, note="a")
    shift(vang, -1000)
    vang.sql("UPDATE member SET note = 'b', languages = '[\"Anh\"]'")
    vang.seal()
    (entries,) = last(vang)
    assert entries.new == [True, False]
    assert agree(world, "note", "languages") == [("b", '["Anh"]')]


def test_delete_after_edit_carries_the_edit(world: World, vang: WorldNode) -> None:
    insert(vang)
    agree(world, "note")
    vang.sql("UPDATE member SET note = 'last words'")
    vang.sql("DELETE FROM member")
    vang.seal()
    edits, deletes = last(vang)
    assert (edits.columns["note"], deletes.kind) == (["last words"], SectionKind.DELETE)
    assert deletes.times[0] > edits.times[0]
    assert agree(world, "note") == []


def test_what_came_and_went_leaves_no_batch(vang: WorldNode) -> None:
    before = len(batches(vang))
    insert(vang)
    vang.sql("DELETE FROM member")
    assert vang.seal() == 0
    assert (len(batches(vang)), vang.sql("SELECT * FROM _pending")) == (before, [])


AGAIN = {
    "the same person": (PERSON, 1, [SectionKind.ROWS]),
    "another person": ({**PERSON, "full_name": "Trần Văn Khác"}, 2, [SectionKind.ROWS, SectionKind.DELETE]),
}


@pytest.mark.parametrize(("person", "identities", "kinds"), AGAIN.values(), ids=AGAIN)
def test_deleted_and_inserted_again(
    world: World, vang: WorldNode, person: dict[str, str], identities: int, kinds: list[SectionKind]
) -> None:
    insert(vang, note="old", phone="1")
    agree(world, "note")
    vang.sql("DELETE FROM member")
    insert(vang, **person, note="new")
    vang.seal()
    assert [each.kind for each in last(vang)] == kinds
    assert agree(world, "full_name", "note", "phone") == [(person["full_name"], "new", None)]
    for unit in (VANG, HUE):
        assert world.node(unit).sql("SELECT count(*) FROM _row WHERE id = '1' AND tbl > 10") == [(identities,)]


def test_unions_travel_as_what_was_added_and_taken_away(world: World, vang: WorldNode) -> None:
    insert(vang, languages='["Anh","Nga"]')
    agree(world, "languages")
    vang.sql("""UPDATE member SET languages = '["Anh","Pháp"]'""")
    vang.seal()
    (entries,) = last(vang)
    assert (entries.columns, entries.removed) == ({"languages": [["Pháp"]]}, {"languages": [["Nga"]]})
    assert agree(world, "languages") == [('["Anh","Pháp"]',)]
    vang.sql("UPDATE member SET languages = NULL")
    assert agree(world, "languages") == [(None,)]


def test_a_clock_that_jumped_back_ten_years_still_wins_over_what_it_knew(world: World, vang: WorldNode) -> None:
    insert(vang, note="a")
    vang.sql("UPDATE member SET note = 'b'")
    agree(world, "note")
    for note in ("c", "d"):
        vang.sql("UPDATE member SET note = ?", note)
        shift(vang, -10 * 365 * 86_400_000)
        assert agree(world, "note") == [(note,)]
    assert world.node(HUE).sql("SELECT count(*) FROM _conflict") == [(0,)]


def test_a_clock_in_2035_does_not_beat_an_edit_that_knew_of_its_own(world: World, vang: WorldNode) -> None:
    insert(vang)
    vang.sql("UPDATE member SET note = 'from 2035'")
    shift(vang, 9 * 365 * 86_400_000)
    agree(world, "note")
    world.node(HUE).sql("UPDATE member SET note = 'today'")
    assert agree(world, "note") == [("today",)]


# -- windows ------------------------------------------------------------------------------------------


def test_more_rows_than_one_batch_are_several_in_key_order(world: World, vang: WorldNode) -> None:
    many(vang, [f"{number:05}" for number in range(4_500)])
    assert vang.seal() == 3
    ids = [key for batch in batches(vang)[-3:] for entries in decode_of(vang, batch) for key in entries.ids]
    assert ids == [f"{number:05}" for number in range(4_500)]
    assert len(agree(world, "id")) == 4_500


def decode_of(node: WorldNode, batch: SealedBatch) -> list[Entries]:
    return decode(batch, node.context.registries[batch.header.registry_version[0]])


@pytest.mark.parametrize("notes_max", [1, 2, 3])
def test_no_note_of_a_row_is_lost_where_a_window_ends(world: World, vang: WorldNode, notes_max: int) -> None:
    for key in "12":
        insert(vang, key)
    vang.seal()
    for name in ("note", "cell", "other_name", "position"):
        vang.sql(f"UPDATE member SET {name} = 'x'")
    while True:
        with vang.write() as connection:
            if seal_next(connection, vang.context, notes_max) is None:
                break
    assert agree(world, "note", "cell", "other_name", "position") == [("x",) * 4] * 2


def hexadecimal(seed: int, size: int) -> str:
    return Random(seed).randbytes(size // 2).hex()


LONG = {
    "long rows that compress well": (40, lambda number: "x" * 1_000_000),
    "long rows that do not": (9, lambda number: "".join(Random(number).choices("đăâêôơưạảãàáABCDEFGHIJ", k=400_000))),
}


@pytest.mark.parametrize(("count", "text"), LONG.values(), ids=LONG)
def test_rows_however_long_give_batches_that_others_take(world: World, vang: WorldNode, count: int, text: Any) -> None:
    for number in range(count):
        insert(vang, f"{number:02}", note=text(number))
    assert vang.seal() > 1
    for batch in batches(vang):
        columns = [column for section in batch.header.sections for column in section.columns]
        assert sum(column.compressed_size for column in columns) <= BATCH_BYTES_MAX
        assert sum(column.plain_size for column in columns) <= PLAIN_BYTES_MAX // 4
    assert len(agree(world, "id", "length(note)")) == count


def test_an_edit_of_fields_with_different_times_makes_no_batch_of_too_many_entries(
    world: World, vang: WorldNode
) -> None:
    names = ("note", "cell", "other_name")
    many(vang, [str(number) for number in range(2_000)])
    vang.seal()
    for ahead, name in enumerate(names, start=1):
        vang.sql(f"UPDATE member SET {name} = 'x'")
        shift(vang, ahead * 86_400_000)
        vang.seal()
    vang.sql("UPDATE member SET note = 'y', cell = 'y', other_name = 'y'")
    vang.seal()
    assert max(batch.header.entries for batch in batches(vang)) <= ENTRIES_MAX
    assert set(agree(world, *names)) == {("y",) * 3}


def test_a_row_too_long_and_deleted_before_sealing_poisons_nothing(world: World, vang: WorldNode) -> None:
    insert(vang)
    insert(vang, "2")
    agree(world, "id")
    vang.sql("UPDATE member SET note = ? WHERE id = '1'", "x" * (PLAIN_BYTES_MAX + 1))
    vang.sql("DELETE FROM member WHERE id = '1'")
    vang.seal()
    world.sync(VANG)
    assert world.node(HUE).sql("SELECT id FROM member") == [("2",)]


# -- text ------------------------------------------------------------------------------------------


def test_text_that_slipped_past_the_guard_is_composed_and_written_back(world: World, vang: WorldNode) -> None:
    insert(vang, note=f"{DECOMPOSED} đ", languages=f'["{DECOMPOSED}"]', cell="e")
    assert agree(world, "note", "languages") == [(f"{COMPOSED} đ", f'["{COMPOSED}"]')]
    assert vang.sql("SELECT * FROM _pending") == []


def test_a_deleted_row_is_remembered_to_the_last_digit_whatever_client_deletes_it(open_node: Open) -> None:
    """The triggers run in the client's library: an older SQLite's JSON keeps 15 digits of 17."""
    table = LIBRARY.tables["asset"]
    client = open_node(LIBRARY)
    capturing.insert(client, "asset", **BOOK, price=0.1 + 0.2)
    client.execute("DELETE FROM asset")
    ((image,),) = client.execute("SELECT image FROM _pending WHERE kind = 'D'")
    deleted = dict(zip((each.name for each in table.fields), image_row(table, image.encode()), strict=False))
    assert (deleted["price"], deleted["serial"], deleted["copies"]) == (0.1 + 0.2, BOOK["serial"], None)


# -- rows that may not travel --------------------------------------------------------------------------------


def by_another_client(node: WorldNode, statement: str, *values: Any) -> None:
    """On a connection of its own, with the node's library: two of them in one process break each other's locks."""
    with closing(dbapi2.connect(str(node.path))) as client, client:
        client.execute(statement, values)


def test_a_row_over_the_limit_stays_here_is_named_and_stops_nothing(world: World, vang: WorldNode) -> None:
    insert(vang, "1")
    insert(vang, "2", note="x" * (ROW_BYTES_MAX + 1))
    insert(vang, "3")
    world.sync(VANG)
    assert world.node(HUE).sql("SELECT id FROM member") == [("1",), ("3",)]
    assert vang.sql("SELECT id FROM member WHERE length(note) > 9") == [("2",)]
    ((key, reason),) = aside(vang)
    assert (key, "bytes" in reason) == ("2", True)
    assert vang.seal() == 0, "nothing is pending"


def test_once_it_fits_it_travels_with_all_that_was_changed_meanwhile(world: World, vang: WorldNode) -> None:
    insert(vang)
    agree(world, "note")
    vang.sql("UPDATE member SET note = ?, cell = 'changed with it'", "x" * (ROW_BYTES_MAX + 1))
    world.sync(VANG)
    vang.sql("UPDATE member SET position = 'changed after'")
    world.sync(VANG)
    assert world.node(HUE).sql("SELECT note, cell, position FROM member") == [(None, None, None)]
    assert len(aside(vang)) == 1
    vang.sql("UPDATE member SET note = 'short'")
    assert agree(world, "note", "cell", "position") == [("short", "changed with it", "changed after")]
    assert aside(vang) == []


UNFIT = {
    "text that is not UTF-8": "CAST(x'C328' AS TEXT)",
    "the same in a long text": "'a' || CAST(x'FF' AS TEXT)",
}


@pytest.mark.parametrize("value", UNFIT.values(), ids=UNFIT)
def test_what_a_foreign_client_wrote_as_text_and_is_none_stops_nothing(
    world: World, vang: WorldNode, value: str
) -> None:
    for key in "13":
        insert(vang, key)
    statement = (
        f"INSERT INTO member (unit, id, full_name, birth_date, sex, note) VALUES (?, '2', 'A', '1950', 'nam', {value})"
    )
    by_another_client(vang, statement, VANG)
    world.sync(VANG)
    assert world.node(HUE).sql("SELECT id FROM member") == [("1",), ("3",)]
    assert [key for key, _ in aside(vang)] == ["2"]
    by_another_client(vang, "UPDATE member SET note = 'better' WHERE id = '2'")
    world.sync(VANG)
    assert world.node(HUE).sql("SELECT note FROM member WHERE id = '2'") == [("better",)]
    assert aside(vang) == []


def test_such_a_row_may_be_deleted_again(world: World, vang: WorldNode) -> None:
    insert(vang)
    agree(world, "id")
    by_another_client(vang, "UPDATE member SET note = CAST(x'FF' AS TEXT)")
    by_another_client(vang, "DELETE FROM member")
    world.sync(VANG)
    assert world.node(HUE).sql("SELECT id FROM member") == []


def test_an_id_that_others_would_refuse_is_set_aside_and_its_stream_goes_on(world: World, vang: WorldNode) -> None:
    insert(vang, DECOMPOSED)
    insert(vang, "2")
    world.sync(VANG)
    assert world.node(HUE).sql("SELECT id FROM member") == [("2",)]
    assert [key for key, _ in aside(vang)] == [DECOMPOSED]


def test_a_value_that_the_tables_checks_missed_is_set_aside(world: World, vang: WorldNode) -> None:
    for key in "12":
        insert(vang, key)
    with vang.write() as connection:  # as a client that switches triggers off would
        execute(connection, "UPDATE _capture SET applying = 1")
        execute(connection, "UPDATE member SET birth_place = 5, admitted_on = 'yesterday' WHERE id = '1'")
        execute(connection, "UPDATE _capture SET applying = 0")
    world.sync(VANG)
    assert world.node(HUE).sql("SELECT id FROM member") == [("2",)]
    ((key, reason),) = aside(vang)
    assert key == "1"
    assert "admitted_on" in reason
    assert "yesterday" not in reason, "a reason holds no personal data"
