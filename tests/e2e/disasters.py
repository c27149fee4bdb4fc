"""What the scripts of bad days share: services that call by themselves, and a ledger of everything ever entered.

Role: enter as a foreign program does, remember each value, and say of every node whether it still has it, in its table
or in its journal. Reach: tests. Invariant: what is expected was noted when it was written, never asked of the product.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.keys import KeyStore
from sync_engine.names import is_held_by
from tests.e2e.conftest import CENTRE, DISTRICT
from tests.e2e.processes import Cluster, Home

SOON_S = 120.0
"""Other tests may run beside these."""

LIVELY = {"every_s": "1.0", "jitter_s": "0.0", "backoff_max_s": "1.0", "on_change": "true"}
HIDDEN = {"phone"}
"""Of the fields used here, those that the centre may not read."""
INSERT = "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, ?, '1990', 'nam')"


def make_lively(homes: Iterable[Home]) -> None:
    """From their next start these call their parents by themselves, each second and with each edit."""
    for home in homes:
        home.configure(**LIVELY)


@dataclass(frozen=True)
class Said:
    unit: str
    key: str
    field: str
    value: str


@dataclass
class Ledger:
    """Every value that was ever entered anywhere; none twice."""

    said: list[Said] = field(default_factory=list)

    def enter(self, home: Home, key: str, name: str, unit: str = DISTRICT) -> None:
        home.sql(INSERT, unit, key, name)
        self.said.append(Said(unit, key, "full_name", name))

    def edit(self, home: Home, key: str, column: str, value: str, unit: str = DISTRICT) -> None:
        assert all(each.value != value for each in self.said), "each value is entered once, to be told apart"
        home.sql(f"UPDATE member SET {column} = ? WHERE unit = ? AND id = ?", value, unit, key)
        assert home.sql(f"SELECT {column} FROM member WHERE unit = ? AND id = ?", unit, key) == [(value,)]
        self.said.append(Said(unit, key, column, value))

    def assert_kept(self, homes: Iterable[Home]) -> None:
        """Each node that may read it still has everything."""
        lost = []
        for home in homes:
            kept = set(_shown(home)) | set(_journal(home))
            lost += [
                f"{home.unit}: {each}"
                for each in self.said
                if each not in kept
                and is_held_by(each.unit, home.unit)
                and not (home.unit == CENTRE and each.field in HIDDEN)
            ]
        assert lost == []


def _shown(home: Home) -> Iterator[Said]:
    names = [row[1] for row in home.sql("PRAGMA table_info(member)")]
    for values in home.sql("SELECT * FROM member"):
        row = dict(zip(names, values, strict=True))
        yield from (Said(row["unit"], row["id"], name, value) for name, value in row.items())


def _journal(home: Home) -> Iterator[Said]:
    for entry in home.json("conflicts"):
        for write in entry["writes"]:
            values = write["value"] if isinstance(write["value"], list) else [write["value"]]
            name = "full_name" if entry["field"] == "identity" else entry["field"]
            yield from (Said(entry["unit"], entry["key"], name, value) for value in values)


# --- homes that are copied and put back ------------------------------------------------------------------------------


def image_of(home: Home, folder: Path) -> Path:
    """An administrator's copy of a home whose service is stopped."""
    assert home.process is None
    return Path(shutil.copytree(home.path, folder / f"image of {home.unit}"))


def put_back(home: Home, image: Path) -> None:
    assert home.process is None
    shutil.rmtree(home.path)
    shutil.copytree(image, home.path)


# --- what people read ------------------------------------------------------------------------------------------------


def words(text: str) -> str:
    """On one line, however the terminal broke it."""
    return " ".join(text.split())


def read_status(home: Home) -> str:
    return words(home.dongbo("status").out)


def key_of(home: Home) -> str:
    """The epoch of the certificate that a home shows."""
    return str(KeyStore.load(home.path).epoch)


def events(home: Home, name: str) -> list[dict[str, Any]]:
    """What a service has logged under one name."""
    lines = (json.loads(line) for line in home.log.splitlines() if line.startswith("{"))
    return [each for each in lines if each.get("event") == name]


def assert_sound(tree: Cluster) -> None:
    """Nothing stopped, nothing waits, every batch is proven, and no service met what nobody had foreseen."""
    for home in tree.homes.values():
        status = home.json("status")
        assert (status["frozen"], status["left_streams"]) == ([], []), status["left_streams"]
        assert (status["waiting_batches"], status["quarantined"]) == (0, 0), status["waiting_for"]
        assert status["alarms"] == []
        assert home.json("verify")["ok"], home.unit
        assert "Traceback" not in home.log, home.tail()
