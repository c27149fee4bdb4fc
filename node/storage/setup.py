"""Makes a node's database: the node's own tables, capture, and at a root what it publishes.

Role: first start of a home.
Reach: storage. Invariant: running it again changes nothing, so a set-up that was interrupted is simply run again.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from node import __version__
from node.storage.adoption import reinstall
from node.storage.capture import capture_schema_sql
from node.storage.context import NO_REGISTRY, Context
from node.storage.engine import bulk, execute
from node.storage.meta import get_meta, set_meta
from node.storage.registries import adopt_units, current_registry
from node.storage.schema import SCHEMA_VERSION, create_own_tables
from node.storage.sealing import seal_all
from node.storage.tables import install_tables
from sync_engine.registry import Registry

MADE_BY = f"{__version__} schema {SCHEMA_VERSION}"


def open_database(connection: Connection, context: Context) -> None:
    """What every start does: make what is missing or was made by another version of the software, and see to it that
    nothing a crash left half-done silences capture. Raises SoftwareTooOld."""
    create_own_tables(connection)
    if get_meta(connection, "made_by") != MADE_BY:
        for statement in capture_schema_sql():
            execute(connection, statement)
        install_tables(connection, NO_REGISTRY)
        adopt_units(connection, context)
        reinstall(connection, context)
        set_meta(connection, "made_by", MADE_BY)
    execute(connection, "UPDATE _capture SET applying = 0")
    current_registry(connection, context)  # software that is too old for it must not begin to seal


def publish_root(
    connection: Connection, context: Context, registry: Registry, name: str, catalogue: Iterable[tuple[object, ...]]
) -> None:
    """A root's first batches: the registry, its own name, and the starter catalogue (id, kind, code, label, sort)."""
    if get_meta(connection, "published") is not None:
        return
    execute(
        connection,
        "INSERT INTO _registry (unit, id, toml) VALUES (?, ?, ?)",
        (context.unit, str(registry.version), registry.toml),
    )
    seal_all(connection, context)
    name_unit(connection, context.unit, name)
    catalog = registry.tables.get("catalog")
    if catalog is not None and {"kind", "code", "label", "sort"} <= {each.name for each in catalog.fields}:
        bulk(
            connection,
            "INSERT INTO catalog (unit, id, kind, code, label, sort) VALUES (?, ?, ?, ?, ?, ?)",
            [(context.unit, *row) for row in catalogue],
        )
    seal_all(connection, context)
    set_meta(connection, "published", "1")


def name_of(connection: Connection, unit: str) -> str | None:
    """A unit's name, if it has come here."""
    name: str | None = execute(connection, "SELECT name FROM _unit WHERE unit = ?", (unit,)).scalar()
    return name


def name_unit(connection: Connection, unit: str, name: str) -> None:
    """Write a unit's name into its scope."""
    execute(
        connection,
        "INSERT INTO _unit (unit, id, name) VALUES (?, '-', ?)"
        " ON CONFLICT (unit, id) DO UPDATE SET name = excluded.name",
        (unit, name),
    )
