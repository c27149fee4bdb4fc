"""Seeded defects of how nodes heal that were restored, copied or lost.

Role: as in defects.py, for the rules of docs/decisions/0025. The list with what each breaks is in mutants.py.
"""

from __future__ import annotations

from typing import Any

from conflict.vector import Vector
from node.storage import inbox, proving, seen
from node.storage.inbox import Applied, Outcome, Taken
from tests.simulation.defects import Places


def own_branches_are_dropped() -> Places:
    """What a node signed in a life that it does not remember gives way to what it remembers."""

    def take_own(_connection: Any, _context: Any, row: Any, _batch: Any) -> Outcome:
        return Outcome(Taken.KNOWN, row.held, Applied())

    return [(inbox, "_take_own_branch", take_own)]


def twins_are_two() -> Places:
    """An edit that was sealed in two lives is two edits."""
    return [(inbox, "former_entries", lambda *_args, **_more: {})]


def former_names_are_strangers() -> Places:
    """What was seen under a former name was not seen."""
    return [(seen, "translated", lambda _connection, heads: Vector.of(list(heads)))]


def a_repeat_stands_for_nothing() -> Places:
    """A batch that says another again is merged as if nobody had heard of it."""
    return [(inbox, "take_place", lambda *_args: False)]


def half_is_enough() -> Places:
    """An own batch is taken without a column, although a child may have it whole."""
    return [(proving, "may_come_whole", lambda *_args: False)]


def what_is_lost_is_not_said() -> Places:
    """A node takes back less of its own than others may read, and tells nobody that there is no more."""
    return [(inbox, "_say_what_is_lost", lambda *_args: None)]
