"""Whether the database file is sound, and whether capture watches the tables as this software would have it.

Role: SQLite's own check; the triggers there are against those that would be made.
Reach: storage, the registry model. Invariant: reads only; ``put_right`` is the one that writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection

from node.storage.adoption import reinstall
from node.storage.capture import PREFIX, triggers_sql
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.registries import current_registry

FAULTS_TOLD = 20
OF_AN_INDEX = re.compile(r"missing from index|wrong # of entries in index|non-unique entry in index", re.IGNORECASE)
"""Faults that making the indexes anew mends: the rows themselves are sound."""

MISSING, ALTERED, SILENCED = "missing", "altered", "silenced"


@dataclass(frozen=True, slots=True)
class CaptureFault:
    """A table that is not watched as it should be: a trigger is missing, altered, or all are told to be silent."""

    table: str
    what: str


def file_faults(connection: Connection) -> list[str]:
    """What SQLite finds wrong with the file, page by page; nothing where it is sound. Raises DBAPIError where it
    cannot even begin."""
    found = execute(connection, f"PRAGMA integrity_check({FAULTS_TOLD})").scalars().all()
    return [] if found == ["ok"] else [str(each).splitlines()[0][:200] for each in found]


def capture_faults(connection: Connection, context: Context) -> list[CaptureFault]:
    """Tables whose triggers are not those that this software makes for the registry in force."""
    registry = current_registry(connection, context)
    rows = execute(
        connection,
        f"SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' AND substr(name, 1, {len(PREFIX)}) = ?",
        (PREFIX,),
    ).all()
    there = {name: (table, sql) for name, table, sql in rows}
    found: set[tuple[str, str]] = set()
    for table in registry.all_tables.values():
        for sql in triggers_sql(registry, table, context.unit):
            name = re.match(r'CREATE TRIGGER "([^"]+)"', sql)
            held = there.pop(name[1] if name else "", None)
            if held is None:
                found.add((table.name, MISSING))
            elif held[1] != sql:
                found.add((table.name, ALTERED))
    found |= {(table, ALTERED) for table, _sql in there.values()}  # one that this software does not make
    if execute(connection, "SELECT applying FROM _capture").scalar() != 0:
        found |= {(name, SILENCED) for name in registry.all_tables}
    return [CaptureFault(table, what) for table, what in sorted(found)]


def put_right(connection: Connection, context: Context) -> None:
    """Make tables and triggers as they should be, and let them speak."""
    reinstall(connection, context)
    execute(connection, "UPDATE _capture SET applying = 0")


def rebuild_indexes(connection: Connection) -> None:
    execute(connection, "REINDEX")
