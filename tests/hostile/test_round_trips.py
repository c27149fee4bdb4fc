"""Whatever can be said comes back as it was said: frames, headers and batches of any content the format allows."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from hypothesis import example, given, settings
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
    parse_batch,
    parse_header,
    withhold,
)
from sync_engine.frames import (
    TIME_MS_MAX,
    Ack,
    BatchFrame,
    Certificates,
    Credit,
    Done,
    ForkProof,
    Frame,
    HeadsFrame,
    Hello,
    Refusal,
    decode,
    encode,
)
from sync_engine.names import DEPTH_MAX, RESERVED_LABELS

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True).filter(
    lambda label: label not in RESERVED_LABELS
)
UNITS = st.lists(LABELS, min_size=1, max_size=DEPTH_MAX).map(".".join).map(UnitPath)
EPOCHS = st.integers(0, 2**64 - 1).map(lambda number: Epoch(f"{number:016x}"))
CATALOGUES, REGISTRIES = UNITS.map(lambda unit: f"{unit}/catalog"), LABELS.map(lambda root: f"{root}/registry")
SCOPES = st.one_of(UNITS, CATALOGUES, REGISTRIES).map(Scope)
HASHES = st.binary(min_size=32, max_size=32)
SEQS = st.integers(1, 2**62 - 1)
STREAMS = st.builds(StreamId, UNITS, EPOCHS, SCOPES)
HEADS = st.builds(Head, STREAMS, SEQS, HASHES)
SOME_HEADS = st.lists(HEADS, max_size=6, unique_by=lambda head: head.stream).map(lambda heads: tuple(sorted(heads)))
COUNTS = st.integers(0, 2**32 - 1)
BYTES = st.binary(max_size=70)
HELLOS = st.builds(
    Hello,
    unit=UNITS,
    epoch=EPOCHS,
    tree_id=BYTES,
    certificate_sha256=BYTES,
    registry_version=st.tuples(st.integers(0, 2**64 - 1), BYTES),
    time_ms=st.integers(0, TIME_MS_MAX),
    nonce=st.binary(max_size=64),
    digest=BYTES,
    software=st.text(max_size=100),
    major=COUNTS,
    minor=COUNTS,
)
PAIRS = st.tuples(BYTES, BYTES)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    HELLOS,
    st.builds(HeadsFrame, SOME_HEADS),
    st.builds(Certificates, st.lists(st.lists(BYTES, max_size=9).map(tuple), max_size=5).map(tuple)),
    st.builds(BatchFrame, BYTES),
    st.builds(Ack, SOME_HEADS),
    st.builds(Credit, st.integers(0, 2**64 - 1)),
    st.builds(Refusal, HEADS, st.text(max_size=500)),
    st.builds(ForkProof, PAIRS, PAIRS),
    st.just(Done()),
)


def _heads(*streams: tuple[str, str]) -> tuple[Head, ...]:
    return tuple(Head(StreamId(UnitPath(unit), Epoch("0" * 16), Scope(scope)), 1, bytes(32)) for unit, scope in streams)


@settings(deadline=None)
@given(FRAMES)
@example(HeadsFrame(_heads(("a", "a"), ("a", "a/registry"), ("b", "a"))))
@example(Ack(_heads(("a", "a"), ("a", "a/registry"), ("b", "a"))))
def test_any_frame_comes_back_as_it_was(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


COLUMNS = st.lists(
    st.builds(Column, st.text(max_size=12), BYTES, st.integers(0, 9_999), st.integers(0, 99_999)),
    max_size=6,
    unique_by=lambda column: column.name,
).map(tuple)
SECTIONS = st.lists(
    st.builds(SectionHeader, st.text(max_size=12), st.sampled_from(SectionKind), st.integers(1, 900), COLUMNS),
    min_size=1,
    max_size=5,
).map(tuple)


@st.composite
def headers(draw: st.DrawFn) -> BatchHeader:
    stream, seq = draw(STREAMS), draw(st.one_of(st.just(1), SEQS))
    prev = NO_PREV if seq == 1 else draw(HASHES.filter(lambda digest: digest != NO_PREV))
    seen = tuple(replace(head, stream=replace(head.stream, scope=stream.scope)) for head in draw(SOME_HEADS))
    version = draw(st.tuples(st.integers(0, 2**62 - 1), BYTES))
    return BatchHeader(draw(HASHES), stream, seq, prev, seen, version, draw(st.booleans()), draw(SECTIONS))


@settings(deadline=None, max_examples=50)
@given(headers())
def test_any_header_comes_back_as_it_was(header: BatchHeader) -> None:
    data = encode_header(header)
    assert len(data) < limits.HEADER_BYTES_MAX
    assert parse_header(data) == header


@settings(deadline=None, max_examples=50)
@given(headers(), BYTES, st.data())
def test_any_batch_comes_back_as_it_was_and_so_do_its_parts(
    header: BatchHeader, signature: bytes, data: st.DataObject
) -> None:
    chunks = tuple({at: data.draw(BYTES) for at in range(len(each.columns))} for each in header.sections)
    header_bytes = encode_header(header)
    wire = encode_batch(header_bytes, signature, chunks)
    batch = parse_batch(wire)
    assert batch == SealedBatch(wire, header_bytes, signature, header, chunks)
    assert batch.head == Head(header.stream, header.seq, sha256(header_bytes).digest())
    assert withhold(batch, lambda table, column: True) is wire

    kept = data.draw(st.sets(st.sampled_from([c.name for s in header.sections for c in s.columns] or [""])))
    less = parse_batch(withhold(batch, lambda table, column: column in kept))
    assert (less.header_bytes, less.signature, less.head) == (header_bytes, signature, batch.head)
    for section, whole, described in zip(less.chunks, chunks, header.sections, strict=True):
        assert section == {at: whole[at] for at, column in enumerate(described.columns) if column.name in kept}
