"""The small frozen values that a merge speaks of.

Role: streams, heads (dots), writes.
Reach: the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType, TypeAlias

UnitPath = NewType("UnitPath", str)
"""A unit's birth path, leaf first: ``phu-vang.hue.vn``. Never reused."""

Scope = NewType("Scope", str)
"""``hue.vn`` (a unit's rows), ``hue.vn/catalog`` or ``vn/registry``."""

Epoch = NewType("Epoch", str)
"""64 random bits as 16 hex digits, drawn by the node itself: never a counter, which a restore would hand out twice."""

Value: TypeAlias = "bool | int | float | str | bytes | tuple[Value, ...] | None"
"""What a register's write carries: a scalar, or one tuple for an atomic group (its fields in registry order)."""

TIME_MAX = 2**63 - 1
"""Times are 48-bit milliseconds above a 16-bit counter in one integer; more than this is malformed."""


def level_of(unit: str) -> int:
    """Depth of a unit in the tree; the root is 0."""
    return unit.count(".")


@dataclass(frozen=True, slots=True, order=True)
class StreamId:
    """One writer's numbered batches for one scope."""

    origin: UnitPath
    epoch: Epoch
    scope: Scope

    def __str__(self) -> str:
        return f"{self.origin}@{self.epoch} {self.scope}"


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """One place in one stream: also the dot of every write sealed there. Its identity is the hash."""

    stream: StreamId
    seq: int
    hash: bytes


class Hold(IntEnum):
    """Why a write is not shown. The first two are for ever: every node judges them alike, from the batch alone."""

    NONE = 0
    RIGHT = 1
    """Its origin may not change that field."""
    RULE = 2
    """Its value breaks the rule of its field."""
    CODE = 3
    """No catalogue that this node has knows its code: one may come that does."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write of one register.

    ``time`` is fixed at sealing: max(what the trigger noted, 1 + the times of the writes it replaced). ``dots`` has
    more than one member only where one edit was sealed twice, in two lives of one node (a restore): it is still one
    write, and is gone as soon as either dot has been seen. A ``held`` write stands in the register like any other and
    is not shown. A ``covered`` one is no longer in the register, because a held write had seen it; it is kept, and
    shown, for as long as nothing that may be shown has seen it (docs/decisions/0023).
    """

    value: Value
    time: int
    origin: UnitPath
    dots: frozenset[Head]
    held: Hold = Hold.NONE
    covered: bool = False

    @property
    def level(self) -> int:
        return level_of(self.origin)
