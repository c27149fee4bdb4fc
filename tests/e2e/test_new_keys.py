"""Keys that end and keys that follow, with real processes: rotation, a clone, a node rebuilt on another machine."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from node import keys
from node.keys import KeyStore
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, until
from tests.e2e.raw import Identity, Line, Refusal, exchange, hello_from
from tests.pki import answer

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
    refused = twin.dongbo("recover", code=1)
    told = " ".join(twin.dongbo("status").out.split())
    assert "REFUSED by hue.vn: nothing leaves this machine" in told
    assert "Nothing is to be done" not in told
    assert "next call" not in told
    assert "copy of one that has gone on" in refused.err
    assert "switch one of the two machines off" in refused.err
    assert "dongbo recover --from-parent" in refused.err
    token = province.json("invite", "phu-vang", "--recover")["token"]
    kept = twin.json("recover", "--from-parent", token)
    assert kept["unit"] == DISTRICT
    assert "look here" not in twin.dongbo("status").out, "who let it back knows why it has a new key"
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


def test_a_machine_whose_place_another_has_taken_gives_and_gets_nothing(line: Cluster, tmp_path: Path) -> None:
    """A stolen machine that still runs: its key was good until the unit was recovered elsewhere."""
    province, stolen = line[PROVINCE], line[DISTRICT]
    line.start(CENTRE, PROVINCE)
    enter(stolen, "1", "Nguyễn Thị Một")
    stolen.sync()
    token = province.json("invite", "phu-vang", "--recover")["token"]
    new = Home(tmp_path / "new machine", DISTRICT)
    new.dongbo("recover", "--from-parent", token)
    enter(new, "2", "Trần Văn Hai")
    new.sync()
    enter(stolen, "3", "Kẻ Trộm")
    for _ in range(2):
        refused = stolen.dongbo("sync", code=1)
        assert "another machine has taken the place of phu-vang.hue.vn" in refused.complaint
        assert "what is entered here stays on this machine until" in refused.err
    told = " ".join(stolen.dongbo("status").out.split())
    assert "REFUSED by hue.vn: nothing leaves this machine" in told
    assert "'dongbo invite phu-vang --recover' there, then 'dongbo recover --from-parent' here" in told
    assert names(stolen) == {"Nguyễn Thị Một", "Kẻ Trộm"}
    assert names(province) == {"Nguyễn Thị Một", "Trần Văn Hai"}
    (child,) = [each for each in province.json("status")["children"] if each["unit"] == DISTRICT]
    assert child["state"] != "failing", "it is not the unit's machine that fails"
    told = " ".join(province.dongbo("status").out.split())
    assert "A former machine of phu-vang.hue.vn called at" in told
    assert "If it was stolen: dongbo revoke phu-vang.hue.vn --old-keys" in told
    revoke = ("revoke", "phu-vang", "--old-keys", "--reason", "stolen")
    assert province.dongbo(*revoke).out == "Former keys of phu-vang.hue.vn ended; the present one goes on.\n"
    assert "the former keys of phu-vang.hue.vn already revoked on" in province.dongbo(*revoke, code=1).complaint
    assert "hue.vn has ended this key" in stolen.dongbo("sync", code=1).complaint
    told = province.dongbo("status").out
    assert "A former machine" not in told
    assert "Former keys of phu-vang.hue.vn ended; the present ones go on." in told
    assert told.count("look here") == 1
    new.sync()


def test_a_revoked_unit_is_shut_out_and_comes_back_by_invitation(line: Cluster) -> None:
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    line.start(CENTRE, PROVINCE)
    enter(district, "1", "Nguyễn Thị Một")
    district.sync()
    province.sync()
    done = province.json("revoke", DISTRICT, "--reason", "the machine was stolen")
    assert done["unit"] == DISTRICT
    assert len(done["epochs"]) == 1
    enter(district, "2", "Kẻ Trộm")
    refused = district.dongbo("sync", code=1)
    assert "hue.vn has ended this key of phu-vang.hue.vn: the machine was stolen" in refused.err
    assert "ask the parent unit" in refused.err
    told = " ".join(district.dongbo("status").out.split())
    assert "REVOKED: hue.vn has ended this node's key: nothing leaves this machine" in told
    assert "next try" not in told
    province.sync()
    (child,) = [each for each in province.json("status")["children"] if each["unit"] == DISTRICT]
    assert child["state"] == "revoked"
    assert "revoked" in province.dongbo("units").out
    assert "The key of phu-vang.hue.vn was revoked: the machine was stolen" in " ".join(
        centre.dongbo("status").out.split()
    )
    assert names(centre) == names(province) == {"Nguyễn Thị Một"}
    token = province.json("invite", "phu-vang", "--recover")["token"]
    district.json("recover", "--from-parent", token)
    enter(district, "3", "Chủ Cũ")
    district.sync()
    assert names(province) == {"Nguyễn Thị Một", "Kẻ Trộm", "Chủ Cũ"}, "what the approved machine holds, it vouches for"
    (child,) = [each for each in province.json("status")["children"] if each["unit"] == DISTRICT]
    assert child["state"] != "revoked"


def test_without_its_ca_key_a_node_works_and_requests_wait_for_it(line: Cluster, tmp_path: Path) -> None:
    province, district = line[PROVINCE], line[DISTRICT]
    stick = tmp_path / "stick.key"
    (province.path / "keys" / "ca.key").rename(stick)
    line.start(CENTRE, PROVINCE)
    done = district.json("rotate")
    assert not done["certified"]
    assert "CA key is kept elsewhere" in district.dongbo("rotate").err
    enter(district, "1", "Nguyễn Thị Một")
    assert "bring the CA key" in province.dongbo("status").out
    refused = province.dongbo("invite", "huong-thuy", "--name", "Hương Thủy", code=1)
    assert "the CA key of hue.vn is not here" in refused.err
    assert province.dongbo("approve", code=1).complaint
    assert [each["unit"] for each in province.json("approve", "--ca-key", str(stick))["certified"]] == [DISTRICT]
    district.sync()
    assert "Nguyễn Thị Một" in names(province)
    assert all(epochs(province, DISTRICT).values())
    assert len(epochs(province, DISTRICT)) == 2
    province.dongbo("invite", "huong-thuy", "--name", "Hương Thủy", "--ca-key", str(stick))


async def to_its_end(talk: Line) -> None:
    while await talk.hear() is not None:
        pass


async def test_a_session_that_is_open_ends_soon_after_its_key_is_revoked(line: Cluster) -> None:
    province, district = line[PROVINCE], line[DISTRICT]
    line.start(PROVINCE)
    began = time.monotonic()
    async with exchange(province.port, PROVINCE, Identity.at(district)) as talk:
        await talk.say(hello_from(district, digest=b"\0" * 32))  # not in step: the session goes on
        assert await talk.hear() is not None
        await asyncio.to_thread(province.json, "revoke", DISTRICT, "--reason", "stolen in the night")
        with pytest.raises(Refusal, match="stolen in the night") as ended:
            await to_its_end(talk)
    assert ended.value.fault.code == "Revoked"
    assert time.monotonic() - began < 60


def test_a_second_key_is_shown_to_the_unit_itself_and_to_those_above(line: Cluster, tmp_path: Path) -> None:
    """Somebody with the province's CA key, and not its node key, certifies a node of the district."""
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    thief = Home(tmp_path / "thief", DISTRICT)
    thief.path.mkdir()
    waiting = keys.request(thief.path, DISTRICT, with_ca=False)
    stolen = KeyStore.load(province.path)
    KeyStore.install(thief.path, *answer(stolen, waiting), stolen.tree_id)
    shutil.copy(district.database, thief.database)
    shutil.copy(district.path / "node.toml", thief.path)
    line.start(CENTRE, PROVINCE)
    enter(thief, "1", "Người Giả")
    thief.dongbo("sync", code=None)
    assert epochs(province, DISTRICT)[waiting.epoch] is False
    district.sync()
    province.sync()
    assert names(province) == names(centre) == set()
    assert "SECOND KEY: somebody has certified another key in the name of this unit" in said(district)
    assert "SECOND KEY: a second key of phu-vang.hue.vn has come that the first did not sign" in said(centre)
    assert province.json("status")["quarantined"] > 0
    enter(district, "2", "Người Thật")
    district.sync()
    assert names(province) == {"Người Thật"}


def said(home: Home) -> str:
    """What status tells a person, in one line."""
    return " ".join(home.dongbo("status").out.split())


def test_keys_change_and_end_while_a_unit_works(line: Cluster) -> None:
    """Edits go on through three rotations; after the revocation not one more counts."""
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    for home in (province, district):
        home.configure(every_s="1.0", on_change="true", jitter_s="0.0")
    line.start()
    entered: list[str] = []

    def work(count: int) -> None:
        for _ in range(count):
            entered.append(f"Người {len(entered)}")
            enter(district, str(len(entered)), entered[-1])
            time.sleep(0.02)

    for home in (province, centre, district):
        work(15)
        assert home.json("rotate")["certified"], home.tail()
    work(15)
    until("all of it is at the centre", lambda: names(centre) == set(entered), tail=line.tails)
    province.dongbo("revoke", DISTRICT, "--reason", "stolen")
    enter(district, "999", "Kẻ Trộm")
    until("the district is told", lambda: "has ended this key" in district.log, tail=line.tails)
    assert names(centre) == names(province) == set(entered)
    stopped = {home.unit: home.stop() for home in (district, province, centre)}
    assert len(stopped) == 3
