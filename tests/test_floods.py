"""A child that floods its parent slows itself and hardly anybody else: real services, real TLS, real keys."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Cluster, Home, until
from tests.e2e.writing import write_members
from tests.many.province import cpu_s

ROOT = Path(__file__).parent.parent
ROWS, ROUNDS, HOSTILE_ROWS = 300, 5, 6_000
SLOWER_MAX, SLACK_S = 2.0, 0.4
"""The honest child beside a flood, against alone. The slack is what the machine itself varies by while tests run."""

WAYS = [
    "acks",
    "credit",
    "refusals",
    "endings",
    "unknown",
    "forks",
    "certificates",
    "known",
    "spoiled",
    "heads",
    "calls",
    "new_connections",
    "silence",
    "enrols",
    "health",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="processor time is read from /proc"),
]


@contextmanager
def flooding(home: Home, port: int, way: str) -> Iterator[list[str]]:
    """A process that floods ``port`` with the keys of ``home``; what it says of itself at the end."""
    said: list[str] = []
    process = subprocess.Popen(
        ["nice", sys.executable, "-m", "tests.floods.flooder", str(home.path), str(port), home.unit, way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "flooding\n", process.communicate(timeout=20)
        yield said
    finally:
        try:
            out, err = process.communicate("", timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        said += [*out.splitlines(), *err.splitlines()[-5:]]


@dataclass
class Province:
    """A province with a child that is honest and one that is not."""

    province: Home
    honest: Home
    hostile: Home
    seed: int = 0

    def rounds(self) -> float:
        """What a call of the honest child takes with something new, in seconds."""
        took = []
        for _ in range(ROUNDS):
            self.seed += 1
            write_members(self.honest, ROWS, seed=self.seed)
            took.append(float(self.honest.json("sync")["seconds"]))
        return statistics.median(took)

    def account(self) -> dict[str, Any]:
        """What the province says of the hostile child."""
        found = [each for each in self.province.json("status")["caps"] if each["unit"] == self.hostile.unit]
        return found[0] if found else {}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Province]:
    with Cluster(tmp_path_factory.mktemp("floods")) as made:
        centre = made.root("vn", "Trung ương")
        centre.start()
        province = made.join(centre, "hue", "Thành phố Huế", listens=True)
        province.start()
        found = Province(
            province, made.join(province, "phu-vang", "Phú Vang"), made.join(province, "phong-dien", "Phong Điền")
        )
        write_members(found.hostile, HOSTILE_ROWS, seed=7)
        found.hostile.sync()
        found.rounds()
        yield found


@pytest.mark.parametrize("way", WAYS)
def test_an_honest_child_is_hardly_slowed_by_a_flood_of(tree: Province, way: str) -> None:
    alone = tree.rounds()
    before = cpu_s(tree.province)
    with flooding(tree.hostile, tree.province.port, way) as said:
        tree.rounds()  # what a child may take at first is taken meanwhile
        beside = tree.rounds()
    print(f"\n{way}: {alone:.2f} s alone, {beside:.2f} s beside it, {cpu_s(tree.province) - before:.1f} s of processor")
    print(said)
    assert len(said) == 1
    assert beside < SLOWER_MAX * alone + SLACK_S


def test_whoever_flooded_is_named_with_what_it_was_refused(tree: Province) -> None:
    with flooding(tree.hostile, tree.province.port, "calls"):
        until("calls are refused", lambda: tree.account().get("refused_calls", 0) > 20, deadline_s=30)
    account = tree.account()
    assert account["last_why"]
    status = tree.province.json("status")
    (child,) = [each for each in status["children"] if each["unit"] == tree.hostile.unit]
    assert child["refused_calls"] >= account["refused_calls"]
    told = tree.province.dongbo("status").out
    assert f"{tree.hostile.unit} asks more than its share" in " ".join(told.split())
    assert not [each for each in status["caps"] if each["unit"] == tree.honest.unit]


def test_the_log_and_the_record_do_not_grow_with_a_flood(tree: Province) -> None:
    lines, records = tree.province.log.count("\n"), len(tree.province.json("audit", "--all")["records"])
    with flooding(tree.hostile, tree.province.port, "calls"):
        refused = tree.account()["refused_calls"]
        until("many are refused", lambda: tree.account()["refused_calls"] > refused + 300, deadline_s=60)
    assert tree.province.log.count("\n") - lines < 100
    assert len(tree.province.json("audit", "--all")["records"]) - records <= 20


def test_a_child_that_was_flooding_is_served_again_when_it_stops(tree: Province) -> None:
    write_members(tree.hostile, 10, seed=9)

    def served() -> bool:
        return tree.hostile.dongbo("sync", code=None).code == 0

    until("it is in step again", served, deadline_s=90)
