"""Seals what capture noted: pending edits become a signed batch of the current values, one batch a transaction.

Role: read a window of pending keys, fold it, sign, store, note the writes in the registers, take the notes away.
Reach: storage tables, sync_engine.seal. Invariant: ``seen`` is what this database had merged at that moment, because
nothing foreign is applied while anything is pending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection

from conflict.values import Head, StreamId
from node.storage.apply import Incoming, apply_batch
from node.storage.batches import APPLIED, insert_batch
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.meta import check_not_fenced
from node.storage.registries import adopt_registry, adopt_units, current_registry
from node.storage.streams import (
    advance_applied,
    advance_held,
    applied_heads,
    note_seen,
    seen_by,
    stream_row,
)
from node.storage.window import Window
from sync_engine.batch import NO_PREV, BatchHeader, SealedBatch, encode_batch, encode_header
from sync_engine.entries import Entries, encode_section
from sync_engine.limits import ENTRIES_SEALED
from sync_engine.names import REGISTRY
from sync_engine.registry import (
    BUILTIN,
    REGISTRY_TABLE,
    UNIT_TABLE,
    Registry,
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one step of sealing did. ``head`` is None where the notes came to nothing (a row that came and went)."""

    head: Head | None
    entries: int
    set_aside: int


def pending_count(connection: Connection) -> int:
    """How many notes wait to be sealed."""
    return int(execute(connection, "SELECT count(*) FROM _pending WHERE tbl > 0").scalar_one())


def has_pending(connection: Connection) -> bool:
    return execute(connection, "SELECT 1 FROM _pending WHERE tbl > 0 LIMIT 1").scalar() is not None


def fits_one_batch(connection: Connection, notes_max: int) -> bool:
    """Whether what is pending is small enough to be sealed inside another transaction."""
    return execute(connection, "SELECT 1 FROM _pending WHERE tbl > 0 LIMIT 1 OFFSET ?", (notes_max,)).scalar() is None


def seal_next(connection: Connection, context: Context, notes_max: int = ENTRIES_SEALED) -> Sealed | None:
    """Seal one batch in the caller's transaction; None when nothing is pending. Raises Fenced."""
    check_not_fenced(connection)
    registry = current_registry(connection, context)
    first = _first_pending(connection)
    if first is None:
        return None
    unit, tbl = first
    table = registry.by_number[tbl]
    scope = table.scope_of(unit)
    window = Window(connection, context, registry, unit, StreamId(context.unit, context.epoch, scope))
    for _number, part in sorted(registry.by_number.items()):
        if part.scope_of(unit) == scope and window.notes < notes_max and not window.is_full:
            window.add_table(part, notes_max - window.notes)
    return _seal_window(connection, context, registry, window)


def _first_pending(connection: Connection) -> tuple[str, int] | None:
    """Where to begin: the registry comes last, because masks noted before it follow the old one's order."""
    sql = "SELECT unit, tbl FROM _pending WHERE tbl > 0 AND tbl <> ? ORDER BY unit, tbl LIMIT 1"  # along its key
    found = execute(connection, sql, (BUILTIN[REGISTRY_TABLE].number,)).one_or_none()
    if found is None:
        found = execute(connection, sql, (0,)).one_or_none()
    return None if found is None else (found[0], found[1])


def _seal_window(connection: Connection, context: Context, registry: Registry, window: Window) -> Sealed:
    """Sign and store the window as its stream's next batch, and take its notes away."""
    sections = window.sections()
    if not sections:
        window.forget()
        return Sealed(None, 0, window.aside)
    stream = window.stream
    row = stream_row(connection, stream)
    before = seen_by(connection, row.no)
    seen = before.updated(head for head in applied_heads(connection, stream.scope) if head.stream != stream)
    delta = seen.changed_since(before)
    batch = _sign(context, registry, stream, sections, row.held, tuple(delta))
    # Writing begins here, so the lock is short: all that was read still holds, or SQLite refuses it.
    no = insert_batch(connection, row.no, batch, APPLIED, context.now_ms())
    window.forget()
    note_seen(connection, row.no, delta)
    seen = seen if row.held is None else seen.updated([row.held])
    apply_batch(connection, context, Incoming(no, batch.head, seen, registry, own=True, was=window.was), sections)
    advance_held(connection, row.no, batch.head)
    advance_applied(connection, row.no, batch.head)
    follow_up(connection, context, {entries.table.name for entries in sections})
    return Sealed(batch.head, batch.header.entries, window.aside)


def _sign(
    context: Context,
    registry: Registry,
    stream: StreamId,
    sections: Sequence[Entries],
    before: Head | None,
    delta: tuple[Head, ...],
) -> SealedBatch:
    laid = [encode_section(entries, context.salt) for entries in sections]
    of_registry = stream.scope.endswith(REGISTRY)
    header = BatchHeader(
        tree_id=context.tree_id,
        stream=stream,
        seq=1 if before is None else before.seq + 1,
        prev=NO_PREV if before is None else before.hash,
        seen_delta=delta,
        registry_version=(0, sha256(b"").digest()) if of_registry else (registry.version, registry.sha256),
        again=False,
        sections=tuple(each for each, _ in laid),
    )
    header_bytes = encode_header(header)
    signature = context.sign("batch", header_bytes)
    chunks = tuple(each for _, each in laid)
    return SealedBatch(encode_batch(header_bytes, signature, chunks), header_bytes, signature, header, chunks)


def follow_up(connection: Connection, context: Context, tables: set[str]) -> None:
    """What a change of the built-in tables entails."""
    if REGISTRY_TABLE in tables:
        adopt_registry(connection, context)
    if UNIT_TABLE in tables:
        adopt_units(connection, context)


def seal_all(connection: Connection, context: Context) -> int:
    """Seal everything in the caller's transaction: for set-up and tests; the service seals one batch a transaction."""
    sealed = 0
    while (step := seal_next(connection, context)) is not None:
        sealed += step.head is not None
    return sealed
