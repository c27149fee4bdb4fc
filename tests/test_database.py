"""Transactions of the service: a late lock is refused if anybody wrote in between, and the work is done again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import sqlcipher3.dbapi2
from sqlalchemy import Connection

from node.database import Database
from node.storage.engine import execute


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "t.db")
    await opened.write(execute, "CREATE TABLE t (n INTEGER)")
    await opened.write(execute, "INSERT INTO t VALUES (1)")
    yield opened
    await opened.close()


def foreign(database: Database, statement: str) -> None:
    client = sqlcipher3.dbapi2.connect(str(database.path), isolation_level=None, timeout=1)
    client.execute(statement)
    client.close()


async def test_what_a_late_writer_read_still_holds_when_it_writes(database: Database) -> None:
    seen: list[int] = []

    def double(connection: Connection) -> None:
        value = execute(connection, "SELECT n FROM t").scalar_one()
        seen.append(value)
        if len(seen) == 1:
            foreign(database, "UPDATE t SET n = 10")
        execute(connection, "UPDATE t SET n = ?", (2 * value,))

    await database.write_late(double)
    assert seen == [1, 10]
    assert await database.read(lambda connection: execute(connection, "SELECT n FROM t").scalar_one()) == 20


async def test_others_may_write_while_a_late_writer_reads(database: Database) -> None:
    def read_only_in_the_end(connection: Connection) -> int:
        value: int = execute(connection, "SELECT n FROM t").scalar_one()
        foreign(database, "UPDATE t SET n = n + 1")
        return value

    assert await database.write_late(read_only_in_the_end) == 1
    assert await database.read(lambda connection: execute(connection, "SELECT n FROM t").scalar_one()) == 2


async def test_nothing_is_changed_when_late_work_fails(database: Database) -> None:
    def fail(connection: Connection) -> None:
        execute(connection, "UPDATE t SET n = 5")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - any error of the work
        await database.write_late(fail)
    assert await database.read(lambda connection: execute(connection, "SELECT n FROM t").scalar_one()) == 1
