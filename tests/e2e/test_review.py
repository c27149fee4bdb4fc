"""A clerk works through the conflicts in a real terminal: two nodes, the installed command, a pseudo terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, command, until
from tests.e2e.writing import write_members

DEADLINE_S = 30.0
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")
LEGEND = "q quit"
CLERK = "Lê Thị Lan"


class Clerk:
    """A process on a terminal of 80 columns, and what stands on its screen. A key is pressed once it is waited for."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._seen, self._raw = 0, b""
        self.process = subprocess.Popen(
            [*command(), *arguments, "--home", str(home.path)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        )
        os.close(slave)

    @property
    def screen(self) -> str:
        return ESCAPE.sub("", self._raw.decode(errors="replace")).replace("\r\n", "\n")

    def _tail(self) -> str:
        return self.screen[-2000:]

    def read(self, text: str) -> str:
        """Wait for a text that has not been waited for; gives everything up to it."""
        until(
            f"the screen says {text}",
            lambda: self._read() and text in self.screen[self._seen :],
            DEADLINE_S,
            self._tail,
        )
        begin = self._seen
        self._seen = self.screen.index(text, begin) + len(text)
        return self.screen[begin : self._seen]

    def _read(self) -> bool:
        while select.select([self._master], [], [], 0)[0]:
            try:
                self._raw += os.read(self._master, 65536)
            except OSError:  # the process has closed its terminal
                break
        return True

    def press(self, key: str) -> None:
        self._send(key, waits_for_key=True)

    def type(self, line: str) -> None:
        self._send(line + "\n", waits_for_key=False)

    def type_date(self, day: str) -> None:
        """Name and birth date are one group: Enter keeps the name."""
        self.read("]: ")
        self.type("")
        self.read("]: ")
        self.type(day)

    def _send(self, text: str, *, waits_for_key: bool) -> None:
        until("it asks", lambda: self._waits_for_key() is waits_for_key, DEADLINE_S)
        os.write(self._master, text.encode())

    def _waits_for_key(self) -> bool:
        return not termios.tcgetattr(self._master)[3] & termios.ICANON

    def ended(self) -> int:
        """How it ended, with the rest on the screen."""
        end = time.monotonic() + DEADLINE_S
        while (code := self.process.poll()) is None and time.monotonic() < end:
            self._read()
            time.sleep(0.01)
        self._read()
        return -1 if code is None else code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._master)


@pytest.fixture
def apart(template: Cluster, tmp_path: Path) -> Iterator[tuple[Home, Home, list[str]]]:
    """Province and district, which changed two members without knowing of each other: two birth dates, and a delete
    beside an edit."""
    with template.copy(tmp_path, PROVINCE, DISTRICT) as pair:
        province, district = pair[PROVINCE], pair[DISTRICT]
        keys = sorted(write_members(district, 2, seed=11))
        province.start()
        district.sync()
        for home, day in ((province, "1962-02-13"), (district, "1962-03-12")):
            home.sql("UPDATE member SET birth_date = ? WHERE id = ?", day, keys[0])
        province.sql("DELETE FROM member WHERE id = ?", keys[1])
        district.sql("UPDATE member SET note = 'đã rà soát' WHERE id = ?", keys[1])
        district.sync()
        yield province, district, keys


def test_a_clerk_settles_what_is_open_in_the_terminal_and_the_queues_are_empty_everywhere(
    apart: tuple[Home, Home, list[str]],
) -> None:
    province, district, keys = apart
    assert len(province.json("conflicts", "--open")) == 2
    with contextlib.closing(Clerk(province, "conflicts", "review")) as clerk:
        clerk.read(LEGEND)
        clerk.press("\x03")
        clerk.read("Settled: 0. Skipped: 0. Not looked at: 2.")
        assert clerk.ended() == 0, clerk.screen
        assert "Traceback" not in clerk.screen
    assert len(province.json("conflicts", "--open")) == 2

    with contextlib.closing(Clerk(province, "conflicts", "review", "--by", CLERK)) as clerk:
        for _ in range(2):
            shown = clerk.read(LEGEND)
            if "d delete the record" in shown:
                clerk.press("k")
                clerk.read("Decided: the record stays.")
                continue
            assert "12/03/1962" in shown
            assert "13/02/1962" in shown
            assert "phu-vang.hue.vn" in shown
            clerk.press("v")
            clerk.type_date("31/02/1962")
            clerk.read("Not taken: Ngày sinh: ")
            clerk.type_date("14/03/1962")
            clerk.read("Decided: ")
        clerk.read("Settled: 2. Skipped: 0. Not looked at: 0.")
        assert clerk.ended() == 0, clerk.screen

    district.sync()
    for home in (province, district):
        assert home.json("conflicts", "--open") == []
        assert home.json("status")["conflicts_open"] == 0
        assert home.sql("SELECT birth_date FROM member WHERE id = ?", keys[0]) == [("1962-03-14",)]
        assert home.sql("SELECT note FROM member WHERE id = ?", keys[1]) == [("đã rà soát",)]
        decided = [each["decided"] for each in home.json("conflicts") if each["state"] == "settled"]
        assert [(each["act"], each["unit"], each["person"]) for each in decided] == [("resolve", PROVINCE, CLERK)] * 2
