"""A centre and a province that are real services, and the many units below the province in a few processes.

Role: found the tree, let all units call at one moment, and watch the province meanwhile as its operator, its clerk and
its system see it.
Reach: tests.e2e.processes, tests.many.children; test and benchmark share it. Invariant: every wait has a deadline, and
every process that was started here is ended here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlcipher3.dbapi2

from node import enrolment
from node import invitation as invitations
from node.demo.members import members
from node.keys import KeyStore
from node.local import Node, context_of
from node.storage.digests import digest_scope
from node.storage.engine import open_engine
from node.storage.report import scope_report
from tests.e2e.processes import Cluster, Home, until
from tests.e2e.writing import INSERT

CENTRE, PROVINCE = "vn", "hue.vn"
ROOT = Path(__file__).parent.parent.parent
PROCESSES = 2
NAMED = "SELECT count(*) FROM _unit"
AHEAD_S = 0.3
"""All units are told the moment of the call so long before it."""

ANSWER_S = 240.0
CLERK_BUSY_S, CLERK_EVERY_S = 1.0, 0.2
OPERATOR_EVERY_S = 3.0


class Group:
    """One process of units."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._log = (folder / f"group-{seed}.log").open("wb")
        self.process = subprocess.Popen(
            ["nice", sys.executable, "-m", "tests.many.children", str(folder), str(seed)],  # elsewhere, in real life
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
        )
        self.units: list[str] = []

    def order(self, **order: Any) -> Any:
        """Raises RuntimeError when the process has ended or does not answer in time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        overdue = threading.Timer(ANSWER_S, self.process.kill)
        overdue.start()
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        finally:
            overdue.cancel()
        if not answer:
            log = Path(self._log.name).read_text(encoding="utf-8")
            raise RuntimeError(f"the units gave no answer to {order['do']!r}\n{log[-3000:]}")
        return json.loads(answer)

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        self.process.stdout.close()
        self._log.close()


@dataclass
class Storm:
    """All calls of one round, and what the province was like meanwhile."""

    calls: list[dict[str, Any]]
    seconds: float
    """Until the last call had ended."""
    peak_mb: float
    cpu_s: float
    """Of the province's process."""
    clerk_waits: list[float] = field(default_factory=list)
    clerk_refused: list[str] = field(default_factory=list)
    operator_waits: list[float] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [fault for call in self.calls for fault in call["faults"]]

    @property
    def broken(self) -> list[str]:
        return [fault for call in self.calls for fault in call["broken"]]

    def seconds_of(self, units: Sequence[str] | None = None) -> list[float]:
        return sorted(call["seconds"] for call in self.calls if units is None or call["unit"] in units)

    def __str__(self) -> str:
        took = self.seconds_of()
        return (
            f"{len(self.calls)} calls in {self.seconds:.1f} s (median {statistics.median(took):.1f}), "
            f"{len(self.faults)} faults, {len(self.broken)} broken, peak {self.peak_mb:.0f} MB, "
            f"{self.cpu_s:.1f} s of processor, "
            f"clerk {max(self.clerk_waits, default=0):.2f} s at most of {len(self.clerk_waits)} writes, "
            f"{len(self.clerk_refused)} refused, status {max(self.operator_waits, default=0):.2f} s at most"
        )


class Watch:
    """A clerk who writes at the province and an operator who asks for its status, all through a storm."""

    def __init__(self, province: Home) -> None:
        self._province = province
        self._over = threading.Event()
        self.clerk_waits: list[float] = []
        self.clerk_refused: list[str] = []
        self.operator_waits: list[float] = []

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        with ThreadPoolExecutor(2) as people:
            work = [people.submit(self._clerk), people.submit(self._operator)]
            try:
                yield
            finally:
                self._over.set()
            for each in work:
                each.result()

    def _clerk(self) -> None:
        """A program that is patient for a second, as programs are."""
        rows = members(1_000_000, seed=time.time_ns(), communes=("Vỹ Dạ", "Thuận Hòa"), random_ids=True)
        file = sqlcipher3.dbapi2.connect(str(self._province.database), timeout=CLERK_BUSY_S, isolation_level=None)
        try:
            while not self._over.wait(CLERK_EVERY_S):
                began = time.monotonic()
                try:
                    file.execute(INSERT, (PROVINCE, *next(rows)))
                except sqlcipher3.dbapi2.OperationalError as error:
                    self.clerk_refused.append(str(error))
                self.clerk_waits.append(time.monotonic() - began)
        finally:
            file.close()

    def _operator(self) -> None:
        while not self._over.wait(OPERATOR_EVERY_S):
            began = time.monotonic()
            self._province.dongbo("status", deadline_s=120)
            self.operator_waits.append(time.monotonic() - began)


class Tree:
    """The centre, the province, and the units below it."""

    def __init__(self, cluster: Cluster, count: int, seed: int) -> None:
        self.cluster, self.count, self.seed = cluster, count, seed
        self.groups: list[Group] = []

    @property
    def centre(self) -> Home:
        return self.cluster[CENTRE]

    @property
    def province(self) -> Home:
        return self.cluster[PROVINCE]

    @property
    def units(self) -> list[str]:
        return sorted(unit for group in self.groups for unit in group.units)

    # --- founding ---

    def found(self) -> None:
        """Centre and province by the command line; the units are invited at once, and join by their own code."""
        centre = self.cluster.root(CENTRE, "Trung ương")
        centre.start()
        province = self.cluster.join(centre, "hue", "Thành phố Huế", listens=True)
        province.configure(on_change="true")
        tokens = asyncio.run(_invited(province.path, self.count))
        province.start()
        for number in range(PROCESSES):
            self.groups.append(Group(self.cluster.folder, self.seed + number))
        joined = self._all("join", [{"tokens": tokens[number::PROCESSES]} for number in range(PROCESSES)])
        for group, units in zip(self.groups, joined, strict=True):
            group.units = units
        until("the units' names are at the centre", lambda: self.centre.sql(NAMED)[0][0] == self.count + 2)

    def _all(self, do: str, more: Sequence[Mapping[str, Any]]) -> list[Any]:
        """One order to every process, side by side."""
        with ThreadPoolExecutor(len(self.groups)) as pool:
            sent = [pool.submit(group.order, do=do, **words) for group, words in zip(self.groups, more, strict=True)]
            return [each.result() for each in sent]

    # --- a round ---

    def write(self, rows: Mapping[str, int], seed: int) -> None:
        """New members at units; the same count of rows for the same seed and unit is the same rows."""
        self._all(
            "write",
            [
                {"seed": seed, "rows": {unit: rows[unit] for unit in group.units if unit in rows}}
                for group in self.groups
            ],
        )

    def storm(self, *, watched: bool = True, units: Sequence[str] | None = None) -> Storm:
        """All units call at the same moment."""
        forget_peak(self.province)
        before = cpu_s(self.province)
        watch = Watch(self.province)
        with watch.going() if watched else contextlib.nullcontext():
            at = time.monotonic() + AHEAD_S
            chosen = [
                {"at": at} if units is None else {"at": at, "units": [each for each in units if each in group.units]}
                for group in self.groups
            ]
            calls = [call for calls in self._all("call", chosen) for call in calls]
        return Storm(
            calls,
            max(call["seconds"] for call in calls),
            peak_mb(self.province),
            cpu_s(self.province) - before,
            watch.clerk_waits,
            watch.clerk_refused,
            watch.operator_waits,
        )

    def at_the_centre(self) -> int:
        return int(self.centre.sql("SELECT count(*) FROM member WHERE unit <> ?", PROVINCE)[0][0])

    def arrive(self, count: int) -> float:
        """Wait until so many members of the units are at the centre; for how long."""
        began = time.monotonic()
        until(f"{count} members are at the centre", lambda: self.at_the_centre() >= count, tail=self.cluster.tails)
        return time.monotonic() - began

    def digests(self, units: Sequence[str]) -> dict[str, Any]:
        """What units say of their own scopes: heads, rows, digests."""
        asked = [{"units": [each for each in units if each in group.units]} for group in self.groups]
        return {unit: said for answer in self._all("digests", asked) for unit, said in answer.items()}

    @contextlib.contextmanager
    def hanging(self, units: Sequence[str]) -> Iterator[None]:
        """Units that have called, and say nothing."""
        self._all("hang", [{"units": [each for each in units if each in group.units]} for group in self.groups])
        try:
            yield
        finally:
            self._all("hang up", [{}] * len(self.groups))

    def counts(self, where: str) -> dict[str, int]:
        """How many members each unit shows."""
        return {
            unit: count
            for answer in self._all("count", [{"where": where}] * len(self.groups))
            for unit, count in answer.items()
        }

    def end(self) -> None:
        for group in self.groups:
            group.end()


@contextlib.contextmanager
def founded(folder: Path, count: int, seed: int = 20261124) -> Iterator[Tree]:
    """A tree with ``count`` units below its province, all in step and all running."""
    with Cluster(folder) as cluster:
        tree = Tree(cluster, count, seed)
        try:
            tree.found()
            yield tree
        finally:
            tree.end()


async def _invited(home: Path, count: int) -> list[str]:
    """Tokens for so many units, made on the province's own home while its service rests."""
    node = await Node.open(home)
    try:
        made = [
            await enrolment.invite(node, node.keys, f"xa-{number:03}", f"Xã số {number}", timedelta(hours=2))
            for number in range(1, count + 1)
        ]
    finally:
        await node.close()
    return [invitations.encode(each) for each in made]


def digests_at(home: Home, scopes: Sequence[str]) -> dict[str, Any]:
    """What a node holds of some scopes, beside its service: `status` would compute those of all."""
    context = context_of(KeyStore.load(home.path))
    engine = open_engine(home.database)
    try:
        with engine.connect() as connection:
            connection.execution_options(reads_only=True)
            return {scope: scope_report(connection, digest_scope(connection, context, scope)) for scope in scopes}
    finally:
        engine.dispose()


# --- what the system says of a service ---


def _proc(home: Home, name: str) -> Path:
    assert home.process is not None
    return Path("/proc", str(home.process.pid), name)


def forget_peak(home: Home) -> None:
    """Let the highest memory be counted from now on."""
    _proc(home, "clear_refs").write_text("5")


def peak_mb(home: Home) -> float:
    """The most memory a service has had, in MB (2^20 bytes)."""
    line = next(line for line in _proc(home, "status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def open_files(home: Home) -> int:
    return len(list(_proc(home, "fd").iterdir()))


def cpu_s(home: Home) -> float:
    """Processor time of a service so far, in seconds."""
    fields = _proc(home, "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
