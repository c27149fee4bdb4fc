"""``make bench``: what a sync costs, as ratios to a floor measured in the same run.

Role: run the cases, print goal, figure (median, spread) and verdict. ``--members`` and ``--runs`` make it shorter.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.carrying import one_journey
from bench.children import ROWS, many_children
from bench.loading import load_runs
from bench.pair import Pair, make_pair, running
from bench.records import COLUMNS, INSERT, UNIT, captured, floor_seconds, rows_of, uncaptured

EDIT = f"UPDATE member SET home_town = ? WHERE unit = '{UNIT}' AND id = ?"


@dataclass(frozen=True)
class Figure:
    """One line of the table. ``goal`` is the most that is allowed, None where nothing is promised yet."""

    what: str
    values: Sequence[float]
    unit: str
    goal: float | None = None

    def line(self) -> str:
        middle = statistics.median(self.values)
        spread = f"{min(self.values):,.2f}-{max(self.values):,.2f}" if len(self.values) > 1 else ""
        goal = "" if self.goal is None else f"<= {self.goal:,.2f}"
        verdict = "" if self.goal is None else "met" if middle <= self.goal else "MISSED"
        return f"{self.what:58} {middle:10,.2f} {self.unit:12} {spread:20} {goal:12} {verdict}"


@dataclass
class Run:
    """One run of the main case on fresh copies."""

    floor: float
    initial: float
    edit: float
    nothing: float
    nothing_bytes: float
    child_mb: float
    parent_mb: float
    wire_bytes: float
    edit_bytes: float


def one_run(prepared: Pair, folder: Path, count: int) -> Run:
    """Initial sync, then one field in 1 % of the rows, then nothing."""
    rows = rows_of(count)
    floor = floor_seconds(folder, rows)
    pair = prepared.copy(folder / "run")
    with running(pair.parent) as parent:
        initial = pair.sync()
        edited = [(f"Thôn mới {at}", row[COLUMNS.index("id")]) for at, row in enumerate(rows[::100])]
        captured(pair.child / "dongbo.db", EDIT, edited)
        edit = pair.sync()
        nothing = pair.sync()
        return Run(
            floor,
            initial["seconds"],
            edit["seconds"],
            nothing["seconds"],
            nothing["sent_bytes"],
            max(initial["peak_mb"], edit["peak_mb"]),
            parent.peak_mb(),
            initial["sent_bytes"] / count,
            edit["sent_bytes"] / len(edited),
        )


def prepare(folder: Path, count: int) -> Pair:
    """A pair whose child has all members captured and nothing sealed."""
    pair = make_pair(folder / f"prepared-{count}")
    captured(pair.child / "dongbo.db", INSERT, rows_of(count))
    return pair


def capture_figures(folder: Path, runs: int, count: int = 20_000) -> list[Figure]:
    """What the triggers cost a program that writes."""
    empty = make_pair(folder / "capture")
    rows = rows_of(count)
    edits = [(f"Thôn {at}", row[COLUMNS.index("id")]) for at, row in enumerate(rows)]
    inserts, updates = [], []
    for _ in range(runs):
        with_triggers, without = empty.copy(folder / "with"), empty.copy(folder / "without")
        bare = uncaptured(without.child / "dongbo.db", INSERT, rows)
        inserts.append(captured(with_triggers.child / "dongbo.db", INSERT, rows) / bare)
        bare = captured(without.child / "dongbo.db", EDIT, edits)
        updates.append(captured(with_triggers.child / "dongbo.db", EDIT, edits) / bare)
    return [
        Figure("capture: bulk insert / the same without triggers", inserts, "x"),
        Figure("capture: single-field updates / without triggers", updates, "x"),
    ]


def load_figures(folder: Path, runs: int, count: int) -> list[Figure]:
    """Bulk entry by the command line, process start included."""
    found = load_runs(folder, count, runs)
    return [
        Figure(
            f"load of {count:,} members / bare insert, no triggers", [run.first_s / run.bare_s for run in found], "x", 3
        ),
        Figure("the same file again / bare insert", [run.again_s / run.bare_s for run in found], "x"),
        Figure("load: others wait to write, per 100,000 rows", [run.writing_s * 1e5 / count for run in found], "s"),
        Figure("memory, load", [run.peak_mb for run in found], "MB", 150),
    ]


def stick_figures(prepared: Pair, folder: Path, runs: int, count: int) -> list[Figure]:
    """The same members by stick: written at the child, taken in at the parent."""
    found = [one_journey(prepared, folder) for _ in range(runs)]
    return [
        Figure(
            f"by stick, {count:,} members: export and import / the same by line",
            [(each.export_s + each.import_s) / each.line_s for each in found],
            *("x", 2.0),
        ),
        Figure("export / by line", [each.export_s / each.line_s for each in found], "x"),
        Figure("import / by line", [each.import_s / each.line_s for each in found], "x"),
        Figure("on the stick", [each.file_bytes / count for each in found], "B/member"),
        Figure(f"memory, export of {count:,} members", [each.export_mb for each in found], "MB", 200),
        Figure(f"memory, import of {count:,} members", [each.import_mb for each in found], "MB", 200),
    ]


def children_figures(folder: Path, count: int) -> list[Figure]:
    """A province whose units all call at the same moment; they share this machine with it."""
    found = many_children(folder / "many", count)
    what = f"{count} children with {ROWS} new members each"
    return [
        Figure(f"{what}: all in step", [found.storm_s], "s"),
        Figure("the same: half of them in step", [found.median_s], "s"),
        Figure("the same / as many members from one child", [found.storm_s / found.alone_s], "x"),
        Figure("the same: calls made again", [found.repeated], "calls"),
        Figure(f"nothing changed, {count} children at once", [found.nothing_s], "s"),
        Figure(f"memory, province, {count} children at once", [found.peak_mb], "MB", 200),
    ]


def main() -> int:
    options = argparse.ArgumentParser(prog="bench", description=__doc__)
    options.add_argument("--members", type=int, default=100_000)
    options.add_argument("--large", type=int, default=365_000, help="members of the memory comparison; 0 leaves it out")
    options.add_argument("--children", type=int, default=173, help="units that call at once; 0 leaves it out")
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="dongbo-bench-") as name:
        folder = Path(name)
        prepared = prepare(folder, chosen.members)
        runs = [one_run(prepared, folder, chosen.members) for _ in range(chosen.runs)]
        figures = main_figures(runs, chosen.members)
        if chosen.large:
            large = one_run(prepare(folder, chosen.large), folder, chosen.large)
            figures += [
                Figure(f"memory, child, {chosen.large:,} members", [large.child_mb], "MB", 200),
                Figure(f"memory, parent, {chosen.large:,} members", [large.parent_mb], "MB", 200),
                Figure(f"initial sync of {chosen.large:,} members / floor", [large.initial / large.floor], "x"),
            ]
        figures += stick_figures(prepared, folder, min(3, chosen.runs), chosen.members)
        figures += capture_figures(folder, min(3, chosen.runs))
        figures += load_figures(folder, min(3, chosen.runs), chosen.members)
        if chosen.children:
            figures += children_figures(folder, chosen.children)
    print(f"{'what':58} {'median':>10} {'':12} {'spread':20} {'goal':12} verdict")
    for figure in figures:
        print(figure.line())
    return 0


def main_figures(runs: Sequence[Run], count: int) -> list[Figure]:
    """Ratios first; the floor's own seconds only to judge the machine."""
    return [
        Figure(f"floor: one executemany upsert of {count:,} rows, FULL", [run.floor for run in runs], "s"),
        Figure(f"initial sync of {count:,} members / floor", [run.initial / run.floor for run in runs], "x", 6.0),
        Figure(
            "one field in 1 % of rows / 1 % of the initial sync",
            [(run.edit - run.nothing) / (run.initial / 100) for run in runs],
            "x",
            5.0,
        ),
        Figure("nothing changed", [run.nothing * 1000 for run in runs], "ms"),
        Figure("on the wire, initial sync", [run.wire_bytes for run in runs], "B/member"),
        Figure("on the wire, one field, key included", [run.edit_bytes for run in runs], "B/edit"),
        Figure(f"memory, child, {count:,} members", [run.child_mb for run in runs], "MB", 200),
        Figure(f"memory, parent, {count:,} members", [run.parent_mb for run in runs], "MB", 200),
    ]


if __name__ == "__main__":
    sys.exit(main())
