"""A disk is lost: the unit is built anew on other hardware, from what those above and below it hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.disasters import SOON_S, Ledger, assert_sound, key_of, make_lively, read_status, words
from tests.e2e.processes import NEVER, Cluster, Home, until

pytestmark = pytest.mark.slow


def edit_on_three_levels(line: Cluster, ledger: Ledger) -> None:
    district = line[DISTRICT]
    for number in "123":
        ledger.enter(district, number, f"Đảng viên {number}")
    ledger.edit(district, "1", "phone", "0905 111 111")
    line.assert_in_step(SOON_S)
    ledger.edit(district, "1", "note", "của huyện")
    ledger.edit(line[PROVINCE], "2", "card_number", "của thành phố")
    ledger.edit(line[CENTRE], "3", "home_town", "của trung ương")
    line.assert_in_step(SOON_S)


@pytest.mark.timeout(300)
def test_a_district_whose_disk_died_is_back_on_another_machine_with_everything(line: Cluster, tmp_path: Path) -> None:
    province, district, ledger = line[PROVINCE], line[DISTRICT], Ledger()
    make_lively(line.homes.values())
    line.start()
    edit_on_three_levels(line, ledger)
    old_key = key_of(district)
    district.kill()
    shutil.rmtree(district.path)
    ledger.edit(province, "1", "position", "sửa khi huyện không có máy")

    refused = province.dongbo("invite", "phu-vang", "--name", "Huyện Phú Vang", code=1)
    assert refused.complaint == "dongbo: phu-vang.hue.vn has a node already"
    assert "to replace a lost node, run 'dongbo invite LABEL --recover'" in words(refused.err)
    invited = province.dongbo("invite", "phu-vang", "--recover")
    token = invited.out.strip()
    assert "An invitation for phu-vang.hue.vn (Huyện Phú Vang), good once and until" in invited.err
    assert "On the machine that is to be that unit from now on: dongbo recover --from-parent TOKEN" in invited.err

    new = Home(tmp_path / "new machine", DISTRICT)
    done = new.dongbo("recover", "--from-parent", token)
    assert "phu-vang.hue.vn (Huyện Phú Vang) is back, with new keys. Its parent has recorded it." in done.out
    assert "Everything of it that its parent holds is here again." in done.out
    assert "Next: 'dongbo run'" in done.out
    line.homes[DISTRICT] = new
    ledger.assert_kept([new])
    again = Home(tmp_path / "third machine", DISTRICT).dongbo("recover", "--from-parent", token, code=1)
    assert again.complaint == "dongbo: this invitation has been used"
    assert "ask the parent unit for a new invitation" in again.err

    new.configure(**NEVER)
    make_lively([new])
    new.start()
    line.assert_in_step(SOON_S)
    ledger.edit(new, "2", "note", "ở máy mới")
    ledger.edit(line[CENTRE], "1", "cell", "trung ương sửa sau đó")
    until("new edits flow both ways", lambda: flows(line), SOON_S, line.tails)
    line.assert_in_step(SOON_S)
    ledger.assert_kept(line.homes.values())
    assert key_of(new) != old_key
    assert len(new.sql("SELECT * FROM _node_key WHERE unit = ?", DISTRICT)) == 2
    told = read_status(new)
    assert f"{PROVINCE} (127.0.0.1:{province.port}): in step" in told
    assert "to send up nothing: the parent has everything" in told
    assert "look here" not in told + read_status(province) + read_status(line[CENTRE])
    assert "let a unit's node be recovered" in words(province.dongbo("audit").out)
    assert_sound(line)


def flows(line: Cluster) -> bool:
    up = line[CENTRE].sql("SELECT note FROM member WHERE id = '2'")
    down = line[DISTRICT].sql("SELECT cell FROM member WHERE id = '1'")
    return (up, down) == ([("ở máy mới",)], [("trung ương sửa sau đó",)])


@pytest.mark.timeout(300)
def test_a_province_whose_disk_died_is_back_and_its_district_finds_it_by_itself(line: Cluster, tmp_path: Path) -> None:
    """Everything comes from the centre and from the district; nobody does anything at the district."""
    centre, province, district, ledger = line[CENTRE], line[PROVINCE], line[DISTRICT], Ledger()
    make_lively(line.homes.values())
    line.start()
    edit_on_three_levels(line, ledger)
    ledger.enter(province, "p", "Đảng viên của thành phố", unit=PROVINCE)
    line.assert_in_step(SOON_S)
    province.kill()
    shutil.rmtree(province.path)
    ledger.edit(district, "1", "position", "huyện sửa khi không có thành phố")
    ledger.edit(centre, "2", "cell", "trung ương sửa khi không có thành phố")
    failing = f"{PROVINCE} (127.0.0.1:{province.port}): failing"
    until("the district's operator reads it", lambda: failing in read_status(district), SOON_S, district.tail)

    token = centre.dongbo("invite", "hue", "--recover").out.strip()
    new = Home(tmp_path / "new machine", PROVINCE, province.port)
    done = new.dongbo("recover", "--from-parent", token, "--listen", f"127.0.0.1:{province.port}")
    assert "hue.vn (Thành phố Huế) is back, with new keys." in done.out
    line.homes[PROVINCE] = new
    make_lively([new])
    new.start()
    line.assert_in_step(SOON_S)
    ledger.assert_kept(line.homes.values())
    assert line[PROVINCE].sql("SELECT phone FROM member WHERE id = '1'") == [("0905 111 111",)], "from the district"
    assert "phu-vang.hue.vn Huyện Phú Vang in step" in read_status(new)
    assert_sound(line)
