"""A section's entries in columns: what is laid out is read back, and what breaks the format is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conflict.values import TIME_MAX
from sync_engine import chunks
from sync_engine.batch import Column, SectionHeader, SectionKind
from sync_engine.entries import Entries, decode_section, encode_section, identity_of
from sync_engine.errors import BadSignature, LimitExceeded, Malformed
from sync_engine.fields import normalise
from sync_engine.registry import Table, parse_registry
from tests.forging import PERSON, SOMEBODY, deletes, rows

ROOT = Path(__file__).parent.parent
MEMBER = parse_registry((ROOT / "node/registry/membership.toml").read_text(encoding="utf-8")).tables["member"]
ASSET = parse_registry((ROOT / "tests/registries/library.toml").read_text(encoding="utf-8")).tables["asset"]

Section = tuple[SectionHeader, Mapping[int, bytes]]


def salt() -> bytes:
    return bytes(16)


def read(section: Section, table: Table = MEMBER) -> Entries:
    return decode_section(*section, table)


def same(one: Entries, other: Entries) -> bool:
    names = ("ids", "identities", "times", "registers", "firsts", "masks", "new", "by", "columns", "removed", "kind")
    return all(getattr(one, name) == getattr(other, name) for name in names)


ASSETS: dict[str, dict[str, Any]] = {
    "text": {"title": "Sách", "serial": b"\0"},
    "every type": {
        "title": "T", "serial": b"x", "place": "p", "price": 0.1 + 0.2, "copies": -(2**63), "lent": False,
        "seen_at": "2026-01-31T23:59:59Z", "shelf": "s", "room": None, "subjects": (["a", "ă"], ["b"]),
        "keepers": ["k"], "bought": "2026-02-28", "mark_60": "last",
    },
}  # fmt: skip


@pytest.mark.parametrize("values", ASSETS.values(), ids=ASSETS)
def test_an_entry_of_any_type_comes_back_as_it_was(values: dict[str, Any]) -> None:
    entries = rows(ASSET, ("1", 10, values), new=True)
    assert same(read(encode_section(entries, salt), ASSET), entries)


KEYS = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=8)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "note": st.one_of(st.none(), st.text("aăâ\n đ", max_size=9)),
        "card_pages": st.sampled_from([None, 1, 4]),
        "has_handbook": st.sampled_from([None, True, False]),
        "address_line": st.sampled_from([None, "12"]),
        "languages": st.tuples(st.just(["a", "b"]), st.just(["c"])),
        "admitted_on": st.sampled_from([None, "1945", "1945-09-02"]),
    },
).filter(bool)


@settings(deadline=None)
@given(st.dictionaries(st.tuples(KEYS, st.integers(0, TIME_MAX)), FIELDS, min_size=1, max_size=12), st.booleans())
def test_edits_of_any_fields_at_any_times_come_back_as_they_were(
    given_: dict[tuple[str, int], dict[str, Any]], with_names: bool
) -> None:
    entries = rows(MEMBER, *((key, time, values) for (key, time), values in given_.items()))
    if with_names:
        entries.by = ["ai đó" if number % 2 else None for number in range(len(entries))]
        entries.firsts = [time // 2 if number % 2 else None for number, time in enumerate(entries.times)]
    assert same(read(encode_section(entries, salt)), entries)


def test_deletes_are_keys_identities_and_times() -> None:
    entries = deletes(MEMBER, ("2", 5), ("1", TIME_MAX))
    section = encode_section(entries, salt)
    assert [column.name for column in section[0].columns] == ["id", "_identity", "_time"]
    assert same(read(section), entries)


def test_a_mask_names_registers_and_a_group_is_one() -> None:
    entries = rows(MEMBER, ("1", 1, {"address_line": "x"}), ("2", 1, {"note": "y"}))
    assert entries.masks == [1, 2]
    assert [[each.name for each in entries.written(at)] for at in (0, 1)] == [["address"], ["note"]]


def test_a_withheld_column_is_named_and_its_entry_is_read_without_it() -> None:
    header, packed = encode_section(rows(MEMBER, ("1", 1, {"phone": "0", "note": "x"})), salt)
    at = next(at for at, column in enumerate(header.columns) if column.name == "phone")
    entries = read((header, {place: data for place, data in packed.items() if place != at}))
    assert entries.withheld == {"phone"}
    assert [each.name for each in entries.written(0)] == ["note"]
    assert "phone" not in entries.columns


def test_identity_is_of_the_required_values_in_their_order() -> None:
    assert identity_of(["An", "1950"]) != identity_of(["1950", "An"])
    assert identity_of(["An", "1950"]) == sha256(b"\x92\xa2An\xa41950").digest()[:8]
    assert identity_of(["Nguyễn Văn Mẫu", "1950-02", "nam"]) == SOMEBODY


def altered(section: Section, name: str, values: list[Any] | None) -> Section:
    """The section with one column's values replaced, added, or (None) taken out."""
    header, packed = section
    found = {column.name: (column, packed[at]) for at, column in enumerate(header.columns)}
    found.pop(name, None)
    if values is not None:
        data, size = chunks.pack(values, salt())
        found[name] = (Column(name, bytes(32), len(data), size), data)
    columns = tuple(column for column, _ in found.values())
    return replace(header, columns=columns), dict(enumerate(data for _, data in found.values()))


GOOD = encode_section(rows(MEMBER, ("1", 10, {"note": "a"}), ("2", 10, {"cell": "b", "languages": (["x"], [])})), salt)

WRONG: dict[str, tuple[str, list[Any] | None]] = {
    "no ids": ("id", None),
    "an empty id": ("id", ["", "2"]),
    "an id of 201 characters": ("id", ["1" * 201, "2"]),
    "an id that is not NFC": ("id", ["a\u0301", "b"]),
    "an id with a NUL": ("id", ["1\0", "2"]),
    "ids out of order": ("id", ["2", "1"]),
    "one entry twice": ("id", ["1", "1"]),
    "an id too few": ("id", ["1"]),
    "no identities": ("_identity", None),
    "a short identity": ("_identity", [b"short", b"12345678"]),
    "an identity that is text": ("_identity", ["12345678", "12345678"]),
    "no times": ("_time", None),
    "a time before 1970": ("_time", [-1, 20]),
    "a time beyond 63 bits": ("_time", [TIME_MAX, 1]),
    "a mask of the wrong width": ("_mask", [b"\1\0", b"\6\0"]),
    "a mask of registers that are not there": ("_mask", [b"\1", b"\x16"]),
    "a mask that is missing for one": ("_mask", [b"\1", None]),
    "new that is a number": ("_new", [1, 0]),
    "a first that is a text": ("_first", ["1", None]),
    "an editor with a NUL": ("_by", ["a\0", None]),
    "text that is not NFC": ("note", ["a\u0301", None]),
    "text that is a number": ("note", [1, None]),
    "a set as one column": ("languages", [["x"], None]),
    "half a union": ("languages-", None),
    "a union with an element twice": ("languages+", [[], ["x", "x"]]),
    "a union out of order": ("languages-", [[], ["y", "x"]]),
    "a union with nothing for a row": ("languages+", [None, ["x"]]),
    "a field that the registry has not": ("shoe_size", [1, 2]),
    "a column of ours that is not known": ("_colour", [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "values"), WRONG.values(), ids=WRONG)
def test_a_section_that_breaks_the_format_is_malformed(name: str, values: list[Any] | None) -> None:
    read(GOOD)
    with pytest.raises(Malformed):
        read(altered(GOOD, name, values))


def test_an_empty_set_is_written_as_nothing_because_tables_hold_it_so() -> None:
    section = encode_section(rows(ASSET, ("1", 1, {"keepers": ["k"]})), salt)
    assert read(altered(section, "keepers", [None]), ASSET).columns == {"keepers": [None]}
    with pytest.raises(Malformed):
        read(altered(section, "keepers", [[]]), ASSET)


def test_half_a_group_is_malformed() -> None:
    group = encode_section(rows(MEMBER, ("1", 1, {"address_line": "x"})), salt)
    with pytest.raises(Malformed):
        read(altered(group, "address_commune", None))


def test_a_delete_with_fields_is_malformed() -> None:
    with pytest.raises(Malformed):
        read(altered(encode_section(deletes(MEMBER, ("1", 1)), salt), "note", ["x"]))


@pytest.mark.parametrize("name", ["id", "_identity", "_time", "_mask"])
def test_what_is_never_withheld_must_be_there(name: str) -> None:
    header, packed = GOOD
    at = next(at for at, column in enumerate(header.columns) if column.name == name)
    with pytest.raises(BadSignature):
        read((header, {place: data for place, data in packed.items() if place != at}))


@pytest.mark.parametrize("name", ["languages+", "keepers"])
def test_a_set_of_millions_of_elements_is_refused_before_it_is_built(name: str) -> None:
    table = MEMBER if name == "languages+" else ASSET
    field, value = (name.rstrip("+"), (["x"], [])) if name == "languages+" else (name, ["x"])
    section = encode_section(rows(table, ("1", 1, {field: value})), salt)
    bomb = altered(section, name, [[""] * 6_000_000])
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded):
            read(bomb, table)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


def test_five_thousand_rows_of_random_values_come_back() -> None:
    chance = Random(1)
    given_rows = []
    for number in range(5_000):
        note = normalise(MEMBER.field("note"), "".join(chance.choices("aăâbcdđe\u0301 ", k=chance.randint(0, 30))))
        given_rows.append((f"{number:05}", chance.randrange(2**50), {**PERSON, "note": note}))
    entries = rows(MEMBER, *given_rows, new=True)
    assert same(read(encode_section(entries, salt)), entries)
    assert entries.kind is SectionKind.ROWS
