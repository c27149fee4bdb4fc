"""Cells become values, a column at a time: each distinct text is judged once.

Role: from what a file says to SQL values, and for what cannot be meant the reason in words, which never repeats it.
Reach: sync_engine.fields, the registry's model. Invariant: what comes out passes the table's own checks, and is NFC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import is_normalized, normalize

from conflict.policies import Policy
from node.bulk.source import DateCell
from node.messages import say
from node.storage.named import folded
from sync_engine.entries import ID_CHARS_MAX
from sync_engine.errors import BadInput
from sync_engine.fields import normalise, to_sql
from sync_engine.registry import Field, FieldType

KNOWN_MAX = 8_192
"""Distinct texts of a column that are remembered between chunks."""

ZEROS_MAX = 2
"""So many leading zeros are put back: a shorter number is another kind of number, which nobody may make up."""

FORMULA_ERRORS = frozenset(
    {"#N/A", "#VALUE!", "#REF!", "#DIV/0!", "#NUM!", "#NAME?", "#NULL!", "#SPILL!", "#CALC!", "#GETTING_DATA"}
)
_SHORTENED = re.compile(r"[0-9](?:[.,][0-9]+)?E\+[0-9]{2,3}")
_MIDNIGHT = re.compile(r"[T ]0{1,2}:00(?::00(?:\.0+)?)?")

Judged = tuple[list[Any], dict[int, str]]
"""A column's values, None where there is none, and by row what is wrong."""


class Column:
    """Reads one field's cells, chunk after chunk."""

    known_max = KNOWN_MAX

    def __init__(self, field: Field) -> None:
        self.field = field
        self.padded = 0
        """Numbers whose leading zeros were put back."""
        self._known: dict[str, Any] = {}
        self._wrong: dict[str, str] = {}
        self._short: set[str] = set()

    def read(self, cells: Sequence[str]) -> Judged:
        dates: dict[int, str] = {}
        if self.field.type not in (FieldType.DATE, FieldType.TIMESTAMP) and DateCell in set(map(type, cells)):
            dates = {at: say("load.why.date_cell") for at, cell in enumerate(cells) if type(cell) is DateCell}
            cells = ["" if at in dates else cell for at, cell in enumerate(cells)]
        values, faults = self._judge(cells)
        if self.field.required and None in values:
            required = say("load.why.required")
            faults = {at: required for at, value in enumerate(values) if value is None} | faults
        return values, faults | dates

    def _judge(self, cells: Sequence[str]) -> Judged:
        known, wrong = self._known, self._wrong
        if len(known) > self.known_max:
            known.clear()
            wrong.clear()
            self._short.clear()
        distinct = set(cells)
        for cell in distinct.difference(known):
            try:
                known[cell] = self._value(cell, cell.strip())
            except BadInput as error:
                known[cell], wrong[cell] = None, str(error).removeprefix(f"{self.field.name}: ")
        faults = {}
        if wrong and not distinct.isdisjoint(wrong):
            faults = {at: wrong[cell] for at, cell in enumerate(cells) if cell in wrong}
        if self._short:
            self.padded += sum(cell in self._short for cell in cells)
        return list(map(known.__getitem__, cells)), faults

    def _value(self, cell: str, text: str) -> Any:
        """One cell's value in SQL form. Raises BadInput."""
        del cell
        if not text:
            return None
        check_spreadsheet(text)
        value = normalise(self.field, text)
        return to_sql(self.field, [list(value) if isinstance(value, tuple) else value])[0]


class DateColumn(Column):
    """Days: some ten thousand distinct ones, remembered for all columns of one kind together."""

    known_max = 65_536

    def __init__(self, field: Field, known: tuple[dict[str, Any], dict[str, str]]) -> None:
        super().__init__(field)
        self._known, self._wrong = known

    def _value(self, cell: str, text: str) -> Any:
        return super()._value(cell, _MIDNIGHT.sub("", text))


class DigitsColumn(Column):
    """Numbers of a fixed length, kept as text; nearly all are right as they stand."""

    def _judge(self, cells: Sequence[str]) -> Judged:
        digits = "".join(cells)
        if digits.isascii() and digits.isdecimal() and set(map(len, cells)) <= {0, self.field.digits}:
            return [cell or None for cell in cells], {}
        return super()._judge(cells)

    def _value(self, cell: str, text: str) -> Any:
        check_shortened(text)
        size = self.field.digits or 0
        if text.isascii() and text.isdecimal() and 0 < size - len(text) <= ZEROS_MAX:
            self._short.add(cell)
            text = text.zfill(size)
        return super()._value(cell, text)


@dataclass(frozen=True, slots=True)
class Codes:
    """One kind of codes: all of them, and what people write for them. A text that may mean several has None."""

    all: frozenset[str]
    by_text: Mapping[str, str | None]


def codes_of(rows: Sequence[tuple[str, str, bool]]) -> Codes:
    """From (code, label, out of use). A code's own spelling goes before labels, a label in use before others."""
    by_text = _meanings((label, code) for code, label, retired in rows if retired)
    by_text |= _meanings((label, code) for code, label, retired in rows if not retired)
    by_text |= _meanings((code, code) for code, _label, _retired in rows)
    return Codes(frozenset(code for code, _label, _retired in rows), by_text)


def _meanings(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for text, code in pairs:
        if name := folded(text):
            found[name] = code if found.get(name, code) == code else None
    return found


class CodeColumn(Column):
    """Codes, or what the catalogue calls them; any code where no catalogue of this kind is known here."""

    def __init__(self, field: Field, codes: Codes | None) -> None:
        super().__init__(field)
        self._codes = codes

    def _value(self, cell: str, text: str) -> Any:
        if not text:
            return None
        check_spreadsheet(text)
        check_shortened(text)
        code = normalise(self.field, text)
        if self._codes is None or code in self._codes.all:
            return code
        if (meant := folded(text)) not in self._codes.by_text:
            raise BadInput(say("load.why.code", kind=self.field.kind))
        if self._codes.by_text[meant] is None:
            raise BadInput(say("load.why.codes", kind=self.field.kind))
        return self._codes.by_text[meant]


class TextColumn(Column):
    """Free text: nearly every cell is right as it stands, which a look at all of them together tells."""

    def _judge(self, cells: Sequence[str]) -> Judged:
        joined = "\n".join(cells)
        if "#" not in joined and "E+" not in joined and "\0" not in joined and is_normalized("NFC", joined):
            return [text or None for text in map(str.strip, cells)], {}
        values: list[Any] = []
        faults = {}
        for at, cell in enumerate(cells):
            try:
                check_shortened(cell.strip())
                values.append(self._value(cell, cell.strip()))
            except BadInput as error:
                values.append(None)
                faults[at] = str(error).removeprefix(f"{self.field.name}: ")
        return values, faults


class IdColumn(TextColumn):
    """The key within a unit."""

    def __init__(self) -> None:
        super().__init__(Field("id", FieldType.TEXT, "", Policy.LATEST))

    def read(self, cells: Sequence[str]) -> Judged:
        values, faults = super().read(cells)
        if None in values:
            missing = say("load.why.no_id")
            faults = {at: missing for at, value in enumerate(values) if value is None} | faults
        if len(max(values, key=_length) or "") > ID_CHARS_MAX:
            long = say("load.why.long_id", chars=ID_CHARS_MAX)
            faults |= {at: long for at, value in enumerate(values) if _length(value) > ID_CHARS_MAX}
        return values, faults


def _length(value: str | None) -> int:
    return len(value or "")


class UnitColumn(Column):
    """The unit whose row it is: by its full path, or by its first label where only one unit has it."""

    def __init__(self, writable: Sequence[str], refused: str) -> None:
        super().__init__(Field("unit", FieldType.TEXT, "", Policy.LATEST, required=True))
        self._refused = refused
        self._units: dict[str, str | None] = {}
        for unit in writable:
            label = unit.partition(".")[0]
            self._units[label] = None if label in self._units else unit
        self._units |= {unit: unit for unit in writable}

    def _value(self, cell: str, text: str) -> Any:
        if not text:
            return None
        name = normalize("NFC", text).casefold()
        if name not in self._units:
            raise BadInput(self._refused)
        if self._units[name] is None:
            raise BadInput(say("load.why.units"))
        return self._units[name]


def check_spreadsheet(text: str) -> None:
    """Raises BadInput for what a spreadsheet shows in place of a result."""
    if text in FORMULA_ERRORS or not text.strip("#"):
        raise BadInput(say("load.why.formula"))


def check_shortened(text: str) -> None:
    """Raises BadInput for a long number of which a spreadsheet has kept the first digits only."""
    if _SHORTENED.fullmatch(text):
        raise BadInput(say("load.why.shortened"))


class Columns:
    """Makes the readers of one file's columns."""

    def __init__(self, codes: Mapping[str, Codes]) -> None:
        self._codes = codes
        self._days: dict[bool, tuple[dict[str, Any], dict[str, str]]] = {False: ({}, {}), True: ({}, {})}

    def column(self, field: Field) -> Column:
        match field.type:
            case FieldType.CODE:
                return CodeColumn(field, self._codes.get(field.kind or ""))
            case FieldType.DATE:
                return DateColumn(field, self._days[field.partial])
            case FieldType.TEXT:
                return DigitsColumn(field) if field.digits else TextColumn(field)
        return Column(field)
