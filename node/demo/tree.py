"""Five nodes on this machine, each a process of its own, made with the commands that make a real tree.

Role: homes, ports, child processes; everything that was started can be ended, and nothing waits for ever.
Reach: the standard library, node.private_socket. Invariant: a process is ended by the number under which it was
started, and only while it still holds its home.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from node import platform
from node.demo.units import District, province
from node.local import database_path
from node.messages import say
from node.private_socket import ask
from sync_engine.errors import HomeLocked, LocalFault, ReplicationError

ROOT_LABEL, ROOT_NAME, PROVINCE = "vn", "Trung ương", "hue"
DISTRICTS = ("phu-vang", "huong-thuy", "phong-dien")
EVERY_S = 2.0
"""How often a demo's node calls its parent: a real one does so every five minutes and after each edit."""

COMMAND_S, READY_S, ANSWER_S, STOP_S = 40.0, 30.0, 15.0, 10.0
LOG_LINES = 8
INDENT = "\n        "
T = TypeVar("T")
MARK = "demo.json"
"""Says that a directory is a demo's and may be removed; holds the numbers of its processes."""


class DemoFailed(LocalFault):
    """The demo could not show what it promises."""


@dataclass
class Place:
    """One unit of the demo: its names, its home, its process while it runs."""

    unit: str
    name: str
    home: Path
    port: int = 0
    district: District | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        return database_path(self.home)

    @property
    def log(self) -> Path:
        return self.home / "run.log"

    @property
    def listen(self) -> str:
        return f"127.0.0.1:{self.port}" if self.port else ""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on; taken together, so that they differ."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in taken]
    finally:
        for each in taken:
            each.close()


def command(*arguments: str) -> list[str]:
    """This very program, as a process of its own."""
    return [sys.executable, "-P", "-m", *arguments]


def tail(path: Path) -> str:
    """The last lines of a log."""
    with suppress(OSError):
        return INDENT.join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
    return ""


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Do several things at once; when one fails, the others are called off before its error goes on."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        raise  # gather has called them off; a second time would cut their ending short
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)


async def process(arguments: Sequence[str], said: bytes = b"", *, within_s: float = COMMAND_S) -> bytes:
    """Run a process to its end and return what it printed. Raises DemoFailed, also when it takes too long."""
    named = " ".join(arguments[3:5])
    child = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the demo, which ends its children in order
    )
    try:
        out, errors = await asyncio.wait_for(child.communicate(said), within_s)
    except TimeoutError:
        raise DemoFailed(say("demo.slow", command=named, seconds=int(within_s))) from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.communicate()  # its pipes are closed too
    if child.returncode:
        words = errors.decode(errors="replace").strip().splitlines()[-LOG_LINES:]
        raise DemoFailed(say("demo.command_failed", command=named), hint=INDENT.join(words))
    return out


@dataclass
class Tree:
    """The centre, a province and three of its districts."""

    folder: Path
    root: Place
    province: Place
    districts: list[Place] = field(default_factory=list)

    @classmethod
    def planned(cls, folder: Path) -> Self:
        """Names, homes and ports; nothing is made yet."""
        hue = province(PROVINCE)
        ports = free_ports(2)
        root = Place(ROOT_LABEL, ROOT_NAME, folder / ROOT_LABEL, ports[0])
        unit = f"{hue.label}.{ROOT_LABEL}"
        found = {each.label: each for each in hue.districts}
        return cls(
            folder,
            root,
            Place(unit, hue.name, folder / hue.label, ports[1]),
            [Place(f"{label}.{unit}", found[label].name, folder / label, district=found[label]) for label in DISTRICTS],
        )

    @property
    def places(self) -> list[Place]:
        return [self.root, self.province, *self.districts]

    def path_of(self, place: Place) -> list[Place]:
        """A unit and those above it, the nodes that hold its records."""
        return [
            each for each in reversed(self.places) if place.unit == each.unit or place.unit.endswith("." + each.unit)
        ]

    # --- making ---

    async def make(self) -> None:
        """``init`` the root, then ``invite`` and ``join`` level by level, each service running before its children."""
        self._mark()
        if sys.dont_write_bytecode:  # else each of a dozen processes compiles the whole program for itself
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            os.environ["PYTHONPYCACHEPREFIX"] = str((self.folder / "compiled").resolve())
        root = self.root
        named = ("--unit", root.unit, "--name", root.name, "--listen", root.listen)
        await process(command("node", "init", "--home", str(root.home), *named, "--every", str(EVERY_S)))
        await self.start(root)
        await self._join(self.root, self.province)
        await self.start(self.province)
        await together(*(self._join(self.province, place) for place in self.districts))
        await together(*(self.start(place) for place in self.districts))

    async def _join(self, parent: Place, place: Place) -> None:
        label = place.unit.partition(".")[0]
        made = await self.ask(parent, "invite", {"label": label, "name": place.name, "ttl_hours": 1})
        listen = ("--listen", place.listen) if place.port else ()
        arguments = ["node", "join", "--home", str(place.home), made["token"], *listen, "--every", str(EVERY_S)]
        await process(command(*arguments))

    # --- running ---

    async def start(self, place: Place) -> None:
        """``dongbo run``, and wait until it answers. Raises DemoFailed with the end of its log."""
        with place.log.open("ab") as log:
            place.process = subprocess.Popen(  # noqa: ASYNC220, S603 - no wait; our own program
                command("node", "run", "--home", str(place.home)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._mark()
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            self.check()
            with suppress(ConnectionError):
                await asyncio.wait_for(ask(place.home, "units", {}, lambda _: None), ANSWER_S)
                return
            await asyncio.sleep(0.1)
        raise DemoFailed(say("demo.not_ready", name=place.name, seconds=int(READY_S)), hint=tail(place.log))

    def check(self) -> None:
        """Raises DemoFailed if a service that should run has ended."""
        for place in self.places:
            if place.process is not None and place.process.poll() is not None:
                place.process = None
                raise DemoFailed(say("demo.ended", name=place.name), hint=tail(place.log))

    async def ask(self, place: Place, name: str, arguments: Mapping[str, Any], *, within_s: float = ANSWER_S) -> Any:
        """One command through a service's private socket. Raises DemoFailed."""
        self.check()
        try:
            return await asyncio.wait_for(ask(place.home, name, arguments, lambda _: None), within_s)
        except (ConnectionError, TimeoutError, ReplicationError) as error:
            words = str(error) or say("demo.no_answer")
            raise DemoFailed(f"{place.name}, {name}: {words}", hint=tail(place.log)) from error

    async def write(self, place: Place, job: Mapping[str, Any], *, within_s: float = COMMAND_S) -> dict[str, Any]:
        """Have a program of its own write to a unit's tables with plain SQL."""
        said = json.dumps({"database": str(place.database), **job}).encode()
        return dict(json.loads(await process(command("node.demo.writer"), said, within_s=within_s)))

    # --- ending ---

    def stop(self, place: Place) -> None:
        """End one service as an operator would: SIGTERM, and its session is finished first."""
        if place.process is not None:
            child, place.process = place.process, None
            child.terminate()
            if not _ends(child):
                raise DemoFailed(say("demo.killed", name=place.name, seconds=int(STOP_S)), hint=tail(place.log))

    def end(self, *, remove: bool) -> list[str]:
        """End every service at once; returns a line, and the end of its log, for each that had to be killed."""
        running = [(place, place.process) for place in reversed(self.places) if place.process is not None]
        for _, each in running:
            each.terminate()
        stubborn = [
            say("demo.killed", name=place.name, seconds=int(STOP_S)) + INDENT + tail(place.log)
            for place, each in running
            if not _ends(each)
        ]
        if remove and (self.folder / MARK).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        return stubborn

    def _mark(self) -> None:
        pids = {place.home.name: place.process.pid for place in self.places if place.process is not None}
        platform.write_private(self.folder / MARK, json.dumps(pids).encode())


def _ends(child: subprocess.Popen[bytes]) -> bool:
    """Whether a process that was asked to end does so; else it is killed."""
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(STOP_S)
        return False
    return True


def make_folder(folder: Path) -> None:
    """A directory for the homes. Raises DemoFailed if something else lives there."""
    if (folder / MARK).exists():
        raise DemoFailed(
            say("demo.still_there", folder=folder), hint=say("demo.end_it", folder=folder, program=program())
        )
    if folder.exists() and any(folder.iterdir()):
        raise DemoFailed(say("demo.not_empty", folder=folder), hint=say("demo.other_folder"))
    platform.make_private_dir(folder)


def end_kept(folder: Path) -> int:
    """End and remove what ``--keep`` left in a directory; returns how many services were running."""
    mark = folder / MARK
    if not mark.exists():
        raise DemoFailed(say("demo.nothing_kept", folder=folder))
    pids: dict[str, int] = json.loads(mark.read_text())
    ended = 0
    for name, pid in reversed(pids.items()):
        if _is_held(folder / name):  # else the number may long be another process's
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                ended += 1
    _until(lambda: not any(_is_held(folder / name) for name in pids))
    shutil.rmtree(folder)
    return ended


def _is_held(home: Path) -> bool:
    try:
        with platform.HomeLock(home):
            return False
    except HomeLocked:
        return True
    except OSError:
        return False


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STOP_S
    while not true():
        if time.monotonic() > deadline:
            raise DemoFailed(say("demo.wont_end"))
        time.sleep(0.1)


def program() -> str:
    """How this program was called, for commands to paste."""
    name = sys.argv[0]
    return "dongbo" if not name or name.endswith("__main__.py") else name
