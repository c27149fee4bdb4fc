"""Merges the stored, signed batches of a scope anew, in a scratch database of its own: what tables and registers ought
to say.

Role: a scratch file that nobody can read, and the scope's applied batches put into it through ``apply_batch``.
Reach: storage, sync_engine. Source: decision 0031. Invariant: the node's own registers and tables are never looked at
here; memory is bounded by a batch, the file by the largest scope.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlcipher3.dbapi2
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event

from conflict.values import Head, StreamId
from conflict.vector import Vector
from node.storage.apply import Incoming, apply_batch
from node.storage.batches import MOVED, settlement_of
from node.storage.context import Context
from node.storage.damaged import sound
from node.storage.engine import IN_LIST, bulk, execute, in_list
from node.storage.former import former_entries
from node.storage.meta import set_meta
from node.storage.registries import current_registry, registry_for
from node.storage.repeated import causes
from node.storage.schema import create_own_tables
from node.storage.seen import followed, present_name
from node.storage.streams import StreamRow, streams
from node.storage.tables import install_tables
from sync_engine.batch import SealedBatch
from sync_engine.errors import RemoteFault
from sync_engine.verify import decode

SCRATCH = "verify-*.db"
SCRATCH_BYTES_MAX = 64 * 1024 * 1024
"""A scratch file that has grown so far is made anew for the next scope."""

CACHE_KIB = 16_000


class Unproven(Exception):
    """A scope's batches are not all here as they were signed, so what its rows ought to be cannot be told."""


class Scratch:
    """A database for the time of one check. It holds personal data, so it is encrypted under a key that is nowhere but
    in this process: what a crash leaves behind says nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / SCRATCH.replace("*", secrets.token_hex(8))
        self._key = secrets.token_hex(32)
        self._engine: Engine = create_engine(
            "sqlite+dongbo://", creator=self._connect, poolclass=StaticPool, hide_parameters=True
        )
        event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))

    def _connect(self) -> Any:
        connection = sqlcipher3.dbapi2.connect(str(self.path), isolation_level=None, check_same_thread=False)
        for pragma in (
            f"key = \"x'{self._key}'\"",
            "journal_mode = MEMORY",  # a savepoint is rolled back where a batch takes the slow way
            "synchronous = OFF",
            "temp_store = MEMORY",
            f"cache_size = -{CACHE_KIB}",
            "trusted_schema = OFF",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    @property
    def is_large(self) -> bool:
        return self.path.stat().st_size > SCRATCH_BYTES_MAX

    def close(self) -> None:
        self._engine.dispose()
        self.path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Take away what a process that was killed in mid-check has left."""
    for path in folder.glob(SCRATCH):
        path.unlink(missing_ok=True)


def prepare(live: Connection, scratch: Connection, context: Context) -> None:
    """Make the scratch database's tables, and give it what is no part of a scope: registry and known codes."""
    registry = current_registry(live, context)
    create_own_tables(scratch)
    install_tables(scratch, registry)
    execute(scratch, "CREATE TABLE IF NOT EXISTS _capture (applying INTEGER)")
    execute(scratch, "INSERT INTO _capture SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM _capture)")
    set_meta(scratch, "registry", str(registry.version))
    codes = execute(live, "SELECT kind, code, unit FROM _code").all()
    bulk(scratch, "INSERT OR IGNORE INTO _code (kind, code, unit) VALUES (?, ?, ?)", [tuple(each) for each in codes])


@dataclass
class Replay:
    """One scope's applied batches, as far as they have been merged anew. ``scratch`` is written to, ``live`` only
    read."""

    context: Context
    scope: str
    _heads: dict[StreamId, Head] = field(default_factory=dict)
    _seen: dict[StreamId, Vector] = field(default_factory=dict)
    _merged: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.context = replace(self.context)  # shares the registries that have been read

    def lacking(self, live: Connection) -> list[int]:
        """Local numbers of the applied batches that have not been merged here yet, in local order. Raises Unproven
        where one is gone."""
        nos: list[int] = []
        for row in streams(live, self.scope):
            done = self._done(row)
            if row.applied is None or row.applied.seq <= done:
                continue
            found = execute(
                live,
                "SELECT no FROM _batch WHERE stream = ? AND seq > ? AND seq <= ?",
                (row.no, done, row.applied.seq),
            ).scalars()
            some = list(found)
            if len(some) != row.applied.seq - done:
                raise Unproven("a batch that was applied here is gone")
            nos += some
        return sorted(nos)

    def _done(self, row: StreamRow) -> int:
        head = self._heads.get(row.stream)
        return 0 if head is None else head.seq

    def advance(self, live: Connection, scratch: Connection, batches_max: int = 1_000_000) -> int:
        """Merge some more, causes before effects; returns how many are left. Raises Unproven."""
        self._name_scope(live, scratch)
        left = self.lacking(live)
        while left and batches_max > 0:
            waiting = []
            for at, no in enumerate(left):
                if batches_max <= 0:
                    waiting += left[at:]
                    break
                if self._apply(live, scratch, no):
                    batches_max -= 1
                else:
                    waiting.append(no)
            if len(waiting) == len(left):
                raise Unproven("a batch that was applied here has causes that were not")
            left = waiting
        return len(left)

    def _name_scope(self, live: Connection, scratch: Connection) -> None:
        """Scopes, streams and batches have the numbers here that they have there: what is put right can be copied."""
        no = execute(live, "SELECT no FROM _scope WHERE name = ?", (self.scope,)).scalar()
        if no is not None:
            execute(scratch, "INSERT OR IGNORE INTO _scope (no, name) VALUES (?, ?)", (no, self.scope))

    def _apply(self, live: Connection, scratch: Connection, no: int) -> bool:
        """Merge one batch, if its causes have been. Raises Unproven."""
        sql = "SELECT stream, hash, state, data FROM _batch WHERE no = ?"
        stream_no, digest, state, data = execute(live, sql, (no,)).one()
        batch = sound(data, digest)
        if batch is None:
            raise Unproven("a batch that was applied here is damaged")
        head = batch.head
        before = self._heads.get(head.stream)
        if head.seq != (0 if before is None else before.seq) + 1 or not self._has_causes(live, batch, state):
            return False
        earlier = self._seen.get(head.stream, Vector())
        seen = followed(live, earlier, batch.header)
        stands_alone = batch.header.repeats is not None
        if state != MOVED:
            self._put(
                *(live, scratch, (no, stream_no), batch),
                seen if before is None or stands_alone else seen.updated([before]),
            )
            self._merged.add(no)
        self._seen[head.stream], self._heads[head.stream] = earlier if stands_alone else seen, head
        return True

    def _has_causes(self, live: Connection, batch: SealedBatch, state: str) -> bool:
        before = (batch.head,) if state == MOVED else causes(batch.header)
        named = (present_name(live, cause.hash) or cause for cause in before)
        heads = ((self._heads.get(cause.stream), cause) for cause in named)
        return all(head is not None and head.seq >= cause.seq for head, cause in heads)

    def _put(
        self, live: Connection, scratch: Connection, numbers: tuple[int, int], batch: SealedBatch, seen: Vector
    ) -> None:
        registry = registry_for(live, self.context, batch)
        if registry is None:
            raise Unproven("the registry version of a batch that was applied here is not here as it was signed")
        no, stream_no = numbers
        head, stream = batch.head, batch.head.stream
        try:
            sections = decode(batch, registry)
        except RemoteFault as fault:
            raise Unproven(f"a batch that was applied here cannot be read: {fault}") from fault
        execute(
            scratch,
            "INSERT INTO _stream (no, origin, epoch, scope, applied_seq, applied_hash) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (no) DO UPDATE SET applied_seq = excluded.applied_seq, applied_hash = excluded.applied_hash",
            (stream_no, stream.origin, stream.epoch, stream.scope, head.seq, head.hash),
        )
        execute(
            scratch,
            "INSERT INTO _batch (no, stream, seq, hash, entries, size, registry, again, state, data)"
            " VALUES (?, ?, ?, ?, ?, 0, ?, ?, 'applied', x'')",
            (
                *(no, stream_no, head.seq, head.hash, batch.header.entries),
                *(batch.header.registry_version[0], int(batch.header.again)),
            ),
        )
        # What was sealed here was shown before it was sealed; what came from elsewhere may have been undone meanwhile.
        own = (stream.origin, stream.epoch) == (self.context.unit, self.context.epoch)
        settled = settlement_of(live, stream_no, head.seq) if batch.header.braked and not own else None
        quiet = frozenset() if settled is None else settled.undone
        former = former_entries(live, self.context, batch.header, sections, self._merged)
        incoming = Incoming(no, head, seen, registry, quiet=quiet, former=former)
        apply_batch(scratch, self.context, incoming, sections)


def copied(scratch: Connection, table: str, scope_no: int, tbl: int, ids: list[str]) -> tuple[str, list[Any]]:
    """Rows of one of the node's own tables about some keys, as they are: (columns, rows)."""
    found = execute(
        scratch, f"SELECT * FROM {table} WHERE scope = ? AND tbl = ? AND id {IN_LIST}", (scope_no, tbl, in_list(ids))
    )
    names = list(found.keys())
    return ", ".join(names), [tuple(each) for each in found.all()]
