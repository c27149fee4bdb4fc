"""The clerks: random plain SQL at any level, told to the truth only once it has been committed.

Role: make statements, run them in one transaction, compare the table before and after.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from random import Random
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from node.storage.engine import execute
from tests.simulation.model import KIND, LATER, PERSON, THING, WORD, Table, scope_of, within
from tests.simulation.process import Process
from tests.simulation.truth import Key, RowImage, Truth

Statement = tuple[Table, str, str, Sequence[Any]]
Change = tuple[Key, RowImage | None, RowImage | None, bytes | None]
ELEMENTS = ["a", "b", "ç", "đ"]
NAMES = ["Lê Văn Mẫu", "Trần Thị Thử"]
FEW = ["x", "y"]
CODES = ["c0", "c1", "c2", "c3"]
"""Codes that some catalogue may come to have."""
JAMO = unicodedata.normalize("NFD", "한글")
"""Decomposed text that the table's guard lets through, so that sealing has to mend it."""


class Editor:
    """Writes at one tree's nodes. ``count`` is told of faults, ``say`` of what was done."""

    def __init__(self, rng: Random, truth: Truth, units: Sequence[str], ids: int, count: Any, say: Any) -> None:
        self.rng, self.truth, self.units, self.ids = rng, truth, list(units), ids
        self.count, self.say = count, say
        self.hot = sorted({unit for unit in self.units if self.units.count(unit) > 1})
        self.nfd_rate = 0.0
        self.mass_rate = 0.0
        """How often a program does something to all rows of a unit."""
        self.shares = (6, 3, 1)
        """How often persons, things and words are written."""
        self.favourites: Sequence[str] = ()
        """Fields of persons that are edited more often than others."""
        self.knows_all = False
        """Whether the node that is written at has the newer registry."""
        self.serial = 0

    # --- values ---

    def marker(self, unit: str, field: str) -> str:
        """A text that exists nowhere else, so that bytes on a disk tell where it has come to."""
        self.serial += 1
        return f"~{unit}~{field}~{self.serial}~"

    def value(self, unit: str, table: Table, field: str) -> Any:
        rng = self.rng
        if field == table.required:
            return rng.choice(CODES if table is WORD else NAMES)
        if field == "kind":
            return rng.choice([None, KIND, KIND, "other"])
        if field in ("trade", "home"):
            return rng.choice([None, *CODES, *CODES, self.marker(unit, field)])
        if field in ("rank", "count"):
            return rng.choice([None, 0, 1, 2, 3])
        if field == "badges":
            chosen = sorted(each for each in ELEMENTS if rng.random() < 0.4)
            return (
                rng.choice([None, "[]"])
                if not chosen
                else json.dumps(chosen, ensure_ascii=False, separators=(",", ":"))
            )
        if field == "about":
            return rng.choice([None, f"r{rng.randrange(self.ids)}", "nowhere"])
        if rng.random() < self.nfd_rate:
            self.count("NFD text")
            return rng.choice([unicodedata.normalize("NFD", "Thừa Thiên"), JAMO])
        return rng.choice([None, rng.choice(FEW), self.marker(unit, field), self.marker(unit, field)])

    # --- statements ---

    def fields(self, table: Table) -> tuple[str, ...]:
        """The fields that the node has."""
        return tuple(each for each in table.fields if self.knows_all or each != LATER)

    def row(self, unit: str, table: Table, key: str) -> dict[str, Any]:
        values: dict[str, Any] = {"unit": unit, "id": key, table.required: self.value(unit, table, table.required)}
        for field in self.fields(table):
            if field != table.required and self.rng.random() < 0.5:
                values[field] = self.value(unit, table, field)
        return values

    def insert(self, unit: str, table: Table, key: str, verb: str = "INSERT") -> Statement:
        row = self.row(unit, table, key)
        sql = f"{verb} INTO {table.name} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        return table, unit, sql, list(row.values())

    def upsert(self, unit: str, table: Table, key: str) -> Statement:
        _, _, sql, values = self.insert(unit, table, key)
        field = self.rng.choice(self.fields(table))
        sql += f" ON CONFLICT (unit, id) DO UPDATE SET {field} = ?"
        return table, unit, sql, [*values, self.value(unit, table, field)]

    def update(self, unit: str, table: Table, key: str | None) -> Statement:
        known = self.fields(table)
        fields = self.rng.sample(known, min(len(known), self.rng.choice([1, 1, 1, 2, 3])))
        if table is PERSON and self.favourites and self.rng.random() < 0.5:
            fields = [self.rng.choice(self.favourites)]
        values = [self.value(unit, table, field) for field in fields]
        where, which = ("unit = ?", [unit]) if key is None else ("unit = ? AND id = ?", [unit, key])
        sql = f"UPDATE {table.name} SET {', '.join(f'{each} = ?' for each in fields)} WHERE {where}"
        return table, unit, sql, [*values, *which]

    def delete(self, unit: str, table: Table, key: str | None) -> Statement:
        where, which = ("unit = ?", [unit]) if key is None else ("unit = ? AND id = ?", [unit, key])
        return table, unit, f"DELETE FROM {table.name} WHERE {where}", which

    def move(self, unit: str, table: Table, key: str) -> Statement:
        """What nobody may do: a row keeps its unit."""
        to = self.rng.choice(self.units)
        return table, unit, f"UPDATE {table.name} SET unit = ? WHERE unit = ? AND id = ?", [to, unit, key]

    def statements(self, node: str) -> list[Statement]:
        rng = self.rng
        table = rng.choices([PERSON, THING, WORD], self.shares)[0]
        unit = node if table.catalogue else rng.choice([each for each in self.units if within(each, node)])
        if self.mass_rate and rng.random() < self.mass_rate:
            return [rng.choice([self.update(unit, table, None), self.delete(unit, table, None)])]
        key = f"r{rng.randrange(self.ids)}" if rng.random() < 0.9 else "ký-1"
        match rng.choices(range(9), [5, 8, 2, 2, 2, 1, 1, 1, 2])[0]:
            case 0:
                return [self.insert(unit, table, key)]
            case 1:
                return [self.update(unit, table, key)]
            case 2:
                return [self.upsert(unit, table, key)]
            case 3:
                return [self.insert(unit, table, key, "REPLACE")]
            case 4:
                return [self.delete(unit, table, key)]
            case 5:
                return [self.delete(unit, table, key), self.insert(unit, table, key)]
            case 6:
                return [self.update(unit, table, None)]
            case 7:
                return [self.move(unit, table, key)]
            case _:
                return [self.insert(unit, table, key), self.update(unit, table, key)]

    # --- running them ---

    def enter_codes(self, node: Process) -> None:
        """The catalogue of a unit gets some codes that values may have waited for."""
        sql = "INSERT INTO word (unit, id, kind, code) VALUES (?, ?, ?, ?)"
        codes = self.rng.sample(CODES, 2)
        self.run(node, [(WORD, node.unit, sql, [node.unit, f"late-{code}", KIND, code]) for code in codes])

    def edit(self, node: Process) -> None:
        """One transaction of a local program."""
        if not node.has_tables:
            return
        self.knows_all = node.query("SELECT 1 FROM _meta WHERE key = 'registry' AND value = '2'") != []
        self.run(node, self.statements(node.unit))

    def run(self, node: Process, statements: Sequence[Statement]) -> None:
        """What a program wrote is true as soon as it is committed."""
        changes, refused = list[Change](), list[str]()

        def work(connection: Connection) -> None:
            for table, unit, sql, values in statements:
                before = rows_of(connection, table, unit)
                try:
                    execute(connection, sql, values)
                except DBAPIError as error:
                    refused.append(str(error.orig))
                    continue
                after = rows_of(connection, table, unit)
                for key in sorted({*before, *after}):
                    old, new = before.get(key), after.get(key)
                    if old != new:
                        place = (table.name, unit, key)
                        changes.append((place, old, new, shown_identity(connection, table, unit, key)))
            node.uncommitted = lambda: self._record(node, changes)

        for _, _, sql, values in statements:
            self.say(f"{node.unit} runs {sql} {values!r}")
        node.write(work)
        if refused:
            self.say(f"{node.unit} was refused: {refused}")
            for _ in filter(lambda why: "cannot be changed" in why, refused):
                self.count("move refused")

    def _record(self, node: Process, changes: Sequence[Change]) -> None:
        for key, old, new, shown in changes:
            self.truth.wrote(node.name, key, (old, new), shown, node.now_ms() << 16)
            self.count("local write")


def rows_of(connection: Connection, table: Table, unit: str) -> dict[str, dict[str, Any]]:
    """A table's rows of one unit by id, in SQL form, as far as the node knows the fields."""
    fields = table.fields
    if (
        LATER in fields
        and (LATER,) not in execute(connection, f"SELECT name FROM pragma_table_info('{table.name}')").all()
    ):
        fields = tuple(each for each in fields if each != LATER)
    found = execute(connection, f"SELECT id, {', '.join(fields)} FROM {table.name} WHERE unit = ?", (unit,))
    return {row[0]: dict(zip(fields, row[1:], strict=True)) for row in found}


def shown_identity(connection: Connection, table: Table, unit: str, key: str) -> bytes | None:
    """The identity that the registers show under a key; what is pending does not count."""
    identity: bytes | None = execute(
        connection,
        "SELECT identity FROM _row JOIN _scope ON _scope.no = _row.scope"
        " WHERE name = ? AND tbl = ? AND id = ? AND shown = 1",
        (scope_of(table, unit), table.number, key),
    ).scalar()
    return identity
