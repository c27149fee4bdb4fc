"""One column as a compressed chunk: what goes in comes out, and nothing else is taken or spends memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sync_engine import chunks
from sync_engine.errors import LimitExceeded, Malformed, RemoteFault
from sync_engine.limits import PLAIN_BYTES_MAX

SALT = bytes(range(16))
TEXTS = msgspec.msgpack.Decoder(tuple[bytes, list[str | None]])
MIB = 1024 * 1024


def frame(plain: bytes, **parameters: Any) -> bytes:
    return zstandard.ZstdCompressor(**parameters).compress(plain)


def plain_of(*values: Any, salt: bytes = SALT) -> bytes:
    return msgspec.msgpack.encode((salt, list(values)))


@given(st.lists(st.one_of(st.none(), st.text()), max_size=40))
def test_a_column_comes_back_as_it_was(values: list[str | None]) -> None:
    data, size = chunks.pack(values, SALT)
    assert chunks.unpack(data, size, len(values), TEXTS) == values


@pytest.mark.parametrize("count", [0, 15, 16, 5_000, 65_535])
def test_a_column_of_any_length(count: int) -> None:
    data, size = chunks.pack(["x"] * count, SALT)
    assert chunks.unpack(data, size, count, TEXTS) == ["x"] * count


def test_the_salt_hides_a_guessable_column() -> None:
    assert chunks.pack(["x"], SALT)[0] != chunks.pack(["x"], bytes(16))[0]


A = plain_of("a")
MALFORMED = {
    "no frame": (b"", 1),
    "not a frame": (b"something else entirely", 10),
    "a frame cut short": (frame(A)[:-1], len(A)),
    "a size that its header does not say": (frame(A), len(A) + 1),
    "a frame that does not say its size": (zstandard.ZstdCompressor(write_content_size=False).compress(A), len(A)),
    "a second frame behind": (frame(A) + frame(A), len(A)),
    "bytes behind": (frame(A) + b"\0", len(A)),
    "a skippable frame behind": (frame(A) + b"\x50\x2a\x4d\x18\x01\0\0\0x", len(A)),
    "a skippable frame instead": (b"\x50\x2a\x4d\x18\x01\0\0\0x", 0),
    "no salt": (frame(msgspec.msgpack.encode(["a"])), 3),
    "a salt too short": (frame(plain_of("a", salt=b"short")), len(plain_of("a", salt=b"short"))),
    "no list": (frame(msgspec.msgpack.encode((SALT, "a"))), len(msgspec.msgpack.encode((SALT, "a")))),
    "values of another type": (frame(plain_of(1)), len(plain_of(1))),
    "text that is not UTF-8": (frame(A[:-1] + b"\xff"), len(A)),
    "one value too many": (frame(plain_of("a", "b")), len(plain_of("a", "b"))),
    "no value": (frame(plain_of()), len(plain_of())),
    "a count that its values do not fill": (frame(A[:19] + b"\xdc\x00\x01"), 22),
    "bytes behind the values": (frame(A + b"\xc0"), len(A) + 1),
}


@pytest.mark.parametrize(("data", "size"), MALFORMED.values(), ids=MALFORMED)
def test_anything_else_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(Malformed):
        chunks.unpack(data, size, 1, TEXTS)


def peak_of(data: bytes, size: int, count: int = 1) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteFault):
            chunks.unpack(data, size, count, TEXTS)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def declaring(size: int, *, small_window: bool = False) -> bytes:
    """A frame of a few bytes that declares a content of ``size`` bytes: a run of one byte, repeated."""
    described = b"\x80\x38" if small_window else b"\xa0"  # a window of 128 KiB, or one segment
    head = b"\x28\xb5\x2f\xfd" + described + size.to_bytes(4, "little")
    blocks, left = [], size
    while left and len(blocks) < 9_000:
        run = min(left, 128 * 1024)
        left -= run
        blocks.append(((run << 3) | 0b010 | (not left)).to_bytes(3, "little") + b"\x90")
    return head + b"".join(blocks)


@pytest.mark.parametrize("small_window", [False, True])
def test_a_bomb_that_declares_a_gibibyte_is_refused_before_it_is_opened(small_window: bool) -> None:
    bomb = declaring(1 << 30, small_window=small_window)
    assert len(bomb) < 64 * 1024
    assert zstandard.get_frame_parameters(bomb).content_size == 1 << 30
    assert peak_of(bomb, 1 << 30) < MIB
    assert peak_of(bomb, 100) < MIB
    assert peak_of(bomb, PLAIN_BYTES_MAX) < MIB


def test_a_bomb_that_declares_little_and_holds_much_is_cut_off() -> None:
    bomb = declaring(1 << 30)
    liar = bomb[:5] + (1000).to_bytes(4, "little") + bomb[9:]
    assert peak_of(liar, 1000) < MIB


def test_a_window_larger_than_its_content_needs_is_refused() -> None:
    data = b"\x28\xb5\x2f\xfd" + b"\x80" + bytes([(27 - 10) << 3]) + len(A).to_bytes(4, "little")  # 128 MiB
    data += ((len(A) << 3) | 1).to_bytes(3, "little") + A
    assert zstandard.get_frame_parameters(data).window_size == 128 * MIB
    with pytest.raises(LimitExceeded):
        chunks.inflate(data, len(A))


def test_more_than_a_whole_batch_may_hold_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        chunks.inflate(b"", PLAIN_BYTES_MAX + 1)


@pytest.mark.parametrize("nested", [b"\x91", b"\xdd\x00\x01\x00\x00", b"\x81"], ids=["arrays", "long arrays", "maps"])
def test_nested_emptiness_is_refused_and_costs_nothing(nested: bytes) -> None:
    plain = A[:19] + b"\x91" + nested * (MIB // len(nested))
    assert peak_of(frame(plain), len(plain)) < 4 * MIB


def test_a_million_empty_arrays_in_one_place_are_refused() -> None:
    plain = A[:19] + b"\x91" + b"\xdd" + (1_000_000).to_bytes(4, "big") + b"\x90" * 1_000_000
    assert peak_of(frame(plain), len(plain)) < 4 * MIB
