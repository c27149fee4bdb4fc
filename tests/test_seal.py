"""Folding what capture noted into entries: what travels, once, and with which times."""

from __future__ import annotations

from typing import Any

import pytest

from conflict.values import TIME_MAX
from sync_engine.batch import SectionKind
from sync_engine.entries import identity_of
from sync_engine.registry import parse_registry
from sync_engine.seal import Draft, Folder, Known, Noted, section_of

TOML = """
version = 1
levels = ["nation", "region"]
[tables.thing.fields]
name = { type = "text", required = true }
note = { type = "text" }
line = { type = "text", group = "address" }
town = { type = "text", group = "address" }
tongues = { type = "set", merge = "union" }
lent = { type = "bool" }
"""
THING = parse_registry(TOML).tables["thing"]
NAME, NOTE, ADDRESS, TONGUES, LENT = (1 << each.index for each in THING.registers)
ALL = NAME | NOTE | ADDRESS | TONGUES | LENT
AN, BINH = identity_of(["An"]), identity_of(["Bình"])


def row(name: str = "An", note: str | None = None, tongues: str | None = None, by: str | None = None) -> list[Any]:
    return [name, note, None, None, tongues, None, by]


def known(identity: bytes = AN, base: int = 10, alive: int = 10, shown: bool = True, **times: int) -> Known:
    return Known(identity, base, alive, is_alive=shown, shown=shown, register_times=times)


def fold(noted: Noted, current: list[Any] | None, *held: Known) -> tuple[list[Draft], list[Draft]]:
    folder = Folder(THING)
    rows = [] if current is None else [current]
    identity = folder.prepare(rows)[0] if rows else b""
    return folder.fold(noted, current, identity, held)


def spans(drafts: list[Draft]) -> set[tuple[int, int, int | None, bool]]:
    """(time, mask, first, new) of each."""
    return {(each.time, each.mask, each.first, each.new) for each in drafts}


def test_an_insert_writes_every_register() -> None:
    rows, deletes = fold(Noted("1", inserted=50), row())
    assert (spans(rows), deletes) == ({(50, ALL, None, True)}, [])
    assert rows[0].identity == AN


def test_several_edits_of_one_field_travel_once_with_the_last_time_and_the_first() -> None:
    rows, _ = fold(Noted("1", edits=[(NOTE, 20, 80)]), row(note="x"), known())
    assert spans(rows) == {(80, NOTE, 20, False)}


def test_each_field_keeps_the_time_of_its_own_last_edit() -> None:
    edits = [(NOTE | LENT, 20, 40), (NOTE, 60, 70), (ADDRESS, 65, 65)]
    rows, _ = fold(Noted("1", edits=edits), row(note="x"), known())
    assert spans(rows) == {(70, NOTE, 20, False), (40, LENT, 20, False), (65, ADDRESS, None, False)}


def test_an_insert_edited_before_sealing_is_two_entries_with_the_right_masks() -> None:
    rows, _ = fold(Noted("1", inserted=50, edits=[(NOTE, 60, 60)]), row(note="x"))
    assert spans(rows) == {(50, ALL & ~NOTE, None, True), (60, NOTE, None, False)}


def test_an_edit_in_the_same_moment_as_the_insert_is_part_of_it() -> None:
    rows, _ = fold(Noted("1", inserted=50, edits=[(NOTE, 50, 50)]), row(note="x"))
    assert spans(rows) == {(50, ALL, None, True)}


TIMES = {
    "a clock that is right": (99, {}, 99),
    "a clock ten years back: 1 after what the edit replaces": (5, {}, 11),
    "after the register's own last write": (5, {"note": 70}, 71),
    "not after another register's": (50, {"address": 70}, 50),
    "equal clocks": (10, {}, 11),
    "the end of time stays there": (5, {"note": TIME_MAX}, TIME_MAX),
}


@pytest.mark.parametrize(("noted", "times", "time"), TIMES.values(), ids=TIMES)
def test_the_time_of_an_edit_is_what_the_clock_said_or_one_after_what_it_replaces(
    noted: int, times: dict[str, int], time: int
) -> None:
    rows, _ = fold(Noted("1", edits=[(NOTE, noted, noted)]), row(note="x"), known(**times))
    assert [each.time for each in rows] == [time]


def test_alive_is_not_among_what_an_edit_replaces() -> None:
    rows, _ = fold(Noted("1", edits=[(NOTE, 20, 20)]), row(note="x"), known(alive=900))
    assert [each.time for each in rows] == [20]


def test_a_delete_comes_after_the_alive_writes_it_replaces() -> None:
    rows, deletes = fold(Noted("1", deleted=20, image=row()), None, known(alive=900, note=950))
    assert (rows, [(each.time, each.identity) for each in deletes]) == ([], [(901, AN)])


def test_a_delete_after_an_edit_carries_the_edit_too() -> None:
    before = frozenset({NOTE})
    noted = Noted("1", edits=[(NOTE, 30, 30)], deleted=20, image=row(note="last words"), edited_before=before)
    rows, deletes = fold(noted, None, known())
    assert spans(rows) == {(30, NOTE, None, False)}
    assert rows[0].row[1] == "last words"
    assert [each.time for each in deletes] == [31]


def test_what_came_and_went_between_two_sealings_gives_nothing() -> None:
    assert fold(Noted("1", inserted=20, deleted=30, image=row()), None) == ([], [])


def test_a_person_deleted_and_inserted_again_begins_a_new_life() -> None:
    noted = Noted("1", inserted=40, deleted=30, image=row(note="old"))
    rows, deletes = fold(noted, row(note="new"), known(note=77))
    assert (spans(rows), deletes) == ({(78, ALL, None, True)}, [])


def test_another_person_under_the_key_is_a_delete_and_an_insert() -> None:
    noted = Noted("1", inserted=40, deleted=30, image=row())
    rows, deletes = fold(noted, row("Bình"), known())
    assert [(each.identity, each.new) for each in rows] == [(BINH, True)]
    assert [(each.identity, each.time) for each in deletes] == [(AN, 30)]


def test_what_was_edited_of_the_next_person_is_not_written_to_the_one_deleted() -> None:
    noted = Noted("1", inserted=40, deleted=30, image=row(), edits=[(NOTE, 50, 50)])
    rows, _ = fold(noted, row("Bình", note="x"), known())
    assert {each.identity for each in rows} == {BINH}
    assert spans(rows) == {(40, ALL & ~NOTE, None, True), (50, NOTE, None, False)}


def test_a_row_known_as_deleted_comes_back_after_all_its_writes() -> None:
    rows, _ = fold(Noted("1", inserted=20), row(), known(shown=False, note=500))
    assert spans(rows) == {(501, ALL, None, True)}


def test_only_the_person_shown_is_edited() -> None:
    rows, _ = fold(Noted("1", edits=[(NOTE, 20, 20)]), row(note="x"), known(BINH, shown=False), known(AN))
    assert [each.identity for each in rows] == [AN]


UNIONS: dict[str, tuple[list[str], dict[str, frozenset[str]], str | None, list[str], list[str]]] = {
    "an element added": (["a"], {}, '["a","b"]', ["b"], []),
    "an element taken away": (["a", "b"], {}, '["a"]', [], ["b"]),
    "all taken away": (["a", "b"], {}, None, [], ["a", "b"]),
    "added and taken away": (["a"], {}, '["b"]', ["b"], ["a"]),
    "back to what it was": (["a"], {}, '["a"]', [], []),
    "elements with registers of their own count as those say": ([], {"tongues": frozenset("a")}, '["b"]', ["b"], ["a"]),
}


@pytest.mark.parametrize(("before", "elements", "now", "added", "removed"), UNIONS.values(), ids=UNIONS)
def test_a_union_travels_as_what_was_added_and_what_was_taken_away(
    before: list[str], elements: dict[str, frozenset[str]], now: str | None, added: list[str], removed: list[str]
) -> None:
    held = known()
    held.elements = elements
    rows, _ = fold(Noted("1", edits=[(TONGUES, 20, 20)], before={"tongues": before}), row(tongues=now), held)
    entries = section_of(THING, SectionKind.ROWS, rows)
    assert (entries.columns["tongues"], entries.removed["tongues"]) == ([added], [removed])


def test_a_section_is_sorted_by_key_and_time() -> None:
    drafts = [Draft(key, AN, time, NOTE, row()) for key, time in [("2", 1), ("1", 9), ("10", 3), ("1", 2)]]
    entries = section_of(THING, SectionKind.ROWS, drafts)
    assert list(zip(entries.ids, entries.times, strict=True)) == [("1", 2), ("1", 9), ("10", 3), ("2", 1)]


def test_columns_that_inserts_leave_empty_do_not_travel() -> None:
    entries = section_of(THING, SectionKind.ROWS, [Draft(key, AN, 1, ALL, row(), new=True) for key in "12"])
    assert [each.name for each in entries.registers] == ["name"]
    assert (entries.masks, entries.new, entries.by) == (None, [True, True], None)


def test_a_column_that_an_edit_empties_does_travel() -> None:
    entries = section_of(THING, SectionKind.ROWS, [Draft("1", AN, 1, NOTE, row())])
    assert (entries.columns, entries.masks, entries.new) == ({"note": [None]}, None, None)


def test_masks_come_where_rows_differ_and_hide_what_a_row_does_not_write() -> None:
    drafts = [Draft("1", AN, 1, NOTE, row(note="x")), Draft("2", AN, 1, LENT, row(note="not mine", by="clerk"))]
    entries = section_of(THING, SectionKind.ROWS, drafts)
    assert (entries.masks, entries.columns["note"], entries.by) == ([1, 2], ["x", None], [None, "clerk"])
