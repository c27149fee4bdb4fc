"""What a batch's writer had merged."""

from __future__ import annotations

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath, Write
from conflict.vector import Vector

A, B = (StreamId(UnitPath(unit), Epoch("00"), Scope("hue.vn")) for unit in ("hue.vn", "vn"))
SECOND_LIFE = StreamId(UnitPath("hue.vn"), Epoch("01"), Scope("hue.vn"))
SEEN = Vector.of([Head(A, 3, b"three")])

COVERED = {
    "the head itself": (Head(A, 3, b"three"), True),
    "another batch at the head's number": (Head(A, 3, b"other"), False),
    "an earlier number": (Head(A, 2, b"two"), True),
    "a later number": (Head(A, 4, b"four"), False),
    "a stream that was not seen": (Head(B, 1, b"one"), False),
    "another life of the same unit": (Head(SECOND_LIFE, 1, b"one"), False),
}


@pytest.mark.parametrize(("dot", "covered"), COVERED.values(), ids=COVERED)
def test_covers(dot: Head, covered: bool) -> None:
    assert SEEN.covers(dot) is covered


def test_an_edit_sealed_in_two_lives_is_seen_by_either_dot() -> None:
    both = frozenset({Head(SECOND_LIFE, 9, b"nine"), Head(A, 2, b"two")})
    assert SEEN.saw(Write("x", 1, UnitPath("hue.vn"), both))
    assert not SEEN.saw(Write("x", 1, UnitPath("hue.vn"), frozenset({Head(SECOND_LIFE, 9, b"nine")})))


def test_later_heads_take_the_place_of_earlier_ones() -> None:
    later = SEEN.updated([Head(A, 5, b"five"), Head(B, 1, b"one")])
    assert list(later) == [Head(A, 5, b"five"), Head(B, 1, b"one")]
    assert list(SEEN) == [Head(A, 3, b"three")]


def test_a_delta_names_what_changed_and_folding_it_gives_the_whole() -> None:
    later = SEEN.updated([Head(B, 2, b"two")])
    assert later.changed_since(SEEN) == [Head(B, 2, b"two")]
    assert later.changed_since(later) == []
    assert SEEN.updated(later.changed_since(SEEN)) == later


def test_the_same_number_with_another_hash_is_a_change() -> None:
    forked = Vector.of([Head(A, 3, b"other")])
    assert forked.changed_since(SEEN) == [Head(A, 3, b"other")]
