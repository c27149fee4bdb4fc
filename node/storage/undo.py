"""Takes an accident back: inverse edits, sealed behind the batches that the brake holds.

Role: find what an accident still shows, what stood there before, and seal that as edits of their own.
Reach: storage tables, sync_engine. Source: decision 0021. Invariant: only what still shows the accident is changed; an
edit made since stands. Every step is a transaction that can be repeated, so a run that was cut off is run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from conflict.policies import shown
from conflict.values import Head, Value, Write
from node.storage.brake import RELEASED, UNDOING, UNDONE, Brake, open_brakes, set_state
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.inbox import seal_remainder
from node.storage.past import Reading, RowKey, batches_about, values_without
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
from sync_engine.seal import time_after

ROWS_AT_ONCE = 1_000
"""Rows changed back in one transaction: the general path of a merge takes longer than the fast one."""

ROWS_READ = 20_000
"""Rows whose past is held in memory together."""


class NoBrake(BadInput):
    """There is nothing to release or to undo."""

    default_hint = "'dongbo status' says whether a brake is pulled, and its number"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One row an accident touched. ``touched``: the accident's batches that did it, by register (``_alive``: they
    deleted the row); ``values``: what the other registers would show without it."""

    id: str
    identity: bytes
    touched: dict[str, set[Head]] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)


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


def touched_rows(
    connection: Connection, context: Context, brake: Brake, table: str, dots: frozenset[Head]
) -> dict[RowKey, Wanted]:
    """The rows of one table that an accident touched; not those that the same batch enters."""
    wanted = {register for name, register in brake.registers if name == table}
    rows: dict[RowKey, Wanted] = {}
    for past in batches_about(connection, context, brake.stream.scope, table, Reading(), dots.__contains__):
        inserted = {key for each in past.sections for at, key in enumerate(each.ids) if each.is_new(at)}
        for section in past.sections:
            for at, key in enumerate(section.ids):
                deletes = section.kind is SectionKind.DELETE
                names = [ALIVE] if deletes else [register.name for register in section.written(at)]
                for name in wanted.intersection(names) if key not in inserted else ():
                    row = (key, section.identities[at])
                    rows.setdefault(row, Wanted(*row)).touched.setdefault(name, set()).add(past.head)
    return rows


def wanted_rows(connection: Connection, context: Context, brake: Brake, table: str) -> list[Wanted]:
    """What to change back in one table, with the values that there would be without the accident. Reads only; may take
    a while."""
    current = current_registry(connection, context).all_tables[table]
    dots = dots_of(connection, brake)
    rows = touched_rows(connection, context, brake, table, dots)
    for name in {register for each in rows.values() for register in each.touched} - {ALIVE}:
        ids = sorted({each.id for each in rows.values() if name in each.touched})
        for start in range(0, len(ids), ROWS_READ):
            some = frozenset(ids[start : start + ROWS_READ])
            register = current.register(name)
            before = values_without(connection, context, brake.stream.scope, register, table, some, dots)
            for row, value in before.items():
                if row in rows and name in rows[row].touched:
                    rows[row].values[name] = value
    return sorted(rows.values(), key=lambda each: (each.id, each.identity))


def change_back(
    connection: Connection, context: Context, brake: Brake, table: str, rows: Sequence[Wanted], by: str | None
) -> int:
    """Seal the inverse of what some rows (at most ROWS_AT_ONCE) still show of an accident; returns how many did. Raises
    SealFirst."""
    seal_remainder(connection, context)
    brake = _open(connection, brake)
    registry = current_registry(connection, context)
    current, scope = registry.all_tables[table], brake.stream.scope
    unit, number = unit_of(scope), scope_no(connection, scope)
    ids = sorted({each.id for each in rows})
    loaded, _heads = load_keys(connection, context, current, number, unit, ids)
    drafts = []
    for each in rows:
        state = loaded[each.id].states.get(each.identity)
        draft = None if state is None else _draft(current, state, each, context)
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


def _draft(table: Table, state: RowState, row: Wanted, context: Context) -> _Draft | None:
    """What is left to change back of one row; None where nothing shows the accident any more."""
    replaced: list[Write] = []
    values: dict[str, Value] = {}
    elements: dict[str, tuple[list[str], list[str]]] = {}
    for name, before in row.values.items():
        register, dots = table.register(name), row.touched[name]
        mine = {
            element: writes
            for element, writes in state.register(register).items()
            if any(write.dots & dots for write in writes)
        }
        replaced += [write for writes in mine.values() for write in writes]
        old = before if isinstance(before, tuple) else ()
        rivals = {element: [each for each in writes if not each.dots & dots] for element, writes in mine.items()}
        if register.is_union:
            there = {each for each in mine if _without(register, rivals[each], each in old)}
            elements.update({name: (sorted(there), sorted(mine.keys() - there))} if mine else {})
        elif mine:
            values[name] = _without(register, rivals[""], before)
    deleted = row.touched.get(ALIVE, set())
    revives = any(write.dots & deleted and not write.value for write in state.alive)
    if not values and not elements and not revives:
        return None
    replaced += state.alive if revives else ()
    time = time_after(context.now_ms() << 16, replaced)
    return _Draft(row, time, values, elements)


def _without(register: Register, rivals: Sequence[Write], before: Value) -> Value:
    """What a register shows without the accident: what others wrote beside it, else what was there before."""
    entitled = [write for write in rivals if not write.held]
    return shown(register.policy, entitled, order=register.order).value if entitled else before


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
    Raises NoBrake or SealFirst."""
    seal_remainder(connection, context)
    brake = _open(connection, brake)
    if brake.state == UNDOING and not undone:
        raise NoBrake("taking this accident back has begun", hint=f"run 'dongbo undo {brake.no}' to its end")
    if brake.state != UNDOING:
        settles = Settlement(brake.from_seq, brake.registers if undone else frozenset())
        statement = Statement(brake.stream, (), settles=settles)
        seal_statement(connection, context, current_registry(connection, context), statement)
    set_state(connection, brake.no, UNDONE if undone else RELEASED)
