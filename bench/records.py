"""The rows that are measured, and the floor: the same rows into a bare SQLite file.

Role: synthetic members of the shipped registry; loading them by plain SQL, captured or not.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlcipher3.dbapi2

from node.demo.members import FIELDS, members

UNIT = "hue.vn"
COMMUNES = ("Phường Vỹ Dạ", "Phường Thuận Hòa", "Xã Phú Mậu", "Xã Thủy Thanh")
COLUMNS = ("unit", *FIELDS)
INSERT = f"INSERT INTO member ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
UPSERT = (
    f"{INSERT} ON CONFLICT (unit, id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in FIELDS[1:])}"
)

Row = tuple[Any, ...]


def rows_of(count: int) -> list[Row]:
    """Members of one unit, ids in random order as other programs make them."""
    return [(UNIT, *row) for row in members(count, seed=20261124, communes=COMMUNES, random_ids=True)]


def floor_seconds(folder: Path, rows: Sequence[Row]) -> float:
    """One executemany upsert into a bare file, FULL, through the library the node itself uses."""
    path = folder / "floor.db"
    for name in (path, path.with_name("floor.db-wal"), path.with_name("floor.db-shm")):
        name.unlink(missing_ok=True)
    connection = sqlcipher3.dbapi2.connect(str(path), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    typed = ", ".join(
        f"{name} TEXT" if name not in ("card_pages", "has_handbook") else f"{name} INTEGER" for name in COLUMNS
    )
    connection.execute(f"CREATE TABLE member ({typed}, PRIMARY KEY (unit, id))")
    began = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(UPSERT, rows)
    connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return took


def captured(database: Path, statement: str, rows: Sequence[Row]) -> float:
    """What a foreign program does to a node's file, in one transaction: seconds, triggers included."""
    connection = sqlite3.connect(database, isolation_level=None, timeout=30)
    began = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, rows)
    connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return took


def uncaptured(database: Path, statement: str, rows: Sequence[Row]) -> float:
    """The same in a copy of the file that has no triggers."""
    connection = sqlite3.connect(database, isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f'DROP TRIGGER "{name}"')
    connection.close()
    return captured(database, statement, rows)
