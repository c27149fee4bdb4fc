"""The same members by line and by stick: export at the child, import at the parent, each a process of its own.

Role: seconds and peak memory of both ways, on fresh copies of one prepared pair.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.pair import DONGBO, SAMPLE_S, Pair, peak_mb, running


@dataclass(frozen=True)
class Journey:
    """``line_s`` for one sync of everything, the service of the parent running; ``export_s`` and ``import_s`` by stick
    with none."""

    line_s: float
    export_s: float
    import_s: float
    export_mb: float
    import_mb: float
    file_bytes: int


def one_journey(prepared: Pair, folder: Path) -> Journey:
    by_line = prepared.copy(folder / "line")
    with running(by_line.parent):
        line_s = by_line.sync()["seconds"]
    by_stick = prepared.copy(folder / "by-stick")
    stick = folder / "stick"
    shutil.rmtree(stick, ignore_errors=True)
    stick.mkdir()
    export_s, export_mb = _timed("export", "--to", "vn", "--out", str(stick), "--home", str(by_stick.child))
    size = sum(path.stat().st_size for path in stick.iterdir())
    import_s, import_mb = _timed("import", str(stick), "--home", str(by_stick.parent))
    return Journey(line_s, export_s, import_s, export_mb, import_mb, size)


def _timed(*arguments: str) -> tuple[float, float]:
    """The seconds that the command itself tells, and the most memory its process has had."""
    process = subprocess.Popen([DONGBO, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        time.sleep(SAMPLE_S)
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"dongbo {arguments[0]} failed: {err.decode().strip()}")
    return float(json.loads(out)["seconds"]), peak
