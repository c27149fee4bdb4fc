"""The rules that fields of one table keep among themselves.

Role: refuse a registry under which some edit would be lost, blended or unreadable; each rule says why in its message.
Reach: sync_engine.registry_model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from conflict.policies import Policy
from sync_engine.errors import RegistryError
from sync_engine.registry_model import Field, FieldType, Table

NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
COLUMNS_MAX = 500
"""A section of a batch has at most 512 columns, and brings some of its own."""

RESERVED_FIELDS = frozenset({"unit", "id", "edited_by"})
"""Columns that every table has."""
ALIVE = "alive"
"""The register that says whether a row is there stands beside the others under this name."""
SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
"""PostgreSQL gives every table these."""
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
DIGITS_MAX = 200


class Fail(Protocol):
    """Makes the error for a message about a key below the place that is being checked."""

    def __call__(self, message: str, *more: str) -> RegistryError: ...


def check_name(name: str, what: str, fail: Fail) -> None:
    """A table's or a field's name becomes an SQL name on every node. Raises RegistryError."""
    if not NAME.fullmatch(name):
        raise fail(f"{name!r} cannot name a {what}: use a-z, 0-9 and _, a letter first, at most 60")
    if what == "field" and (name in RESERVED_FIELDS or name == ALIVE or name in SYSTEM_COLUMNS):
        raise fail(f"{name!r} cannot name a field: that column exists in every table")
    if what == "table" and name.startswith(("sqlite_", "pg_")):
        raise fail(f"{name!r} cannot name a table: databases keep such names for themselves")


def check_table(table: Table, fail: Fail) -> None:
    """Raises RegistryError for the first broken rule."""
    if not table.fields:
        raise fail(f"{table.name} has no fields")
    columns = len(table.fields) + sum(register.is_union for register in table.registers)
    if columns > COLUMNS_MAX:
        raise fail(f"{table.name} has more than {COLUMNS_MAX} columns (a union set counts twice)")
    for field in table.fields:
        _check_type(field, fail)
        _check_values(field, fail)
        _check_audience(table, field, fail)
        _check_identifies(table, field, fail)
    _check_groups(table, fail)


def _check_type(field: Field, fail: Fail) -> None:
    name, kind = field.name, field.type
    if field.partial and kind is not FieldType.DATE:
        raise fail(f"{name}: partial is for dates", name, "partial")
    if field.digits is not None and kind is not FieldType.TEXT:
        raise fail(f"{name}: digits is for text", name, "digits")
    if field.digits is not None and not 1 <= field.digits <= DIGITS_MAX:
        raise fail(f"{name}: digits must be from 1 to {DIGITS_MAX}", name, "digits")
    if kind is FieldType.CODE and not field.kind:
        raise fail(f'{name}: a code needs the kind of code it is, such as kind = "religion"', name)
    if field.kind is not None and kind is not FieldType.CODE:
        raise fail(f"{name}: kind is for codes", name, "kind")
    if field.policy is Policy.UNION and kind is not FieldType.SET:
        raise fail(f"{name}: only a set can be merged by union", name, "merge")


def _check_values(field: Field, fail: Fail) -> None:
    name, values = field.name, field.values
    if field.type is FieldType.ENUM:
        if not values:
            raise fail(f"{name}: an enum needs values", name)
        if any(not isinstance(value, str) or not value or "\0" in value for value in values):
            raise fail(f"{name}: the values of an enum are texts, none empty", name, "values")
    elif values and field.type is not FieldType.INT:
        raise fail(f"{name}: values are for an enum or an int", name, "values")
    elif any(not isinstance(value, int) or isinstance(value, bool) for value in values):
        raise fail(f"{name}: the values of an int are whole numbers", name, "values")
    elif any(not INT_MIN <= int(value) <= INT_MAX for value in values):
        raise fail(f"{name}: a value does not fit 64 bits", name, "values")
    if len(set(values)) < len(values):
        raise fail(f"{name}: a value stands twice", name, "values")


def _check_audience(table: Table, field: Field, fail: Fail) -> None:
    name = field.name
    if (field.read_up_to or 0) < (table.read_up_to or 0):
        raise fail(f"{name}: a field cannot be read further up than its table, {table.name}", name, "read_up_to")
    if field.required and field.read_up_to != table.read_up_to:
        readers = "all levels read it" if table.read_up_to is None else "whoever reads the table reads it"
        raise fail(f"{name}: a required field is part of the row's identity, so {readers}", name, "read_up_to")
    if table.catalogue and name in ("kind", "code") and field.read_up_to is not None:
        raise fail(f"{name}: codes are judged at every level, so all levels read it", name, "read_up_to")
    if None not in (field.read_up_to, field.write_from) and (field.write_from or 0) < (field.read_up_to or 0):
        raise fail(
            f"{name}: who may write may read, but the level in write_from does not read this field", name, "write_from"
        )


def _check_identifies(table: Table, field: Field, fail: Fail) -> None:
    """A value that many rows share by right would drown the doubles among them."""
    if not field.identifies:
        return
    name = field.name
    if field.type not in (FieldType.TEXT, FieldType.INT):
        raise fail(
            f"{name}: identifies is for a number that belongs to one person, a text or an int", name, "identifies"
        )
    if field.values:
        raise fail(f"{name}: a value of a list belongs to many, so it identifies nobody", name, "identifies")
    if field.group is not None:
        raise fail(f"{name}: a field of a group has its meaning from the others, so it identifies nobody alone", name)
    if table.catalogue:
        raise fail(f"{name}: a catalogue lists codes, not persons, so no field of it identifies", name, "identifies")


def _check_groups(table: Table, fail: Fail) -> None:
    names = {field.name for field in table.fields}
    for register in table.registers:
        if not register.is_group:
            continue
        first, group = register.fields[0], register.name
        if not NAME.fullmatch(group) or group in RESERVED_FIELDS or group == ALIVE:
            raise fail(f"{group!r} cannot name a group: use a-z, 0-9 and _, a letter first, at most 60", first.name)
        if group in names:
            raise fail(f"{first.name}: its group has the name of a field, {group}", first.name, "group")
        for field in register.fields:
            if field.policy is Policy.UNION:
                raise fail(f"{field.name}: a set merged by union cannot be in a group", field.name, "group")
            if field.policy is not first.policy:
                raise fail(f"{field.name}: the fields of group {group} must have one merge policy", field.name)
            if field.read_up_to != first.read_up_to:
                raise fail(f"{field.name}: the fields of group {group} must have one read_up_to", field.name)
            if field.write_from != first.write_from:
                raise fail(f"{field.name}: the fields of group {group} must have one write_from", field.name)


def check_kinds(tables: Iterable[Table], fail: Fail) -> None:
    """Codes are looked up in catalogue tables, so a registry with codes has one. Raises RegistryError."""
    tables = list(tables)
    if any(table.catalogue for table in tables):
        return
    for table in tables:
        for field in table.fields:
            if field.type is FieldType.CODE:
                raise fail(
                    f"{field.name}: a code needs a table with catalogue = true to be looked up in",
                    table.name,
                    "fields",
                    field.name,
                )
