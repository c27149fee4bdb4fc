"""Loads a file into a node of a World: both phases, as the command does, without its threads."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.bulk.headings import Headings
from node.bulk.reading import Ground, Reader
from node.bulk.rejections import Rejections
from node.bulk.source import open_source
from node.bulk.spool import Spool
from node.commands.bulk import ground_of, put_rows
from node.storage.bulk import Counts
from sync_engine.registry import Registry
from tests.world import WorldNode


@dataclass
class Loaded:
    """What a load came to."""

    counts: Counts
    rows: int
    rejected: list[tuple[int, str | None, str]]
    padded: int = 0
    values: list[dict[str, Any]] = field(default_factory=list)


def ground(registry: Registry, table: str = "member", unit: str = "hue.vn", *below: str) -> Ground:
    """A node that knows nothing but its registry."""
    return Ground(unit, registry, registry.tables[table], (unit, *below), {})


def read_file(known: Ground, path: Path, skip: Sequence[str] = (), sheet: str | None = None) -> Loaded:
    """Phase 1 alone; ``values`` are the good rows by column."""
    with _reader(known, path, skip, None, sheet) as reader:
        while reader.next_chunk():
            pass
        rows = [
            dict(zip(chunk, row, strict=True)) for chunk in reader.chunks() for row in zip(*chunk.values(), strict=True)
        ]
        return Loaded(Counts(), reader.rows, _rejected(reader), reader.padded, rows)


def load_file(
    node: WorldNode,
    table: str,
    path: Path,
    *,
    by: str | None = None,
    skip: Sequence[str] = (),
    known: Ground | None = None,
) -> Loaded:
    """Both phases."""
    with node.read() as connection:
        known = known or ground_of(connection, node.context, table)
    with _reader(known, path, skip, by, None) as reader:
        while reader.next_chunk():
            pass
        reader.keys.close()
        with node.write() as connection:
            counts = put_rows(connection, node.context, known, reader, reader.chunks(), lambda _said: None)
        return Loaded(counts, reader.rows, _rejected(reader), reader.padded)


@contextmanager
def _reader(known: Ground, path: Path, skip: Sequence[str], by: str | None, sheet: str | None) -> Iterator[Reader]:
    headings = Headings(known.table)
    with closing(open_source(path, sheet, headings.is_known)) as source, closing(Spool(path.parent)) as spool:
        layout = headings.layout(source.header, skip)
        yield Reader(known, layout, source, spool, Rejections(headings.label_of), by)


def _rejected(reader: Reader) -> list[tuple[int, str | None, str]]:
    return [(each["line"], each["field"], each["reason"]) for each in reader.rejections.answer()]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(header)
        writer.writerows(rows)
    return path
