"""What a real table refuses, as SQL: each field's rule with the sentence a plain client is shown.

Role: from a field to (condition that a value breaks, message); the triggers are put together in capture.
Reach: sync_engine.registry; node.storage.tables and nfc for SQL.
Invariant: a rule here accepts exactly what sync_engine.fields accepts on the wire, NFC of rare scripts excepted.
"""

from __future__ import annotations

from collections.abc import Sequence

from conflict.values import level_of
from node.storage.nfc import first_bad_sql, guard_sql
from node.storage.tables import literal, quoted
from sync_engine.registry import REGISTRY_TABLE, Field, FieldType, Register, Registry, Table, may_change

ID_LENGTH_MAX = 200

Rule = tuple[str, str]
"""An SQL condition that is true of a wrong value, and what is right."""

_TEXTUAL = (FieldType.TEXT, FieldType.CODE, FieldType.SET)


def refusal(table: Table, column: str, message: str) -> str:
    """The SQL that refuses the statement, naming the column. SQLite 3.40 takes only a literal here."""
    return f"RAISE(ABORT, {literal(f'{table.name}.{column}: {message}')})"


def new(name: str) -> str:
    return "NEW." + quoted(name)


def changed(name: str) -> str:
    return f"{new(name)} IS NOT OLD.{quoted(name)}"


def _one_of(column: str, values: Sequence[str | int]) -> str:
    # CASE, not IN: SQLite would build the list of an IN anew for every row that fires the trigger.
    cases = " ".join(f"WHEN {literal(v) if isinstance(v, str) else v} THEN 0" for v in values)
    return f"CASE {column} {cases} ELSE 1 END"


def _date_rule(column: str, partial: bool) -> str:
    # The modifier makes SQLite work the date out: without one, 30 February comes back as it went in.
    whole = f"WHEN 10 THEN date({column}, '0 days') IS NOT {column}"
    parts = (
        f" WHEN 7 THEN date({column} || '-01') IS NOT {column} || '-01'"
        f" WHEN 4 THEN date({column} || '-01-01') IS NOT {column} || '-01-01'"
    )
    # The year 0000 is a date to SQLite and to nobody else.
    return f"(CASE length({column}) {whole}{parts if partial else ''} ELSE 1 END OR {column} < '0001')"


def _timestamp_rule(column: str) -> str:
    seconds = f"substr({column}, 1, 19)"
    rest = f"substr({column}, 20)"
    return (
        f"(strftime('%Y-%m-%dT%H:%M:%S', {seconds}, '0 days') IS NOT {seconds} OR {column} < '0001' "
        f"OR NOT ({rest} = 'Z' OR {rest} GLOB '.[0-9][0-9][0-9]Z'))"
    )


def _set_rule(column: str) -> str:
    """Not a JSON array of distinct sorted texts. Sets of none, one and two elements are judged without a parser's
    table, which would cost more than the insert; quotes and backslashes inside elements take the long way."""
    quotes = f"length({column}) - length(replace({column}, '\"', ''))"
    cut = f"instr({column}, '\",\"')"
    two = (
        f"CASE WHEN {cut} > 3 THEN substr({column}, 3, {cut} - 3) >= "
        f"substr({column}, {cut} + 3, length({column}) - {cut} - 4) END"
    )
    short_way = (
        f"CASE WHEN {column} GLOB '[[]\"?*\"]' AND NOT instr({column}, '\\') "
        f"THEN CASE {quotes} WHEN 2 THEN 0 WHEN 4 THEN {two} END END"
    )
    long_way = (
        f"(SELECT json_group_array(value) FROM (SELECT value FROM json_each({column}) WHERE type = 'text' "
        f"AND value <> '' GROUP BY value ORDER BY value)) IS NOT json({column})"
    )
    return (
        f"CASE WHEN {column} = '[]' THEN 0 WHEN typeof({column}) = 'blob' OR NOT json_valid({column}) THEN 1 "
        f"ELSE coalesce({short_way}, {long_way}) END"
    )


def _type_rule(field: Field) -> Rule:
    column = new(field.name)
    match field.type:
        case FieldType.INT if field.values:
            return _one_of(column, field.values), "one of " + ", ".join(map(str, field.values))
        case FieldType.INT:
            return f"typeof({column}) <> 'integer'", "a whole number"
        case FieldType.REAL:
            return f"typeof({column}) <> 'real' OR abs({column}) > 1.7976931348623157e308", "a number"
        case FieldType.BOOL:
            return _one_of(column, (0, 1)), "0 or 1"
        case FieldType.DATE:
            shapes = "YYYY-MM-DD, YYYY-MM or YYYY" if field.partial else "YYYY-MM-DD"
            return _date_rule(column, field.partial), f"a date of the calendar, {shapes}"
        case FieldType.TIMESTAMP:
            return _timestamp_rule(column), "a time in UTC, YYYY-MM-DDTHH:MM:SSZ"
        case FieldType.ENUM:
            return _one_of(column, field.values), "one of " + ", ".join(map(str, field.values))
        case FieldType.SET:
            return _set_rule(column), "a JSON array of texts, sorted, each once, none empty"
        case FieldType.CODE:
            return f"typeof({column}) = 'blob' OR {column} = ''", "a code's text"
        case FieldType.BYTES:
            return f"typeof({column}) <> 'blob'", "bytes"
        case FieldType.TEXT if field.digits:
            # Both lengths, because the one in characters stops at a NUL.
            size = field.digits
            wrong = f"length({column}) <> {size} OR length(CAST({column} AS BLOB)) <> {size}"
            return f"typeof({column}) = 'blob' OR {wrong} OR {column} GLOB '*[^0-9]*'", f"{size} digits"
        case FieldType.TEXT:
            return f"typeof({column}) = 'blob'", "text"


def field_check(table: Table, field: Field) -> str:
    """A CASE expression that refuses a wrong value of one field, and is null for a right one."""
    condition, right = _type_rule(field)
    column = new(field.name)
    refused = refusal(table, field.name, right)
    if not field.required:
        if field.type is FieldType.TEXT and not field.digits:
            return f"CASE WHEN {condition} THEN {refused} END"
        return f"CASE WHEN {column} IS NOT NULL THEN CASE WHEN {condition} THEN {refused} END END"
    missing = f"{column} IS NULL"
    if field.type in (FieldType.TEXT, FieldType.CODE, FieldType.BYTES):
        missing += f" OR length({column}) = 0"
    return f"CASE WHEN {missing} THEN {refusal(table, field.name, 'required')} WHEN {condition} THEN {refused} END"


def unit_message(table: Table, unit: str) -> str:
    """Whose rows of a table a node may write."""
    if table.name == REGISTRY_TABLE or table.catalogue:
        return f"must be this node's own unit, {unit}"
    return "must be this node's unit or one below it that it knows"


def key_checks(table: Table, unit: str) -> list[str]:
    """Refusals of a new row's key: whose rows this node may write, and what an id is."""
    right = unit_message(table, unit)
    if table.name == REGISTRY_TABLE or table.catalogue:
        wrong = f"{new('unit')} IS NOT {literal(unit)}"
        if table.name == REGISTRY_TABLE and level_of(unit):
            wrong, right = "1", "only the root publishes a registry"
    else:
        wrong = f"NOT EXISTS (SELECT 1 FROM _writable_unit WHERE unit = {new('unit')})"
    identifier = new("id")
    bad_id = f"{identifier} = '' OR length({identifier}) > {ID_LENGTH_MAX} OR typeof({identifier}) <> 'text'"
    return [
        f"CASE WHEN {wrong} THEN {refusal(table, 'unit', right)} END",
        f"CASE WHEN {bad_id} THEN {refusal(table, 'id', f'a text of 1 to {ID_LENGTH_MAX} characters')} END",
    ]


def editor_check(table: Table) -> str:
    """Refusal of an ``edited_by`` that is not text."""
    return f"CASE WHEN typeof({new('edited_by')}) = 'blob' THEN {refusal(table, 'edited_by', 'text')} END"


def text_columns(table: Table) -> list[str]:
    """The columns whose text is the writer's own: the key, free text, codes and sets."""
    free = [field.name for field in table.fields if field.type in _TEXTUAL and not field.digits]
    return ["id", *free, "edited_by"]


def nfc_check(table: Table, columns: Sequence[str], *, only_changed: bool) -> str:
    """A SELECT that refuses text which is not composed; the guard spares nearly every row the scan."""
    texts = [f"CASE WHEN {changed(name)} THEN {new(name)} END" if only_changed else new(name) for name in columns]
    whens = " ".join(
        f"WHEN {number} THEN {refusal(table, name, 'text in Unicode composed form (NFC), without NUL')}"
        for number, name in enumerate(columns, start=1)
    )
    # LIMIT keeps SQLite from merging the subquery into the outer one and joining the texts for each use.
    joined = " || ".join(f"coalesce({text}, '')" for text in texts)
    return (
        f"SELECT CASE {first_bad_sql(texts)} {whens} END FROM "
        f"(SELECT CAST({joined} AS BLOB) AS b LIMIT 1) WHERE {guard_sql('b')}"
    )


def _far(row: str, unit: str) -> str:
    """SQL: whether a row's unit lies deeper than right below this node's."""
    column = f"{row}.{quoted('unit')}"
    return f"length({column}) - length(replace({column}, '.', '')) > {level_of(unit) + 1}"


def _is_above(registry: Registry, read_up_to: int | None, unit: str) -> bool:
    """Whether a node stands above a reading level, and above units that are not right below it."""
    own = level_of(unit)
    return read_up_to is not None and own < read_up_to and own + 1 < registry.deepest


def row_checks(registry: Registry, table: Table, unit: str, row: str) -> list[str]:
    """Refusal of every change to a row of which this node may know the key only, ``row`` being OLD or NEW."""
    if not _is_above(registry, table.read_up_to, unit):
        return []
    return [f"CASE WHEN {_far(row, unit)} THEN {refusal(table, 'unit', rows_message(registry, table))} END"]


def unreadable(registry: Registry, table: Table, unit: str) -> list[tuple[Register, str]]:
    """Registers that this node may not read in some rows, each with the SQL condition for those rows; without those
    of rows that ``row_checks`` refuses as a whole."""
    return [
        (register, _far("NEW", unit))
        for register in table.registers
        if register.read_up_to != table.read_up_to and _is_above(registry, register.read_up_to, unit)
    ]


def unchangeable(table: Table, unit: str) -> list[Register]:
    """Registers that only levels above this node's may change."""
    return [register for register in table.registers if not may_change(register, level_of(unit))]


def audience_checks(registry: Registry, table: Table, unit: str, *, inserting: bool) -> list[str]:
    """Refusals of what receivers would hold back: fields this node may not read, or not change."""
    checks = []
    for register, far in unreadable(registry, table, unit):
        for field in register.fields:
            touched = f"{new(field.name)} IS NOT NULL" if inserting else changed(field.name)
            message = read_message(registry, register)
            checks.append(f"CASE WHEN {touched} AND {far} THEN {refusal(table, field.name, message)} END")
    if not inserting:
        for register in unchangeable(table, unit):
            touched = " OR ".join(changed(field.name) for field in register.fields)
            refused = refusal(table, register.fields[0].name, change_message(registry, register))
            checks.append(f"CASE WHEN {touched} THEN {refused} END")
    return checks


def rows_message(registry: Registry, table: Table) -> str:
    """Who may read the rows of a table, and so write them."""
    level = registry.level_name(table.read_up_to or 0)
    return f"only {level} and the levels below it may read or write this unit's rows"


def read_message(registry: Registry, register: Register) -> str:
    """Who may read a register, and so write it."""
    return f"only {registry.level_name(register.read_up_to or 0)} and the levels below it may read or write it"


def change_message(registry: Registry, register: Register) -> str:
    """Who may change a register."""
    return f"only {registry.level_name(register.write_from or 0)} and the levels above it may change it"
