"""Whether the nodes of a tree hold the same, asked of the nodes and read from their tables.

Role: compare what each node says of each scope (heads, digests) and, apart from that, the rows that any SQL program
sees; in words where they differ.
Reach: sync_engine.names and registry; Python's sqlite3. Invariant: every node that should hold a scope is asked, so
one that lacks it is seen.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from conflict.values import level_of
from node.messages import say
from sync_engine.names import is_held_by, unit_of
from sync_engine.registry import Table

Reports: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By unit, what ``status --json`` gives."""

BUSY_S = 5.0


def restless(reports: Reports) -> list[str]:
    """Nodes that still have something to seal, to send or to apply; in words."""
    found = []
    for unit, report in reports.items():
        for key in ("pending_changes", "unsent_batches", "waiting_batches", "held"):
            if report[key]:
                found.append(say("demo.restless", unit=unit, count=report[key], what=key.replace("_", " ")))
        if report["frozen"]:
            found.append(say("demo.stopped", unit=unit))
    return found


def scopes_of(reports: Reports) -> list[str]:
    """Every scope that any node holds."""
    return sorted({each["scope"] for report in reports.values() for each in report["scopes"]}, key=_by_unit)


def _by_unit(scope: str) -> tuple[int, str]:
    return (level_of(unit_of(scope)), scope)


def holders(scope: str, reports: Reports) -> list[str]:
    """The nodes that must hold a scope, the deepest first."""
    return sorted((unit for unit in reports if is_held_by(scope, unit)), key=level_of, reverse=True)


def differences(reports: Reports) -> list[str]:
    """Where nodes that hold one scope differ: heads, rows, digest, or the digest of a column that both hold."""
    found = []
    for scope in scopes_of(reports):
        held = {unit: _scope(reports[unit], scope) for unit in holders(scope, reports)}
        first, *others = held
        for other in others:
            found += [
                say("demo.differs", scope=scope, one=first, other=other, what=what)
                for what in _differing(held[first], held[other])
            ]
    return found


def _scope(report: Mapping[str, Any], scope: str) -> Mapping[str, Any]:
    return next((each for each in report["scopes"] if each["scope"] == scope), {})


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    if not one or not other:
        return ["scope"]
    found = [key for key in ("rows", "digest", "heads") if one[key] != other[key]]
    mine, theirs = one["digests"], other["digests"]
    return found + [name for name in sorted(mine.keys() & theirs.keys()) if mine[name] != theirs[name]]


def columns_compared(reports: Reports) -> int:
    """How many digests of columns two nodes or more hold, over all scopes."""
    held = Counter(
        (scope, name)
        for scope in scopes_of(reports)
        for unit in holders(scope, reports)
        for name in _scope(reports[unit], scope).get("digests", {})
    )
    return sum(nodes > 1 for nodes in held.values())


def read(database: Path, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """A query by a plain SQL client."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        return connection.execute(sql, values).fetchall()


@dataclass(frozen=True, slots=True)
class Rows:
    """A unit's rows as a table shows them: how many, and one hash over the columns that a level may read."""

    count: int
    sha256: str


def rows_of(database: Path, table: Table, unit: str, reader_level: int) -> Rows:
    """What any SQL program would see of a unit, in the columns that a reader's level may read."""
    names = [field.name for field in table.fields if table.may_read(field, reader_level, level_of(unit))]
    hashed, count = sha256(), 0
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        columns = ", ".join(f'"{name}"' for name in ("id", *names))
        for row in connection.execute(f'SELECT {columns} FROM "{table.name}" WHERE unit = ? ORDER BY id', (unit,)):
            hashed.update(repr(row).encode() + b"\n")
            count += 1
    return Rows(count, hashed.hexdigest())


def withheld_from(table: Table, unit: str, reader_level: int) -> list[str]:
    """The columns of a unit's rows that must stay empty at a level."""
    return [field.name for field in table.fields if not table.may_read(field, reader_level, level_of(unit))]


def filled(database: Path, table: Table, unit: str, columns: Sequence[str]) -> int:
    """In how many rows of a unit any of these columns holds something."""
    if not columns:
        return 0
    any_of = " OR ".join(f'"{name}" IS NOT NULL' for name in columns)
    return int(read(database, f'SELECT count(*) FROM "{table.name}" WHERE unit = ? AND ({any_of})', (unit,))[0][0])


def sealed(database: Path, unit: str) -> dict[str, tuple[int, int]]:
    """By scope, how many batches a unit has sealed and their bytes."""
    rows = read(
        database,
        "SELECT scope, count(*), sum(size) FROM _batch JOIN _stream ON _stream.no = _batch.stream"
        " WHERE origin = ? GROUP BY scope",
        (unit,),
    )
    return {scope: (count, size) for scope, count, size in rows}
