"""Takes an accident back: inverse edits, sealed behind the batches that the brake holds.

Role: find what an accident still shows, what stood there before, and seal that as edits of their own.
Reach: storage tables, sync_engine. Source: decision 0021. Invariant: only what still shows the accident is changed; an
edit made since stands. Every step is a transaction that can be repeated, so a run that was cut off is run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from conflict.values import TIME_MAX, Head, Value, Write
from node.storage.apply import insertable_registers
from node.storage.brake import RELEASED, UNDOING, UNDONE, Brake, open_brakes, set_state
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.inbox import seal_remainder
from node.storage.past import Reading, RowKey, batches_about, values_before
from node.storage.registers import load_keys
from node.storage.registries import current_registry
from node.storage.sealing import Statement, seal_statement
from node.storage.streams import scope_no, stream_row
from sync_engine.batch import SectionKind, Settlement, parse_batch
from sync_engine.entries import Entries
from sync_engine.errors import BadInput
from sync_engine.merge import ALIVE, RowState
from sync_engine.names import unit_of
from sync_engine.registry import Register, Table

ROWS_AT_ONCE = 1_000
"""Rows changed back in one transaction: the general path of a merge takes longer than the fast one."""

ROWS_READ = 20_000
"""Rows whose past is held in memory together."""


class NoBrake(BadInput):
    """There is nothing to release or to undo."""

    default_hint = "'dongbo status' says whether a brake is pulled, and its number"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One row an accident touched: the registers to change back with the values from before it, and whether it was
    deleted."""

    id: str
    identity: bytes
    values: dict[str, Value] = field(default_factory=dict)
    deleted: bool = False


def find_brakes(connection: Connection, number: int | None, *, all_of_them: bool = False) -> list[Brake]:
    """The brake with this number, or all; without either, the only one there is. Raises NoBrake."""
    found = [each for each in open_brakes(connection) if number in (None, each.no)]
    if not found:
        raise NoBrake("no brake is pulled here" if number is None else f"there is no brake {number}")
    if len(found) > 1 and not all_of_them:
        raise NoBrake(
            f"{len(found)} brakes are pulled", hint="say which, by the number that 'dongbo status' shows, or add --all"
        )
    return found


def dots_of(connection: Connection, brake: Brake) -> frozenset[Head]:
    """The batches that were sealed under a brake as part of the accident."""
    row = stream_row(connection, brake.stream)
    rows = execute(
        connection, "SELECT data FROM _batch WHERE stream = ? AND seq >= ? ORDER BY seq", (row.no, brake.from_seq)
    ).scalars()
    batches = (parse_batch(data) for data in rows)
    return frozenset(batch.head for batch in batches if batch.header.braked)


def touched(connection: Connection, context: Context, brake: Brake, table: str) -> dict[str, set[RowKey]]:
    """The rows of one table that an accident touched, by register."""
    wanted = {register for name, register in brake.registers if name == table}
    found: dict[str, set[RowKey]] = {register: set() for register in wanted}
    for past in batches_about(connection, context, brake.stream.scope, table, Reading()):
        if past.head.stream != brake.stream or past.head.seq < brake.from_seq or not past.batch.header.braked:
            continue
        for section in past.sections:
            for at, key in enumerate(section.ids):
                row = (key, section.identities[at])
                if section.kind is SectionKind.DELETE:
                    if ALIVE in wanted:
                        found[ALIVE].add(row)
                    continue
                for register in section.written(at) if not section.is_new(at) else ():
                    if register.name in wanted:
                        found[register.name].add(row)
    return found


def wanted_rows(connection: Connection, context: Context, brake: Brake, table: str) -> list[Wanted]:
    """What to change back in one table, with the values from before the accident. Reads only; may take a while."""
    current = current_registry(connection, context).all_tables[table]
    first = next(head for head in dots_of(connection, brake) if head.seq == brake.from_seq)
    rows: dict[RowKey, Wanted] = {}
    for name, keys in touched(connection, context, brake, table).items():
        if name == ALIVE:
            for row in keys:
                rows[row] = replace(rows.get(row, Wanted(*row)), deleted=True)
            continue
        ids = sorted({key for key, _ in keys})
        for start in range(0, len(ids), ROWS_READ):
            some = frozenset(ids[start : start + ROWS_READ])
            before = values_before(connection, context, brake.stream.scope, current.register(name), table, some, first)
            for row in keys:
                if row[0] in some and row in before:
                    rows.setdefault(row, Wanted(*row)).values[name] = before[row]
    return sorted(rows.values(), key=lambda each: (each.id, each.identity))


def change_back(
    connection: Connection, context: Context, brake: Brake, table: str, rows: Sequence[Wanted], by: str | None
) -> int:
    """Seal the inverse of what some rows (at most ROWS_AT_ONCE) still show of an accident; returns how many did. Raises
    SealFirst or Fenced."""
    seal_remainder(connection, context)
    brake = _open(connection, brake)
    registry = current_registry(connection, context)
    current, scope = registry.all_tables[table], brake.stream.scope
    unit, number = unit_of(scope), scope_no(connection, scope)
    ids = sorted({each.id for each in rows})
    written = insertable_registers(connection, context, current, number, unit, ids)
    loaded, _heads = load_keys(connection, current, number, unit, ids, written, {})
    dots = dots_of(connection, brake)
    drafts = []
    for each in rows:
        state = loaded[each.id].states.get(each.identity)
        draft = None if state is None else _draft(current, state, each, dots, context)
        if draft is not None:
            drafts.append(draft)
    if drafts:
        entries = _entries(current, drafts, by)
        settles = None if brake.state == UNDOING else Settlement(brake.from_seq, brake.registers)
        seal_statement(connection, context, registry, Statement(brake.stream, [entries], settles=settles))
        set_state(connection, brake.no, UNDOING)
    return len(drafts)


def _open(connection: Connection, brake: Brake) -> Brake:
    """The brake as it stands now. Raises NoBrake if somebody else has decided meanwhile."""
    return find_brakes(connection, brake.no)[0]


@dataclass(frozen=True, slots=True)
class _Draft:
    """One inverse edit: registers to write (a union: added and removed elements) and its time."""

    row: Wanted
    time: int
    values: dict[str, Value]
    elements: dict[str, tuple[list[str], list[str]]]


def _draft(table: Table, state: RowState, row: Wanted, dots: frozenset[Head], context: Context) -> _Draft | None:
    """What is left to change back of one row; None where nothing shows the accident any more."""
    replaced: list[Write] = []
    values: dict[str, Value] = {}
    elements: dict[str, tuple[list[str], list[str]]] = {}
    for name, before in row.values.items():
        register = table.register(name)
        held = state.register(register)
        mine = {element: writes for element, writes in held.items() if any(write.dots & dots for write in writes)}
        if not mine:
            continue
        replaced += [write for writes in mine.values() for write in writes]
        if register.is_union:
            old = set(before) if isinstance(before, tuple) else set()
            elements[name] = (sorted(set(mine) & old), sorted(set(mine) - old))
        else:
            values[name] = before
    revives = row.deleted and any(write.dots & dots and not write.value for write in state.alive)
    if not values and not elements and not revives:
        return None
    replaced += state.alive if revives else ()
    time = min(max([context.now_ms() << 16, *(write.time + 1 for write in replaced)]), TIME_MAX)
    return _Draft(row, time, values, elements)


def _entries(table: Table, drafts: Sequence[_Draft], by: str | None) -> Entries:
    """Inverse edits in columns; an entry that names no register says that its row is there again."""
    drafts = sorted(drafts, key=lambda draft: (draft.row.id, draft.time, draft.row.identity))
    names = {name for draft in drafts for name in (*draft.values, *draft.elements)}
    registers = tuple(register for register in table.registers if register.name in names)
    entries = Entries(
        table,
        SectionKind.ROWS,
        [draft.row.id for draft in drafts],
        [draft.row.identity for draft in drafts],
        [draft.time for draft in drafts],
        registers=registers,
        by=None if by is None else [by] * len(drafts),
    )
    masks = [
        sum(1 << at for at, each in enumerate(registers) if each.name in draft.values or each.name in draft.elements)
        for draft in drafts
    ]
    if any(mask != (1 << len(registers)) - 1 for mask in masks):
        entries.masks = masks
    for register in registers:
        _lay(entries, register, drafts)
    return entries


def _lay(entries: Entries, register: Register, drafts: Iterable[_Draft]) -> None:
    if register.is_union:
        name = register.fields[0].name
        both = [draft.elements.get(register.name, ([], [])) for draft in drafts]
        entries.columns[name] = [added for added, _ in both]
        entries.removed[name] = [removed for _, removed in both]
        return
    for at, each in enumerate(register.fields):
        raw = [draft.values.get(register.name) for draft in drafts]
        column = [value[at] if register.is_group and isinstance(value, tuple) else value for value in raw]
        entries.columns[each.name] = [list(value) if isinstance(value, tuple) else value for value in column]


def settle(connection: Connection, context: Context, brake: Brake, *, undone: bool) -> None:
    """Decide about a brake, and let its stream go on: released, or undone once everything has been changed back.
    Raises NoBrake, SealFirst or Fenced."""
    seal_remainder(connection, context)
    brake = _open(connection, brake)
    if brake.state == UNDOING and not undone:
        raise NoBrake("taking this accident back has begun", hint=f"run 'dongbo undo {brake.no}' to its end")
    if brake.state != UNDOING:
        settles = Settlement(brake.from_seq, brake.registers if undone else frozenset())
        statement = Statement(brake.stream, (), settles=settles)
        seal_statement(connection, context, current_registry(connection, context), statement)
    set_state(connection, brake.no, UNDONE if undone else RELEASED)
