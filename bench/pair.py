"""Two real nodes, a parent and a child, as processes on loopback: prepared once, copied for each run.

Role: homes, services, peak memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DONGBO = str(Path(sys.executable).parent / "dongbo")
NEVER_S = "1000000"
READY_S = 20.0
SAMPLE_S = 0.05


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dongbo(*arguments: str, timeout: float = 600) -> str:
    """One command; its standard output. Raises CalledProcessError with what it said."""
    done = subprocess.run([DONGBO, *arguments], capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"dongbo {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def peak_mb(pid: int) -> float:
    """The most memory a process has had, in MB; 0 when it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


@dataclass(frozen=True)
class Service:
    """A running node."""

    home: Path
    process: subprocess.Popen[bytes]

    def peak_mb(self) -> float:
        """The most memory it has had, in MB (2^20 bytes)."""
        return peak_mb(self.process.pid)


@contextlib.contextmanager
def running(home: Path) -> Iterator[Service]:
    """``dongbo run`` on a home, until the block ends."""
    with (home / "bench.log").open("wb") as log:
        process = subprocess.Popen([DONGBO, "run", "--home", str(home)], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + READY_S
            while b'"running"' not in (home / "bench.log").read_bytes():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((home / "bench.log").read_text()[-2000:])
                time.sleep(0.05)
            yield Service(home, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@dataclass(frozen=True)
class Pair:
    """A root and one unit below it, joined and in step, nothing running."""

    folder: Path

    @property
    def parent(self) -> Path:
        return self.folder / "vn"

    @property
    def child(self) -> Path:
        return self.folder / "hue"

    def copy(self, to: Path) -> Pair:
        """The same two nodes again, as they are."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.folder, to)
        os.sync()  # else the run's own syncs wait for the copy's pages
        return Pair(to)

    def sync(self) -> dict[str, Any]:
        """One ``dongbo sync`` by the child; ``peak_mb`` is that process's.

        It is looked at while the process runs: what the system reports at its end counts this process's memory too,
        from the moment of the fork.
        """
        started, peak = time.monotonic(), 0.0
        process = subprocess.Popen(
            [DONGBO, "sync", "--json", "--home", str(self.child)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.poll() is None:
            peak = max(peak, peak_mb(process.pid))
            time.sleep(SAMPLE_S)
        assert process.stdout is not None
        answer: dict[str, Any] = json.loads(process.stdout.read())
        if not answer["ok"]:
            raise RuntimeError(answer["error"])
        return {**answer, "wall": time.monotonic() - started, "peak_mb": peak}


def make_pair(folder: Path) -> Pair:
    """A fresh pair whose schedules never fire: the benchmark says when to sync."""
    shutil.rmtree(folder, ignore_errors=True)
    pair = Pair(folder)
    port = free_port()
    common = ("--every", NEVER_S)
    dongbo(
        "init",
        "--home",
        str(pair.parent),
        "--unit",
        "vn",
        "--name",
        "Trung ương",
        "--listen",
        f"127.0.0.1:{port}",
        *common,
    )
    with running(pair.parent):
        token = dongbo("invite", "hue", "--name", "Thành phố Huế", "--home", str(pair.parent)).strip()
        dongbo("join", "--home", str(pair.child), token, *common)
    return pair
