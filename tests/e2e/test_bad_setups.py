"""A taken port, a locked home, a wrong registry, a full disk, a row over the limit: said in one line, nothing lost."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sync_engine.limits import ROW_BYTES_MAX
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, dongbo
from tests.e2e.writing import write_members

# --- ports and locks -------------------------------------------------------------------------------------------------


def test_a_taken_port_is_named_and_the_node_is_as_it_was(line: Cluster) -> None:
    province = line[PROVINCE]
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", province.port))
        taken.listen()
        answer = province.dongbo("run", code=1)
        assert f"cannot listen on 127.0.0.1:{province.port}" in answer.complaint
        assert "node.toml" in answer.err
    province.start()
    assert province.json("status")["running"]


def test_a_second_service_on_one_home_is_refused_and_the_first_goes_on(line: Cluster) -> None:
    province = line[PROVINCE]
    province.start()
    answer = province.dongbo("run", code=1)
    assert "another process works on" in answer.complaint
    assert province.json("status")["running"]


def test_a_command_on_a_home_that_another_command_works_on_is_refused_at_once(line: Cluster) -> None:
    from node.platform import HomeLock

    district = line[DISTRICT]
    with HomeLock(district.path):
        assert "another process works on" in district.dongbo("status", "--json", code=1).complaint
    assert district.json("status")["running"] is False


BAD_SETTINGS = {
    "a setting that does not exist": ("status", 'every = "2"\n', "no setting"),
    "a value of the wrong kind": ("sync", "listen = 5\n", "listen must be"),
    "not TOML at all": ("run", "unit = \n", "line"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_mistake_in_node_toml_is_named(line: Cluster, name: str) -> None:
    command, text, words = BAD_SETTINGS[name]
    path = line[DISTRICT].path / "node.toml"
    good = path.read_text(encoding="utf-8")
    path.write_text(text + "".join(each + "\n" for each in good.splitlines() if not each.startswith("listen")))
    complaint = line[DISTRICT].dongbo(command, code=1).complaint
    assert words in complaint
    assert "node.toml" in complaint


def test_a_home_without_a_node_says_so_and_stays_empty(tmp_path: Path) -> None:
    for command in ("status", "run"):
        answer = dongbo(command, "--home", str(tmp_path / "none"))
        assert (answer.code, answer.out) == (1, "")
        assert "there is no node in" in answer.complaint
    assert not (tmp_path / "none").exists()


# --- registries ------------------------------------------------------------------------------------------------------

GOOD = 'version = 1\nlevels = ["central", "province"]\n'
WRONG_REGISTRIES = {
    "not TOML": (b"version = 1\nlevels = [\n", "registry line "),
    "an unknown type": (b"%s[tables.a.fields]\nx = { type = 'colour' }\n", "registry line 4"),
    "not UTF-8": (b"%s# \xff\xfe\n", "registry line 3"),
}


@pytest.mark.parametrize("name", WRONG_REGISTRIES)
def test_a_registry_with_errors_names_the_line_and_makes_no_node(tmp_path: Path, name: str) -> None:
    text, words = WRONG_REGISTRIES[name]
    path = tmp_path / "registry.toml"
    path.write_bytes(text.replace(b"%s", GOOD.encode()))
    home = tmp_path / "home"
    answer = dongbo("init", "--unit", "vn", "--name", "Trung ương", "--registry", str(path), "--home", str(home))
    assert (answer.code, answer.out) == (1, "")
    assert words in answer.complaint
    assert not home.exists()


# --- a row over the limit --------------------------------------------------------------------------------------------


def test_a_row_over_the_limit_is_reported_and_stays_while_others_travel_until_it_is_mended(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    ids = write_members(district, 5, seed=11)
    line.start(PROVINCE, DISTRICT)
    district.sync()
    long = "x" * (ROW_BYTES_MAX + 1)
    set_note = "UPDATE member SET note = ? WHERE unit = ? AND id = ?"
    district.sql(set_note, long, DISTRICT, ids[0])
    district.sql(
        "INSERT INTO member (unit, id, full_name, birth_date, sex, note) VALUES (?, 'new', 'An', '1980', 'nam', ?)",
        DISTRICT,
        long,
    )
    district.sql(set_note, "ngắn", DISTRICT, ids[1])

    assert district.sync()["ok"]

    aside = {each["key"]: each["reason"] for each in district.json("status")["set_aside"]}
    assert aside.keys() == {ids[0], "new"}
    assert all(str(ROW_BYTES_MAX) in reason for reason in aside.values())
    assert ids[0] in district.dongbo("status").out
    there = dict(province.sql("SELECT id, note FROM member WHERE unit = ?", DISTRICT))
    assert there.keys() == set(ids)
    assert there[ids[1]] == "ngắn"
    assert there[ids[0]] != long, "the row that was there before is as it was"
    assert district.sql("SELECT count(*) FROM member WHERE note = ?", long) == [(2,)], "at home nothing is lost"

    for key in aside:
        district.sql(set_note, f"vừa {key}", DISTRICT, key)
    assert district.sync()["ok"]
    assert district.json("status")["set_aside"] == []
    there = dict(province.sql("SELECT id, note FROM member WHERE unit = ?", DISTRICT))
    assert [there[key] for key in aside] == [f"vừa {key}" for key in aside]


# --- a full disk -----------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; needs the right to mount."""
    folder.mkdir()
    tried = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)], capture_output=True
    )
    if not tried or tried.returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def fill(folder: Path, but_bytes: int = 0) -> Path:
    """Leave no more than so much room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - but_bytes))
    return filler


linux_only = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting takes root on Linux")


@linux_only
@pytest.mark.parametrize("room", [16_384, 200_000], ids=lambda room: f"{room} bytes free")
def test_init_on_a_full_disk_says_so_and_is_simply_run_again(tmp_path: Path, room: int) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        filler = fill(disk, room)
        make = ("init", "--unit", "vn", "--name", "Trung ương", "--home", str(disk / "vn"))
        answer = dongbo(*make)
        assert (answer.code, answer.out) == (1, "")
        assert "no space left" in answer.complaint.lower()
        filler.unlink()
        assert dongbo(*make).code == 0
        assert dongbo("verify", "--home", str(disk / "vn")).code == 0


@linux_only
def test_a_receiver_with_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(
    template: Cluster, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk, template.copy(disk, CENTRE, PROVINCE, DISTRICT) as tree:
        district = moved(tree, DISTRICT, tmp_path / "roomy")
        ids = write_members(district, 2_500, seed=5)
        tree.start(PROVINCE)
        filler = fill(disk, 300_000)

        failed = district.dongbo("sync", "--json", code=1)
        assert "Traceback" not in tree[PROVINCE].log, tree[PROVINCE].tail()
        assert failed.document["ok"] is False
        assert "no space left" in failed.complaint
        assert tree[PROVINCE].process is not None
        assert tree[PROVINCE].process.poll() is None
        filler.unlink()

        assert district.sync()["ok"]
        tree.homes.pop(CENTRE)
        tree.assert_in_step()
        assert tree[PROVINCE].sql("SELECT count(*) FROM member") == [(len(ids),)]
        for home in tree.homes.values():
            assert home.json("verify")["ok"]


@linux_only
def test_a_full_disk_at_the_writer_stops_the_sealing_and_not_the_service(template: Cluster, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk, template.copy(disk, DISTRICT) as tree:
        district = tree[DISTRICT]
        write_members(district, 1_000, seed=5)
        filler = fill(disk, 20_000)
        answer = district.dongbo("sync", "--json", code=1)
        assert "no space left" in answer.complaint
        filler.unlink()
        assert district.sql("SELECT count(*) FROM member") == [(1_000,)]
        assert district.json("status")["pending_changes"] >= 1_000
        assert district.json("verify")["ok"]


def moved(tree: Cluster, unit: str, folder: Path) -> Home:
    """A home carried to another disk."""
    home = tree[unit]
    shutil.move(home.path, folder)
    home.path = folder
    return home
