"""Batches as bytes: what a header says, what a batch may hold, and what stays when chunks are withheld."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from dongbo.v1 import batch_pb2
from hypothesis import given
from hypothesis import strategies as st

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from sync_engine import limits
from sync_engine.batch import (
    NO_PREV,
    BatchHeader,
    Column,
    SealedBatch,
    SectionHeader,
    SectionKind,
    encode_batch,
    encode_header,
    origin_of,
    parse_batch,
    parse_header,
    withhold,
)
from sync_engine.errors import LimitExceeded, Malformed

VANG = "phu-vang.hue.vn"
STREAM = StreamId(UnitPath(VANG), Epoch("00000000000000a1"), Scope(VANG))
COLUMNS = (Column("id", bytes(32), 3, 9), Column("note", b"\1" * 32, 4, 10))
SECTION = SectionHeader("member", SectionKind.ROWS, 2, COLUMNS)
HEADER = BatchHeader(b"t" * 32, STREAM, 1, NO_PREV, (), (1, b"r" * 32), False, (SECTION,))
CHUNKS = ({0: b"abc", 1: b"defg"},)
SEEN = Head(StreamId(UnitPath("vn"), Epoch("0" * 16), Scope(VANG)), 3, b"h" * 32)


def message(**changes: Any) -> batch_pb2.BatchHeader:
    made = batch_pb2.BatchHeader.FromString(encode_header(HEADER))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_a_header_comes_back_as_it_was() -> None:
    full = replace(HEADER, seq=7, prev=b"p" * 32, seen_delta=(SEEN,), again=True, sections=(SECTION,) * 3)
    assert parse_header(encode_header(full)) == full


def test_a_head_is_the_hash_of_the_header_bytes() -> None:
    batch = parse_batch(encode_batch(encode_header(HEADER), b"s", CHUNKS))
    assert batch.head == Head(STREAM, 1, sha256(batch.header_bytes).digest())
    assert origin_of(batch.data) == (VANG, STREAM.epoch)


def sections(count: int, columns: int = 1) -> tuple[SectionHeader, ...]:
    named = tuple(Column(f"c{number}", bytes(32), 1, 1) for number in range(columns))
    return (SectionHeader("t", SectionKind.ROWS, 1, named),) * count


def sized(packed: int, plain: int) -> tuple[SectionHeader, ...]:
    return (SectionHeader("t", SectionKind.ROWS, 1, (Column("a", bytes(32), packed, plain),)),)


TOO_MUCH = {
    "entries": replace(HEADER, sections=(replace(SECTION, rows=limits.ENTRIES_MAX + 1),)),
    "entries in two sections": replace(HEADER, sections=(replace(SECTION, rows=limits.ENTRIES_MAX), SECTION)),
    "no entries": replace(HEADER, sections=()),
    "an empty section": replace(HEADER, sections=(SECTION, replace(SECTION, rows=0))),
    "sections": replace(HEADER, sections=sections(limits.SECTIONS_MAX + 1)),
    "columns of one section": replace(HEADER, sections=sections(1, limits.COLUMNS_MAX + 1)),
    "columns in all": replace(HEADER, sections=sections(17, limits.COLUMNS_MAX)),
    "compressed bytes": replace(HEADER, sections=sized(limits.BATCH_BYTES_MAX + 1, 1)),
    "plain bytes": replace(HEADER, sections=sized(1, limits.PLAIN_BYTES_MAX + 1)),
    "streams seen": replace(HEADER, seen_delta=(SEEN,) * (limits.SEEN_MAX + 1)),
}


@pytest.mark.parametrize("header", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_header_over_a_limit_is_refused(header: BatchHeader) -> None:
    with pytest.raises(LimitExceeded):
        parse_header(encode_header(header))


WITHIN = {
    "entries": replace(HEADER, sections=(replace(SECTION, rows=limits.ENTRIES_MAX),)),
    "sections": replace(HEADER, sections=sections(limits.SECTIONS_MAX)),
    "columns of one section": replace(HEADER, sections=sections(1, limits.COLUMNS_MAX)),
    "bytes": replace(HEADER, sections=sized(limits.BATCH_BYTES_MAX, limits.PLAIN_BYTES_MAX)),
    "streams seen": replace(HEADER, seen_delta=(SEEN,) * limits.SEEN_MAX),
}


@pytest.mark.parametrize("header", WITHIN.values(), ids=WITHIN)
def test_a_header_at_a_limit_is_taken(header: BatchHeader) -> None:
    assert parse_header(encode_header(header)) == header


def test_a_header_longer_than_any_is_refused_unread() -> None:
    with pytest.raises(LimitExceeded):
        parse_header(bytes(limits.HEADER_BYTES_MAX + 1))


def spoil(change: Callable[[batch_pb2.BatchHeader], object]) -> bytes:
    made = message()
    change(made)
    return made.SerializeToString()


WRONG = {
    "another format": message(format=2).SerializeToString(),
    "no format": message(format=0).SerializeToString(),
    "an origin that is no unit": message(origin="Hue.vn").SerializeToString(),
    "an origin that is an enrolment": message(origin="enrol.hue.vn").SerializeToString(),
    "a scope that is none": message(scope="hue.vn/registry").SerializeToString(),
    "number 0": message(seq=0).SerializeToString(),
    "a number beyond all": message(seq=2**62).SerializeToString(),
    "a first batch with one before": message(prev=b"p" * 32).SerializeToString(),
    "a second batch with none before": message(seq=2).SerializeToString(),
    "a short hash of the one before": message(seq=2, prev=b"p").SerializeToString(),
    "a short tree": message(tree_id=b"t").SerializeToString(),
    "a section of no kind": spoil(lambda made: setattr(made.sections[0], "kind", 0)),
    "a section of a newer kind": spoil(lambda made: setattr(made.sections[0], "kind", 3)),
    "a column twice": spoil(lambda made: setattr(made.sections[0].columns[1], "name", "id")),
    "a head of no unit": spoil(lambda made: made.seen_delta.add(origin="?", seq=1, hash=bytes(32))),
    "a head without a number": spoil(lambda made: made.seen_delta.add(origin="vn", hash=bytes(32))),
    "a head without a hash": spoil(lambda made: made.seen_delta.add(origin="vn", seq=1)),
    "bytes that are no message": b"\x0a\xff",
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_a_wrong_header_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_header(data)


def test_a_field_said_twice_is_refused_because_readers_might_differ() -> None:
    with pytest.raises(LimitExceeded):
        parse_header(encode_header(HEADER) + b"\x30\x02")  # seq


NEWER = b"\xfa\x07\x05newer"  # field 127


def test_fields_of_a_newer_minor_version_are_kept_to_the_byte() -> None:
    header_bytes = encode_header(HEADER) + NEWER
    data = encode_batch(header_bytes, b"s", CHUNKS) + NEWER
    batch = parse_batch(data)
    assert (batch.header, batch.header_bytes, batch.data) == (HEADER, header_bytes, data)
    assert withhold(batch, lambda table, column: True) == data
    less = parse_batch(withhold(batch, lambda table, column: column != "note"))
    assert (less.header_bytes, less.signature, less.head) == (header_bytes, b"s", batch.head)


def sealed(chunks: tuple[dict[int, bytes], ...] = CHUNKS) -> SealedBatch:
    return parse_batch(encode_batch(encode_header(HEADER), b"signature", chunks))


def test_withholding_leaves_out_the_chunk_and_nothing_else() -> None:
    batch = sealed()
    less = parse_batch(withhold(batch, lambda table, column: (table, column) != ("member", "note")))
    assert less.chunks == ({0: b"abc"},)
    assert (less.header_bytes, less.signature, less.head) == (batch.header_bytes, b"signature", batch.head)
    assert parse_batch(withhold(less, lambda table, column: False)).chunks == ({},)


WRONG_BATCHES = {
    "a section that the header has not": (*CHUNKS, {}),
    "no section": (),
    "a chunk of a column that the header has not": ({0: b"abc", 2: b"x"},),
}


@pytest.mark.parametrize("chunks", WRONG_BATCHES.values(), ids=WRONG_BATCHES)
def test_chunks_that_the_header_does_not_name_are_refused(chunks: tuple[dict[int, bytes], ...]) -> None:
    with pytest.raises(Malformed):
        sealed(chunks)


def test_a_chunk_twice_is_refused() -> None:
    wire = batch_pb2.Batch.FromString(sealed().data)
    wire.sections[0].chunks.add(column=0, data=b"xyz")
    with pytest.raises(Malformed):
        parse_batch(wire.SerializeToString())


BOMBS = {
    "empty sections": batch_pb2.Batch(header=encode_header(HEADER)).SerializeToString() + b"\x1a\x00" * 2_000_000,
    "empty chunks": b"\x1a" + b"\x80\x89\x7a" + b"\x0a\x00" * 1_000_000,
    "empty columns": b"\x0a" + b"\xc4\x84\x3d" + b"\x5a\xc0\x84\x3d" + b"\x22\x00" * 500_000,
    "larger than any frame": bytes(limits.FRAME_BYTES_MAX + 1),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_is_parsed(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((LimitExceeded, Malformed)):
            parse_batch(data)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_batch_or_a_fault_of_the_peer(data: bytes) -> None:
    with pytest.raises((LimitExceeded, Malformed)):
        parse_batch(data)
