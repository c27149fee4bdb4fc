"""A table's rows as CSV that Excel opens and ``load`` takes back unchanged.

Role: the header, and values as text.
Reach: csv, the registry's model, node.figures. Invariant: loading what was written here changes nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from node.bulk.headings import BY, ID, UNIT, Headings
from node.figures import day
from sync_engine.fields import from_sql
from sync_engine.registry import Field, FieldType, Table

_YES_NO = {0: "không", 1: "có"}


class TableWriter:
    """Writes pages of rows (id, the fields, edited_by), a unit's at a time."""

    def __init__(self, file: TextIO, table: Table, *, labels: bool) -> None:
        headings = Headings(table)
        names = [UNIT, ID, *(each.name for each in table.fields), BY]
        self._writer = csv.writer(file)
        self._writer.writerow([headings.heading_of(name) for name in names] if labels else names)
        self._shapes = [_shape(each, labels=labels) for each in table.fields]

    def write(self, unit: str, rows: Sequence[Sequence[Any]]) -> None:
        ids, *columns, editors = zip(*rows, strict=True)
        shown = [
            column if shape is None else [None if value is None else shape(value) for value in column]
            for column, shape in zip(columns, self._shapes, strict=True)
        ]
        self._writer.writerows(zip([unit] * len(rows), ids, *shown, editors, strict=True))


def _shape(field: Field, *, labels: bool) -> Callable[[Any], Any] | None:
    """How a value in SQL form is written; None where as it is."""
    match field.type:
        case FieldType.SET:
            return lambda value: _set(from_sql(field, [value])[0] or [])
        case FieldType.BYTES:
            return bytes.hex
        case FieldType.REAL:
            return _decimal_comma if labels else repr
        case FieldType.DATE if labels:
            return day
        case FieldType.BOOL if labels:
            return _YES_NO.__getitem__
    return None


def _decimal_comma(value: float) -> str:
    return repr(value).replace(".", ",")


def _set(elements: list[str]) -> str:
    """Separated by ';', or as JSON where that would not lead back to them."""
    joined = ";".join(elements)
    if joined.startswith("[") or sorted({each.strip() for each in joined.split(";")} - {""}) != sorted(elements):
        return json.dumps(elements, ensure_ascii=False)
    return joined
