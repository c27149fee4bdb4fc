"""The kill at the k-th SQL statement: just before it, and where it ends a transaction just after it, too.

After any other statement nothing differs, on disk or on the pipe, from just before the next.

Role: a driver connection that counts the places where its process may die.
Reach: sqlcipher3. Invariant: installed in the dying process alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import sqlcipher3.dbapi2

ENDS = ("COMMIT", "ROLLBACK")
WORDS = 100
"""So much of a statement is shown in a trace."""


class Fuse:
    """Counts places; dies at the k-th. ``k`` None: only counts."""

    def __init__(self, k: int | None, say: Callable[[str], None] | None = None) -> None:
        self.k, self.count, self.armed = k, 0, False
        self._say = say

    def place(self, what: str) -> None:
        if not self.armed:
            return
        self.count += 1
        if self._say is not None:
            self._say(f"{self.count:5} {' '.join(what.split())[:WORDS]}")
        if self.count == self.k:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """From now on every connection of this process has this fuse."""
        fuse, connect = self, sqlcipher3.dbapi2.connect

        class Cursor(sqlcipher3.dbapi2.Cursor):
            def execute(self, sql: str, *parameters: Any) -> Any:
                found = super().execute(sql, *parameters)
                if sql.startswith(ENDS):
                    fuse.place(f"after {sql}")
                return found

        class Connection(sqlcipher3.dbapi2.Connection):
            def cursor(self, *_factory: Any) -> Any:
                return super().cursor(Cursor)

            def execute(self, sql: str, *parameters: Any) -> Any:
                return self.cursor().execute(sql, *parameters)

            def commit(self) -> None:
                super().commit()
                fuse.place("after COMMIT")

            def rollback(self) -> None:
                super().rollback()
                fuse.place("after ROLLBACK")

        def before(sql: str) -> None:
            if not sql.startswith("--"):  # a part of a trigger: within a statement, nothing has reached a file
                fuse.place(f"before {sql}")

        def watched(*args: Any, **options: Any) -> Any:
            connection = connect(*args, **{**options, "factory": Connection})
            connection.set_trace_callback(before)
            return connection

        sqlcipher3.dbapi2.connect = watched
