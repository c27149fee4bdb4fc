"""A week in which three levels edit the same fifty members without hearing of each other, and what must come of it.

Role: write as foreign programs do, remember what was written, and say from that alone what every journal must tell.
Reach: tests. Invariant: nothing that is expected here was asked of the product.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE, SECOND
from tests.e2e.processes import Cluster, Home

ALL = (CENTRE, PROVINCE, DISTRICT, SECOND)
PRIVATE = {"phone": "~hue~dien-thoai~", "citizen_id": "9994817", "health": "~hue~suc-khoe~"}
"""How all texts of these fields begin; nothing else anywhere has these bytes."""
OPEN_MARK = {"note": "~hue~ghi-chu~"}
PERSONS = {CENTRE: "Bùi Văn Hợp", PROVINCE: "Trần Văn Minh", DISTRICT: "Lê Thị Lan", SECOND: "Hồ Thị Sen"}

MEMBERS_A_DISTRICT, DAYS = 25, 3
DELETED = range(1, 6)
"""Members of the first district that it deletes at the end of the week, after it has edited them."""
TAKEN_BACK = range(6, 9)
"""Members of the first district to whom it gives a language that it takes away again."""
FRENCH = "Pháp"

OCCUPATIONS = ("giao-vien", "bac-si", "ky-su", "ke-toan")
STATES = ("official", "exempt", "transferred", "resigned")
STREETS = ("Lê Lợi", "Nguyễn Huệ", "Đống Đa")
LANGUAGES = (("Lào", "Nga"), (FRENCH,), ("Nga", "Trung"))
"""By rank; each member begins with Nga, and the province takes that away."""
REGISTERS = {
    "identity": ("full_name", "birth_date"),
    "occupation": ("occupation",),
    "status": ("status",),
    "address": ("address_line", "address_commune", "address_province"),
    "phone": ("phone",),
}

Place = tuple[str, str, str]
"""(unit, id, what a conflict calls its field)."""
Told = frozenset[tuple[str, str, bool]]
"""Writes: (origin, value as JSON, won)."""


@dataclass(frozen=True)
class Member:
    unit: str
    number: int

    @property
    def serial(self) -> int:
        """Both districts have a member 17; this tells them apart."""
        return self.number if self.unit == DISTRICT else self.number + MEMBERS_A_DISTRICT

    @property
    def id(self) -> str:
        return str(self.number)

    def entered(self) -> dict[str, Any]:
        n = self.serial
        return {
            "unit": self.unit,
            "id": self.id,
            "full_name": f"Nguyễn Văn Mẫu {n}",
            "birth_date": f"{1940 + n}-01-01",
            "sex": "nam",
            "status": "probationary",
            "languages": '["Nga"]',
            "phone": f"{PRIVATE['phone']}{n}",
            "citizen_id": f"{PRIVATE['citizen_id']}{n:05}",
            "health": f"{PRIVATE['health']}{n}",
            "note": f"{OPEN_MARK['note']}{n}",
        }

    def edit(self, writer: str) -> dict[str, Any]:
        """What a unit makes of this member; no two units the same, and the centre nothing that it may not read."""
        rank, n = rank_of(writer), self.number
        edited = {
            "occupation": OCCUPATIONS[(n + rank) % len(OCCUPATIONS)],
            "birth_date": f"{1940 + self.serial}-{rank + 2:02}-{n:02}",
            "status": STATES[(n + rank) % len(STATES)],
            "languages": json.dumps(LANGUAGES[rank], ensure_ascii=False, separators=(",", ":")),
            "address_line": f"{n} {STREETS[rank]}",
            "address_commune": f"Phường {rank}",
            "address_province": "Thành phố Huế",
            "edited_by": PERSONS[writer],
        }
        return edited if writer == CENTRE else edited | {"phone": f"{PRIVATE['phone']}{self.serial}-{rank}"}


MEMBERS = [Member(unit, n) for unit in (DISTRICT, SECOND) for n in range(1, MEMBERS_A_DISTRICT + 1)]


def rank_of(unit: str) -> int:
    return {0: 2, 1: 1, 2: 0}[unit.count(".")]


def writers_of(member: Member) -> tuple[str, str, str]:
    return (member.unit, PROVINCE, CENTRE)


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def next_tick() -> None:
    """Times are milliseconds: what is written after this is later than all that was written before."""
    begun = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= begun:
        pass


@dataclass
class Journal:
    """All that was written in the week, in the order in which it was: register by register."""

    written: dict[Place, list[tuple[str, Any]]] = field(default_factory=dict)
    row_edits: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def note(self, member: Member, writer: str, edited: Mapping[str, Any]) -> None:
        row = member.entered() | dict(edited)
        for register, names in REGISTERS.items():
            if names[-1] in edited:
                value = [row[name] for name in names] if len(names) > 1 else row[names[0]]
                self.written.setdefault((member.unit, member.id, register), []).append((writer, value))
        self.row_edits.setdefault((member.unit, member.id), []).append(writer)

    def expected(self, node: str) -> dict[Place, Told]:
        """What the journal of a node must tell of what is rival now: every write, and which of them is shown."""
        found: dict[Place, Told] = {}
        for place, writes in self.written.items():
            if may_see(node, place):
                winner = self._winner(place[2], writes)
                found[place] = frozenset((unit, as_json(value), unit == winner) for unit, value in writes)
        for unit, key in gone(node):
            last = next(writer for writer in reversed(self.row_edits[unit, key]) if writer != unit)
            kept = [(writer, "true", writer == last) for writer in (PROVINCE, CENTRE)]
            found[unit, key, "_alive"] = frozenset([(unit, "false", False), *kept])
        for place in taken_back(node):
            found[place] = frozenset([(place[0], "false", False), (PROVINCE, "true", True)])
        return found

    @staticmethod
    def _winner(register: str, writes: Sequence[tuple[str, Any]]) -> str:
        units = [unit for unit, _value in writes]
        return min(units, key=lambda unit: unit.count(".")) if register == "status" else units[-1]

    def replaced_at_once(self, node: str) -> dict[Place, Told]:
        """The members had come up to the province and the centre moments before: their first values are told as
        written over there."""
        if node not in (PROVINCE, CENTRE):
            return {}
        found: dict[Place, Told] = {}
        for (unit, key, register), writes in self.written.items():
            member = next(each for each in MEMBERS if (each.unit, each.id) == (unit, key))
            names = REGISTERS[register]
            first: Any = [member.entered().get(name) for name in names]
            new = next((value for writer, value in writes if writer == node), None)
            if new is not None and first[-1] is not None:
                old = first if len(names) > 1 else first[0]
                found[unit, key, register] = frozenset([(unit, as_json(old), False), (node, as_json(new), True)])
        if node == PROVINCE:
            for each in MEMBERS:
                told = frozenset([(each.unit, "true", False), (PROVINCE, "false", True)])
                found[each.unit, each.id, "languages:Nga"] = told
        return found


def may_see(node: str, place: Place) -> bool:
    return place[0].endswith(node) and not (node == CENTRE and place[2] in PRIVATE)


def gone(node: str) -> Iterator[tuple[str, str]]:
    return ((DISTRICT, Member(DISTRICT, n).id) for n in DELETED if DISTRICT.endswith(node))


def taken_back(node: str) -> Iterator[Place]:
    return ((DISTRICT, Member(DISTRICT, n).id, f"languages:{FRENCH}") for n in TAKEN_BACK if DISTRICT.endswith(node))


# --- writing ---


def enter(tree: Cluster) -> None:
    """Each district enters its own members."""
    for unit in (DISTRICT, SECOND):
        rows = [each.entered() for each in MEMBERS if each.unit == unit]
        insert_all(tree[unit], "member", rows)


def insert_all(home: Home, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(rows[0])
    places = ", ".join("?" * len(names))
    home.many(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", [tuple(row.values()) for row in rows])


def live_apart(tree: Cluster) -> Journal:
    """Everybody edits all members of their own, each at another point of the week; one deletes five."""
    journal = Journal()
    for day in range(DAYS):
        for writer in (DISTRICT, SECOND, PROVINCE, CENTRE):
            turn = [each for each in MEMBERS if writer in writers_of(each) and _turn(each, writer) == day]
            next_tick()
            _update(tree[writer], turn, writer, journal)
    district = tree[DISTRICT]
    ids = [(Member(DISTRICT, n).id,) for n in TAKEN_BACK]
    with_french, without = (as_json(sorted(each)) for each in (LANGUAGES[0] + (FRENCH,), LANGUAGES[0]))
    district.many(f"UPDATE member SET languages = '{with_french}' WHERE id = ?", ids)
    district.json("status")  # tells the digests, so it seals
    assert district.sql("SELECT count(*) FROM _pending") == [(0,)]
    district.many(f"UPDATE member SET languages = '{without}' WHERE id = ?", ids)
    district.many("DELETE FROM member WHERE id = ?", [(Member(DISTRICT, n).id,) for n in DELETED])
    return journal


def _turn(member: Member, writer: str) -> int:
    """The day on which a unit comes to a member: everybody is the last one for a third of them."""
    return (member.number + rank_of(writer)) % DAYS


def _update(home: Home, members: Iterable[Member], writer: str, journal: Journal) -> None:
    rows = []
    for each in members:
        edited = each.edit(writer)
        journal.note(each, writer, edited)
        rows.append((*edited.values(), each.unit, each.id))
    names = ", ".join(f"{name} = ?" for name in Member(DISTRICT, 1).edit(writer))
    home.many(f"UPDATE member SET {names} WHERE unit = ? AND id = ?", rows)


# --- reading what ``conflicts --json`` said ---


def told(entry: Mapping[str, Any]) -> Told:
    return frozenset((write["origin"], as_json(write["value"]), write["won"]) for write in entry["writes"])


def place_of(entry: Mapping[str, Any]) -> Place:
    return entry["unit"], entry["key"], entry["field"]


def values_told(entries: Iterable[Mapping[str, Any]]) -> set[tuple[Place, str, str]]:
    """Every value of which these entries speak: (where, origin, value)."""
    return {(place_of(each), origin, value) for each in entries for origin, value, _won in told(each)}
