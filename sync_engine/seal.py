"""Folds what capture noted into entries: several edits of a field travel once, each field with its last edit's time.

Role: from a row's pending notes, its current values and what its registers hold, decide the entries to seal.
Reach: registry model, entries. Source: design, 4 and 5; protocol, "Time of a write". Invariant: a write's time is
greater than the times of the writes it replaces, and nobody's clock is moved for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from conflict.values import TIME_MAX, Write
from sync_engine.batch import SectionKind
from sync_engine.entries import Entries, identity_of
from sync_engine.fields import from_sql
from sync_engine.registry import Register, Table

SqlRow = Sequence[Any]
"""A table row's fields in SQL form and registry order, ``edited_by`` last."""


@dataclass(slots=True)
class Noted:
    """What capture noted of one row since it was last sealed. Times are (first, last)."""

    id: str
    inserted: int | None = None
    deleted: int | None = None
    edits: list[tuple[int, int, int]] = field(default_factory=list)
    """(mask over the table's registers, first, last)"""
    image: SqlRow | None = None
    """The row as it was when first deleted."""
    edited_before: frozenset[int] = frozenset()
    """The masks of the edits noted before it was first deleted: later ones are of the row in its place."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """Union fields (their elements) and codes as they were before the first pending change."""
    count: int = 0
    """How many notes these were."""


@dataclass(slots=True)
class Known:
    """What the registers hold of one row identity: greatest times only, which is all that sealing needs."""

    identity: bytes
    base_time: int
    alive_time: int
    is_alive: bool
    shown: bool
    register_times: dict[str, int] = field(default_factory=dict)
    """Registers that have writes later than the insert."""
    elements: dict[str, frozenset[str]] = field(default_factory=dict)
    """Union fields whose elements have registers of their own: those present."""

    def time_of(self, register: Register) -> int:
        return self.register_times.get(register.name, self.base_time)

    @property
    def time_max(self) -> int:
        return max([self.base_time, *self.register_times.values()])


@dataclass(slots=True)
class Draft:
    """One entry to be sealed. ``row`` is in SQL form; ``mask`` has bits of the table's registers."""

    id: str
    identity: bytes
    time: int
    mask: int
    row: SqlRow
    new: bool = False
    first: int | None = None
    removed: dict[str, list[str]] | None = None
    added: dict[str, list[str]] | None = None


def _later(time: int) -> int:
    return min(time + 1, TIME_MAX)


def time_after(noted: int, replaced: Iterable[Write]) -> int:
    """The time of a write: what the clock said, or just after the writes that it replaces."""
    return max([noted, *(_later(write.time) for write in replaced)])


class Folder:
    """Folds rows of one table; holds what is the same for all of them."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.whole = (1 << len(table.registers)) - 1
        place = {each.name: at for at, each in enumerate(table.fields)}
        self.required = [(each, place[each.name]) for each in table.required]
        self.unions = [
            (register, register.fields[0], place[register.fields[0].name])
            for register in table.registers
            if register.is_union
        ]
        self._elements: dict[int, dict[str, list[str]]] = {}

    def prepare(self, rows: Sequence[SqlRow]) -> list[bytes]:
        """Read what folding needs of current rows, column by column; returns their identities."""
        self._elements = {id(row): {} for row in rows}
        for _register, each, at in self.unions:
            for row, elements in zip(rows, from_sql(each, [row[at] for row in rows]), strict=True):
                self._elements[id(row)][each.name] = elements or []
        return self.identities(rows)

    def identities(self, rows: Sequence[SqlRow]) -> list[bytes]:
        """The identities of rows in SQL form, column by column."""
        columns = [from_sql(each, [row[at] for row in rows]) for each, at in self.required]
        return (
            [identity_of(values) for values in zip(*columns, strict=True)] if columns else [identity_of(())] * len(rows)
        )

    def fold(
        self, noted: Noted, current: SqlRow | None, identity: bytes, known: Sequence[Known]
    ) -> tuple[list[Draft], list[Draft]]:
        """The entries of one row: (rows, deletes). Nothing where it came and went between two sealings.

        ``identity`` is of the current row. ``known`` are the identities under this key; an edit or a delete speaks only
        of the one shown. A row deleted and inserted again is a new life; of another person it is another row.
        """
        shown = next((each for each in known if each.shown), None)
        if shown is None:
            return ([] if current is None else self._insert(noted, current, identity, known)), []
        if noted.deleted is None and noted.inserted is None:
            return ([] if current is None else self._edits(noted, current, shown)), []
        if current is not None and identity == shown.identity:
            return self._insert(noted, current, identity, known), []
        edits = [edit for edit in noted.edits if edit[0] in noted.edited_before]
        rows = [] if noted.image is None else self._edits(replace(noted, edits=edits), noted.image, shown)
        time = max(
            [noted.deleted or noted.inserted or 0, _later(shown.alive_time), *(_later(each.time) for each in rows)]
        )
        deletes = [Draft(noted.id, shown.identity, time, 0, noted.image or ())]
        if current is not None:
            rows += self._insert(noted, current, identity, known)
        return rows, deletes

    def _insert(self, noted: Noted, row: SqlRow, identity: bytes, known: Sequence[Known]) -> list[Draft]:
        """An insert writes every register it may; fields edited after it keep the time of their own last edit."""
        noted_at = noted.inserted if noted.inserted is not None else min((edit[1] for edit in noted.edits), default=0)
        earlier = next((each for each in known if each.identity == identity), None)
        time = noted_at if earlier is None else max(noted_at, _later(earlier.time_max))
        insert = Draft(noted.id, identity, time, self.whole, row, new=True)
        drafts = {time: insert}
        for index, (_first, last) in self._edited(noted).items():
            if last > time:
                insert.mask &= ~(1 << index)
                drafts.setdefault(last, Draft(noted.id, identity, last, 0, row)).mask |= 1 << index
        for draft in drafts.values():
            self._add_elements(draft, {})
        return list(drafts.values())

    def _edits(self, noted: Noted, row: SqlRow, known: Known) -> list[Draft]:
        """One entry for each edit time; ``first`` where a field was edited several times before sealing."""
        drafts: dict[int, Draft] = {}
        for index, (first, last) in self._edited(noted).items():
            time = max(last, _later(known.time_of(self.table.registers[index])))
            draft = drafts.setdefault(time, Draft(noted.id, known.identity, time, 0, row))
            draft.mask |= 1 << index
            if first < last:
                draft.first = first if draft.first is None else min(draft.first, first)
        unions = {each.name for _register, each, _at in self.unions}
        earlier = {name: frozenset(old) for name, old in noted.before.items() if name in unions}
        before = {**earlier, **known.elements}
        for draft in drafts.values():
            self._add_elements(draft, before)
        return list(drafts.values())

    def _edited(self, noted: Noted) -> dict[int, tuple[int, int]]:
        """Per register edited, by its index: the times of its first and its last pending edit."""
        spans: dict[int, tuple[int, int]] = {}
        for mask, first, last in noted.edits:
            for index in range(mask.bit_length()):
                if mask >> index & 1:
                    earlier = spans.get(index, (first, last))
                    spans[index] = (min(first, earlier[0]), max(last, earlier[1]))
        return spans

    def _add_elements(self, draft: Draft, before: Mapping[str, frozenset[str]]) -> None:
        """A union is one register per element: what travels is what was added and what was taken away."""
        elements = self._elements.get(id(draft.row)) or {
            each.name: from_sql(each, [draft.row[at]])[0] or [] for _register, each, at in self.unions
        }
        if draft.mask == self.whole and not before:
            draft.added = elements
            return
        added, removed = {}, {}
        for register, each, _at in self.unions:
            if draft.mask >> register.index & 1:
                now, old = set(elements[each.name]), before.get(each.name, frozenset())
                added[each.name], removed[each.name] = sorted(now - old), sorted(old - now)
        draft.added, draft.removed = added, removed


def section_of(table: Table, kind: SectionKind, drafts: Sequence[Draft]) -> Entries:
    """Lay drafts out in columns. Columns that only inserts touch and that are null in all of them are left out."""
    drafts = sorted(drafts, key=lambda draft: (draft.id, draft.time, draft.identity))
    by = [draft.row[-1] if draft.row else None for draft in drafts]
    entries = Entries(
        table,
        kind,
        [draft.id for draft in drafts],
        [draft.identity for draft in drafts],
        [draft.time for draft in drafts],
        by=by if any(each is not None for each in by) else None,
    )
    if kind is SectionKind.DELETE:
        return entries
    if any(draft.first is not None for draft in drafts):
        entries.firsts = [draft.first for draft in drafts]
    if any(draft.new for draft in drafts):
        entries.new = [draft.new for draft in drafts]
    columns = list(zip(*(draft.row for draft in drafts), strict=True))
    named, common = 0, -1  # bits that some edit names; bits that every entry has
    for draft in drafts:
        named |= 0 if draft.new else draft.mask
        common &= draft.mask
    laid = _Laid(entries, drafts, columns, named, common)
    kept = [register for register in table.registers if _lay_register(laid, register)]
    entries.registers = tuple(kept)
    whole = sum(1 << register.index for register in kept)
    if common & whole != whole:
        entries.masks = [
            sum(1 << at for at, register in enumerate(kept) if draft.mask >> register.index & 1) for draft in drafts
        ]
    return entries


class _Laid(NamedTuple):
    entries: Entries
    drafts: Sequence[Draft]
    columns: Sequence[Sequence[Any]]
    named: int
    common: int


def _lay_register(laid: _Laid, register: Register) -> bool:
    """Fill one register's columns; False where the section can do without it."""
    entries, drafts, columns, named, common = laid
    bit = 1 << register.index
    if register.is_union:
        name = register.fields[0].name
        added = [draft.added.get(name, []) if draft.added else [] for draft in drafts]
        removed = [draft.removed.get(name, []) if draft.removed else [] for draft in drafts]
        if not (named & bit or any(added)):
            return False
        entries.columns[name], entries.removed[name] = added, removed
        return True
    found = {}
    for each in register.fields:
        column: Sequence[Any] = columns[entries.table.fields.index(each)]
        if not common & bit:
            column = [value if draft.mask & bit else None for value, draft in zip(column, drafts, strict=True)]
        found[each.name] = from_sql(each, list(column))
    if not named & bit and all(values.count(None) == len(values) for values in found.values()):
        return False
    entries.columns.update(found)
    return True
