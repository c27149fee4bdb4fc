"""What must stand in a node's journal though no register tells of it any more.

Role: local edits that replaced what another unit's batch had brought a short while ago (``overwritten``); held values
that a later edit drove out.
Invariant: simulated runs last seconds, so whatever has come in one came a short while ago, unless a clock jumped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tests.simulation.checks import require
from tests.simulation.model import BY_NUMBER
from tests.simulation.process import Process
from tests.simulation.truth import ALIVE, FORGET, Place, Truth, Write, says_something, why_held

COLUMNS = "SELECT tbl, name, id, identity, field, writes FROM _conflict JOIN _scope ON _scope.no = scope"


def noted(node: Process, where: str, *values: Any) -> list[tuple[Place, list[Any]]]:
    """Entries of the journal: what they are about, and the writes that they tell of."""
    return [
        (
            (BY_NUMBER[tbl].name, scope.partition("/")[0], key, who, *field.lstrip("_").partition(":")[::2]),
            msgspec.msgpack.decode(writes),
        )
        for tbl, scope, key, who, field, writes in node.query(f"{COLUMNS} WHERE {where}", *values)
        if tbl in BY_NUMBER
    ]


def check_overwritten(node: Process, truth: Truth, digest: bytes) -> int:
    """A batch of local programs' edits has just been sealed: the journal has each value of another unit that it
    replaced, and nothing else as replaced by it. Returns how many."""
    if node.query("SELECT 1 FROM _meta WHERE key = 'codes_came' AND value <> ''"):
        return 0  # held values are still to be looked at again
    ((no,),) = node.query("SELECT no FROM _batch WHERE hash = ?", digest)
    mine = {write.place: write for write in truth.batches[digest]}
    found = {place for place, writes in noted(node, "state = 'overwritten'") if any(each[5] == no for each in writes)}
    for place in sorted(found, key=repr):
        require(
            place in mine and not mine[place].held,
            lambda p=place: f"I1: {node.unit} notes {p} as overwritten, and it is not",  # type: ignore[misc]
        )
    lacking = {place for place in _replaced(node, truth, mine) if place not in found}
    require(not lacking, lambda: f"I1: {node.unit} has overwritten {min(lacking, key=repr)} and says nothing")
    return len(found)


def _replaced(node: Process, truth: Truth, mine: dict[Place, Write]) -> list[Place]:
    """The places at which all that stood there was another unit's, and something else than what is written now."""
    applied = truth.nodes[node.name].applied
    known = truth.known_codes(applied)
    stood: dict[tuple[Any, ...], list[Write]] = {}
    for batch in applied:
        for write in truth.batches.get(batch, ()):
            if any((*write.place[:5], each) in mine for each in (write.place[5], FORGET)) or write.value is FORGET:
                stood.setdefault(write.place[:5], []).append(write)
    found = []
    for place, new in mine.items():
        if new.value is FORGET or why_held(new, known) or (new.value is True and (place[4] == ALIVE or place[5])):
            continue
        there = [each for each in stood.get(place[:5], ()) if each.place[5] in (place[5], FORGET)]
        old = [write for write, _, after in truth.sealings(there) if write.value is not FORGET and not after]
        if old and all(_counts(each, new, node.unit) and not why_held(each, known) for each in old):
            found.append(place)
    return found


def _counts(old: Write, new: Write, unit: str) -> bool:
    """Whoever fills in what a row was entered without replaces nothing, nor who deletes a row as it was entered."""
    left_out = old.enters and (old.place[4] == ALIVE or not says_something(old.value))
    return old.origin != unit and old.value != new.value and not left_out


def check_driven_out(
    node: Process, truth: Truth, kept: set[tuple[Place, bytes]], is_told: Callable[[Place], bool]
) -> None:
    """What is held and in no register any more stands in the journal. ``kept``: the writes that registers keep;
    ``is_told`` says whether the node knows what is written at a place."""
    applied = truth.nodes[node.name].applied
    known = truth.known_codes(applied)
    lost = [
        write
        for batch in applied
        for write in truth.batches.get(batch, ())
        if write.value is not FORGET
        and why_held(write, known)
        and (write.place, write.batch) not in kept
        and is_told(write.place)
    ]
    if not lost:
        return
    told = {
        (place, origin, tuple(value) if isinstance(value, list) else value)
        for place, writes in noted(node, "field <> '_twin'")
        for origin, _level, _time, value, *_ in writes
    }
    for write in lost:
        require(
            (write.place, write.origin, write.value) in told,
            lambda w=write: f"I1: {w.value!r} of {w.place}, held, was driven out at {node.unit} and is in no journal",  # type: ignore[misc]
        )
