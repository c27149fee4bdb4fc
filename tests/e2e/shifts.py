"""Clerks who work through the open conflicts of a home in a real terminal, each by a rule of their own.

Role: read what is asked from the screen, press the keys, remember what was chosen. Reach: tests. Invariant: what is on
the screen says which conflict is decided; the list that was taken before only tells what its keys mean.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.e2e.processes import Home, until
from tests.e2e.test_review import DEADLINE_S, LEGEND, Clerk

END = "Settled: "
NUMBER = re.compile(r"conflict (\d+)")

Choose = Callable[[Mapping[str, Any]], str]
"""The key for a conflict: a write's number, ``d``, ``k``, or a date to be typed (dd/mm/yyyy)."""


class Reader(Clerk):
    """A clerk who does not know whether more will be asked."""

    def read_question(self) -> str | None:
        """Wait for keys or for the end; gives what was said up to the keys, None at the end."""
        asks = re.compile(f"{LEGEND}|{END}")
        until(
            "it asks or ends",
            lambda: self._read() and asks.search(self.screen, self._seen),
            DEADLINE_S,
            self._tail,
        )
        found = asks.search(self.screen, self._seen)
        assert found is not None
        return None if found[0] == END else self.read(LEGEND)


class Shift:
    """One clerk at one home. ``chosen`` has what they decided, by the conflict's number."""

    def __init__(self, home: Home, by: str, choose: Choose) -> None:
        self.home, self.by, self.choose = home, by, choose
        self.open: dict[int, dict[str, Any]] = {each["id"]: each for each in home.json("conflicts", "--open")}
        self.chosen: dict[int, Any] = {}

    def work(self, at_most: int | None = None) -> str:
        """Settle so many, or all there are; gives the last words on the screen."""
        with contextlib.closing(Reader(self.home, "conflicts", "review", "--by", self.by)) as clerk:
            while (asked := clerk.read_question()) is not None:
                assert "Not taken" not in asked, asked
                if len(self.chosen) == at_most:
                    clerk.press("q")
                    break
                number = int(NUMBER.findall(asked)[-1])
                self.chosen[number] = self._decide(clerk, self.open[number])
            assert clerk.ended() == 0, clerk.screen
            return clerk.screen[clerk.screen.rindex(END) :]

    def _decide(self, clerk: Clerk, entry: Mapping[str, Any]) -> Any:
        """Press what the rule says; gives the value that this means."""
        key = self.choose(entry)
        if "/" in key:
            clerk.press("v")
            clerk.type_date(key)
            day, month, year = key.split("/")
            return [entry["shown"][0], f"{year}-{month}-{day}"]
        clerk.press(key)
        return {"d": False, "k": True}[key] if key in "dk" else entry["writes"][int(key) - 1]["value"]
