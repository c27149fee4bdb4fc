"""Memory is a limit too: a process that may not grow beyond it, and the largest bombs there are.

Role: cap this process; bombs at the size of the largest frame, and signed ones at the limits of a batch.
Reach: corpus, forged, sync_engine.limits.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec
import zstandard

from sync_engine.batch import Column, SectionHeader, SectionKind, encode_header
from sync_engine.entries import encode_section
from sync_engine.limits import (
    BATCH_BYTES_MAX,
    ENTRIES_MAX,
    FRAME_BYTES_MAX,
    HEADER_BYTES_MAX,
    PLAIN_BYTES_MAX,
    SET_BYTES_MAX,
)
from tests import forging
from tests.hostile.corpus import ABOVE, Corpus
from tests.hostile.forged import next_place, signed
from tests.hostile.surgery import BYTES, Raw, emit
from tests.hostile.unsigned import Mutant

MIB = 1024 * 1024
GROWTH_BYTES_MAX = 6 * FRAME_BYTES_MAX + 4 * PLAIN_BYTES_MAX
"""What one mutant may cost: its frame in the few forms it takes on its way, and its content plain, decoded, and on
its way into the database."""


def size_of_process() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


@contextmanager
def capped(growth: int = GROWTH_BYTES_MAX) -> Iterator[None]:
    """This process may not grow by more than ``growth``: else it gets a MemoryError, which is none of ours."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size_of_process() + growth, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _nest(data: bytes, *numbers: int) -> bytes:
    for number in reversed(numbers):
        data = emit(Raw(number, BYTES, data))
    return data


def bombs(corpus: Corpus) -> Iterator[Mutant]:
    """The largest of each kind."""
    room = FRAME_BYTES_MAX - 64
    for path in ((), (1,), (1, 8), (1, 11), (1, 11, 4), (3,), (3, 1)):
        for number in (1, 3, 8, 11, 99):
            data = _nest((emit(Raw(number, BYTES, b"")) * (room // 2))[:room], *path)
            yield Mutant("bomb: empty fields in a batch", "batch", ABOVE, data)
    for path in ((), (2,), (2, 1), (2, 1, 2), (3,), (3, 1), (4,), (5,), (5, 1), (7,), (8,)):
        for number in (1, 2, 99):
            data = _nest((emit(Raw(number, BYTES, b"")) * (room // 2))[:room], *path)
            yield Mutant("bomb: empty fields in a frame", "frame", ABOVE, data)
    yield from (_signed_header(corpus, number) for number in (8, 11, 99))
    yield from (_signed_column(corpus, *each) for each in _columns())
    yield _fullest(corpus)


def _signed_header(corpus: Corpus, number: int) -> Mutant:
    header = encode_header(next_place(corpus, corpus.fresh[ABOVE][0].header))
    header += emit(Raw(number, BYTES, b"")) * ((HEADER_BYTES_MAX - len(header)) // 3)
    return Mutant("bomb: signed header", "forged", ABOVE, signed(corpus, header, ({},)))


def _columns() -> Iterator[tuple[str, bytes, int]]:
    """(column, plain content, rows) that unpack to as much as can be."""
    start = b"\x92\xc4\x10" + bytes(16)
    nil = b"\xc0"
    kinds = {"note": (b"\xa0", nil), "badges+": (b"\xa0", b"\x90"), "tongues": (b"\xa0", nil), "pages": (b"\0", nil)}
    for name, (one, none) in (kinds | {"photo": (b"\xc4\0", nil)}).items():
        room = SET_BYTES_MAX if name in ("badges+", "tongues") else PLAIN_BYTES_MAX - 300_000  # for the other columns
        many = (room - 6_000) // len(one)
        yield name, start + b"\xdd" + many.to_bytes(4, "big") + one * many, ENTRIES_MAX
        inner = b"\xdd" + many.to_bytes(4, "big") + one * many
        yield name, start + b"\xdc" + ENTRIES_MAX.to_bytes(2, "big") + inner + none * (ENTRIES_MAX - 1), ENTRIES_MAX


def _signed_column(corpus: Corpus, name: str, plain: bytes, rows: int) -> Mutant:
    made = {
        "id": [f"{number:05}" for number in range(rows)], "_identity": [bytes(8)] * rows, "_time": [1] * rows,
    }  # fmt: skip
    columns, chunks = [], {}
    for each, content in [
        *((key, msgspec.msgpack.encode((bytes(16), held))) for key, held in made.items()),
        (name, plain),
    ]:
        data = zstandard.ZstdCompressor(level=3).compress(content)
        chunks[len(columns)] = data
        columns.append(Column(each, sha256(data).digest(), len(data), len(content)))
    section = SectionHeader("person", SectionKind.ROWS, rows, tuple(columns))
    header = next_place(corpus, replace(corpus.fresh[ABOVE][0].header, sections=(section,)))
    return Mutant(f"bomb: column {name}", "forged", ABOVE, signed(corpus, encode_header(header), (chunks,)))


def _fullest(corpus: Corpus) -> Mutant:
    """A lawful batch as large as one may be: this one is taken."""
    rng, table = Random(1), corpus.registry.tables["person"]
    note = (PLAIN_BYTES_MAX - 2 * MIB) // ENTRIES_MAX
    rows = [(f"{n:05}", 10, {"name": "A", "born": "1950", "note": "x" * note}) for n in range(ENTRIES_MAX)]
    section, chunks = encode_section(forging.rows(table, *rows, new=True), lambda: rng.randbytes(16))
    header = next_place(corpus, replace(corpus.fresh[ABOVE][0].header, sections=(section,)))
    assert sum(map(len, chunks.values())) < BATCH_BYTES_MAX
    return Mutant("bomb: the fullest batch", "forged", ABOVE, signed(corpus, encode_header(header), (chunks,)))
