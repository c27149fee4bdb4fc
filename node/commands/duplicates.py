"""``dongbo duplicates``: persons who may have been entered twice, by the numbers that belong to one person."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from node.commands import Progress
from node.local import Node
from node.messages import say
from node.storage.context import Context
from node.storage.duplicates import Shared, shared_values
from node.storage.named import table_named
from node.storage.registries import current_registry
from sync_engine.errors import BadInput
from sync_engine.registry import Field, FieldType, Table

LIMIT = 1_000


async def duplicates(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """``found``: the list of ``duplicates --json``. ``more``: whether there are more than ``limit`` of them.
    ``fields``: how many fields were looked at; ``dates``: which required fields are dates, by table. Raises BadInput
    for a table that is not there or has no such field."""
    limit = int(arguments.get("limit") or LIMIT)
    table, below = arguments.get("table"), bool(arguments.get("all"))
    return await node.database.read(_duplicates, node.context, None if table is None else str(table), below, limit)


def _duplicates(connection: Connection, context: Context, name: str | None, below: bool, limit: int) -> dict[str, Any]:
    tables = _tables(connection, context, name)
    found: list[dict[str, Any]] = []
    for table in tables:
        for field in table.identifying:
            shared = shared_values(connection, table, field, context.unit, below=below)
            found += [_told(table, field, each) for each in islice(shared, limit + 1 - len(found))]
    return {
        "found": found[:limit],
        "more": len(found) > limit,
        "fields": sum(len(table.identifying) for table in tables),
        "dates": {
            table.name: [_label(table, each) for each in table.required if each.type is FieldType.DATE]
            for table in tables
        },
    }


def _tables(connection: Connection, context: Context, name: str | None) -> list[Table]:
    if name is None:
        return [each for each in current_registry(connection, context).tables.values() if each.identifying]
    table = table_named(connection, context, name)
    if not table.identifying:
        raise BadInput(say("duplicates.no_field", table=table.name), hint=say("duplicates.no_field.hint"))
    return [table]


def _label(table: Table, field: Field) -> str:
    """What people call a field; its name, where two of its kind are called alike."""
    alike = [each for each in table.required if each.label == field.label]
    return field.label if field.label and len(alike) == 1 else field.name


def _told(table: Table, field: Field, shared: Shared) -> dict[str, Any]:
    labels = [_label(table, each) for each in table.required]
    return {
        "table": table.name,
        "field": field.name,
        "label": field.label,
        "value": shared.value,
        "at": shared.at,
        "count": shared.count,
        "rows": [
            {"unit": unit, "key": key, "row": dict(zip(labels, map(_plain, values), strict=True))}
            for unit, key, values in shared.rows
        ],
    }


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
