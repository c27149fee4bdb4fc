"""A row's life as the signed batches tell it, and the persons behind single edits.

Role: events of one row for people and programs.
Reach: storage tables, node.storage.past. Invariant: an event is told as its origin signed it; the tables are not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from conflict.values import level_of
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.named import table_named, unit_named
from node.storage.past import PastBatch, Reading, batches_about
from node.storage.registries import registry_of
from sync_engine.batch import SealedBatch, SectionKind, parse_batch
from sync_engine.certificates import verify_node_path
from sync_engine.entries import Entries, decode_section
from sync_engine.errors import BadInput, RemoteFault
from sync_engine.merge import view
from sync_engine.names import unit_of
from sync_engine.registry import Table
from sync_engine.verify import check_origin

BATCHES_KEPT = 64
"""Batches whose persons are kept at hand while a journal is told."""

MILLISECONDS = 16
"""A time is milliseconds, shifted by so many bits."""


def _unit_of_row(connection: Connection, table: Table, key: str, unit: str | None) -> str:
    """Whose row is meant. Raises BadInput when several units have one under this id, or none ever had."""
    rows = execute(
        connection,
        "SELECT DISTINCT name FROM _row JOIN _scope ON _scope.no = _row.scope WHERE tbl = ? AND id = ? ORDER BY name",
        (table.number, key),
    ).scalars()
    units = [unit_of(scope) for scope in rows]
    if unit is not None:
        return unit_named(units, unit)
    if len(units) > 1:
        raise BadInput(f"{len(units)} units have a row under this id", hint=f"add --unit: {', '.join(units)}")
    if not units:
        raise BadInput("no row was ever sealed here under this id", hint="look at the id, and the unit it belongs to")
    return units[0]


def history(connection: Connection, context: Context, name: str, key: str, unit: str | None) -> dict[str, Any]:
    """The events of one row, oldest first, with what could not be read. Raises BadInput."""
    table = table_named(connection, context, name)
    owner = _unit_of_row(connection, table, key, unit)
    reading = Reading()
    events = []
    for past in batches_about(connection, context, table.scope_of(owner), table.name, reading):
        for section in past.sections:
            events += [_event(connection, context, past, section, at) for at in _places(section, key)]
    events.sort(key=lambda each: (each["time"], each["kind"] != "insert"))
    return {
        "table": table.name,
        "key": key,
        "unit": owner,
        "events": events,
        "damaged": reading.damaged,
        "unknown": reading.unknown,
    }


def _places(section: Entries, key: str) -> list[int]:
    return [at for at, each in enumerate(section.ids) if each == key]


def _event(connection: Connection, context: Context, past: PastBatch, section: Entries, at: int) -> dict[str, Any]:
    entry = view(section, at)
    changes: dict[str, Any] = {}
    for register in section.written(at):
        value = entry.values[register.name]
        if register.is_union:
            changes[register.fields[0].name] = {"added": list(value[0]), "removed": list(value[1])}
        elif register.is_group:
            changes.update(zip((each.name for each in register.fields), value, strict=True))
        else:
            changes[register.name] = list(value) if isinstance(value, tuple) else value
    if entry.new:
        changes = {name: value for name, value in changes.items() if value not in (None, {"added": [], "removed": []})}
    mask = None if section.masks is None else section.masks[at]
    hidden = [
        each.name
        for bit, register in enumerate(section.registers)
        if register.name in section.withheld and (mask is None or mask >> bit & 1)
        for each in register.fields
    ]
    origin = past.head.stream.origin
    deleted = entry.kind is SectionKind.DELETE
    return {
        "time": entry.time,
        "at": entry.time >> MILLISECONDS,
        "unit": origin,
        "level": past.registry.level_name(level_of(origin)),
        # A delete carries what the row's edited_by said: whoever edited it last, who need not be who deleted it.
        "person": entry.by if entry.decision or not deleted else None,
        "last_editor": entry.by if deleted and not entry.decision else None,
        "decision": entry.decision
        and {"act": entry.decision.act, "number": entry.decision.number, "why": entry.decision.why},
        "kind": _kind(entry.kind, new=entry.new, touches=bool(section.registers) and mask != 0),
        "changes": changes,
        "withheld": hidden,
        "held": sorted(entry.held),
        "identity": entry.identity.hex(),
        "stream": str(past.head.stream),
        "seq": past.head.seq,
        "state": past.state,
        "proven": _is_proven(connection, context, past.batch),
    }


def _kind(kind: SectionKind, *, new: bool, touches: bool) -> str:
    if kind is SectionKind.DELETE:
        return "delete"
    if new:
        return "insert"
    return "edit" if touches else "revive"


def _is_proven(connection: Connection, context: Context, batch: SealedBatch) -> bool:
    """Whether the batch's signature and chunks are its origin's."""
    stream = batch.header.stream
    path = path_of(connection, stream.origin, stream.epoch)
    if path is None:
        return False
    try:
        check_origin(batch, verify_node_path(path, context.tree_id))
    except RemoteFault:
        return False
    return True


def person_finder(connection: Connection, context: Context) -> Callable[[int, str, str, int], str | None]:
    """A function of (local batch number, table, id, time) that tells who made an edit, where the program told."""

    @lru_cache(maxsize=BATCHES_KEPT)
    def people(no: int, name: str) -> dict[tuple[str, int], str | None]:
        data = execute(connection, "SELECT data FROM _batch WHERE no = ?", (no,)).scalar()
        if data is None:
            return {}
        batch = parse_batch(data)
        registry = registry_of(connection, context, batch.header.registry_version[0])
        found: dict[tuple[str, int], str | None] = {}
        for described, chunk in zip(batch.header.sections, batch.chunks, strict=True):
            named = registry is not None and any(column.name == "_by" for column in described.columns)
            if described.table != name or not named or registry is None:
                continue
            entries = decode_section(described, chunk, registry.all_tables[name])
            found.update(zip(zip(entries.ids, entries.times, strict=True), entries.by or (), strict=False))
        return found

    return lambda no, name, key, time: people(no, name).get((key, time))
