"""Plans the merge of one key, register by register: the general path.

Role: from what is held of a key and the entries of one batch, say what its registers become, which row the table
shows, and which conflicts that makes or ends. Keys that nobody else has touched never come here (the fast path).
Reach: conflict, registry model. Source: design, 5. Invariant: a pure function of what is held and what comes; the
order in which batches arrive does not matter to registers, the shown row or conflict numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from conflict.numbers import conflict_number
from conflict.policies import Policy, is_conflict, shown, value_key
from conflict.register import add_again, add_beside, add_write, rivals, showable
from conflict.values import Head, Hold, Value, Write
from conflict.vector import Vector
from sync_engine.batch import SectionKind
from sync_engine.entries import Decision, Entries
from sync_engine.registry import Register, Table

ALIVE = "_alive"
"""The register that every insert, edit and delete of a row writes: True, or False for a delete."""

TWIN = "_twin"
"""Where a conflict names this field, two different people stand under one key."""

RegisterKey = tuple[str, str]
"""(register, element): the element is empty except in a union, which has one register per element."""


@dataclass(slots=True)
class RowState:
    """One identity's registers. ``base`` is its insert: the single write of every register in ``base_values`` that
    has no entry of its own in ``writes`` (a union's base value is the tuple of its elements). ``writes`` has what
    ``add_write`` keeps, which is more than the register where a value is held. ``inserts`` are all inserts of it."""

    identity: bytes
    base: Write
    born: int
    alive: frozenset[Write]
    base_values: dict[str, Value] = field(default_factory=dict)
    writes: dict[RegisterKey, frozenset[Write]] = field(default_factory=dict)
    inserts: frozenset[Head] = frozenset()

    def is_explicit(self, register: Register) -> bool:
        return (
            any(name == register.name for name, _ in self.writes)
            if register.is_union
            else ((register.name, "") in self.writes)
        )

    def _base_write(self, value: Value) -> Write:
        return Write(value, self.base.time, self.base.origin, self.base.dots)

    def register(self, register: Register) -> dict[str, frozenset[Write]]:
        """What is kept of the register, by element: one element, the empty one, unless it is a union."""
        if self.is_explicit(register):
            return {element: writes for (name, element), writes in self.writes.items() if name == register.name}
        if register.name not in self.base_values:
            return {}
        value = self.base_values[register.name]
        if register.is_union:
            assert isinstance(value, tuple)  # noqa: S101 - tells the type checker what a union's base is
            return {str(element): frozenset({self._base_write(True)}) for element in value}
        return {"": frozenset({self._base_write(value)})}

    def put(self, register: Register, elements: Mapping[str, frozenset[Write]]) -> None:
        """Store a register's writes explicitly."""
        for element, writes in elements.items():
            self.writes[(register.name, element)] = writes


@dataclass(frozen=True, slots=True)
class EntryView:
    """One entry of one row. ``values`` has a value per register; a union's is (added, removed). ``held`` says why a
    value is not shown; ``barred`` are the registers that the origin may set with an insert, and not edit. Of
    ``unknown`` registers the entry says something, and it is not here."""

    kind: SectionKind
    identity: bytes
    time: int
    new: bool
    values: Mapping[str, Any]
    held: Mapping[str, Hold] = field(default_factory=dict)
    barred: frozenset[str] = frozenset()
    by: str | None = None
    decision: Decision | None = None
    unknown: frozenset[str] = frozenset()


def view(entries: Entries, at: int) -> EntryView:
    """Look at one entry as a row."""
    values: dict[str, Any] = {}
    for register in entries.written(at):
        if register.is_union:
            name = register.fields[0].name
            values[register.name] = (entries.columns[name][at], entries.removed[name][at])
        elif register.is_group:
            values[register.name] = tuple(_frozen(entries.columns[each.name][at]) for each in register.fields)
        else:
            values[register.name] = _frozen(entries.columns[register.name][at])
    held = (
        {name: hold for name in values if (hold := entries.hold(name, at))} if entries.barred or entries.broken else {}
    )
    by = None if entries.by is None else entries.by[at]
    return EntryView(
        entries.kind,
        entries.identities[at],
        entries.times[at],
        entries.is_new(at),
        values,
        held,
        entries.barred,
        by,
        entries.decision(at),
        entries.withheld,
    )


def _frozen(value: Any) -> Value:
    """A set's value as writes carry it: they are kept in sets themselves."""
    return tuple(value) if isinstance(value, list) else value


def _thawed(value: Value) -> Any:
    """A write's value in wire form."""
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class Batch:
    """What the merge needs to know of the batch: its dot, what its writer had merged, and which registers an insert
    from there writes (those its level may read, in the header's registry version; minus those withheld here)."""

    dot: Head
    seen: Vector
    insertable: frozenset[str]


@dataclass(frozen=True, slots=True)
class Former:
    """One entry that the batch's origin sealed of this key in another life of its own, merged here, and its dot."""

    dot: Head
    entry: EntryView


@dataclass(frozen=True, slots=True)
class Conflict:
    """A register holding writes of different values. ``field`` names the register, a union's with its element."""

    number: int
    identity: bytes
    field: str
    policy: str
    is_open: bool
    writes: frozenset[Write]
    winner: Write


@dataclass(slots=True)
class MergedKey:
    """What one key has become. ``row`` is the table's row by field (None: no row); ``conflicts`` are all that the key's
    registers now hold, by (identity, field)."""

    states: dict[bytes, RowState]
    shown: RowState | None
    row: dict[str, Any] | None
    conflicts: dict[tuple[bytes, str], Conflict]
    is_plain: bool


def merge_key(
    table: Table,
    scope: str,
    key: str,
    states: dict[bytes, RowState],
    entries: Sequence[EntryView],
    batch: Batch,
    former: Sequence[Former] = (),
) -> MergedKey:
    """Merge the entries of one batch into one key's states, which are changed in place. ``former``: what its origin had
    sealed of the key in other lives, where this batch may say some of it again."""
    # Within a batch a later entry has seen the earlier ones; not all that stands before it in its stream, where it says
    # again what another life has said.
    seen = batch.seen.with_also([batch.dot])
    # What a batch had seen it does not say again, though a level that may not read what each writes sees no difference.
    former = [each for each in former if not batch.seen.covers(each.dot)]
    merged: list[EntryView] = []
    for entry in _in_order(entries):
        state = states.get(entry.identity)
        if entry.kind is SectionKind.ROWS:
            state = _merge_entry(table, state, entry, batch, seen, former)
            if state is None:
                continue
            states[entry.identity] = state
        merged.append(entry)
    last = _last_words(merged)
    for identity, write in _alive_writes(merged, batch.dot).items():
        state = states.get(identity)
        if state is not None:
            again = _same_alive(former, last[identity]) if former else frozenset()
            if again:
                state.alive = add_again(state.alive, write, seen, again)
            else:
                state.alive = add_beside(state.alive, write, seen)
    return project(table, scope, key, states)


def _in_order(entries: Iterable[EntryView]) -> list[EntryView]:
    return sorted(entries, key=lambda each: (each.time, each.kind is SectionKind.DELETE))


def _last_words(entries: Iterable[EntryView]) -> dict[bytes, EntryView]:
    """One batch's last entry of each row."""
    return {each.identity: each for each in _in_order(entries)}


def _alive_writes(entries: Iterable[EntryView], dot: Head) -> dict[bytes, Write]:
    """What one batch writes of each row's standing: its last word."""
    return {
        identity: Write(each.kind is SectionKind.ROWS, each.time, dot.stream.origin, frozenset({dot}))
        for identity, each in _last_words(entries).items()
    }


def _same_alive(former: Sequence[Former], entry: EntryView) -> frozenset[Head]:
    """The dots of batches whose last word of a row was this very entry: another edit of that time, where a clock stood
    still, has a standing of its own."""
    by_dot: dict[Head, list[EntryView]] = {}
    for each in former:
        by_dot.setdefault(each.dot, []).append(each.entry)
    said = {dot: _last_words(entries).get(entry.identity) for dot, entries in by_dot.items()}
    return frozenset(dot for dot, each in said.items() if each is not None and _is_same(each, entry))


def _is_same(one: EntryView, other: EntryView) -> bool:
    """Whether two entries say the same, as far as both are here: of one a column may be lost with a disk. What an
    insert says nothing of has a column only where another insert of its batch fills it."""
    unknown = one.unknown | other.unknown
    values, others = (
        {
            name: value
            for name, value in each.values.items()
            if name not in unknown and not (each.new and _is_nothing(value))
        }
        for each in (one, other)
    )
    return (one.kind, one.time, one.new, values) == (other.kind, other.time, other.new, others)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, tuple) and all(each in (None, [], ()) for each in value))


def _merge_entry(
    table: Table, state: RowState | None, entry: EntryView, batch: Batch, seen: Vector, former: Sequence[Former]
) -> RowState | None:
    """One entry's writes. An edit of a row never inserted here writes nothing: causal delivery does not bring one."""
    if former:
        former = [each for each in former if (each.entry.identity, each.entry.time) == (entry.identity, entry.time)]
    if entry.new and (state is None or not any(each.entry.new for each in former)):
        return _merge_insert(table, state, entry, batch, seen)
    if state is None:
        return None
    values = entry.values
    if entry.new:  # entered again, in another life: it writes what it wrote
        state.inserts |= {batch.dot}
        values = {name: _wire_value(table.register(name), entry) for name in sorted(batch.insertable)}
    for name, value in values.items():
        register = table.register(name)
        kept = state.register(register)
        state.put(register, kept | _added(register, kept, value, entry, batch, seen, former))
    return state


def _wire_value(register: Register, entry: EntryView) -> Any:
    """What an entry says of a register, in the form of ``EntryView.values``: an insert says something of each."""
    if not entry.new:
        return entry.values.get(register.name)
    return (_insert_value(register, entry), ()) if register.is_union else _insert_value(register, entry)


def _added(
    register: Register,
    kept: Mapping[str, frozenset[Write]],
    value: Any,
    entry: EntryView,
    batch: Batch,
    seen: Vector,
    former: Sequence[Former] = (),
) -> dict[str, frozenset[Write]]:
    """One entry's writes to one register, each beside what is kept of its element."""
    held = entry.held.get(register.name, Hold.NONE)
    blank = Write(None, entry.time, batch.dot.stream.origin, frozenset({batch.dot}), held)
    said = [
        (each.dot, _told(register, _wire_value(register, each.entry)))
        for each in former
        if each.entry.new or register.name in each.entry.values
    ]
    added = {}
    for element, written in _told(register, value).items():
        again = frozenset(
            dot for dot, told in said if element in told and value_key(told[element]) == value_key(written)
        )
        write = replace(blank, value=written)
        added[element] = add_again(kept.get(element, frozenset()), write, seen, again)
    return added


def _told(register: Register, value: Any) -> dict[str, Value]:
    """What an entry's value writes, by element."""
    if not register.is_union:
        return {"": value}
    added, removed = value or ((), ())
    return {**{str(element): True for element in added or ()}, **{str(element): False for element in removed or ()}}


def _merge_insert(table: Table, state: RowState | None, entry: EntryView, batch: Batch, seen: Vector) -> RowState:
    """An insert writes every register it may and becomes the base; what it had not seen stands beside it."""
    base = Write(None, entry.time, batch.dot.stream.origin, frozenset({batch.dot}))
    born = entry.time if state is None else min(state.born, entry.time)
    fresh = RowState(entry.identity, base, born, frozenset() if state is None else state.alive)
    fresh.inserts = base.dots if state is None else base.dots | state.inserts
    # Whoever enters again what was there edits it: else an insert would be the way round every writing level.
    again = state is not None and any(seen.covers(dot) for dot in state.inserts)
    for register in table.registers:
        earlier = {} if state is None else state.register(register)
        if register.name not in batch.insertable or (again and register.name in entry.barred):
            if register.name in batch.insertable and not earlier:
                # A register that holds nothing yet must not be taken for one that this insert has emptied.
                earlier = {"": frozenset({replace(base, held=Hold.RIGHT, covered=True)})}
            fresh.put(register, earlier)
            if register.name in entry.values and _says_something(register, entry):
                barred = replace(entry, held={register.name: Hold.RIGHT})
                fresh.put(register, _added(register, earlier, entry.values[register.name], barred, batch, seen))
            continue
        value = _insert_value(register, entry)
        if register.name in entry.held:
            fresh.put(register, earlier | _added(register, earlier, entry.values[register.name], entry, batch, seen))
            continue
        fresh.base_values[register.name] = value
        _beside(register, fresh, earlier, value, seen)
    return fresh


def _says_something(register: Register, entry: EntryView) -> bool:
    """Whether an insert names a value that is not nothing."""
    value = entry.values.get(register.name)
    return not _is_nothing(value) if register.is_union or register.is_group else value is not None


def _beside(
    register: Register, fresh: RowState, earlier: Mapping[str, frozenset[Write]], value: Value, seen: Vector
) -> None:
    """What an insert had not seen of a register stands beside what the insert writes."""
    survivors = {
        element: kept
        for element, writes in earlier.items()
        if (kept := frozenset(write for write in writes if not seen.saw(write)))
    }
    if not survivors:
        return
    merged = dict(survivors)
    mine = {str(element): True for element in value} if isinstance(value, tuple) and register.is_union else {"": value}
    for element, each in mine.items():
        write = replace(fresh.base, value=each)
        merged[element] = add_write(survivors.get(element, frozenset()), write, seen)
    fresh.put(register, merged)


def _insert_value(register: Register, entry: EntryView) -> Value:
    """What an insert writes to a register: null where it names no value."""
    if register.is_union:
        return tuple(entry.values.get(register.name, ((), ()))[0])
    value: Value = entry.values.get(register.name, register.nothing)
    return value


def is_alive(table: Table, state: RowState) -> bool:
    """Whether a row stands: with a delete beside a concurrent edit, unless the table says that deletes win."""
    values = {bool(write.value) for write in state.alive}
    return values == {True} if table.delete == "delete" else True in values


def project(table: Table, scope: str, key: str, states: dict[bytes, RowState]) -> MergedKey:
    """The row a table shows for one key, and the key's conflicts: a pure function of its registers.

    Of several people under one key the oldest is shown, the same on all nodes; the others wait to be re-keyed.
    """
    living = [state for state in states.values() if is_alive(table, state)]
    front = min(living, key=lambda state: (state.born, state.identity), default=None)
    conflicts: dict[tuple[bytes, str], Conflict] = {}
    for state in states.values():
        for conflict in _conflicts(table, scope, key, state):
            conflicts[(state.identity, conflict.field)] = conflict
    row = None
    if front is not None:
        row = shown_row(table, front)
        for state in living:
            if state is not front:
                conflicts[(state.identity, TWIN)] = _twin(table, scope, key, front, state)
    plain = len(states) == 1 and front is not None and not conflicts and _is_single(front)
    return MergedKey(states, front, row, conflicts, plain)


def _twin(table: Table, scope: str, key: str, front: RowState, state: RowState) -> Conflict:
    """Another person under this key: the row shown, and the one that waits for a key of its own, each whole, as whoever
    touched it last left it. The number says who waits, not what has been edited of them meanwhile."""
    number = conflict_number(scope, table.name, key, state.identity, TWIN, ())
    both = [replace(shown(Policy.UNION, each.alive), value=_whole(table, each)) for each in (front, state)]
    return Conflict(number, state.identity, TWIN, Policy.REVIEW, True, frozenset(both), both[0])


def _whole(table: Table, state: RowState) -> Value:
    """A row as one value: (field, value) for each field that says something."""
    row = shown_row(table, state)
    return tuple((name, _frozen(value)) for name, value in row.items() if value is not None)


def _is_single(state: RowState) -> bool:
    every = [state.alive, *state.writes.values()]
    return all(len(writes) == 1 and _is_plain(next(iter(writes))) for writes in every)


def _is_plain(write: Write) -> bool:
    """Shown, and sealed once: of two dots the fast path knows one."""
    return not write.held and len(write.dots) == 1


def shown_row(table: Table, state: RowState) -> dict[str, Any]:
    """The shown value of each field: nothing where there are only held ones."""
    row: dict[str, Any] = {}
    for register in table.registers:
        elements = state.register(register)
        if register.is_union:
            present = [element for element, writes in elements.items() if _is_present(writes)]
            row[register.fields[0].name] = sorted(present) or None
            continue
        good = showable(elements.get("", ()))
        value: Any = shown(register.policy, good, order=register.order).value if good else None
        if register.is_group:
            row.update(
                (each.name, None if value is None else _thawed(value[at])) for at, each in enumerate(register.fields)
            )
        else:
            row[register.name] = _thawed(value)
    return row


def _is_present(writes: frozenset[Write]) -> bool:
    """Whether a union shows an element: present wins over removed."""
    good = showable(writes)
    return bool(good) and bool(shown(Policy.UNION, good).value)


def _conflicts(table: Table, scope: str, key: str, state: RowState) -> Iterable[Conflict]:
    """The conflicts of one row. The fields of a deleted one ask nothing of anybody; they do again if it comes back."""
    if len(state.alive) > 1 and is_conflict(state.alive):
        yield _conflict(table, scope, key, state, ALIVE, table.delete, state.alive, Policy.UNION, ())
    if not is_alive(table, state):
        return
    for (name, element), kept in state.writes.items():
        writes = rivals(kept) if len(kept) > 1 else kept
        if len(writes) > 1 and is_conflict(writes):
            register = table.register(name)
            label = f"{name}:{element}" if register.is_union else name
            yield _conflict(table, scope, key, state, label, register.policy, writes, register.policy, register.order)


def _conflict(
    table: Table,
    scope: str,
    key: str,
    state: RowState,
    label: str,
    policy: str,
    writes: frozenset[Write],
    rule: Policy,
    order: Sequence[Value],
) -> Conflict:
    number = conflict_number(scope, table.name, key, state.identity, label, writes)
    winner = shown(rule, showable(writes) or list(writes), order=order)
    if label == ALIVE and table.delete == "delete":
        winner = shown(Policy.LATEST, [write for write in writes if not write.value])
    return Conflict(number, state.identity, label, policy, policy == Policy.REVIEW, writes, winner)
