"""Counting what a message holds before it is parsed."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_engine.errors import LimitExceeded, Malformed, RemoteFault
from sync_engine.wire import fields, guard

EMPTY = b"\x0a\x00"  # field 1, no bytes


def test_fields_are_named_with_the_place_of_their_content() -> None:
    data = b"\x0a\x02hi" + b"\x10\x96\x01" + b"\x19" + bytes(8) + b"\x25" + bytes(4)
    assert list(fields(data)) == [(1, 2, 4), (2, 5, 7), (3, 8, 16), (4, 17, 21)]


BROKEN = {
    "a tag cut short": b"\x80",
    "a number cut short": b"\x08\x80",
    "a number of more than 64 bits": b"\x08" + b"\xff" * 10 + b"\x01",
    "bytes cut short": b"\x0a\x05hi",
    "a length beyond all": b"\x0a" + b"\xff" * 9 + b"\x01",
    "eight bytes cut short": b"\x09\0",
    "four bytes cut short": b"\x0d\0",
    "a group, which nobody uses": b"\x0b\x0c",
    "a kind that there is not": b"\x0f",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_messages_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        guard(data, {1: 1})


def test_a_field_may_occur_as_often_as_its_limit_says() -> None:
    assert guard(EMPTY * 3, {1: 3}) == {1: [(2, 2), (4, 4), (6, 6)]}
    with pytest.raises(LimitExceeded):
        guard(EMPTY * 4, {1: 3})


def test_fields_of_a_newer_version_are_let_through_and_not_without_end() -> None:
    newer = b"\x7a\x00"
    assert guard(newer * 64 + EMPTY, {1: 1})[1]
    with pytest.raises(LimitExceeded):
        guard(newer * 65, {1: 1})


def test_four_megabytes_of_empty_messages_are_refused_at_once() -> None:
    data = EMPTY * 2_000_000
    tracemalloc.start()
    with pytest.raises(LimitExceeded):
        guard(data, {1: 64})
    assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    tracemalloc.stop()


@given(st.binary(max_size=200))
def test_any_bytes_give_fields_or_a_fault_of_the_peer(data: bytes) -> None:
    try:
        for _number, start, end in fields(data):
            assert 0 <= start <= end <= len(data)
    except RemoteFault:
        pass
