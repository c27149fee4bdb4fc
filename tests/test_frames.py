"""What two nodes say to each other: every frame comes back as it was, and nothing larger or other is taken."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from dataclasses import replace

import pytest
from dongbo.v1 import sync_pb2
from hypothesis import given
from hypothesis import strategies as st

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from sync_engine import limits
from sync_engine.errors import LimitExceeded, Malformed, RemoteFault
from sync_engine.frames import (
    Ack,
    BatchFrame,
    Certificates,
    Credit,
    Done,
    ForkProof,
    Frame,
    HeadsFrame,
    Hello,
    Receipt,
    Refusal,
    Statement,
    Statements,
    decode,
    encode,
)


def head(unit: str, scope: str, seq: int = 1, epoch: str = "00000000000000a1") -> Head:
    return Head(StreamId(UnitPath(unit), Epoch(epoch), Scope(scope)), seq, bytes([seq]) * 32)


HELLO = Hello(
    unit=UnitPath("hue.vn"),
    epoch=Epoch("ffffffffffffffff"),
    tree_id=b"t" * 32,
    certificate_sha256=b"c" * 32,
    registry_version=(3, b"r" * 32),
    time_ms=1_800_000_000_000,
    nonce=b"n" * 16,
    digest=b"d" * 32,
    software="dongbo 1",
)
HEADS = tuple(sorted([head("hue.vn", "hue.vn"), head("vn", "hue.vn", 2), head("vn", "vn/registry", 3)]))

FRAMES: dict[str, Frame] = {
    "hello": HELLO,
    "heads": HeadsFrame(HEADS),
    "no heads": HeadsFrame(()),
    "certificates": Certificates(((b"leaf", b"root"), (b"other",))),
    "batch": BatchFrame(b"opaque"),
    "ack": Ack(HEADS[:1]),
    "credit": Credit(2**40),
    "refusal": Refusal(HEADS[0], "breaks a rule"),
    "fork": ForkProof((b"a", b"b"), (b"c", b"d")),
    "heads with what is said and lacking": HeadsFrame(
        HEADS[:1], ((HEADS[0].stream.scope, b"digest"), (Scope("vn/catalog"), b"other")), frozenset({Scope("hue.vn")})
    ),
    "statements": Statements((Statement("heartbeat", b"body", b"signature"), Statement("of a later kind", b"", b""))),
    "a receipt": Receipt(b"body", b"signature"),
    "done": Done(),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_frame_comes_back_as_it_was(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


def test_a_frame_of_a_newer_minor_version_is_passed_over() -> None:
    assert decode(b"\x7a\x00") is None
    assert decode(b"") is None
    assert decode(encode(replace(HELLO, minor=9)) + b"\x7a\x00") == replace(HELLO, minor=9)


def wire(**kinds: object) -> bytes:
    return sync_pb2.Frame(**kinds).SerializeToString()  # type: ignore[arg-type]


SCOPED = sync_pb2.ScopeHeads(scope="hue.vn")
TWICE = sync_pb2.Heads.FromString(sync_pb2.Frame.FromString(encode(HeadsFrame(HEADS))).heads.SerializeToString())
TWICE.scopes.append(TWICE.scopes[0])

WRONG = {
    "two things at once": encode(Done()) + encode(Credit(1)),
    "one thing twice": encode(Credit(1)) + encode(Credit(2)),
    "cut short": encode(HELLO)[:-1],
    "a hello of no unit": wire(hello=sync_pb2.Hello(unit="HUE")),
    "a scope that is none": wire(heads=sync_pb2.Heads(scopes=[sync_pb2.ScopeHeads(scope="hue.vn/x", heads=[{}])])),  # type: ignore[list-item]
    "one stream twice": wire(heads=TWICE),
    "a refusal of nothing": wire(refusal=sync_pb2.Refusal(scope="hue.vn")),
    "a refusal in no scope": wire(refusal=sync_pb2.Refusal(reason="x")),
    "a kind of field that is not used": b"\x0b\x0c",
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_a_wrong_frame_is_refused(data: bytes) -> None:
    with pytest.raises((Malformed, LimitExceeded)):
        decode(data)


def nested(number: int, content: bytes) -> bytes:
    size, raw = len(content), b""
    while True:
        size, low = size >> 7, size & 0x7F
        raw += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([number << 3 | 2]) + raw + content


EMPTY = b"\x0a\x00"
BOMBS = {
    "larger than any frame": bytes(limits.FRAME_BYTES_MAX + 1),
    "empty scopes": nested(2, EMPTY * 2_000_000),
    "empty acknowledgements": nested(5, EMPTY * 2_000_000),
    "empty heads": nested(2, nested(1, b"\x12\x00" * 2_000_000)),
    "empty certificate paths": nested(3, EMPTY * 2_000_000),
    "a path of empty certificates": nested(3, nested(1, EMPTY * 2_000_000)),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_is_parsed(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteFault):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_what_a_peer_says_of_itself_is_cut_to_size() -> None:
    said = decode(encode(replace(HELLO, software="x" * 10_000, nonce=b"n" * 10_000)))
    assert isinstance(said, Hello)
    assert (len(said.software), len(said.nonce)) == (100, 64)
    refusal = decode(encode(Refusal(HEADS[0], "y" * 10_000)))
    assert isinstance(refusal, Refusal)
    assert len(refusal.reason) == 500


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_fault_of_the_peer(data: bytes) -> None:
    with suppress(RemoteFault):
        decode(data)
