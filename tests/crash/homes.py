"""Homes with real keys and real SQLite files, as they are when each step begins.

Role: make the tree once with production code; play parts of the story on homes, as a local program does.
Reach: node, tests.pki. Invariant: each function that opens a database is called in a forked process.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import sqlcipher3.dbapi2

from node import config as configs
from node import setup
from node.config import Config, Schedule
from node.keys import KeyStore
from node.local import Node, database_path
from node.session import Session
from node.starter import starter_catalog
from node.storage.report import scopes_held
from sync_engine.registry import parse_registry
from tests import pki
from tests.crash.story import BASE, CHILD, COMING, LOCAL, PARENT, ROOT, UNIT, Key, Op, Rows

setup.starter_catalog = lambda: starter_catalog()[:12]  # a small catalogue: each of its rows is a place to die
REGISTRY = parse_registry(setup.SHIPPED_REGISTRY.read_text(encoding="utf-8"))
START_MS, MINUTE_MS, DAY_MS, EPOCH_DAYS = 1_800_000_000_000, 60_000, 86_400_000, 2440587.5
BASE_AT, FIRST_COMING_AT, LOCAL_AT, NOW = 1, 5, 20, 30
"""Minutes of the story: when the first rows are written, then each batch from above, then the local edits."""


@contextmanager
def client(home: Path, minute: int = NOW) -> Iterator[Any]:
    """A local program: plain SQL, with a clock that stands still."""
    days = (START_MS + minute * MINUTE_MS + 0.25) / DAY_MS + EPOCH_DAYS
    with closing(sqlcipher3.dbapi2.connect(str(database_path(home)), isolation_level=None, timeout=10)) as connection:
        connection.create_function("julianday", 1, lambda _now: days)
        yield connection


def perform(connection: Any, op: Op) -> None:
    """One statement of the story."""
    verb, table, unit, identifier, values = op
    if verb in ("INSERT", "REPLACE", "UPSERT"):
        row = {"unit": unit, "id": identifier, **values}
        sql = f"{verb.replace('UPSERT', 'INSERT')} INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        if verb == "UPSERT":
            sql += " ON CONFLICT (unit, id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in values)
        connection.execute(sql, tuple(row.values()))
    elif verb == "UPDATE":
        sets = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"UPDATE {table} SET {sets} WHERE unit = ? AND id = ?", (*values.values(), unit, identifier))
    else:
        connection.execute(f"DELETE FROM {table} WHERE unit = ? AND id = ?", (unit, identifier))


def transaction(connection: Any, ops: Iterable[Op]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for op in ops:
        perform(connection, op)
    connection.execute("COMMIT")


def edit(home: Path, ops: Iterable[Op], minute: int) -> None:
    with client(home, minute) as connection:
        transaction(connection, ops)


def read_rows(connection: Any) -> Rows:
    """The tables of the story as they are: what is NULL is not there. The root's starter catalogue is left out."""
    rows: Rows = {}
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for table in sorted({"member", "catalog"} & there):  # a node that has not met its parent has neither
        cursor = connection.execute(f"SELECT * FROM {table} WHERE unit IN (?, ?)", (UNIT, CHILD))
        names = [column[0] for column in cursor.description]
        for values in cursor:
            row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            key: Key = (table, row.pop("unit"), row.pop("id"))
            rows[key] = row
    return rows


@asynccontextmanager
async def opened(home: Path, minute: int = NOW) -> AsyncIterator[Node]:
    """The production node of a home, on the story's clock."""
    node = await Node.open(home)
    node.context.now_ms = lambda: START_MS + minute * MINUTE_MS
    try:
        yield node
    finally:
        await node.close()


# --- making the tree -------------------------------------------------------------------------------------------------


class _Pipe:
    """A link inside one process."""

    def __init__(self, mine: asyncio.Queue[bytes | None], theirs: asyncio.Queue[bytes | None]) -> None:
        self.mine, self.theirs = mine, theirs

    async def send(self, data: bytes) -> None:
        await self.theirs.put(data)

    async def receive(self) -> bytes | None:
        return await self.mine.get()


async def _sync(child_home: Path, parent_home: Path) -> None:
    up: asyncio.Queue[bytes | None] = asyncio.Queue()
    down: asyncio.Queue[bytes | None] = asyncio.Queue()
    async with opened(child_home) as child, opened(parent_home) as parent:
        link = child.config.unit
        dialling = Session(child, _Pipe(down, up), child=link, peer=parent.config.unit, progress=lambda _: None)
        serving = Session(parent, _Pipe(up, down), child=link, peer=link, progress=lambda _: None)

        async def dial() -> None:
            await dialling.run()
            await up.put(None)

        async with asyncio.TaskGroup() as both:  # a fault of either ends both
            both.create_task(dial())
            both.create_task(serving.run())


def sync(child_home: Path, parent_home: Path) -> None:
    asyncio.run(_sync(child_home, parent_home))


def _seal(home: Path) -> None:
    async def work() -> None:
        async with opened(home) as node:
            await node.seal()

    asyncio.run(work())


def _digest(home: Path) -> None:
    """Have digests computed and kept, so that later ones are only of what has changed."""

    async def work() -> None:
        async with opened(home) as node:
            for scope in await node.database.read(scopes_held, node.context):
                await node.digest(scope)

    asyncio.run(work())


def _join(parent: Path, home: Path, unit: str, *, with_database: bool = True) -> None:
    keys = pki.join(KeyStore.load(parent), home, unit)
    if not with_database:
        return
    setup.make_database(home, keys)
    configs.save(home, Config(keys.unit, unit))


def _name_child(parent: Path, unit: str) -> None:
    with client(parent, 0) as connection:
        connection.execute("INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (unit,))
        connection.execute("INSERT INTO _unit (unit, id, name) VALUES (?, '-', ?)", (unit, unit))
    _seal(parent)


def make_tree(folder: Path) -> None:
    """``folder/base`` with the homes of three units in step; ``folder/ahead`` where those above have made the batches
    that come; ``folder/coming`` with these; ``folder/new`` with keys and no database."""
    base = folder / "base"
    base.mkdir()
    setup.init(base / ROOT, ROOT, ROOT, REGISTRY, listen="", address="", schedule=Schedule())
    for above, unit in ((ROOT, PARENT), (PARENT, UNIT)):
        _join(base / above, base / unit, unit)
        _name_child(base / above, unit)
        sync(base / unit, base / above)
    _name_child(base / UNIT, CHILD)
    edit(base / UNIT, BASE, BASE_AT)
    _join(base / UNIT, folder / "new", CHILD, with_database=False)
    for _ in range(2):
        sync(base / UNIT, base / PARENT)
        sync(base / PARENT, base / ROOT)
    for unit in (ROOT, PARENT, UNIT):
        _digest(base / unit)
    ahead = folder / "ahead"
    shutil.copytree(base, ahead)
    (folder / "coming").mkdir()
    for number, coming in enumerate(COMING):
        edit(ahead / coming.origin, coming.ops, FIRST_COMING_AT + number)
        _seal(ahead / coming.origin)
        (folder / "coming" / str(number)).write_bytes(_last_batch(ahead / coming.origin))
        sync(ahead / PARENT, ahead / ROOT)


def _last_batch(home: Path) -> bytes:
    with client(home) as connection:
        data: bytes = connection.execute("SELECT data FROM _batch ORDER BY no DESC LIMIT 1").fetchone()[0]
        return data


def play_local(home: Path) -> None:
    """All local edits, left pending."""
    for ops in LOCAL:
        edit(home, ops, LOCAL_AT)
