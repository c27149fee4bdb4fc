"""Small facts about this node that live in its database.

Role: read and write ``_meta``.
Reach: storage tables.
"""

from __future__ import annotations

from sqlalchemy import Connection

from node.storage.engine import execute


def get_meta(connection: Connection, key: str) -> str | None:
    value: str | None = execute(connection, "SELECT value FROM _meta WHERE key = ?", (key,)).scalar()
    return value


def set_meta(connection: Connection, key: str, value: str) -> None:
    execute(
        connection,
        "INSERT INTO _meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def drop_meta(connection: Connection, key: str) -> None:
    execute(connection, "DELETE FROM _meta WHERE key = ?", (key,))
