"""Ready-made trees: the files of nodes that have joined and know their registry, made once a process and shape.

Role: random shapes; set-up through production code; copies for each run.
"""

from __future__ import annotations

import atexit
import os
import shutil
from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp

from node.storage.engine import execute
from node.storage.setup import name_unit, publish_root
from sync_engine.names import parent_of
from sync_engine.registry import parse_registry
from tests.simulation.custody import enrol
from tests.simulation.link import Line, Session, Watch
from tests.simulation.model import TOML
from tests.simulation.process import Process

BEGAN_MS = 1_800_000_000_000
SHAPES = 10


HOME = "SIMULATION_HOME"
"""Environment: where all folders of a command and its processes are, so that it can remove them."""


@cache
def _base() -> Path:
    given = os.environ.get(HOME)
    if given:
        return Path(given)
    made = new_home()
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def new_home() -> Path:
    """In memory where there is such a place: a simulated process dies, its disk does not."""
    memory = Path("/dev/shm")
    return Path(mkdtemp(prefix="simulation-", dir=memory if memory.is_dir() else None))


def folder() -> Path:
    return Path(mkdtemp(dir=_base()))


def shape(number: int, nodes: tuple[int, int]) -> tuple[str, ...]:
    """A tree of so many units, least and most, three or four levels, the root first."""
    rng = Random(f"shape {number} {nodes}")
    size, levels = rng.randint(*nodes), rng.choice([3, 4])
    units = ["vn", "p0.vn", "d0.p0.vn"] + (["c0.d0.p0.vn"] if levels == 4 else [])
    while len(units) < size:
        above = rng.choice([unit for unit in units if unit.count(".") < levels - 1])
        letter = "pdc"[above.count(".")]
        taken = sum(parent_of(unit) == above for unit in units)
        units.append(f"{letter}{taken}.{above}")
    return tuple(units)


@cache
def _made(units: tuple[str, ...]) -> Path:
    home = folder()
    rng = Random("set-up")
    now = [BEGAN_MS - 1_000_000]
    nodes = {unit: Process(unit, home, rng, lambda: now[0]) for unit in units}
    for node in nodes.values():
        node.start()
    root = nodes[units[0]]
    root.write(publish_root, root.context, parse_registry(TOML), units[0], ())
    for unit in units[1:]:
        above = nodes[str(parent_of(unit))]
        above.write(execute, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (unit,))
        above.write(name_unit, unit, unit)
        enrol(above, nodes[unit].keys.certified)
    watch = Watch(*[lambda *_: None] * 5)
    line = Line(rng, lambda _fault: None)
    for unit in (*units[1:], *reversed(units[1:]), *units[1:]):  # down with the registry, up with the names, down
        now[0] += 1
        exchange(Session(nodes[unit], nodes[str(parent_of(unit))], line, watch))
    for node in nodes.values():
        assert node.query("SELECT id FROM _registry") == [("1",)], f"{node.unit} has no registry"
        node.stop()
    return home


def exchange(session: Session) -> None:
    """Let a session run to its end on a good line."""
    rng = Random(0)
    while not session.over:
        if not session.step(rng):
            raise AssertionError("a session on a good line came to a stop")
    for end in session.ends.values():
        assert end.ended_with() is None, f"the session of {end.node.unit} ended with {end.ended_with()}"


def plant(units: tuple[str, ...], home: Path) -> None:
    """Copy a ready tree's files."""
    for path in _made(units).iterdir():
        shutil.copyfile(path, home / path.name)
