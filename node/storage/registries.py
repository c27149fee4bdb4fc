"""The registry as this node holds it: every version that came, which is in force, and what keeps the others from it.

Role: read published versions, and say which may be used; ``adoption`` brings one into force.
Reach: storage tables, registry model. Invariant: a version that has come and is not in force here judges what is whole
and who may read, and nothing else: no batch of it is applied, nothing is sealed under it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from sqlalchemy import Connection

from node.storage.codes import CODES_CAME
from node.storage.context import NO_REGISTRY, Context
from node.storage.engine import bulk, execute
from node.storage.meta import get_meta
from sync_engine.batch import SealedBatch
from sync_engine.errors import LocalFault, RegistryError
from sync_engine.names import REGISTRY, is_within
from sync_engine.registry import BUILTIN, REGISTRY_TABLE, Registry, parse_registry, successor_faults

SHOW_ANEW = "show_anew"
"""In ``_meta``: the tables of which some rows are still shown by the rules of an older version."""


class SoftwareTooOld(LocalFault):
    """The registry in force here was brought by newer software, and this one cannot read it."""

    default_hint = "install the newer software again"


class Standing(StrEnum):
    """Why a version that has been named is not in force here."""

    ABSENT = "absent"
    """Its text has not come."""
    BY_HAND = "by hand"
    """It is here, and this node's operator brings versions into force."""
    UNREADABLE = "unreadable"
    """This software is too old for it."""
    UNFIT = "unfit"
    """It would lose data, so no honest root published it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A version newer than the one in force."""

    version: int
    standing: Standing
    reason: str = ""


def registry_of(connection: Connection, context: Context, version: int) -> Registry | None:
    """One published version; None while it has not come, or where this software cannot read it. 0 is the built-in
    tables alone."""
    if version == 0:
        return NO_REGISTRY
    if version not in context.registries and version not in context.unreadable:
        toml = execute(
            connection, "SELECT toml FROM _registry WHERE unit = ? AND id = ?", (context.root, str(version))
        ).scalar()
        if toml is None:
            return None
        try:
            context.registries[version] = _parsed(version, toml)
        except RegistryError as fault:
            context.unreadable[version] = str(fault)
    return context.registries.get(version)


def _parsed(version: int, toml: str) -> Registry:
    registry = parse_registry(toml)
    if registry.version != version:
        raise RegistryError(f"its version is {registry.version}, its id {version}", line=1)
    return registry


def registry_for(connection: Connection, context: Context, batch: SealedBatch) -> Registry | None:
    """The very registry that the header names, or None while it has not come or cannot be read here."""
    number, digest = batch.header.registry_version
    if batch.header.stream.scope.endswith(REGISTRY):
        number = 0
    registry = registry_of(connection, context, number)
    return registry if registry is not None and registry.sha256 == digest else None


def number_in_force(connection: Connection) -> int:
    return int(get_meta(connection, "registry") or 0)


def current_registry(connection: Connection, context: Context) -> Registry:
    """The version in force here. One that is written and not sealed yet is not. Raises SoftwareTooOld."""
    number = number_in_force(connection)
    registry = registry_of(connection, context, number)
    if registry is None:
        raise SoftwareTooOld(f"registry version {number} is in force here and needs newer software than this")
    return registry


def may_apply(connection: Connection, context: Context, batch: SealedBatch) -> bool:
    """Whether a batch's registry version is in force here, or one that the version in force has followed."""
    if batch.header.registry_version[0] > number_in_force(connection):
        return False
    registry = registry_for(connection, context, batch)
    if registry is None:
        return False
    current = current_registry(connection, context)
    return registry.version in (0, current.version) or not _faults(registry, current)


@lru_cache(maxsize=64)
def _faults(old: Registry, new: Registry) -> tuple[RegistryError, ...]:
    return tuple(successor_faults(old, new)) if old.version else ()


def versions_sealed(connection: Connection, context: Context) -> list[int]:
    """The numbers of all versions that their root has sealed, as far as they have come."""
    found = execute(
        connection,
        "SELECT CAST(id AS INTEGER) FROM _row JOIN _scope ON _scope.no = _row.scope"
        " WHERE name = ? AND tbl = ? AND shown = 1",
        (context.root + REGISTRY, BUILTIN[REGISTRY_TABLE].number),
    ).scalars()
    return sorted(int(each) for each in found)


def newest_fit(connection: Connection, context: Context) -> Registry | None:
    """The newest version that may follow the one in force; None where there is none."""
    in_force = number_in_force(connection)
    for version in reversed(versions_sealed(connection, context)):
        registry = registry_of(connection, context, version) if version > in_force else None
        if registry is not None and not _faults(current_registry(connection, context), registry):
            return registry
    return None


def is_by_hand(connection: Connection, context: Context) -> bool:
    """Whether an operator brings versions into force here. The first comes by itself, for without it there are no
    tables; and the root has chosen to publish."""
    return context.registry_by_hand and context.unit != context.root and number_in_force(connection) > 0


def is_due(connection: Connection, context: Context) -> bool:
    """Whether a version waits that should be in force already (newer software can read it now, or the operator has
    chosen not to be asked any more), rows are still to be shown by the rules of one that is, or codes have come that
    held values may have waited for."""
    if get_meta(connection, SHOW_ANEW) or get_meta(connection, CODES_CAME):
        return True
    return not is_by_hand(connection, context) and newest_fit(connection, context) is not None


def standing_of(connection: Connection, context: Context, batch: SealedBatch) -> Waiting | None:
    """Why the registry version of a batch keeps it from being applied; None where it does not."""
    if may_apply(connection, context, batch):
        return None
    version = batch.header.registry_version[0]
    registry = registry_for(connection, context, batch)
    if registry is None:
        unread = context.unreadable.get(version)
        return Waiting(version, Standing.ABSENT if unread is None else Standing.UNREADABLE, unread or "")
    return _standing(connection, context, version, registry)


def _standing(connection: Connection, context: Context, version: int, registry: Registry | None) -> Waiting:
    if registry is None:
        return Waiting(version, Standing.UNREADABLE, context.unreadable.get(version, ""))
    current = current_registry(connection, context)
    both = (registry, current) if version < current.version else (current, registry)
    faults = _faults(*both)
    return Waiting(version, Standing.UNFIT, str(faults[0])) if faults else Waiting(version, Standing.BY_HAND)


def waiting_versions(connection: Connection, context: Context) -> list[Waiting]:
    """The versions that have come and are newer than the one in force, oldest first."""
    return [
        _standing(connection, context, version, registry_of(connection, context, version))
        for version in versions_sealed(connection, context)
        if version > number_in_force(connection)
    ]


def adopt_units(connection: Connection, context: Context) -> None:
    """Let local programs write the rows of this unit and of the units known below it."""
    units = execute(connection, "SELECT unit FROM _unit").scalars()
    known = {context.unit, *(unit for unit in units if is_within(unit, context.unit))}
    bulk(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", [(unit,) for unit in sorted(known)])
