"""A program that knows nothing of dongbo and writes its tables with plain SQL, as any clerk's program would.

Role: ``python -m node.demo.writer`` takes one job as JSON on standard input, does it, and says as JSON what it did.
Reach: Python's own sqlite3 and the made-up members. Invariant: nothing of the node is imported: what is captured here
is captured from everybody.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from node.demo.members import FIELDS, Row, members

BUSY_S = 5.0
"""How long to wait for another writer's turn. The node's own turns stay under 200 ms."""

ROWS_AT_ONCE = 500


def fill(connection: sqlite3.Connection, job: dict[str, Any]) -> int:
    """Insert made-up members of one unit, some hundreds a transaction."""
    columns = ", ".join(("unit", *FIELDS))
    marks = ", ".join("?" * (len(FIELDS) + 1))
    rows: Iterator[Row] = members(job["members"], seed=job["seed"], communes=job["communes"], province=job["province"])
    count = 0
    while some := list(islice(rows, ROWS_AT_ONCE)):
        with connection:
            connection.executemany(
                f"INSERT INTO member ({columns}) VALUES ({marks})", [(job["unit"], *row) for row in some]
            )
        count += len(some)
    return count


def main() -> None:
    """One job: ``members`` of a unit, or one ``sql`` statement with its ``values``."""
    job = json.load(sys.stdin)
    with closing(sqlite3.connect(job["database"], timeout=BUSY_S)) as connection:
        if "members" in job:
            rows = fill(connection, job)
        else:
            with connection:
                rows = connection.execute(job["sql"], job["values"]).rowcount
    json.dump({"rows": rows, "at": time.time_ns() // 1_000_000}, sys.stdout)


if __name__ == "__main__":
    main()
