"""Many units below one province, all calling at the same moment: the tree of ``tests.many``, measured.

Role: one storm, the same rows from one unit alone, and a round in which nothing is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.many.province import founded

ROWS = 50
"""New members of each unit."""


@dataclass(frozen=True)
class Many:
    """Seconds and MB of one tree."""

    storm_s: float
    median_s: float
    """Until half of the units had ended."""
    alone_s: float
    """The same number of rows, from one unit in one call."""
    nothing_s: float
    peak_mb: float
    repeated: int
    """Calls that had to be made again."""


def many_children(folder: Path, count: int) -> Many:
    """Found a tree, and let its units call three times."""
    folder.mkdir()
    with founded(folder, count) as tree:
        tree.write(dict.fromkeys(tree.units, ROWS), seed=1)
        storm = tree.storm(watched=False)
        tree.arrive(count * ROWS)
        tree.write({tree.units[0]: count * ROWS}, seed=2)
        alone = tree.storm(watched=False, units=tree.units[:1])
        tree.arrive(2 * count * ROWS)
        nothing = tree.storm(watched=False)
    for each in (storm, alone, nothing):
        if each.broken or not all(call["ok"] for call in each.calls):
            raise RuntimeError(f"calls that did not end well: {each.broken or each.faults}")
    took = storm.seconds_of()
    return Many(
        storm.seconds,
        took[len(took) // 2],
        alone.seconds,
        nothing.seconds,
        max(storm.peak_mb, nothing.peak_mb),
        len(storm.faults) + len(nothing.faults),
    )
