"""``node.toml``: what an operator may change about one node.

Role: read, check and write a home's configuration; errors name the file and the key.
Reach: the standard library, node.opening and node.cron for what a schedule may say, sync_engine.names.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from conflict.values import UnitPath
from node.cron import parse_cron
from node.opening import parse_blackout, parse_window
from node.platform import write_private
from sync_engine.errors import LocalFault, NotSetUp
from sync_engine.names import check_unit


class BadConfig(LocalFault):
    """node.toml says something that cannot be."""


SECONDS_MAX = 366 * 24 * 3600
"""Longer than a year is a slip of the keyboard."""

RATE_KBIT_S_MIN = 128
"""Over a slower line the largest frame takes longer than either side waits (IDLE_S, PATIENCE_MS)."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to call the parent, and how fast to speak. ``cron`` (five fields, one or several) wins over ``every_s``;
    ``on_change`` adds a call as soon as something is sealed. Calls are made by themselves only within ``windows``
    (none: at all times) and not on days of ``blackout``; by hand always. ``jitter_s`` spreads children that share a
    timetable; after failures the wait doubles up to ``backoff_max_s``. ``rate_kbit_s`` bounds each direction of the
    line (0: unlimited). ``time_zone`` is that of ``cron``, ``windows`` and ``blackout``."""

    every_s: float = 300
    cron: tuple[str, ...] = ()
    on_change: bool = True
    jitter_s: float = 5
    backoff_max_s: float = 900
    time_zone: str = "Asia/Ho_Chi_Minh"
    windows: tuple[str, ...] = ()
    blackout: tuple[str, ...] = ()
    rate_kbit_s: float = 0


AT_ONCE, BY_HAND = "at once", "by hand"

PLAIN, ENCRYPTED = "plain", "encrypted"


@dataclass(frozen=True, slots=True)
class AtRest:
    """How database and keys lie on the disk. ``encrypted``: with keys made from a secret that is never in the home, in
    ``secret_file`` (on a key disk, say) or in the environment as ``secret_env``."""

    database: str = PLAIN
    secret_file: str = ""
    secret_env: str = ""


@dataclass(frozen=True, slots=True)
class Ca:
    """The key that certifies units below. ``key`` names its file where it is kept elsewhere: brought for each signing,
    else absent. With ``passphrase_file`` or ``passphrase_env`` it has a passphrase of its own, needed as seldom."""

    key: str = ""
    passphrase_file: str = ""
    passphrase_env: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """One node. ``listen`` is where it waits for children (none: it has none), ``address`` what they dial.
    ``registry`` says when a newer version of the registry changes the tables here: as it arrives, or by hand. What
    deletes, or changes one field of, more than ``brake_percent`` of a unit's records at once, and at least
    ``brake_rows``, waits for a person. The conflict journal keeps for ``journal_days`` what has ended; for
    ``overwritten_hours`` after another unit's value has come, a local edit that replaces it is noted there. Every
    ``heartbeat_hours`` this node signs how far its batches go; what other units have signed for, or a sign of theirs,
    is missed ``withheld_hours`` after it should have come."""

    unit: UnitPath
    name: str
    parent_address: str = ""
    listen: str = ""
    address: str = ""
    registry: str = AT_ONCE
    brake_percent: float = 5
    brake_rows: float = 50
    journal_days: float = 400
    overwritten_hours: float = 24
    heartbeat_hours: float = 24
    withheld_hours: float = 24
    schedule: Schedule = field(default_factory=Schedule)
    at_rest: AtRest = field(default_factory=AtRest)
    ca: Ca = field(default_factory=Ca)

    @property
    def ca_key_file(self) -> Path | None:
        """Where the CA key is kept; None: in the home."""
        return Path(self.ca.key) if self.ca.key else None

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
    schedule = _schedule(path, _section(path, raw, "sync"))
    at_rest = AtRest(**_values(path, AtRest, _section(path, raw, "at_rest"), "at_rest.", skip=set()))
    ca = Ca(**_values(path, Ca, _section(path, raw, "ca"), "ca.", skip=set()))
    raw["unit"] = check_unit(str(raw.get("unit", "")))
    values = _values(path, Config, raw, "", skip={"schedule", "at_rest", "ca"})
    if values.get("registry", AT_ONCE) not in (AT_ONCE, BY_HAND):
        raise BadConfig(f"{path}: registry must be {_toml(AT_ONCE)} or {_toml(BY_HAND)}")
    if at_rest.database not in (PLAIN, ENCRYPTED):
        raise BadConfig(f"{path}: at_rest.database must be {_toml(PLAIN)} or {_toml(ENCRYPTED)}")
    return Config(schedule=schedule, at_rest=at_rest, ca=ca, **values)


def _section(path: Path, raw: dict[str, Any], name: str) -> dict[str, Any]:
    section = raw.pop(name, {})
    if not isinstance(section, dict):
        raise BadConfig(f"{path}: {name} must be a section", hint=f"write [{name}] on a line of its own")
    return section


def _schedule(path: Path, raw: dict[str, Any]) -> Schedule:
    """Raises BadConfig."""
    if isinstance(cron := raw.get("cron"), str):  # one, as older versions wrote it
        raw = {**raw, "cron": [cron] if cron.strip() else []}
    schedule = Schedule(**_values(path, Schedule, raw, "sync.", skip=set()))
    try:
        zone = ZoneInfo(schedule.time_zone)
    except (KeyError, ValueError, OSError):  # a name that is not there, or none that could be
        raise BadConfig(
            f"{path}: sync.time_zone: there is no time zone {schedule.time_zone!r}",
            hint='write one such as "Asia/Ho_Chi_Minh" or "UTC"',
        ) from None
    readers: dict[str, Callable[[str], object]] = {
        "cron": lambda text: parse_cron(text, zone),
        "windows": parse_window,
        "blackout": parse_blackout,
    }
    for key, read in readers.items():
        for text in getattr(schedule, key):
            try:
                read(text)
            except ValueError as error:
                raise BadConfig(f"{path}: sync.{key}: {text!r} is not understood", hint=str(error)) from None
    if 0 < schedule.rate_kbit_s < RATE_KBIT_S_MIN:
        raise BadConfig(f"{path}: sync.rate_kbit_s must be 0 (unlimited) or at least {RATE_KBIT_S_MIN}")
    return schedule


def _values(path: Path, kind: type[Any], raw: dict[str, Any], prefix: str, skip: set[str]) -> dict[str, Any]:
    """Known keys of the right type, or BadConfig."""
    wanted = {each.name: str(each.type) for each in fields(kind) if each.name not in skip}
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in wanted:
            known = ", ".join(prefix + name for name in wanted)
            raise BadConfig(f"{path}: there is no setting {prefix}{key}", hint=f"known are {known}")
        found[key] = _value(wanted[key], value, f"{path}: {prefix}{key}", largest=SECONDS_MAX)
    return found


def _value(wanted: str, value: Any, where: str, largest: float) -> Any:
    """A value of the type that its field has. Raises BadConfig."""
    match wanted, value:
        case "bool", bool():
            return value
        case "float", int() | float() if not isinstance(value, bool):
            if not 0 <= value <= largest or math.isnan(value):
                raise BadConfig(f"{where} must be between 0 and {largest}")
            return value
        case "tuple[str, ...]", list() if all(isinstance(each, str) for each in value):
            return tuple(value)
        case (("str" | "UnitPath"), str()):
            return value
    words = {"bool": "true or false", "float": "a number", "tuple[str, ...]": 'a list of texts, such as ["...", "..."]'}
    raise BadConfig(f"{where} must be {words.get(wanted, 'text in quotes')}")


def save(home: Path, config: Config) -> None:
    """Write node.toml, readable by its owner alone."""
    schedule = config.schedule
    lines = [
        f"unit = {_toml(config.unit)}",
        f"name = {_toml(config.name)}",
        f"parent_address = {_toml(config.parent_address)}  # where the parent listens, HOST:PORT",
        f"listen = {_toml(config.listen)}  # where this node waits for children; empty: it has none",
        f"address = {_toml(config.address)}  # what children dial, where it differs from listen",
        f"registry = {_toml(config.registry)}  # when new versions change the tables: 'at once' or 'by hand'",
        f"brake_percent = {config.brake_percent}  # what changes more of a unit's records at once waits for a person",
        f"brake_rows = {config.brake_rows}  # fewer than so many never do",
        f"journal_days = {config.journal_days}  # how long the journal keeps conflicts that have ended",
        f"overwritten_hours = {config.overwritten_hours}  # local edits of what came less long ago are noted there",
        f"heartbeat_hours = {config.heartbeat_hours}  # how often this node signs how far its batches go, at least",
        f"withheld_hours = {config.withheld_hours}  # what units below have signed for and what has not come: how long"
        " until that is an alarm",
        "",
        "[sync]  # when to call the parent",
        f"every_s = {schedule.every_s}  # seconds between calls",
        f"cron = {_toml(_one_or_several(schedule.cron))}  # five fields, or a list of such; empty: every_s counts",
        f"on_change = {_toml(schedule.on_change)}  # also as soon as something has been edited",
        f"jitter_s = {schedule.jitter_s}  # spreads units that share a timetable over so many seconds",
        f"backoff_max_s = {schedule.backoff_max_s}  # after failures the wait doubles, up to this",
        f"time_zone = {_toml(schedule.time_zone)}  # of cron, windows and blackout",
        f"windows = {_toml(schedule.windows)}  # when calls are allowed, such as '22:00-05:00'; empty: at all times",
        f"blackout = {_toml(schedule.blackout)}  # days without calls: '2027-02-05..2027-02-12', '30/04'",
        f"rate_kbit_s = {schedule.rate_kbit_s}  # of the line, in each direction; 0: unlimited",
        "",
        "[at_rest]  # database and keys on this disk",
        f"database = {_toml(config.at_rest.database)}  # 'plain' or 'encrypted'; 'dongbo encrypt' turns it",
        f"secret_file = {_toml(config.at_rest.secret_file)}  # holds the secret; outside the home, maybe on a key disk",
        f"secret_env = {_toml(config.at_rest.secret_env)}  # or the environment variable that holds it",
        "",
        *_ca_section(config.ca),
    ]
    write_private(path_of(home), "\n".join(lines).encode())


def _ca_section(ca: Ca) -> tuple[str, ...]:
    """Only where the CA key is kept in a way of its own."""
    if ca == Ca():
        return ()
    return (
        "[ca]",
        f"key = {_toml(ca.key)}  # the file of the CA key, which need not be there but to certify; empty: in the home",
        f"passphrase_file = {_toml(ca.passphrase_file)}  # of that key alone, read for each signing",
        f"passphrase_env = {_toml(ca.passphrase_env)}  # or the environment variable that holds it",
        "",
    )


def _toml(value: str | bool | tuple[str, ...]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _one_or_several(texts: tuple[str, ...]) -> str | tuple[str, ...]:
    """A single one stands alone, as older versions read it."""
    return texts if len(texts) > 1 else "".join(texts)
