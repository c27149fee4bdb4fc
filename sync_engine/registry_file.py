"""Reads a registry's TOML text and refuses what could not be replicated, naming the line.

Role: from text to ``Registry``; every rule a registry must keep is here or in registry_check, what a next version must
keep in registry_plan.
Reach: sync_engine.registry_model, registry_check, registry_plan, errors.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
import unicodedata
from types import MappingProxyType
from typing import Any, cast

from conflict.policies import Policy
from sync_engine.errors import RegistryError
from sync_engine.registry_check import NAME, Fail, check_kinds, check_name, check_table
from sync_engine.registry_model import (
    USER_TABLES_FROM,
    Deletion,
    Field,
    FieldType,
    Registry,
    Table,
    registers_of,
)
from sync_engine.registry_plan import refusals

REGISTRY_BYTES_MAX = 1 << 20
LEVELS_MAX = 16
"""As deep as a unit's path may be."""
VERSION_MAX = 2**63 - 1
DELETIONS = ("review", "delete", "keep")

_TOP_KEYS = frozenset({"version", "name", "levels", "tables"})
_TABLE_KEYS = frozenset({"label", "delete", "catalogue", "read_up_to", "fields"})
_FIELD_KEYS = frozenset(
    {"type", "required", "label", "merge", "group", "partial", "digits", "values", "kind", "identifies"}
    | {"read_up_to", "write_from"}
)
_TYPE_WORDS = {bool: "true or false", int: "a whole number", str: "text", list: "a list", dict: "a table"}

_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]")
_ASSIGNMENT = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_SYNTAX_LINE = re.compile(r"\(at line (\d+)")

Path = tuple[str, ...]


class _Lines:
    """Where each key stands: tomllib tells only where the syntax breaks."""

    def __init__(self, text: str) -> None:
        self._at: dict[Path, int] = {}
        section: Path = ()
        for number, line in enumerate(text.split("\n"), start=1):
            if header := _HEADER.match(line):
                section = self._split(header[1])
                self._at.setdefault(section, number)
            elif assignment := _ASSIGNMENT.match(line):
                self._at.setdefault(section + self._split(assignment[1]), number)

    @staticmethod
    def _split(dotted: str) -> Path:
        return tuple(part.strip().strip("\"'") for part in dotted.split("."))

    def of(self, path: Path) -> int:
        """The line of the key, or of the nearest thing around it."""
        while path:
            if path in self._at:
                return self._at[path]
            path = path[:-1]
        return 1


def parse_registry(toml: str) -> Registry:
    """The registry that ``toml`` describes. Raises RegistryError naming the line of what is wrong."""
    if len(toml) > REGISTRY_BYTES_MAX or len(toml.encode("utf-8", "replace")) > REGISTRY_BYTES_MAX:
        raise RegistryError(f"the file is larger than {REGISTRY_BYTES_MAX} bytes", line=1)
    for number, line in enumerate(toml.split("\n"), start=1):
        if any("\ud800" <= character <= "\udfff" for character in line):
            raise RegistryError("text is not Unicode", line=number)
        if not unicodedata.is_normalized("NFC", line):
            raise RegistryError("text is not in Unicode's composed form (NFC)", line=number)
    try:
        document = tomllib.loads(toml)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = _SYNTAX_LINE.search(str(error))
        where = int(found[1]) if found else toml.count("\n") + 1
        raise RegistryError(f"not TOML: {str(error).partition(' (at ')[0]}", line=where) from None
    return _Reader(toml, document).registry()


def successor_faults(old: Registry, new: Registry) -> list[RegistryError]:
    """Each reason why ``new`` may not follow ``old`` in one tree, with its line in the new text."""
    lines = _Lines(new.toml)
    return [RegistryError(each.message, line=lines.of(each.path)) for each in refusals(old, new)]


def check_successor(old: Registry, new: Registry) -> None:
    """Raises RegistryError, with the line in the new text, unless ``new`` may follow ``old`` in one tree.

    A register that took another shape would differ between nodes that met the change between different batches, and
    what has gone from the registry would be gone from the tables.
    """
    for fault in successor_faults(old, new):
        raise fault


class _Reader:
    """Walks the document; every complaint carries the path of what it is about."""

    def __init__(self, toml: str, document: dict[str, Any]) -> None:
        self._toml = toml
        self._document = document
        self._lines = _Lines(toml)
        self._levels: tuple[str, ...] = ()

    def _fail(self, path: Path, message: str) -> RegistryError:
        return RegistryError(message, line=self._lines.of(path))

    def _at(self, path: Path) -> Fail:
        return lambda message, *more: self._fail(path + more, message)

    def _known(self, found: dict[str, Any], allowed: frozenset[str], path: Path) -> None:
        for key in found:
            if key not in allowed:
                raise self._fail((*path, key), f"unknown key {key!r}; known are {', '.join(sorted(allowed))}")

    def _take(self, found: dict[str, Any], key: str, kind: type, path: Path, default: Any) -> Any:
        value = found.get(key, default)
        # bool is an int to Python, not to the author of a registry.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._fail((*path, key), f"{'.'.join((*path, key))} must be {_TYPE_WORDS[kind]}")
        return value

    def registry(self) -> Registry:
        document = self._document
        self._known(document, _TOP_KEYS, ())
        if "version" not in document:
            raise self._fail((), "version is missing: number the registry from 1")
        version = self._take(document, "version", int, (), 0)
        if not 1 <= version <= VERSION_MAX:
            raise self._fail(("version",), "version must be 1 or more")
        name = self._take(document, "name", str, (), "")
        self._levels = self._read_levels()
        tables = self._take(document, "tables", dict, (), {})
        if not tables:
            raise self._fail(("tables",), "there are no tables")
        read = {key: self._table(key, number) for number, key in enumerate(tables, start=USER_TABLES_FROM)}
        check_kinds(read.values(), self._at(("tables",)))
        digest = hashlib.sha256(self._toml.encode()).digest()
        return Registry(version, self._toml, digest, self._levels, MappingProxyType(read), name)

    def _read_levels(self) -> tuple[str, ...]:
        levels = self._take(self._document, "levels", list, (), [])
        if not 1 <= len(levels) <= LEVELS_MAX:
            raise self._fail(("levels",), f"levels must name 1 to {LEVELS_MAX} levels, the root's first")
        for level in levels:
            if not isinstance(level, str) or not NAME.fullmatch(level):
                raise self._fail(("levels",), f"{level!r} cannot name a level; use a-z, 0-9 and _")
        if len(set(levels)) < len(levels):
            raise self._fail(("levels",), "two levels have one name")
        return tuple(levels)

    def _table(self, name: str, number: int) -> Table:
        path = ("tables", name)
        check_name(name, "table", self._at(path))
        found = self._take(self._document["tables"], name, dict, ("tables",), {})
        self._known(found, _TABLE_KEYS, path)
        deletion = self._take(found, "delete", str, path, "review")
        if deletion not in DELETIONS:
            raise self._fail((*path, "delete"), f"{name}.delete must be one of {', '.join(DELETIONS)}")
        # Reading by all has one form, so that it compares equal.
        read_up_to = self._level(found, "read_up_to", path) or None
        catalogue = self._take(found, "catalogue", bool, path, False)
        if catalogue and read_up_to is not None:
            reason = f"{name}: every level judges codes by a catalogue, so all levels read it"
            raise self._fail((*path, "read_up_to"), reason)
        under = self._take(found, "fields", dict, path, {})
        fields = tuple(self._field(name, key, read_up_to) for key in under)
        table = Table(
            name,
            self._take(found, "label", str, path, name),
            catalogue,
            fields,
            registers_of(fields),
            number,
            cast(Deletion, deletion),
            read_up_to,
        )
        check_table(table, self._at((*path, "fields")))
        return table

    def _field(self, table: str, name: str, readers: int | None) -> Field:
        """``readers``: the table's reading level, which a field that names none has too."""
        path = ("tables", table, "fields", name)
        check_name(name, "field", self._at(path))
        found = self._take(self._document["tables"][table]["fields"], name, dict, path[:-1], {})
        self._known(found, _FIELD_KEYS, path)
        if "type" not in found:
            raise self._fail(path, f"{name} has no type")
        kind = self._take(found, "type", str, path, "")
        merge = self._take(found, "merge", str, path, Policy.LATEST.value)
        if kind not in set(FieldType):
            raise self._fail(path, f"{name}: unknown type {kind!r}; known are {', '.join(FieldType)}")
        if merge not in set(Policy):
            raise self._fail(path, f"{name}: unknown merge policy {merge!r}; known are {', '.join(Policy)}")
        return Field(
            name,
            FieldType(kind),
            self._take(found, "label", str, path, name),
            Policy(merge),
            required=self._take(found, "required", bool, path, False),
            partial=self._take(found, "partial", bool, path, False),
            digits=self._optional(found, "digits", int, path),
            values=tuple(self._take(found, "values", list, path, [])),
            kind=self._optional(found, "kind", str, path),
            # Reading by all and writing by all have one form each, so that group members compare equal.
            read_up_to=(self._level(found, "read_up_to", path) or None) if "read_up_to" in found else readers,
            write_from=self._not_deepest(self._level(found, "write_from", path)),
            group=self._optional(found, "group", str, path),
            identifies=self._take(found, "identifies", bool, path, False),
        )

    def _optional(self, found: dict[str, Any], key: str, kind: type, path: Path) -> Any:
        return self._take(found, key, kind, path, None) if key in found else None

    def _level(self, found: dict[str, Any], key: str, path: Path) -> int | None:
        level = self._optional(found, key, str, path)
        if level is None:
            return None
        if level not in self._levels:
            raise self._fail(
                (*path, key), f"{path[-1]}.{key}: unknown level {level!r}; levels are {', '.join(self._levels)}"
            )
        return self._levels.index(level)

    def _not_deepest(self, level: int | None) -> int | None:
        return None if level == len(self._levels) - 1 else level
