"""A digest computed before more was applied, and remembered after it, does not stand for the newer state."""

from __future__ import annotations

from pathlib import Path

from node.storage.digests import digest_scope, remember
from node.storage.engine import execute
from tests.world import World

DISTRICT = "phu-vang.hue.vn"
INSERT = "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, 'Trần An', '1970', 'nam')"


def test_a_digest_remembered_after_more_was_applied_is_not_taken_for_the_newer_state(tmp_path: Path) -> None:
    node = World(tmp_path).node(DISTRICT)
    node.sql(INSERT, DISTRICT, "1")
    node.seal()
    with node.read() as connection:
        early = digest_scope(connection, node.context, DISTRICT)
    node.sql(INSERT, DISTRICT, "2")
    node.seal()
    with node.write() as connection:
        remember(connection, node.context, early)
    with node.read() as connection:
        now = digest_scope(connection, node.context, DISTRICT)
    with node.write() as connection:
        execute(connection, "DELETE FROM _digest")
        afresh = digest_scope(connection, node.context, DISTRICT)
    assert now == afresh
    assert now.columns != early.columns
