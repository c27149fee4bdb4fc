"""A sheet of an .xlsx workbook, row by row.

Role: refuse what unpacks to more than it should, then let openpyxl read, and turn its cells into text.
Reach: openpyxl (with defusedxml, which it uses by itself), zipfile, node.bulk.source. Invariant: no part of the file is
unpacked before its size is known; zipfile itself stops at the size that a part declares.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

from node.bulk.source import CHARS_AT_ONCE, ROWS_AT_ONCE, Chunk, DateCell, Unreadable
from node.messages import say

PARTS_MAX = 2_000
PART_BYTES_MAX = 16 * 1024 * 1024
SHEET_BYTES_MAX = 2 * 1024 * 1024 * 1024
"""A million rows of forty short cells; it is read as a stream."""

TEXTS_BYTES_MAX = 64 * 1024 * 1024
"""The texts of all cells, each once, which openpyxl holds in memory."""

CELLS_MAX = 1_000
"""Of one row: a cell far to the right makes openpyxl fill in all those before it."""

_NO_PART_OF_A_DATE = re.compile(r"\[[^\]]*\]|\"[^\"]*\"|\\.")


class XlsxFile:
    """One open sheet: the named one, or the first that is not hidden."""

    size = position = 0
    """openpyxl does not say how far it is."""

    def __init__(self, path: Path, sheet: str | None) -> None:
        import openpyxl

        self._name = path.name
        with self._sound():
            _check_sizes(path)
            self._book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            self._rows = self._numbered(self._sheet(sheet))
            _number, self.header = next(self._rows, (0, []))
            if not self.header:
                raise Unreadable(say("load.empty"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._book.close()

    def _sheet(self, name: str | None) -> Any:
        sheets = self._book.worksheets
        if name is None:
            chosen = [each for each in sheets if each.sheet_state == "visible"] or sheets
        else:
            chosen = [each for each in sheets if each.title.strip().casefold() == name.strip().casefold()]
        if not chosen:
            titles = ", ".join(each.title for each in sheets)
            raise Unreadable(say("load.no_sheet", file=self._name, sheet=name or "", sheets=titles))
        chosen[0].reset_dimensions()  # what a sheet says of its own size is not to be trusted
        return chosen[0]

    def _numbered(self, sheet: Any) -> Iterator[tuple[int, list[str]]]:
        """Rows that hold anything, by their number in the sheet."""
        rows = iter(sheet.iter_rows())
        number = 0
        while True:
            with self._sound():
                row = next(rows, None)
            if row is None:
                return
            number += 1
            if len(row) > CELLS_MAX:
                raise Unreadable(say("load.large_workbook", file=self._name), hint=say("load.large_workbook.hint"))
            cells = [_text(each) for each in row]
            while cells and not cells[-1].strip():
                cells.pop()
            if cells:
                yield number, cells

    def chunks(self) -> Iterator[Chunk]:
        lines, rows, chars, longest = [], [], 0, 0
        for number, cells in self._rows:
            length = sum(map(len, cells))
            lines.append(number)
            rows.append(cells)
            chars, longest = chars + length, max(longest, length)
            if len(rows) >= ROWS_AT_ONCE or chars >= CHARS_AT_ONCE:
                yield Chunk(lines, rows, [], longest)
                lines, rows, chars, longest = [], [], 0, 0
        if rows:
            yield Chunk(lines, rows, [], longest)

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Whatever a broken workbook makes of openpyxl is one sentence here."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what openpyxl would lose on saving, which we do not
                yield
        except (Unreadable, OSError, MemoryError):
            raise
        except Exception as error:
            hint = say("load.bad_workbook.hint")
            raise Unreadable(say("load.bad_workbook", file=self._name), hint=hint) from error


def _check_sizes(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    for part in parts:
        name = part.filename.lower()
        most = PART_BYTES_MAX
        if name.startswith("xl/worksheets/"):
            most = SHEET_BYTES_MAX
        elif name.endswith("sharedstrings.xml"):
            most = TEXTS_BYTES_MAX
        elif name.startswith("xl/media/"):
            continue  # never read
        if part.file_size > most or len(parts) > PARTS_MAX:
            raise Unreadable(say("load.large_workbook", file=path.name), hint=say("load.large_workbook.hint"))


def _text(cell: Any) -> str:
    """A cell as a person would have written it into a file of text."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, date):
        return _date(value, cell.number_format)
    return str(value)


def _date(value: date, number_format: str) -> DateCell:
    """What the cell shows of the date: a month typed as 08/1945 is kept as its first day, which nobody meant."""
    if isinstance(value, datetime) and (value.hour or value.minute or value.second):
        return DateCell(value.isoformat(timespec="seconds"))
    shown = _NO_PART_OF_A_DATE.sub("", number_format).lower()
    iso = value.isoformat()[:10]
    return DateCell(iso if "d" in shown or "y" not in shown else iso[:7] if "m" in shown else iso[:4])
