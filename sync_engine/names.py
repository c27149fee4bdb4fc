"""Units, scopes, and who may see or write which: all of it follows from names.

Role: check names; say which scopes a parent and a child share, and who may be the origin of a stream.
Reach: conflict.values. Source: protocol, "Names".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from conflict.values import Scope, UnitPath, level_of
from sync_engine.errors import BadName

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
CATALOG, REGISTRY = "/catalog", "/registry"
RESERVED_LABELS = frozenset({"enrol"})
"""``enrol.<unit>.dongbo`` names an invitation's certificate, so no unit may be called that."""

DEPTH_MAX = 16
"""A path longer than this is no administration's; it would only cost memory."""

NAME_CHARS_MAX = 200


def check_label(label: str) -> str:
    """One label of a unit's path. Raises BadName."""
    if not LABEL.fullmatch(label) or label in RESERVED_LABELS:
        raise BadName(
            f"{label!r} is not a unit's short name",
            hint="use 1-32 of a-z, 0-9 and '-', with a letter or digit at both ends, such as phu-vang",
        )
    return label


def check_unit(path: str) -> UnitPath:
    """A whole path, leaf first. Raises BadName."""
    labels = path.split(".")
    if len(labels) > DEPTH_MAX:
        raise BadName("a unit's path has too many labels", hint=f"at most {DEPTH_MAX} are allowed")
    for label in labels:
        check_label(label)
    return UnitPath(path)


def is_name(name: str) -> bool:
    """Whether people may know a unit by this name."""
    return 0 < len(name) <= NAME_CHARS_MAX and name.isprintable()


def parent_of(unit: str) -> UnitPath | None:
    """The unit above, or None for the root."""
    _, dot, above = unit.partition(".")
    return UnitPath(above) if dot else None


def root_of(unit: str) -> UnitPath:
    return UnitPath(unit.rpartition(".")[2])


def path_of(unit: str) -> Iterator[UnitPath]:
    """The unit itself, then its ancestors up to the root."""
    step: UnitPath | None = UnitPath(unit)
    while step is not None:
        yield step
        step = parent_of(step)


def is_within(unit: str, above: str) -> bool:
    """Whether ``unit`` is ``above`` or lies below it."""
    return unit == above or unit.endswith("." + above)


def unit_of(scope: str) -> UnitPath:
    """The unit a scope belongs to."""
    return UnitPath(scope.partition("/")[0])


def check_scope(scope: str) -> Scope:
    """Raises BadName unless ``scope`` is a unit's rows, a catalogue or the registry of a root."""
    unit, slash, kind = scope.partition("/")
    check_unit(unit)
    if slash and ("/" + kind not in (CATALOG, REGISTRY) or ("/" + kind == REGISTRY and level_of(unit) != 0)):
        raise BadName(f"{scope!r} is not a scope", hint="a scope is a unit, UNIT/catalog, or ROOT/registry")
    return Scope(scope)


def may_write(origin: str, scope: str) -> bool:
    """Whether a unit may be the origin of a stream of this scope: a suffix check on names."""
    if "/" in scope:
        return origin == unit_of(scope)
    return is_within(scope, origin)


def is_shared(scope: str, child: str) -> bool:
    """Whether a scope travels on the link between ``child`` and its parent."""
    owner = unit_of(scope)
    if scope.endswith(REGISTRY):
        return owner == root_of(child)
    if scope.endswith(CATALOG):
        return is_within(owner, child) or is_within(child, owner)
    return is_within(owner, child)


def is_towards(origin: str, peer: str, unit: str) -> bool:
    """Whether ``peer``, a neighbour of ``unit``, is an origin or stands on the way to it."""
    return is_within(origin, peer) if is_within(peer, unit) else not is_within(origin, unit)


def is_held_by(scope: str, unit: str) -> bool:
    """Whether a node of ``unit`` may hold this scope at all: rows of its subtree, catalogues above and below,
    registry."""
    return is_shared(scope, unit)


def dns_name(unit: str) -> str:
    """The one DNS name in a unit's node certificate."""
    return f"{unit}.dongbo"
