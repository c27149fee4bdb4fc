"""The demo: five real processes tell a story, and it ends well only if everything is so."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from node.demo.members import FIELDS, members
from node.demo.tree import DemoFailed, Tree, end_kept, make_folder, process, together
from node.demo.watch import columns_compared, differences, restless
from node.figures import day, decimal, number, size

MEMBERS = 60
LONGEST_S = 90.0
SOON_S = 20.0
DEMO = [sys.executable, "-P", "-m", "node", "demo", "--members", str(MEMBERS)]


def children_of(folder: Path) -> list[psutil.Process]:
    """Processes that work on homes in a folder."""
    found = []
    for each in psutil.process_iter(["cmdline"]):
        if any(part.startswith(f"{folder}{os.sep}") for part in each.info["cmdline"] or []):
            found.append(each)
    return found


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "demo"
    yield folder
    for each in children_of(folder):
        each.kill()


# --- the whole of it


def test_the_demo_shows_what_it_promises_and_leaves_nothing(homes: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--homes", str(homes)], capture_output=True, text=True, timeout=LONGEST_S, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout
    assert "\x1b" not in told
    assert "Huyện Phú Vang" in told
    assert re.search(r"transferred +Thành phố Huế +\d\d:\d\d:\d\d +won", told)
    assert re.search(r"exempt +Huyện Phú Vang +\d\d:\d\d:\d\d +lost", told)
    assert "'superior'" in told
    assert re.search(r"members of Huyện Phú Vang +30 +[0-9a-f]{12} +phu-vang = hue = vn", told)
    assert re.search(rf"^ +{MEMBERS - 1} members were read from the tables", told, re.MULTILINE)
    assert re.search(r"^All as promised, after \d+,\d s\.$", told, re.MULTILINE)
    assert len(set(re.findall(r"It is conflict (\d+) in the journals", told))) == 2
    assert not homes.exists()
    assert children_of(homes) == []


def test_a_demo_that_is_stopped_ends_its_services_and_leaves_nothing(homes: Path) -> None:
    demo = subprocess.Popen([*DEMO, "--homes", str(homes)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + SOON_S
        while not any("run" in each.cmdline() for each in children_of(homes)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        demo.send_signal(signal.SIGTERM)
        _, errors = demo.communicate(timeout=SOON_S)
    finally:
        demo.kill()
        demo.communicate()
    assert demo.returncode == 1
    assert errors == "Stopped before its end; the services have ended.\n"
    assert not homes.exists()
    assert children_of(homes) == []


# --- a child that fails is told, not waited for


def test_a_service_that_ends_by_itself_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    tree = Tree.planned(tmp_path)
    tree.root.home.mkdir()
    tree.root.log.write_text("first line\nthe disk is gone\n")
    tree.root.process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    tree.root.process.wait(SOON_S)
    with pytest.raises(DemoFailed, match="Trung ương") as failed:
        tree.check()
    assert "the disk is gone" in failed.value.hint


def test_a_command_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "node", "status", "--home", str(tmp_path)]
    with pytest.raises(DemoFailed, match="'node status' failed") as failed:
        asyncio.run(process(command))
    assert "there is no node" in failed.value.hint


def test_a_command_that_never_ends_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", "import time; time.sleep(600)", str(tmp_path / "marker")]
    with pytest.raises(DemoFailed, match="did not end within"):
        asyncio.run(process(command, within_s=0.5))
    assert children_of(tmp_path) == []


def test_when_one_of_several_fails_the_others_are_called_off() -> None:
    async def fail() -> None:
        raise DemoFailed("no")

    async def go_on() -> None:
        await asyncio.Event().wait()

    async def both() -> None:
        await asyncio.wait_for(together(go_on(), fail()), SOON_S)

    with pytest.raises(DemoFailed):
        asyncio.run(both())


# --- other people's files


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DemoFailed, match="not empty"):
        make_folder(tmp_path)
    with pytest.raises(DemoFailed, match="no demo"):
        end_kept(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


def test_the_number_of_a_process_that_no_longer_holds_its_home_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "hue").mkdir(parents=True)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (folder / "demo.json").write_text(f'{{"hue": {bystander.pid}}}')
        assert end_kept(folder) == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(SOON_S)
    assert not folder.exists()


# --- agreement

SCOPE = {"scope": "hue.vn", "rows": 2, "digest": "aa", "heads": {"hue.vn@1": 1}, "digests": {"m.name": "bb"}}


def report(**changed: Any) -> dict[str, Any]:
    """What one node says that is at rest and holds one scope."""
    quiet = dict.fromkeys(("pending_changes", "unsent_batches", "waiting_batches", "held"), 0)
    return {**quiet, "frozen": [], "scopes": [{**SCOPE, **changed}]}


def reports(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {"vn": above, "hue.vn": below}


DIFFERING = {
    "the digest": ({"digest": "ab"}, "digest"),
    "the number of rows": ({"rows": 1}, "rows"),
    "the heads": ({"heads": {}}, "heads"),
    "a column that both hold": ({"digests": {"m.name": "bc", "m.phone": "dd"}}, "m.name"),
}


@pytest.mark.parametrize(("changed", "what"), DIFFERING.values(), ids=DIFFERING)
def test_a_difference_is_seen_and_named(changed: dict[str, Any], what: str) -> None:
    assert differences(reports(report(), report(**changed))) == [f"hue.vn: hue.vn and vn differ in {what}"]


def test_a_scope_that_a_node_of_the_path_lacks_is_a_difference() -> None:
    assert len(differences(reports(report(), {**report(), "scopes": []}))) == 1


def test_a_column_that_one_level_may_not_read_is_no_difference() -> None:
    both = reports(report(digests={"m.name": "bb", "m.phone": "cc"}), report())
    assert differences(both) == []
    assert columns_compared(both) == 1


@pytest.mark.parametrize("key", ["pending_changes", "unsent_batches", "waiting_batches", "held"])
def test_a_node_with_work_left_is_not_at_rest(key: str) -> None:
    assert restless(reports(report(), report())) == []
    assert len(restless(reports({**report(), key: 1}, report()))) == 1


# --- figures and people


def test_figures_are_written_as_vietnamese_readers_write_them() -> None:
    assert [number(999), number(2000), number(1_234_567)] == ["999", "2.000", "1.234.567"]
    assert [decimal(4.25), decimal(1234.5)] == ["4,2", "1.234,5"]
    assert [size(999), size(117_300), size(4_200_000)] == ["999 B", "117,3 KB", "4,2 MB"]
    assert [day("1958-03-12"), day("1945-08"), day("1945")] == ["12/03/1958", "08/1945", "1945"]


def test_made_up_members_were_admitted_in_a_cell_by_two_people() -> None:
    rows = [dict(zip(FIELDS, row, strict=True)) for row in members(200, seed=1, communes=["Xã Phú An"])]
    admitted = [row for row in rows if row["admitted_on"]]
    assert admitted
    assert {str(row["admitted_at_cell"])[:6] for row in admitted} == {"Chi bộ"}
    assert {str(row["introducers"])[:2] for row in admitted} == {'["'}
