"""Computes the digests of a scope from its registers, off the hot path, and remembers them by applied heads.

Role: read registers in key order, in bounded memory; of a large scope only the buckets that what was applied since the
last time may have changed.
Reach: storage tables, sync_engine.digest. Source: decision 0031. Invariant: applying notes nothing for this: which keys
a batch touches, the batch itself says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from conflict.numbers import statement
from conflict.register import rivals
from conflict.values import level_of
from node.storage.batches import hash_at, undamaged
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.registers import load_keys
from node.storage.registries import current_registry
from node.storage.streams import applied_heads, streams
from sync_engine.digest import ColumnDigest, bucket_of, scope_digest, with_buckets
from sync_engine.entries import ids_of
from sync_engine.errors import BadInput, RemoteFault
from sync_engine.merge import ALIVE, RowState
from sync_engine.names import unit_of
from sync_engine.registry import Register, Registry, Table

UNREADABLE = (DBAPIError, BadInput, KeyError, ValueError, TypeError, msgspec.MsgspecError)
"""What reading rows ends with that somebody has written to past this program."""

KEYS_AT_ONCE = 1_000
IDS_AT_ONCE = 10_000
"""Ids that are looked at together for those of the dirty buckets."""

ROWS_BUCKETED = 4_096
"""From so many rows on, a scope's bucket hashes are kept (8 KiB a column): a smaller one is read anew in less time than
it takes to write that about it."""

ENTRIES_READ = 1_024
"""Entries of new batches whose ids are looked at. They touch nearly every bucket; more are not worth reading."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """The bucket hashes of a scope's columns, and what they were computed from: the registry and each stream's applied
    head, by the stream's local number."""

    registry: bytes
    heads: dict[int, tuple[int, bytes]]
    hashes: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class ScopeDigest:
    """``columns`` by ``table.register`` for what this node may read; ``rows`` counts what the tables show."""

    scope: str
    rows: int
    digest: bytes
    columns: dict[str, bytes]
    state: bytes
    """What it was computed from: the registry's version and the applied heads."""
    kept: Buckets | None = field(default=None, compare=False, repr=False)
    """Of a large scope: its bucket hashes, for the next time."""


class RowsUnreadable(Exception):
    """A row or its registers are no longer what this program wrote: ``verify`` says which."""


class PendingFirst(Exception):
    """An edit is pending in the scope: the table no longer shows what its register held, so seal before digesting."""


def digest_scope(connection: Connection, context: Context, scope: str) -> ScopeDigest:
    """The scope's digests, computed anew only if something has been applied since they were. Raises PendingFirst."""
    registry = current_registry(connection, context)
    tables = [table for table in registry.all_tables.values() if table.belongs_in(scope)]
    state = state_of(connection, registry, scope)
    rows = sum(
        execute(connection, f'SELECT count(*) FROM "{table.name}" WHERE unit = ?', (unit_of(scope),)).scalar_one()
        for table in tables
        if not table.is_builtin
    )
    known = execute(connection, "SELECT state, columns FROM _digest WHERE scope = ?", (scope,)).one_or_none()
    kept = None
    if known is not None and known[0] == state:
        columns = msgspec.msgpack.decode(known[1], type=dict[str, bytes])
    else:
        hashes = _bucket_hashes(connection, context, tables, scope, registry.sha256)
        columns = {name: sha256(each).digest() for name, each in hashes.items()}
        if _is_large(connection, scope):
            kept = Buckets(registry.sha256, _heads(connection, scope), hashes)
    unit_level = level_of(unit_of(scope))
    by_all = [
        f"{table.name}.{name}"
        for table in tables
        for name in (ALIVE, *(each.name for each in table.registers if table.may_read(each, 0, unit_level)))
    ]
    return ScopeDigest(scope, rows, scope_digest(columns, by_all), columns, state, kept)


def state_of(connection: Connection, registry: Registry, scope: str) -> bytes:
    """What a scope's digests are computed from."""
    state = sha256(registry.sha256)
    for head in sorted(applied_heads(connection, scope)):
        state.update(head.hash)
    return state.digest()


def changed_scopes(connection: Connection, context: Context) -> list[str]:
    """Scopes of which something has been merged since their digests were computed."""
    registry = current_registry(connection, context)
    known = {scope: state for scope, state in execute(connection, "SELECT scope, state FROM _digest").all()}
    found = {row.stream.scope for row in streams(connection) if row.applied is not None}
    return sorted(scope for scope in found if known.get(scope) != state_of(connection, registry, scope))


def _check_sealed(connection: Connection, table: Table, scope: str) -> None:
    pending = execute(
        connection, "SELECT 1 FROM _pending WHERE unit = ? AND tbl = ? LIMIT 1", (unit_of(scope), table.number)
    )
    if pending.scalar() is not None:
        raise PendingFirst


def remember(connection: Connection, _context: Context, digest: ScopeDigest) -> None:
    """Keep computed digests under what they were computed from: meanwhile more may have been applied."""
    execute(
        connection,
        "INSERT INTO _digest (scope, state, columns) VALUES (?, ?, ?)"
        " ON CONFLICT (scope) DO UPDATE SET state = excluded.state, columns = excluded.columns",
        (digest.scope, digest.state, msgspec.msgpack.encode(digest.columns)),
    )
    if digest.kept is not None:
        kept = digest.kept
        execute(
            connection,
            "INSERT OR REPLACE INTO _digest_buckets (scope, registry, heads, hashes) VALUES (?, ?, ?, ?)",
            (digest.scope, kept.registry, msgspec.msgpack.encode(kept.heads), msgspec.msgpack.encode(kept.hashes)),
        )


def forget(connection: Connection, scope: str) -> None:
    """What was remembered of a scope no longer holds: registers were changed otherwise than by a batch."""
    for table in ("_digest", "_digest_buckets"):
        execute(connection, f"DELETE FROM {table} WHERE scope = ?", (scope,))


def _bucket_hashes(
    connection: Connection, context: Context, tables: Sequence[Table], scope: str, registry: bytes
) -> dict[str, bytes]:
    """The bucket hashes of every column, of which those that nothing has touched are taken from the last time."""
    kept = _kept(connection, scope)
    usable = kept is not None and kept.registry == registry
    dirty = _dirty(connection, scope, kept.heads) if kept is not None and usable else None
    found: dict[str, bytes] = {}
    for table in tables:
        _check_sealed(connection, table, scope)
        buckets = None if dirty is None else dirty.get(table.name, set())
        before = {} if kept is None or buckets is None else kept.hashes
        for name, column in digest_table(connection, context, table, scope, buckets).items():
            hashes = column.bucket_hashes()
            found[name] = hashes if buckets is None else with_buckets(before.get(name), hashes, buckets)
    return found


def _is_large(connection: Connection, scope: str) -> bool:
    rows = "SELECT 1 FROM _row JOIN _scope ON _scope.no = _row.scope WHERE name = ? LIMIT 1 OFFSET ?"
    return execute(connection, rows, (scope, ROWS_BUCKETED - 1)).scalar() is not None


def _heads(connection: Connection, scope: str) -> dict[int, tuple[int, bytes]]:
    return {row.no: (row.applied.seq, row.applied.hash) for row in streams(connection, scope) if row.applied}


def _kept(connection: Connection, scope: str) -> Buckets | None:
    sql = "SELECT registry, heads, hashes FROM _digest_buckets WHERE scope = ?"
    found = execute(connection, sql, (scope,)).one_or_none()
    if found is None:
        return None
    heads = msgspec.msgpack.decode(found[1], type=dict[int, tuple[int, bytes]])
    return Buckets(found[0], heads, msgspec.msgpack.decode(found[2], type=dict[str, bytes]))


def _dirty(connection: Connection, scope: str, before: Mapping[int, tuple[int, bytes]]) -> dict[str, set[int]] | None:
    """By table: the buckets of the keys that batches applied since ``before`` speak of; None where that is not worth
    reading, or cannot be read."""
    spans = []
    for no, (seq, _digest) in _heads(connection, scope).items():
        began, digest = before.get(no, (0, b""))
        if began > seq or (began and hash_at(connection, no, began) != digest):
            return None
        spans.append((no, began, seq))
    place = "FROM _batch WHERE stream = ? AND seq > ? AND seq <= ?"
    counts = (execute(connection, f"SELECT coalesce(sum(entries), 0) {place}", span).scalar_one() for span in spans)
    if sum(map(int, counts)) > ENTRIES_READ:
        return None
    found: dict[str, set[int]] = {}
    for span in spans:
        for digest, data in execute(connection, f"SELECT hash, data {place}", span).all():
            batch = undamaged(data, digest)
            if batch is None:
                return None
            try:
                for table, ids in ids_of(batch):
                    found.setdefault(table, set()).update(map(bucket_of, ids))
            except RemoteFault:
                return None
    return found


def digest_table(
    connection: Connection, context: Context, table: Table, scope: str, only: Collection[int] | None = None
) -> dict[str, ColumnDigest]:
    """One table's columns, by ``table.register``; of the buckets ``only``, if that is said."""
    unit = unit_of(scope)
    registers = readable(context, table, unit)
    found = {name: ColumnDigest() for name in (ALIVE, *(each.name for each in registers))}
    number: Any = execute(connection, "SELECT no FROM _scope WHERE name = ?", (scope,)).scalar()
    for ids in _pages(connection, number, table, only) if number is not None else ():
        try:
            loaded, _ = load_keys(connection, context, table, number, unit, ids)
        except UNREADABLE as fault:
            if isinstance(fault, DBAPIError) and "UTF-8" not in str(fault.orig):
                raise
            raise RowsUnreadable from fault
        for key in sorted(loaded):
            bucket = bucket_of(key)
            for identity, state in sorted(loaded[key].states.items()):
                for name, writes in told(state, registers):
                    found[name].add(bucket, key, identity, writes)
        for column in found.values():
            column.flush()
    return {f"{table.name}.{name}": column for name, column in found.items()}


def readable(context: Context, table: Table, unit: str) -> list[Register]:
    """The registers that this node may read of a unit's rows."""
    return [each for each in table.registers if table.may_read(each, context.level, level_of(unit))]


def told(state: RowState, registers: Iterable[Register]) -> Iterator[tuple[str, Any]]:
    """What a row's registers hold, as it is hashed: (register, its writes); of those that hold anything."""
    yield ALIVE, statement(state.alive)
    for register in registers:
        elements = state.register(register)
        writes: Any = (
            [(name, statement(left)) for name, each in sorted(elements.items()) if (left := rivals(each))]
            if register.is_union
            else statement(rivals(elements.get("", ())))
        )
        if writes:
            yield register.name, writes


def _pages(connection: Connection, number: int, table: Table, only: Collection[int] | None) -> Iterator[Sequence[str]]:
    """Ids in order, a bounded number at a time. Which bucket an id is in, only its hash tells: an id is hashed in less
    time than its registers take to load, and an index over buckets would cost every insert."""
    if only is not None and not only:
        return
    step, last, left = KEYS_AT_ONCE if only is None else IDS_AT_ONCE, "", list[str]()
    sql = "SELECT DISTINCT id FROM _row WHERE scope = ? AND tbl = ? AND id > ? ORDER BY id LIMIT ?"
    while ids := execute(connection, sql, (number, table.number, last, step)).scalars().all():
        last = ids[-1]
        left += ids if only is None else [key for key in ids if bucket_of(key) in only]
        while len(left) >= KEYS_AT_ONCE:
            yield left[:KEYS_AT_ONCE]
            left = left[KEYS_AT_ONCE:]
    if left:
        yield left
