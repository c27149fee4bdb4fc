"""Phase 1 of a load: a file's rows, checked and laid out in columns, wait in the spool; no lock is held meanwhile.

Role: judge every cell and every rule that needs no look at the table, and keep out the rows that break one.
Reach: node.bulk, the registry's model; what the database knows comes as ``Ground``. Invariant: what the spool holds
passes the table's own checks as an insert, save what only the table can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, zip_longest
from typing import Any

from conflict.values import level_of
from node.bulk.cells import Codes, Column, Columns, IdColumn, TextColumn, UnitColumn
from node.bulk.headings import BY, ID, UNIT, Layout
from node.bulk.keys import SeenKeys
from node.bulk.rejections import Rejections
from node.bulk.source import ROWS_MAX, Chunk, Source, Unreadable
from node.bulk.spool import Spool
from node.messages import say
from node.storage.checks import read_message, rows_message, unit_message
from sync_engine.limits import ROW_BYTES_MAX
from sync_engine.registry import Field, FieldType, Registry, Table

LINE = ""
"""In a chunk of the spool: the column of lines. No field has this name."""

_UTF8_GROWTH_MAX = 12
"""A character has at most four bytes, and composing it may make three of it."""

_OF_NO_SIZE = (FieldType.INT, FieldType.BOOL, FieldType.REAL)

Faults = dict[int, list[tuple[str, str]]]
"""By place in the chunk: (column, reason)."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a load needs to know of the node. ``codes`` are by kind, where a catalogue of that kind is here."""

    unit: str
    registry: Registry
    table: Table
    writable: tuple[str, ...]
    codes: Mapping[str, Codes]


class Reader:
    """Reads one file into a spool."""

    def __init__(
        self, ground: Ground, layout: Layout, source: Source, spool: Spool, rejections: Rejections, by: str | None
    ) -> None:
        self.ground, self.layout, self.spool, self.rejections, self.by = ground, layout, spool, rejections, by
        self.rows = 0
        self.keys = SeenKeys()
        self._chunks: Iterator[Chunk] = source.chunks()
        self._make = Columns(ground.codes)
        self._columns = {name: self._column(name) for name in layout.names}
        own = level_of(ground.unit)
        self._closed = {unit for unit in ground.writable if not ground.table.may_read_rows(own, level_of(unit))}
        self._hidden = {
            unit: {
                each.name: read_message(ground.registry, register)
                for register in ground.table.registers
                if not ground.table.may_read(register, own, level_of(unit))
                for each in register.fields
                if each.name in self._columns
            }
            for unit in ground.writable
            if unit not in self._closed
        }
        self._hides = bool(self._closed) or any(self._hidden.values())

    def _column(self, name: str) -> Column:
        table = self.ground.table
        if name == ID:
            return IdColumn()
        if name == UNIT:
            return UnitColumn(self.ground.writable, unit_message(table, self.ground.unit))
        if name == BY:
            return TextColumn(Field(BY, FieldType.TEXT, "", table.fields[0].policy))
        return self._make.column(table.field(name))

    @property
    def names(self) -> list[str]:
        """The columns besides the key that the spool has."""
        return [name for name in self._columns if name not in (UNIT, ID)]

    @property
    def padded(self) -> int:
        """Numbers whose leading zeros were put back."""
        return sum(column.padded for column in self._columns.values())

    def next_chunk(self) -> bool:
        """Read some more rows; False at the end. Raises Unreadable, DiskFull or OSError."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self.rows += len(chunk.rows) + len(chunk.faults)
        if self.rows > ROWS_MAX:
            raise Unreadable(say("load.too_many", rows=ROWS_MAX))
        for line, reason in chunk.faults:
            self.rejections.add(line, [("", reason)])
        if not chunk.rows:
            return True
        values, faults = self._judge(chunk)
        if faults:
            for at in sorted(faults):
                self.rejections.add(chunk.lines[at], faults[at])
            good = [at not in faults for at in range(len(chunk.rows))]
            values = {name: list(compress(column, good)) for name, column in values.items()}
        if values[LINE]:
            self.keys.note(values[UNIT], values[ID])
            self.spool.put(values)
        return True

    def _judge(self, chunk: Chunk) -> tuple[dict[str, list[Any]], Faults]:
        """The chunk in columns of values, and what is wrong with it."""
        faults: Faults = {}
        count = len(chunk.rows)
        cells: list[Sequence[str]] = list(zip_longest(*chunk.rows, fillvalue=""))
        values: dict[str, list[Any]] = {LINE: chunk.lines, UNIT: [self.ground.unit] * count}
        places = self.layout.columns
        for place in (*self.layout.unnamed, *range(len(places), len(cells))):
            if place < len(cells):
                reason = say("load.why.unnamed", place=place + 1)
                _note(faults, "", {at: reason for at, cell in enumerate(cells[place]) if cell.strip()})
        for place, name in enumerate(places):
            if name is not None:
                read = cells[place] if place < len(cells) else [""] * count
                values[name], wrong = self._columns[name].read(read)
                _note(faults, name, wrong)
        if self._hides:
            self._check_hidden(values, faults)
        if chunk.row_chars * _UTF8_GROWTH_MAX > ROW_BYTES_MAX:
            self._check_size(values, faults)
        return values, faults

    def _check_hidden(self, values: Mapping[str, list[Any]], faults: Faults) -> None:
        """A field that this node may not read in a unit's rows is not written there either; nor is a row of which it
        may know the key only."""
        closed = rows_message(self.ground.registry, self.ground.table)
        for at, unit in enumerate(values[UNIT]):
            if unit in self._closed:
                faults.setdefault(at, []).append((UNIT, closed))
            for name, reason in self._hidden.get(unit, {}).items():
                if values[name][at] is not None:
                    faults.setdefault(at, []).append((name, reason))

    def _check_size(self, values: Mapping[str, list[Any]], faults: Faults) -> None:
        sized = [values[each.name] for each in self.ground.table.fields if self._is_sized(each)]
        for at in range(len(values[LINE])):
            octets = sum(_octets(column[at]) for column in sized)
            if octets > ROW_BYTES_MAX:
                faults.setdefault(at, []).append(("", say("load.why.large", octets=ROW_BYTES_MAX)))

    def _is_sized(self, field: Field) -> bool:
        return field.name in self._columns and field.type not in _OF_NO_SIZE

    def chunks(self) -> Iterator[dict[str, list[Any]]]:
        """What was read, for phase 2, with ``by`` as the editor of every row."""
        for values in self.spool.chunks():
            if self.by is not None:
                values[BY] = [self.by] * len(values[LINE])
            yield values


def _note(faults: Faults, name: str, wrong: Mapping[int, str]) -> None:
    for at, reason in wrong.items():
        faults.setdefault(at, []).append((name, reason))


def _octets(value: str | bytes | None) -> int:
    return 0 if value is None else len(value) if isinstance(value, bytes) else len(value.encode())
