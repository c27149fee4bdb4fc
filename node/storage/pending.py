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
from node.storage.capture import EDITED, remembered
from node.storage.engine import IN_LIST, execute, in_list, quoted
from sync_engine.entries import Entries
from sync_engine.errors import BadInput, Malformed
from sync_engine.fields import check_column, from_sql, normalise, rule_breaks, to_sql
from sync_engine.limits import ROW_BYTES_MAX
from sync_engine.registry import Field, FieldType, Register, Table
from sync_engine.seal import Known, Noted, SqlRow

IMAGE_BYTES_MAX = 2 * ROW_BYTES_MAX
"""A deleted row's image is JSON, in which bytes are twice as long."""

_NOTES = "SELECT id, kind, mask, first, last, CAST(image AS BLOB) FROM _pending"
"""As bytes, because an image may hold what a client wrote as text and is none."""


def mask_of(raw: int | str) -> int:
    """A capture mask: one integer, or comma-joined words of 62 bits for wide tables."""
    if isinstance(raw, int):
        return raw
    return sum(int(word) << 62 * at for at, word in enumerate(raw.split(",")))


def read_notes(
    connection: Connection, table: Table, unit: str, notes_max: int
) -> tuple[dict[str, Noted], dict[str, int]]:
    """Pending notes by key, and the bytes of each key's images. A key whose notes do not all fit is left for the next
    window, unless it is alone; a row that was set aside and has changed since brings its earlier notes."""
    notes, place = f"{_NOTES} WHERE unit = ? AND tbl = ?", (unit, table.number)
    rows = execute(connection, f"{notes} ORDER BY id LIMIT ?", (*place, notes_max + 1)).all()
    cut = rows[-1][0] if len(rows) > notes_max else None
    if cut is not None and cut == rows[0][0]:
        rows, cut = execute(connection, f"{notes} AND id = ?", (*place, cut)).all(), None
    keys = in_list({row[0] for row in rows if row[0] != cut})
    aside = execute(connection, f"{notes} AND id {IN_LIST}", (unit, -table.number, keys)).all()
    found: dict[str, Noted] = {}
    images: dict[str, int] = {}
    for key, kind, mask, first, last, image in (*aside, *rows):
        if key == cut:
            break
        note = found.setdefault(key, Noted(key))
        note.count += 1
        images[key] = images.get(key, 0) + len(image or b"")
        if kind == "I":
            note.inserted = last
        elif kind == "E":
            note.edits.append((mask_of(mask), first, last))
        elif kind == "D":
            if note.image is None:
                note.image, note.edited_before = image_row(table, image), edited_before(image)
            note.deleted = last
        else:
            note.before = note.before or before_image(table, image)
    kept = sum(1 << register.index for register in remembered(table))
    for key, note in found.items():
        if note.image is not None and not any(mask & kept for mask in note.edited_before):
            note.before = {}  # noted after the delete, of the row that took this one's place
        if note.image is not None and images[key] > IMAGE_BYTES_MAX:
            note.edits, images[key] = [], 0  # a row too long to travel is deleted without them
    return found, images


def image_row(table: Table, image: bytes) -> SqlRow:
    """A deleted row's image in SQL form: bytes come as hexadecimal text, reals as text."""
    values = json.loads(image.decode(errors="replace"))
    row = []
    for each in table.fields:
        value = values.get(each.name)
        if value is not None and each.type in (FieldType.BYTES, FieldType.REAL):
            value = bytes.fromhex(value) if each.type is FieldType.BYTES else float(value)
        row.append(_composed(each, value))
    return [*row, values.get("edited_by")]


def _composed(each: Field, value: Any) -> Any:
    """A value in NFC: a deleted row's text is nowhere else to be mended."""
    if not isinstance(value, str) or is_normalized("NFC", value):
        return value
    try:
        return to_sql(each, [normalise(each, from_sql(each, [value])[0])])[0]
    except (BadInput, Malformed, ValueError):
        return value  # set aside with its reason when the window is checked


def edited_before(image: bytes) -> frozenset[int]:
    """The masks of the edits that were noted before a row's first delete."""
    masks = json.loads(image.decode(errors="replace")).get(EDITED) or ""
    return frozenset(mask_of(int(each) if each.isdigit() else each) for each in str(masks).split())


def before_image(table: Table, image: bytes) -> dict[str, Any]:
    """The remembered fields as they were before the first pending change, in wire form: of unions, the elements."""
    values = json.loads(image.decode(errors="replace"))
    return {name: _was(table, table.field(name), value) for name, value in values.items()}


def _was(table: Table, each: Field, value: Any) -> Any:
    if table.register_of(each.name).is_union:
        return _elements(each, value)
    if value is not None and each.type in (FieldType.BYTES, FieldType.REAL):
        return bytes.fromhex(value) if each.type is FieldType.BYTES else float(value)
    return from_sql(each, [value])[0]


def _elements(each: Field, value: Any) -> list[str]:
    raw = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return list(from_sql(each, [raw])[0] or [])


def wire_row(table: Table, row: SqlRow) -> dict[str, Any]:
    """A row in SQL form as wire values by field."""
    return {each.name: from_sql(each, [value])[0] for each, value in zip(table.fields, row, strict=False)}


def fault_in(entries: Entries) -> str | None:
    """Why receivers would refuse these entries or hold a value of theirs, if they would."""
    for register in entries.registers:
        for each in register.fields:
            try:
                check_column(each, entries.columns[each.name])
            except Malformed as error:
                return f"{entries.table.name}.{each.name}: {error}"
            if _breaks_rule(entries, register, each):
                return f"{entries.table.name}.{each.name}: a value that breaks the field's rule"
    return None


def _breaks_rule(entries: Entries, register: Register, each: Field) -> bool:
    places = [] if register.is_union else rule_breaks(each, entries.columns[each.name])
    return any(register in entries.written(at) for at in places)


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
        "SELECT id, identity, register, element, max(time), max(value = x'c3' AND held = 0)"  # c3: true, present
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
