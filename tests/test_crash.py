"""Real processes die everywhere (tests/crash), and what that found, each cut down to what matters.

Here every statement of the short steps, and every n-th place of the rest; ``python -m tests.crash`` tries all.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from conflict.values import UnitPath
from node.database import Database, StoreFault
from node.link import Link
from node.local import Node
from node.session import Session
from node.storage.engine import execute
from tests.crash import disk
from tests.crash.mutants import MUTANTS
from tests.crash.shim import Event

ROOT = Path(__file__).parent.parent

PLAN = {
    ("capture", "statement"): 1,
    ("start-up", "statement"): 1,
    ("seal", "statement"): 30,
    ("apply", "statement"): 50,
    ("ack", "statement"): 150,
    ("serve", "statement"): 150,
    ("upgrade", "statement"): 60,
    ("set-up", "statement"): 60,
    ("init", "statement"): 150,
    ("seal", "call"): 30,
    ("init", "call"): 150,
    ("apply", "syscall"): 40,
    ("capture", "recovery"): 70,
    ("apply", "recovery"): 90,
    ("capture", "power"): 10,
    ("seal", "power"): 60,
    ("ack", "power"): 300,
    ("init", "power"): 300,
    ("seal", "full"): 30,
    ("ack", "full"): 90,
    ("start-up", "full"): 6,
    ("seal", "fsync"): 4,
}
"""Only every n-th place."""


@pytest.fixture(name="found", scope="module")
def found_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run of the command found: the table's rows, and the mutants."""
    if sys.platform != "linux":
        pytest.skip("processes are forked, traced and preloaded as Linux does it")
    plan = ",".join(f"{step}:{kind}:{every}" for (step, kind), every in PLAN.items())
    to = tmp_path_factory.mktemp("crash") / "found"
    command = [sys.executable, "-m", "tests.crash", "--workers", "1", "--plan", plan, "--mutants", "--json", str(to)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert to.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(to.read_text())
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("step", "kind"), PLAN, ids=[", ".join(row) for row in PLAN])
def test_no_death_loses_what_was_acknowledged(step: str, kind: str, found: dict[str, Any]) -> None:
    (row,) = [each for each in found["rows"] if (each["step"], each["kind"]) == (step, kind)]
    if row["skipped"]:
        pytest.skip(row["skipped"])
    assert not row["losses"], f"replay with: python -m tests.crash --step {step} --kind {kind} --k N"
    assert row["met"], "no process died"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_defect_is_noticed(mutant: str, found: dict[str, Any]) -> None:
    noticed = found["mutants"]
    if noticed[mutant]["skipped"]:
        pytest.skip(noticed[mutant]["skipped"])
    assert noticed[mutant]["fault"], "nobody noticed"


# --- what a disk may hold --------------------------------------------------------------------------------------------

HOME = Path("/a/home")


def event(op: str, name: str = "", offset: int = 0, data: bytes = b"") -> Event:
    return Event(op, str(HOME / name), offset, data)


WRITTEN = event("W", "a", 0, b"new")
DISKS: dict[str, tuple[list[Event], str, disk.Image]] = {
    "a write that was not synced is gone": ([WRITTEN], "nothing", {"a": b"old!"}),
    "or is there": ([WRITTEN], "everything", {"a": b"new!"}),
    "a synced one stays": ([WRITTEN, event("S", "a")], "nothing", {"a": b"new!"}),
    "one after the sync does not": ([event("S", "a"), WRITTEN], "nothing", {"a": b"old!"}),
    "a failed sync has kept nothing": ([WRITTEN, event("X", "a")], "nothing", {"a": b"old!"}),
    "nor does the next one": ([WRITTEN, event("X", "a"), event("S", "a")], "nothing", {"a": b"old!"}),
    "written again it stays": ([WRITTEN, event("X", "a"), WRITTEN, event("S", "a")], "nothing", {"a": b"new!"}),
    "a truncated file is longer again": ([event("T", "a", 1)], "nothing", {"a": b"old!"}),
    "a new name needs its directory's sync": ([event("C", "b"), event("S", "b")], "nothing", {"a": b"old!"}),
    "a failed one is not enough": ([event("C", "b"), event("X")], "nothing", {"a": b"old!"}),
    "the next may make it good": ([event("C", "b"), event("X"), event("S")], "nothing", {"a": b"old!", "b": b""}),
    "but for a file that was synced": (
        [event("C", "b"), event("S", "b"), event("X")],
        "nothing",
        {"a": b"old!", "b": b""},
    ),
    "and then stays": ([event("C", "b"), event("S")], "nothing", {"a": b"old!", "b": b""}),
    "a removed file comes back": ([event("U", "a")], "nothing", {"a": b"old!"}),
    "unless its directory was synced": ([event("U", "a"), event("S")], "nothing", {}),
    "a rename is both names at once": (
        [event("C", "b"), event("S"), event("R", "b", data=bytes(HOME / "a"))],
        "everything",
        {"a": b""},
    ),
}


@pytest.mark.parametrize(("events", "mode", "image"), DISKS.values(), ids=DISKS)
def test_after_a_power_cut(events: list[Event], mode: str, image: disk.Image) -> None:
    found = disk.Disk(HOME, {"a": b"old!"})
    for each in events:
        found.perform(each)
    assert found.image(mode, disk.Random(1)) == image


def test_a_torn_write_keeps_whole_sectors() -> None:
    found = disk.Disk(HOME, {"a": bytes(8 * disk.SECTOR)})
    found.perform(event("W", "a", 100, b"x" * 6 * disk.SECTOR))
    seen = set()
    for seed in range(40):
        content = found.image("torn", disk.Random(seed))["a"]
        inner = [content[at : at + disk.SECTOR] for at in range(disk.SECTOR, 6 * disk.SECTOR, disk.SECTOR)]
        assert all(len(set(sector)) == 1 for sector in inner)
        seen.add(content.count(b"x"))
    assert len(seen) > 3


# --- what it found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(4))
async def test_a_reader_that_is_given_up_ends_even_where_a_frame_comes_just_then(turns: int) -> None:
    frames: asyncio.Queue[bytes | None] = asyncio.Queue()
    link = cast(Link, SimpleNamespace(receive=frames.get))
    unit = UnitPath("hue.vn")
    session = Session(cast(Node, SimpleNamespace()), link, child=unit, peer=unit, progress=lambda _: None)
    reading = asyncio.create_task(session._next_frame())
    for _ in range(3):
        await asyncio.sleep(0)
    frames.put_nowait(b"frame")
    for _ in range(turns):
        await asyncio.sleep(0)
    is_given_up = reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled() == is_given_up


async def test_a_database_that_cannot_be_opened_leaves_no_thread_to_complain_later(tmp_path: Path) -> None:
    database = Database(tmp_path / "missing" / "node.db")
    before = set(threading.enumerate())
    with pytest.raises(StoreFault):
        await database.read(execute, "SELECT 1")
    assert not [thread for thread in set(threading.enumerate()) - before if "connection_worker" in thread.name]
