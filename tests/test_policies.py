"""Which write of a register people see, policy by policy; every order of the writes gives the same answer."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflict.numbers import conflict_number
from conflict.policies import Policy, is_conflict, shown, value_key
from conflict.values import Epoch, Head, Scope, StreamId, UnitPath, Value, Write

ROOT, HUE, DA_NANG, VANG = "vn", "hue.vn", "da-nang.vn", "phu-vang.hue.vn"
LATEST, EARLIEST, SUPERIOR, LOCAL = Policy.LATEST, Policy.EARLIEST, Policy.SUPERIOR, Policy.LOCAL
MAX, MIN, UNION, REVIEW = Policy.MAX, Policy.MIN, Policy.UNION, Policy.REVIEW


def write(value: Value, time: int = 5, unit: str = VANG, epoch: str = "00") -> Write:
    stream = StreamId(UnitPath(unit), Epoch(epoch), Scope(VANG))
    return Write(value, time, UnitPath(unit), frozenset({Head(stream, time, b"")}))


CASES: dict[str, tuple[Policy, list[Write], Value]] = {
    "latest: the later of two unseen writes": (LATEST, [write("a", 1), write("b", 2)], "b"),
    "latest: whoever wrote it": (LATEST, [write("a", 1, ROOT), write("b", 2)], "b"),
    "latest: equal times, the level nearer the root": (LATEST, [write("b"), write("a", unit=HUE)], "a"),
    "latest: equal levels, the greater unit": (LATEST, [write("b", unit=DA_NANG), write("a", unit=HUE)], "a"),
    "latest: one unit, the greater value": (LATEST, [write("a"), write("b")], "b"),
    "latest: nothing may be the latest": (LATEST, [write("a", 1), write(None, 2)], None),
    "review shows what latest would": (REVIEW, [write("a", 1, ROOT), write("b", 2)], "b"),
    "earliest: the first": (EARLIEST, [write("a", 1), write("b", 2)], "a"),
    "earliest: equal times, the level nearer the root": (EARLIEST, [write("a"), write("b", unit=HUE)], "b"),
    "superior: a superior outweighs a later write": (SUPERIOR, [write("a", 1, HUE), write("b", 9)], "a"),
    "superior: the root outweighs all": (SUPERIOR, [write("a", 1, ROOT), write("b", 9, HUE), write("c", 10)], "a"),
    "superior: equal levels fall back to the later": (SUPERIOR, [write("a", 1), write("b", 2)], "b"),
    "local: the scope's own unit outweighs a later write": (LOCAL, [write("a", 1), write("b", 9, HUE)], "a"),
    "local: without it, the nearest": (LOCAL, [write("a", 9, ROOT), write("b", 1, HUE)], "b"),
    "max: the greatest": (MAX, [write(4, 1), write(1, 9)], 4),
    "max: nothing is below all": (MAX, [write(None, 9), write(-7, 1)], -7),
    "max: a group ranks field by field, with gaps": (MAX, [write(("a", None)), write(("a", "b"))], ("a", "b")),
    "max: equal values do not lose each other": (MAX, [write(4, 1), write(4, 2)], 4),
    "min: the least": (MIN, [write(4, 1), write(1, 9)], 1),
    "min: nothing is no minimum": (MIN, [write(None, 9), write(7, 1)], 7),
    "min: nothing where there is nothing else": (MIN, [write(None, 9), write(None, 1, HUE)], None),
    "union: present wins over a later removal": (UNION, [write(True, 1), write(False, 9, ROOT)], True),
    "union: removed when all say so": (UNION, [write(False, 1), write(False, 9)], False),
}


@pytest.mark.parametrize(("policy", "writes", "value"), CASES.values(), ids=CASES)
def test_shown(policy: Policy, writes: list[Write], value: Value) -> None:
    for order in permutations(writes):
        assert shown(policy, order).value == value


@pytest.mark.parametrize(("policy", "value"), [(MAX, "trung cấp"), (MIN, "sơ cấp")])
def test_an_enum_is_ranked_by_the_registry_and_not_by_the_alphabet(policy: Policy, value: str) -> None:
    order = ("sơ cấp", "trung cấp", "cao cấp")
    writes = [write("sơ cấp", 9), write("trung cấp", 1)]
    for arrangement in permutations(writes):
        assert shown(policy, arrangement, order=order).value == value


def test_a_value_that_the_order_does_not_know_ranks_below_all_that_it_does() -> None:
    assert shown(MAX, [write("new", 9), write("old", 1)], order=("old",)).value == "old"


def test_an_empty_register_has_nothing_to_show() -> None:
    with pytest.raises(ValueError, match="empty"):
        shown(LATEST, [])


VALUES = st.one_of(st.none(), st.integers(-3, 3))
WRITES = st.lists(st.builds(write, VALUES, st.integers(1, 3), st.sampled_from([ROOT, HUE, VANG])), min_size=1)


@given(st.sampled_from([LATEST, EARLIEST, SUPERIOR, LOCAL, MAX, MIN, REVIEW]), WRITES, st.randoms())
def test_every_policy_is_total_and_blind_to_order_and_to_dots(
    policy: Policy, writes: list[Write], chance: object
) -> None:
    winner = shown(policy, writes)
    lives = [write(each.value, each.time, each.origin, epoch="ff") for each in writes]
    chance.shuffle(lives)  # type: ignore[attr-defined]
    same = shown(policy, lives)
    assert (same.value, same.time, same.origin) == (winner.value, winner.time, winner.origin)


ALIKE = {
    "numbers": VALUES,
    "groups": st.tuples(VALUES, st.sampled_from([None, "a", "b"])),
    "elements": st.booleans(),
    "sets": st.sampled_from([None, ("a",), ("a", "b"), ("b",)]),
}


@pytest.mark.parametrize("values", ALIKE.values(), ids=ALIKE)
@given(data=st.data())
def test_every_policy_chooses_alike_however_writes_are_grouped_and_repeated(
    values: st.SearchStrategy[Value], data: st.DataObject
) -> None:
    """Commutative, associative and idempotent: the choice among choices is the choice among all."""
    units = st.sampled_from([ROOT, HUE, DA_NANG, VANG])
    some = st.lists(st.builds(write, values, st.integers(1, 3), units), min_size=1, max_size=4)
    one, other, third = (data.draw(some) for _ in range(3))
    order = data.draw(st.sampled_from([(), ("a", "b"), (-1, 3, 0)]))
    for policy in Policy:

        def choose(writes: list[Write], policy: Policy = policy) -> Write:
            return shown(policy, writes, order=order)

        winner = choose(one + other + third)
        assert choose([choose(one + other), choose(third)]) == winner
        assert choose([choose(one), choose(other + third)]) == winner
        assert choose(third + one + other + one) == winner


def test_a_conflict_is_different_values_and_not_several_writes() -> None:
    assert is_conflict([write("a"), write("b")])
    assert not is_conflict([write("a", 1), write("a", 2, HUE)])
    assert is_conflict([write(True), write(1)]), "true is not one"


def test_value_keys_tell_types_apart() -> None:
    values: list[Value] = [None, False, 0, 0.0, "", b"", (), "0", True, 1, 1.0]
    assert len({value_key(each) for each in values}) == len(values)


def test_a_conflicts_number_depends_on_what_all_nodes_hold_and_on_nothing_else() -> None:
    first, second = write("a", 1), write("b", 2, HUE)
    number = conflict_number(VANG, "member", "7", b"12345678", "note", [first, second])
    assert 0 < number < 2**48
    other_life = [write("b", 2, HUE, epoch="ff"), write("a", 1, epoch="ff")]
    assert conflict_number(VANG, "member", "7", b"12345678", "note", other_life) == number
    for changed in (("hue.vn", "member", "7", b"12345678", "note"), (VANG, "member", "7", b"12345678", "cell")):
        assert conflict_number(*changed, [first, second]) != number
    assert conflict_number(VANG, "member", "7", b"12345678", "note", [first, write("c", 2, HUE)]) != number
