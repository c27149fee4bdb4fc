"""What was really written, by whom, and what each writer's database had merged then; and the oracle over it.

Role: record acknowledged local statements and, of the product, only which batches hold which keys and which batches a
node has applied. Shares no code with the product's merging: a register is the writes that no other write had seen.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation.model import (
    KIND,
    TABLES,
    Register,
    Table,
    fixed_hold,
    identity,
    readable,
    scope_of,
    within,
)

Key = tuple[str, str, str]
"""(table, unit, id)"""
RowImage = Mapping[str, Any]
Place = tuple[str, str, str, bytes, str, str]
"""(table, unit, id, identity, register, element)"""
ALIVE = "alive"
FORGET = "(forget)"
"""An insert over a union it had seen: all elements it does not name are gone, without a write of their own."""


@dataclass(frozen=True)
class Op:
    """One acknowledged statement on one row: what the row was and became, and the batches merged by then."""

    before: RowImage | None
    after: RowImage | None
    seen: frozenset[bytes]
    clock: int
    """The writer's clock then, as times are written: milliseconds, and 16 bits to count in."""


@dataclass
class Window:
    """Operations on one key that are not sealed yet. ``shown`` is the identity the table showed before them."""

    shown: bytes | None
    ops: list[Op] = field(default_factory=list)


@dataclass(frozen=True)
class Write:
    place: Place
    value: Any
    batch: bytes
    seen: frozenset[bytes]
    origin: str
    clock: int
    """The latest that its writer's clock showed while the row was edited."""
    held: str = ""
    """Why nobody is to show it, if that is so for ever."""
    released: bool = False
    """Whether a person has said that it is to be shown, known code or not."""
    enters: bool = False
    """Whether it was entered with its row."""


@dataclass(frozen=True)
class Kept:
    """A write that a register keeps. ``held`` says why it is not shown; ``covered``: a write that is held had seen
    it, so it is no longer a rival of any. ``dots``: the batches that it is in; more than one where it was sealed in
    several lives of its node."""

    write: Write
    held: str
    covered: bool
    dots: frozenset[bytes]


def nfc(value: Any) -> Any:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def value_of(register: Register, row: RowImage) -> Any:
    if len(register.fields) > 1:
        return tuple(nfc(row[name]) for name in register.fields)
    return nfc(row[register.fields[0]])


def known(table: Table, row: RowImage) -> list[Register]:
    """The registers that the writer's registry has: of others it writes nothing."""
    return [register for register in table.registers if register.fields[0] in row]


def elements(raw: str | None) -> set[str]:
    return {nfc(each) for each in json.loads(raw)} if raw else set()


class Folding:
    """One key's window as the writes that its batch should carry (design, 4 and 5)."""

    def __init__(self, node: str, key: Key, window: Window, batch: bytes, truth: Truth) -> None:
        self.node, self.batch, self.window, self.truth = node, batch, window, truth
        self.table = TABLES[key[0]]
        self.key = key
        self.clock = max(op.clock for op in window.ops)
        self.writes: list[Write] = []

    def _add(
        self,
        who: bytes,
        register: str,
        value: Any,
        seen: frozenset[bytes],
        element: str = "",
        held: str = "",
        enters: bool = False,
    ) -> None:
        place = (*self.key, who, register, element)
        made = Write(place, value, self.batch, seen, self.node, self.clock, held, False, enters)
        self.writes.append(made)

    def run(self) -> list[Write]:
        ops, shown = self.window.ops, self.window.shown
        final = ops[-1].after
        new_life = any(op.before is None for op in ops)
        first_delete = next((at for at, op in enumerate(ops) if op.after is None), None)
        if shown is None:
            if final is not None:
                self._insert(final)
        elif first_delete is None and not new_life:
            self._edit(shown, ops)
        elif final is not None and self._identity(final) == shown:
            self._insert(final)
        else:
            assert first_delete is not None
            self._edit(shown, ops[:first_delete])
            self.writes = [write for write in self.writes if write.place[4] != ALIVE]
            self._add(shown, ALIVE, False, ops[-1].seen)
            if final is not None:
                self._insert(final)
        return self.writes

    def _identity(self, row: RowImage) -> bytes:
        return identity(nfc(row[self.table.required]))

    def _insert(self, row: RowImage) -> None:
        who, seen = self._identity(row), self.window.ops[-1].seen
        enters = not self.truth.has_met((*self.key, who), seen)
        self._add(who, ALIVE, True, seen, enters=True)
        for register in known(self.table, row):
            if not readable(register, self.node, self.key[1]):
                continue
            if register.policy == "union":
                self._add(who, register.name, FORGET, seen, FORGET)
                for element in elements(row[register.name]):
                    self._add(who, register.name, True, seen, element)
                continue
            value = value_of(register, row)
            held = fixed_hold(self.table, register, value, self.node, enters=enters)
            if held != "right" or says_something(value):
                self._add(who, register.name, value, seen, held=held, enters=True)

    def _edit(self, who: bytes, ops: list[Op]) -> None:
        if not ops:
            return
        first, last = ops[0].before, ops[-1].after
        assert first is not None
        assert last is not None
        self._add(who, ALIVE, True, ops[-1].seen)
        for register in known(self.table, last):
            touching = [op for op in ops if _differs(register, op)]
            if not touching:
                continue
            seen = touching[-1].seen
            if register.policy != "union":
                value = value_of(register, last)
                held = fixed_hold(self.table, register, value, self.node, enters=False)
                self._add(who, register.name, value, seen, held=held)
                continue
            old, now = elements(first[register.name]), elements(last[register.name])
            for element in now ^ old:
                self._add(who, register.name, element in now, seen, element)


def nothing_like(value: Any) -> Any:
    return (None,) * len(value) if isinstance(value, tuple) else None


def says_something(value: Any) -> bool:
    return any(each is not None for each in value) if isinstance(value, tuple) else value is not None


def _differs(register: Register, op: Op) -> bool:
    assert op.before is not None
    assert op.after is not None
    return any(op.before[name] != op.after[name] for name in register.fields)


@dataclass
class NodeTruth:
    """One node's own history. It goes back when the node's files do."""

    applied: frozenset[bytes] = frozenset()
    """Batches, each by its first name."""
    windows: dict[Key, Window] = field(default_factory=dict)

    def copy(self) -> NodeTruth:
        windows = {key: Window(each.shown, list(each.ops)) for key, each in self.windows.items()}
        return NodeTruth(self.applied, windows)


@dataclass(frozen=True)
class Undone:
    """An accident that was taken back: batches from ``begins`` to ``ends`` of a stream hold it and what undoes it. In
    between a table may show of these (table, register) what it showed before."""

    stream: tuple[str, str, str]
    begins: int
    ends: int
    registers: frozenset[tuple[str, str]]


@dataclass
class Truth:
    nodes: dict[str, NodeTruth] = field(default_factory=dict)
    """By the name of the machine."""
    batches: dict[bytes, list[Write]] = field(default_factory=dict)
    """What each batch should carry; batches from before the run carry nothing that is watched."""
    times: dict[tuple[Place, bytes], int] = field(default_factory=dict)
    """The time of each write as first met; the product's own, since only it can know."""
    waited: set[tuple[str, Place, bytes]] = field(default_factory=set)
    """By unit: writes that were held there for want of a code."""
    is_steady: bool = False
    """Whether no clock jumps in this run: then journals keep all that they were told."""
    split: dict[tuple[Place, bytes], int] = field(default_factory=dict)
    """Writes whose batch enters the row without them, and has them as later edits of its own: when it was entered."""
    telling: str | None = None
    """The node that seals what no program's statement wrote just now: its batches say what it is."""
    inserts: dict[tuple[Any, ...], set[bytes]] = field(default_factory=dict)
    """By (table, unit, id, identity): the batches that entered the row."""
    codes: dict[bytes, set[tuple[str, str, str, str]]] = field(default_factory=dict)
    """What each catalogue batch brought: (unit, id, "kind" or "code", value)."""
    undone: list[Undone] = field(default_factory=list)
    names: dict[bytes, bytes] = field(default_factory=dict)
    """Of each batch that says another one again, in a later life of its origin: that other one."""
    scopes: dict[bytes, str] = field(default_factory=dict)
    """Of each batch: where it travels."""
    lost: set[Place] = field(default_factory=set)
    """Where a value is gone with the only disk that had it; the element of a set is left out."""

    def first(self, batch: bytes) -> bytes:
        """The name that a batch was sealed under at first: all that repeat it are the same batch."""
        while batch in self.names:
            batch = self.names[batch]
        return batch

    def wrote(
        self, node: str, key: Key, rows: tuple[RowImage | None, RowImage | None], shown: bytes | None, clock: int
    ) -> None:
        """A local program's statement on one row (before and after) has been committed."""
        mine = self.nodes[node]
        window = mine.windows.setdefault(key, Window(shown))
        window.ops.append(Op(*rows, mine.applied, clock))

    def row_times(self, write: Write) -> list[int] | None:
        """The times of all that a write's database had merged of its row, for a delete also of the edits before it in
        its batch; None if some are not known (yet)."""
        at_once = (write.batch,) if write.place[4] == ALIVE else ()
        found: list[int | None] = [
            self.times.get((each.place, each.batch))
            for batch in (*write.seen, *at_once)
            for each in self.batches.get(batch, ())
            if each.place[:4] == write.place[:4] and each.value is not FORGET and each is not write
        ]
        return None if None in found else [each for each in found if each is not None]

    def sealed(self, node: str, unit: str, key: Key, batch: bytes | None) -> None:
        """A key's notes have gone: into a batch, or because the row came and went."""
        window = self.nodes[node].windows.pop(key)
        writes = Folding(unit, key, window, batch or b"", self).run()
        if batch is None:
            assert not writes, f"I2: {node} threw away its notes of {key}: {writes}"
        else:
            self.add(batch, writes)

    def add(self, batch: bytes, writes: Iterable[Write]) -> None:
        """These writes are in a batch."""
        for write in writes:
            self.batches.setdefault(batch, []).append(write)
            if write.enters and write.place[4] == ALIVE:
                self.inserts.setdefault(write.place[:4], set()).add(batch)

    def has_met(self, row: tuple[Any, ...], seen: frozenset[bytes]) -> bool:
        """Whether somebody who has merged these batches knows of the row: then to enter it again is to edit it."""
        return not self.inserts.get(row, set()).isdisjoint(seen)

    def equivocated(self, one: bytes, other: bytes) -> None:
        """A batch has a twin that was signed at the same place, with the same in it."""
        self.scopes[other] = self.scopes[one]
        if one in self.names:  # both say the same batch again
            self.names[other] = self.names[one]
            return
        twins = [replace(write, batch=other) for write in self.batches.get(one, ())]
        self.batches[other] = []
        self.add(other, twins)
        self.codes[other] = self.codes.get(one, set())
        self.split |= {(place, other): time for (place, batch), time in self.split.items() if batch == one}
        for write in twins:
            if (write.place, one) in self.times:
                self.times[(write.place, other)] = self.times[(write.place, one)]

    def known_codes(self, applied: Iterable[bytes]) -> set[tuple[str, str]]:
        """The (unit, code) that count where these batches are merged: any code of a row that has been of that kind."""
        parts = {part for batch in applied for part in self.codes.get(batch, ())}
        return {
            (unit, code) for unit, key, name, code in parts if name == "code" and (unit, key, "kind", KIND) in parts
        }

    def registers(self, applied: Iterable[bytes]) -> dict[Place, list[Kept]]:
        """The oracle, where these batches are merged: of their writes those that no other had seen, and those that may
        be shown (now, or once their code is known) and that no write which is shown had seen."""
        by_register: dict[tuple[Any, ...], list[Write]] = {}
        applied = list(applied)
        known = self.known_codes(applied)
        for batch in applied:
            for write in self.batches.get(batch, ()):
                by_register.setdefault(write.place[:5], []).append(write)
        found: dict[Place, list[Kept]] = {}
        for writes in by_register.values():
            for write, dots, after in self.sealings(writes):
                if write.value is FORGET:
                    continue
                held = why_held(write, known)
                if not after or (held in ("", "code") and all(self._covers(each, known, dots) for each in after)):
                    found.setdefault(write.place, []).append(Kept(write, held, bool(after), dots))
        return found

    def sealings(self, writes: Sequence[Write]) -> Iterator[tuple[Write, frozenset[bytes], list[Write]]]:
        """Each write once, with the batches that it is in, and the writes that had seen it: one edit that was sealed in
        several lives of its node is one write, and whoever has seen it in one batch has seen it. Of one node's edits in
        one life each has seen those before it: they are several, even where a clock gives them one time. So are two
        edits of one row in several lives: each says that the row is there, and not the same of it."""
        alike: dict[tuple[Any, ...], list[Write]] = {}
        for write in writes:
            time = self.times.get((write.place, write.batch), write.batch)
            alike.setdefault((write.place, write.origin, time, repr(write.value)), []).append(write)
            if not write.place[5] and (write.place, write.batch) in self.split:
                entered = replace(write, value=nothing_like(write.value), held="")
                time = self.split[(write.place, write.batch)]
                alike.setdefault((write.place, write.origin, time, repr(entered.value)), []).append(entered)
        for (place, _, time, _), each in alike.items():
            while each:
                one = [each.pop()]
                for write in one:  # which grows
                    twins = [twin for twin in each if self._is_twin(write, twin)]
                    each[:] = [twin for twin in each if twin not in twins]
                    one.extend(twins)
                dots = frozenset(write.batch for write in one)
                filled = {batch for batch in dots if self.split.get((place, batch)) == time}
                after = [
                    each
                    for each in writes
                    if each.place[5] in (place[5], FORGET)
                    and (each.batch in filled if each.batch in dots else not dots.isdisjoint(each.seen))
                ]
                yield min(one, key=lambda write: write.batch), dots, after

    def _is_twin(self, one: Write, other: Write) -> bool:
        """Whether two writes that say the same at one time are of one edit."""
        if other.batch in one.seen or one.batch in other.seen:
            return False
        return one.place[4] != ALIVE or self._last_word(one) == self._last_word(other)

    def _last_word(self, alive: Write) -> set[tuple[str, str, str]]:
        """What was written of a row at the time that its standing was given."""
        time = self.times.get((alive.place, alive.batch))
        return {
            (*each.place[4:], repr(each.value))
            for each in self.batches.get(alive.batch, ())
            if each.place[:4] == alive.place[:4] and self.times.get((each.place, alive.batch)) == time
        }

    def _covers(self, write: Write, known: set[tuple[str, str]], dots: frozenset[bytes]) -> bool:
        """Whether what a write had seen, which is in the batches ``dots``, may still be shown: it is held itself, and
        its batch did not empty the register before it wrote it, or that is what it had seen."""
        is_empty = (write.place, write.batch) in self.split and write.batch not in dots
        return bool(why_held(write, known)) and not is_empty


def why_held(write: Write, known: set[tuple[str, str]]) -> str:
    """Why a write is not shown where these (unit, code) are known; an empty text if it may be."""
    if write.held or write.released or write.place[4] == ALIVE:
        return write.held
    code = TABLES[write.place[0]].register(write.place[4]).code_in(write.value)
    is_known = code is None or any(code == each and within(write.place[1], unit) for unit, each in known)
    return "" if is_known else "code"


def key_scope(key: Key) -> str:
    return scope_of(TABLES[key[0]], key[1])
