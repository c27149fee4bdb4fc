"""Capture: triggers that check what any program writes and note which rows and registers changed.

Role: the SQL of the triggers and of the tables they fill; ``_pending`` is what sealing reads.
Reach: sync_engine.registry; node.storage.tables, checks, nfc; a Connection is an argument.
Invariant: everything inside a trigger runs on SQLite 3.40, which is what a foreign client may bring; the conflict
clause of the client's own statement (OR IGNORE, OR REPLACE, ...) changes nothing in here. Triggers of one event fire
in no promised order, so none depends on another.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from node.storage import nfc
from node.storage.checks import (
    audience_checks,
    change_message,
    changed,
    editor_check,
    field_check,
    key_checks,
    new,
    nfc_check,
    refusal,
    row_checks,
    text_columns,
    unchangeable,
)
from node.storage.tables import NOW_MS, quoted
from sync_engine.registry import REGISTRY_TABLE, FieldType, Register, Registry, Table

PREFIX = "_capture_"
EDITED = "_edited"
"""In a deleted row's image: the masks of the edits noted before the delete, if there were any."""
WORD_BITS = 62
"""Registers in one word of a mask: SQLite's integers have 63 bits and a sign."""

_NOW = f"{NOW_MS} << 16"
_CAPTURING = "(SELECT applying FROM _capture) IS NOT 1"
RISKY = "kind IN ('D', 'E')"
"""SQL: the notes that take something away from rows there were; written alike wherever the index is to serve."""
_ARGUMENTS_MAX = 120
"""SQLite takes at most 127 arguments to one function."""
_BASE_TABLES = (
    "CREATE TABLE IF NOT EXISTS _capture (applying INTEGER)",
    "INSERT INTO _capture SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM _capture)",
    "CREATE TABLE IF NOT EXISTS _pending (unit TEXT, tbl INTEGER, id TEXT, kind TEXT, mask, first INTEGER, "
    "last INTEGER, image TEXT, PRIMARY KEY (unit, tbl, id, kind, mask)) WITHOUT ROWID",
    f"CREATE INDEX IF NOT EXISTS _pending_risky ON _pending (unit, tbl, kind, mask) WHERE {RISKY}",
    "CREATE TABLE IF NOT EXISTS _replaced (unit TEXT, tbl INTEGER, id TEXT, mask, image TEXT, barred INTEGER, "
    "PRIMARY KEY (unit, tbl, id)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _writable_unit (unit TEXT PRIMARY KEY) WITHOUT ROWID",
)


def capture_schema_sql() -> list[str]:
    """The statements that make capture's own tables and fill those that never change; safe to repeat."""
    return [*_BASE_TABLES, *nfc.TABLES_SQL, *nfc.fill_sql()]


def is_wide(table: Table) -> bool:
    """Whether the table's masks are texts of several words."""
    return len(table.registers) > WORD_BITS


def mask_bits(table: Table, mask: int | str) -> list[int]:
    """The indices of the registers that a mask in ``_pending`` names."""
    words = [int(word) for word in mask.split(",")] if isinstance(mask, str) else [mask]
    return [
        number * WORD_BITS + bit for number, word in enumerate(words) for bit in range(WORD_BITS) if word >> bit & 1
    ]


def touched_sql(register: Register, old: str, fresh: str) -> str:
    """SQL: whether any field of the register differs between two rows."""
    return " OR ".join(f"{fresh}.{quoted(field.name)} IS NOT {old}.{quoted(field.name)}" for field in register.fields)


def mask_sql(table: Table, old: str, fresh: str) -> str:
    """The mask of the registers in which two rows differ."""
    words = [table.registers[start : start + WORD_BITS] for start in range(0, len(table.registers), WORD_BITS)]
    sums = [
        " + ".join(f"(({touched_sql(register, old, fresh)}) << {bit})" for bit, register in enumerate(word))
        for word in words
    ]
    return sums[0] if len(sums) == 1 else " || ',' || ".join(f"({one})" for one in sums)


def no_change_sql(table: Table) -> str:
    """The mask of two rows that differ in nothing."""
    words = -(-len(table.registers) // WORD_BITS)
    return "0" if words == 1 else "'" + ",".join("0" * words) + "'"


def _json_object(columns: Sequence[tuple[str, str]]) -> str:
    """A JSON object of (name, SQL value), however many: pieces are joined as text."""
    pieces = []
    for start in range(0, len(columns), _ARGUMENTS_MAX // 2):
        pairs = ", ".join(f"'{name}', {value}" for name, value in columns[start : start + _ARGUMENTS_MAX // 2])
        pieces.append(f"json_object({pairs})")
    joined = pieces[0]
    for piece in pieces[1:]:
        joined = f"substr({joined}, 1, length({joined}) - 1) || ',' || substr({piece}, 2)"
    return joined


def image_sql(table: Table, row: str, *, remembered_only: bool = False) -> str:
    """A JSON object of a row's values in SQL form, bytes as hex, reals as text; all of them, or those that are
    remembered when they change."""
    columns = [
        (field.name, _image_value(field.type, f"{row}.{quoted(field.name)}"))
        for field in table.fields
        if not remembered_only or is_remembered(table.register_of(field.name))
    ]
    if not remembered_only:
        columns.append(("edited_by", f'{row}."edited_by"'))
    return _json_object(columns)


def _image_value(kind: FieldType, column: str) -> str:
    """A value for JSON: bytes as hex; a real as text, because SQLite's JSON keeps 15 digits of 17."""
    if kind is FieldType.BYTES:
        return f"CASE WHEN {column} IS NOT NULL THEN hex({column}) END"
    return f"CASE WHEN {column} IS NOT NULL THEN quote({column}) END" if kind is FieldType.REAL else column


def is_remembered(register: Register) -> bool:
    """Whether a register's earlier value is noted when it changes: of a set, because what was taken away travels; of
    codes, because the earlier one is shown again where the new one turns out to be unknown."""
    return register.is_union or any(field.type is FieldType.CODE for field in register.fields)


def remembered(table: Table) -> list[Register]:
    return [register for register in table.registers if is_remembered(register)]


def _key(table: Table, row: str) -> str:
    return f'unit = {row}."unit" AND tbl = {table.number} AND id = {row}."id"'


def _trigger(table: Table, name: str, event: str, when: str, body: Sequence[str]) -> str:
    return (
        f"CREATE TRIGGER {quoted(f'{PREFIX}{table.name}_{name}')} {event} ON {quoted(table.name)} "
        f"WHEN {_CAPTURING}{when} BEGIN\n" + ";\n".join(body) + ";\nEND"
    )


def note_sql(table: Table, row: str, source: str) -> str:
    """Write (kind, mask, image) rows of ``source``, whose key is in ``row``, into _pending; a repeat only moves
    ``last``. ``row`` may be ``noted``, which is the source itself."""
    return (
        f'INSERT INTO _pending SELECT {row}."unit", {table.number}, {row}."id", kind, mask, {_NOW}, {_NOW}, image '
        f"FROM ({source}) AS noted WHERE 1 ON CONFLICT DO UPDATE SET last = excluded.last"
    )


def _before_insert(table: Table, unit: str) -> str:
    """An insert on a key that exists is REPLACE, an upsert or ignored; which, only a later trigger knows.

    REPLACE fires no delete trigger, so what it changes is worked out here and left in _replaced for the insert
    trigger. A row at a time is inserted, so one note a table is enough; a note that an upsert or an ignored insert
    left is harmless, because every insert on its key comes through here first and puts it right.
    """
    stored = f'"unit" = {new("unit")} AND "id" = {new("id")}'
    exists = f"EXISTS (SELECT 1 FROM {quoted(table.name)} WHERE {stored})"
    image, barred = "NULL", "0"
    if kept := remembered(table):
        touched = " OR ".join(touched_sql(register, "o", "NEW") for register in kept)
        image = f"CASE WHEN {touched} THEN {image_sql(table, 'o', remembered_only=True)} END"
    if locked := unchangeable(table, unit):
        whens = " ".join(f"WHEN {touched_sql(register, 'o', 'NEW')} THEN {register.index + 1}" for register in locked)
        barred = f"CASE {whens} ELSE 0 END"
    note = (
        f'INSERT INTO _replaced SELECT o."unit", {table.number}, o."id", {mask_sql(table, "o", "NEW")}, {image}, '
        f"{barred} FROM {quoted(table.name)} o WHERE {stored}"
    )
    body = [f"DELETE FROM _replaced WHERE tbl = {table.number}", note]
    return _trigger(table, "before_insert", "BEFORE INSERT", f" AND ({exists} OR {_is_replaced(table)})", body)


def _is_replaced(table: Table) -> str:
    return f"EXISTS (SELECT 1 FROM _replaced WHERE {_key(table, 'NEW')})"


def _after_insert(table: Table, registry: Registry, unit: str) -> list[str]:
    """Checks and the note of a new row; and, apart, the note of what a REPLACE changed."""
    replaced = f"FROM _replaced WHERE {_key(table, 'NEW')}"
    checks = [
        *key_checks(table, unit),
        *row_checks(registry, table, unit, "NEW"),
        editor_check(table),
        *(field_check(table, field) for field in table.fields),
        *audience_checks(registry, table, unit, inserting=True),
    ]
    inserted = [
        "SELECT " + ",\n".join(checks),
        nfc_check(table, text_columns(table), only_changed=False),
        note_sql(table, "NEW", f"SELECT 'I' AS kind, 0 AS mask, NULL AS image WHERE NOT {_is_replaced(table)}"),
    ]
    edited, nothing = [], no_change_sql(table)
    if locked := unchangeable(table, unit):
        whens = " ".join(
            f"WHEN {register.index + 1} THEN "
            + refusal(table, register.fields[0].name, change_message(registry, register))
            for register in locked
        )
        edited.append(f"SELECT CASE barred {whens} END {replaced}")
    edited += [
        note_sql(table, "NEW", f"SELECT 'B' AS kind, 0 AS mask, image {replaced} AND image IS NOT NULL"),
        note_sql(table, "NEW", f"SELECT 'E' AS kind, mask, NULL AS image {replaced} AND mask <> {nothing}"),
    ]
    return [
        _trigger(table, "insert", "AFTER INSERT", "", inserted),
        _trigger(table, "replace", "AFTER INSERT", f" AND {_is_replaced(table)}", edited),
    ]


def _after_update(table: Table, registry: Registry, unit: str) -> str:
    """Checks of what changed, and the note. Setting a register to the value it has notes nothing."""
    checks = row_checks(registry, table, unit, "NEW")
    checks += [f"CASE WHEN {changed(field.name)} THEN {field_check(table, field)} END" for field in table.fields]
    checks += [editor_check(table), *audience_checks(registry, table, unit, inserting=False)]
    body = [
        "SELECT " + ",\n".join(checks),
        nfc_check(table, [name for name in text_columns(table) if name != "id"], only_changed=True),
    ]
    if kept := remembered(table):
        touched = " OR ".join(touched_sql(register, "OLD", "NEW") for register in kept)
        image = image_sql(table, "OLD", remembered_only=True)
        body.append(note_sql(table, "NEW", f"SELECT 'B' AS kind, 0 AS mask, {image} AS image WHERE {touched}"))
    # LIMIT keeps SQLite from merging the subquery into the outer one and working the mask out twice.
    mask = f"SELECT 'E' AS kind, {mask_sql(table, 'OLD', 'NEW')} AS mask, NULL AS image LIMIT 1"
    body.append(note_sql(table, "NEW", f"SELECT * FROM ({mask}) WHERE mask <> {no_change_sql(table)}"))
    return _trigger(table, "update", "AFTER UPDATE", "", body)


def _key_change(table: Table) -> str:
    message = f"{table.name}: unit and id cannot be changed; delete the row and insert it anew"
    moved = f" AND ({changed('unit')} OR {changed('id')})"
    return _trigger(table, "key", 'BEFORE UPDATE OF "unit", "id"', moved, [f"SELECT RAISE(ABORT, '{message}')"])


def _after_delete(table: Table, registry: Registry, unit: str) -> str:
    # Edits noted later are of the row that takes this one's place: nothing else could tell them apart.
    edits = f"SELECT group_concat(mask, ' ') FROM _pending WHERE {_key(table, 'OLD')} AND kind = 'E'"
    row = f"SELECT {image_sql(table, 'OLD')} AS image, ({edits}) AS edits LIMIT 1"
    marked = f"substr(image, 1, length(image) - 1) || ',\"{EDITED}\":\"' || edits || '\"}}'"
    source = f"SELECT 'D' AS kind, 0 AS mask, coalesce({marked}, image) AS image FROM ({row})"
    checks = [f"SELECT {check}" for check in row_checks(registry, table, unit, "OLD")]
    return _trigger(table, "delete", "AFTER DELETE", "", [*checks, note_sql(table, "OLD", source)])


def _published(table: Table) -> list[str]:
    """A registry version never changes once it is there: batches are judged by its very text."""
    if table.name != REGISTRY_TABLE:
        return []
    refused = ["SELECT RAISE(ABORT, '_registry: a published version cannot be changed; insert the next one')"]
    exists = f' AND EXISTS (SELECT 1 FROM {quoted(table.name)} WHERE "unit" = {new("unit")} AND "id" = {new("id")})'
    return [
        _trigger(table, "published_update", "BEFORE UPDATE", "", refused),
        _trigger(table, "published_delete", "BEFORE DELETE", "", refused),
        _trigger(table, "published_replace", "BEFORE INSERT", exists, refused),
    ]


def triggers_sql(registry: Registry, table: Table, unit: str) -> list[str]:
    """The triggers of one table, for the node of ``unit``: what it may write depends on its level."""
    return [
        *_published(table),
        _before_insert(table, unit),
        *_after_insert(table, registry, unit),
        _after_update(table, registry, unit),
        _key_change(table),
        _after_delete(table, registry, unit),
    ]


def install_capture(conn: Connection, registry: Registry, unit: str) -> None:
    """Replace all capture triggers by this registry's, making capture's own tables first. Safe to repeat."""
    for statement in (*_BASE_TABLES, *nfc.TABLES_SQL):
        conn.exec_driver_sql(statement)
    if conn.exec_driver_sql("SELECT count(*) FROM _nfc_char").scalar() != len(nfc.characters()):
        for statement in nfc.fill_sql():
            conn.exec_driver_sql(statement)
    old = conn.exec_driver_sql(
        f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND substr(name, 1, {len(PREFIX)}) = '{PREFIX}'"
    ).scalars()
    for name in list(old):
        conn.exec_driver_sql(f"DROP TRIGGER {quoted(name)}")
    for table in registry.all_tables.values():
        for statement in triggers_sql(registry, table, unit):
            conn.exec_driver_sql(statement)
