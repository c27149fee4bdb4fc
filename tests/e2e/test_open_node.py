"""What a node does by itself once it is open: as its settings say, and when a code is entered at it."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection

from node.config import path_of
from node.local import Node
from node.storage.engine import execute
from tests.e2e.conftest import CENTRE
from tests.e2e.processes import Cluster


def sql(connection: Connection, statement: str) -> list[tuple[Any, ...]]:
    result = execute(connection, statement)
    return [tuple(row) for row in result] if result.returns_rows else []


async def test_what_the_journal_keeps_and_notes_is_as_node_toml_says(line: Cluster) -> None:
    settings = path_of(line[CENTRE].path)
    text = settings.read_text(encoding="utf-8")
    assert ("journal_days = 400" in text, "overwritten_hours = 24" in text) == (True, True)
    assert ("heartbeat_hours = 24" in text, "withheld_hours = 24" in text) == (True, True)
    changes = {"journal_days": 30, "overwritten_hours": 2, "heartbeat_hours": 6, "withheld_hours": 12}
    for key, value in changes.items():
        text = re.sub(rf"(?m)^{key} = \d+", f"{key} = {value}", text)
    settings.write_text(text, encoding="utf-8")
    node = await Node.open(line[CENTRE].path)
    try:
        assert (node.context.journal_days, node.context.overwritten_hours) == (30, 2)
        assert (node.context.heartbeat_hours, node.context.withheld_hours) == (6, 12)
    finally:
        await node.close()


async def test_a_code_that_is_entered_here_lets_in_what_waited_for_it_without_any_call(line: Cluster) -> None:
    node = await Node.open(line[CENTRE].path)
    shown = "SELECT occupation FROM member WHERE id = 'x'"
    try:
        await node.database.write(
            sql,
            "INSERT INTO member (unit, id, full_name, birth_date, sex, occupation)"
            f" VALUES ('{CENTRE}', 'x', 'Lê Văn Mẫu', '1960', 'nam', 'phi-hanh-gia')",
        )
        await node.seal()
        assert await node.database.read(sql, shown) == [(None,)]
        await node.database.write(
            sql,
            f"INSERT INTO catalog (unit, id, kind, code) VALUES ('{CENTRE}', 'y', 'profession', 'phi-hanh-gia')",
        )
        await node.seal()
        assert await node.database.read(sql, shown) == [("phi-hanh-gia",)]
    finally:
        await node.close()
