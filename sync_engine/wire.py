"""Counts what a protobuf message holds before it is parsed.

Role: walk the top level of a serialized message and refuse it when a repeated field exceeds its limit. Without this,
4 MB of empty sub-messages become two million objects.
Reach: sync_engine.errors. Source: the protobuf encoding specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sync_engine.errors import LimitExceeded, Malformed

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a message is cut short")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, end) of each top-level field's content. Raises Malformed."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == BYTES:
            size, at = _varint(data, at)
            start, at = at, at + size
        elif kind == VARINT:
            start = at
            _, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            start, at = at, at + (8 if kind == FIXED64 else 4)
        else:
            raise Malformed("a message holds a field of a kind that is not used")
        if at > len(data):
            raise Malformed("a message is cut short")
        yield tag >> 3, start, at


def guard(data: bytes, limits: Mapping[int, int], *, others: int = 64) -> dict[int, list[tuple[int, int]]]:
    """Check a message's field counts and return where each field's contents lie.

    ``limits`` maps a field number to how often it may occur; unknown fields (of a newer minor version) may occur
    ``others`` times all told. Raises LimitExceeded or Malformed.
    """
    spans: dict[int, list[tuple[int, int]]] = {number: [] for number in limits}
    unknown = 0
    for number, start, end in fields(data):
        found = spans.get(number)
        if found is None:
            unknown += 1
            if unknown > others:
                raise LimitExceeded("a message holds too many unknown fields")
            continue
        found.append((start, end))
        if len(found) > limits[number]:
            raise LimitExceeded(f"a message repeats field {number} more than {limits[number]} times")
    return spans
