"""What many tests begin with: a path of three nodes, from a district to the centre, which know of each other."""

from __future__ import annotations

import compileall
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.lives import Family
from tests.sticks import Sticks
from tests.world import World

DISTRICT = "phu-vang.hue.vn"
ROOT = Path(__file__).parent.parent


LONGEST = (
    "test_working_day",
    "test_killed_province",
    "test_repair",
    "test_simulation",
    "test_crash",
)
"""Files that take minutes: they begin first, so that the processes that share the work end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_configure(config: pytest.Config) -> None:
    """Processes under test start from bytecode, as installed ones do, also where Python is told to write none: without
    it each of some thousand starts compiles the product anew, which is most of its time."""
    if not hasattr(config, "workerinput"):
        for package in ("conflict", "sync_engine", "node", "proto"):
            compileall.compile_dir(ROOT / package, quiet=2)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.node(DISTRICT)
    made.settle(1)
    yield made
    for node in made.nodes.values():
        node.engine.dispose()


@pytest_asyncio.fixture
async def family(tmp_path: Path) -> AsyncIterator[Family]:
    """Whole nodes in this process, from a commune to the centre."""
    made = await Family.made(tmp_path / "family")
    yield made
    await made.close()


@pytest_asyncio.fixture
async def sticks(family: Family, tmp_path: Path) -> AsyncIterator[Sticks]:
    """Between the nodes of ``family``."""
    yield Sticks(family, tmp_path / "sticks")
