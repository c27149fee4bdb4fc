"""Opens the node's database, and is the one place where dialects differ.

Role: engines (synchronous for commands and the simulator, asynchronous for the service), transactions, bulk statements.
Reach: SQLAlchemy, sqlcipher3. Invariant: a write transaction begins with BEGIN IMMEDIATE, or is one
whose late lock SQLite refuses if anybody wrote since it began to read: SQLAlchemy's own default loses updates silently
(40 concurrent increments gave 1). Which SQLite runs is a decision:
docs/decisions/0002.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import sqlcipher3.dbapi2
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from node import platform

BUSY_MS = 60_000
"""How long we wait for a foreign client's lock: one that forgets to commit over lunch stops us, and is named in
status."""

CACHE_KIB = 4_000
"""Of each connection in the pool: this is what a node's memory grows to."""

ROOMY_KIB = 16_000
"""Of one that writes very many rows in no order: fewer pages are written to the log and read again."""

SQLITE_VERSION = str(sqlcipher3.dbapi2.sqlite_version)


registry.register("sqlite.dongbo", "node.storage.driver", "DongboSQLite")
registry.register("sqlite.dongbo_async", "node.storage.driver", "DongboSQLiteAsync")


def connect(path: Path, key: bytes | None) -> Any:
    """A connection of the driver, with its key before anything else (``None``: the file is plain). A file that is not
    there is made for its owner alone; SQLite gives its log the same rights."""
    if not path.exists():
        with contextlib.suppress(OSError):  # the driver says better why it cannot be
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, platform.PRIVATE_FILE))
    connection = sqlcipher3.dbapi2.connect(
        str(path), isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000
    )
    if key is not None:
        connection.execute("PRAGMA cipher_log_level = NONE")  # it would write lines of its own to standard error
        connection.execute(f"PRAGMA key = {key_literal(key)}")
    return connection


def key_literal(key: bytes) -> str:
    """A key of 32 bytes as SQLCipher takes it without stretching it: it was made from a secret that was stretched."""
    return f"\"x'{key.hex()}'\""


def _connect(path: Path, key: bytes | None) -> Any:
    connection = connect(path, key)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # NORMAL lost acknowledged commits in 200 of 200 simulated power cuts
        "foreign_keys = OFF",
        "secure_delete = ON",  # what was withheld or deleted must not linger in free pages
        f"cache_size = -{CACHE_KIB}",
        "temp_store = MEMORY",  # a statement with triggers opens a journal: in a file it doubles the cost of an insert
        "trusted_schema = OFF",
        "recursive_triggers = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    deferred = options.get("reads_only", False) or options.get("locked_at") is not None
    connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


def _note_lock(connection: Connection, _cursor: object, statement: str, *_rest: object) -> None:
    """Write down when a transaction that reads first takes the lock: ``locked_at`` is its option, an empty list."""
    marks = connection.get_execution_options().get("locked_at")
    if marks is not None and not marks and not statement.startswith(("SELECT", "BEGIN")):
        marks.append(time.monotonic())


def open_engine(path: Path, key: bytes | None = None) -> Engine:
    """A synchronous engine on a node's SQLite file."""
    engine = create_engine(
        "sqlite+dongbo://",
        creator=lambda: _connect(path, key),
        poolclass=QueuePool,
        pool_size=2,
        hide_parameters=True,  # an error's text ends in logs and on screens, and the values are members'
    )
    event.listen(engine, "begin", _begin)
    return engine


def open_async_engine(path: Path, key: bytes | None = None) -> AsyncEngine:
    """The service's engine: the same functions run on it through ``run_sync``."""

    async def create(*_args: object, **_kwargs: object) -> aiosqlite.Connection:
        connection = aiosqlite.Connection(lambda: _connect(path, key), iter_chunk_size=64)
        connection._thread.daemon = True  # an unclosed one must not keep the process from ending
        try:
            return await connection
        except Exception:
            await asyncio.to_thread(connection._thread.join)  # it would report to a loop that may be closed by then
            raise

    engine = create_async_engine(
        f"sqlite+dongbo_async:///{path}",
        async_creator=create,
        pool_size=4,
        max_overflow=4,
        pool_timeout=BUSY_MS / 1000,
        pool_use_lifo=True,  # the same few connections, with warm caches
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "begin", _begin)
    event.listen(engine.sync_engine, "before_cursor_execute", _note_lock)
    return engine


@contextmanager
def roomy(connection: Connection) -> Iterator[None]:
    """More memory for one connection, inside."""
    execute(connection, f"PRAGMA cache_size = -{ROOMY_KIB}")
    try:
        yield
    finally:
        if not connection.invalidated:
            execute(connection, f"PRAGMA cache_size = -{CACHE_KIB}")


def execute(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> CursorResult[*tuple[Any, ...]]:
    """One statement with positional parameters, at driver level."""
    return connection.exec_driver_sql(sql, tuple(parameters))


def bulk(connection: Connection, sql: str, rows: Iterable[Sequence[Any]]) -> int:
    """One statement for many rows, at driver level; returns how many rows it changed."""
    parameters = rows if isinstance(rows, list) else list(rows)
    if not parameters:
        return 0
    return connection.exec_driver_sql(sql, parameters).rowcount


IN_LIST = "IN (SELECT value FROM json_each(?))"
"""``column IN_LIST`` with ``in_list(values)``: one parameter, whatever the number of values."""


def in_list(values: Iterable[Any]) -> str:
    return json.dumps(list(values), ensure_ascii=False)


def quoted(name: str) -> str:
    """An identifier in SQL. Names come from a checked registry; quoting is for those that are SQL words."""
    return '"' + name.replace('"', '""') + '"'
