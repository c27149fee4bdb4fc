"""An administrator puts an old image of a home back: at the district, at the province, at both, at the centre.

Everybody had gone on; in the restored home somebody edits before it meets anybody; and nobody understands any of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.disasters import (
    SOON_S,
    Ledger,
    assert_sound,
    events,
    image_of,
    key_of,
    make_lively,
    put_back,
    read_status,
    words,
)
from tests.e2e.processes import Cluster, Home, until

pytestmark = pytest.mark.slow

PERSONS = {CENTRE: "trung ương", PROVINCE: "thành phố", DISTRICT: "huyện"}
FIELDS = {CENTRE: "home_town", PROVINCE: "position", DISTRICT: "cell"}
"""Each level has a field of its own to edit, and beside it all write to the same note."""


def live_first_life(line: Cluster, ledger: Ledger, *, phone: bool) -> None:
    """After the image was made: everybody edits, and all of it goes everywhere."""
    for unit, who in PERSONS.items():
        ledger.edit(line[unit], "1", FIELDS[unit], f"{who}, sau khi sao")
        ledger.enter(line[unit], f"{who} 1", f"Người của {who}")
        line.assert_in_step(SOON_S)
        ledger.edit(line[unit], f"{who} 1", "note", f"{who} ghi, sau khi sao")
    if phone:
        ledger.edit(line[DISTRICT], "1", "phone", "0905 111 111")
    line.assert_in_step(SOON_S)


def edit_before_anybody_is_met(home: Home, ledger: Ledger) -> None:
    """A fork: sealed at places of streams at which everybody else holds something else; and more is pending."""
    who, known = PERSONS[home.unit], held(home)
    ledger.edit(home, "1", FIELDS[home.unit], f"{who}, trong bản cũ")
    ledger.enter(home, f"{who} 2", f"Người mới của {who}")
    assert home.json("verify")["ok"]  # who looks whether the image is sound has sealed what was pending
    assert home.sql("SELECT count(*) FROM _pending") == [(0,)]
    assert held(home) > known
    ledger.edit(home, "2", FIELDS[home.unit], f"{who}, chưa niêm")
    ledger.edit(home, f"{who} 2", "note", f"{who} ghi, chưa niêm")
    assert home.sql("SELECT count(*) FROM _pending")[0][0] > 0


def held(home: Home) -> int:
    return int(home.sql("SELECT count(*) FROM _batch")[0][0])


CASES = {
    "the district's": (DISTRICT,),
    "the province's": (PROVINCE,),
    "both": (DISTRICT, PROVINCE),
    "the centre's": (CENTRE,),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("restored", CASES.values(), ids=CASES)
def test_an_old_image_is_put_back_and_nothing_of_either_life_is_lost(
    line: Cluster, tmp_path: Path, restored: tuple[str, ...]
) -> None:
    ledger = Ledger()
    make_lively(line.homes.values())
    line.start()
    for number in "12":
        ledger.enter(line[DISTRICT], number, f"Đảng viên {number}")
    line.assert_in_step(SOON_S)
    stop(line)
    images = {unit: image_of(line[unit], tmp_path) for unit in restored}
    line.start()
    live_first_life(line, ledger, phone=len(restored) == 1)
    stop(line)

    before = {unit: key_of(line[unit]) for unit in line.homes}
    for unit in restored:
        put_back(line[unit], images[unit])
        assert "sau khi sao" not in str(line[unit].sql("SELECT * FROM member"))
        edit_before_anybody_is_met(line[unit], ledger)
    for unit in line.homes.keys() - set(restored):
        ledger.edit(line[unit], "2", "note", f"{PERSONS[unit]} ghi khi không ai nghe")
    line.start()
    until("new keys are certified", lambda: all(key_of(line[each]) != before[each] for each in restored), SOON_S)
    line.assert_in_step(SOON_S)

    ledger.assert_kept(line.homes.values())
    for unit, who in PERSONS.items():
        ledger.edit(line[unit], "2", "birth_place" if unit == CENTRE else "other_name", f"{who}, về sau")
        line.assert_in_step(SOON_S)
    assert {unit for unit in line.homes if key_of(line[unit]) != before[unit]} == set(restored)
    for home in line.homes.values():
        told, began = read_status(home), events(home, "a new life begins")
        assert len(began) == (1 if home.unit in restored else 0), began
        assert ("this machine went on from an older copy of itself" in told) == (home.unit in restored)
        assert "stopped" not in told
        assert f"{DISTRICT} Huyện Phú Vang district has a node" in words(home.dongbo("units").out)
    assert_sound(line)


def stop(line: Cluster) -> None:
    for unit in (DISTRICT, PROVINCE, CENTRE):
        line[unit].stop(60)
