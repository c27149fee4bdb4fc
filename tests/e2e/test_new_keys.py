"""Keys that end and keys that follow, with real processes: rotation, a clone, a node rebuilt on another machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from node.keys import KeyStore
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home

INSERT = "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, ?, '1990', 'nam')"


def enter(home: Home, key: str, name: str) -> None:
    home.sql(INSERT, home.unit, key, name)


def names(home: Home) -> set[str]:
    return {name for (name,) in home.sql("SELECT full_name FROM member")}


def epochs(home: Home, unit: str) -> dict[str, bool]:
    """The epochs of a unit that a node knows, and whether it accepts them."""
    return {epoch: bool(yes) for epoch, yes in home.sql("SELECT epoch, accepted FROM _node_key WHERE unit = ?", unit)}


def test_a_key_is_changed_without_a_restart_and_everybody_accepts_it(line: Cluster) -> None:
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    line.start(CENTRE, PROVINCE)
    enter(district, "1", "Nguyễn Thị Một")
    district.sync()
    old = KeyStore.load(province.path).epoch
    done = province.json("rotate")
    assert done["certified"], province.tail()
    new = KeyStore.load(province.path).epoch
    assert done["epoch"] == new != old
    enter(province, "2", "Trần Văn Hai")  # under the new key, by the same process
    district.sync()  # its handshake meets the new certificate
    province.sync()
    district.sync()
    assert epochs(centre, PROVINCE) == epochs(district, PROVINCE) == {old: True, new: True}
    assert names(centre) == names(province) == {"Nguyễn Thị Một", "Trần Văn Hai"}
    line.assert_in_step()


def test_the_root_changes_its_key_by_itself(line: Cluster) -> None:
    centre, province = line[CENTRE], line[PROVINCE]
    line.start(CENTRE)
    old = KeyStore.load(centre.path).epoch
    done = centre.json("rotate")
    assert done["certified"]
    enter(centre, "1", "Lê Thị Ba")
    province.sync()
    centre.sql("UPDATE member SET full_name = 'Lê Thị Ba Một' WHERE id = '1'")
    province.sync()
    assert epochs(province, CENTRE) == {old: True, done["epoch"]: True}


def copy_of(home: Home, folder: Path) -> Home:
    shutil.copytree(home.path, folder)
    return Home(folder, home.unit)


def test_of_a_home_that_runs_twice_one_goes_on_and_the_other_is_told_how(line: Cluster, tmp_path: Path) -> None:
    province, district = line[PROVINCE], line[DISTRICT]
    line.start(CENTRE, PROVINCE)
    twin = copy_of(district, tmp_path / "twin")
    assert district.json("rotate")["certified"]
    refused = twin.dongbo("rotate", code=1)
    assert "copy of one that has gone on" in refused.err
    assert "switch one of the two machines off" in refused.err
    assert "dongbo recover --from-parent" in refused.err
    token = province.json("invite", "phu-vang", "--recover")["token"]
    kept = twin.json("recover", "--from-parent", token)
    assert kept["unit"] == DISTRICT
    enter(twin, "7", "Phạm Văn Bảy")
    twin.sync()
    assert "Phạm Văn Bảy" in names(province)
    assert all(epochs(province, DISTRICT).values())
    refused = district.dongbo("rotate", code=1)
    assert "copy of one that has gone on" in refused.err


def test_a_lost_node_is_built_anew_on_another_machine(line: Cluster, tmp_path: Path) -> None:
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    line.start(CENTRE, PROVINCE)
    enter(district, "1", "Nguyễn Thị Một")
    district.sync()
    shutil.rmtree(district.path)
    refused = province.dongbo("invite", "phu-vang", "--name", "Phú Vang", code=1)
    assert "invite LABEL --recover" in refused.err
    token = province.json("invite", "phu-vang", "--recover")["token"]
    rebuilt = Home(tmp_path / "rebuilt", DISTRICT)
    rebuilt.dongbo("recover", "--from-parent", token)
    line.homes[DISTRICT] = rebuilt
    rebuilt.sync()
    province.sync()
    rebuilt.sync()
    assert len(epochs(centre, DISTRICT)) == 2
    assert all(epochs(centre, DISTRICT).values())
    assert rebuilt.sql("SELECT name FROM _unit WHERE unit = ?", DISTRICT) == centre.sql(
        "SELECT name FROM _unit WHERE unit = ?", DISTRICT
    )
