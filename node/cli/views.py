"""What people see in a terminal: tables and sentences, nothing a program should parse.

Role: status, conflicts and units in words, times as Vietnamese readers write them.
Reach: rich, node.messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from node.messages import say

COLOURS = {"ok": "green", "late": "yellow", "never": "yellow", "failing": "red", "stale": "red", "fenced": "bold red"}
WATCH_S = 2.0
JOURNAL_ROWS = 50


def moment(milliseconds: int | None) -> str:
    """A time of day, with its date where that is not today."""
    if milliseconds is None:
        return say("never")
    at = datetime.fromtimestamp(milliseconds / 1000).astimezone()
    today = datetime.now().astimezone().date() == at.date()
    return at.strftime("%H:%M:%S" if today else "%d/%m/%Y %H:%M")


def show_status(read: Callable[[], dict[str, Any]], *, tree: bool, watch: bool) -> None:
    """``status`` for people; ``watch`` repeats it until Ctrl-C."""
    console = Console()
    if not watch:
        console.print(_status(read(), tree=tree))
        return
    try:
        with Live(_status(read(), tree=tree), console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(WATCH_S)
                live.update(_status(read(), tree=tree), refresh=True)
    except KeyboardInterrupt:
        return


def _status(status: Mapping[str, Any], *, tree: bool) -> RenderableType:
    unit = status["unit"]
    body = Table.grid(padding=(0, 2))
    body.add_column(style="dim")
    body.add_column()
    body.add_row(say("status.service"), say("status.runs" if status["running"] else "status.rests"))
    records = ", ".join(f"{count:,} {table}" for table, count in status["records"].items())
    body.add_row(say("status.records"), records)
    body.add_row(say("status.parent"), _parent(status["parent"]))
    body.add_row(say("status.to_send"), _to_send(status))
    for line in attention(status):
        body.add_row(Text(say("status.look"), style="bold yellow"), Text(line, style="yellow"))
    title = f"{unit['name']}  ·  {unit['id']}  ·  {unit['level']}"
    grid = Table.grid()
    grid.add_row(Panel(body, title=title, title_align="left", expand=False))
    if status["children"]:
        grid.add_row(_tree(status) if tree else _children(status["children"]))
    return grid


def _parent(parent: Mapping[str, Any] | None) -> Text:
    if parent is None:
        return Text(say("status.root"))
    text = Text(f"{parent['unit']} ({parent['address']})  ")
    text.append(say(f"state.{parent['state']}"), style=COLOURS.get(parent["state"], ""))
    text.append("  " + say("status.last", at=moment(parent["last_sync_at"])))
    if parent["last_error"]:
        text.append("\n" + parent["last_error"], style="red")
    return text


def _to_send(status: Mapping[str, Any]) -> str:
    if not status["pending_changes"] and not status["unsent_batches"]:
        return say("status.nothing")
    return say("status.unsent", pending=status["pending_changes"], batches=status["unsent_batches"])


def attention(status: Mapping[str, Any]) -> list[str]:
    """What needs a person, one sentence each with what to do."""
    lines = []
    if status["fenced"]:
        lines.append(say("look.fenced", reason=status["fenced"]))
    if status["conflicts_open"]:
        lines.append(say("look.conflicts", count=status["conflicts_open"]))
    if status["held"]:
        lines.append(say("look.held", count=status["held"]))
    if status["waiting_batches"]:
        causes = ", ".join(cause for each in status["waiting_for"] for cause in each["for"])
        lines.append(say("look.waiting", count=status["waiting_batches"], causes=causes))
    lines += [say("look.left", **each) for each in status["left_streams"]]
    lines += [say("look.set_aside", **each) for each in status["set_aside"][:5]]
    parent = status["parent"]
    skew = parent["clock_skew_ms"] if parent else None
    if skew is not None and abs(skew) > 5 * 60 * 1000:
        lines.append(say("look.clock", minutes=round(abs(skew) / 60_000)))
    return lines


def _children(children: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim", title=say("status.children"), title_justify="left")
    for name in ("unit", "name", "state", "last seen", "to fetch", "remark"):
        table.add_column(name)
    for child in children:
        table.add_row(
            child["unit"],
            child["name"],
            Text(say(f"state.{child['state']}"), style=COLOURS.get(child["state"], "")),
            moment(child["last_seen_at"]),
            f"{child['behind_batches']} batches" if child["behind_batches"] else "-",
            child["last_error"] or "",
        )
    return table


def _tree(status: Mapping[str, Any]) -> Tree:
    root = Tree(f"{status['unit']['name']} ({status['unit']['id']})")
    for child in status["children"]:
        label = Text(f"{child['name']} ({child['unit']})  ")
        label.append(say(f"state.{child['state']}"), style=COLOURS.get(child["state"], ""))
        root.add(label)
    return root


def show_conflicts(found: Sequence[Mapping[str, Any]]) -> None:
    """The journal for people: newest first."""
    console = Console()
    if not found:
        console.print(say("conflicts.none"))
        return
    for each in found[:JOURNAL_ROWS]:
        head = Text(f"{each['id']}  ", style="bold")
        head.append(f"{each['table']}/{each['key']} {each['field']}  {each['scope']}  ", style="")
        head.append(say(f"conflict.{each['state']}"), style="yellow" if each["state"] == "open" else "green")
        head.append(f"  ({each['policy']})", style="dim")
        console.print(head)
        for write in each["writes"]:
            mark = say("conflict.won") if write["won"] else say("conflict.lost")
            console.print(f"    {mark:5} {_value(write['value'])!s:30} {write['origin']}  {moment(write['at'])}")
    if len(found) > JOURNAL_ROWS:
        console.print(say("conflicts.more", count=len(found) - JOURNAL_ROWS))


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)


def show_units(found: Sequence[Mapping[str, Any]]) -> None:
    """The units known here, each under its parent."""
    console = Console()
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("unit", "name", "level", "node"):
        table.add_column(name)
    for each in found:
        depth = each["unit"].count(".")
        node = say("unit.has_node") if each["has_node"] else say("unit.no_node")
        if each["invited_until_ms"]:
            node = say("unit.invited", until=moment(each["invited_until_ms"]))
        table.add_row("  " * depth + each["unit"], each["name"], each["level"], node)
    console.print(table)
