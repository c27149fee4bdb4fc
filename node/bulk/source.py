"""A file of rows, whatever its format: a header, then chunks of cells as text.

Role: tell formats apart by what they hold, not by their name, and open the right reader.
Reach: node.bulk; errors. Invariant: a chunk is bounded in rows and in characters, so memory is too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node.messages import say
from sync_engine.errors import BadInput
from sync_engine.limits import ROW_BYTES_MAX

ROWS_AT_ONCE = 2_000
CHARS_AT_ONCE = 2 * 1024 * 1024
"""Where a chunk ends: two thousand rows of a register are a million characters."""

ROW_CHARS_MAX = 2 * ROW_BYTES_MAX
"""What is longer is no row at all, but most likely a quotation mark that nobody closed."""

ROWS_MAX = 4_000_000
"""Of one file: eight bytes a row are remembered, to find keys that come twice. No province has a tenth of it."""

IsKnown = Callable[[str], bool]
"""Whether a cell names a column of the table."""

_ZIP, _OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


class Unreadable(BadInput):
    """The whole file cannot be taken; nothing was changed."""


class DateCell(str):
    """A cell that a spreadsheet holds as a date: 2024-05-19, or 2024-05 where it shows no day."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows; ``lines`` is where each begins in the file, as a person counts them. Rows may differ in length.
    ``faults`` are rows that could not be read, with the reason."""

    lines: list[int]
    rows: list[list[str]]
    faults: list[tuple[int, str]]
    row_chars: int
    """No row has more characters."""


class Source(Protocol):
    """An open file. ``position`` of ``size`` tells how far it has been read."""

    header: list[str]
    size: int

    @property
    def position(self) -> int: ...

    def chunks(self) -> Iterator[Chunk]:
        """Rows that hold anything, after the header. Raises Unreadable."""
        ...

    def close(self) -> None: ...


def open_source(path: Path, sheet: str | None, is_known: IsKnown) -> Source:
    """Raises Unreadable, or OSError."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == _OLD_EXCEL:
        raise Unreadable(say("load.old_excel", file=path.name), hint=say("load.old_excel.hint"))
    if start == _ZIP:
        from node.bulk.xlsx_file import XlsxFile

        return XlsxFile(path, sheet)
    if sheet is not None:
        raise Unreadable(say("load.no_sheets", file=path.name))
    from node.bulk.csv_file import CsvFile

    return CsvFile(path, is_known)
