"""``load``: what entering a file costs, beside the same rows written bare.

Role: a CSV of members into a fresh node by the command line, and by one executemany into the same table without
triggers, in the same run.
"""

from __future__ import annotations

import csv
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlcipher3.dbapi2

from bench.pair import DONGBO, Pair, make_pair, peak_mb
from bench.records import COLUMNS, INSERT, Row, rows_of

SAMPLE_S = 0.05


@dataclass
class Load:
    """One run. ``writing_s`` is how long other writers wait."""

    bare_s: float
    first_s: float
    again_s: float
    writing_s: float
    peak_mb: float


def bare_seconds(database: Path, rows: Sequence[Row]) -> float:
    """One executemany into the node's own table, its triggers dropped, FULL, through the library the node uses."""
    connection = sqlcipher3.dbapi2.connect(str(database), isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f'DROP TRIGGER "{name}"')
    began = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return took


def loaded(home: Path, file: Path) -> tuple[float, float, float]:
    """One ``dongbo load``: seconds from start to end of the process, of these with the lock, peak memory in MB."""
    began, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [DONGBO, "load", "member", str(file), "--json", "--home", str(home)], stdout=subprocess.PIPE
    )
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        time.sleep(SAMPLE_S)
    took = time.perf_counter() - began
    assert process.stdout is not None
    answer = json.loads(process.stdout.read())
    if answer["rejected_rows"]:
        raise RuntimeError(f"load rejected {answer['rejected_rows']} rows")
    return took, answer["writing_seconds"], peak


def load_runs(folder: Path, count: int, runs: int) -> list[Load]:
    """Fresh copies for each run; the file is loaded twice, the second time in vain."""
    rows, empty, file = rows_of(count), make_pair(folder / "load"), folder / "members.csv"
    with file.open("w", encoding="utf-8-sig", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return [_one(empty, folder, rows, file) for _ in range(runs)]


def _one(empty: Pair, folder: Path, rows: Sequence[Row], file: Path) -> Load:
    bare = bare_seconds(empty.copy(folder / "bare").child / "dongbo.db", rows)
    home = empty.copy(folder / "loaded").child
    first, writing, peak = loaded(home, file)
    again, _, peak_again = loaded(home, file)
    return Load(bare, first, again, writing, max(peak, peak_again))
