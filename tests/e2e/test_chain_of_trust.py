"""A relay cannot alter what a district sealed: the centre does not take it, and everything else goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from sync_engine.batch import parse_batch
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE, SECOND
from tests.e2e.processes import Cluster, Home
from tests.e2e.writing import write_members

IN_HEADER, IN_CHUNK, IN_SIGNATURE = "the header", "a chunk", "the signature"


def place(data: bytes, part: str) -> int:
    """Where in a batch's bytes a part's middle lies."""
    batch = parse_batch(data)
    inside = {
        IN_HEADER: batch.header_bytes,
        IN_CHUNK: max((chunk for section in batch.chunks for chunk in section.values()), key=len),
        IN_SIGNATURE: batch.signature,
    }[part]
    return data.index(inside) + len(inside) // 2


def flip(home: Home, unit: str, part: str) -> tuple[int, bytes]:
    """Alter one bit of the newest batch of a unit's own rows; gives its number and the bytes as they were."""
    with closing(sqlite3.connect(home.database, timeout=10)) as connection, connection:
        no, data = connection.execute(
            "SELECT _batch.no, data FROM _batch JOIN _stream ON _stream.no = _batch.stream"
            " WHERE origin = ? AND scope = ? ORDER BY seq DESC LIMIT 1",
            (unit, unit),
        ).fetchone()
        at = place(data, part)
        altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        connection.execute("UPDATE _batch SET data = ? WHERE no = ?", (altered, no))
    return int(no), bytes(data)


def count(home: Home, unit: str) -> int:
    return int(home.sql("SELECT count(*) FROM member WHERE unit = ?", unit)[0][0])


@pytest.fixture(scope="module")
def relayed(template: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Two districts' members are at the province and not yet at the centre. At rest."""
    with template.copy(tmp_path_factory.mktemp("relayed")) as made:
        made.start(PROVINCE)
        for unit, rows in ((DISTRICT, 30), (SECOND, 40)):
            write_members(made[unit], rows, seed=rows)
            made[unit].sync()
        made[PROVINCE].stop()
    return made


@pytest.mark.parametrize("part", [IN_HEADER, IN_CHUNK, IN_SIGNATURE])
def test_a_districts_batch_altered_at_the_province_is_not_taken_and_the_rest_goes_on(
    relayed: Cluster, tmp_path: Any, part: str
) -> None:
    with relayed.copy(tmp_path, CENTRE, PROVINCE) as tree:
        province, centre = tree[PROVINCE], tree[CENTRE]
        no, original = flip(province, DISTRICT, part)
        tree.start()

        answer = province.dongbo("sync", "--json", code=None, deadline_s=30)

        assert (count(centre, DISTRICT), count(centre, SECOND)) == (0, 40)
        assert answer.document["ok"] is False, "the operator of the province is told"
        assert DISTRICT in answer.document["error"]
        assert "Traceback" not in centre.log + province.log + answer.err
        assert centre.json("verify")["ok"]
        assert centre.json("status")["frozen"] == [], "only what its origin signed can be held against a stream"
        proof = province.json("verify", code=1)
        assert [(bad["origin"], bad["scope"]) for bad in proof["bad"]] == [(DISTRICT, DISTRICT)]

        province.sql("UPDATE _batch SET data = ? WHERE no = ?", original, no)
        assert province.sync()["ok"]
        assert count(centre, DISTRICT) == 30
        tree.assert_in_step()
