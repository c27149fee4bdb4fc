"""One column's values as a compressed chunk, and back.

Role: pack and unpack ``[salt, [values...]]``; bounded before anything is decompressed or decoded.
Reach: msgspec and zstandard. Source: protocol, "Batch"; the salt keeps a withheld chunk's hash from being guessed.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import zstandard

from sync_engine.errors import LimitExceeded, Malformed
from sync_engine.limits import PLAIN_BYTES_MAX, WINDOW_BYTES_MAX

SALT_BYTES = 16
LEVEL = 3
"""zstd's level: 9 saves a tenth of the bytes and costs five times the time (bench)."""

_ENCODE = msgspec.msgpack.Encoder().encode
_PREFIX = b"\x92\xc4\x10"  # array of 2, bin8 of 16: the salt


def pack(values: list[Any], salt: bytes) -> tuple[bytes, int]:
    """The compressed chunk and its plain size in bytes."""
    plain = _ENCODE((salt, values))
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=False).compress(plain), len(plain)


def _count_of(plain: bytes) -> int:
    """How many values the chunk says it holds, read from the array header alone."""
    at = len(_PREFIX) + SALT_BYTES
    if plain[: len(_PREFIX)] != _PREFIX or len(plain) <= at:
        raise Malformed("a chunk does not begin with its salt")
    head = plain[at]
    if 0x90 <= head <= 0x9F:
        return head & 0x0F
    if head == 0xDC and len(plain) >= at + 3:
        return int(struct.unpack_from(">H", plain, at + 1)[0])
    raise Malformed("a chunk holds no list of values")


def inflate(data: bytes, plain_size: int) -> bytes:
    """Decompress one chunk whose plain size its header announced. Raises Malformed or LimitExceeded.

    The frame must declare that very size (``max_output_size`` is ignored by the library for such frames, so the size is
    checked first) and be alone in its chunk.
    """
    if plain_size > PLAIN_BYTES_MAX:
        raise LimitExceeded("a chunk is larger than a whole batch may be")
    try:
        frame = zstandard.get_frame_parameters(data)
        if frame.content_size != plain_size:
            raise Malformed("a chunk's size is not what its header says")
        if frame.window_size > WINDOW_BYTES_MAX and frame.window_size > plain_size:
            raise LimitExceeded("a chunk asks for too large a window")
        plain = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed("a chunk does not decompress") from error
    if len(plain) != plain_size:
        raise Malformed("a chunk's size is not what its header says")
    return plain


def unpack(data: bytes, plain_size: int, count: int, decoder: msgspec.msgpack.Decoder[Any]) -> list[Any]:
    """The chunk's values: exactly ``count`` of the decoder's type. Raises Malformed or LimitExceeded."""
    plain = inflate(data, plain_size)
    if _count_of(plain) != count:
        raise Malformed("a chunk does not hold one value for each entry")
    try:
        _salt, values = decoder.decode(plain)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Malformed("a chunk's values are not of their column's type") from error
    result: list[Any] = values
    return result
