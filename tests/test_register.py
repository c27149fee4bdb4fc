"""The multi-value register against a twin of a few lines: a write stands until a write that saw it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflict.register import add_write, admitted, rivals, same_edit
from conflict.values import Epoch, Head, Hold, Scope, StreamId, UnitPath, Write
from conflict.vector import Vector

UNITS = ("vn", "hue.vn", "phu-vang.hue.vn")


def stream(unit: str, epoch: str = "00") -> StreamId:
    return StreamId(UnitPath(unit), Epoch(epoch), Scope("phu-vang.hue.vn"))


def write(value: str, head: Head, time: int = 1) -> Write:
    return Write(value, time, head.stream.origin, frozenset({head}))


class Replica:
    """Knows what it merged; a write it makes has seen exactly that."""

    def __init__(self, unit: str) -> None:
        self.unit, self.seq = unit, 0
        self.seen, self.held = Vector(), frozenset[Write]()

    def merge(self, new: Write, seen: Vector) -> None:
        self.held = add_write(self.held, new, seen)
        self.seen = self.seen.updated(new.dots)

    def is_ready(self, new: Write, seen: Vector) -> bool:
        (dot,) = new.dots
        done, _ = self.seen.entries.get(dot.stream, (0, b""))
        return dot.seq == done + 1 and all(self.seen.covers(head) for head in seen)


Log = list[tuple[Write, Vector]]
"""Every write ever made, each with what its replica had merged."""


def history(chance: Random, steps: int, make: Callable[[Write], Write]) -> tuple[list[Replica], Log]:
    """Replicas that write and hear of each other, in whatever causal order."""
    replicas = [Replica(unit) for unit in UNITS]
    log: Log = []
    for number in range(steps):
        one = chance.choice(replicas)
        for each in chance.sample(log, len(log)) if chance.random() < 0.6 else ():
            if one.is_ready(*each):
                one.merge(*each)
        one.seq += 1
        new = write("v", Head(stream(one.unit), one.seq, b"%d" % number), number)
        log.append((make(new), one.seen))
        one.merge(*log[-1])
    return replicas, log


@given(st.integers(0, 2**32), st.integers(4, 16))
def test_any_causal_order_gives_the_same_register(seed: int, steps: int) -> None:
    chance = Random(seed)
    replicas, log = history(chance, steps, lambda new: replace(new, value=chance.choice("abc")))
    expected = {new for new, _ in log if not any(seen.saw(new) for _, seen in log)}
    for one in (*replicas, Replica("late.hue.vn")):
        while ready := [each for each in log if one.is_ready(*each)]:
            one.merge(*chance.choice(ready))
        assert one.held == expected


def kept_of(log: list[tuple[Write, Vector]]) -> set[Write]:
    """By definition: what may be shown and no shown write has seen, and what no write at all has seen."""
    found = set()
    for new, _ in log:
        by = [other for other, seen in log if seen.saw(new)]
        lost = any(not other.held for other in by)
        if not by or (not lost and new.held in (Hold.NONE, Hold.CODE)):
            found.add(replace(new, covered=bool(by)))
    return found


@given(st.integers(0, 2**32), st.integers(3, 14))
def test_what_is_kept_under_held_writes_depends_on_no_order_nor_on_when_a_code_becomes_known(
    seed: int, steps: int
) -> None:
    chance = Random(seed)
    replicas, log = history(chance, steps, lambda new: replace(new, held=chance.choice(list(Hold))))
    codes = {new.time for new, _ in log if new.held is Hold.CODE and chance.random() < 0.5}
    known = [(replace(new, held=Hold.NONE) if new.time in codes else new, seen) for new, seen in log]
    ends = []
    for one in (*replicas, Replica("late.hue.vn")):
        early = {time for time in codes if chance.random() < 0.5}
        pending = [known[at] if new.time in early else log[at] for at, (new, _) in enumerate(log)]
        one.held, one.seen = frozenset(), Vector()
        while ready := [each for each in pending if one.is_ready(*each)]:
            one.merge(*chance.choice(ready))
        assert one.held == kept_of(pending)
        for new, seen in log:
            late = next((each for each in one.held if each.time == new.time), None)
            if late is not None and new.time in codes - early:
                one.held = admitted(one.held, late, seen)
        ends.append(one.held)
    assert set(ends) == {frozenset(kept_of(known))}
    assert {replace(each, held=Hold.NONE) for each in rivals(ends[0])} == {
        replace(new, held=Hold.NONE) for new, _ in log if not any(seen.saw(new) for _, seen in log)
    }


@given(st.lists(st.tuples(st.sampled_from(UNITS), st.sampled_from("ab"), st.integers(1, 3)), max_size=8), st.randoms())
def test_writes_that_saw_nothing_of_each_other_are_a_set(made: list[tuple[str, str, int]], chance: Random) -> None:
    """Commutative, associative, idempotent: any order, and any of them again at once, come to the same."""
    log = [write(value, Head(stream(unit), at, b"%d" % at), time) for at, (unit, value, time) in enumerate(made, 1)]
    log = [Write(each.value, each.time * 100 + at, each.origin, each.dots) for at, each in enumerate(log)]
    shuffled = chance.sample(log, len(log)) + chance.choices(log, k=3) if log else []
    held = frozenset[Write]()
    for new in shuffled:
        held = add_write(held, new, Vector())
    assert held == frozenset(log)


@given(st.integers(0, 2**32))
def test_a_write_that_comes_again_at_once_changes_nothing(seed: int) -> None:
    chance, one = Random(seed), Replica("late.hue.vn")
    for number in range(6):
        new = write(chance.choice("ab"), Head(stream(chance.choice(UNITS)), number + 1, b"%d" % number), number)
        seen = Vector.of(dot for each in one.held for dot in each.dots if chance.random() < 0.5)
        one.held = add_write(one.held, new, seen)
        assert add_write(one.held, new, seen) == one.held


def test_taking_a_write_twice_changes_nothing() -> None:
    new = write("a", Head(stream("vn"), 1, b"1"))
    held = add_write(frozenset(), new, Vector())
    assert add_write(held, new, Vector()) == held


def test_a_write_that_saw_every_rival_becomes_the_value_whatever_its_clock_says() -> None:
    rivals = [write("a", Head(stream(unit), 1, b"1"), time=2**62) for unit in UNITS]
    held = frozenset(rivals)
    seen = Vector.of(dot for each in rivals for dot in each.dots)
    new = write("b", Head(stream("vn"), 2, b"2"), time=1)
    assert add_write(held, new, seen) == {new}


def test_a_write_of_a_branch_that_was_not_seen_stays() -> None:
    mine, theirs = Head(stream("hue.vn"), 3, b"mine"), Head(stream("hue.vn"), 3, b"theirs")
    held = frozenset({write("a", theirs)})
    new = write("b", Head(stream("vn"), 1, b"1"))
    assert add_write(held, new, Vector.of([mine])) == held | {new}


@pytest.mark.parametrize("which", [0, 1])
def test_one_edit_sealed_in_two_lives_is_one_write_and_goes_when_either_dot_is_seen(which: int) -> None:
    dots = [Head(stream("hue.vn", epoch), 1, b"1") for epoch in ("00", "01")]
    held = frozenset[Write]()
    for dot in dots:
        held = add_write(held, write("a", dot, time=7), Vector())
    assert held == {Write("a", 7, UnitPath("hue.vn"), frozenset(dots))}
    later = write("b", Head(stream("vn"), 1, b"1"))
    assert add_write(held, later, Vector.of([dots[which]])) == {later}


NOT_THE_SAME = {
    "another value": ("b", 7, "hue.vn"),
    "another time": ("a", 8, "hue.vn"),
    "another unit": ("a", 7, "vn"),
}


@pytest.mark.parametrize(("value", "time", "unit"), NOT_THE_SAME.values(), ids=NOT_THE_SAME)
def test_edits_that_differ_are_two_writes(value: str, time: int, unit: str) -> None:
    one, other = write("a", Head(stream("hue.vn"), 1, b"1"), 7), write(value, Head(stream(unit), 2, b"2"), time)
    assert not same_edit(one, other)
    assert len(add_write(frozenset({one}), other, Vector())) == 2
