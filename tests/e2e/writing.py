"""Synthetic members as a program at a district would write them."""

from __future__ import annotations

from node.demo.members import FIELDS, members
from tests.e2e.processes import Home

INSERT = f"INSERT INTO member (unit, {', '.join(FIELDS)}) VALUES ({', '.join('?' * (len(FIELDS) + 1))})"


def write_members(home: Home, count: int, *, seed: int, at_once: int = 1000) -> list[str]:
    """Insert members of the home's own unit; returns their ids."""
    rows = [(home.unit, *row) for row in members(count, seed=seed, communes=["Phú Mỹ", "Vinh An"], random_ids=True)]
    for start in range(0, count, at_once):
        home.many(INSERT, rows[start : start + at_once])
    return [str(row[1]) for row in rows]
