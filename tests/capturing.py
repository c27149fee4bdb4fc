"""A node's tables and capture triggers on disk, and the foreign client that writes to them.

The node prepares them through its own driver; the client is Python's sqlite3, an older SQLite.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlcipher3
from sqlalchemy import create_engine

from node.storage.capture import install_capture, mask_bits
from node.storage.tables import install_tables
from sync_engine.registry import Registry, parse_registry

ROOT = Path(__file__).parent.parent
MEMBERS = parse_registry((ROOT / "node/registry/membership.toml").read_text(encoding="utf-8"))
LIBRARY = parse_registry((ROOT / "tests/registries/library.toml").read_text(encoding="utf-8"))
HUE, VANG = "hue.vn", "phu-vang.hue.vn"

PERSON = {"full_name": "Nguyễn Thị Mẫu", "birth_date": "1945-08", "sex": "nữ"}


def prepare(path: Path, registry: Registry, unit: str, writable: tuple[str, ...]) -> None:
    """What a node does when it sets up or takes a new registry, through its own driver."""
    engine = create_engine(f"sqlite:///{path}", module=sqlcipher3.dbapi2)
    with engine.begin() as conn:
        install_tables(conn, registry)
        install_capture(conn, registry, unit)
        for name in writable:
            conn.exec_driver_sql("INSERT OR IGNORE INTO _writable_unit VALUES (?)", (name,))
    engine.dispose()


Open = Callable[..., sqlite3.Connection]
"""Makes another node: (registry, its unit, the units it may write) to a client's connection."""


@pytest.fixture(name="open_node")
def open_node_fixture(tmp_path: Path) -> Iterator[Open]:
    opened: list[sqlite3.Connection] = []

    def node(registry: Registry = MEMBERS, unit: str = VANG, writable: tuple[str, ...] = (VANG,)) -> sqlite3.Connection:
        path = tmp_path / f"{len(opened)}.db"
        prepare(path, registry, unit, writable)
        opened.append(sqlite3.connect(path, isolation_level=None))
        return opened[-1]

    yield node
    for conn in opened:
        conn.close()


@pytest.fixture(name="client")
def client_fixture(open_node: Open) -> sqlite3.Connection:
    return open_node()


def insert(conn: sqlite3.Connection, table: str = "member", *, verb: str = "INSERT", **row: Any) -> None:
    values = {"unit": VANG, "id": "1", **(PERSON if table == "member" else {}), **row}
    names = ", ".join(values)
    conn.execute(f"{verb} INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", tuple(values.values()))


def pending(conn: sqlite3.Connection, registry: Registry = MEMBERS) -> set[tuple[Any, ...]]:
    """(id, 'I') | (id, 'D') | (id, 'B') | (id, 'E', registers...) for every note."""
    notes = set()
    for number, identifier, kind, mask in conn.execute("SELECT tbl, id, kind, mask FROM _pending"):
        registers = registry.by_number[number].registers
        notes.add((identifier, kind, *(registers[bit].name for bit in mask_bits(registry.by_number[number], mask))))
    return notes


def seal(conn: sqlite3.Connection) -> None:
    conn.execute("DELETE FROM _pending")


def image(conn: sqlite3.Connection, kind: str) -> Any:
    (text,) = conn.execute("SELECT image FROM _pending WHERE kind = ?", (kind,)).fetchone()
    return json.loads(text)


BOOK: dict[str, Any] = {"title": "T", "serial": b"\x00\xff"}
