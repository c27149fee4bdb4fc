"""Persons' decisions: about conflicts, open or past, about held values, and about two people under one key.

Role: turn a choice into the edit that carries it out, and seal that at once, as a statement of its own.
Reach: storage tables, sync_engine. Source: design, 5. Invariant: a decision is an ordinary write that has seen every
rival; it is sealed even where it confirms what is shown, for only a write that saw the rivals ends a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection

from conflict.register import rivals
from conflict.values import Head, Hold, StreamId, Value, level_of
from node.storage.codes import codes_in, unknown_codes
from node.storage.context import Context
from node.storage.engine import execute, quoted
from node.storage.held import HeldValue, find_held, shown_beside
from node.storage.inbox import seal_remainder
from node.storage.journal import OPEN
from node.storage.registers import frozen, load_keys, unpack_value
from node.storage.registries import current_registry
from node.storage.sealing import Statement, seal_statement
from node.storage.streams import scope_no
from sync_engine.batch import SectionKind
from sync_engine.entries import ID_CHARS_MAX, Act, Decision, Entries
from sync_engine.errors import BadInput
from sync_engine.fields import normalise, rule_breaks, to_sql
from sync_engine.merge import ALIVE, TWIN, RowState, is_alive, shown_row
from sync_engine.names import unit_of
from sync_engine.registry import Field, Register, Table
from sync_engine.seal import Folder, Noted, section_of, time_after


class NotDecided(BadInput):
    """A decision that cannot be carried out; nothing has been changed."""

    default_hint = "'dongbo conflicts show N' tells what can be chosen"


@dataclass(frozen=True, slots=True)
class Place:
    """One row of the registers, and the conflict that is decided about. ``writes`` are the journal's, in the order in
    which every node numbers them: (value, won)."""

    number: int
    scope_no: int
    scope: str
    table: Table
    key: str
    state: RowState
    field: str
    is_open: bool
    writes: Sequence[tuple[Any, bool]]

    @property
    def unit(self) -> str:
        return unit_of(self.scope)

    @property
    def register(self) -> Register:
        return self.table.register(self.field.partition(":")[0])


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person chose: one of the writes (from 1), a value as people write it, or a key for who waits ('': one is
    made). ``by`` is the person."""

    number: int
    keep: int | None = None
    value: str | Mapping[str, str] | None = None
    new_id: str | None = None
    by: str | None = None
    why: str | None = None


# --- conflicts ---


def resolve(connection: Connection, context: Context, choice: Choice) -> dict[str, Any]:
    """Settle a conflict, or overturn how it was settled. Raises NotDecided or SealFirst."""
    seal_remainder(connection, context)
    place = _conflict(connection, context, choice.number)
    act = Act.RENAME if place.field == TWIN else Act.RESOLVE if place.is_open else Act.OVERTURN
    if not may_settle(place.table, place.field, context.level, place.unit):
        raise NotDecided(
            f"a unit of this level may not change {place.table.name}.{place.field}",
            hint="the levels that may are told by 'dongbo registry show'; the conflict stands in their queue",
        )
    _check_current(connection, place)
    decision = Decision(act, choice.number, choice.why)
    if place.field == TWIN:
        value: Any = _rename(connection, context, place, choice, decision)
    elif place.field == ALIVE:
        value = _kept_value(place, choice)
        _seal_alive(connection, context, place, bool(value), choice.by, decision)
    else:
        value = _kept_value(place, choice) if choice.keep is not None else _typed_value(place, choice)
        _check_value(connection, place, value, typed=choice.keep is None)
        _seal_value(connection, context, place, value, choice.by, decision)
    told = {"number": choice.number, "table": place.table.name, "key": place.key, "unit": place.unit}
    return {**told, "field": place.field, "value": value, "overturned": act is Act.OVERTURN}


def _check_current(connection: Connection, place: Place) -> None:
    """What has ended is overturned where nothing newer waits in its place. Raises NotDecided."""
    if place.is_open:
        return
    if place.field == TWIN:
        raise NotDecided("nobody waits for an id there any more: it was given, or the record is gone")
    newer = execute(
        connection,
        "SELECT number FROM _conflict WHERE live = 1 AND state = 'open' AND number <> ?"
        " AND scope = ? AND tbl = ? AND id = ? AND identity = ? AND field = ?",
        (place.number, place.scope_no, place.table.number, place.key, place.state.identity, place.field),
    ).scalar()
    if newer is not None:
        raise NotDecided(f"conflict {place.number} is past, and {newer} waits in its place", hint=f"look at {newer}")


def may_settle(table: Table, field: str, level: int, unit: str) -> bool:
    """Whether a node of a level is entitled to settle a conflict of a field. A row as a whole is given another key by
    those who may read all of it."""
    unit_level = level_of(unit)
    if field == ALIVE:
        return table.may_read_rows(level, unit_level)
    if field == TWIN:
        return all(table.may_read(register, level, unit_level) for register in table.registers)
    return table.may_change(table.register(field.partition(":")[0]), level, unit_level)


def _conflict(connection: Connection, context: Context, number: int) -> Place:
    row = execute(
        connection,
        "SELECT _conflict.scope, name, tbl, id, identity, field, state, live, writes FROM _conflict"
        " JOIN _scope ON _scope.no = _conflict.scope WHERE number = ? ORDER BY _conflict.no DESC LIMIT 1",
        (number,),
    ).one_or_none()
    registry = current_registry(connection, context)
    if row is None or row[2] not in registry.by_number:
        raise NotDecided(f"there is no conflict {number} here", hint="'dongbo conflicts' lists them with their numbers")
    scope_no, scope, tbl, key, identity, field, state, live, raw = row
    table = registry.by_number[tbl]
    loaded, _heads = load_keys(connection, context, table, scope_no, unit_of(scope), [key])
    writes = [(each[3], bool(each[4])) for each in msgspec.msgpack.decode(raw)]
    found = loaded[key].states[identity]
    return Place(number, scope_no, scope, table, key, found, field, bool(live) and state == OPEN, writes)


def _kept_value(place: Place, choice: Choice) -> Value:
    """The value of one of the journal's writes."""
    if choice.keep is None:
        raise NotDecided("this is settled by keeping one of its writes", hint="use --keep 1 or --keep 2")
    if not 1 <= choice.keep <= len(place.writes):
        raise NotDecided(f"conflict {place.number} has no write {choice.keep}")
    return unpack_value(msgspec.msgpack.encode(place.writes[choice.keep - 1][0]))


def _check_value(connection: Connection, place: Place, value: Value, *, typed: bool) -> None:
    """Raises NotDecided for a value that its field does not admit, or a typed code that is in no list here."""
    register = place.register
    if breaks_rule(register, value):
        raise NotDecided("this value breaks the rule of its field", hint="use --value with a right one")
    if typed and unknown_codes(connection, place.unit, codes_in(register, value)):
        raise NotDecided("this code is in no list here", hint="enter it in the catalogue first, or choose another")


def breaks_rule(register: Register, value: Value) -> bool:
    """Whether a value is none that its field admits."""
    if register.is_union:
        return False
    return any(rule_breaks(each, [one]) for each, one in zip(register.fields, register.parts(value), strict=True))


def _typed_value(place: Place, choice: Choice) -> Value:
    """A value as a person typed it. A group's fields that were not typed keep what is shown."""
    register = place.register
    if register.is_union or choice.value is None:
        raise NotDecided("say which write is kept, or the right value", hint="use --keep N or --value VALUE")
    if not register.is_group:
        if not isinstance(choice.value, str):
            raise NotDecided(f"{place.field} is one field: give one value")
        return _normal(register.fields[0], choice.value)
    if isinstance(choice.value, str) or set(choice.value) - {each.name for each in register.fields}:
        names = ", ".join(each.name for each in register.fields)
        raise NotDecided(f"{place.field} is several fields: {names}", hint="use --value FIELD=VALUE for each")
    row = shown_row(place.table, place.state)
    return tuple(
        _normal(each, choice.value[each.name]) if each.name in choice.value else frozen(row[each.name])
        for each in register.fields
    )


def _normal(field: Field, text: str) -> Value:
    """Raises NotDecided, by the name that people know the field by."""
    try:
        value = normalise(field, text if text.strip() else None)
    except BadInput as error:
        raise NotDecided(f"{field.label or field.name}: " + str(error).removeprefix(f"{field.name}: ")) from error
    return None if value == () else value


# --- held values ---


def release(connection: Connection, context: Context, number: int, by: str | None, why: str | None) -> dict[str, Any]:
    """Show a held value after all. Raises NotDecided or SealFirst."""
    seal_remainder(connection, context)
    held = _held(connection, context, number)
    if breaks_rule(held.register, held.write.value):
        raise NotDecided(
            "this value breaks the rule of its field, so no table may show it",
            hint=f"'dongbo quarantine refuse {number}', or correct the field",
        )
    return _decide(connection, context, held, held.write.value, by, Decision(Act.RELEASE, number, why))


def refuse(connection: Connection, context: Context, number: int, by: str | None, why: str | None) -> dict[str, Any]:
    """Let what is shown stand, for good: the held value goes to the journal. Raises NotDecided or SealFirst."""
    seal_remainder(connection, context)
    held = _held(connection, context, number)
    kept = shown_beside(held)
    if held.register.is_union:
        kept = bool(kept)
    elif kept is None:
        kept = held.register.nothing
    if breaks_rule(held.register, kept):
        raise NotDecided(
            "nothing right is there to be shown instead", hint="correct the field: that refuses it as well"
        )
    return _decide(connection, context, held, kept, by, Decision(Act.REFUSE, number, why))


def _held(connection: Connection, context: Context, number: int) -> HeldValue:
    held = find_held(connection, context, number)
    if held is None:
        raise NotDecided(f"no value is held here under the number {number}", hint="'dongbo quarantine' lists them")
    if not held.may_decide(context.level):
        raise NotDecided(
            f"a unit of this level may not change {held.table.name}.{held.label}",
            hint="a level that may change the field decides; correcting it there does as well",
        )
    return held


def _decide(
    connection: Connection, context: Context, held: HeldValue, value: Value, by: str | None, decision: Decision
) -> dict[str, Any]:
    number = scope_no(connection, held.scope)
    place = Place(held.number, number, held.scope, held.table, held.key, held.state, held.label, True, ())
    shown = shown_beside(held)
    _seal_value(connection, context, place, value, by, decision)
    told = {"number": held.number, "table": held.table.name, "key": held.key, "unit": place.unit}
    return {**told, "field": held.label, "value": held.write.value, "shown": shown}


# --- sealing ---


def _entries(place: Place, kind: SectionKind, time: int, by: str | None, decision: Decision | None) -> Entries:
    """One entry of one row, which writes nothing yet."""
    return Entries(
        place.table,
        kind,
        [place.key],
        [place.state.identity],
        [time],
        by=None if by is None else [by],
        decisions=None if decision is None else [decision],
    )


def _seal_value(
    connection: Connection, context: Context, place: Place, value: Value, by: str | None, decision: Decision
) -> None:
    register = place.register
    kept = [write for writes in place.state.register(register).values() for write in writes]
    time = time_after(context.now_ms() << 16, [*kept, *place.state.alive])
    entries = _entries(place, SectionKind.ROWS, time, by, decision)
    entries.registers = (register,)
    if register.is_union:
        name, element = register.fields[0].name, place.field.partition(":")[2]
        entries.columns[name], entries.removed[name] = [[element] if value else []], [[] if value else [element]]
    else:
        for each, one in zip(register.fields, register.parts(value), strict=True):
            entries.columns[each.name] = [list(one) if isinstance(one, tuple) else one]
    sections = [entries]
    if not is_alive(place.table, place.state):  # an edit says that its row is there; a decision about a field does not
        sections.append(_entries(place, SectionKind.DELETE, time, by, None))
    _seal(connection, context, place, sections)


def _seal_alive(
    connection: Connection, context: Context, place: Place, keeps: bool, by: str | None, decision: Decision
) -> None:
    """An entry that names no register says that its row is there; a delete says that it is not."""
    kind = SectionKind.ROWS if keeps else SectionKind.DELETE
    time = time_after(context.now_ms() << 16, place.state.alive)
    _seal(connection, context, place, [_entries(place, kind, time, by, decision)])


def _rename(connection: Connection, context: Context, place: Place, choice: Choice, decision: Decision) -> str:
    """Enter who waits under another key, and take the row that waited away."""
    if choice.new_id is None:
        raise NotDecided("two people stand under one id: give the one who waits another", hint="use --new-id ID")
    key = choice.new_id.strip() or made_up_id(context)
    _check_free(connection, place, key)
    table = place.table
    row = shown_row(table, place.state) | _waiting_codes(place)
    sql = [to_sql(each, [row[each.name]])[0] for each in table.fields]
    folder, now = Folder(table), time_after(context.now_ms() << 16, place.state.alive)
    (identity,) = folder.prepare([[*sql, choice.by]])
    entered = Noted(key, inserted=context.now_ms() << 16)  # it replaces nothing: no other clock moves its time
    drafts, _ = folder.fold(entered, [*sql, choice.by], identity, ())
    sections = [
        section_of(table, SectionKind.ROWS, drafts),
        _entries(place, SectionKind.DELETE, now, choice.by, decision),
    ]
    _seal(connection, context, place, sections)
    return key


def _waiting_codes(place: Place) -> dict[str, Any]:
    """Values that wait for a code go along, and wait there: nothing else of the row would tell of them."""
    found: dict[str, Any] = {}
    for register in place.table.registers:
        waiting = [
            each for each in rivals(place.state.register(register).get("", frozenset())) if each.held is Hold.CODE
        ]
        if waiting and not register.is_union:
            value = max(waiting, key=lambda each: each.time).value
            found |= {each.name: one for each, one in zip(register.fields, register.parts(value), strict=True)}
    return found


def made_up_id(context: Context) -> str:
    """A UUIDv7 (RFC 9562, 5.7)."""
    raw = bytearray(context.now_ms().to_bytes(6, "big") + context.salt()[:10])
    raw[6], raw[8] = raw[6] & 0x0F | 0x70, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _check_free(connection: Connection, place: Place, key: str) -> None:
    if len(key) > ID_CHARS_MAX or "\0" in key:
        raise NotDecided(f"an id is a text of 1 to {ID_CHARS_MAX} characters")
    taken = execute(
        connection,
        "SELECT 1 FROM _row WHERE scope = ? AND tbl = ? AND id = ?"
        f" UNION SELECT 1 FROM {quoted(place.table.name)} WHERE unit = ? AND id = ?",
        (place.scope_no, place.table.number, key, place.unit, key),
    ).scalar()
    if taken is not None:
        raise NotDecided(f"that id is or was another record's in {place.unit}", hint="choose one that is free")


def _seal(connection: Connection, context: Context, place: Place, sections: Sequence[Entries]) -> Head:
    stream = StreamId(context.unit, context.epoch, place.table.scope_of(place.unit))
    registry = current_registry(connection, context)
    return seal_statement(connection, context, registry, Statement(stream, sections)).head
