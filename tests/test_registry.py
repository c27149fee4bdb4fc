"""The registry file: what it means, and every mistake in it named with its line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from conflict.policies import Policy
from sync_engine.errors import RegistryError
from sync_engine.registry import BUILTIN, Field, FieldType, check_successor, may_change, may_read, parse_registry

ROOT = Path(__file__).parent.parent
SHIPPED = (ROOT / "node/registry/membership.toml").read_text(encoding="utf-8")
LIBRARY = (ROOT / "tests/registries/library.toml").read_text(encoding="utf-8")
CENTRAL, PROVINCE, DISTRICT, COMMUNE = range(4)

HEAD = 'version = 1\nname = "x"\nlevels = ["top", "middle", "low"]\n'
"""Three lines, so that in the cases below the table stands on line 4, its fields from line 6."""


def with_fields(*lines: str) -> str:
    return HEAD + "[tables.t]\n[tables.t.fields]\n" + "\n".join(lines) + "\n"


def limited(*lines: str) -> str:
    """A table that is read up to the middle; its fields stand from line 7."""
    return HEAD + '[tables.t]\nread_up_to = "middle"\n[tables.t.fields]\n' + "\n".join(lines) + "\n"


def test_the_shipped_registry_has_the_members_and_the_catalogue() -> None:
    registry = parse_registry(SHIPPED)
    member, catalog = registry.tables["member"], registry.tables["catalog"]
    assert (registry.version, registry.name, registry.levels[0]) == (1, "membership", "central")
    assert registry.sha256 == hashlib.sha256(SHIPPED.encode()).digest()
    assert (len(member.fields), len(member.registers), member.catalogue, catalog.catalogue) == (41, 37, False, True)
    assert [field.name for field in member.required] == ["full_name", "birth_date", "sex"]
    assert member.field("birth_date").partial
    assert member.field("citizen_id").digits == 12
    assert [field.name for field in member.identifying] == ["citizen_id"]
    assert member.field("religion").kind == "religion"
    assert member.field("phone").read_up_to == PROVINCE
    assert member.field("card_number").write_from == PROVINCE
    assert member.register_of("political_theory").order == ("sơ cấp", "trung cấp", "cao cấp", "cử nhân")
    assert member.register_of("card_pages").order == (1, 4)


def test_a_group_is_one_register_and_stands_where_its_first_field_stands() -> None:
    registers = parse_registry(SHIPPED).tables["member"].registers
    identity = registers[0]
    assert (identity.name, identity.policy, identity.is_group) == ("identity", Policy.REVIEW, True)
    assert [field.name for field in identity.fields] == ["full_name", "birth_date"]
    assert [register.index for register in registers] == list(range(len(registers)))
    assert registers[1].name == "other_name"
    assert not registers[1].is_group


def test_the_fields_of_a_group_need_not_be_adjacent() -> None:
    where = parse_registry(LIBRARY).tables["asset"].register_of("room")
    assert [field.name for field in where.fields] == ["shelf", "room"]


def test_tables_are_numbered_apart_from_the_built_in_ones() -> None:
    registry = parse_registry(SHIPPED)
    assert {table.name: table.number for table in registry.all_tables.values()} == {
        "_unit": 1, "_registry": 2, "member": 11, "catalog": 12,
    }  # fmt: skip
    assert registry.by_number[11].name == "member"
    assert set(registry.tables) == {"member", "catalog"}


def test_the_scope_of_a_row_follows_from_its_table() -> None:
    registry = parse_registry(SHIPPED)
    scopes = {name: table.scope_of("hue.vn") for name, table in registry.all_tables.items()}
    assert scopes == {
        "_unit": "hue.vn", "_registry": "hue.vn/registry", "member": "hue.vn", "catalog": "hue.vn/catalog",
    }  # fmt: skip
    assert registry.tables["catalog"].belongs_in("hue.vn/catalog")
    assert not registry.tables["catalog"].belongs_in("hue.vn")


def test_built_in_tables_are_read_by_all() -> None:
    assert all(field.read_up_to is None for table in BUILTIN.values() for field in table.fields)
    assert BUILTIN["_registry"].required[0].name == "toml"


def test_levels_have_names_and_deeper_ones_a_number() -> None:
    registry = parse_registry(SHIPPED)
    assert (registry.deepest, registry.level_name(PROVINCE), registry.level_of("a-luoi.hue.vn")) == (
        COMMUNE, "province", "district",
    )  # fmt: skip
    assert registry.level_name(9) == "level 9"


LIMITED = Field("phone", FieldType.TEXT, "", Policy.LATEST, read_up_to=PROVINCE)
OPEN = Field("note", FieldType.TEXT, "", Policy.LATEST)
READERS = {
    "the row's own unit": (LIMITED, COMMUNE, COMMUNE, True),
    "its parent": (LIMITED, DISTRICT, COMMUNE, True),
    "an ancestor at the named level": (LIMITED, PROVINCE, COMMUNE, True),
    "an ancestor above it": (LIMITED, CENTRAL, COMMUNE, False),
    "an ancestor above it, of a district's row": (LIMITED, CENTRAL, DISTRICT, False),
    "a parent above the named level": (LIMITED, CENTRAL, PROVINCE, True),
    "the root, of its own row": (LIMITED, CENTRAL, CENTRAL, True),
    "anybody, where nothing is said": (OPEN, CENTRAL, COMMUNE, True),
    "a level below the row's unit": (LIMITED, COMMUNE, PROVINCE, True),
}


@pytest.mark.parametrize(("field", "reader", "unit", "reads"), READERS.values(), ids=READERS)
def test_who_reads(field: Field, reader: int, unit: int, reads: bool) -> None:
    assert may_read(field, reader, unit) is reads


def test_who_changes() -> None:
    member = parse_registry(SHIPPED).tables["member"]
    card = member.register_of("card_number")
    assert [may_change(card, level) for level in range(4)] == [True, True, False, False]
    assert may_change(OPEN, COMMUNE)
    # Who cannot read cannot write either.
    phone = member.register_of("phone")
    assert [member.may_change(phone, level, COMMUNE) for level in range(4)] == [False, True, True, True]


MANY = "\n".join(f'f{number} = {{ type = "text" }}' for number in range(501))
SETS = "\n".join(f's{number} = {{ type = "set", merge = "union" }}' for number in range(251))
WRONG = {
    "not TOML": ("version = 1\nname = ]\n", 2, "not TOML"),
    "a key twice": ("version = 1\nversion = 2\n", 2, "not TOML"),
    "an unknown key at the top": (HEAD + "colour = 1\n", 4, "unknown key 'colour'"),
    "an unknown key of a table": (HEAD + "[tables.t]\nsize = 1\n", 5, "unknown key 'size'"),
    "an unknown key of a field": (with_fields('a = { type = "text" }', 'b = { type = "text", size = 1 }'), 7, "'size'"),
    "no version": ('name = "x"\n', 1, "version"),
    "version 0": ('version = 0\nlevels = ["a"]\n', 1, "version"),
    "a version that is text": ('\nversion = "1"\n', 2, "whole number"),
    "a version that is true": ("version = true\n", 1, "whole number"),
    "no levels": ("version = 1\n", 1, "levels"),
    "seventeen levels": (f"version = 1\nlevels = {[f'l{n}' for n in range(17)]}\n", 2, "1 to 16 levels"),
    "a level twice": ('version = 1\nlevels = ["a", "a"]\n', 2, "two levels"),
    "a level without a proper name": ('version = 1\nlevels = ["A b"]\n', 2, "cannot name a level"),
    "no tables": (HEAD, 1, "no tables"),
    "a table without fields": (HEAD + "[tables.t]\n", 4, "no fields"),
    "a table with a capital": (HEAD + "[tables.T]\n", 4, "cannot name a table"),
    "a table of the database's": (HEAD + "[tables.sqlite_x]\n", 4, "cannot name a table"),
    "a table that looks built in": (HEAD + "[tables._unit]\n", 4, "cannot name a table"),
    "an unknown way to delete": (HEAD + '[tables.t]\nlabel = "T"\ndelete = "never"\n', 6, "delete"),
    "a field called unit": (with_fields('unit = { type = "text" }'), 6, "cannot name a field"),
    "a field called id": (with_fields('id = { type = "text" }'), 6, "cannot name a field"),
    "a field called edited_by": (with_fields('edited_by = { type = "text" }'), 6, "cannot name a field"),
    "a field called alive": (with_fields('alive = { type = "text" }'), 6, "cannot name a field"),
    "a field with a dash": (with_fields('a-b = { type = "text" }'), 6, "cannot name a field"),
    "a field with a long name": (with_fields("a" * 61 + ' = { type = "text" }'), 6, "cannot name a field"),
    "a field that is no table": (with_fields("a = 1"), 6, "must be a table"),
    "a field without a type": (with_fields('a = { label = "A" }'), 6, "no type"),
    "an unknown type": (with_fields('a = { type = "txt" }'), 6, "unknown type"),
    "an unknown policy": (with_fields('a = { type = "text", merge = "newest" }'), 6, "unknown merge policy"),
    "an unknown level": (with_fields('a = { type = "text", read_up_to = "province" }'), 6, "unknown level"),
    "a field spread over lines": (HEAD + '[tables.t.fields.a]\ntype = "text"\ndigits = 0\n', 6, "digits"),
    "a group with a field's name": (
        with_fields('a = { type = "text", group = "b" }', 'b = { type = "text" }'), 6, "name of a field"),
    "a group with two policies": (
        with_fields('a = { type = "text", group = "g" }', 'b = { type = "text", group = "g", merge = "local" }'),
        7, "one merge policy"),
    "a group with two readings": (
        with_fields('a = { type = "text", group = "g" }', 'b = { type = "text", group = "g", read_up_to = "low" }'),
        7, "one read_up_to"),
    "a group with two writings": (
        with_fields('a = { type = "text", group = "g" }', 'b = { type = "text", group = "g", write_from = "top" }'),
        7, "one write_from"),
    "a union set in a group": (
        with_fields('a = { type = "set", group = "g", merge = "union" }'), 6, "cannot be in a group"),
    "union of what is no set": (with_fields('a = { type = "text", merge = "union" }'), 6, "only a set"),
    "required, and not read by all": (
        with_fields('a = { type = "text", required = true, read_up_to = "low" }'), 6, "all levels read it"),
    "who may write does not read": (
        with_fields('a = { type = "text", read_up_to = "low", write_from = "middle" }'), 6, "who may write may read"),
    "a table that an unknown level reads": (
        HEAD + '[tables.t]\nread_up_to = "province"\n[tables.t.fields]\na = { type = "int" }\n', 5, "unknown level"),
    "a catalogue that not all read": (
        HEAD + '[tables.t]\nread_up_to = "low"\ncatalogue = true\n[tables.t.fields]\na = { type = "int" }\n',
        5, "judges codes"),
    "a code that some level may not read": (
        HEAD + '[tables.t]\ncatalogue = true\n[tables.t.fields]\ncode = { type = "text", read_up_to = "low" }\n',
        7, "judged at every level"),
    "a field read further up than its table": (limited('a = { type = "int", read_up_to = "top" }'), 7, "further up"),
    "a required field narrower than its table": (
        limited('a = { type = "int", required = true, read_up_to = "low" }'), 7, "whoever reads the table"),
    "who may write does not read the table": (limited('a = { type = "int", write_from = "top" }'), 7, "may read"),
    "a date that identifies": (with_fields('a = { type = "date", identifies = true }'), 6, "a text or an int"),
    "a list's value that identifies": (
        with_fields('a = { type = "int", values = [1], identifies = true }'), 6, "belongs to many"),
    "a part of a group that identifies": (
        with_fields('a = { type = "text", group = "g", identifies = true }'), 6, "nobody alone"),
    "a code that identifies": (
        HEAD + '[tables.t]\ncatalogue = true\n[tables.t.fields]\na = { type = "text", identifies = true }\n',
        7, "lists codes"),
    "an enum without values": (with_fields('a = { type = "enum" }'), 6, "needs values"),
    "an enum of numbers": (with_fields('a = { type = "enum", values = [1] }'), 6, "texts"),
    "values of a text": (with_fields('a = { type = "text", values = ["x"] }'), 6, "values are for"),
    "a value twice": (with_fields('a = { type = "enum", values = ["x", "x"] }'), 6, "stands twice"),
    "an int with a text among its values": (with_fields('a = { type = "int", values = [1, "2"] }'), 6, "whole numbers"),
    "an int with a value beyond 64 bits": (with_fields(f'a = {{ type = "int", values = [{2**63}] }}'), 6, "64 bits"),
    "digits of a number": (with_fields('a = { type = "int", digits = 3 }'), 6, "digits is for text"),
    "a partial text": (with_fields('a = { type = "text", partial = true }'), 6, "partial is for dates"),
    "a code of no kind": (with_fields('a = { type = "code" }'), 6, "kind"),
    "a kind of text": (with_fields('a = { type = "text", kind = "x" }'), 6, "kind is for codes"),
    "a code and no catalogue": (
        with_fields('b = { type = "text" }', 'a = { type = "code", kind = "x" }'), 7, "catalogue = true"),
    "501 fields": (with_fields(MANY), 5, "500 columns"),
    "251 union sets, which take two columns each": (with_fields(SETS), 5, "500 columns"),
    "decomposed text": (with_fields('a = { type = "text", label = "e\u0301" }'), 6, "NFC"),
    "half a character": (with_fields('a = { type = "text", label = "\ud800" }'), 6, "Unicode"),
    "more than a mebibyte": (HEAD + "#" * (1 << 20), 1, "larger"),
    "a mebibyte of wide characters": (HEAD + "#" + "ế" * 400_000, 1, "larger"),
}  # fmt: skip


@pytest.mark.parametrize(("toml", "line", "words"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_with_its_line(toml: str, line: int, words: str) -> None:
    with pytest.raises(RegistryError, match=f"^registry line {line}: ") as caught:
        parse_registry(toml)
    assert caught.value.line == line
    assert words in str(caught.value)


def test_a_level_that_reads_everything_is_the_same_as_saying_nothing() -> None:
    toml = with_fields(
        'a = { type = "text", group = "g", read_up_to = "top", write_from = "low" }',
        'b = { type = "text", group = "g" }',
    )
    assert len(parse_registry(toml).tables["t"].registers) == 1


def test_writing_may_be_narrower_than_reading() -> None:
    toml = with_fields('a = { type = "text", read_up_to = "middle", write_from = "middle" }')
    field = parse_registry(toml).tables["t"].field("a")
    assert (field.read_up_to, field.write_from) == (1, 1)


def test_fields_are_read_no_further_up_than_their_table() -> None:
    table = parse_registry(
        limited('a = { type = "int", required = true }', 'b = { type = "text", read_up_to = "low" }')
    ).tables["t"]
    assert (table.read_up_to, [each.read_up_to for each in table.fields]) == (1, [1, 2])
    assert [table.may_read_rows(level, 2) for level in range(3)] == [False, True, True]
    assert table.may_read_rows(0, 1)  # a second copy must exist
    everybody = limited('a = { type = "text" }').replace('"middle"\n', '"top"\n', 1)
    assert parse_registry(everybody).tables["t"].read_up_to is None


V1 = with_fields(
    'a = { type = "set" }', 'b = { type = "text" }',
    'c = { type = "enum", values = ["p", "q"], required = true }', 'd = { type = "int", values = [1] }',
    'e = { type = "text", digits = 3, group = "g" }', 'f = { type = "date", partial = true, required = true }',
    'h = { type = "text", digits = 3, group = "g" }',
) + '[tables.u]\n[tables.u.fields]\na = { type = "text", read_up_to = "middle" }\n'  # fmt: skip
V2 = V1.replace("version = 1", "version = 2")
C, F = (
    'c = { type = "enum", values = ["p", "q"], required = true }\n',
    'f = { type = "date", partial = true, required = true }\n',
)
E = 'e = { type = "text", digits = 3, group = "g" }\n'
SUCCESSORS = {
    "the same version": (V1, 1, "version"),
    "other levels": (V2.replace("middle", "centre"), 3, "levels"),
    "another type": (V2.replace('b = { type = "text"', 'b = { type = "date"'), 7, "t.b: type"),
    "another group": (V2.replace('b = { type = "text"', 'b = { type = "text", group = "k"'), 7, "t.b: group"),
    "a set merged by union": (V2.replace('"set"', '"set", merge = "union"'), 6, "t.a: merging by union"),
    "a table that became a catalogue": (V2.replace("[tables.t]", "[tables.t]\ncatalogue = true"), 5, "catalogue"),
    "no such table any more": (V2[: V2.index("[tables.u]")], 1, "table u is missing: its rows would be lost"),
    "a table before the others": (
        V2.replace("[tables.t]", '[tables.z.fields]\na = { type = "int" }\n[tables.t]'), 1, "tables keep their places",
    ),
    "no such field any more": (V2.replace('b = { type = "text" }\n', ""), 5, "t.b is missing: its values"),
    "a field that became required": (V2.replace('"text" }', '"text", required = true }'), 7, "t.b: required"),
    "a field no longer required": (V2.replace(C, C.replace(", required = true", "")), 8, "t.c: required"),
    "a new required field": (V2.replace(C, C + 'z = { type = "text", required = true }\n'), 9, "t.z: a new field"),
    "required fields in another order": (V2.replace(C, "").replace(F, F + C), 5, "required fields keep their order"),
    "a group's fields in another order": (
        V2.replace(E, "").replace("[tables.u]", E + "[tables.u]"), 5, "fields of group g keep their order",
    ),
    "a new field in a group": (V2.replace(C, C + 'z = { type = "text", group = "g" }\n'), 9, "group g cannot get"),
    "an enum's value taken away": (V2.replace('["p", "q"]', '["q"]'), 8, "t.c: values cannot be taken away.*: p"),
    "an int's value taken away": (V2.replace("[1]", "[2, 3]"), 9, "t.d: values cannot be taken away.*: 1"),
    "digits set": (V2.replace('b = { type = "text" }', 'b = { type = "text", digits = 2 }'), 7, "t.b: digits"),
    "other digits": (V2.replace("digits = 3", "digits = 4"), 10, "t.e: digits"),
    "whole dates only": (V2.replace("partial = true, ", ""), 11, "t.f: partial"),
    "fewer readers": (V2.replace('b = { type = "text" }', 'b = { type = "text", read_up_to = "low" }'), 7, "t.b: read"),
    "fewer readers of a table": (V2.replace("[tables.u]", '[tables.u]\nread_up_to = "middle"'), 14, "u: read_up_to"),
    "more readers": (V2.replace(', read_up_to = "middle"', ""), 15, "u.a: read_up_to cannot change"),
}  # fmt: skip


@pytest.mark.parametrize(("toml", "line", "words"), SUCCESSORS.values(), ids=SUCCESSORS)
def test_a_version_that_would_lose_something_may_not_follow(toml: str, line: int, words: str) -> None:
    with pytest.raises(RegistryError, match=f"^registry line {line}: .*{words}"):
        check_successor(parse_registry(V1), parse_registry(toml))


def test_an_int_may_not_be_given_a_list_of_values_later() -> None:
    free = V1.replace(", values = [1]", "")
    with pytest.raises(RegistryError, match=r"t\.d: values cannot be named later"):
        check_successor(parse_registry(free), parse_registry(V2))


def test_a_version_may_add_and_loosen_and_change_how_a_field_merges() -> None:
    newer = (
        V2.replace('b = { type = "text" }', 'n = { type = "int", identifies = true }\n'
                   'b = { type = "text", merge = "local", label = "B", identifies = true }')
        .replace('["p", "q"]', '["r", "q", "p"]').replace(", values = [1]", "").replace(", digits = 3", "")
        + 'z = { type = "text", read_up_to = "middle" }\n'
        + '[tables.v]\n[tables.v.fields]\na = { type = "int", required = true }\n'
    )  # fmt: skip
    check_successor(parse_registry(V1), parse_registry(newer))
