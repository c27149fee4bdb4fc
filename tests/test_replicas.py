"""Any interleaving ends equal: three to five replicas write, seal and hear of each other in whatever order.

What they hold, show and number as conflicts in the end does not depend on the order in which batches came.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conflict import register
from sync_engine import merge
from sync_engine.registry import Deletion
from tests.replicas import UNITS, Replica, Sealed, registry_of

EXAMPLES = int(os.environ.get("EXAMPLES", "150"))
"""EXAMPLES=5000 for a long look."""

KEYS = ("1", "2")
QUICK = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Step = tuple[int, str, int]
"""(which replica, what it does, chance)"""

WRITES = ("insert", "edit", "edit", "edit", "edit", "delete")
STEPS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([*WRITES, "seal", "hear", "hear some"]), st.integers(0, 999)),
    max_size=40,
)
DELETIONS: tuple[Deletion, ...] = ("review", "keep", "delete")


@dataclass
class History:
    """Replicas and every batch they ever sealed."""

    count: int
    delete: Deletion = "review"
    log: list[Sealed] = field(default_factory=list)
    time: int = 1_000

    def __post_init__(self) -> None:
        registry = registry_of(self.delete)
        self.registry = registry
        self.replicas = [Replica(unit, registry, skew) for unit, skew in zip(UNITS, (0, 5, -400, 300, 0), strict=True)]
        self.replicas = self.replicas[: self.count]

    def note(self, sealed: Sealed | None) -> None:
        self.log += [] if sealed is None else [sealed]

    def do(self, step: Step) -> None:
        who, what, number = step
        one, chance = self.replicas[who % self.count], Random(number)
        self.time += 1 + number % 50
        if what == "seal":
            self.note(one.seal())
        elif what.startswith("hear"):
            self.hear(one, chance, 1.0 if what == "hear" else 0.5)
        else:
            self.note(one.write(chance.choice(KEYS), what, chance, self.time))

    def hear(self, one: Replica, chance: Random, part: float) -> None:
        """In any causal order, with repeats: what is known already is passed over, as by its hash."""
        while ready := [each for each in self.log if one.is_ready(each) and chance.random() < part]:
            self.note(one.seal())
            each = chance.choice(ready)
            if one.is_ready(each):
                one.merge(each)

    def end(self, chance: Random) -> list[Replica]:
        """All hear of all; and two that only listened, at the top and at the bottom."""
        for one in self.replicas:
            self.note(one.seal())
        late = [Replica(unit, self.registry) for unit in (UNITS[0], UNITS[-1])]
        for one in (*self.replicas, *late):
            self.hear(one, chance, 1.0)
            assert one.seen.entries.keys() == {each.head.stream for each in self.log}
        return [*self.replicas, *late]


def assert_equal(ends: list[Replica]) -> None:
    for one in ends:
        for other in ends:
            assert one.registers(other.level) == other.registers(one.level)
            level = min(one.level, other.level)
            assert one.shows(level) == other.shows(level)


@QUICK
@given(st.integers(3, 5), STEPS, st.sampled_from(DELETIONS), st.integers(0, 999))
def test_any_interleaving_ends_equal(count: int, steps: list[Step], delete: Deletion, order: int) -> None:
    history = History(count, delete)
    for step in steps:
        history.do(step)
    assert_equal(history.end(Random(order)))


# --- our own faults, one at a time ----------------------------------------------------------------------------------


def last_to_come(_held: Any, new: Any, _seen: Any) -> Any:
    return frozenset({new})


def nothing_is_driven_out(held: Any, new: Any, _seen: Any) -> Any:
    return held | {new}


def insert_over_all(table: Any, _state: Any, entry: Any, batch: Any, seen: Any) -> Any:
    return real_merge_insert(table, None, entry, batch, seen)


def in_any_order(one: Replica, sealed: Sealed) -> bool:
    done, _ = one.seen.entries.get(sealed.head.stream, (0, b""))
    return bool(sealed.head.seq == done + 1)


def first_met(policy: Any, writes: Any, *, order: Any = ()) -> Any:
    return next(iter(sorted(writes, key=lambda write: id(write))))


real_merge_insert = merge._merge_insert
FAULTS: dict[str, tuple[Any, str, Any]] = {
    "the last to come wins": (merge, "add_write", last_to_come),
    "nothing is driven out": (register, "add_write", nothing_is_driven_out),
    "an insert forgets what stood there": (merge, "_merge_insert", insert_over_all),
    "a batch is merged before what it had seen": (Replica, "is_ready", in_any_order),
    "the first met is shown": (merge, "shown", first_met),
    "a set is a list": (merge, "_frozen", lambda value: value),
}


@pytest.mark.parametrize(("where", "name", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_ours_is_seen(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Any) -> None:
    monkeypatch.setattr(where, name, fault)
    for seed in range(60):
        chance, history = Random(seed), History(4)
        try:
            for _ in range(40):
                what = chance.choice([*WRITES, "seal", "hear", "hear some"])
                history.do((chance.randrange(4), what, chance.randrange(1_000)))
            assert_equal(history.end(chance))
        except (AssertionError, KeyError, TypeError):
            return
    pytest.fail("nothing was seen")
