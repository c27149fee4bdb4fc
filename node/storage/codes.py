"""Codes: which are known for a unit's rows, and which values wait because theirs is not.

Role: hold a batch's values whose code no catalogue here knows; remember the codes that catalogue batches bring.
Reach: storage tables, registry model. Source: protocol, "Names": a code is known if the catalogue of the row's unit or
of one of its ancestors has it. Invariant: what was known stays known, so that a code's later removal holds nothing back
at one node that another has shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection

from conflict.values import Hold, Value
from node.storage.engine import IN_LIST, bulk, execute, in_list
from node.storage.meta import set_meta
from sync_engine.batch import SectionKind
from sync_engine.entries import Entries
from sync_engine.names import CATALOG, path_of, unit_of
from sync_engine.registry import Field, FieldType, Register, Registry, Table

CODES_CAME = "codes_came"
"""In ``_meta``: values that were held may be shown now; how far they have been looked at."""


Code = tuple[str, str]
"""(kind, code)."""


def codes_in(register: Register, value: Value) -> list[Code]:
    """The codes in a register's value."""
    return [
        (each.kind or "", str(code))
        for each, code in zip(register.fields, register.parts(value), strict=True)
        if each.type is FieldType.CODE and code is not None
    ]


def unknown_codes(connection: Connection, unit: str, codes: Iterable[Code]) -> set[Code]:
    """Those of some codes that the rows of ``unit`` may not hold yet."""
    wanted = set(codes)
    if not wanted:
        return wanted
    rows = execute(
        connection,
        f"SELECT kind, code FROM _code WHERE code {IN_LIST} AND kind {IN_LIST} AND unit {IN_LIST}",
        (in_list({code for _, code in wanted}), in_list({kind for kind, _ in wanted}), in_list(path_of(unit))),
    )
    return wanted - {(kind, code) for kind, code in rows}


def hold_unknown(connection: Connection, unit: str, sections: Sequence[Entries]) -> None:
    """Mark the values of a batch whose code is not known. Set by set: the distinct codes of a column are few."""
    for entries in sections:
        for bit, register in enumerate(entries.registers):
            for each in register.fields if register.name not in entries.withheld else ():
                if each.type is FieldType.CODE:
                    _hold_column(connection, unit, entries, bit, each)


def _hold_column(connection: Connection, unit: str, entries: Entries, bit: int, each: Field) -> None:
    column, kind = entries.columns[each.name], each.kind or ""
    unknown = unknown_codes(connection, unit, ((kind, code) for code in set(column) if code is not None))
    if not unknown:
        return
    broken = entries.broken.setdefault(entries.registers[bit].name, {})
    for at, code in enumerate(column):
        decided = entries.decision(at) is not None  # a person has looked at this very value
        if (kind, code) in unknown and not decided and (entries.masks is None or entries.masks[at] >> bit & 1):
            broken.setdefault(at, Hold.CODE)


def catalogues(registry: Registry) -> list[Table]:
    """The tables in which codes are looked up."""
    return [table for table in registry.tables.values() if table.catalogue and table.has("kind") and table.has("code")]


def note_codes(connection: Connection, registry: Registry, scope: str, sections: Sequence[Entries]) -> None:
    """Remember the codes that a catalogue's batch has brought, shown or not, and that held values may be waiting for
    them. A row may have had any code of its under any kind of its: which of them together, two lives of its origin that
    know nothing of each other would be asked in another order at each node."""
    if not scope.endswith(CATALOG):
        return
    unit, names = unit_of(scope), {table.name for table in catalogues(registry)}
    parts = {
        (unit, entries.table.number, key, name, value)
        for entries in sections
        if entries.table.name in names and entries.kind is SectionKind.ROWS
        for key, name, value in _parts(entries)
    }
    if not parts:
        return
    row = "(unit, tbl, id, name, value)"
    bulk(connection, f"INSERT OR IGNORE INTO _code_part {row} VALUES (?, ?, ?, ?, ?)", sorted(parts))
    count = execute(
        connection,
        "INSERT OR IGNORE INTO _code (kind, code, unit) SELECT kinds.value, codes.value, kinds.unit"
        " FROM _code_part AS kinds JOIN _code_part AS codes USING (unit, tbl, id)"
        f" WHERE kinds.name = 'kind' AND codes.name = 'code' AND unit = ? AND id {IN_LIST}",
        (unit, in_list(sorted({key for _, _, key, _, _ in parts}))),
    ).rowcount
    waits = "SELECT 1 FROM _write WHERE held > 0 AND held = ? LIMIT 1"
    if count and execute(connection, waits, (int(Hold.CODE),)).scalar() is not None:
        set_meta(connection, CODES_CAME, '[0, 0, ""]')


def _parts(entries: Entries) -> Iterator[tuple[str, str, str]]:
    """(id, "kind" or "code", value) that entries write."""
    for at, key in enumerate(entries.ids):
        written = {register.name for register in entries.written(at)}
        for name in ("kind", "code"):
            if entries.table.register_of(name).name in written and entries.columns[name][at]:
                yield key, name, str(entries.columns[name][at])
