"""A district whose line is gone for ever lives by stick, with the installed command alone; and exports that are killed.

On a FAT32 file system where this machine can make one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.disasters import Ledger, words
from tests.e2e.processes import DEADLINE_S, Cluster, Home, command, free_port, until
from tests.sticks import noise

STICK_BYTES = 64 * 1024 * 1024
WEEKS = 10
LOST_IN, KEPT_IN = 4, (2, 6)
"""In some weeks the old files stay on the stick."""


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """A plain folder, where FAT32 cannot be had."""
    folder, image = tmp_path / "stick", tmp_path / "stick.img"
    folder.mkdir()
    is_mounted = False
    if shutil.which("mkfs.vfat") and shutil.which("mount"):
        image.touch()
        os.truncate(image, STICK_BYTES)
        made = subprocess.run(["mkfs.vfat", "-F", "32", str(image)], capture_output=True)
        owner = f"loop,uid={os.getuid()}"
        asked = ["mount", "-o", owner, str(image), str(folder)]
        is_mounted = made.returncode == 0 and subprocess.run(asked, capture_output=True).returncode == 0
    yield folder
    if is_mounted:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def clear(stick: Path) -> None:
    for path in stick.iterdir():
        path.unlink()


def bundles(stick: Path) -> set[Path]:
    return set(stick.glob("*.dongbo"))


def cut_off(home: Home) -> None:
    """Nothing answers where it would call."""
    home.configure(parent_address=f'"127.0.0.1:{free_port()}"')


def export(home: Home, to: str, stick: Path) -> Path:
    """What an operator does and reads; the file that is there then."""
    before = bundles(stick)
    told = words(home.dongbo("export", "--to", to.partition(".")[0], "--out", str(stick)).out)
    [made] = bundles(stick) - before
    assert told.startswith(f"Written for {to}, batches: ")
    assert f"1. Eject the stick, and carry it to {to}." in told
    assert "3. Carry the stick back. Here: dongbo import FOLDER. Until then nothing counts as delivered." in told
    assert "If the stick is lost, run this again" in told
    return made


def take(home: Home, sender: str, stick: Path) -> Path:
    """The answer."""
    before = bundles(stick)
    done = home.dongbo("import", str(stick))
    [made] = bundles(stick) - before
    told = words(done.out)
    assert told.startswith(f"Taken in from {sender}, batches: ")
    assert f"The answer for {sender} is written, batches: " in told
    assert str(made) in told
    assert done.err == ""
    return made


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_ten_weeks_by_stick(line: Cluster, stick: Path) -> None:
    """The district enters members, the province and the centre edit them; one stick is lost."""
    district, province, centre, ledger = line[DISTRICT], line[PROVINCE], line[CENTRE], Ledger()
    centre.start(), province.start()
    cut_off(district)
    for week in range(WEEKS):
        ledger.enter(district, f"d{week}", f"Đảng viên {week}")
        if week:
            ledger.edit(district, f"d{week - 1}", "note", f"huyện, tuần {week}")
            ledger.edit(province, f"d{week - 1}", "home_town", f"tỉnh, tuần {week}")
            ledger.edit(centre, f"d{week - 1}", "position", f"trung ương, tuần {week}")
        if week == LOST_IN:
            take(district, PROVINCE, stick)
            clear(stick)
        if week in (0, LOST_IN):
            export(district, PROVINCE, stick)
        else:
            take(district, PROVINCE, stick)
        take(province, DISTRICT, stick)
        if week not in KEPT_IN:
            for path in bundles(stick) - {newest(stick)}:
                path.unlink()
        province.sync()
    clear(stick)
    export(province, DISTRICT, stick)
    take(district, PROVINCE, stick)
    take(province, DISTRICT, stick)
    province.sync()
    line.assert_in_step()
    for home in line.homes.values():
        assert home.sql("SELECT count(*) FROM member WHERE home_town <> '' AND position <> ''") == [(WEEKS - 1,)]
    ledger.assert_kept(line.homes.values())
    assert district.json("verify")["ok"]


def newest(stick: Path) -> Path:
    return max(bundles(stick), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.timeout(60)
def test_what_an_operator_reads_of_a_stick_that_is_not_right(line: Cluster, stick: Path) -> None:
    district, province, centre = line[DISTRICT], line[PROVINCE], line[CENTRE]
    province.start()
    cut_off(district)
    made = export(district, PROVINCE, stick)
    told = district.dongbo("import", str(made), code=1)
    assert told.complaint == "dongbo: this bundle is not for this unit: none of its keys opens it"
    assert "nothing of it was read; carry it to the unit that it was written for" in told.err
    told = centre.dongbo("import", str(stick), code=1)
    assert told.complaint == "dongbo: there is no bundle for vn there; files for other units: 1"
    assert "whether 'dongbo export --to vn' or 'dongbo import' was run where it comes from" in told.err

    whole = made.read_bytes()
    damaged = stick / "damaged.dongbo"
    damaged.write_bytes(whole[: len(whole) // 2])
    for home in (province, district):  # through the service, and without one
        home.json("status")
        assert home.dongbo("import", str(damaged), code=1).err.count("\n") == 2
    told = province.dongbo("import", str(damaged), code=1)
    assert told.complaint == "dongbo: this bundle is damaged, or its end is missing"
    assert "nothing of it was taken; have it written again, or copy it again" in told.err
    told = province.dongbo("import", str(stick / "none.dongbo"), code=1)
    assert told.complaint == "dongbo: there is no such file or folder"
    told = province.dongbo("import", str(stick))
    assert f"Taken in from {DISTRICT}, batches: 0, " in told.out
    assert "Nothing new has come, and the answer holds no edits" in words(told.out)
    assert told.err == "Left alone: damaged.dongbo: this bundle is damaged, or its end is missing\n"

    told = district.dongbo("export", "--to", "vn", "--out", str(stick), code=1)
    assert told.complaint == f"dongbo: vn is neither the parent nor a child of {DISTRICT}"
    told = province.dongbo("export", "--to", "phu-vang", "--out", str(stick / "no" / "file"), code=1)
    assert told.complaint == f"dongbo: there is no folder {stick / 'no'}"


def kill_export(home: Home, stick: Path, size: int) -> None:
    """SIGKILL once so much of a file is written."""
    asked = [*command(), "export", "--to", "hue", "--out", str(stick), "--home", str(home.path)]
    process = subprocess.Popen(asked, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    left = set(stick.iterdir())
    until("it writes", lambda: written(stick, left) >= size or process.poll() is not None)
    process.kill()
    assert process.wait(DEADLINE_S) < 0, "it was faster than this test"


def written(stick: Path, left: set[Path]) -> int:
    """How much of the file that is on its way is there; -1 for none."""
    try:
        return max((path.stat().st_size for path in set(stick.glob(".*.part")) - left), default=-1)
    except FileNotFoundError:
        return -1


@pytest.mark.timeout(90)
def test_an_export_that_is_killed_leaves_no_bundle_and_the_next_one_is_whole(line: Cluster, stick: Path) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    insert = "INSERT INTO member (unit, id, full_name, birth_date, sex, note) VALUES (?, ?, 'An', '1990', 'nam', ?)"
    district.many(insert, [(DISTRICT, str(at), noise(60_000, at)) for at in range(50)])
    for size in (0, 100_000, 3_000_000):
        kill_export(district, stick, size)
        assert bundles(stick) == set()
    made = export(district, PROVINCE, stick)
    assert list(stick.iterdir()) == [made], "what the killed ones left is cleared away"
    province.dongbo("import", str(stick))
    assert province.sql("SELECT count(*) FROM member") == [(50,)]
