"""SQLAlchemy's dialects over sqlcipher3: a current SQLite on every platform, and encryption at rest when it is asked
for.

Role: name the driver; spare the asynchronous one three of the four thread visits it makes for each statement.
Reach: SQLAlchemy, aiosqlite, sqlcipher3. Source: docs/decisions/0002.
"""

from __future__ import annotations

from collections import deque
from types import ModuleType
from typing import Any

import aiosqlite
import sqlcipher3.dbapi2
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
    SQLiteDialect_aiosqlite,
)
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util.concurrency import await_


class _Cursor(AsyncAdapt_aiosqlite_cursor):
    """A statement and its rows in one visit to the connection's thread: a batch is some sixty statements."""

    __slots__ = ("_facts",)

    def __init__(self, adapt_connection: Any) -> None:
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection._connection
        self._rows = deque()
        self._facts: tuple[Any, int, Any] = (None, -1, None)

    @property
    def description(self) -> Any:
        return self._facts[0]

    @property
    def rowcount(self) -> int:
        return self._facts[1]

    @property
    def lastrowid(self) -> int:
        last: int = self._facts[2]
        return last

    async def _visit(self, method: str, operation: Any, parameters: Any) -> None:
        connection: Any = self._connection

        def work() -> tuple[Any, int, Any, list[Any]]:
            cursor = getattr(connection._conn, method)(operation, parameters)
            rows = cursor.fetchall() if cursor.description else []
            return cursor.description, cursor.rowcount, cursor.lastrowid, rows

        async with self._adapt_connection._execute_mutex:
            *facts, rows = await connection._execute(work)
        self._facts = (facts[0], facts[1], facts[2])
        self._rows = deque(rows)

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        await self._visit("execute", operation, parameters or ())
        return self

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> Any:
        await self._visit("executemany", operation, seq_of_parameters)
        return self

    async def _async_soft_close(self) -> None:
        """The driver's cursor was done with in the visit."""

    def close(self) -> None:
        self._rows.clear()


class _Connection(AsyncAdapt_aiosqlite_connection):
    __slots__ = ()
    _cursor_cls = _Cursor


class _AsyncDriver(AsyncAdapt_aiosqlite_dbapi):
    """aiosqlite's threads around sqlcipher3's connections, with sqlcipher3's exceptions."""

    def _init_dbapi_attributes(self) -> None:
        names = [
            "DatabaseError",
            "Error",
            "IntegrityError",
            "NotSupportedError",
            "OperationalError",
            "ProgrammingError",
        ]
        for name in (*names, "sqlite_version", "sqlite_version_info", "PARSE_COLNAMES", "PARSE_DECLTYPES", "Binary"):
            setattr(self, name, getattr(self.sqlite, name))

    def connect(self, *arg: Any, **kw: Any) -> AsyncAdapt_aiosqlite_connection:
        creator = kw.pop("async_creator_fn")
        return _Connection(self, await_(creator(*arg, **kw)))


class DongboSQLite(SQLiteDialect_pysqlite):
    """The synchronous dialect: commands at set-up, tests, the simulator."""

    driver = "dongbo"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        module: ModuleType = sqlcipher3.dbapi2
        return module


class DongboSQLiteAsync(SQLiteDialect_aiosqlite):
    """The same, for the service."""

    driver = "dongbo_async"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> AsyncAdapt_aiosqlite_dbapi:
        return _AsyncDriver(aiosqlite, sqlcipher3.dbapi2)
