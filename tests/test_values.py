"""Streams, heads and writes: what they are compared by."""

from __future__ import annotations

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath, Write, level_of


@pytest.mark.parametrize(
    ("unit", "level"), [("vn", 0), ("hue.vn", 1), ("phu-vang.hue.vn", 2), ("vinh-an.phu-vang.hue.vn", 3)]
)
def test_a_level_is_the_depth_of_the_path(unit: str, level: int) -> None:
    assert level_of(unit) == level
    assert Write("x", 1, UnitPath(unit), frozenset()).level == level


def test_two_lives_of_one_unit_are_two_streams() -> None:
    one, other = (StreamId(UnitPath("hue.vn"), Epoch(epoch), Scope("hue.vn")) for epoch in ("0a", "0b"))
    assert one != other
    assert str(one) == "hue.vn@0a hue.vn"


def test_a_place_in_a_stream_is_known_by_its_hash_too() -> None:
    stream = StreamId(UnitPath("hue.vn"), Epoch("0a"), Scope("hue.vn"))
    assert Head(stream, 1, b"a") != Head(stream, 1, b"b")
    assert len({Head(stream, 1, b"a"), Head(stream, 1, b"b"), Head(stream, 1, b"a")}) == 2
