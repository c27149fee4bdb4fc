"""What was kept out of a table, line by line, and why.

Role: count rejected rows, keep the first of their faults for the answer, and all of them in a file where one is wanted.
Reach: node.bulk.private_file. Invariant: bounded, whatever the file; a reason never repeats a value.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from node.bulk.private_file import PrivateFile

KEPT_MAX = 10_000


@dataclass(frozen=True, slots=True, order=True)
class Rejection:
    """One fault of one line. ``field`` is a column's name; empty where it is the row as a whole."""

    line: int
    field: str
    reason: str


class Rejections:
    """All faults of one load."""

    def __init__(self, label_of: Callable[[str], str], file: PrivateFile | None = None) -> None:
        self.label_of = label_of
        self.rows = 0
        self.faults = 0
        self._kept: list[Rejection] = []
        self._file = file
        self._writer = None if file is None else csv.writer(file.text)
        if self._writer is not None:
            self._writer.writerow(("line", "field", "reason"))

    def add(self, line: int, faults: Sequence[tuple[str, str]]) -> None:
        """One row is kept out, for these (field, reason)."""
        self.rows += 1
        self.faults += len(faults)
        for field, reason in faults:
            if len(self._kept) < KEPT_MAX:
                self._kept.append(Rejection(line, field, reason))
            if self._writer is not None:
                self._writer.writerow((line, self.label_of(field) if field else "", reason))

    def answer(self) -> list[dict[str, Any]]:
        """In order of lines: ``line``, ``field`` (null for the row as a whole) and ``reason``."""
        return [{"line": each.line, "field": each.field or None, "reason": each.reason} for each in sorted(self._kept)]
