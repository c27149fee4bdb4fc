"""Seals what capture noted: pending edits become a signed batch of the current values, one batch a transaction.

Role: read a window of pending keys, fold it, sign, store, note the writes in the registers, take the notes away.
Reach: storage tables, sync_engine.seal. Invariant: ``seen`` is what this database had merged at that moment, because
nothing foreign is applied while anything is pending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from conflict.values import Head, StreamId
from node.storage.adoption import adopt_registry
from node.storage.apply import Incoming, apply_batch
from node.storage.batches import APPLIED, insert_batch
from node.storage.brake import accidents, brake_of, end_run, pull
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.former import former_entries
from node.storage.lives import is_saying_again
from node.storage.registries import adopt_units, current_registry
from node.storage.seen import note_seen, seen_by
from node.storage.streams import (
    advance_applied,
    advance_held,
    applied_heads,
    stream_row,
)
from node.storage.window import Window
from sync_engine.batch import NO_PREV, BatchHeader, SealedBatch, Settlement, encode_batch, encode_header
from sync_engine.entries import Entries, encode_section
from sync_engine.limits import ENTRIES_SEALED
from sync_engine.names import REGISTRY
from sync_engine.registry import (
    BUILTIN,
    REGISTRY_TABLE,
    UNIT_TABLE,
    Registry,
)
from sync_engine.verify import judge


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one step of sealing did. ``head`` is None where the notes came to nothing (a row that came and went)."""

    head: Head | None
    entries: int
    set_aside: int
    braked: bool = False


def pending_count(connection: Connection) -> int:
    """How many notes wait to be sealed."""
    return int(execute(connection, "SELECT count(*) FROM _pending WHERE tbl > 0").scalar_one())


def has_pending(connection: Connection) -> bool:
    return execute(connection, "SELECT 1 FROM _pending WHERE tbl > 0 LIMIT 1").scalar() is not None


def fits_one_batch(connection: Connection, notes_max: int) -> bool:
    """Whether what is pending is small enough to be sealed inside another transaction."""
    return execute(connection, "SELECT 1 FROM _pending WHERE tbl > 0 LIMIT 1 OFFSET ?", (notes_max,)).scalar() is None


def seal_next(connection: Connection, context: Context, notes_max: int = ENTRIES_SEALED) -> Sealed | None:
    """Seal one batch in the caller's transaction; None when nothing is pending."""
    registry = current_registry(connection, context)
    first = _first_pending(connection)
    if first is None:
        return None
    unit, tbl = first
    table = registry.by_number[tbl]
    scope = table.scope_of(unit)
    stream = StreamId(context.unit, context.epoch, scope)
    brake = brake_of(connection, stream)
    changes = accidents(connection, context, registry, unit, scope)
    window = Window(connection, context, registry, unit, stream)
    for _number, part in sorted(registry.by_number.items()):
        if part.scope_of(unit) == scope and window.notes < notes_max and not window.is_full:
            window.add_table(part, notes_max - window.notes)
    braked = bool(changes) or (brake is not None and brake.running)
    sealed = _seal_window(connection, context, registry, window, braked)
    if braked and sealed.head is not None:
        no = stream_row(connection, stream).no
        pull(connection, no, sealed.head.seq, brake, changes, context.now_ms())
    if braked and not pending_in(connection, registry, unit, scope):
        end_run(connection, stream)
    return sealed


def pending_in(connection: Connection, registry: Registry, unit: str, scope: str) -> bool:
    """Whether anything of one scope is pending."""
    tables = execute(connection, "SELECT DISTINCT tbl FROM _pending WHERE unit = ? AND tbl > 0", (unit,)).scalars()
    return any(registry.by_number[tbl].scope_of(unit) == scope for tbl in tables)


def _first_pending(connection: Connection) -> tuple[str, int] | None:
    """Where to begin: the registry comes last, because masks noted before it follow the old one's order."""
    sql = "SELECT unit, tbl FROM _pending WHERE tbl > 0 AND tbl <> ? ORDER BY unit, tbl LIMIT 1"  # along its key
    found = execute(connection, sql, (BUILTIN[REGISTRY_TABLE].number,)).one_or_none()
    if found is None:
        found = execute(connection, sql, (0,)).one_or_none()
    return None if found is None else (found[0], found[1])


def _seal_window(connection: Connection, context: Context, registry: Registry, window: Window, braked: bool) -> Sealed:
    """Seal the window, and take its notes away."""
    sections = window.sections()
    if not sections:
        window.forget()
        return Sealed(None, 0, window.aside)
    statement = Statement(window.stream, sections, braked=braked)
    batch = seal_statement(connection, context, registry, statement, was=window.was)
    window.forget()
    follow_up(connection, context, {entries.table.name for entries in sections})
    return Sealed(batch.head, batch.header.entries, window.aside, braked)


@dataclass(frozen=True, slots=True)
class Statement:
    """What one batch of a stream is to say."""

    stream: StreamId
    sections: Sequence[Entries]
    braked: bool = False
    settles: Settlement | None = None


def seal_statement(
    connection: Connection,
    context: Context,
    registry: Registry,
    statement: Statement,
    was: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> SealedBatch:
    """Sign and store a statement as its stream's next batch, and merge it here like any other. ``was``: the tables show
    it already (it was noted from them), and this is what still matters of what they showed before."""
    stream = statement.stream
    row = stream_row(connection, stream)
    before = seen_by(connection, row.no)
    seen = before.updated(head for head in applied_heads(connection, stream.scope) if head.stream != stream)
    delta = seen.changed_since(before)
    again = is_saying_again(connection, stream.epoch)
    batch = _sign(context, registry, statement, row.held, tuple(delta), again=again)
    # Writing begins here, so the lock is short: all that was read still holds, or SQLite refuses it.
    no = insert_batch(connection, row.no, batch, APPLIED, context.now_ms())
    note_seen(connection, row.no, delta)
    seen = seen if row.held is None else seen.updated([row.held])
    former = former_entries(connection, context, batch.header, statement.sections)
    incoming = Incoming(no, batch.head, seen, registry, own=was is not None, was=was or {}, former=former)
    for entries in statement.sections:
        judge(entries, stream)
    apply_batch(connection, context, incoming, statement.sections)
    advance_held(connection, row.no, batch.head)
    advance_applied(connection, row.no, batch.head)
    return batch


def _sign(
    context: Context,
    registry: Registry,
    statement: Statement,
    before: Head | None,
    delta: tuple[Head, ...],
    *,
    again: bool,
) -> SealedBatch:
    stream = statement.stream
    laid = [encode_section(entries, context.salt) for entries in statement.sections]
    of_registry = stream.scope.endswith(REGISTRY)
    header = BatchHeader(
        tree_id=context.tree_id,
        stream=stream,
        seq=1 if before is None else before.seq + 1,
        prev=NO_PREV if before is None else before.hash,
        seen_delta=delta,
        registry_version=(0, sha256(b"").digest()) if of_registry else (registry.version, registry.sha256),
        again=again,
        sections=tuple(each for each, _ in laid),
        braked=statement.braked,
        settles=statement.settles,
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
