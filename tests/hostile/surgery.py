"""Protobuf messages taken apart and put together again, also in ways that no library would.

Role: a message as a list of raw fields; where in a batch or a frame messages lie; spoiled encodings of one field.
Reach: the standard library only, so that it shares no code with what it attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}

Shape: TypeAlias = "Mapping[int, Shape]"
"""The fields of a message that are messages themselves."""

_SCOPES: Shape = {1: {2: {}}}
HEADER: Shape = {8: {}, 9: {}, 11: {4: {}}}
BATCH: Shape = {1: HEADER, 3: {1: {}}}
FRAME: Shape = {1: {8: {}}, 2: _SCOPES, 3: {1: {}}, 4: BATCH, 5: _SCOPES, 6: {}, 7: {2: {}}, 8: {}, 10: {}}


@dataclass(frozen=True)
class Raw:
    """One field as it stands in a message: a varint's value is a number, any other's its bytes."""

    number: int
    kind: int
    value: int | bytes


def varint(value: int, *, longer: int = 0) -> bytes:
    """A number; ``longer`` adds that many bytes that mean nothing."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        if not value and not longer:
            return bytes(out) + bytes([low])
        out.append(low | 0x80)
        if not value:
            return bytes(out) + b"\x80" * (longer - 1) + b"\0"


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def parse(data: bytes) -> list[Raw]:
    """The fields of a message that is known to be sound."""
    fields, at = [], 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _read_varint(data, at)
            fields.append(Raw(number, kind, value))
            continue
        size = SIZES.get(kind)
        if size is None:
            size, at = _read_varint(data, at)
        fields.append(Raw(number, kind, data[at : at + size]))
        at += size
    return fields


def emit(field: Raw) -> bytes:
    tag = varint(field.number << 3 | field.kind)
    if isinstance(field.value, int):
        return tag + varint(field.value)
    return tag + (varint(len(field.value)) if field.kind == BYTES else b"") + field.value


def join(fields: list[Raw]) -> bytes:
    return b"".join(map(emit, fields))


def within(data: bytes, shape: Shape, rng: Random, change: Callable[[bytes, Random], bytes]) -> bytes:
    """The message with one message in it, chosen at any depth, changed; lengths around it are mended."""
    fields = parse(data)
    inner = [at for at, field in enumerate(fields) if field.number in shape and isinstance(field.value, bytes)]
    if not inner or rng.random() < 0.3:
        return change(data, rng)
    at = rng.choice(inner)
    field = fields[at]
    assert isinstance(field.value, bytes)
    fields[at] = Raw(field.number, BYTES, within(field.value, shape[field.number], rng, change))
    return join(fields)


# --- one message spoiled ---------------------------------------------------------------------------------------------


def _chosen(data: bytes, rng: Random) -> tuple[list[Raw], int]:
    fields = parse(data) or [Raw(1, VARINT, 1)]
    return fields, rng.randrange(len(fields))


def _with_bytes(data: bytes, rng: Random, spoil: Callable[[Raw], bytes]) -> bytes:
    fields, at = _chosen(data, rng)
    return join(fields[:at]) + spoil(fields[at]) + join(fields[at + 1 :])


def drop(data: bytes, rng: Random) -> bytes:
    fields, at = _chosen(data, rng)
    return join(fields[:at] + fields[at + 1 :])


def double(data: bytes, rng: Random) -> bytes:
    fields, at = _chosen(data, rng)
    return join(fields + [fields[at]] * rng.choice([1, 1, 2, 40]))


def shuffle(data: bytes, rng: Random) -> bytes:
    fields = parse(data)
    rng.shuffle(fields)
    return join(fields)


def other_kind(data: bytes, rng: Random) -> bytes:
    """The same content under a wire type that its field has not; 3, 4, 6 and 7 are groups and nothing."""
    return _with_bytes(data, rng, lambda field: varint(field.number << 3 | rng.randrange(8)) + emit(field)[1:])


def other_number(data: bytes, rng: Random) -> bytes:
    fields, at = _chosen(data, rng)
    number = rng.choice([rng.randrange(16), rng.randrange(1, 1 << 29), 1, 2, 3])
    fields[at] = Raw(number, fields[at].kind, fields[at].value)
    return join(fields)


def unknown(data: bytes, rng: Random) -> bytes:
    extra = [Raw(rng.randrange(16, 1 << 20), BYTES, rng.randbytes(rng.randrange(9)))] * rng.choice([1, 1, 3, 64, 70])
    return join(parse(data)) + join(extra)


def longer_varint(data: bytes, rng: Random) -> bytes:
    """Numbers and lengths in more bytes than they need."""

    def spoil(field: Raw) -> bytes:
        more = rng.choice([1, 2, 5, 9, 12])
        tag = varint(field.number << 3 | field.kind, longer=rng.choice([0, more]))
        if isinstance(field.value, int):
            return tag + varint(field.value, longer=more)
        return tag + (varint(len(field.value), longer=more) if field.kind == BYTES else b"") + field.value

    return _with_bytes(data, rng, spoil)


def huge_length(data: bytes, rng: Random) -> bytes:
    size = rng.choice([2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1, 2**70])

    def spoil(field: Raw) -> bytes:
        return varint(field.number << 3 | BYTES) + varint(size) + (field.value if field.kind == BYTES else b"")  # type: ignore[operator]

    return _with_bytes(data, rng, spoil)


EXTREMES = (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def other_value(data: bytes, rng: Random) -> bytes:
    """A field's content replaced by an extreme or by noise of its kind."""
    fields, at = _chosen(data, rng)
    field = fields[at]
    if isinstance(field.value, int):
        value: int | bytes = rng.choice(EXTREMES)
    elif field.kind == BYTES:
        value = rng.choice([b"", b"\0", b"\xff", rng.randbytes(len(field.value)), field.value[:-1], field.value * 2])
    else:
        value = rng.choice([bytes(len(field.value)), b"\xff" * len(field.value), rng.randbytes(len(field.value))])
    fields[at] = Raw(field.number, field.kind, value)
    return join(fields)


def emptiness(data: bytes, rng: Random) -> bytes:
    """Very many empty fields of one number."""
    return data + (varint(rng.randrange(1, 12) << 3 | BYTES) + b"\0") * rng.choice([3, 100, 5_000, 60_000])


SPOILERS: Mapping[str, Callable[[bytes, Random], bytes]] = {
    "field left out": drop,
    "field doubled": double,
    "fields in another order": shuffle,
    "wrong wire type": other_kind,
    "wrong field number": other_number,
    "unknown fields": unknown,
    "longer varint": longer_varint,
    "huge length": huge_length,
    "other value": other_value,
    "empty sub-messages": emptiness,
}
