"""What capture noted, read for sealing: notes, images, current text, and what the registers hold.

Role: turn rows of ``_pending``, ``_row`` and ``_write`` into what ``sync_engine.seal`` folds.
Reach: storage tables, registry model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unicodedata import is_normalized

from sqlalchemy import Connection

from conflict.values import StreamId
from node.storage.apply import applying
from node.storage.engine import IN_LIST, execute, in_list, quoted
from sync_engine.entries import Entries
from sync_engine.errors import BadInput, Malformed
from sync_engine.fields import check_column, from_sql, normalise, to_sql
from sync_engine.registry import Field, FieldType, Table
from sync_engine.seal import Known, SqlRow


def mask_of(raw: int | str) -> int:
    """A capture mask: one integer, or comma-joined words of 62 bits for wide tables."""
    if isinstance(raw, int):
        return raw
    return sum(int(word) << 62 * at for at, word in enumerate(raw.split(",")))


def image_row(table: Table, image: str) -> SqlRow:
    """A deleted row's image in SQL form: bytes come as hexadecimal text, reals as text."""
    values = json.loads(image)
    row = []
    for each in table.fields:
        value = values.get(each.name)
        if value is not None and each.type in (FieldType.BYTES, FieldType.REAL):
            value = bytes.fromhex(value) if each.type is FieldType.BYTES else float(value)
        row.append(value)
    return [*row, values.get("edited_by")]


def before_image(table: Table, image: str) -> dict[str, list[str]]:
    """Union fields as they were before the first pending change: their elements."""
    values = json.loads(image)
    return {name: _elements(table.field(name), value) for name, value in values.items()}


def _elements(each: Field, value: Any) -> list[str]:
    raw = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return list(from_sql(each, [raw])[0] or [])


def wire_row(table: Table, row: SqlRow) -> dict[str, Any]:
    """A row in SQL form as wire values by field."""
    return {each.name: from_sql(each, [value])[0] for each, value in zip(table.fields, row, strict=False)}


def fault_in(entries: Entries) -> str | None:
    """Why receivers would refuse these entries, if they would."""
    for register in entries.registers:
        for each in register.fields:
            try:
                check_column(each, entries.columns[each.name])
            except Malformed as error:
                return f"{entries.table.name}.{each.name}: {error}"
    return None


def normalise_text(connection: Connection, table: Table, unit: str, rows: dict[str, SqlRow]) -> None:
    """Text that slipped past the table's guard is brought to NFC and written back before it is sealed."""
    texts = [
        (at, each)
        for at, each in enumerate(table.fields)
        if each.type in (FieldType.TEXT, FieldType.ENUM, FieldType.CODE, FieldType.SET)
    ]
    mended: dict[str, dict[str, Any]] = {}
    for at, each in texts:
        joined = "\0".join([row[at] for row in rows.values() if row[at] is not None])
        if is_normalized("NFC", joined):
            continue
        for key, row in rows.items():
            if row[at] is None:
                continue
            try:
                wire = from_sql(each, [row[at]])[0]
                better = to_sql(each, [normalise(each, wire)])[0]
            except (BadInput, Malformed, ValueError):
                continue  # set aside with its reason when the window is checked
            if better != row[at]:
                mended.setdefault(key, {})[each.name] = better
                rows[key] = [better if place == at else value for place, value in enumerate(rows[key])]
    if mended:
        with applying(connection):
            for key, values in mended.items():
                sets = ", ".join(f"{quoted(name)} = ?" for name in values)
                execute(
                    connection,
                    f"UPDATE {quoted(table.name)} SET {sets} WHERE unit = ? AND id = ?",
                    (*values.values(), unit, key),
                )


def known_rows(connection: Connection, table: Table, stream: StreamId, keys: Sequence[str]) -> dict[str, list[Known]]:
    """What the registers hold of some keys: times only, and the elements of unions that have registers of their own."""
    scope = execute(connection, "SELECT no FROM _scope WHERE name = ?", (stream.scope,)).scalar()
    if scope is None:
        return {}
    where = f"scope = ? AND tbl = ? AND id {IN_LIST}"
    key = (scope, table.number, in_list(keys))
    stored = execute(
        connection,
        f"SELECT id, identity, time, coalesce(alive_time, time), alive, shown FROM _row WHERE {where}",
        key,
    ).all()
    if not stored:
        return {}
    found: dict[str, list[Known]] = {}
    by_row: dict[tuple[str, bytes], Known] = {}
    for each, identity, time, alive_time, alive, shown in stored:
        known = Known(identity, time, alive_time, bool(alive), bool(shown))
        found.setdefault(each, []).append(known)
        by_row[(each, identity)] = known
    writes = execute(
        connection,
        "SELECT id, identity, register, element, max(time), max(value = x'c3')"  # c3: MessagePack's true, present
        f" FROM _write WHERE {where} GROUP BY id, identity, register, element",
        key,
    )
    for each, identity, register, element, time, present in writes:
        known = by_row[(each, identity)]
        if register == "_alive":
            known.alive_time = max(known.alive_time, time)
            continue
        known.register_times[register] = max(known.register_times.get(register, 0), time)
        if element or (table.register(register).is_union):
            elements = known.elements.get(register, frozenset())
            known.elements[register] = elements | {element} if present else elements
    return found
