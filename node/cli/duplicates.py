"""``dongbo duplicates``: persons who may have been entered twice, for a clerk to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.calling import HOME, JSON, execute, no_progress, show_json
from node.figures import day, number
from node.messages import say

SHOWN_MAX = 100


@click.command()
@HOME
@JSON
@click.argument("table", required=False)
@click.option("--all", "below", is_flag=True, help="Also those that a unit below this one sees and should look at.")
@click.option("--limit", type=click.IntRange(min=1), help="List at most so many numbers.  [100; as JSON 1000]")
def duplicates(home: Path, as_json: bool, table: str | None, below: bool, limit: int | None) -> None:
    """Records that share a number which belongs to one person.

    Each is listed at the lowest unit that stands above all its records. Nothing is blocked or deleted by itself.

    \b
    dongbo duplicates
    dongbo duplicates member --all
    """
    arguments = {"table": table, "all": below, "limit": limit or (None if as_json else SHOWN_MAX)}
    answer = execute(home, "duplicates", arguments, no_progress)
    if as_json:
        show_json(answer["found"])
    else:
        show_duplicates(answer, below=below)
    if answer["more"]:
        click.echo(say("duplicates.more", count=number(len(answer["found"]))), err=as_json)


def show_duplicates(answer: Mapping[str, Any], *, below: bool) -> None:
    """A block for each number: whose records, and how to tell the persons apart."""
    from rich.text import Text

    from node.cli.views import console, show

    screen = console()
    if not answer["fields"]:
        show(screen, say("duplicates.no_fields"))
    elif not answer["found"]:
        show(screen, say("duplicates.none_all" if below else "duplicates.none"))
    for each in answer["found"]:
        name = each["label"] or each["field"]
        head = Text(say("duplicates.value", label=name, value=each["value"]), style="bold")
        head.append(f"  {say('duplicates.where', rows=number(each['count']), unit=each['at'])}", style="not bold dim")
        show(screen, head, _rows(each, answer["dates"][each["table"]]))
    if answer["found"]:
        show(screen, say("duplicates.next"))


def _rows(found: Mapping[str, Any], dates: list[str]) -> Any:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for _ in range(2 + max(len(each["row"]) for each in found["rows"])):
        grid.add_column(overflow="fold")
    for each in found["rows"]:
        cells = [_cell(value, is_date=label in dates) for label, value in each["row"].items()]
        grid.add_row(f"    {each['unit']}", each["key"], *cells)
    if found["count"] > len(found["rows"]):
        grid.add_row("    " + say("duplicates.more_rows", count=number(found["count"] - len(found["rows"]))))
    return grid


def _cell(value: Any, *, is_date: bool) -> str:
    if value is None:
        return ""
    return day(value) if is_date else str(value)
