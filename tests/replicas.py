"""Replicas of one scope at five levels, without a database: what people write, what honest nodes seal of it, merged.

Role: production code for folding, sealing, packing, reading and merging; capture, storage and the line are a few
lines of their own here.
Reach: sync_engine, conflict. Invariant: a batch's ``seen`` is what its replica had merged, and nothing foreign is
merged while anything is noted and not sealed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from conflict.numbers import statement
from conflict.values import Epoch, Head, Scope, StreamId, UnitPath, level_of
from conflict.vector import Vector
from sync_engine.batch import NO_PREV, BatchHeader, SealedBatch, SectionKind, encode_batch, encode_header, parse_batch
from sync_engine.batch import withhold as withheld_batch
from sync_engine.entries import encode_section
from sync_engine.fields import to_sql
from sync_engine.merge import ALIVE, Batch, EntryView, MergedKey, RowState, is_alive, merge_key, view
from sync_engine.registry import Deletion, Register, Registry, parse_registry
from sync_engine.seal import Folder, Known, Noted, section_of
from sync_engine.verify import decode

TOML = """
version = 1
levels = ["a", "b", "c", "d", "e"]

[tables.thing]
delete = "{delete}"

[tables.thing.fields]
name = {{ type = "text", required = true, merge = "review" }}
note = {{ type = "text" }}
first = {{ type = "int", merge = "earliest" }}
chief = {{ type = "text", merge = "superior", write_from = "c" }}
own = {{ type = "text", merge = "local" }}
most = {{ type = "enum", values = ["low", "mid", "high"], merge = "max" }}
least = {{ type = "int", merge = "min" }}
tongues = {{ type = "set", merge = "union" }}
tools = {{ type = "set" }}
line = {{ type = "text", group = "address", merge = "review" }}
town = {{ type = "text", group = "address", merge = "review" }}
secret = {{ type = "text", read_up_to = "c" }}
"""
UNITS = ("e.d.c.b.a", "d.c.b.a", "c.b.a", "b.a", "a")
SCOPE = UNITS[0]
DEPTH = level_of(SCOPE)
VALUES: dict[str, tuple[Any, ...]] = {
    "name": ("An", "Bình"), "note": ("x", "y", None), "first": (1, 2, None), "chief": ("p", "q"), "own": ("o", None),
    "most": ("low", "mid", "high", None), "least": (3, 4, None), "line": ("l", None), "town": ("t", "u"),
    "secret": ("s", "z"),
    "tongues": (["a"], ["b"], ["a", "b"], None), "tools": (["k"], ["k", "m"], None),
}  # fmt: skip


def registry_of(delete: Deletion = "review") -> Registry:
    return parse_registry(TOML.format(delete=delete))


@dataclass(frozen=True)
class Sealed:
    """One batch, and what its replica had merged."""

    batch: SealedBatch
    seen: Vector

    @property
    def head(self) -> Head:
        return self.batch.head


@dataclass
class Replica:
    """One node: tables, registers, notes. ``skew`` is what its clock shows too much."""

    unit: str
    registry: Registry
    skew: int = 0
    seen: Vector = field(default_factory=Vector)
    last: Head | None = None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, dict[bytes, RowState]] = field(default_factory=dict)
    merged: dict[str, MergedKey] = field(default_factory=dict)
    notes: dict[str, Noted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = self.registry.tables["thing"]
        self.level = level_of(self.unit)

    # --- people ---

    def may_change(self, register: Register) -> bool:
        return self.table.may_change(register, self.level, DEPTH)

    def may_read(self, register: Register) -> bool:
        return self.table.may_read(register, self.level, DEPTH)

    def insert(self, key: str, chance: Random, time: int) -> None:
        fields = [each for each in self.table.fields if self.may_read(self.table.register_of(each.name))]
        self.rows[key] = {each.name: None for each in self.table.fields} | {
            each.name: chance.choice(VALUES[each.name]) for each in fields if each.required or chance.random() < 0.6
        }
        self.notes.setdefault(key, Noted(key)).inserted = time

    def edit(self, key: str, chance: Random, time: int) -> None:
        row, note, mask = self.rows[key], self.notes.setdefault(key, Noted(key)), 0
        before = {name: row[name] or [] for name in ("tongues",)}
        for register in chance.sample(self.table.registers, chance.randint(1, 3)):
            if not self.may_change(register):
                continue
            fresh = {each.name: chance.choice(VALUES[each.name]) for each in register.fields}
            if any(row[name] != value for name, value in fresh.items()):
                row |= fresh
                mask |= 1 << register.index
                if register.is_union and not note.before:
                    note.before = before
        if mask:
            known = {each[0]: each for each in note.edits}
            known[mask] = (mask, known[mask][1] if mask in known else time, time)
            note.edits = list(known.values())

    def delete(self, key: str, time: int) -> None:
        note = self.notes.setdefault(key, Noted(key))
        note.image, note.deleted = self.sql_row(self.rows.pop(key)), time
        note.edited_before = frozenset(mask for mask, _, _ in note.edits)

    def write(self, key: str, what: str, chance: Random, time: int) -> Sealed | None:
        """Do what can be done; a key whose row was replaced is sealed before it is touched again."""
        note = self.notes.get(key)
        sealed = self.seal() if note is not None and note.deleted is not None and what != "insert" else None
        if key not in self.rows:
            self.insert(key, chance, time + self.skew)
        elif what == "delete":
            self.delete(key, time + self.skew)
        else:
            self.edit(key, chance, time + self.skew)
        return sealed

    def sql_row(self, row: dict[str, Any]) -> list[Any]:
        return [*(to_sql(each, [row[each.name]])[0] for each in self.table.fields), None]

    # --- sealing ---

    def seal(self) -> Sealed | None:
        """One batch of all that is noted; None where it comes to nothing."""
        if not self.notes:
            return None
        folder, drafts, deletes = Folder(self.table), [], []
        current = {key: self.sql_row(self.rows[key]) for key in self.notes if key in self.rows}
        identities = dict(zip(current, folder.prepare(list(current.values())), strict=True))
        for key, note in sorted(self.notes.items()):
            rows, gone = folder.fold(note, current.get(key), identities.get(key, b""), self._known(key))
            drafts, deletes = drafts + rows, deletes + gone
        self.notes = {}
        laid = [section_of(self.table, SectionKind.ROWS, drafts)] if drafts else []
        laid += [section_of(self.table, SectionKind.DELETE, deletes)] if deletes else []
        if not laid:
            return None
        packed = [encode_section(each, lambda: bytes(16)) for each in laid]
        stream = StreamId(UnitPath(self.unit), Epoch("1" * 16), Scope(SCOPE))
        header = BatchHeader(
            bytes(32), stream, self.last.seq + 1 if self.last else 1, self.last.hash if self.last else NO_PREV, (),
            (1, self.registry.sha256), False, tuple(each for each, _ in packed),
        )  # fmt: skip
        data = encode_batch(encode_header(header), b"signature", tuple(each for _, each in packed))
        one = Sealed(parse_batch(data), self.seen)
        shown = {key: dict(row) for key, row in self.rows.items()}
        self.merge(one)
        self.last = one.head
        for key in {key for each in laid for key in each.ids}:
            front = self.merged[key].shown
            if key in shown and front is not None and front.identity == identities[key]:
                barred = {} if self.level <= 2 else {"chief": self.rows[key]["chief"]}  # whoever enters again edits
                assert self.rows[key] == shown[key] | barred, "what had seen every rival is shown"
        return one

    def _known(self, key: str) -> list[Known]:
        """As ``pending.known_rows`` reads it from tables."""
        found, merged = [], self.merged.get(key)
        for identity, state in self.states.get(key, {}).items():
            front = merged is not None and merged.shown is state
            alive = max(write.time for write in state.alive)
            known = Known(identity, state.base.time, alive, is_alive(self.table, state), front)
            for (name, element), writes in state.writes.items():
                time = max(write.time for write in writes)
                known.register_times[name] = max(known.register_times.get(name, 0), time)
                if self.table.register(name).is_union:
                    held = known.elements.get(name, frozenset())
                    known.elements[name] = held | {element} if any(each.value for each in writes) else held
            found.append(known)
        return found

    # --- merging ---

    def is_ready(self, one: Sealed) -> bool:
        done, _ = self.seen.entries.get(one.head.stream, (0, b""))
        return one.head.seq == done + 1 and all(self.seen.covers(head) for head in one.seen)

    def merge(self, one: Sealed) -> None:
        def readable(_table: str, column: str) -> bool:
            name = column.rstrip("+-")
            return not self.table.has(name) or self.may_read(self.table.register_of(name))

        batch = parse_batch(withheld_batch(one.batch, readable))
        places: dict[str, list[EntryView]] = {}
        for entries in decode(batch, self.registry):
            for at, key in enumerate(entries.ids):
                places.setdefault(key, []).append(view(entries, at))
        levels = (level_of(one.head.stream.origin), self.level)
        writes = frozenset(
            register.name
            for register in self.table.registers
            if all(self.table.may_read(register, level, DEPTH) for level in levels)
        )
        before = [] if one.head.seq == 1 else [replace(one.head, seq=one.head.seq - 1, hash=one.batch.header.prev)]
        plan = Batch(one.head, one.seen.updated(before), writes)
        for key, entries_of in places.items():
            merged = merge_key(self.table, SCOPE, key, self.states.setdefault(key, {}), entries_of, plan)
            self.merged[key] = merged
            self.rows.pop(key, None)
            if merged.row is not None:
                self.rows[key] = dict(merged.row)
        self.seen = self.seen.updated([one.head])

    # --- what is compared ---

    def registers(self, level: int) -> dict[Any, Any]:
        """Every register that ``level`` may read too, as all nodes should hold it."""
        found: dict[Any, Any] = {}
        for key, states in self.states.items():
            for identity, state in states.items():
                found[key, identity, ALIVE, ""] = told(state.alive)
                for register in self.table.registers:
                    if self.may_read(register) and self.table.may_read(register, level, DEPTH):
                        for element, writes in state.register(register).items():
                            found[key, identity, register.name, element] = told(writes)
        return found

    def shows(self, level: int) -> dict[str, Any]:
        """By key: whose row is shown, the row, and the conflicts."""
        names = [each.name for each in self.table.fields if self.table.may_read(each, level, DEPTH)]
        readable = {each.name for each in self.table.registers if self.table.may_read(each, level, DEPTH)} | {ALIVE}
        found = {}
        for key, merged in self.merged.items():
            row = None if key not in self.rows else {name: self.rows[key][name] for name in names}
            conflicts = {
                (place, each.number, each.is_open, each.winner.value)
                for place, each in merged.conflicts.items()
                if each.field.partition(":")[0] in readable
            }
            found[key] = (merged.shown and merged.shown.identity, row, conflicts)
        return found


def told(writes: Iterable[Any]) -> Any:
    """Writes as they are hashed for digests, with their dots and whether they are held."""
    held = list(writes)
    return statement(held), sorted((each.time, each.held, each.covered, tuple(sorted(each.dots))) for each in held)
