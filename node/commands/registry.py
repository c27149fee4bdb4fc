"""``dongbo registry``: what tables and fields there are, what a newer version would change, and bringing it about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from node.commands import Progress
from node.config import AT_ONCE, BY_HAND
from node.local import Node
from node.storage import report
from node.storage.audit import noted
from node.storage.batches import waiting_upto
from node.storage.context import Context
from node.storage.publishing import NotTheRoot, bring_newest, publish
from node.storage.registries import current_registry, newest_fit
from sync_engine.audit import Act
from sync_engine.registry import Field, Registry, Table, parse_registry, successor_faults
from sync_engine.registry_plan import plan


async def registry_show(node: Node, _arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """The version in force, its tables and fields, and the versions that wait."""
    return await node.database.read(_show, node.context)


def _show(connection: Connection, context: Context) -> dict[str, Any]:
    registry = current_registry(connection, context)
    by_hand = BY_HAND if context.registry_by_hand else AT_ONCE
    return {
        "unit": context.unit,
        "version": registry.version,
        "name": registry.name,
        "mode": "root" if context.unit == context.root else by_hand,
        "levels": list(registry.levels),
        "tables": [_table(registry, each) for each in registry.tables.values()],
        "newer": report.newer_registries(connection, context),
    }


def _table(registry: Registry, table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "label": table.label,
        "catalogue": table.catalogue,
        "delete": table.delete,
        "read_up_to": None if table.read_up_to is None else registry.level_name(table.read_up_to),
        "fields": [_field(registry, each) for each in table.fields],
    }


def _field(registry: Registry, field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "label": field.label,
        "type": field.type.value,
        "merge": field.policy.value,
        "required": field.required,
        "identifies": field.identifies,
        "group": field.group,
        "read_up_to": None if field.read_up_to is None else registry.level_name(field.read_up_to),
        "write_from": None if field.write_from is None else registry.level_name(field.write_from),
    }


async def registry_plan(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """What a text (``toml``), or without one the newest version that waits here, would change. ``to`` is None where
    nothing waits. Raises RegistryError."""
    toml = arguments.get("toml")
    offered = None if toml is None else parse_registry(str(toml))
    return await node.database.read(_plan, node.context, offered)


def _plan(connection: Connection, context: Context, offered: Registry | None) -> dict[str, Any]:
    current = current_registry(connection, context)
    newer = newest_fit(connection, context) if offered is None else offered
    waits = report.newer_registries(connection, context)
    if newer is None:
        nothing: list[Any] = []
        return {
            "from": current.version, "to": None, "ok": True, "changes": nothing, "refused": nothing,
            "levels": nothing, "waiting_batches": 0, "newer": waits,
        }  # fmt: skip
    made = plan(current, newer)
    faults = successor_faults(current, newer)
    return {
        "from": made.before,
        "to": made.after,
        "ok": not made.refused,
        "changes": [asdict(each) for each in made.changes],
        "refused": [
            {"line": fault.line, "message": each.message} for each, fault in zip(made.refused, faults, strict=True)
        ],
        "levels": [asdict(each) for each in made.access],
        "waiting_batches": waiting_upto(connection, newer.version),
        "newer": waits,
    }


async def registry_apply(node: Node, arguments: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Publish a text (``toml``) at the root; without one, bring the newest version that waits here into force. ``from``
    and ``to`` are what the plan said that was confirmed. Raises NotTheRoot, RegistryError or PlanChanged."""
    toml = arguments.get("toml")
    if toml is not None:
        if node.context.unit != node.context.root:
            raise NotTheRoot(f"only the root publishes a registry, and this is {node.context.unit}")
        registry = parse_registry(str(toml))
        await node.rewrite(noted(publish, Act.PUBLISH, {"version": registry.version}), registry, int(arguments["from"]))
        await node.apply_ready()
        return {"ok": True, "version": registry.version, "published": True, "applied_batches": 0}
    version = int(arguments["to"])
    before = await node.database.read(waiting_upto, version)
    apply = noted(bring_newest, Act.APPLY, {"version": version})
    await node.rewrite(apply, (int(arguments["from"]), version))
    await node.apply_ready()
    left = await node.database.read(waiting_upto, version)
    return {"ok": True, "version": version, "published": False, "applied_batches": before - left}
