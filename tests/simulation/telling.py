"""Tells the truth what batches say that no program's statement wrote: persons' decisions, and what undoes an accident.

Role: read a node's own batches, just sealed, as the writes that they hold; note the codes that its catalogue brought.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from node.storage.registries import registry_for
from sync_engine.batch import SectionKind, parse_batch
from sync_engine.entries import Entries
from sync_engine.verify import decode
from tests.simulation.model import TABLES, fixed_hold, readable
from tests.simulation.process import Process
from tests.simulation.truth import ALIVE, FORGET, Truth, Write, says_something


def entries_of(node: Process, digest: bytes) -> list[Entries]:
    ((data,),) = node.query("SELECT data FROM _batch WHERE hash = ?", digest)
    batch = parse_batch(data)
    registry = node.look(registry_for, node.context, batch)
    assert registry is not None
    return decode(batch, registry)


def tell(node: Process, truth: Truth, scope: str, digest: bytes) -> None:
    """What the batch wrote is what it says."""
    seen, clock = truth.nodes[node.name].applied, node.now_ms() << 16
    alive: dict[tuple[str, str, str, bytes], tuple[int, bool, bool]] = {}
    for entries in entries_of(node, digest):
        table = TABLES[entries.table.name]
        for at, key in enumerate(entries.ids):
            row = (table.name, scope.partition("/")[0], key, entries.identities[at])
            released, enters = entries.decision(at) is not None, not truth.has_met(row, seen)
            is_new, deletes = entries.is_new(at), entries.kind is SectionKind.DELETE
            alive[row] = max(alive.get(row, (0, False, False)), (entries.times[at], deletes, is_new))
            for register, element, value in () if deletes else _written(node, entries, at, row[1]):
                held = ""
                if value is not FORGET:
                    held = fixed_hold(table, table.register(register), value, node.unit, enters=is_new and enters)
                    if held == "right" and is_new and not says_something(value):
                        continue
                place = (*row, register, element)
                truth.add(digest, [Write(place, value, digest, seen, node.unit, clock, held, released, is_new)])
    for row, (_, deletes, is_new) in alive.items():
        write = Write((*row, ALIVE, ""), not deletes, digest, seen, node.unit, clock, enters=is_new)
        truth.add(digest, [write])


def _written(node: Process, entries: Entries, at: int, unit: str) -> Iterator[tuple[str, str, Any]]:
    """(register, element, value) of one entry; an insert writes every register that its node may read."""
    named = {register.name for register in entries.written(at)}
    for register in entries.table.registers:
        names = [each.name for each in register.fields]
        if register.name not in named:
            mine = TABLES[entries.table.name].register(register.name)
            if not entries.is_new(at) or not readable(mine, node.unit, unit):
                continue
            if register.is_union:
                yield register.name, FORGET, FORGET
            else:
                yield register.name, "", (None,) * len(names) if register.is_group else None
        elif register.is_union:
            if entries.is_new(at):
                yield register.name, FORGET, FORGET
            for element in entries.columns[names[0]][at]:
                yield register.name, element, True
            for element in entries.removed[names[0]][at]:
                yield register.name, element, False
        else:
            values = tuple(entries.columns[name][at] for name in names)
            yield register.name, "", values if register.is_group else values[0]


def note_codes(node: Process, truth: Truth, digest: bytes) -> None:
    """What a catalogue's batch brings: kinds and codes, by row."""
    found = truth.codes.setdefault(digest, set())
    for entries in entries_of(node, digest):
        for at, key in enumerate(entries.ids if entries.kind is SectionKind.ROWS else ()):
            written = {register.name for register in entries.written(at)}
            for name in ("kind", "code"):
                if name in written and entries.columns[name][at]:
                    found.add((node.unit, key, name, entries.columns[name][at]))
