"""CSV as Excel writes it: UTF-8 with or without a mark, UTF-16 with one; comma, semicolon or tab; quoted line breaks.

Role: find encoding, separator and header; give rows with the line where each begins.
Reach: csv, node.bulk.source. Invariant: a quotation mark that nobody closed refuses the file, because it would hide
the rows behind it.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from node.bulk.source import CHARS_AT_ONCE, ROW_CHARS_MAX, ROWS_AT_ONCE, Chunk, IsKnown, Unreadable
from node.messages import say

SEPARATORS = (",", ";", "\t")

_QUOTE = '"'


class _Lines(Iterator[str]):
    """Physical lines, counted; bounded within one row."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.count = 0
        self.row_began, self.row_chars, self.row_chars_max = 1, 0, 0

    def begin_row(self) -> None:
        self.row_began, self.row_chars = self.count + 1, 0

    def __next__(self) -> str:
        try:
            line = self.file.readline(ROW_CHARS_MAX)
        except UnicodeError:
            raise Unreadable(say("load.not_utf8"), hint=say("load.not_utf8.hint")) from None
        if not line:
            raise StopIteration
        self.count += 1
        self.row_chars += len(line)
        if self.row_chars >= ROW_CHARS_MAX:
            raise Unreadable(say("load.endless_row", line=self.row_began))
        if self.row_chars > self.row_chars_max:
            self.row_chars_max = self.row_chars
        return line


class CsvFile:
    """An open CSV file."""

    def __init__(self, path: Path, is_known: IsKnown) -> None:
        csv.field_size_limit(ROW_CHARS_MAX)
        self.size = path.stat().st_size
        self._raw = path.open("rb")
        try:
            text = io.TextIOWrapper(self._raw, encoding=_encoding(self._raw), newline="")
            self._lines = _Lines(text)
            separator, self.header = self._read_header(is_known)
        except BaseException:
            self._raw.close()
            raise
        self._reader = csv.reader(self._lines, delimiter=separator, strict=True)

    @property
    def position(self) -> int:
        return self._raw.tell()

    def close(self) -> None:
        self._raw.close()

    def _read_header(self, is_known: IsKnown) -> tuple[str, list[str]]:
        """The separator and the first row that holds anything; Excel's ``sep=;`` may stand before it."""
        separators: tuple[str, ...] = SEPARATORS
        self._lines.begin_row()
        for line in self._lines:
            said = line.strip(_QUOTE + " \r\n")
            if self._lines.count == 1 and said.lower().startswith("sep=") and len(said) == 5:
                separators = (said[4],)
                continue
            while line.count(_QUOTE) % 2 and (more := next(self._lines, "")):
                line += more
            if line.strip("".join(SEPARATORS) + _QUOTE + " \r\n\xa0"):
                return max(
                    ((each, _cells(line, each)) for each in separators),
                    key=lambda found: (sum(map(is_known, found[1])), len(found[1])),
                )
        raise Unreadable(say("load.empty"))

    def chunks(self) -> Iterator[Chunk]:
        lines, reader = self._lines, self._reader
        found, rows, faults, chars = [], [], [], 0
        while True:
            lines.begin_row()
            try:
                row = next(reader, None)
            except csv.Error:
                if lines.count != lines.row_began:
                    raise Unreadable(say("load.open_quote", line=lines.row_began)) from None
                faults.append((lines.row_began, say("load.why.quotes")))
                continue
            if row is not None and any(map(str.strip, row)):
                found.append(lines.row_began)
                rows.append(row)
                chars += lines.row_chars
            if row is None or len(rows) + len(faults) >= ROWS_AT_ONCE or chars >= CHARS_AT_ONCE:
                if rows or faults:
                    yield Chunk(found, rows, faults, lines.row_chars_max)
                if row is None:
                    return
                found, rows, faults, chars = [], [], [], 0
                lines.row_chars_max = 0


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(line, newline=""), delimiter=separator), [])
    except csv.Error:
        return []


def _encoding(file: io.BufferedReader) -> str:
    start = file.read(4096)
    file.seek(0)
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start.count(0) * 4 > len(start):
        raise Unreadable(say("load.not_text"), hint=say("load.not_utf8.hint"))
    return "utf-8"
