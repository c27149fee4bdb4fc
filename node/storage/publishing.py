"""What an operator does with registry versions: publish one at the root, bring one into force elsewhere.

Role: the two ways in which a person changes the version in force, each in one transaction.
Reach: storage. Invariant: nothing is pending when the tables change, and whoever confirmed a plan gets that very plan.
"""

from __future__ import annotations

from sqlalchemy import Connection

from node.storage.adoption import bring_into_force
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.inbox import seal_remainder
from node.storage.registries import current_registry, newest_fit, number_in_force
from node.storage.sealing import seal_next
from sync_engine.errors import LocalFault
from sync_engine.registry import Registry, check_successor


class NotTheRoot(LocalFault):
    """Only the root publishes a registry."""

    default_hint = "'dongbo registry apply' without a file brings a version that has come into force here"


class PlanChanged(LocalFault):
    """Another version is in force, or has come, than when the plan was shown."""

    default_hint = "look at the plan again: 'dongbo registry plan'"


class NotPublished(LocalFault):
    """The version could not be written or sealed; nothing was changed."""


def publish(connection: Connection, context: Context, registry: Registry, planned_from: int) -> None:
    """Write the next version and seal it: from here it travels like data. Raises NotTheRoot, RegistryError,
    PlanChanged, NotPublished or SealFirst."""
    if context.unit != context.root:
        raise NotTheRoot(f"only the root publishes a registry, and this is {context.unit}")
    seal_remainder(connection, context)
    current = current_registry(connection, context)
    if current.version != planned_from:
        raise PlanChanged(f"registry version {current.version} is in force now")
    check_successor(current, registry)
    largest = "SELECT max(CAST(id AS INTEGER)) FROM _registry WHERE unit = ?"
    taken = int(execute(connection, largest, (context.unit,)).scalar() or 0)
    if registry.version <= taken:
        raise NotPublished(
            f"number {taken} stands in _registry already, of a version that could not be sealed",
            hint=f"give this one the number {taken + 1}",
        )
    for known in (context.registries, context.unreadable):
        known.pop(registry.version, None)  # of an attempt that was rolled back
    execute(
        connection,
        "INSERT INTO _registry (unit, id, toml) VALUES (?, ?, ?)",
        (context.unit, str(registry.version), registry.toml),
    )
    seal_next(connection, context)
    if number_in_force(connection) != registry.version:
        raise NotPublished("this version could not be sealed")


def bring_newest(connection: Connection, context: Context, planned: tuple[int, int]) -> None:
    """Bring the newest version that has come into force; ``planned`` is what the plan said, from and to. Raises
    PlanChanged or SealFirst."""
    seal_remainder(connection, context)
    newest = newest_fit(connection, context)
    if newest is None or planned != (number_in_force(connection), newest.version):
        raise PlanChanged("another registry version has come since the plan was made")
    bring_into_force(connection, context, newest)
