"""What many tests begin with: a path of three nodes, from a district to the centre, which know of each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World

DISTRICT = "phu-vang.hue.vn"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.node(DISTRICT)
    made.settle(1)
    yield made
    for node in made.nodes.values():
        node.engine.dispose()
