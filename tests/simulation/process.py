"""One simulated node: files that stay, a process that can crash at any statement, and a clock of its own.
Two machines may be one node: their names differ.

Role: transactions with a fuse; start, crash, power cut, image and restore.
Invariant: a crash leaves the files as they are at that moment, write-ahead log and all; a power cut leaves of what was
not synced some sectors and not others. Syncs are counted, not made: whether a commit is durable is what the product
asked SQLite for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlcipher3.dbapi2
from dongbo.v1 import sync_pb2
from sqlalchemy import Connection, Engine, event

from conflict.values import UnitPath
from node.renewal import keep_vouched, name_children
from node.storage import lives, sealing
from node.storage.certificates import keep_path, mark_mine
from node.storage.context import BrakeRule, Context
from node.storage.engine import open_engine
from node.storage.setup import open_database
from tests.simulation.identities import IDENTITIES, Identity
from tests.simulation.lives import Keys

P = ParamSpec("P")
R = TypeVar("R")
DAY_MS = 86_400_000
EPOCH_DAYS = 2440587.5
FULL = 2
"""``PRAGMA synchronous``: from here on a commit is on the disk when it returns."""
SECTOR, LOG_HEADER = 512, 32
DATABASE, LOG, SHARED, KEYS = ".db", ".db-wal", ".db-shm", ".keys"
KEPT = (DATABASE, LOG, KEYS)
"""The endings of the files that a backup copies."""


class SimulatedCrash(BaseException):
    """The process is gone. Not an Exception: no code of ours may catch it."""


def introduce(connection: Connection, context: Context, life: Identity) -> None:
    """A node's own certificate is in its database from the start."""
    mark_mine(connection, keep_path(connection, life.path, context.tree_id))


class Process:
    """``on_commit`` is told after each committed transaction, before anything else happens."""

    def __init__(self, unit: str, folder: Path, rng: Random, clock: Callable[[], int], name: str = "") -> None:
        self.unit, self.name = unit, name or unit
        self.path = folder / f"{self.name}{DATABASE}"
        self.keys = Keys.load(unit, self._keys_path)
        self.rng, self._clock = rng, clock
        self.skew_ms = 0
        self.fuse: int | None = None
        """Statements and commits until the process dies; commits alone where the power is to be cut."""
        self.cuts_power = False
        """Whether the machine dies with it."""
        self.has_crashed = False
        self.counts_syncs = False
        """Whether power cuts are to come: then each commit's log is remembered."""
        self.down_until: int | None = None
        self.alone_until = 0
        """Until when nobody is met: the turn."""
        self.is_blank = False
        self.vouched: sync_pb2.EnrolResponse | None = None
        """What its parent has signed for the key with which it begins anew."""
        """Whether its disk is new, and nothing on it yet."""
        self.is_refused = False
        """Whether its parent has certified another life to come after the one that this node had."""
        self.brake = BrakeRule(share=1.0)
        self.by_hand = False
        """Whether its operator brings registry versions into force."""
        self.on_commit: Callable[[Process], None] = lambda _process: None
        self.uncommitted: Callable[[], None] | None = None
        """Told once the transaction under way is committed; never, if it is not."""
        self.context: Context
        self._engine: Engine | None = None
        self._eyes: Any = None
        self._is_synced = True
        self._before_commit: bytes | None = None
        self._durable_log = b""

    # --- time and crashes ---

    def now_ms(self) -> int:
        return max(0, self._clock() + self.skew_ms)

    def light(self, fuse: int, *, cuts_power: bool = False) -> None:
        """Let the process die after so many statements, or the machine while it writes one of its next commits."""
        self.fuse, self.cuts_power = fuse, cuts_power
        if self._engine is not None:
            self._watch()

    def _watch(self) -> None:
        """Only where a fuse burns: to be told of each statement costs a tenth of a run."""
        if not event.contains(self._engine, "commit", self._burn_commit):
            event.listen(self._engine, "before_cursor_execute", self._burn)
            event.listen(self._engine, "commit", self._burn_commit)

    def _burn(self, *_event: Any) -> None:
        if self.fuse is not None and not self.cuts_power:
            self.fuse -= 1
            if self.fuse <= 0:
                self._die()

    def _burn_commit(self, *_event: Any) -> None:
        """The process dies before its commit; the power fails while a commit is being written."""
        if self.fuse is None or not self.cuts_power:
            return self._burn()
        self.fuse -= 1
        if self.fuse <= 0:
            self._before_commit = self.path.read_bytes()
        return None

    def _die(self) -> None:
        self.has_crashed = True
        raise SimulatedCrash(self.name)

    def _connected(self, connection: Any, _record: Any) -> None:
        ((synchronous,),) = connection.execute("PRAGMA synchronous").fetchall()
        self._is_synced = synchronous >= FULL
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA trusted_schema = ON")
        connection.create_function("julianday", 1, lambda _now: (self.now_ms() + 0.25) / DAY_MS + EPOCH_DAYS)

    # --- life ---

    @property
    def is_up(self) -> bool:
        return self._engine is not None

    def start(self) -> None:
        """What a start of the service does. May crash, too."""
        self.has_crashed, self._before_commit = False, None
        self._durable_log = self._log()
        self._engine = open_engine(self.path)
        event.listen(self._engine, "connect", self._connected)
        if self.fuse is not None:
            self._watch()
        self.keys = Keys.load(self.unit, self._keys_path)
        life = self.keys.certified
        self.context = Context(
            unit=UnitPath(self.unit),
            epoch=life.epoch,
            tree_id=IDENTITIES.tree_id,
            sign=life.sign,
            salt=lambda: self.rng.randbytes(16),
            now_ms=self.now_ms,
            brake=self.brake,
            registry_by_hand=self.by_hand,
        )
        self.write(open_database, self.context)
        self.write(introduce, self.context, self.keys.certified)
        if self.vouched is not None:
            self.write(keep_vouched, self.context, self.vouched)
            self.vouched = None
        self.write(name_children, self.context, self.keys)  # type: ignore[arg-type]
        if self.keys.waiting:
            self._resume_life()

    def _resume_life(self) -> None:
        """What a start does where a new life waits for its certificate."""
        life = self.keys.sealing
        if self.look(lives.is_begun, life.epoch):
            self.context.proven = self.context.speaks_as
            self.context.epoch, self.context.sign = life.epoch, life.sign
        else:
            self.write(lives.begin_life, self.context, life.epoch, life.sign, again=True)
        while self.seal_one():  # also what a crash has left of what was pending then
            pass
        self.write(lives.settle_down)

    def rebuild(self) -> None:
        """A home made anew: new keys, which the parent certifies at once, and an empty database."""
        self.restore({})
        self.keys = Keys(self.unit, self._keys_path, f"{self.rng.getrandbits(64):016x}")
        self.keys.save()
        self.is_blank = self.is_refused = False

    def install(self, life: Identity) -> None:
        """Its parent has certified the life that waited: it is spoken for at once, without a restart."""
        self.keys.install(life)
        self.context.proven = None
        self.is_refused = False

    def stop(self) -> None:
        """All that was in memory is gone."""
        if self._eyes is not None:
            self._eyes.close()
            self._eyes = None
        if self._engine is not None:
            self._engine.dispose()
        self._engine, self.fuse, self.uncommitted = None, None, None

    def crash(self) -> bool:
        """The process dies here and now, and the machine with it if the power is cut. Whether a write was torn."""
        files, log = self.image(), self._log()
        cut, self.cuts_power = self.cuts_power and self.counts_syncs, False
        torn = self._torn_log(log) if cut else log
        self.stop()
        if log:
            files[LOG] = torn
        self.restore(files)
        return torn != log

    def _torn_log(self, log: bytes) -> bytes:
        """Of each sector written since the last sync the disk has the old or the new, and of one at least the old."""
        old = log[:LOG_HEADER] + self._durable_log[LOG_HEADER:]  # SQLite syncs a new header before what follows it
        old = old.ljust(len(log), b"\0")
        sectors = [(log[at : at + SECTOR], old[at : at + SECTOR]) for at in range(0, len(log), SECTOR)]
        differing = [at for at, (new, before) in enumerate(sectors) if new != before]
        if not differing:
            return log
        lost = {self.rng.choice(differing), *(at for at in differing if self.rng.random() < 0.3)}
        return b"".join(before if at in lost else new for at, (new, before) in enumerate(sectors))

    @property
    def _log_path(self) -> Path:
        return self._path(LOG)

    @property
    def _keys_path(self) -> Path:
        return self._path(KEYS)

    def _path(self, ending: str) -> Path:
        return self.path.with_name(self.name + ending)

    def _log(self) -> bytes:
        return self._log_path.read_bytes() if self._log_path.exists() else b""

    def image(self) -> dict[str, bytes]:
        """A copy of the files by their endings, as a backup takes it."""
        return {ending: self._path(ending).read_bytes() for ending in KEPT if self._path(ending).exists()}

    def restore(self, image: dict[str, bytes]) -> None:
        """Put an old copy back, or nothing; the process is down."""
        assert not self.is_up
        for ending in (*KEPT, SHARED):
            self._path(ending).unlink(missing_ok=True)
        for ending, data in image.items():
            self._path(ending).write_bytes(data)

    def bytes_on_disk(self) -> bytes:
        return b"\0".join(self._path(each).read_bytes() for each in (DATABASE, LOG) if self._path(each).exists())

    # --- transactions ---

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        assert self._engine is not None, "a dead process does nothing"
        with self._engine.begin() as connection:
            yield connection
        if self._before_commit is not None and self._before_commit == self.path.read_bytes():
            self._die()  # the power failed while the log was being written: nobody has been told of the commit
        if self.counts_syncs and self._is_synced:
            self._durable_log = self._log()
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
    def has_tables(self) -> bool:
        """Whether it has been given the registry; before that, a new disk holds none of its tables."""
        return self.query("SELECT count(*) FROM sqlite_master WHERE name IN ('person', 'thing', 'word')") == [(3,)]

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
