"""Real nodes for tests: processes of the installed ``dongbo`` command, real homes, real ports, real TLS.

Role: make homes, run the command line on them, start, kill and end services, and tell whether nodes are in step.
Reach: the standard library and sync_engine.names. Invariant: every wait has a deadline and shows the end of the log
when it is missed; every process started here is ended here, by its own handle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sync_engine.names import is_held_by, parent_of

DEADLINE_S = 60.0
"""No command and no wait is longer, unless a test says so."""

NEVER: Mapping[str, str] = {"every_s": "0.0", "on_change": "false"}
"""A schedule that never fires: the test says when a node calls its parent."""


def command() -> list[str]:
    """The installed command, beside the interpreter that runs the tests."""
    found = shutil.which("dongbo", path=str(Path(sys.executable).parent))
    return [found] if found else [sys.executable, "-c", "from node.cli.main import main; main()"]


def free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line that says what is wrong; fails if there is a traceback or nothing at all."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("dongbo: ")]
        assert len(lines) == 1, self.err or self.out
        rest = [line for line in self.err.splitlines() if line not in lines]
        assert all(line.startswith("        ") for line in rest), self.err
        return lines[0]


def dongbo(*arguments: str, deadline_s: float = DEADLINE_S, env: Mapping[str, str] | None = None) -> Answer:
    """Run one command to its end."""
    done = subprocess.run(
        [*command(), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=deadline_s,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def until(what: str, done: Callable[[], Any], deadline_s: float = DEADLINE_S, tail: Callable[[], str] = str) -> Any:
    """Wait for something to be true, and give it back; fails with the end of a log."""
    end = time.monotonic() + deadline_s
    while not (answer := done()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:.0f} s: {what}\n{tail()}")
        time.sleep(0.02)
    return answer


@dataclass
class Home:
    """One node's home, and its service while one runs."""

    path: Path
    unit: str
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    _log_from: int = 0

    @property
    def database(self) -> Path:
        return self.path / "dongbo.db"

    @property
    def log_path(self) -> Path:
        return self.path.with_name(self.path.name + ".log")

    @property
    def log(self) -> str:
        """What this home's services have logged so far."""
        return self.log_path.read_text(encoding="utf-8") if self.log_path.exists() else ""

    def tail(self) -> str:
        return f"--- {self.unit}\n" + "\n".join(self.log.splitlines()[-15:])

    # --- commands ---

    def dongbo(self, *arguments: str, code: int | None = 0, deadline_s: float = DEADLINE_S) -> Answer:
        """Run a command on this home; ``code`` is the exit status it must have."""
        answer = dongbo(*arguments, "--home", str(self.path), deadline_s=deadline_s)
        told = f"dongbo {' '.join(arguments)[:80]} ended with {answer.code}\n{answer.out}{answer.err}{self.tail()}"
        assert code is None or answer.code == code, told
        return answer

    def json(self, *arguments: str, code: int = 0) -> Any:
        return self.dongbo(*arguments, "--json", code=code).document

    def sync(self) -> Any:
        return self.json("sync")

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a program that knows nothing of us does."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            connection.executemany(statement, rows)

    def configure(self, **settings: str) -> None:
        """What an operator does with an editor: settings of node.toml, as TOML values."""
        path = self.path / "node.toml"
        text = path.read_text(encoding="utf-8")
        for key, value in settings.items():
            old = rf'(?m)^{key} = ("[^"\n]*"|\[[^\]\n]*\]|\S+)'
            text, found = re.subn(old, lambda _hit, to=f"{key} = {value}": to, text)
            assert found == 1, f"no setting {key}"
        path.write_text(text, encoding="utf-8")

    # --- the service ---

    def spawn(self) -> None:
        """Start the service without waiting for it."""
        assert self.process is None, f"{self.unit} runs already"
        self._log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command(), "run", "--home", str(self.path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> None:
        """Start the service, and wait until it says that it runs."""
        self.spawn()
        until(f"{self.unit} runs", self._is_running, tail=self.tail)

    def _is_running(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the service ended with {self.process.returncode}\n{self.tail()}"
        return '"event": "running"' in self.log_path.read_bytes()[self._log_from :].decode(errors="replace")

    def kill(self) -> None:
        """SIGKILL: nothing is told, nothing is tidied."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.process = None

    def stop(self, deadline_s: float = 20) -> float:
        """SIGTERM; how long the service took, which must have ended well."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end {deadline_s} s after SIGTERM\n{self.tail()}") from None
        self.process = None
        assert code == 0, f"ended with {code}\n{self.tail()}"
        return time.monotonic() - began

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process is not None:
            self.kill()


@dataclass
class Cluster:
    """Homes of one tree under one folder. Ends its services when it is left."""

    folder: Path
    homes: dict[str, Home] = field(default_factory=dict)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_reason: object) -> None:
        for home in self.homes.values():
            home.end()

    def __getitem__(self, unit: str) -> Home:
        return self.homes[unit]

    def root(self, unit: str, name: str) -> Home:
        home = Home(self.folder / unit, unit, free_port())
        home.dongbo("init", "--unit", unit, "--name", name, "--listen", f"127.0.0.1:{home.port}")
        return self._added(home)

    def join(self, parent: Home, label: str, name: str, *, listens: bool = False) -> Home:
        """Invite and join a unit; the parent's service runs."""
        home = Home(self.folder / f"{label}.{parent.unit}", f"{label}.{parent.unit}", free_port() if listens else 0)
        token = parent.json("invite", label, "--name", name)["token"]
        home.dongbo("join", token, *(("--listen", f"127.0.0.1:{home.port}") if listens else ()))
        return self._added(home)

    def _added(self, home: Home) -> Home:
        home.configure(**NEVER)
        self.homes[home.unit] = home
        return home

    def copy(self, folder: Path, *units: str) -> Cluster:
        """The same tree (or some of its units) at rest, in another folder and on other ports."""
        copied = Cluster(folder)
        for unit in units or self.homes:
            home = self.homes[unit]
            shutil.copytree(home.path, folder / home.path.name)
            copied.homes[unit] = Home(folder / home.path.name, unit, free_port() if home.port else 0)
        for unit, home in copied.homes.items():
            parent = copied.homes.get(str(parent_of(home.unit)))
            listen = f'"127.0.0.1:{home.port}"' if home.port else '""'
            dials = f'"127.0.0.1:{parent.port}"' if parent else '""'
            copied[unit].configure(listen=listen, parent_address=dials)
        return copied

    def start(self, *units: str) -> None:
        """Start several services side by side (all of them, if none is named)."""
        homes = [self.homes[unit] for unit in units or self.homes]
        for home in homes:
            home.spawn()
        for home in homes:
            until(f"{home.unit} runs", home._is_running, tail=home.tail)

    def tails(self) -> str:
        return "\n".join(home.tail() for home in self.homes.values())

    def settle(self, rounds: int = 2) -> None:
        """Everyone calls its parent, deepest first."""
        for _ in range(rounds):
            for home in sorted(self.homes.values(), key=lambda each: -each.unit.count(".")):
                if parent_of(home.unit) is not None:
                    home.sync()

    def assert_in_step(self, deadline_s: float = 0) -> None:
        """On every node of each scope's path: the same heads, and equal digests of every column that both hold."""
        end = time.monotonic() + deadline_s
        while found := differences({unit: home.json("status") for unit, home in self.homes.items()}):
            assert time.monotonic() < end, "\n".join([*found, self.tails()])


def differences(statuses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where nodes of one tree are not in step, scope by scope and column by column."""
    known = {unit: {each["scope"]: each for each in status["scopes"]} for unit, status in statuses.items()}
    found = [
        f"{unit}: {key} = {status[key]}"
        for unit, status in statuses.items()
        for key in ("pending_changes", "waiting_batches", "frozen")
        if status[key]
    ]
    for scope in sorted({scope for scopes in known.values() for scope in scopes}):
        holders = {unit: known[unit].get(scope) for unit in statuses if is_held_by(scope, unit)}
        first = next(each for each in holders.values() if each)
        for unit, here in holders.items():
            if here is None:
                found.append(f"{scope}: nothing at {unit}")
                continue
            found += [
                f"{scope}: {key} differs at {unit}" for key in ("heads", "digest", "rows") if here[key] != first[key]
            ]
            common = here["digests"].keys() & first["digests"].keys()
            found += [
                f"{scope}: {name} at {unit}" for name in common if here["digests"][name] != first["digests"][name]
            ]
    return found
