"""Computes the digests of a scope from its registers, off the hot path, and remembers them by applied heads.

Role: read registers in key order, in bounded memory.
Reach: storage tables, sync_engine.digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection

from conflict.numbers import statement
from conflict.register import rivals
from conflict.values import level_of
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.registers import load_keys
from node.storage.registries import current_registry
from node.storage.streams import applied_heads
from sync_engine.digest import ColumnDigest, bucket_of, scope_digest
from sync_engine.merge import ALIVE
from sync_engine.names import unit_of
from sync_engine.registry import Table

KEYS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class ScopeDigest:
    """``columns`` by ``table.register`` for what this node may read; ``rows`` counts what the tables show."""

    scope: str
    rows: int
    digest: bytes
    columns: dict[str, bytes]
    state: bytes
    """What it was computed from: the registry's version and the applied heads."""


class PendingFirst(Exception):
    """An edit is pending in the scope: the table no longer shows what its register held, so seal before digesting."""


def digest_scope(connection: Connection, context: Context, scope: str) -> ScopeDigest:
    """The scope's digests, computed anew only if something has been applied since they were. Raises PendingFirst."""
    registry = current_registry(connection, context)
    tables = [table for table in registry.all_tables.values() if table.belongs_in(scope)]
    state = sha256(registry.sha256)
    for head in sorted(applied_heads(connection, scope)):
        state.update(head.hash)
    rows = sum(
        execute(connection, f'SELECT count(*) FROM "{table.name}" WHERE unit = ?', (unit_of(scope),)).scalar_one()
        for table in tables
        if not table.is_builtin
    )
    known = execute(connection, "SELECT state, columns FROM _digest WHERE scope = ?", (scope,)).one_or_none()
    if known is not None and known[0] == state.digest():
        columns = msgspec.msgpack.decode(known[1], type=dict[str, bytes])
    else:
        columns = {}
        for table in tables:
            _check_sealed(connection, table, scope)
            columns.update(_digest_table(connection, context, table, scope))
    unit_level = level_of(unit_of(scope))
    by_all = [
        f"{table.name}.{name}"
        for table in tables
        for name in (ALIVE, *(each.name for each in table.registers if table.may_read(each, 0, unit_level)))
    ]
    return ScopeDigest(scope, rows, scope_digest(columns, by_all), columns, state.digest())


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


def _digest_table(connection: Connection, context: Context, table: Table, scope: str) -> dict[str, bytes]:
    unit = unit_of(scope)
    unit_level = level_of(unit)
    registers = [each for each in table.registers if table.may_read(each, context.level, unit_level)]
    found = {name: ColumnDigest() for name in (ALIVE, *(each.name for each in registers))}
    number = execute(connection, "SELECT no FROM _scope WHERE name = ?", (scope,)).scalar()
    last = ""
    while number is not None:
        ids = (
            execute(
                connection,
                "SELECT DISTINCT id FROM _row WHERE scope = ? AND tbl = ? AND id > ? ORDER BY id LIMIT ?",
                (number, table.number, last, KEYS_AT_ONCE),
            )
            .scalars()
            .all()
        )
        if not ids:
            break
        last = ids[-1]
        loaded, _ = load_keys(connection, context, table, number, unit, ids)
        for key in sorted(loaded):
            bucket = bucket_of(key)
            for identity, state in sorted(loaded[key].states.items()):
                found[ALIVE].add(bucket, key, identity, statement(state.alive))
                for register in registers:
                    elements = state.register(register)
                    writes: Any = (
                        [(name, statement(left)) for name, each in sorted(elements.items()) if (left := rivals(each))]
                        if register.is_union
                        else statement(rivals(elements.get("", ())))
                    )
                    if writes:
                        found[register.name].add(bucket, key, identity, writes)
        for column in found.values():
            column.flush()
    return {f"{table.name}.{name}": column.value() for name, column in found.items()}
