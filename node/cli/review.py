"""``dongbo conflicts review``: the open conflicts in the terminal, one after another, decided by a key.

Role: what is shown, which keys it has, and what a key asks of the node. Where keys and lines come from is an argument.
Reach: rich, the journal's views, node.platform, node.messages, errors.
Invariant: a decision is one command, asked when the key is pressed; between two keys nothing is half done. What
somebody else settled meanwhile is not decided again, except on purpose, by going back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import click
from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text

from node import platform
from node.cli.journal_views import (
    decided_lines,
    decider,
    is_group,
    outcome,
    part_labels,
    parts_of,
    side_by_side,
    takes_value,
    title_of,
    who_of,
)
from node.messages import plain, say
from sync_engine.errors import ReplicationError
from sync_engine.merge import ALIVE, TWIN

KEYS_MAX = 9
"""Writes that have a key; a tenth is kept with 'conflicts resolve'."""
BACK_TO_KEYS = "."
NO_VALUE = "-"
CLOSED = "\x04"

Ask = Callable[[str, Mapping[str, Any]], Any]


class Terminal(Protocol):
    """Where keys and lines come from. Both raise KeyboardInterrupt or EOFError when the person leaves."""

    def key(self) -> str: ...

    def line(self, prompt: str) -> str: ...

    def forget(self) -> None:
        """Drop what was typed before it was asked for."""


class Keyboard:
    """The real one. What was typed before a menu was there is no answer to it: only a line takes what came ahead."""

    def __init__(self) -> None:
        self._ahead = ""

    def key(self) -> str:
        self.forget()
        came = click.getchar()
        if came.startswith("\x1b"):  # an arrow or a function key, in one piece
            return came
        self._ahead = came[1:]
        return came[:1]

    def line(self, prompt: str) -> str:
        ahead, self._ahead = self._ahead.replace("\r", "\n"), ""
        text, ended, rest = ahead.partition("\n")
        if not ended:
            return text + input(prompt + text)
        self._ahead = rest
        click.echo(prompt + text)
        return text

    def forget(self) -> None:
        self._ahead = ""
        platform.drop_typed()


class Fate(Enum):
    """What became of a conflict in this round."""

    TODO = "todo"
    SETTLED = "settled"
    SKIPPED = "skipped"
    GONE = "gone"


@dataclass
class Item:
    """One conflict of the round."""

    number: int
    fate: Fate = Fate.TODO


def in_order(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Oldest first, and what belongs to one record together: a clerk takes the paper out once. First whether it stands:
    to settle one of its fields says that it does."""
    oldest: dict[tuple[str, str, str], int] = {}
    for each in found:
        record = (each["table"], each["unit"], each["key"])
        oldest[record] = min(each["noted_ms"], oldest.get(record, each["noted_ms"]))
    return sorted(
        found,
        key=lambda each: (
            oldest[each["table"], each["unit"], each["key"]],
            each["table"],
            each["unit"],
            each["key"],
            each["field"] != ALIVE,
            each["noted_ms"],
            each["id"],
        ),
    )


def keys_of(conflict: Mapping[str, Any]) -> dict[str, int | None]:
    """The keys that decide this conflict: the write that each keeps, or None where more is asked."""
    if conflict["field"] == TWIN:
        return {"n": None}
    keys: dict[str, int | None] = {str(each["n"]): each["n"] for each in conflict["writes"] if each["n"] <= KEYS_MAX}
    if conflict["field"] == ALIVE:
        shown_first = sorted(conflict["writes"], key=lambda each: (not each["won"], -each["at"]))
        for each in reversed(shown_first):
            keys["k" if each["value"] else "d"] = each["n"]
    elif takes_value(conflict):
        keys["v"] = None
    return keys


class Review:
    """One round through the open conflicts."""

    def __init__(
        self, ask: Ask, terminal: Terminal, screen: Console, *, filters: Mapping[str, Any], by: str | None = None
    ) -> None:
        self._ask, self._terminal, self._screen = ask, terminal, screen
        self._filters, self._by = filters, by
        self._items: list[Item] = []
        self._at = 0

    def run(self) -> None:
        """Until all are seen, or the person leaves; then says what was done."""
        if not self._add_new():
            self._say(say("conflicts.none_open"))
            return
        self._say(say("review.start", count=len(self._items)))
        try:
            while self._at < len(self._items):
                if not self._one():
                    break
                if self._at == len(self._items) and (more := self._add_new()):
                    self._say(say("review.more", count=more), style="bold")
        except (KeyboardInterrupt, EOFError):
            self._say("")
        finally:
            self._sum_up()

    def _add_new(self) -> int:
        """Put what is open and not yet in the round at its end; how many."""
        known = {item.number for item in self._items}
        found = in_order(self._ask("conflicts", {**self._filters, "open": True}))
        new = [Item(each["id"]) for each in found if each["id"] not in known]
        self._items += new
        return len(new)

    # -- one conflict -------------------------------------------------------------------------------------------------

    def _one(self) -> bool:
        """Show one and act on keys until it is left; False: the person quits."""
        item = self._items[self._at]
        conflict = self._fresh(item)
        if conflict is None:
            self._at += 1
            return True
        self._show(conflict, again=item.fate is Fate.SETTLED)
        keys = keys_of(conflict)
        while True:
            key = self._terminal.key().lower()
            if key in ("q", CLOSED):
                return False
            if key in ("s", " "):
                return self._skip(item)
            if key == "b":
                if self._go_back():
                    return True
            elif key in ("?", "h"):
                self._help(keys)
            elif key not in keys:
                self._say(say("review.unknown"), style="yellow")
                self._legend(keys)
            else:
                if self._settle(item, conflict, key, keys[key]):
                    self._at += 1
                    return True
                self._legend(keys)

    def _fresh(self, item: Item) -> Mapping[str, Any] | None:
        """The conflict as it is now, or None where somebody else was faster, which is said."""
        found = self._look(item)
        place = {"place": self._at + 1, "of": len(self._items)}
        if item.fate is Fate.SETTLED and found is not None:
            return found
        if found is not None and found["state"] == "open" and found["may_settle"]:
            return found
        item.fate = Fate.GONE
        decided = None if found is None else found["decided"]
        if decided:
            self._say(say("review.gone.decided", who=decider(decided), **place), style="yellow")
        else:
            self._say(say("review.gone", **place), style="yellow")
        return None

    def _look(self, item: Item) -> Mapping[str, Any] | None:
        found: Sequence[Mapping[str, Any]] = self._ask("conflicts", {"number": item.number, "open": False})
        return found[0] if found else None

    def _skip(self, item: Item) -> bool:
        if item.fate is not Fate.SETTLED:
            item.fate = Fate.SKIPPED
            self._say(say("review.skipped"), style="dim")
        self._at += 1
        return True

    def _go_back(self) -> bool:
        before = [at for at in range(self._at) if self._items[at].fate is not Fate.GONE]
        if not before:
            self._say(say("review.first"), style="yellow")
            return False
        self._at = before[-1]
        return True

    # -- a decision ---------------------------------------------------------------------------------------------------

    def _settle(self, item: Item, conflict: Mapping[str, Any], key: str, keep: int | None) -> bool:
        """Decide by a key. What is typed is asked for until it is taken: read as keys, a date would decide by its
        digits. False: back to the keys, which is said."""
        if keep is not None:
            return self._decide(item, conflict, {"keep": keep})
        choice = self._typed(conflict, key, {})
        while choice is not None:
            if self._decide(item, conflict, choice):
                return True
            self._terminal.forget()
            choice = self._typed(conflict, key, choice)
        self._say(say("review.left_as_is"), style="dim")
        return False

    def _typed(self, conflict: Mapping[str, Any], key: str, before: Mapping[str, Any]) -> dict[str, Any] | None:
        """What 'resolve' is to be asked; ``before`` was not taken. None: the person thought better of it."""
        self._say(say("review.new_id.how" if key == "n" else _how_typed(conflict)), style="dim")
        if key == "n":
            text = self._terminal.line(say("review.new_id")).strip()
            return None if text == BACK_TO_KEYS else {"new_id": text}
        if is_group(conflict):
            value: Any = self._group_value(conflict, before.get("value", {}))
        else:
            value = self._single_value(conflict)
        return None if value is None else {"value": value}

    def _single_value(self, conflict: Mapping[str, Any]) -> str | None:
        text = self._terminal.line(say("review.value", label=title_of(conflict))).strip()
        return None if text in ("", BACK_TO_KEYS) else _meant(text)

    def _group_value(self, conflict: Mapping[str, Any], before: Mapping[str, str]) -> dict[str, str] | None:
        """The fields that were typed, and those of ``before`` that were left; None where nothing was typed."""
        shown = [text for _label, text in parts_of(conflict, conflict["shown"])]
        value = {}
        for field, label, text in zip(conflict["fields"], part_labels(conflict), shown, strict=True):
            text = plain(before[field] or NO_VALUE) if field in before else text
            typed = self._terminal.line(say("review.group.value", label=label, shown=text)).strip()
            if typed == BACK_TO_KEYS:
                return None
            if typed:
                value[field] = _meant(typed)
        return {**before, **value} if value else None

    def _decide(self, item: Item, conflict: Mapping[str, Any], choice: Mapping[str, Any]) -> bool:
        """Ask the node for it, once; False: it was refused, which is said."""
        if item.fate is not Fate.SETTLED and (decided := self._settled_by(item)) is not None:
            item.fate = Fate.GONE
            self._say(say("review.gone.late", who=decided), style="yellow")
            return True
        wanted = {"keep": None, "value": None, "new_id": None, **choice}
        try:
            done = self._ask("resolve", {"number": item.number, **wanted, "by": self._by, "why": None})
        except ReplicationError as error:
            self._say(say("review.refused", reason=str(error).rstrip(".")), style="red")
            if error.hint:
                self._say(error.hint, style="dim")
            return False
        item.fate = Fate.SETTLED
        self._say(say("decided", what=outcome(conflict, done["value"])), style="green")
        if done["overturned"]:
            self._say(say("decided.overturned"), style="dim")
        return True

    def _settled_by(self, item: Item) -> str | None:
        """Who settled it while it was on the screen; None: it is still open."""
        found = self._look(item)
        if found is not None and found["state"] == "open":
            return None
        decided = None if found is None else found["decided"]
        return decider(decided) if decided else say("review.others")

    # -- what is printed ----------------------------------------------------------------------------------------------

    def _show(self, conflict: Mapping[str, Any], *, again: bool) -> None:
        place = say("review.place", place=self._at + 1, of=len(self._items), number=conflict["id"])
        self._print(Text(), Rule(Text(place, style="bold"), align="left", style="dim"))
        self._print(Text(who_of(conflict), style="bold"))
        self._print(Text(title_of(conflict), style="bold cyan"))
        self._print(*side_by_side(conflict, self._screen.width))
        if again:
            for line in [*decided_lines(conflict), say("review.again")]:
                self._say(line, style="yellow")
        self._legend(keys_of(conflict))

    def _legend(self, keys: Mapping[str, int | None]) -> None:
        """The keys on one line; a delete beside an edit has letters that say more than its numbers."""
        writes = [key for key in keys if key.isdecimal()] if "d" not in keys else []
        told = [(f"{writes[0]}-{writes[-1]}", say("review.key.writes"))] if writes else []
        told += [(key, say(f"review.key.{key}")) for key in [*keys, "s", "b", "?", "q"] if not key.isdecimal()]
        line = Text()
        for at, (key, means) in enumerate(told):
            line.append("   " if at else "").append(key, style="bold reverse").append(f" {means}", style="dim")
        self._print(line)

    def _help(self, keys: Mapping[str, int | None]) -> None:
        writes = [key for key in keys if key.isdecimal()]
        if writes:
            self._say(f"  {writes[0]}-{writes[-1]}  {say('review.help.writes')}")
        for key in [*keys, "s", "b", "q"]:
            if not key.isdecimal():
                self._say(f"  {key:>3}  {say(f'review.help.{key}')}")

    def _sum_up(self) -> None:
        fates = [item.fate for item in self._items]
        settled, skipped, left, others = (
            fates.count(each) for each in (Fate.SETTLED, Fate.SKIPPED, Fate.TODO, Fate.GONE)
        )
        self._say(say("review.end", settled=settled, skipped=skipped, left=left), style="bold")
        if others:
            self._say(say("review.end.others", count=others))
        if skipped or left:
            self._say(say("review.end.later"), style="dim")

    def _say(self, sentence: str, *, style: str = "") -> None:
        self._print(Text(plain(sentence), style=style))

    def _print(self, *lines: RenderableType) -> None:
        self._screen.print(*lines, sep="\n")


def _how_typed(conflict: Mapping[str, Any]) -> str:
    return "review.group.how" if is_group(conflict) else "review.value.how"


def _meant(typed: str) -> str:
    """What was typed as the node takes it: an empty text is no value."""
    return "" if typed == NO_VALUE else typed
