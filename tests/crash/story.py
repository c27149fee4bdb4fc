"""What is edited, and what must come of it: the data of every step, and its model in a few lines.

Role: local transactions as (verb, table, unit, id, values), the edits that come from above, and what the tables hold
after any part of them. Reach: the standard library; nothing of the product. Invariant: every part of the story changes
something that can be seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

ROOT, PARENT, UNIT, CHILD = "vn", "hue.vn", "phu-vang.hue.vn", "vinh-an.phu-vang.hue.vn"

Key = tuple[str, str, str]
"""(table, unit, id)."""
Rows = dict[Key, dict[str, Any]]
Notes = dict[Key, set[tuple[str, ...]]]
"""By key: ("I",), ("D",), ("B",) and ("E", registers...)."""
Op = tuple[str, str, str, str, dict[str, Any]]

UNIONS = {"languages", "introducers", "badges"}
REGISTERS = {"full_name": "identity", "birth_date": "identity", "reviewed_on": "review", "reviewed_by": "review"}
"""Fields that are merged in groups; all others stand alone."""


def person(name: str, **more: Any) -> dict[str, Any]:
    return {"full_name": f"Nguyễn Văn {name}", "birth_date": "1950-02", "sex": "nam", **more}


BASE: list[Op] = [
    ("INSERT", "member", UNIT, "1", person("Một", status="probationary")),
    ("INSERT", "member", UNIT, "2", person("Hai", note="to be deleted above")),
    ("INSERT", "member", UNIT, "3", person("Ba", languages='["en"]')),
    ("INSERT", "member", UNIT, "4", person("Bốn")),
    ("INSERT", "member", UNIT, "5", person("Năm", note="five")),
    ("INSERT", "member", UNIT, "6", person("Sáu", note="to be deleted here")),
    ("INSERT", "member", CHILD, "7", person("Bảy")),
    ("INSERT", "member", CHILD, "8", person("Tám", phone="0900000008")),
]

LOCAL: list[list[Op]] = [
    [
        ("UPDATE", "member", UNIT, "1", {"status": "exempt", "phone": "0900000001"}),
        ("INSERT", "member", UNIT, "9", person("Chín", languages='["vi"]')),
        ("DELETE", "member", UNIT, "6", {}),
    ],
    [
        ("REPLACE", "member", UNIT, "3", person("Ba Hai", languages='["en", "fr"]')),
        ("INSERT", "member", UNIT, "10", person("Mười")),
        ("DELETE", "member", UNIT, "10", {}),
        ("UPDATE", "member", CHILD, "7", {"note": "below", "reviewed_on": "2027-01-02", "reviewed_by": "B"}),
    ],
    [
        ("UPSERT", "member", CHILD, "8", {**person("Tám"), "note": "upserted"}),
        ("INSERT", "catalog", UNIT, "cell-1", {"kind": "cell", "code": "1", "label": "Chi bộ 1"}),
        ("UPDATE", "member", UNIT, "5", {"note": "five, edited here"}),
        ("REPLACE", "member", UNIT, "11", person("Mười Một")),
    ],
]
"""The transactions of a local program: what *capture* does, and what the other steps find pending."""


@dataclass(frozen=True)
class Coming:
    """One batch from above: its edits, and what is seen of it in the end, whatever came first."""

    origin: str
    ops: list[Op]
    shown: dict[Key, dict[str, Any] | None] = field(default_factory=dict)
    unrivalled: dict[Key, dict[str, Any] | None] = field(default_factory=dict)
    """And what is seen where the local edits are not."""


def _member(key: str) -> Key:
    return ("member", UNIT, key)


COMING: list[Coming] = [
    Coming(
        PARENT,
        [
            ("UPDATE", "member", UNIT, "1", {"status": "official"}),  # a superior's, against the local edit
            ("UPDATE", "member", UNIT, "3", {"full_name": "Nguyễn Văn Ba Trên"}),  # to be reviewed
            ("UPDATE", "member", UNIT, "4", {"note": "from above"}),
        ],
        {_member("1"): {"status": "official"}, _member("4"): {"note": "from above"}},
    ),
    Coming(
        PARENT,
        [("DELETE", "member", UNIT, "2", {}), ("DELETE", "member", UNIT, "5", {})],  # 5 is edited here: both are kept
        {_member("2"): None},
        {_member("5"): None},
    ),
    Coming(
        ROOT,
        [("UPDATE", "member", UNIT, "4", {"note": "from the top", "position": "secretary"})],
        {_member("4"): {"note": "from the top", "position": "secretary"}},
    ),
]
"""In the order in which they were made; the last has seen the others."""

ARRIVAL = [2, 0, 1]
"""How *apply* is given them: the last comes first, and waits."""


def play(rows: Rows, ops: Iterable[Op]) -> tuple[Rows, Notes]:
    """The model: rows after some operations, and the notes that capture owes."""
    rows = {key: dict(row) for key, row in rows.items()}
    notes: Notes = {}
    for verb, table, unit, identifier, values in ops:
        key = (table, unit, identifier)
        noted = notes.setdefault(key, set())
        old = rows.get(key)
        if verb == "DELETE":
            del rows[key]
            noted.add(("D",))
            continue
        new = {**values} if verb == "REPLACE" or old is None else {**old, **values}
        rows[key] = new
        if old is None:
            noted.add(("I",))
            continue
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if changed & UNIONS:
            noted.add(("B",))
        noted.add(("E", *sorted({REGISTERS.get(name, name) for name in changed})))
    return rows, notes


def merged(*notes: Notes) -> Notes:
    found: Notes = {}
    for each in notes:
        for key, kinds in each.items():
            found.setdefault(key, set()).update(kinds)
    return found


def states() -> list[tuple[Rows, Notes]]:
    """Rows and notes after each of the local transactions, from none to all."""
    found = [(play({}, BASE)[0], Notes())]
    for ops in LOCAL:
        rows, notes = play(found[-1][0], ops)
        found.append((rows, merged(found[-1][1], notes)))
    return found


STATES = states()
NOTES: Notes = STATES[-1][1]


def scope_of(key: Key) -> str:
    table, unit, _ = key
    return f"{unit}/catalog" if table == "catalog" else unit


OWN_SCOPES = sorted({scope_of(key) for key in NOTES})
UNDECIDED = {("member", UNIT, "3"): {"full_name"}}
"""Cells whose value shown may be either side's: what policies decide is tested elsewhere."""


SEALED = {UNIT: 1, CHILD: 2, f"{UNIT}/catalog": 0}
"""The number of the last batch of each own stream before the local edits; the next holds all of them."""
ENTRIES = {
    scope: sum(scope_of(key) == scope and kinds != {("I",), ("D",)} for key, kinds in NOTES.items())
    for scope in OWN_SCOPES
}
"""How many entries that next batch has: a row that came and went has none."""


def after(is_applied: Callable[[int], bool], has_local: Callable[[str], bool]) -> Rows:
    """The rows that a node shows, given which of ``COMING`` are applied and in which scopes the local edits are."""
    rows: Rows = {}
    for at in (0, -1):
        local = {key: dict(row) for key, row in STATES[at][0].items() if has_local(scope_of(key)) == (at == -1)}
        rows.update(local)
    for number, coming in enumerate(COMING):
        if is_applied(number):
            changes = coming.shown if has_local(UNIT) else {**coming.shown, **coming.unrivalled}
            for key, change in changes.items():
                if change is None:
                    rows.pop(key, None)
                else:
                    rows[key] = {**rows[key], **change}
    return rows


def comparable(rows: Rows) -> Rows:
    """Without undecided cells; sets as sets."""
    found: Rows = {}
    for key, row in rows.items():
        kept = {name: value for name, value in row.items() if name not in UNDECIDED.get(key, ())}
        found[key] = {name: sorted(json.loads(v)) if name in UNIONS else v for name, v in kept.items()}
    return found


WORDS = sorted(
    {
        str(value)
        for ops in ([*BASE], *LOCAL, *(each.ops for each in COMING))
        for *_, values in ops
        for value in values.values()
        if len(str(value)) > 4
    }
)
"""Personal data: no error may contain any of it."""
