"""The plan of a registry change: every difference is named, and what each level gains and loses."""

from __future__ import annotations

import pytest

from node.cli.registry import ACCESS, change_in_words
from node.messages import say
from node.storage.registries import Standing
from sync_engine.registry import parse_registry
from sync_engine.registry_plan import Access, Change, ChangeKind, plan, shows_otherwise
from tests.test_registry import V1, V2
from tests.world import SHIPPED

K = ChangeKind


def named(old: str, new: str) -> tuple[str, str]:
    """A change of the second version's text."""
    assert old in V2
    return V2.replace(old, new, 1), old


CHANGES = {
    "the registry's name": (named('name = "x"', 'name = "y"'), [Change(K.NAME, before="x", after="y")]),
    "a table": (
        (V2 + '[tables.v]\nlabel = "V"\n[tables.v.fields]\na = { type = "int", label = "A" }\n', ""),
        [Change(K.TABLE_ADDED, "v", label="V", after="1"), Change(K.FIELD_ADDED, "v", "a", "A", after="int, latest")],
    ),
    "a label of a table": (
        named("[tables.u]", "[tables.u]\nlabel = 'U'"), [Change(K.TABLE_LABEL, "u", before="u", after="U")],
    ),
    "what a delete comes to": (
        named("[tables.u]", '[tables.u]\ndelete = "keep"'), [Change(K.DELETE, "u", before="review", after="keep")],
    ),
    "a field": (
        (V2 + 'z = { type = "set", merge = "union", label = "Z" }\n', ""),
        [Change(K.FIELD_ADDED, "u", "z", "Z", after="set, union")],
    ),
    "a field's label": (named('"text" }', '"text", label = "B" }'), [Change(K.LABEL, "t", "b", "B", "b", "B")]),
    "how a field merges": (
        named('"text" }', '"text", merge = "local" }'), [Change(K.MERGE, "t", "b", "b", "latest", "local")],
    ),
    "more values": (named('["p", "q"]', '["p", "r", "q"]'), [Change(K.VALUES_ADDED, "t", "c", "c", after="r")]),
    "values in another order": (
        named('["p", "q"]', '["q", "p"]'), [Change(K.VALUES_ORDER, "t", "c", "c", "p, q", "q, p")],
    ),
    "any value": (named(", values = [1]", ""), [Change(K.VALUES_FREED, "t", "d", "d", "1")]),
    "any text": (named("digits = 3, ", ""), [Change(K.DIGITS, "t", "e", "e", "3")]),
    "who may change a field": (
        named('"text" }', '"text", write_from = "middle" }'),
        [Change(K.WRITE_FROM, "t", "b", "b", "", "middle")],
    ),
    "a number that is one person's": (
        named('"text" }', '"text", identifies = true }'), [Change(K.IDENTIFIES, "t", "b", "b")],
    ),
    "nothing": (named("version", "version"), []),
}  # fmt: skip


@pytest.mark.parametrize(("made", "changes"), CHANGES.values(), ids=CHANGES)
def test_every_change_is_named(made: tuple[str, str], changes: list[Change]) -> None:
    found = plan(parse_registry(V1), parse_registry(made[0]))
    assert (found.before, found.after, list(found.changes), found.refused) == (1, 2, changes, ())


def test_dates_may_become_partial_and_fields_move() -> None:
    old = SHIPPED.replace('exempt_from = { type = "date"', 'exempt_from = { type = "date", partial = false')
    lines = old.replace("version = 1", "version = 2").replace("partial = false", "partial = true").splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("note ="))
    lines[at - 1], lines[at] = lines[at], lines[at - 1]
    found = plan(parse_registry(old), parse_registry("\n".join(lines)))
    assert [(each.kind, each.field) for each in found.changes] == [(K.PARTIAL, "exempt_from"), (K.FIELD_ORDER, "")]


def test_each_level_is_told_what_it_reads_and_changes() -> None:
    newer = (
        V2.replace('b = { type = "text" }', 'b = { type = "text", write_from = "middle" }')
        + 'y = { type = "text", read_up_to = "middle" }\nz = { type = "text", write_from = "top" }\n'
    )
    assert plan(parse_registry(V1), parse_registry(newer)).access == (
        Access("top", ("u.z",), ("u.y",), ("u.z",), ()),
        Access("middle", ("u.y", "u.z"), (), ("u.y",), ()),
        Access("low", ("u.y", "u.z"), (), ("u.y",), ("t.b",)),
    )


def test_a_number_may_become_anybodys_again() -> None:
    before = V1.replace('b = { type = "text" }', 'b = { type = "text", identifies = true }')
    assert plan(parse_registry(before), parse_registry(V2)).changes == (Change(K.IDENTIFIES_NO_MORE, "t", "b", "b"),)


def test_a_new_table_is_told_to_the_levels_that_read_it() -> None:
    newer = V2 + '[tables.v]\nread_up_to = "low"\n[tables.v.fields]\na = { type = "int", required = true }\n'
    assert plan(parse_registry(V1), parse_registry(newer)).access == (
        Access("top", (), ("v.a",), (), ()),
        Access("middle", (), ("v.a",), (), ()),
        Access("low", ("v.a",), (), ("v.a",), ()),
    )


def test_a_right_given_back_is_told() -> None:
    narrow = V1.replace('b = { type = "text" }', 'b = { type = "text", write_from = "middle" }')
    assert plan(parse_registry(narrow), parse_registry(V2)).access == (Access("low", (), (), ("t.b",), ()),)


def test_all_that_is_refused_is_told_at_once() -> None:
    worse = V2.replace('["p", "q"]', '["q"]').replace("partial = true, ", "").replace('b = { type = "text" }\n', "")
    found = plan(parse_registry(V1), parse_registry(worse))
    assert [each.path[-1] for each in found.refused] == ["fields", "c", "f"]


OTHERWISE = {
    "a label": ('"text" }', '"text", label = "B" }', False),
    "a rule": ('"text" }', '"text", merge = "local" }', True),
    "a new field": ('b = { type = "text" }', 'b = { type = "text" }\nz = { type = "text", merge = "local" }', False),
    "values that rank otherwise": ('["p", "q"]', '["q", "p"]', True),
    "what a delete comes to": ("[tables.t]", '[tables.t]\ndelete = "delete"', True),
}


@pytest.mark.parametrize(("old", "new", "changes"), OTHERWISE.values(), ids=OTHERWISE)
def test_rows_are_shown_anew_only_where_rules_have_changed(old: str, new: str, changes: bool) -> None:
    both = parse_registry(V1).tables["t"], parse_registry(V2.replace(old, new, 1)).tables["t"]
    assert shows_otherwise(*both) is changes


@pytest.mark.parametrize("kind", ChangeKind)
def test_every_kind_of_change_has_a_sentence(kind: ChangeKind) -> None:
    change = {"kind": kind.value, "table": "t", "field": "f", "label": "L", "before": "", "after": "central"}
    assert "{" not in change_in_words(change)


def test_every_other_sentence_is_there() -> None:
    for standing in Standing:
        assert say(f"registry.cause.{standing}", version=2)
        if standing is not Standing.ABSENT:
            assert say(f"look.registry.{standing}", version=2, batches=1, reason="r")
    for what in ACCESS:
        assert say(f"registry.access.{what}", level="low", fields="t.a")
