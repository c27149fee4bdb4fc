"""Seeded defects of how nodes heal that were restored, copied or lost.

Role: as in defects.py, for the rules of docs/decisions/0025. The list with what each breaks is in mutants.py.
"""

from __future__ import annotations

from typing import Any

from conflict.vector import Vector
from node.storage import inbox, lives, seen
from node.storage.inbox import Applied, Outcome, Taken
from sync_engine import merge
from tests.simulation.defects import Places


def branches_are_left() -> Places:
    """Whoever stands on one branch of a stream takes no word of the other."""

    def take_branch(_connection: Any, _context: Any, row: Any, _batch: Any) -> Outcome:
        return Outcome(Taken.FROZEN, row.held, Applied())

    return [(inbox, "_take_branch", take_branch)]


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


def said_again_in_a_row() -> Places:
    """What a life says again has seen all that it said again before."""

    def updated(vector: Vector, heads: Any) -> Vector:
        return vector.updated(list(heads))

    return [(merge.Vector, "with_also", updated)]


def strays_are_thrown_away() -> Places:
    """Who holds the other branch keeps nothing of it for its origin."""
    return [(module, "keep_stray", lambda _connection, _row, _batch: None) for module in (inbox, lives)]


def a_repeat_stands_for_nothing() -> Places:
    """A batch that says another again is merged as if nobody had heard of it."""
    return [(inbox, "take_place", lambda *_args: False)]
