"""Mutants of batches and frames whose signatures nobody made anew: bytes that a bad line or a bad relay delivers.

Role: take real bytes, change them. None of these may ever be applied.
Reach: corpus, surgery; zstandard and msgspec for bombs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

import msgspec
import zstandard

from tests.hostile import surgery
from tests.hostile.corpus import ABOVE, ROOT, Corpus
from tests.hostile.surgery import BYTES, Raw, join, parse


@dataclass(frozen=True)
class Mutant:
    """``way`` says how it is shown to the node of ``receiver``: as a batch, a forged batch, a frame, or a talk of
    several frames."""

    kind: str
    way: str
    receiver: str
    data: bytes
    talk: tuple[bytes, ...] = ()


Maker = Callable[[Corpus, Random], Mutant]
Change = Callable[[bytes, Random], bytes]

# --- bytes -----------------------------------------------------------------------------------------------------------


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _cut_front(data: bytes, rng: Random) -> bytes:
    return data[rng.randrange(1, len(data)) :]


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _noise(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at + rng.randrange(9) :]


def _repeat(data: bytes, rng: Random) -> bytes:
    a = rng.randrange(len(data))
    b = rng.randrange(a, len(data)) + 1
    return data[:b] + data[a:b] * rng.choice([1, 1, 3]) + data[b:]


def _twice(data: bytes, _rng: Random) -> bytes:
    return data + data


def _leave_out(data: bytes, rng: Random) -> bytes:
    a = rng.randrange(len(data))
    return data[:a] + data[a + rng.randrange(1, 40) :]


def _swap(data: bytes, rng: Random) -> bytes:
    a, b, c = sorted(rng.randrange(len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


ON_BYTES: Mapping[str, Change] = {
    "cut short": _cut,
    "front cut off": _cut_front,
    "bits flipped": _flip,
    "noise": _noise,
    "bytes repeated": _repeat,
    "all twice": _twice,
    "bytes left out": _leave_out,
    "bytes swapped": _swap,
}


def _spoiled(name: str, change: Change, shape: surgery.Shape, data: bytes, rng: Random) -> bytes:
    return surgery.within(data, shape, rng, change) if name in surgery.SPOILERS else change(data, rng)


CHANGES: Mapping[str, Change] = {**ON_BYTES, **surgery.SPOILERS}


def _batch_bytes(corpus: Corpus, rng: Random) -> tuple[str, bytes]:
    receiver = rng.choice([ABOVE, ABOVE, ROOT])
    batch = rng.choice(corpus.fresh[receiver] * 3 + corpus.stored[receiver])
    return receiver, batch.data


def of_batch(name: str, change: Change, corpus: Corpus, rng: Random) -> Mutant:
    receiver, data = _batch_bytes(corpus, rng)
    return Mutant(f"batch: {name}", "batch", receiver, _spoiled(name, change, surgery.BATCH, data, rng))


def of_frame(name: str, change: Change, corpus: Corpus, rng: Random) -> Mutant:
    data = rng.choice(list(corpus.frames.values()))
    return Mutant(f"frame: {name}", "frame", ABOVE, _spoiled(name, change, surgery.FRAME, data, rng))


# --- parts of batches ------------------------------------------------------------------------------------------------


def _parts(data: bytes) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {1: [], 2: [], 3: []}
    for each in parse(data):
        assert isinstance(each.value, bytes)
        found[each.number].append(each.value)
    return found


def _assembled(parts: dict[int, list[bytes]]) -> bytes:
    return join([Raw(number, BYTES, value) for number, values in sorted(parts.items()) for value in values])


def swapped_parts(corpus: Corpus, rng: Random) -> Mutant:
    """Header, signature, sections, one chunk or one header field of another batch."""
    receiver, data = _batch_bytes(corpus, rng)
    other = rng.choice(corpus.stored[receiver] + corpus.fresh[receiver]).data
    mine, theirs = _parts(data), _parts(other)
    what = rng.choice(["header", "signature", "sections", "chunk", "header field"])
    if what == "header":
        mine[1] = theirs[1]
    elif what == "signature":
        mine[2] = theirs[2]
    elif what == "sections":
        mine[3] = theirs[3]
    elif what == "chunk":
        at = rng.randrange(len(mine[3]))
        chunks, others = parse(mine[3][at]), parse(rng.choice(theirs[3]))
        chunk, donor = rng.randrange(len(chunks)), rng.choice(others)
        mine[3][at] = join([*chunks[:chunk], donor, *chunks[chunk + 1 :]])
    else:
        fields, others = parse(mine[1][0]), parse(theirs[1][0])
        donor = rng.choice(others)
        mine[1] = [join(sorted([*(f for f in fields if f.number != donor.number), donor], key=lambda f: f.number))]
    return Mutant("batch: parts swapped", "batch", receiver, _assembled(mine))


HEADER_FIELDS = {
    1: "tree_id", 2: "format", 3: "origin", 4: "epoch", 5: "scope", 6: "seq", 7: "prev", 8: "seen_delta",
    9: "registry_version", 10: "again", 11: "sections",
}  # fmt: skip


def header_field(number: int, corpus: Corpus, rng: Random) -> Mutant:
    """One field of the header set to something else of its kind, or given where it was not."""
    receiver, data = _batch_bytes(corpus, rng)
    parts = _parts(data)
    fields = [each for each in parse(parts[1][0]) if each.number != number]
    fields += changed_field(number, parse(parts[1][0]), rng)
    parts[1] = [join(sorted(fields, key=lambda each: each.number))]
    return Mutant(f"batch: header {HEADER_FIELDS[number]}", "batch", receiver, _assembled(parts))


NAMES = (
    "vn", "hue.vn", "phu-vang.hue.vn", "huong-tra.hue.vn", "da-nang.vn", "x.phu-vang.hue.vn", "phu-vang.hue.vn/catalog",
    "hue.vn/catalog", "vn/registry", "hue.vn/registry", "", "VN", "enrol.hue.vn", "hue.vn/x", "\u0111.vn", "." * 20,
    "hue.vn\0", "/catalog", "a" * 33 + ".vn", ".".join("a" * 17),
)  # fmt: skip


def changed_field(number: int, fields: list[Raw], rng: Random) -> list[Raw]:
    """What stands in a header in place of the fields of one number."""
    held = [each for each in fields if each.number == number]
    if number in (3, 5):
        return [Raw(number, BYTES, rng.choice(NAMES).encode())]
    if number in (2, 6, 10):
        return [Raw(number, surgery.VARINT, rng.choice(surgery.EXTREMES))]
    if number == 4:
        return [Raw(4, surgery.FIXED64, rng.choice([bytes(8), b"\xff" * 8, rng.randbytes(8)]))]
    if number in (1, 7):
        return [Raw(number, BYTES, rng.choice([bytes(32), rng.randbytes(32), b"", rng.randbytes(31), bytes(64)]))]
    if number == 8:
        return [Raw(8, BYTES, head(rng)) for _ in range(rng.choice([0, 1, 1, 2, 5]))]
    if number == 9:
        value = join([Raw(1, surgery.VARINT, rng.choice(surgery.EXTREMES)), Raw(2, BYTES, rng.randbytes(32))])
        return [Raw(9, BYTES, rng.choice([value, value, b"", value + value]))]
    if not held or rng.random() < 0.2:
        return []
    spoiler = rng.choice(list(surgery.SPOILERS.values()))
    at = rng.randrange(len(held))
    assert isinstance(held[at].value, bytes)
    held[at] = Raw(11, BYTES, surgery.within(held[at].value, {4: {}}, rng, spoiler))  # type: ignore[arg-type]
    return held


def head(rng: Random) -> bytes:
    """A Head that may name anything."""
    return join(
        [
            Raw(1, BYTES, rng.choice([*NAMES[:6], *NAMES]).encode()),
            Raw(2, surgery.FIXED64, rng.choice([bytes.fromhex("a100000000000000"), rng.randbytes(8)])),
            Raw(3, surgery.VARINT, rng.choice([1, 2, 3, *surgery.EXTREMES])),
            Raw(4, BYTES, rng.choice([rng.randbytes(32)] * 5 + [b""])),
        ]
    )


# --- chunks ----------------------------------------------------------------------------------------------------------


def zstd_frame(size: int, content: bytes | None = None) -> bytes:
    """A frame that declares ``size``, whatever it holds: ``content`` as it stands, or ``size`` times one byte."""
    described = b"\x28\xb5\x2f\xfd\xa0" + (size & 0xFFFFFFFF).to_bytes(4, "little")
    if content is not None:
        return described + ((len(content) << 3) | 1).to_bytes(3, "little") + content
    blocks, left = [], min(size, 1 << 30)
    while left and len(blocks) < 9_000:
        run = min(left, 128 * 1024)
        left -= run
        blocks.append(((run << 3) | 0b010 | (not left)).to_bytes(3, "little") + b"\x90")
    return described + b"".join(blocks)


def bad_chunk(data: bytes, plain: bytes, rng: Random) -> tuple[str, bytes, int]:
    """(name, compressed bytes, the plain size to announce) of a chunk that is a trap."""
    packed = zstandard.ZstdCompressor(level=3).compress
    size = len(plain)
    nested = plain[:19] + rng.choice([b"\xdd\x00\xff\xff\xff", b"\x91" * 5_000, b"\xdf\x00\xff\xff\xff", b"\x81" * 900])
    many = plain[:19] + b"\x91\xdd" + (300_000).to_bytes(4, "big") + rng.choice([b"\x90", b"\xa0", b"\xc0"]) * 300_000
    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(plain)
    long_window = b"\x28\xb5\x2f\xfd\x80" + bytes([(30 - 10) << 3]) + size.to_bytes(4, "little") + b"\x01\x00\x00"
    traps = {
        "a second frame behind the first": (data + packed(plain), size),
        "a second, empty frame": (data + packed(b""), size),
        "a skippable frame before it": (b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + data, size),
        "bytes behind the frame": (data + b"\0", size),
        "a frame that declares no size": (streamed, size),
        "a size smaller than the content": (zstd_frame(max(size - 1, 0), plain), rng.choice([size, size - 1])),
        "a size larger than the content": (zstd_frame(size + 1, plain), rng.choice([size, size + 1])),
        "a gibibyte in a few bytes": (zstd_frame(1 << 30), rng.choice([1 << 30, size, 32 << 20])),
        "32 MiB of one byte": (zstd_frame(32 << 20), 32 << 20),
        "a window of a gibibyte": (long_window, size),
        "nested emptiness": (packed(nested), len(nested)),
        "very many empty values": (packed(many), len(many)),
        "a frame cut short": (data[: rng.randrange(len(data))], size),
        "nothing": (b"", rng.choice([0, size])),
        "another salt": (packed(plain[:3] + bytes(16) + plain[19:]), size),
    }
    name = rng.choice(list(traps))
    return name, *traps[name]


def chunk_trap(corpus: Corpus, rng: Random) -> Mutant:
    receiver, data = _batch_bytes(corpus, rng)
    parts = _parts(data)
    at = rng.randrange(len(parts[3]))
    chunks = parse(parts[3][at])
    place = rng.randrange(len(chunks))
    index, content = (each.value for each in _filled(chunks[place]))
    assert isinstance(content, bytes)
    plain = zstandard.ZstdDecompressor().decompress(content)
    _name, trap, _size = bad_chunk(content, plain, rng)
    chunks[place] = Raw(1, BYTES, join([Raw(1, surgery.VARINT, index), Raw(2, BYTES, trap)]))
    parts[3][at] = join(chunks)
    return Mutant("batch: chunk trap", "batch", receiver, _assembled(parts))


def _filled(chunk: Raw) -> tuple[Raw, Raw]:
    """Index and data of a chunk; an index of 0 is not written."""
    assert isinstance(chunk.value, bytes)
    found = {each.number: each for each in parse(chunk.value)}
    return found.get(1, Raw(1, surgery.VARINT, 0)), found[2]


def left_out(corpus: Corpus, rng: Random) -> Mutant:
    """One chunk missing: withheld from a level that may read it."""
    receiver, data = _batch_bytes(corpus, rng)
    parts = _parts(data)
    at = rng.randrange(len(parts[3]))
    chunks = parse(parts[3][at])
    chunks.pop(rng.randrange(len(chunks)))
    parts[3][at] = join(chunks)
    return Mutant("batch: chunk left out", "batch", receiver, _assembled(parts))


def noise_alone(corpus: Corpus, rng: Random) -> Mutant:
    way = rng.choice(["batch", "frame"])
    data = rng.choice([rng.randbytes(rng.randrange(200)), msgspec.msgpack.encode([rng.random()] * 9), b""])
    return Mutant(f"{way}: noise alone", way, ABOVE, data)


MAKERS: Mapping[str, Maker] = {
    **{f"batch: {name}": partial(of_batch, name, change) for name, change in CHANGES.items()},
    **{f"frame: {name}": partial(of_frame, name, change) for name, change in CHANGES.items()},
    **{f"batch: header {name}": partial(header_field, number) for number, name in HEADER_FIELDS.items()},
    "batch: parts swapped": swapped_parts,
    "batch: chunk trap": chunk_trap,
    "batch: chunk left out": left_out,
    "noise alone": noise_alone,
}
