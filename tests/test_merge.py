"""Merging one key: whatever causal order batches come in, registers, the shown row and conflict numbers are the same.

The oracle below knows nothing of how the merge is done: it keeps all writes ever made and takes away those that
another write of the same register had seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conflict.values import Epoch, Head, Hold, Scope, StreamId, UnitPath, Write
from conflict.vector import Vector
from sync_engine.batch import SectionKind
from sync_engine.entries import identity_of
from sync_engine.merge import ALIVE, Batch, EntryView, Former, MergedKey, RowState, merge_key
from sync_engine.registry import Deletion, Table, parse_registry

TOML = """
version = 1
levels = ["nation", "region", "branch"]
[tables.thing]
delete = "{delete}"
[tables.thing.fields]
name = {{ type = "text", required = true, merge = "review" }}
note = {{ type = "text" }}
status = {{ type = "text", merge = "superior", write_from = "region" }}
line = {{ type = "text", group = "address" }}
town = {{ type = "text", group = "address" }}
tongues = {{ type = "set", merge = "union" }}
"""


def table_of(delete: Deletion = "review") -> Table:
    return parse_registry(TOML.format(delete=delete)).tables["thing"]


THING = table_of()
NAMES = frozenset(each.name for each in THING.registers)
UNITS = ("n", "r.n", "b.r.n", "c.r.n", "d.n")
AN, BINH = (identity_of([name]) for name in ("An", "Bình"))
SCOPE = "b.r.n"

Place = tuple[bytes, str, str]
"""(identity, register, element)"""


@dataclass(frozen=True)
class Sealed:
    """One batch of one entry."""

    batch: Batch
    entry: EntryView


@dataclass
class Replica:
    """One node's registers of one key, and what it has merged."""

    unit: str
    seq: int = 0
    seen: Vector = field(default_factory=Vector)
    states: dict[bytes, RowState] = field(default_factory=dict)
    merged: MergedKey | None = None

    def is_ready(self, one: Sealed) -> bool:
        done, _ = self.seen.entries.get(one.batch.dot.stream, (0, b""))
        return one.batch.dot.seq == done + 1 and all(self.seen.covers(head) for head in one.batch.seen)

    def merge(self, one: Sealed) -> None:
        self.merged = merge_key(THING, SCOPE, "1", self.states, [one.entry], one.batch)
        self.seen = self.seen.updated([one.batch.dot])

    def seal(self, entry: EntryView) -> Sealed:
        self.seq += 1
        stream = StreamId(UnitPath(self.unit), Epoch("00"), Scope(SCOPE))
        dot = Head(stream, self.seq, f"{self.unit} {self.seq}".encode())
        one = Sealed(Batch(dot, self.seen, NAMES), entry)
        self.merge(one)
        return one

    def registers(self) -> dict[Place, set[tuple[str, int, Any]]]:
        found: dict[Place, set[tuple[str, int, Any]]] = {}
        for identity, state in self.states.items():
            every = {(ALIVE, ""): state.alive}
            for register in THING.registers:
                every |= {(register.name, element): held for element, held in state.register(register).items()}
            for (name, element), held in every.items():
                if held:
                    found[identity, name, element] = {(each.origin, each.time, each.value) for each in held}
        return found


@dataclass
class Oracle:
    """All writes ever made. An insert writes every element of a union: those it does not name, it writes away."""

    writes: list[tuple[Place, Write, Vector]] = field(default_factory=list)
    inserts: list[tuple[bytes, Vector]] = field(default_factory=list)
    born: dict[bytes, int] = field(default_factory=dict)

    def note(self, one: Sealed) -> None:
        entry, dot = one.entry, one.batch.dot

        def add(name: str, value: Any, element: str = "") -> None:
            write = Write(value, entry.time, dot.stream.origin, frozenset({dot}))
            self.writes.append(((entry.identity, name, element), write, one.batch.seen))

        add(ALIVE, entry.kind is SectionKind.ROWS)
        if entry.new:
            self.inserts.append((entry.identity, one.batch.seen))
            self.born[entry.identity] = min(entry.time, self.born.get(entry.identity, entry.time))
        for name in sorted(NAMES) if entry.new else entry.values:
            if name == "tongues":
                added, removed = entry.values.get(name, ((), ()))
                for element in (*added, *removed):
                    add(name, element in added, element)
            else:
                add(name, entry.values.get(name, (None, None) if name == "address" else None))

    def registers(self) -> dict[Place, set[tuple[str, int, Any]]]:
        found: dict[Place, set[tuple[str, int, Any]]] = {}
        for place, write, _ in self.writes:
            gone = any(place == other and seen.saw(write) for other, _, seen in self.writes)
            gone = gone or any(
                place[0] == identity and place[1] != ALIVE and seen.saw(write) for identity, seen in self.inserts
            )
            if not gone:
                found.setdefault(place, set()).add((write.origin, write.time, write.value))
        return found

    def front(self) -> bytes | None:
        """Of those alive, the one born first."""
        alive = {
            identity
            for (identity, name, _), held in self.registers().items()
            if name == ALIVE and any(value for _, _, value in held)
        }
        return min(alive, key=lambda identity: (self.born[identity], identity), default=None)


def anything(chance: Random, one: Replica, time: int) -> EntryView:
    """An edit, a delete or an insert, as a node in that state could seal it."""
    front = None if one.merged is None or one.merged.shown is None else one.merged.shown
    kind = chance.choice(["edit", "edit", "edit", "delete", "insert"])
    values: dict[str, Any] = {
        "note": chance.choice("xyz"),
        "status": chance.choice("pq"),
        "address": (chance.choice("lm"), chance.choice([None, "t"])),
        "tongues": ((chance.choice("abc"),), ()),
    }
    some = {name: values[name] for name in chance.sample(sorted(values), chance.randint(1, 3))}
    if front is None or kind == "insert":
        identity, name = chance.choice([(AN, "An"), (BINH, "Bình")])
        return EntryView(SectionKind.ROWS, identity, time, True, {**some, "name": name})
    if kind == "delete":
        return EntryView(SectionKind.DELETE, front.identity, time, False, {})
    if chance.random() < 0.3:
        some["tongues"] = ((), (chance.choice("abc"),))
    return EntryView(SectionKind.ROWS, front.identity, time, False, some)


def history(seed: int, nodes: int, steps: int) -> tuple[list[Sealed], Oracle, list[Replica]]:
    """Batches that some nodes with bad clocks sealed while hearing of each other now and then."""
    chance, oracle = Random(seed), Oracle()
    replicas = [Replica(unit) for unit in UNITS[:nodes]]
    log: list[Sealed] = []
    for number in range(steps):
        one = chance.choice(replicas)
        for each in chance.sample(log, len(log)) if chance.random() < 0.5 else ():
            if one.is_ready(each):
                one.merge(each)
        log.append(one.seal(anything(chance, one, chance.randint(1, 9) * 1000 + number)))
        oracle.note(log[-1])
    return log, oracle, replicas


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(3, 5), st.integers(2, 14))
def test_any_causal_interleaving_ends_in_the_registers_the_oracle_says(seed: int, nodes: int, steps: int) -> None:
    log, oracle, replicas = history(seed, nodes, steps)
    chance = Random(seed)
    ends = []
    for one in (*replicas, Replica("e.n"), Replica("f.n")):
        while ready := [each for each in log if one.is_ready(each)]:
            one.merge(chance.choice(ready))
        assert one.registers() == oracle.registers()
        assert one.merged is not None
        shown = None if one.merged.shown is None else one.merged.shown.identity
        assert shown == oracle.front()
        conflicts = {
            place: (each.number, each.is_open, each.winner.value) for place, each in one.merged.conflicts.items()
        }
        ends.append((one.merged.row, conflicts))
    assert all(each == ends[0] for each in ends)


def grow(*entries: tuple[str, EntryView], apart: bool = False, table: Table = THING) -> MergedKey:
    """Entries of several units merged at one node; ``apart``: after the first, none had seen another."""
    states: dict[bytes, RowState] = {}
    merged, seen, seqs = None, Vector(), dict.fromkeys(UNITS, 0)
    for number, (unit, entry) in enumerate(entries):
        seqs[unit] += 1
        dot = Head(StreamId(UnitPath(unit), Epoch("00"), Scope(SCOPE)), seqs[unit], b"%d" % number)
        merged = merge_key(table, SCOPE, "1", states, [entry], Batch(dot, seen, NAMES))
        if not apart or number == 0:
            seen = seen.updated([dot])
    assert merged is not None
    return merged


def born(time: int = 1, identity: bytes = AN, **values: Any) -> EntryView:
    name = "An" if identity == AN else "Bình"
    return EntryView(SectionKind.ROWS, identity, time, True, {"name": name, **values})


def edit(time: int, held: tuple[str, ...] = (), identity: bytes = AN, **values: Any) -> EntryView:
    return EntryView(SectionKind.ROWS, identity, time, False, values, dict.fromkeys(held, Hold.RIGHT))


def delete(time: int, identity: bytes = AN) -> EntryView:
    return EntryView(SectionKind.DELETE, identity, time, False, {})


def test_different_fields_edited_at_two_levels_both_survive() -> None:
    merged = grow((SCOPE, born()), (SCOPE, edit(2, note="x")), ("n", edit(2, status="p")), apart=True)
    assert merged.row == {"name": "An", "note": "x", "status": "p", "line": None, "town": None, "tongues": None}
    assert not merged.conflicts


def test_an_atomic_group_never_blends() -> None:
    one, other = edit(2, address=("l", None)), edit(3, address=(None, "t"))
    merged = grow((SCOPE, born(address=("a", "b"))), (SCOPE, one), ("n", other), apart=True)
    assert merged.row is not None
    assert (merged.row["line"], merged.row["town"]) == (None, "t")
    assert [each.field for each in merged.conflicts.values()] == ["address"]


def test_the_superior_decides_and_the_loser_is_in_the_conflict() -> None:
    merged = grow((SCOPE, born()), ("r.n", edit(9, status="p")), ("n", edit(2, status="q")), apart=True)
    (conflict,) = merged.conflicts.values()
    assert merged.row is not None
    assert (merged.row["status"], conflict.winner.value, conflict.is_open) == ("q", "q", False)
    assert {each.value for each in conflict.writes} == {"p", "q"}


def test_a_required_name_under_review_stays_open_until_someone_who_saw_both_writes() -> None:
    rivals = [(SCOPE, born()), (SCOPE, edit(2, name="Ân")), ("n", edit(3, name="Ẩn"))]
    merged = grow(*rivals, apart=True)
    (conflict,) = merged.conflicts.values()
    assert conflict.is_open
    assert merged.row is not None
    assert merged.row["name"] == "Ẩn"
    assert not grow(*rivals, ("r.n", edit(1, name="Ân"))).conflicts


DELETIONS: dict[Deletion, tuple[bool, bool]] = {"review": (True, True), "keep": (True, False), "delete": (False, False)}


@pytest.mark.parametrize(("delete_policy", "stays", "is_open"), [(key, *value) for key, value in DELETIONS.items()])
@pytest.mark.parametrize("edit_first", [False, True])
def test_a_delete_beside_an_edit(delete_policy: Deletion, stays: bool, is_open: bool, edit_first: bool) -> None:
    both = [(SCOPE, delete(9)), ("n", edit(2, note="x"))]
    merged = grow((SCOPE, born()), *(reversed(both) if edit_first else both), apart=True, table=table_of(delete_policy))
    assert (merged.row is not None) is stays
    (conflict,) = merged.conflicts.values()
    assert (conflict.field, conflict.is_open, conflict.winner.value) == (ALIVE, is_open, stays)


def test_deleted_stays_deleted_and_fields_stay_hidden_beneath() -> None:
    merged = grow((SCOPE, born(note="x")), ("n", delete(1)))
    assert merged.row is None
    assert not merged.is_plain
    assert merged.states[AN].base_values["note"] == "x"


def test_a_new_life_of_one_person_begins_with_what_it_says() -> None:
    merged = grow((SCOPE, born(note="x", tongues=(("a",), ()))), ("n", delete(2)), (SCOPE, born(3, status="p")))
    assert merged.row is not None
    assert (merged.row["note"], merged.row["status"], merged.row["tongues"]) == (None, "p", None)
    assert merged.is_plain


@pytest.mark.parametrize("swapped", [False, True])
def test_two_people_under_one_key_are_never_blended_and_the_older_is_shown(swapped: bool) -> None:
    both = [(SCOPE, born(5, note="x")), ("n", born(4, BINH, status="p"))]
    merged = grow(*(reversed(both) if swapped else both), apart=True)
    states = grow(*(reversed(both) if swapped else both)).states
    assert set(merged.states) == set(states) == {AN, BINH}
    assert merged.row is not None
    assert (merged.row["name"], merged.row["note"], merged.row["status"]) == ("Bình", None, "p")
    assert not merged.is_plain
    gone = grow(*both, (SCOPE, delete(9, BINH)))
    assert gone.row is not None
    assert (gone.row["name"], gone.row["note"]) == ("An", "x")


def test_one_person_inserted_at_two_levels_is_one_row() -> None:
    merged = grow((SCOPE, born(5, note="x", tongues=(("a",), ()))), ("n", born(4, note="x", tongues=(("b",), ()))))
    assert set(merged.states) == {AN}
    apart = [(SCOPE, delete(1, BINH)), (SCOPE, born(5, note="x")), ("n", born(4, note="y", tongues=(("b",), ())))]
    merged = grow(*apart, apart=True)
    assert [each.field for each in merged.conflicts.values()] == ["note"]
    assert merged.row is not None
    assert (merged.row["note"], merged.row["tongues"], merged.states[AN].born) == ("x", ["b"], 4)


def test_present_wins_element_by_element() -> None:
    start = (SCOPE, born(tongues=(("a", "b"), ())))
    removed = ("n", edit(9, tongues=((), ("a", "b"))))
    again = (SCOPE, edit(2, tongues=(("a", "c"), ())))
    merged = grow(start, removed, again, apart=True)
    assert merged.row is not None
    assert merged.row["tongues"] == ["a", "c"]
    assert [each.field for each in merged.conflicts.values()] == ["tongues:a"]


HELD = {
    "a field keeps what it shows": ("status", "x", {"status": "p"}),
    "a group keeps all its fields": ("address", ("x", "y"), {"line": "l", "town": "t"}),
    "an element added is not shown": ("tongues", (("x",), ()), {"tongues": ["a"]}),
    "an element removed is still shown": ("tongues", ((), ("a",)), {"tongues": ["a"]}),
}


@pytest.mark.parametrize(("name", "value", "shown"), HELD.values(), ids=HELD)
def test_a_write_without_the_right_stands_in_its_register_and_is_not_shown(
    name: str, value: Any, shown: dict[str, Any]
) -> None:
    start = born(tongues=(("a",), ()), status="p", address=("l", "t"))
    merged = grow((SCOPE, start), (SCOPE, edit(2, (name,), **{name: value})))
    assert merged.row is not None
    assert {each: merged.row[each] for each in shown} == shown
    held = [each for writes in merged.states[AN].writes.values() for each in writes if each.held]
    assert len(held) == 1


def test_an_entitled_write_beside_a_held_one_is_shown_and_the_conflict_says_so() -> None:
    merged = grow((SCOPE, born()), ("n", edit(2, status="p")), (SCOPE, edit(9, ("status",), status="x")), apart=True)
    assert merged.row is not None
    assert merged.row["status"] == "p"
    (conflict,) = merged.conflicts.values()
    assert conflict.winner.value == "p"


def test_an_edit_of_a_row_that_never_came_writes_nothing() -> None:
    merged = grow((SCOPE, edit(2, note="x")))
    assert (merged.states, merged.row) == ({}, None)


def test_registers_that_an_insert_may_not_write_keep_what_they_held() -> None:
    states: dict[bytes, RowState] = {}
    dots = [Head(StreamId(UnitPath(unit), Epoch("00"), Scope(SCOPE)), 1, b"1") for unit in (SCOPE, "n")]
    merge_key(THING, SCOPE, "1", states, [born(note="x")], Batch(dots[0], Vector(), NAMES))
    again = Batch(dots[1], Vector.of(dots[:1]), NAMES - {"note"})
    merged = merge_key(THING, SCOPE, "1", states, [born(2, status="p")], again)
    assert merged.row is not None
    assert (merged.row["note"], merged.row["status"]) == ("x", "p")


def test_a_batch_says_nothing_again_that_it_had_seen() -> None:
    """Two edits of one time, each of a field that is not for this level to read: here they look the same. The later one
    has seen the earlier, so that has gone, and not become the same."""
    node = Replica("b.r.n")
    node.seal(EntryView(SectionKind.ROWS, AN, 10, True, {"name": "An"}))
    earlier, later = (
        EntryView(SectionKind.ROWS, AN, 20, False, {}, unknown=frozenset({name})) for name in ("note", "status")
    )
    first = node.seal(earlier)
    dot = Head(first.batch.dot.stream, 3, b"later")
    merge_key(THING, SCOPE, "1", node.states, [later], Batch(dot, node.seen, NAMES), [Former(first.batch.dot, earlier)])
    assert [write.dots for write in node.states[AN].alive] == [frozenset({dot})]
