"""Compares one node's registers, tables and conflicts with the oracle's.

Role: I1, I6, I7 and I18 (registers against the truth), I2 (tables against registers), the journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable
from typing import Any, NamedTuple

from node.storage.engine import execute
from node.storage.registers import load_keys
from node.storage.registries import current_registry
from sync_engine.batch import parse_batch
from sync_engine.fields import to_sql
from sync_engine.merge import ALIVE as PRODUCT_ALIVE
from tests.simulation.checks import Violation, require
from tests.simulation.editor import rows_of
from tests.simulation.journals import check_driven_out
from tests.simulation.model import BY_NUMBER, TABLES, Stamp, Table, holds, level, readable, scope_of, shown
from tests.simulation.process import Process
from tests.simulation.truth import ALIVE, Kept, Place, Truth, Write, says_something


class Stored(NamedTuple):
    """A write as a node has it. One sealed in several lives of its node is in several batches."""

    dots: frozenset[bytes]
    time: int
    origin: str
    value: Any
    held: str
    covered: bool

    def mark(self, kept: Iterable[Kept]) -> Mark:
        """Of a write that was sealed more than once a node may know only some batches that it is in."""
        dots = next((each.dots for each in kept if self.dots <= each.dots), self.dots)
        return dots, repr(self.value), self.held, self.covered


Held = dict[Place, list[Stored]]
Mark = tuple[frozenset[bytes], str, str, bool]
TWIN = "twin"


def held_by(
    connection: Any, node: Process, truth: Truth, table: Table, scope: str
) -> tuple[Held, dict[str, bytes | None], dict[tuple[str, bytes], int]]:
    """What the node's storage holds of one table of one scope: registers, who is shown, when each was born."""
    unit = scope.partition("/")[0]
    number = execute(connection, "SELECT no FROM _scope WHERE name = ?", (scope,)).scalar()
    found: Held = {}
    front: dict[str, bytes | None] = {}
    born: dict[tuple[str, bytes], int] = {}
    if number is None:
        return found, front, born
    product = current_registry(connection, node.context).tables[table.name]
    rows = execute(
        connection, "SELECT id, identity, shown FROM _row WHERE scope = ? AND tbl = ?", (number, table.number)
    ).all()
    ids = sorted({each for each, _, _ in rows})
    front = {each: None for each in ids}
    front.update({each: who for each, who, is_shown in rows if is_shown})
    loaded, _ = load_keys(connection, node.context, product, number, unit, ids)
    for key, one in loaded.items():
        for who, state in one.states.items():
            born[(key, who)] = state.born
            registers = {(ALIVE, ""): state.alive}
            for register in product.registers:
                registers.update({(register.name, element): each for element, each in state.register(register).items()})
            for (name, element), writes in registers.items():
                place = (table.name, unit, key, who, name, element)
                found[place] = [
                    Stored(
                        frozenset(truth.first(dot.hash) for dot in write.dots),
                        *(write.time, write.origin, write.value),
                        *("" if not write.held else write.held.name.lower(), write.covered),
                    )
                    for write in writes
                ]
    return found, front, born


def is_gone(nodes: Iterable[Process], truth: Truth, place: Place, batch: bytes) -> bool:
    """Whether a batch is held, and by nobody with what it wrote at this place: who may read it had not got it yet when
    its origin lost its disk, and others hold the batch without it."""
    table, register = place[0], place[4]
    if register in (ALIVE, TWIN):
        return False
    names = TABLES[table].register(register).fields
    copies = 0
    for node in nodes:
        for digest, data in node.query("SELECT hash, data FROM _batch"):
            if truth.first(digest) != batch:
                continue
            copies += 1
            held = parse_batch(data)
            for section, chunks in zip(held.header.sections, held.chunks, strict=True):
                columns = enumerate(section.columns) if section.table == table else ()
                if any(column.name.rstrip("+-") in names and at in chunks for at, column in columns):
                    return False
    return copies > 0


class NodeCheck:
    """One node against the truth. ``nodes`` are all that are there: ``restored`` the units that lost what they knew."""

    def __init__(
        self,
        node: Process,
        truth: Truth,
        count: Callable[[str], None],
        nodes: Collection[Process] = (),
        restored: Container[str] = (),
    ) -> None:
        self.node, self.truth, self.count = node, truth, count
        self.nodes, self.restored = nodes, restored
        self.windows = truth.nodes[node.name].windows
        self.expected = truth.registers(truth.nodes[node.name].applied)
        self.scopes = {scope for (scope,) in node.query("SELECT name FROM _scope")}
        self.registry = node.look(current_registry, node.context)
        self.quiet = self._quiet()
        self.front: dict[tuple[str, str, str], bytes | None] = {}
        self.is_late = bool(node.query("SELECT 1 FROM _meta WHERE key = 'codes_came' AND value <> ''"))
        """Whether codes have come that held values are still to be looked at again for."""

    def _quiet(self) -> set[tuple[str, str, str]]:
        """(unit, table, register) of accidents that are merged here and what undoes them is not: the table may show
        what it showed before."""
        columns = "SELECT origin, epoch, scope, applied_seq FROM _stream"
        applied = {row[:3]: row[3] for row in self.node.query(columns)}
        return {
            (each.stream[2].partition("/")[0], *register)
            for each in self.truth.undone
            if self.node.unit != each.stream[0] and each.begins <= applied.get(each.stream, 0) < each.ends
            for register in each.registers
        }

    def run(self) -> None:
        expected = {
            place: writes
            for place, writes in self.expected.items()
            if place[:3] not in self.windows and self._reads(place)
        }
        found: Held = {}
        for scope in sorted(self.scopes):
            for table in TABLES.values():
                if scope_of(table, scope.partition("/")[0]) == scope:
                    found.update(self.node.look(self._table, table, scope))
        for place in sorted({*expected, *found}, key=repr):
            if place[:3] in self.windows or self._is_unsettled(*place):
                continue
            kept = expected.get(place, ())
            want = counted(marks_of(kept))
            have = counted(each.mark(kept) for each in found.get(place, ()))
            if want != have and self._is_gone(place, kept, found.get(place, ())):
                continue
            require(want == have, lambda p=place, w=want, h=have: self._explain(p, w, h))  # type: ignore[misc]
        self._times(found)
        self._journal(found)
        if self.truth.is_steady:
            held = [(place, each) for place, writes in self.expected.items() for each in writes if each.held]
            kept = {(place, dot) for place, each in held for dot in each.dots}
            check_driven_out(self.node, self.truth, kept, self._is_told)
        self._what_met(found)
        self._one_scope()

    def _is_gone(self, place: Place, kept: Iterable[Kept], stored: Iterable[Stored]) -> bool:
        """Whether a value that should be here is nowhere any more."""
        where = (*place[:5], "")
        wrote = [*((each.write.origin, each.dots) for each in kept), *((each.origin, each.dots) for each in stored)]
        restored = {dot for origin, dots in wrote for dot in dots if origin.partition("+")[0] in self.restored}
        there = [each for each in self.nodes if each.has_tables]
        if where not in self.truth.lost and any(is_gone(there, self.truth, place, dot) for dot in restored):
            self.count("gone with its disk")
            self.truth.lost.add(where)
        return where in self.truth.lost

    def _times(self, found: Held) -> None:
        """I6: a write has one time everywhere. I12: it is later than all that it replaces."""
        times = self.truth.times
        for place, writes in found.items():
            if (*place[:5], "") in self.truth.lost:
                continue
            for batch, time, _, value, held, covered in ((dot, *each[1:]) for each in writes for dot in each.dots):
                if covered and not held and not says_something(value) and (place, batch) in self.truth.split:
                    continue  # with that the row was entered; the time that is known is that of the edit
                first = times.setdefault((place, batch), time)
                if first != time and self._is_gone(place, self.expected.get(place, ()), writes):
                    break  # what is left is what the row was entered with
                require(first == time, lambda p=place: f"I6: {self.node.name} gives {p} another time")  # type: ignore[misc]
        for place, kept in self.expected.items():
            for write in (each.write for each in kept):
                mine = times.get((place, write.batch))
                if mine is None or (place[4] == ALIVE and write.value):
                    continue
                seen = write.seen
                if place[4] == ALIVE:  # counts only what it replaces itself: other writes of `alive` count nothing
                    seen = frozenset(dot for each in self.truth.registers(seen).get(place, ()) for dot in each.dots)
                self._not_moved(write, mine)
                for batch in seen:
                    earlier = times.get((place, batch), -1)
                    require(earlier < mine, lambda p=place: f"I12: a write of {p} is not later than what it replaces")  # type: ignore[misc]

    def _not_moved(self, write: Write, time: int) -> None:
        """I12: a time comes from its writer's clock, and from another's only by 1 past what the edit replaces. A delete
        is 1 past the edits before it in its batch, be it that they changed nothing."""
        rows = self.truth.row_times(write)
        if time > write.clock and rows is not None:
            bound = max([write.clock + (write.place[4] == ALIVE), *(each + 1 for each in rows)])
            require(time <= bound, lambda: f"I12: {write.origin} wrote {write.place} {time - bound} past its clock")

    def _what_met(self, found: Held) -> None:
        """Count which kinds of concurrent edits this node has really seen."""
        for place, writes in found.items():
            if len({level(each.origin) for each in writes}) > 1:
                self.count("edits of several levels met")
            if any(len(each.dots) > 1 for each in writes):
                self.count("sealed twice")
            if place[4] == ALIVE and len({bool(each.value) for each in writes}) > 1:
                self.count("delete met an edit")
            for each in writes:
                if each.held:
                    self.count(f"held, {each.held}")
                waited = (self.node.name, place, min(each.dots))
                if each.held == "code":
                    self.truth.waited.add(waited)
                elif waited in self.truth.waited:
                    self.count("code has come")
        orphans = "SELECT count(*) FROM thing WHERE about IS NOT NULL AND about NOT IN (SELECT id FROM word)"
        ((count,),) = self.node.query(orphans)
        if count:
            self.count("row before its parent row")

    def _one_scope(self) -> None:
        """I8: every row shown belongs to one scope, that of its unit."""
        for table in TABLES.values():
            for (unit,) in self.node.query(f"SELECT DISTINCT unit FROM {table.name}"):
                require(
                    holds(self.node.unit, scope_of(table, unit)),
                    lambda u=unit, t=table: (
                        f"I8: {self.node.unit} shows rows of {t.name} of {u}, which is no scope here"
                    ),  # type: ignore[misc]
                )
            found = self.node.query(
                "SELECT count(*), count(DISTINCT name || ' ' || id || ' ' || hex(identity)) FROM _row"
                " JOIN _scope ON _scope.no = scope WHERE tbl = ?",
                table.number,
            )
            require(found[0][0] == found[0][1], lambda t=table: f"I8: {self.node.unit} has a row of {t.name} twice")  # type: ignore[misc]

    def _reads(self, place: Place) -> bool:
        table, unit, register = place[0], place[1], place[4]
        return register == ALIVE or readable(TABLES[table].register(register), self.node.unit, unit)

    def _is_told(self, place: Place) -> bool:
        """Whether this node has judged what is written there."""
        return place[:3] not in self.windows and self._reads(place) and not self._is_unsettled(*place)

    def _is_unsettled(self, table: str, _unit: str, _key: str, _who: bytes, register: str, _element: str) -> bool:
        """Whether a code may have come that this register's values have not been judged by yet."""
        return self.is_late and register not in (ALIVE, TWIN) and bool(TABLES[table].register(register).code)

    def _explain(self, place: Place, want: Counter[Any], have: Counter[Any]) -> str:
        show, more = (
            [
                f"{count}x {value} of {'+'.join(sorted(dot.hex()[:8] for dot in dots))} {why}"
                for (dots, value, *why), count in each.items()
            ]
            for each in (want - have, have - want)
        )
        return f"I1/I7: {self.node.name} {place}: lacks {show}, has unexpectedly {more}"

    def _table(self, connection: Any, table: Table, scope: str) -> Held:
        unit = scope.partition("/")[0]
        found, front, born = held_by(connection, self.node, self.truth, table, scope)
        self.front.update({(table.name, unit, key): who for key, who in front.items()})
        rows = rows_of(connection, table, unit)
        for key in sorted({*front, *rows}):
            if (table.name, unit, key) not in self.windows:
                self._row(table, unit, key, (found, front, born), rows.get(key))
        return found

    def _row(self, table: Table, unit: str, key: str, stored: Any, row: dict[str, Any] | None) -> None:
        """I2: what the table shows is what its registers say."""
        found, front, born = stored
        living = [
            who
            for (each, who) in born
            if each == key
            and _lives(table, {bool(each.value) for each in found[(table.name, unit, key, who, ALIVE, "")]})
        ]
        first = min(living, key=lambda who: (born[(key, who)], who), default=None)
        where = f"I2: {self.node.unit} {table.name} {unit} {key}"
        require(front.get(key) == first, lambda: f"{where} shows {front.get(key)!r} instead of {first!r}")
        if (unit, table.name, PRODUCT_ALIVE) in self.quiet:
            return
        require((row is None) == (first is None), lambda: f"{where} shows {row}, alive is {first!r}")
        if row is None or first is None:
            return
        quiet = {register for each, name, register in self.quiet if (each, name) == (unit, table.name)}
        late = {each.name for each in table.registers if self._is_unsettled(table.name, "", "", b"", each.name, "")}
        kept = {name for register in table.registers if register.name in quiet | late for name in register.fields}
        for name, want in self._projected(table, (table.name, unit, key, first), found).items():
            if name in kept:
                continue
            if name not in row:
                continue  # a field of a registry that is not in force here
            have = None if row[name] == "[]" else row[name]  # docs/decisions/0011: an empty set is null
            require(have == want, lambda n=name, w=want: f"{where} shows {n} = {row[n]!r} instead of {w!r}")  # type: ignore[misc]

    def _projected(self, table: Table, who: tuple[str, str, str, bytes], found: Held) -> dict[str, Any]:
        """The row by the oracle's own policies, in SQL form."""
        product = self.registry.tables[table.name]
        row: dict[str, Any] = {}
        for register in table.registers:
            if register.policy == "union":
                prefix = (*who, register.name)
                stamps = {place[5]: _stamps(writes) for place, writes in found.items() if place[:5] == prefix}
                present = sorted(element for element, each in stamps.items() if shown("union", each))
                row[register.fields[0]] = to_sql(product.field(register.fields[0]), [present or None])[0]
                continue
            writes = found.get((*who, register.name, ""), [])
            good = _stamps(writes)
            value = shown(register.policy, good) if good else None
            values = value if isinstance(value, tuple) else (value,) * len(register.fields)
            row.update(zip(register.fields, values, strict=True))
        return row

    def _journal(self, found: Held) -> None:
        """Every register of a living row with rivals of different values is in the journal, and everybody else who
        stands under its key, open where a person decides."""
        want = {}
        for place, writes in found.items():
            table = TABLES[place[0]]
            policy = table.delete if place[4] == ALIVE else table.register(place[4]).policy
            rivals = {repr(each.value) for each in writes if not each.covered}
            if len(rivals) > 1 and (place[4] == ALIVE or self._is_alive(place, found)):
                want[place] = "open" if policy == "review" else "settled"
            if place[4] == ALIVE and self._is_alive(place, found) and self.front.get(place[:3]) != place[3]:
                want[(*place[:4], TWIN, "")] = "open"
                self.count("twin waits")
        have = {}
        for number, scope, key, who, name, state in self.node.query(
            "SELECT tbl, name, id, identity, field, state FROM _conflict JOIN _scope ON _scope.no = scope"
            " WHERE live = 1"
        ):
            if number in BY_NUMBER:
                register, _, element = name.partition(":")
                have[(BY_NUMBER[number].name, scope.partition("/")[0], key, who, register.lstrip("_"), element)] = state
        differ = {place for place in {*want, *have} if want.get(place) != have.get(place)}
        differ = {place for place in differ if place[:3] not in self.windows and not self._is_unsettled(*place)}
        if differ:
            place = min(differ, key=repr)
            raise Violation(f"I1: {self.node.unit} journals {place} as {have.get(place)} instead of {want.get(place)}")

    def _is_alive(self, place: Place, found: Held) -> bool:
        return _lives(TABLES[place[0]], {bool(each.value) for each in found[(*place[:4], ALIVE, "")]})


def marks_of(kept: Iterable[Kept]) -> list[Mark]:
    return [(each.dots, repr(each.write.value), each.held, each.covered) for each in kept]


def counted(marks: Iterable[Mark]) -> Counter[Mark]:
    """With what several lives entered a row without, that nobody shows, counts once."""
    left_out = {("None", "", True), ("(None, None)", "", True)}
    return Counter({(frozenset[bytes](), *mark[1:]) if mark[1:] in left_out else mark for mark in marks})


def _stamps(writes: Iterable[Stored]) -> list[Stamp]:
    """The writes that may be shown."""
    return [(each.time, each.origin, each.value) for each in writes if not each.held]


def _lives(table: Table, alive: set[bool]) -> bool:
    return alive == {True} if table.delete == "delete" else True in alive
