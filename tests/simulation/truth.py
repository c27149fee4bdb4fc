"""What was really written, by whom, and what each writer's database had merged then; and the oracle over it.

Role: record acknowledged local statements and, of the product, only which batches hold which keys and which batches a
node has applied. Shares no code with the product's merging: a register is the writes that no other write had seen.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation.model import BY_NUMBER, Register, Table, identity, readable, scope_of

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

    def __init__(self, node: str, key: Key, window: Window, batch: bytes) -> None:
        self.node, self.batch, self.window = node, batch, window
        self.table = _table(key)
        self.key = key
        self.clock = max(op.clock for op in window.ops)
        self.writes: list[Write] = []

    def _add(self, who: bytes, register: str, value: Any, seen: frozenset[bytes], element: str = "") -> None:
        self.writes.append(Write((*self.key, who, register, element), value, self.batch, seen, self.node, self.clock))

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
        self._add(who, ALIVE, True, seen)
        for register in known(self.table, row):
            if not readable(register, self.node, self.key[1]):
                continue
            if register.policy == "union":
                self._add(who, register.name, FORGET, seen, FORGET)
                for element in elements(row[register.name]):
                    self._add(who, register.name, True, seen, element)
            else:
                self._add(who, register.name, value_of(register, row), seen)

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
                self._add(who, register.name, value_of(register, last), seen)
                continue
            old, now = elements(first[register.name]), elements(last[register.name])
            for element in now ^ old:
                self._add(who, register.name, element in now, seen, element)


def _table(key: Key) -> Table:
    return next(table for table in BY_NUMBER.values() if table.name == key[0])


def _differs(register: Register, op: Op) -> bool:
    assert op.before is not None
    assert op.after is not None
    return any(op.before[name] != op.after[name] for name in register.fields)


@dataclass
class NodeTruth:
    """One node's own history. It goes back when the node's files do."""

    applied: frozenset[bytes] = frozenset()
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
    batches: dict[bytes, list[Write]] = field(default_factory=dict)
    """What each batch should carry; batches from before the run carry nothing that is watched."""
    times: dict[tuple[Place, bytes], int] = field(default_factory=dict)
    """The time of each write as first met; the product's own, since only it can know."""
    undoing: str | None = None
    """The node that takes an accident back just now."""
    undone: list[Undone] = field(default_factory=list)

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

    def sealed(self, node: str, key: Key, batch: bytes | None) -> None:
        """A key's notes have gone: into a batch, or because the row came and went."""
        window = self.nodes[node].windows.pop(key)
        writes = Folding(node, key, window, batch or b"").run()
        if batch is None:
            assert not writes, f"I2: {node} threw away its notes of {key}: {writes}"
        else:
            self.batches[batch].extend(writes)

    def equivocated(self, one: bytes, other: bytes) -> None:
        """A batch has a twin that was signed at the same place, with the same in it."""
        twins = [replace(write, batch=other) for write in self.batches.get(one, ())]
        self.batches[other] = twins
        for write in twins:
            if (write.place, one) in self.times:
                self.times[(write.place, other)] = self.times[(write.place, one)]

    def registers(self, applied: Iterable[bytes]) -> dict[Place, list[Write]]:
        """The oracle: of the writes in these batches, those that no other of them had seen."""
        by_register: dict[tuple[Any, ...], list[Write]] = {}
        for batch in applied:
            for write in self.batches.get(batch, ()):
                by_register.setdefault(write.place[:5], []).append(write)
        found: dict[Place, list[Write]] = {}
        for writes in by_register.values():
            for write in writes:
                rivals = (each for each in writes if each.place[5] in (write.place[5], FORGET))
                if write.value is not FORGET and not any(write.batch in each.seen for each in rivals):
                    found.setdefault(write.place, []).append(write)
        return found


def key_scope(key: Key) -> str:
    return scope_of(_table(key), key[1])
