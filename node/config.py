"""``node.toml``: what an operator may change about one node.

Role: read, check and write a home's configuration; errors name the file and the key.
Reach: the standard library, sync_engine.names.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from conflict.values import UnitPath
from node.platform import write_private
from sync_engine.errors import LocalFault, NotSetUp
from sync_engine.names import check_unit


class BadConfig(LocalFault):
    """node.toml says something that cannot be."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to call the parent. ``cron`` (five fields) wins over ``every_s``; ``on_change`` adds a call as soon as
    something is sealed. ``jitter_s`` spreads children that share a timetable; after failures the wait doubles up to
    ``backoff_max_s``."""

    every_s: float = 300
    cron: str = ""
    on_change: bool = True
    jitter_s: float = 5
    backoff_max_s: float = 900
    time_zone: str = "Asia/Ho_Chi_Minh"


@dataclass(frozen=True, slots=True)
class Config:
    """One node. ``listen`` is where it waits for children (none: it has none), ``address`` what they dial."""

    unit: UnitPath
    name: str
    parent_address: str = ""
    listen: str = ""
    address: str = ""
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def address_for_children(self) -> str:
        """What an invitation names; empty when children cannot be told where to call."""
        if self.address:
            return self.address
        host = self.listen.rpartition(":")[0]
        return "" if host in ("", "0.0.0.0", "[::]") else self.listen  # noqa: S104 - compared, not bound


def path_of(home: Path) -> Path:
    return home / "node.toml"


def load(home: Path) -> Config:
    """Raises NotSetUp or BadConfig."""
    path = path_of(home)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotSetUp(f"there is no node in {home}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: {error}", hint="mend the line, or put the file back from a backup") from error
    sync = raw.pop("sync", {})
    schedule = _checked(path, Schedule, sync, "sync.")
    raw["unit"] = check_unit(str(raw.get("unit", "")))
    values = _values(path, Config, raw, "", skip={"schedule"})
    return Config(schedule=schedule, **values)


def _checked(path: Path, kind: type[Schedule], raw: dict[str, Any], prefix: str) -> Schedule:
    return kind(**_values(path, kind, raw, prefix, skip=set()))


def _values(path: Path, kind: type[Any], raw: dict[str, Any], prefix: str, skip: set[str]) -> dict[str, Any]:
    """Known keys of the right type, or BadConfig."""
    wanted = {each.name: each for each in fields(kind) if each.name not in skip}
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in wanted:
            known = ", ".join(prefix + name for name in wanted)
            raise BadConfig(f"{path}: there is no setting {prefix}{key}", hint=f"known are {known}")
        expected: tuple[type, ...] = {"float": (int, float), "bool": (bool,)}.get(str(wanted[key].type), (str,))
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            raise BadConfig(f"{path}: {prefix}{key} must be a {wanted[key].type}")
        if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
            raise BadConfig(f"{path}: {prefix}{key} must not be negative")
        found[key] = value
    return found


def save(home: Path, config: Config) -> None:
    """Write node.toml, readable by its owner alone."""
    lines = [
        f"unit = {_toml(config.unit)}",
        f"name = {_toml(config.name)}",
        f"parent_address = {_toml(config.parent_address)}  # where the parent listens, HOST:PORT",
        f"listen = {_toml(config.listen)}  # where this node waits for children; empty: it has none",
        f"address = {_toml(config.address)}  # what children dial, where it differs from listen",
        "",
        "[sync]  # when to call the parent",
        f"every_s = {config.schedule.every_s}",
        f"cron = {_toml(config.schedule.cron)}  # five fields, such as '0 1,13 * * *'; empty: every_s counts",
        f"on_change = {_toml(config.schedule.on_change)}  # also as soon as something has been edited",
        f"jitter_s = {config.schedule.jitter_s}",
        f"backoff_max_s = {config.schedule.backoff_max_s}",
        f"time_zone = {_toml(config.schedule.time_zone)}",
        "",
    ]
    write_private(path_of(home), "\n".join(lines).encode())


def _toml(value: str | bool) -> str:
    return json.dumps(value, ensure_ascii=False)
