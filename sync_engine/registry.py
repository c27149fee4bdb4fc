"""The registry: what tables there are, how their fields merge, and who may read and change them.

Role: the one place to import it from. The model is in registry_model, the reading of the TOML text in registry_file,
the rules it must keep in registry_check, what a next version changes in registry_plan.
Reach: sync_engine.
"""

from __future__ import annotations

from sync_engine.registry_file import check_successor, parse_registry, successor_faults
from sync_engine.registry_model import (
    BUILTIN,
    REGISTRY_TABLE,
    UNIT_TABLE,
    USER_TABLES_FROM,
    Deletion,
    Field,
    FieldType,
    Register,
    Registry,
    Table,
    may_change,
    may_read,
    registers_of,
)

__all__ = [
    "BUILTIN",
    "REGISTRY_TABLE",
    "UNIT_TABLE",
    "USER_TABLES_FROM",
    "Deletion",
    "Field",
    "FieldType",
    "Register",
    "Registry",
    "Table",
    "check_successor",
    "may_change",
    "may_read",
    "parse_registry",
    "registers_of",
    "successor_faults",
]
