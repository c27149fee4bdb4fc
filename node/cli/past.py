"""A record's life in the terminal: one block an event, oldest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from node.cli.views import console, show, value_of
from node.figures import day_and_time
from node.messages import plain, say

COLOURS = {"insert": "green", "edit": "", "delete": "red", "revive": "green"}


def show_history(found: Mapping[str, Any]) -> None:
    """Events with their fields; what could not be read is said at the end."""
    screen = console()
    if not found["events"]:
        show(screen, say("history.none", **found))
    for event in found["events"]:
        head = Text(day_and_time(event["at"]), style="bold")
        head.append(f"  {say('history.' + event['kind'])}", style=f"not bold {COLOURS[event['kind']]}".strip())
        head.append(f"  {event['unit']} ({event['level']})", style="not bold")
        if event["person"]:
            head.append(f"  {event['person']}", style="not bold")
        if event["last_editor"]:
            head.append(f"  {say('history.last_editor', person=event['last_editor'])}", style="not bold dim")
        if event["state"] == "waiting":
            head.append(f"  {say('history.waiting')}", style="not bold yellow")
        if not event["proven"]:
            head.append(f"  {say('history.unproven')}", style="bold red")
        show(screen, head, *_decision(event["decision"]), _fields(event))
    for key in ("damaged", "unknown"):
        if found[key]:
            show(screen, Text(say(f"history.{key}", count=found[key]), style="yellow"))


def _decision(decision: Mapping[str, Any] | None) -> list[Text]:
    """What a person decided with the event, if it is one."""
    if decision is None:
        return []
    lines = [say(f"history.{decision['act']}", number=decision["number"])]
    lines += [say("conflict.why", why=plain(decision["why"]))] if decision["why"] else []
    return [Text("    " + line) for line in lines]


def _fields(event: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in event["changes"].items():
        if isinstance(value, dict):
            parts = [f"+ {each}" for each in value["added"]] + [f"- {each}" for each in value["removed"]]
            table.add_row(f"    {name}", ", ".join(parts) or say("history.nothing"))
        else:
            table.add_row(f"    {name}", say("history.nothing") if value is None else value_of(value))
    for name in event["withheld"]:
        table.add_row(f"    {name}", say("history.withheld"))
    return table
