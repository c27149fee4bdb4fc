"""Runs storage functions for the service: reads side by side, writes one at a time and with pauses.

Role: transactions, the writer's turn, errors of the disk in words.
Reach: node.storage. Invariant: no write transaction is longer than WRITE_MS_MAX by design, a load's excepted
(docs/decisions/0018), and none follows another for so long that a foreign client with a busy timeout of a second is
refused.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from node.storage.engine import open_async_engine
from sync_engine.errors import DiskFull, LocalFault

P = ParamSpec("P")
R = TypeVar("R")

BUSY_SPELL_S = 0.65
"""So long may our write transactions follow one another, the next one included, as far as can be told ..."""

REST_S = 0.12
"""... before we rest for so long. SQLite's busy handler tries again every 100 ms at most, so within a second a waiting
client meets a rest, with a quarter of a second in hand for a busy machine; the price is a sixth of a long catch-up."""

GAP_S = 0.102
"""A pause that came by itself and is as good as a rest: a little more than the handler's longest interval."""

SPACE_BYTES_MIN = 64 * 1024
"""With less than this free, an I/O error means a full disk: SQLite says so where the index beside its log, 32 KiB at a
time, finds no room."""


class StoreFault(LocalFault):
    """The database could not be read or written."""

    default_hint = "look at the disk; if it is sound, run 'dongbo verify'"


class _Pacer:
    """Counts how long we have been writing without a rest. A write is expected to last as long as the longest of late:
    on a slow or busy machine that is several times what it is meant to be."""

    def __init__(self) -> None:
        self._spell_began = self._last_ended = self._expected = 0.0

    async def before(self) -> None:
        now = time.monotonic()
        if now - self._last_ended >= REST_S:
            self._spell_began = now
        elif now + self._expected - self._spell_began > BUSY_SPELL_S:
            await asyncio.sleep(REST_S)
            self._spell_began = time.monotonic()

    def after(self, locked_at: float) -> None:
        """A write that took the lock at ``locked_at`` has ended."""
        if locked_at - self._last_ended >= GAP_S:
            self._spell_began = locked_at
        self._last_ended = time.monotonic()
        self._expected = max(self._last_ended - locked_at, 0.8 * self._expected)


class Database:
    """One node's database, open."""

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        self.path = path
        self._engine: AsyncEngine = open_async_engine(path, key)
        self._writer = asyncio.Lock()
        self._pacer = _Pacer()

    async def read(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``work(connection, ...)`` on a consistent snapshot."""
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(reads_only=True)
                return await connection.run_sync(work, *args, **kwargs)
        except DBAPIError as error:
            raise fault_of(error, self.path) from error

    async def write(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``work(connection, ...)`` in a write transaction, durable on return; nothing is changed if it raises."""
        try:
            async with self._writer:
                await self._pacer.before()
                began = time.monotonic()
                try:
                    async with self._engine.begin() as connection:
                        return await connection.run_sync(work, *args, **kwargs)
                finally:
                    self._pacer.after(began)
        except DBAPIError as error:
            raise fault_of(error, self.path) from error

    async def write_late(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As ``write``, for work that reads and thinks long before it writes: others may write meanwhile.

        If anybody did, SQLite refuses our lock, because what was read is no longer so, and the work is done again under
        a lock from its beginning.
        """
        locked_at: list[float] = []
        try:
            async with self._writer:
                await self._pacer.before()
                try:
                    async with self._engine.connect() as connection:
                        await connection.execution_options(locked_at=locked_at)
                        async with connection.begin():
                            return await connection.run_sync(work, *args, **kwargs)
                finally:
                    if locked_at:
                        self._pacer.after(locked_at[0])
        except DBAPIError as error:
            if "locked" not in str(error.orig):
                raise fault_of(error, self.path) from error
        return await self.write(work, *args, **kwargs)

    async def close(self) -> None:
        await self._engine.dispose()


def fault_of(error: DBAPIError, path: Path) -> LocalFault:
    """A database error in words an operator can act on; statements and values stay out of it."""
    text = str(error.orig)
    if "disk is full" in text or ("disk I/O" in text and shutil.disk_usage(path.parent).free < SPACE_BYTES_MIN):
        return DiskFull("there is no space left for the database")
    if "locked" in text:
        return StoreFault(
            "another program has kept the database locked for a minute",
            hint="find the program that has not ended its transaction, and end it",
        )
    if "not a database" in text:
        return StoreFault(
            "the database cannot be opened: it was encrypted with another secret, or its file is damaged",
            hint="if another program or copy put it there, put the right one back; else restore the node from a backup",
        )
    return StoreFault(f"the database refused: {text.splitlines()[0][:200]}")
