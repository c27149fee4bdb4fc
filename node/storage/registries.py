"""The registry as this node holds it: every version that came, the newest in force.

Role: read published versions; bring tables and triggers to the newest.
Reach: storage tables, registry model. Invariant: pending edits were sealed before, because masks follow the
registry's order.
"""

from __future__ import annotations

from sqlalchemy import Connection

from node.storage.capture import install_capture
from node.storage.context import NO_REGISTRY, Context
from node.storage.engine import bulk, execute
from node.storage.meta import get_meta, set_meta
from node.storage.tables import install_tables
from sync_engine.names import REGISTRY, is_within
from sync_engine.registry import BUILTIN, REGISTRY_TABLE, Registry, parse_registry


def registry_of(connection: Connection, context: Context, version: int) -> Registry | None:
    """One published version, or None while it has not come. 0 is the built-in tables alone."""
    if version == 0:
        return NO_REGISTRY
    if version not in context.registries:
        toml = execute(
            connection, "SELECT toml FROM _registry WHERE unit = ? AND id = ?", (context.root, str(version))
        ).scalar()
        if toml is None:
            return None
        context.registries[version] = parse_registry(toml)
    return context.registries[version]


def current_registry(connection: Connection, context: Context) -> Registry:
    """The version in force here: the newest that was adopted. One that is written and not sealed yet is not."""
    return registry_of(connection, context, int(get_meta(connection, "registry") or 0)) or NO_REGISTRY


def adopt_registry(connection: Connection, context: Context) -> None:
    """Bring the newest sealed registry into force: tables and columns are added, never taken away; triggers are new."""
    version = execute(
        connection,
        "SELECT max(CAST(id AS INTEGER)) FROM _row JOIN _scope ON _scope.no = _row.scope"
        " WHERE name = ? AND tbl = ? AND shown = 1",
        (context.root + REGISTRY, BUILTIN[REGISTRY_TABLE].number),
    ).scalar()
    newest = registry_of(connection, context, version or 0) or NO_REGISTRY
    set_meta(connection, "registry", str(newest.version))
    install_tables(connection, newest)
    install_capture(connection, newest, context.unit)


def adopt_units(connection: Connection, context: Context) -> None:
    """Let local programs write the rows of this unit and of the units known below it."""
    units = execute(connection, "SELECT unit FROM _unit").scalars()
    known = {context.unit, *(unit for unit in units if is_within(unit, context.unit))}
    bulk(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", [(unit,) for unit in sorted(known)])
