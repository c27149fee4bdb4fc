"""What many tests begin with: a path of three nodes, from a district to the centre, which know of each other."""

from __future__ import annotations

import compileall
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World

DISTRICT = "phu-vang.hue.vn"
ROOT = Path(__file__).parent.parent


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
