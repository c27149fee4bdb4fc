"""Batches signed with a child's real key that no honest node would seal: what a hostile child could send.

Role: change a real batch of the child, make its hashes and its signature right again.
Reach: corpus, unsigned, surgery, tests.forging. Whether such a batch is refused or taken is the judge's question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any

import msgspec
import zstandard

from conflict.values import TIME_MAX, Epoch, Head, StreamId, UnitPath
from sync_engine.batch import NO_PREV, BatchHeader, Column, SealedBatch, SectionHeader, encode_header
from sync_engine.entries import Entries, encode_section
from tests import forging
from tests.hostile import surgery
from tests.hostile.corpus import ABOVE, CHILD, ROOT, Corpus
from tests.hostile.surgery import BYTES, VARINT, Raw, join
from tests.hostile.unsigned import HEADER_FIELDS, Mutant, bad_chunk, changed_field

Chunks = Sequence[Mapping[int, bytes]]


@dataclass(frozen=True)
class Draft:
    """A batch to be signed; its chunks need not be what its header says until ``mended``."""

    header: BatchHeader
    chunks: tuple[dict[int, bytes], ...]


def pick(corpus: Corpus, rng: Random) -> Draft:
    """A batch of the child, at the next place of its stream."""
    own = [b for b in corpus.fresh[ABOVE] * 2 + corpus.stored[ABOVE] if b.header.stream.origin == CHILD]
    batch = rng.choice(own)
    return Draft(next_place(corpus, batch.header), tuple(dict(each) for each in batch.chunks))


def next_place(corpus: Corpus, header: BatchHeader) -> BatchHeader:
    held: list[SealedBatch] = [b for b in corpus.stored[ABOVE] if b.header.stream == header.stream]
    last = max(held, key=lambda batch: batch.header.seq, default=None)
    seen = tuple(head for head in header.seen_delta if head.stream != header.stream)
    if last is None:
        return replace(header, seq=1, prev=NO_PREV, seen_delta=seen)
    return replace(header, seq=last.header.seq + 1, prev=last.head.hash, seen_delta=seen)


def signed(corpus: Corpus, header_bytes: bytes, chunks: Chunks) -> bytes:
    signature = corpus.world.tree.node(CHILD).signer("batch", header_bytes)
    sections = [
        join([Raw(1, BYTES, join([Raw(1, VARINT, at), Raw(2, BYTES, data)])) for at, data in section.items()])
        for section in chunks
    ]
    return join([Raw(1, BYTES, header_bytes), Raw(2, BYTES, signature), *(Raw(3, BYTES, each) for each in sections)])


def _mutant(kind: str, corpus: Corpus, draft: Draft) -> Mutant:
    return Mutant(f"forged: {kind}", "forged", ABOVE, signed(corpus, encode_header(draft.header), draft.chunks))


def with_chunk(draft: Draft, section: int, at: int, data: bytes, size: int) -> Draft:
    """A chunk put in place, and its hash and sizes said in the header."""
    described = draft.header.sections[section]
    column = Column(described.columns[at].name, sha256(data).digest(), len(data), min(size, 2**32 - 1))
    columns = (*described.columns[:at], column, *described.columns[at + 1 :])
    chunks = tuple({**each, at: data} if n == section else each for n, each in enumerate(draft.chunks))
    return with_section(Draft(draft.header, chunks), section, replace(described, columns=columns))


def with_section(draft: Draft, at: int, section: SectionHeader) -> Draft:
    sections = (*draft.header.sections[:at], section, *draft.header.sections[at + 1 :])
    return Draft(replace(draft.header, sections=sections), draft.chunks)


# --- headers ---------------------------------------------------------------------------------------------------------


def header_field(number: int, corpus: Corpus, rng: Random) -> Mutant:
    draft = pick(corpus, rng)
    fields = surgery.parse(encode_header(draft.header))
    changed = [each for each in fields if each.number != number] + changed_field(number, fields, rng)
    data = signed(corpus, join(sorted(changed, key=lambda each: each.number)), draft.chunks)
    return Mutant(f"forged: header {HEADER_FIELDS[number]}", "forged", ABOVE, data)


def spoiled_header(name: str, corpus: Corpus, rng: Random) -> Mutant:
    draft = pick(corpus, rng)
    header_bytes = surgery.within(encode_header(draft.header), surgery.HEADER, rng, surgery.SPOILERS[name])
    return Mutant(f"forged: header, {name}", "forged", ABOVE, signed(corpus, header_bytes, draft.chunks))


def place(corpus: Corpus, rng: Random) -> Mutant:
    """Another place of the stream than the next: a gap, a fork, another past."""
    draft = pick(corpus, rng)
    header, known = draft.header, [b for b in corpus.stored[ABOVE] if b.header.stream == draft.header.stream]
    choices = [
        replace(header, seq=header.seq + rng.choice([1, 2, 1 << 40])),
        replace(header, seq=1, prev=NO_PREV),
        replace(header, prev=rng.randbytes(32)),
        *(replace(header, seq=b.header.seq, prev=b.header.prev) for b in known),
        replace(header, seq=header.seq, prev=known[0].head.hash if known else bytes(31) + b"\1"),
    ]
    return _mutant("place", corpus, replace(draft, header=rng.choice(choices)))


def seen(corpus: Corpus, rng: Random) -> Mutant:
    """A lie of what its writer had merged: less, more, other branches, its own stream, strangers."""
    draft = pick(corpus, rng)
    stream = draft.header.stream
    real = [b.head for b in corpus.stored[ABOVE] if b.header.stream.scope == stream.scope]
    odd = [
        Head(StreamId(UnitPath(origin), Epoch(f"{rng.randrange(3):016x}"), stream.scope), seq, rng.randbytes(32))
        for origin in (ROOT, ABOVE, CHILD)
        for seq in (1, 2, 1 << 40)
    ]
    other = [replace(head, hash=rng.randbytes(32)) for head in real] + [replace(h, seq=h.seq + 1) for h in real]
    heads = rng.sample(real, rng.randint(0, len(real))) + rng.sample(odd + other, rng.choice([0, 0, 1, 2]))
    return _mutant("seen", corpus, replace(draft, header=replace(draft.header, seen_delta=tuple(heads))))


# --- sections and chunks ---------------------------------------------------------------------------------------------


def chunk_trap(corpus: Corpus, rng: Random) -> Mutant:
    draft = pick(corpus, rng)
    section = rng.randrange(len(draft.chunks))
    at = rng.choice(list(draft.chunks[section]))
    data = draft.chunks[section][at]
    name, trap, size = bad_chunk(data, zstandard.ZstdDecompressor().decompress(data), rng)
    return _mutant(f"chunk, {name}", corpus, with_chunk(draft, section, at, trap, size))


def sections(corpus: Corpus, rng: Random) -> Mutant:
    """Sections and columns moved, renamed, doubled, left out, or taken from another batch."""
    draft = pick(corpus, rng)
    header, chunks = draft.header, draft.chunks
    at = rng.randrange(len(chunks))
    one = header.sections[at]
    columns = list(one.columns)
    place = rng.randrange(len(columns))
    donor = rng.choice(corpus.stored[ABOVE] + corpus.fresh[ABOVE])
    tables = [
        "person",
        "thing",
        "word",
        "_unit",
        "_registry",
        "",
        "Person",
        "sqlite_master",
        "person" * 99,
        "pers\u00f6n",
    ]
    names = [
        *(each.name for each in columns),
        "id",
        "_time",
        "_new",
        "_mask",
        "_first",
        "_by",
        "_x",
        "card",
        "badges+",
        "",
        "n\0",
    ]
    what = rng.randrange(9)
    if what == 0:
        return _mutant("section, table", corpus, with_section(draft, at, replace(one, table=rng.choice(tables))))
    if what == 1:
        return _mutant("section, kind", corpus, with_section(draft, at, replace(one, kind=3 - one.kind)))
    if what == 2:
        rows = rng.choice([0, 1, one.rows + 1, one.rows - 1, 5_000, 5_001, 2**32 - 1])
        return _mutant("section, rows", corpus, with_section(draft, at, replace(one, rows=rows)))
    if what == 3:
        columns[place] = replace(columns[place], name=rng.choice(names))
        return _mutant("section, name", corpus, with_section(draft, at, replace(one, columns=tuple(columns))))
    if what == 4:
        del columns[place]
        kept = [data for index, data in sorted(chunks[at].items()) if index != place]
        less = tuple(dict(enumerate(kept)) if n == at else each for n, each in enumerate(chunks))
        draft = replace(draft, chunks=less)
        return _mutant("section, column", corpus, with_section(draft, at, replace(one, columns=tuple(columns))))
    if what == 5:
        order = list(range(len(columns)))
        rng.shuffle(order)
        moved = {new: chunks[at][old] for new, old in enumerate(order)}
        draft = replace(draft, chunks=tuple(moved if n == at else each for n, each in enumerate(chunks)))
        shuffled = replace(one, columns=tuple(columns[old] for old in order))
        return _mutant("section, order", corpus, with_section(draft, at, shuffled))
    if what == 6:
        twice = Draft(replace(header, sections=(*header.sections, one)), (*chunks, chunks[at]))
        return _mutant("section, doubled", corpus, twice)
    if what == 7:
        foreign = Draft(replace(header, sections=donor.header.sections), tuple(map(dict, donor.chunks)))
        return _mutant("section, foreign", corpus, foreign)
    less = tuple({i: d for i, d in each.items() if i != place} if n == at else each for n, each in enumerate(chunks))
    return _mutant("section, withheld", corpus, replace(draft, chunks=less))


# --- values ----------------------------------------------------------------------------------------------------------


def pool(rng: Random) -> list[Any]:
    """Values that some column may hold, and many that none may."""
    texts = ["", "a", "a\u0301", "\0", "x" * 300, "1950", "1950-13", "2026-02-30", "2026-01-31T23:59:59Z", "low"]
    texts += ["0234000000", "\u0661" * 10, "w1", "\n", "\U0010ffff", "{", "[]", "'); DROP TABLE person; --", "\ufb01"]
    numbers = [0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, TIME_MAX, 1.5, -0.0, 1e308]
    odd = [
        float("nan"),
        float("inf"),
        None,
        True,
        False,
        b"",
        bytes(8),
        rng.randbytes(8),
        rng.randbytes(1),
        b"\xff" * 9,
    ]
    lists = [
        [],
        ["a"],
        ["a", "b"],
        ["b", "a"],
        ["a", "a"],
        [""],
        [1],
        [None],
        [["a"]],
        {},
        {"a": 1},
        ["\0"],
        ["a\u0301"],
    ]
    raw = [
        msgspec.Raw(each)
        for each in (b"\xa2\xff\xff", b"\xc1", b"\xd6\xff\0\0\0\0", b"\xc7\x00\x05", b"\xdb\xff\xff\xff\xff")
    ]
    return [*texts, *numbers, *odd, *lists, *raw]


def values(corpus: Corpus, rng: Random) -> Mutant:
    """Some values of one column replaced, moved, doubled or taken away."""
    draft = pick(corpus, rng)
    section = rng.randrange(len(draft.chunks))
    described = draft.header.sections[section]
    system = [n for n, column in enumerate(described.columns) if column.name == "id" or column.name.startswith("_")]
    at = rng.choice(system) if rng.random() < 0.5 else rng.randrange(len(described.columns))
    salt, held = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(draft.chunks[section][at]))
    held = changed_values(held, rng)
    plain = msgspec.msgpack.encode((salt, held))
    data = zstandard.ZstdCompressor(level=3).compress(plain)
    name = described.columns[at].name
    shown = name if name == "id" or name.startswith("_") else "a field"
    return _mutant(f"values of {shown}", corpus, with_chunk(draft, section, at, data, len(plain)))


def changed_values(held: list[Any], rng: Random) -> list[Any]:
    held = list(held)
    for _ in range(rng.choice([1, 1, 2, len(held)])):
        place = rng.randrange(len(held))
        match rng.randrange(6):
            case 0 | 1:
                held[place] = rng.choice(pool(rng))
            case 2:
                held[place] = rng.choice(held)
            case 3:
                rng.shuffle(held)
            case 4 if isinstance(held[place], int) and not isinstance(held[place], bool):
                held[place] += rng.choice([-1, 1, -(1 << 62), 1 << 62])
                held[place] = max(-(2**63), min(held[place], 2**64 - 1))
            case 4 if isinstance(held[place], bytes):
                held[place] = rng.randbytes(len(held[place]))
            case 5 if rng.random() < 0.3:
                held.append(held[place])
            case _:
                held[place] = None
    return held


# --- entries ---------------------------------------------------------------------------------------------------------


def entries(corpus: Corpus, rng: Random) -> Mutant:
    """Entries that are well formed and say what no honest node would: rows that are not there, other people's
    identities, inserts of what stands, fields that the child may not edit, times beyond all."""
    stream = forging.Stream(corpus.world, CHILD, CHILD, registry=corpus.registry)
    table = corpus.registry.tables["person"]
    keys = rng.sample(["0", "1", "2", "3", "4", "5", "both", "new", "none"], rng.randint(1, 6))
    named = {"name": "Hoa", "born": "1950-02"}
    identities = [
        forging.identity_of(["Người 1", "1950-02"]),
        forging.identity_of(["Huệ", "1950-02"]),
        rng.randbytes(8),
    ]
    identity = rng.choice([None, *identities])  # None: the one that its required values make
    laid: list[Entries] = []
    given = []
    for key in keys:
        for _ in range(rng.choice([1, 1, 2])):
            time = rng.choice([0, 1, TIME_MAX, TIME_MAX - 1, rng.randrange(1 << 48), corpus.world.now << 16])
            given.append((key, time, some_values(rng) | (named if identity is None or rng.random() < 0.5 else {})))
    unique = {(key, time): (key, time, what) for key, time, what in given}
    flags = [rng.random() < 0.4 for _ in unique]
    if rng.random() < 0.85:
        new: Sequence[bool] | bool = rng.choice([flags, True, False])
        laid.append(forging.rows(table, *unique.values(), new=new, identity=identity))
    if not laid or rng.random() < 0.4:
        doomed = [(key, rng.choice([0, TIME_MAX, 1 << 50])) for key in set(keys)]
        laid.append(forging.deletes(table, *doomed, identity=rng.choice(identities)))
    packed = [encode_section(each, lambda: rng.randbytes(16)) for each in laid]
    header = next_place(corpus, replace(corpus.fresh[ABOVE][0].header, sections=tuple(each for each, _ in packed)))
    heads = [b.head for b in corpus.stored[ABOVE] if b.header.stream.scope == CHILD and b.header.stream != stream.id]
    header = replace(header, stream=stream.id, seen_delta=tuple(rng.sample(heads, rng.randint(0, len(heads)))))
    return _mutant("entries", corpus, Draft(next_place(corpus, header), tuple(dict(each) for _, each in packed)))


def some_values(rng: Random) -> dict[str, Any]:
    every: dict[str, Any] = {
        "note": rng.choice(["a", None, ""]),
        "phone": "0" * 10,
        "card": rng.choice(["1", None]),
        "line": "l",
        "town": None,
        "badges": (rng.choice([[], ["30"], ["30", "99"]]), rng.choice([[], ["40"], ["30"]])),
        "tongues": rng.choice([None, ["Anh"]]),
        "rank": rng.choice(["low", "high", None]),
        "pages": rng.choice([0, -(2**63), None]),
        "share": rng.choice([0.0, 1e308, None]),
        "present": rng.choice([True, False, None]),
        "photo": rng.choice([b"", b"\0"]),
        "met_at": "0001-01-01T00:00:00Z",
        "word": rng.choice(["w1", "unknown"]),
        "name": "X",
        "born": "1900",
    }
    return {name: every[name] for name in rng.sample(sorted(every), rng.randint(1, 5))}


Maker = Callable[[Corpus, Random], Mutant]
MAKERS: Mapping[str, Maker] = {
    **{f"forged: header {name}": partial(header_field, number) for number, name in HEADER_FIELDS.items()},
    **{f"forged: header, {name}": partial(spoiled_header, name) for name in surgery.SPOILERS},
    "forged: place": place,
    "forged: seen": seen,
    "forged: chunk trap": chunk_trap,
    "forged: sections": sections,
    "forged: values": values,
    "forged: more values": values,
    "forged: entries": entries,
    "forged: more entries": entries,
}
