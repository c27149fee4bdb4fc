"""The real tables: plain SQL tables, one for each table of the registry, that any program reads and writes.

Role: their DDL, and what SQL type a field has.
Reach: sync_engine.registry; a Connection is an argument.
Invariant: the key and no other constraint, because two good concurrent edits must always be storable; rules are
checked at capture. WITHOUT ROWID, because a rowid would let REPLACE remove another row unseen. Nothing is ever
dropped: a column that the registry no longer names keeps its data.
"""

from __future__ import annotations

from sqlalchemy import Connection

from sync_engine.registry import Field, FieldType, Registry, Table

SQL_TYPES = {
    FieldType.TEXT: "TEXT",
    FieldType.INT: "INTEGER",
    FieldType.REAL: "REAL",
    FieldType.BOOL: "INTEGER",
    FieldType.DATE: "TEXT",
    FieldType.TIMESTAMP: "TEXT",
    FieldType.ENUM: "TEXT",
    FieldType.SET: "TEXT",
    FieldType.CODE: "TEXT",
    FieldType.BYTES: "BLOB",
}

NOW_MS = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
"""Milliseconds since 1970; the same value everywhere in one statement. (SQLite 3.40 has no finer clock.)"""

UUID7 = (
    f"(lower(printf('%08x-%04x-7%03x-%04x-%012x', {NOW_MS} >> 16, {NOW_MS} & 65535, random() & 4095, "
    "32768 | (random() & 16383), random() & 281474976710655)))"
)
"""RFC 9562 version 7, made in SQL: rows that a program inserts without an id sort by when they came."""


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _column_sql(field: Field) -> str:
    return f"{quoted(field.name)} {SQL_TYPES[field.type]}"


def create_table_sql(table: Table) -> str:
    """The statement that makes a real table if there is none."""
    columns = ['"unit" TEXT', f'"id" TEXT DEFAULT {UUID7}', *map(_column_sql, table.fields), '"edited_by" TEXT']
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(table.name)} ("
        + ", ".join(columns)
        + ', PRIMARY KEY ("unit", "id")) WITHOUT ROWID'
    )


def add_columns_sql(table: Table, present: set[str]) -> list[str]:
    """The statements that add the fields a real table lacks."""
    return [
        f"ALTER TABLE {quoted(table.name)} ADD COLUMN {_column_sql(field)}"
        for field in table.fields
        if field.name not in present
    ]


def install_tables(conn: Connection, registry: Registry) -> None:
    """Create the tables and columns that are missing, the built-in tables' too. Doing it again changes nothing."""
    for table in registry.all_tables.values():
        rows = conn.exec_driver_sql(f"PRAGMA table_info({quoted(table.name)})").all()
        if not rows:
            conn.exec_driver_sql(create_table_sql(table))
            continue
        for statement in add_columns_sql(table, {str(row[1]) for row in rows}):
            conn.exec_driver_sql(statement)
