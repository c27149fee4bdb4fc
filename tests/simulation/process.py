"""One simulated node: files that stay, a process that can crash at any statement, and a clock of its own.

Role: transactions with a fuse; start, crash, image and restore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlcipher3.dbapi2
from sqlalchemy import Connection, Engine, event

from conflict.values import UnitPath
from node.storage import sealing
from node.storage.certificates import keep_path
from node.storage.context import Context
from node.storage.engine import open_engine
from node.storage.setup import open_database
from tests.simulation.identities import IDENTITIES

P = ParamSpec("P")
R = TypeVar("R")
DAY_MS = 86_400_000
EPOCH_DAYS = 2440587.5


class SimulatedCrash(BaseException):
    """The process is gone. Not an Exception: no code of ours may catch it."""


class Process:
    """``on_commit`` is told after each committed transaction, before anything else happens."""

    def __init__(self, unit: str, folder: Path, rng: Random, clock: Callable[[], int]) -> None:
        self.unit, self.path = unit, folder / f"{unit}.db"
        self.identity = IDENTITIES.of(unit)
        self.rng, self._clock = rng, clock
        self.skew_ms = 0
        self.fuse: int | None = None
        self.has_crashed = False
        self.down_until: int | None = None
        self.on_commit: Callable[[Process], None] = lambda _process: None
        self.uncommitted: Callable[[], None] | None = None
        """Told once the transaction under way is committed; never, if it is not."""
        self.context: Context
        self._engine: Engine | None = None
        self._eyes: Any = None

    # --- time and crashes ---

    def now_ms(self) -> int:
        return max(0, self._clock() + self.skew_ms)

    def _burn(self, *_event: Any) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.has_crashed = True
                raise SimulatedCrash(self.unit)

    def _connected(self, connection: Any, _record: Any) -> None:
        # Power cuts are another harness's matter: here only the process dies, so syncing would prove nothing.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA trusted_schema = ON")
        connection.create_function("julianday", 1, lambda _now: (self.now_ms() + 0.25) / DAY_MS + EPOCH_DAYS)

    # --- life ---

    @property
    def is_up(self) -> bool:
        return self._engine is not None

    def start(self) -> None:
        """What a start of the service does. May crash, too."""
        self.has_crashed = False
        self._engine = open_engine(self.path)
        event.listen(self._engine, "connect", self._connected)
        event.listen(self._engine, "before_cursor_execute", self._burn)
        event.listen(self._engine, "commit", self._burn)
        self.context = Context(
            unit=UnitPath(self.unit),
            epoch=self.identity.epoch,
            tree_id=IDENTITIES.tree_id,
            sign=self.identity.sign,
            salt=lambda: self.rng.randbytes(16),
            now_ms=self.now_ms,
        )
        self.write(open_database, self.context)
        self.write(keep_path, self.identity.path, self.context.tree_id)

    def stop(self) -> None:
        """All that was in memory is gone."""
        if self._eyes is not None:
            self._eyes.close()
            self._eyes = None
        if self._engine is not None:
            self._engine.dispose()
        self._engine, self.fuse, self.uncommitted = None, None, None

    def image(self) -> dict[str, bytes]:
        """A copy of the files, as a backup takes it."""
        return {path.name: path.read_bytes() for path in self._files()}

    def restore(self, image: dict[str, bytes]) -> None:
        """Put an old copy back; the process is down."""
        assert not self.is_up
        for path in [*self._files(), self.path.with_name(self.path.name + "-shm")]:
            path.unlink(missing_ok=True)
        for name, data in image.items():
            (self.path.parent / name).write_bytes(data)

    def _files(self) -> list[Path]:
        both = (self.path, self.path.with_name(self.path.name + "-wal"))
        return [path for path in both if path.exists()]

    def bytes_on_disk(self) -> bytes:
        return b"\0".join(path.read_bytes() for path in self._files())

    # --- transactions ---

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        assert self._engine is not None, "a dead process does nothing"
        with self._engine.begin() as connection:
            yield connection
        if self.uncommitted is not None:
            self.uncommitted()
            self.uncommitted = None
        self.on_commit(self)
        self._burn()  # killed right after the commit

    def write(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        with self._writing() as connection:
            return work(connection, *args, **kwargs)

    def read(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        assert self._engine is not None, "a dead process does nothing"
        with self._engine.connect() as connection:
            connection.execution_options(reads_only=True)
            return work(connection, *args, **kwargs)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The simulator looks, through a connection of its own: no fuse burns, and no time is spent on layers."""
        if self._eyes is None:
            self._eyes = sqlcipher3.dbapi2.connect(str(self.path), isolation_level=None)
        found: list[tuple[Any, ...]] = self._eyes.execute(sql, values).fetchall()
        return found

    @property
    def is_fenced(self) -> bool:
        return bool(self.query("SELECT 1 FROM _meta WHERE key = 'fenced' AND value <> ''"))

    def look(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``read`` for the simulator's own eyes."""
        fuse, self.fuse = self.fuse, None
        try:
            return self.read(work, *args, **kwargs)
        finally:
            self.fuse = fuse

    # --- verbs outside sessions ---

    def seal_one(self) -> bool:
        """Seal one batch; False when nothing was pending."""
        return self.write(sealing.seal_next, self.context) is not None
