"""The simulated registry as the simulator sees it: written by hand beside the TOML, not read from the product's model.

Role: what the oracle needs to know of tables, registers, who may read, and how a register is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

TOML = (Path(__file__).parent / "registry.toml").read_text(encoding="utf-8")
LATER = "nick"
"""A field that the next version has, before all others, so that every register's place changes."""
NEXT_TOML = TOML.replace("version = 1", "version = 2").replace(
    "[tables.person.fields]\n", f'[tables.person.fields]\n{LATER} = {{ type = "text" }}\n'
)


@dataclass(frozen=True)
class Register:
    name: str
    fields: tuple[str, ...]
    policy: str
    read_up_to: int | None = None
    write_from: int | None = None
    """An edit from below this level is held."""
    code: str | None = None
    """The field of it that holds a code."""

    def code_in(self, value: Any) -> str | None:
        found: str | None = value[self.fields.index(self.code)] if self.code and isinstance(value, tuple) else value
        return found if self.code else None


@dataclass(frozen=True)
class Table:
    name: str
    number: int
    required: str
    registers: tuple[Register, ...]
    delete: str = "review"
    catalogue: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(field for register in self.registers for field in register.fields)

    def register(self, name: str) -> Register:
        return next(each for each in self.registers if each.name == name)


PERSON = Table(
    "person",
    11,
    "name",
    (
        Register("name", ("name",), "review"),
        Register("note", ("note",), "latest"),
        Register("phone", ("phone",), "latest", read_up_to=1),
        Register("card", ("card",), "superior", write_from=1),
        Register("address", ("line", "town"), "latest"),
        Register("badges", ("badges",), "union"),
        Register("rank", ("rank",), "max"),
        Register("own", ("own",), "local"),
        Register("work", ("trade", "place"), "latest", code="trade"),
        Register(LATER, (LATER,), "latest"),
    ),
)
THING = Table(
    "thing",
    12,
    "label",
    (
        Register("label", ("label",), "latest", read_up_to=1),
        Register("count", ("count",), "min", read_up_to=1),
        Register("home", ("home",), "earliest", read_up_to=1, code="home"),
        Register("about", ("about",), "latest", read_up_to=1),
    ),
    delete="delete",
)
WORD = Table(
    "word",
    13,
    "code",
    (
        Register("kind", ("kind",), "latest"),
        Register("code", ("code",), "latest"),
        Register("text", ("text",), "latest"),
    ),
    catalogue=True,
)
KIND = "trade"
"""What the codes in rows are codes of."""
TABLES = {table.name: table for table in (PERSON, THING, WORD)}
BY_NUMBER = {table.number: table for table in TABLES.values()}


def level(unit: str) -> int:
    return unit.count(".")


def within(unit: str, above: str) -> bool:
    return unit == above or unit.endswith("." + above)


def scope_of(table: Table, unit: str) -> str:
    return unit + "/catalog" if table.catalogue else unit


def readable(register: Register, reader: str, unit: str) -> bool:
    """The row's own unit, its parent and whatever is deeper read everything; above that, up to the named level."""
    return level(reader) >= level(unit) - 1 or register.read_up_to is None or level(reader) >= register.read_up_to


def fixed_hold(table: Table, register: Register, value: Any, origin: str, *, enters: bool) -> str:
    """Why a write is held for ever, if it is: its value is none that the field admits, or its origin may enter that
    field with a row and not edit it."""
    if register.name == table.required and not value:
        return "rule"
    barred = register.write_from is not None and level(origin) > register.write_from
    return "right" if barred and not enters else ""


def holds(node: str, scope: str) -> bool:
    """Whether a scope may be at a node at all."""
    unit, _, kind = scope.partition("/")
    if kind == "registry":
        return True
    return within(unit, node) or (kind == "catalog" and within(node, unit))


def identity(required: str) -> bytes:
    """Start of SHA-256 over the MessagePack array of the required values."""
    return sha256(msgspec.msgpack.encode([required])).digest()[:8]


Stamp = tuple[int, str, Any]
"""(time, origin, value)"""


def _recent(write: Stamp) -> tuple[int, int, str, bytes]:
    time, origin, value = write
    return time, -level(origin), origin, msgspec.msgpack.encode(value)


def _early(write: Stamp) -> tuple[int, int, str, bytes]:
    time, origin, value = write
    return time, level(origin), origin, msgspec.msgpack.encode(value)


def shown(policy: str, writes: Iterable[Stamp]) -> Any:
    """The value that people see, by the words of the design."""
    held: Sequence[Stamp] = list(writes)
    known = [write for write in held if write[2] is not None]
    match policy:
        case "earliest":
            return min(held, key=_early)[2]
        case "superior":
            top = min(level(origin) for _, origin, _ in held)
            held = [write for write in held if level(write[1]) == top]
        case "local":
            deep = max(level(origin) for _, origin, _ in held)
            held = [write for write in held if level(write[1]) == deep]
        case "max" if known:
            return max(value for _, _, value in known)
        case "min" if known:
            return min(value for _, _, value in known)
        case "union":
            return any(value for _, _, value in held)
    return max(held, key=_recent)[2]
