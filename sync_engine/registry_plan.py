"""What changes from one version of the registry to the next, and what of it is refused because data would be lost.

Role: compare two registries and name each difference as a frozen value; the sentences for people are made elsewhere,
those of refusals are part of what is wrong.
Reach: sync_engine.registry_model. Invariant: what is allowed leaves every register that exists in its shape, readable
by whom it was, and every row that could be sealed can still be sealed; and a version that may follow another may follow
whatever that one may follow, so a node may miss versions in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from conflict.policies import Policy
from sync_engine.registry_model import Field, Registry, Table

Path = tuple[str, ...]


class ChangeKind(StrEnum):
    """What a change is about."""

    NAME = "name"
    TABLE_ADDED = "table added"
    TABLE_LABEL = "table label"
    DELETE = "delete rule"
    FIELD_ADDED = "field added"
    FIELD_ORDER = "field order"
    LABEL = "label"
    MERGE = "merge rule"
    VALUES_ADDED = "values added"
    VALUES_FREED = "values freed"
    VALUES_ORDER = "values order"
    DIGITS = "digits"
    PARTIAL = "partial"
    WRITE_FROM = "write from"
    IDENTIFIES = "identifies"
    IDENTIFIES_NO_MORE = "identifies no more"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``before`` and ``after`` are as the registry says it; a level is empty where it is everybody."""

    kind: ChangeKind
    table: str = ""
    field: str = ""
    label: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the newer version may not follow, and the key in its text that this is about."""

    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class Access:
    """What one level gains and loses, fields as ``table.field``. ``hidden``: new fields that it reads only in rows of
    its own unit and of the units right below."""

    level: str
    reads: tuple[str, ...]
    hidden: tuple[str, ...]
    may_change: tuple[str, ...]
    no_longer_changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What bringing version ``after`` into force comes to where ``before`` is in force."""

    before: int
    after: int
    changes: tuple[Change, ...]
    refused: tuple[Refusal, ...]
    access: tuple[Access, ...]


def plan(old: Registry, new: Registry) -> Plan:
    """All that changes. Where anything is refused, nothing of it may be done."""
    refused = tuple(refusals(old, new))
    is_comparable = old.levels == new.levels
    changes = tuple(_changes(old, new)) if is_comparable else ()
    access = tuple(_access(old, new)) if is_comparable else ()
    return Plan(old.version, new.version, changes, refused, access)


# -- what is refused --------------------------------------------------------------------------------------------------


def refusals(old: Registry, new: Registry) -> Iterator[Refusal]:
    """Why ``new`` may not follow ``old`` in one tree; nothing where it may."""
    if new.version <= old.version:
        yield Refusal(("version",), f"version must be more than {old.version}, the one in use")
    if new.levels != old.levels:
        yield Refusal(("levels",), f"levels cannot change; they are {', '.join(old.levels)}")
        return
    gone = [name for name in old.tables if name not in new.tables]
    for name in gone:
        yield Refusal(("tables",), f"the table {name} is missing: its rows would be lost; keep it")
    if not gone and tuple(new.tables)[: len(old.tables)] != tuple(old.tables):
        kept = ", ".join(old.tables)
        yield Refusal(("tables",), f"tables keep their places, new ones come after: {kept}")
    for name, before in old.tables.items():
        if name in new.tables:
            yield from _table_refusals(before, new.tables[name])


def _table_refusals(old: Table, new: Table) -> Iterator[Refusal]:
    under = ("tables", old.name, "fields")
    if new.catalogue != old.catalogue:
        yield Refusal(("tables", old.name, "catalogue"), f"{old.name}: catalogue cannot change; make a new table")
    if new.read_up_to != old.read_up_to:
        yield Refusal(("tables", old.name, "read_up_to"), f"{old.name}: {_READERS} table")
    for before in old.fields:
        place = (*under, before.name)
        if not new.has(before.name):
            yield Refusal(
                under,
                f"{old.name}.{before.name} is missing: its values would be lost; keep it, and say in its label that it"
                " is no longer used",
            )
        elif reason := _field_refusal(before, new.field(before.name), same_table=new.read_up_to == old.read_up_to):
            yield Refusal(place, f"{old.name}.{before.name}: {reason}")
    groups = {each.group for each in old.fields if each.group}
    for field in new.fields:
        if old.has(field.name):
            continue
        if field.required:
            reason = f"{old.name}.{field.name}: a new field of a table that exists cannot be required: its rows lack it"
            yield Refusal((*under, field.name), reason)
        if field.group in groups:
            reason = f"{old.name}.{field.name}: group {field.group} cannot get another field; make a new group"
            yield Refusal((*under, field.name), reason)
    # Identities are hashes over the required values, and a group's write is a list of values: both in registry order.
    together = {"the required fields": [each.name for each in old.fields if each.required]}
    together |= {
        f"the fields of group {one}": [each.name for each in old.fields if each.group == one] for one in groups
    }
    for what, names in sorted(together.items()):
        if [each.name for each in new.fields if each.name in names] != [name for name in names if new.has(name)]:
            yield Refusal(under, f"{old.name}: {what} keep their order: {', '.join(names)}")


# To take reading away takes back no byte that is on a disk already; to give it shows nothing of what was withheld, and
# who writes over what it has not seen would make others lose it.
_READERS = "read_up_to cannot change: what was sent cannot be taken back, nor what was withheld; make a new"


def _field_refusal(old: Field, new: Field, *, same_table: bool) -> str:
    """Why a field may not become another, in words; nothing where it may, or where its table's readers are the reason
    already."""
    for what in ("type", "kind", "group"):
        if getattr(old, what) != getattr(new, what):
            return f"{what} cannot change; make a new field"
    if (old.policy is Policy.UNION) != (new.policy is Policy.UNION):
        return "merging by union cannot change; make a new field"
    if old.required != new.required:
        return "required cannot change: rows are told apart by their required fields; make a new table"
    if old.read_up_to != new.read_up_to and same_table:
        return f"{_READERS} field"
    return _narrowed(old, new)


def _narrowed(old: Field, new: Field) -> str:
    """Why rows that can be stored under the older version could not be under the newer: they would never travel."""
    if new.values and not old.values:
        return "values cannot be named later, because rows may hold others; make a new field"
    if new.values and not set(old.values) <= set(new.values):
        gone = ", ".join(str(value) for value in old.values if value not in new.values)
        return f"values cannot be taken away, because rows may hold them: {gone}"
    if new.digits is not None and new.digits != old.digits:
        return "digits can only be taken away, because rows may hold other texts; make a new field"
    if old.partial and not new.partial:
        return "partial cannot be taken away, because rows may hold such dates; make a new field"
    return ""


# -- what changes -----------------------------------------------------------------------------------------------------


def _changes(old: Registry, new: Registry) -> Iterator[Change]:
    if old.name != new.name:
        yield Change(ChangeKind.NAME, before=old.name, after=new.name)
    for name, after in new.tables.items():
        before = old.tables.get(name)
        if before is None:
            yield Change(ChangeKind.TABLE_ADDED, name, label=after.label, after=str(len(after.fields)))
            yield from (_added(after, field) for field in after.fields)
            continue
        if before.label != after.label:
            yield Change(ChangeKind.TABLE_LABEL, name, before=before.label, after=after.label)
        if before.delete != after.delete:
            yield Change(ChangeKind.DELETE, name, before=before.delete, after=after.delete)
        for field in after.fields:
            if before.has(field.name):
                yield from _field_changes(new, name, before.field(field.name), field)
            else:
                yield _added(after, field)
        kept = [each.name for each in after.fields if before.has(each.name)]
        if kept != [each.name for each in before.fields if after.has(each.name)]:
            yield Change(ChangeKind.FIELD_ORDER, name, after=", ".join(each.name for each in after.fields))


def _added(table: Table, field: Field) -> Change:
    return Change(ChangeKind.FIELD_ADDED, table.name, field.name, field.label, after=f"{field.type}, {field.policy}")


def _field_changes(new: Registry, table: str, old: Field, field: Field) -> Iterator[Change]:
    def change(kind: ChangeKind, before: object, after: object) -> Change:
        return Change(kind, table, field.name, field.label, str(before), str(after))

    def level(number: int | None) -> str:
        return "" if number is None else new.level_name(number)

    if old.label != field.label:
        yield change(ChangeKind.LABEL, old.label, field.label)
    if old.policy is not field.policy:
        yield change(ChangeKind.MERGE, old.policy, field.policy)
    added = [value for value in field.values if value not in old.values]
    if old.values and not field.values:
        yield change(ChangeKind.VALUES_FREED, ", ".join(map(str, old.values)), "")
    elif added:
        yield change(ChangeKind.VALUES_ADDED, "", ", ".join(map(str, added)))
    if [value for value in field.values if value in old.values] != [
        each for each in old.values if each in field.values
    ]:
        yield change(ChangeKind.VALUES_ORDER, ", ".join(map(str, old.values)), ", ".join(map(str, field.values)))
    if old.digits is not None and field.digits is None:
        yield change(ChangeKind.DIGITS, old.digits, "")
    if field.partial and not old.partial:
        yield change(ChangeKind.PARTIAL, "", "")
    if old.write_from != field.write_from:
        yield change(ChangeKind.WRITE_FROM, level(old.write_from), level(field.write_from))
    if old.identifies != field.identifies:
        yield change(ChangeKind.IDENTIFIES if field.identifies else ChangeKind.IDENTIFIES_NO_MORE, "", "")


def _access(old: Registry, new: Registry) -> Iterator[Access]:
    """For every level that gains or loses something: judged in rows of units further below, where levels count."""
    for number, level in enumerate(new.levels):
        reads: list[str] = []
        hidden: list[str] = []
        gains: list[str] = []
        loses: list[str] = []
        for table in new.tables.values():
            earlier = old.tables.get(table.name)
            for field in table.fields:
                name, before = f"{table.name}.{field.name}", None
                if earlier is not None and earlier.has(field.name):
                    before = earlier.field(field.name)
                else:
                    (reads if _reads(field, number) else hidden).append(name)
                may, might = _changes_it(field, number), before is not None and _changes_it(before, number)
                if may and not might:
                    gains.append(name)
                elif might and not may:
                    loses.append(name)
        if reads or hidden or gains or loses:
            yield Access(level, tuple(reads), tuple(hidden), tuple(gains), tuple(loses))


def _reads(field: Field, level: int) -> bool:
    return field.read_up_to is None or level >= field.read_up_to


def _changes_it(field: Field, level: int) -> bool:
    return _reads(field, level) and (field.write_from is None or level <= field.write_from)


def shows_otherwise(old: Table, new: Table) -> bool:
    """Whether rows may show other values under the newer version: a policy, an order of values or the rule for deletes
    has changed. Only rows with rival writes can."""
    rules = {each.name: (each.policy, each.order) for each in new.registers}
    return old.delete != new.delete or any(rules.get(each.name) != (each.policy, each.order) for each in old.registers)
