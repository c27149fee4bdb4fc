"""The registry as a model: tables, fields, registers, who may read and who may change.

Role: the frozen values that sealing, verification, merging and storage share, and the built-in tables.
Reach: conflict, sync_engine.names. Callers import it from sync_engine.registry.
Invariant: a register's index and a table's number follow the order of the file alone, so all nodes that hold one
version agree on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Literal, TypeAlias

from conflict.policies import Policy
from conflict.values import Scope, Value, level_of
from sync_engine.names import CATALOG, REGISTRY, unit_of

Deletion: TypeAlias = Literal["review", "delete", "keep"]
"""What a delete beside a concurrent edit comes to: a person decides, the row goes, the row stays."""

UNIT_TABLE, REGISTRY_TABLE = "_unit", "_registry"
USER_TABLES_FROM = 11
"""Local numbers of the registry's tables start here; those below are kept for built-in tables."""


class FieldType(StrEnum):
    """What a field holds. In SQL and on the wire: see sync_engine.fields."""

    TEXT = "text"
    INT = "int"
    REAL = "real"
    BOOL = "bool"
    DATE = "date"
    TIMESTAMP = "timestamp"
    ENUM = "enum"
    SET = "set"
    CODE = "code"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Field:
    """One column that people know by ``label``.

    ``read_up_to`` and ``write_from`` are level numbers (the root is 0); None is everybody, and a table's reading level
    is in its fields' already. ``values`` lists what an enum or an int may be, from least to greatest; ``kind`` is the
    kind of catalogue code. ``identifies``: a value belongs to one person, so two rows with it are listed as duplicates.
    """

    name: str
    type: FieldType
    label: str
    policy: Policy
    required: bool = False
    partial: bool = False
    digits: int | None = None
    values: tuple[str | int, ...] = ()
    kind: str | None = None
    read_up_to: int | None = None
    write_from: int | None = None
    group: str | None = None
    identifies: bool = False


@dataclass(frozen=True, slots=True)
class Register:
    """What is merged as one: a field, or an atomic group (named after the group) with one policy and one audience."""

    name: str
    fields: tuple[Field, ...]
    policy: Policy
    index: int
    order: tuple[Value, ...] = ()

    @property
    def is_union(self) -> bool:
        """One register per element: on the wire the two columns ``name+`` and ``name-``."""
        return self.policy is Policy.UNION

    @property
    def is_group(self) -> bool:
        """Whether its writes carry one tuple of the fields' values rather than a value."""
        return self.fields[0].group is not None

    @property
    def nothing(self) -> Value:
        """What a write carries that says nothing, unless it is of a union's element."""
        return tuple(None for _ in self.fields) if self.is_group else None

    def parts(self, value: Value) -> tuple[Value, ...]:
        """A write's value field by field."""
        return value if self.is_group and isinstance(value, tuple) else (value,)

    @property
    def read_up_to(self) -> int | None:
        return self.fields[0].read_up_to

    @property
    def write_from(self) -> int | None:
        return self.fields[0].write_from


@dataclass(frozen=True)
class Table:
    """One real table. ``number`` names it in capture's notes; it is local and never travels. ``read_up_to`` is its
    reading level, which none of its fields goes beyond: above it only keys are there."""

    name: str
    label: str
    catalogue: bool
    fields: tuple[Field, ...]
    registers: tuple[Register, ...]
    number: int
    delete: Deletion = "review"
    read_up_to: int | None = None

    @cached_property
    def _fields(self) -> Mapping[str, Field]:
        return {one.name: one for one in self.fields}

    @cached_property
    def _registers(self) -> Mapping[str, Register]:
        return {one.name: register for register in self.registers for one in register.fields}

    @cached_property
    def required(self) -> tuple[Field, ...]:
        """The fields a row's identity is made of, in registry order."""
        return tuple(one for one in self.fields if one.required)

    @cached_property
    def identifying(self) -> tuple[Field, ...]:
        """The fields whose values belong to one person."""
        return tuple(one for one in self.fields if one.identifies)

    @property
    def is_builtin(self) -> bool:
        return self.name in BUILTIN

    def field(self, name: str) -> Field:
        """Raises KeyError if the table has no such field."""
        return self._fields[name]

    def has(self, name: str) -> bool:
        return name in self._fields

    def register_of(self, field_name: str) -> Register:
        """The register that a field belongs to. Raises KeyError."""
        return self._registers[field_name]

    def register(self, name: str) -> Register:
        """A register by its own name (a group's, or the field's). Raises KeyError."""
        for one in self.registers:
            if one.name == name:
                return one
        raise KeyError(name)

    def scope_of(self, unit: str) -> Scope:
        """The scope in which the rows of ``unit`` in this table travel."""
        if self.name == REGISTRY_TABLE:
            return Scope(unit + REGISTRY)
        return Scope(unit + CATALOG if self.catalogue else unit)

    def belongs_in(self, scope: str) -> bool:
        """Whether this table's rows may travel in ``scope``."""
        return self.scope_of(unit_of(scope)) == scope

    def may_read(self, register: Register | Field, level: int, unit_level: int) -> bool:
        return may_read(register, level, unit_level)

    def may_read_rows(self, level: int, unit_level: int) -> bool:
        """Whether a node of ``level`` may know more than the keys of a table's rows that belong to a unit of
        ``unit_level``; and so enter, edit or delete one."""
        return may_read(self, level, unit_level)

    def may_change(self, register: Register | Field, level: int, unit_level: int) -> bool:
        """Whether a node of ``level`` may edit the register in a row of a unit of ``unit_level``."""
        return may_change(register, level) and may_read(register, level, unit_level)


@dataclass(frozen=True)
class Registry:
    """One published version. ``sha256`` is of the TOML text as published: receivers wait for that very text."""

    version: int
    toml: str
    sha256: bytes
    levels: tuple[str, ...]
    tables: Mapping[str, Table] = field(hash=False)
    name: str = ""
    all_tables: Mapping[str, Table] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_tables", MappingProxyType({**BUILTIN, **self.tables}))

    @property
    def deepest(self) -> int:
        """The number of the lowest level."""
        return len(self.levels) - 1

    def level_name(self, level: int) -> str:
        """What people call a level; a number where the registry names none so deep."""
        return self.levels[level] if 0 <= level <= self.deepest else f"level {level}"

    def level_of(self, unit: str) -> str:
        """The name of a unit's level."""
        return self.level_name(level_of(unit))

    @cached_property
    def by_number(self) -> Mapping[int, Table]:
        """Tables by the local number that capture notes."""
        return {table.number: table for table in self.all_tables.values()}


def may_read(readable: Register | Field | Table, reader_level: int, unit_level: int) -> bool:
    """Whether a node on the row's path may hold this column, or any column of this table.

    The row's own unit and its parent always may, because a second copy must exist; so may whatever lies deeper.
    Further ancestors read up to the named level.
    """
    if reader_level >= unit_level - 1 or readable.read_up_to is None:
        return True
    return reader_level >= readable.read_up_to


def may_change(writable: Register | Field, writer_level: int) -> bool:
    """Whether a level may edit it once it is there; an insert may set it whoever inserts.

    Who cannot read cannot write either, which depends on the row's unit: ask ``may_read`` beside this.
    """
    return writable.write_from is None or writer_level <= writable.write_from


def registers_of(fields: tuple[Field, ...]) -> tuple[Register, ...]:
    """Registers in order of their first field."""
    members: dict[str, list[Field]] = {}
    for one in fields:
        members.setdefault(one.group or one.name, []).append(one)
    return tuple(
        Register(name, tuple(group), group[0].policy, index, order=() if group[0].group else group[0].values)
        for index, (name, group) in enumerate(members.items())
    )


def _builtin(name: str, number: int, *fields: Field) -> Table:
    return Table(name, "", False, fields, registers_of(fields), number)


BUILTIN: Mapping[str, Table] = MappingProxyType(
    {
        UNIT_TABLE: _builtin(
            UNIT_TABLE,
            1,
            Field("name", FieldType.TEXT, "", Policy.LATEST, required=True),
            Field("code", FieldType.TEXT, "", Policy.LATEST),
        ),
        REGISTRY_TABLE: _builtin(REGISTRY_TABLE, 2, Field("toml", FieldType.TEXT, "", Policy.LATEST, required=True)),
    }
)
"""Tables that every tree has, never named in a registry file: units' names, and the registry itself."""
