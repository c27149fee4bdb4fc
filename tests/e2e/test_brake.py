"""The brake with real processes: pulled, seen, survived, taken back, released."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, until

INSERT = "INSERT INTO member (unit, id, full_name, birth_date, sex, note) VALUES (?, ?, 'Người', '1980', 'nam', 'cũ')"
ROWS = 2_500
NOTES = "SELECT note, count(*) FROM member GROUP BY note ORDER BY note"


@pytest.fixture
def full(line: Cluster) -> Cluster:
    """Some thousand members of one district at all three levels; province and centre run."""
    line[DISTRICT].many(INSERT, [(DISTRICT, f"{number:05}") for number in range(ROWS)])
    line.start(CENTRE, PROVINCE)
    line.settle(1)
    assert line[CENTRE].sql(NOTES) == [("cũ", ROWS)]
    return line


def test_an_accident_survives_a_kill_and_is_taken_back_unseen(full: Cluster) -> None:
    district, province = full[DISTRICT], full[PROVINCE]
    district.configure(on_change="true")
    district.start()
    district.sql("UPDATE member SET note = 'sai'")
    until("the brake is pulled", lambda: district.json("status")["brakes"], tail=full.tails)
    district.kill()
    told = district.dongbo("sync")
    assert "BRAKE" in told.err
    shown = district.dongbo("status").out.replace("\n", " ")
    assert f"note was changed in 2.500 of 2.500 records of {DISTRICT}" in " ".join(shown.split())
    assert province.sql(NOTES) == [("cũ", ROWS)]
    done = district.dongbo("undo", "--by", "Minh").out
    assert "2.500" in done
    assert district.sql(NOTES) == [("cũ", ROWS)]
    full.settle(1)
    assert full[CENTRE].sql(NOTES) == [("cũ", ROWS)]
    full.assert_in_step()
    told = full[CENTRE].dongbo("history", "member", "00001").out
    assert [line for line in told.splitlines() if "Minh" in line]
