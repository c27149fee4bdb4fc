"""Values that belong to one person and stand in two or more rows: found, and nothing done about them.

Role: read the tables in sets; say of each value which unit is the lowest that stands above all its rows.
Reach: the real tables, in key order. Invariant: what a node may not read is not in its tables, so it is not compared;
no index is kept for this, so entering rows costs nothing more. Memory: the sorter of one column, and ``ROWS_KEPT`` rows
of each of ``VALUES_AT_ONCE`` values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from node.storage.bulk import units_present
from node.storage.engine import execute, quoted
from sync_engine.names import is_within, path_of
from sync_engine.registry import Field, Table

VALUES_AT_ONCE = 500
ROWS_KEPT = 20
"""Rows told of one value: more than so many are a mistake in entering, not persons, and are counted only."""


@dataclass(slots=True)
class Shared:
    """A value of an identifying field that ``count`` rows share. ``at`` is the lowest unit above all of them; ``rows``
    are (unit, key, values of the required fields), at most ``ROWS_KEPT``."""

    value: str | int
    at: str = ""
    count: int = 0
    rows: list[tuple[str, str, tuple[Any, ...]]] = field(default_factory=list)


def lowest_common(one: str, other: str) -> str:
    """The lowest unit that stands above both, or is one of them. Both are of one tree."""
    return next(str(above) for above in path_of(one) if is_within(other, above))


def shared_values(connection: Connection, table: Table, each: Field, unit: str, *, below: bool) -> Iterator[Shared]:
    """The values of a field that several rows share, in order: those for which ``unit`` is the lowest unit above all
    rows; with ``below`` also those that a unit below it sees as well."""
    places = json.dumps([(owner, _branch(owner, unit)) for owner in units_present(connection, table)])
    after: list[Any] = []
    while page := _page(connection, _sql(table, each, below=below, first=not after), places, unit, after, below=below):
        yield from page
        if len(page) < VALUES_AT_ONCE:
            return
        after = [page[-1].value]


def _branch(owner: str, unit: str) -> str:
    """The child of ``unit`` in whose subtree a row's unit lies; ``unit`` for its own rows. Rows of two branches have no
    lower unit above them both."""
    below = unit
    for step in path_of(owner):
        if step == unit:
            return below
        below = str(step)
    return below


def _sql(table: Table, each: Field, *, below: bool, first: bool) -> str:
    """One pass groups the column, one picks the rows of what it found; both go along the key, unit by unit."""
    name, real = quoted(each.name), quoted(table.name)
    apart = "" if below else " AND (min(place.branch) <> max(place.branch) OR max(place.branch = ?))"
    wanted = "".join(f", row.{quoted(one.name)}" for one in table.required)
    placed = f'FROM place CROSS JOIN {real} AS row ON row."unit" = place.unit'
    return (
        "WITH place (unit, branch) AS MATERIALIZED"
        " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)),"
        f" shared (value) AS MATERIALIZED (SELECT row.{name} {placed} WHERE row.{name} <> ''"
        f"{'' if first else f' AND row.{name} > ?'}"
        f" GROUP BY row.{name} HAVING count(*) > 1{apart} ORDER BY row.{name} LIMIT {VALUES_AT_ONCE})"
        f' SELECT row.{name}, row."unit", row."id"{wanted} {placed} JOIN shared ON shared.value = row.{name}'
    )


def _page(connection: Connection, sql: str, places: str, unit: str, after: list[Any], *, below: bool) -> list[Shared]:
    found: dict[str | int, Shared] = {}
    for value, owner, key, *values in execute(connection, sql, (places, *after, *([] if below else [unit]))):
        one = found.setdefault(value, Shared(value, at=owner))
        one.count += 1
        if owner != one.at:
            one.at = lowest_common(one.at, owner)
        if len(one.rows) < ROWS_KEPT:
            one.rows.append((owner, key, tuple(values)))
    return [found[value] for value in sorted(found)]
