"""The province is killed in mid-sync, ten times at random points, and all levels still end equal."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from random import Random

import pytest

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE, SECOND
from tests.e2e.processes import Cluster, Home, until
from tests.e2e.writing import write_members

SEED = 20261124
KILLS = 10
ROWS_FIRST, ROWS_EACH = 2_000, 100  # at each district: before the first kill, and before each
MID_SYNC_MIN = 7
"""Of ten kills so many must fall while a neighbour still lacks something, or the test has proven nothing."""


def held(home: Home) -> int:
    """How many batches a node has stored, read beside its service."""
    with closing(sqlite3.connect(home.database, timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM _batch").fetchone()[0])


HIDDEN = ("citizen_id", "phone", "email", "marital_status", "health")
"""Fields that only the levels up to the province read."""


def everyone(home: Home, unit: str) -> dict[str, dict[str, object]]:
    """One unit's members as a node's table shows them, without what the centre may not read."""
    with closing(sqlite3.connect(home.database, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM member WHERE unit = ?", (unit,))]
    private = [row.pop(name) for row in rows for name in HIDDEN]
    assert home.unit != CENTRE or not any(private)
    return {str(row["id"]): row for row in rows}


def edit_everywhere(tree: Cluster, rng: Random, ids: dict[str, list[str]], turn: int) -> None:
    """New members and edits at the districts, edits of the same members at the centre: both directions have work."""
    for unit in (DISTRICT, SECOND):
        ids[unit] += write_members(tree[unit], ROWS_EACH, seed=1000 * (turn + 1) + len(unit))
        chosen = [(f"Thôn {turn}", unit, key) for key in rng.sample(ids[unit][:ROWS_FIRST], 40)]
        tree[unit].many("UPDATE member SET home_town = ? WHERE unit = ? AND id = ?", chosen)
        there = [str(key) for (key,) in tree[CENTRE].sql("SELECT id FROM member WHERE unit = ? LIMIT 500", unit)]
        chosen = [(f"Ghi chú {turn}", unit, key) for key in rng.sample(there, min(40, len(there)))]
        tree[CENTRE].many("UPDATE member SET note = ? WHERE unit = ? AND id = ?", chosen)


@pytest.mark.timeout(180)
def test_a_province_killed_ten_times_in_mid_sync_loses_nothing_and_all_levels_end_equal(tree: Cluster) -> None:
    rng = Random(SEED)
    province = tree[PROVINCE]
    for home in tree.homes.values():
        home.configure(every_s="0.8", jitter_s="0.1", backoff_max_s="0.5", on_change="true", brake_percent="100")
    ids = {unit: write_members(tree[unit], ROWS_FIRST, seed=len(unit)) for unit in (DISTRICT, SECOND)}
    tree.start(CENTRE, DISTRICT, SECOND)

    in_mid_sync = 0
    for turn in range(KILLS):
        edit_everywhere(tree, rng, ids, turn)
        before = held(province)
        province.spawn()
        until("something new has come to the province", lambda least=before: held(province) > least, tail=tree.tails)
        time.sleep(rng.uniform(0, 0.4))
        province.kill()
        known = {unit: held(home) for unit, home in tree.homes.items()}
        in_mid_sync += known[PROVINCE] != known[CENTRE] or any(
            tree[unit].sql("SELECT 1 FROM _pending LIMIT 1") or known[unit] > reached(province, unit)
            for unit in (DISTRICT, SECOND)
        )
    assert in_mid_sync >= MID_SYNC_MIN, f"only {in_mid_sync} kills of seed {SEED} fell into a session"

    province.start()
    tree.assert_in_step(deadline_s=60)
    for unit in (DISTRICT, SECOND):
        own = everyone(tree[unit], unit)
        assert own.keys() == set(ids[unit])
        for above in (PROVINCE, CENTRE):
            assert everyone(tree[above], unit) == own
    for home in tree.homes.values():
        proof = home.json("verify")
        assert proof["ok"], proof["bad"]
        assert "Traceback" not in home.log, home.tail()


def reached(province: Home, unit: str) -> int:
    """How many batches the province holds of what travels between it and one district."""
    scopes = (unit, "vn/registry", "vn/catalog")
    marks = ", ".join("?" * len(scopes))
    sql = f"SELECT count(*) FROM _batch JOIN _stream ON _stream.no = _batch.stream WHERE scope IN ({marks})"
    return int(province.sql(sql, *scopes)[0][0])
