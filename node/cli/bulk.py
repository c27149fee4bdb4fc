"""``dongbo load`` and ``dongbo dump`` on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.calling import HOME, JSON, clear_progress, execute, no_progress, show_json, teller
from node.figures import decimal, number
from node.messages import say

SHOWN_MAX = 20

_IN = click.Path(path_type=Path, exists=True, dir_okay=False)
_OUT = click.Path(path_type=Path, dir_okay=False)


@click.command()
@HOME
@click.argument("table")
@click.argument("file", type=_IN)
@click.option("--sheet", help="The sheet of a workbook; the first, if not said.")
@click.option("--skip", multiple=True, metavar="COLUMN", help="A column of the file to leave out. May be repeated.")
@click.option("--by", metavar="NAME", help="Who made these changes: 'edited_by' of all rows that change.")
@click.option("--errors", type=_OUT, help="Write all faults into a CSV file.")
@JSON
def load(
    home: Path,
    table: str,
    file: Path,
    sheet: str | None,
    skip: tuple[str, ...],
    by: str | None,
    errors: Path | None,
    as_json: bool,
) -> None:
    """Enter or change many rows from a CSV or .xlsx file.

    The first row names the columns, by field name or by label; 'id' (Mã) must be among them, and 'unit' (Đơn vị)
    unless all rows are this node's own. A row that is here already is changed where it differs; an empty cell clears
    the value, and a column that the file does not have stays as it is. A line with a fault is kept out and reported,
    the others go in, all at once. Running it again is harmless.

    \b
    dongbo load member members.csv
    dongbo load member members.xlsx --sheet "Tháng 11" --by "Lê Thị Lan"
    """
    arguments = {
        "table": table,
        "file": str(file.absolute()),
        "sheet": sheet,
        "skip": list(skip),
        "by": by,
        "errors": None if errors is None else str(errors.absolute()),
    }
    try:
        done = execute(home, "load", arguments, _load_teller(silent=as_json))
    finally:
        clear_progress()
    if as_json:
        show_json({key: value for key, value in done.items() if key != "labels"})
        return
    _show_load(done, errors)


def _load_teller(*, silent: bool) -> Callable[[Mapping[str, Any]], None]:
    reading, writing = teller("load.reading", silent=silent), teller("load.writing", silent=silent)
    if reading is no_progress:
        return no_progress

    def tell(progress: Mapping[str, Any]) -> None:
        if "writing" in progress:
            writing({"rows": number(progress["writing"]), "of": number(progress["of"])})
        else:
            size = progress["size"]
            read = f" ({100 * progress['position'] // size} %)" if size else ""
            reading({"rows": number(progress["reading"]), "read": read})

    return tell


def _show_load(done: Mapping[str, Any], errors: Path | None) -> None:
    figures = {key: number(done[key]) for key in ("rows", "inserted", "updated", "unchanged")}
    click.echo(say("load.done", **figures, seconds=decimal(done["seconds"])))
    for key in ("cleared", "padded"):
        if done[key]:
            click.echo(say(f"load.{key}", count=number(done[key])))
    if not done["rejected_rows"]:
        return
    said = say("load.rejected", rows=number(done["rejected_rows"]), of=number(done["rows"]))
    click.echo(click.style(said, fg="red", bold=True), err=True)
    _show_rejected(done)
    if errors is not None:
        click.echo(say("load.errors_written", file=errors), err=True)


def _show_rejected(done: Mapping[str, Any]) -> None:
    """The first faults as a table, on standard error."""
    rows = [(say("load.column.line"), say("load.column.field"), say("load.column.reason"))]
    for each in done["rejected"][:SHOWN_MAX]:
        label = done["labels"].get(each["field"], each["field"]) if each["field"] else say("load.whole_row")
        rows.append((str(each["line"]), label, each["reason"]))
    wide = [max(len(row[at]) for row in rows) for at in range(2)]
    for line, label, reason in rows:
        click.echo(f"  {line:>{wide[0]}}  {label:<{wide[1]}}  {reason}", err=True)
    more = done["faults"] - min(SHOWN_MAX, len(done["rejected"]))
    if more > 0:
        click.echo(say("load.more", count=number(more)), err=True)


@click.command()
@HOME
@click.argument("table")
@click.argument("file", type=_OUT)
@click.option("--labels", is_flag=True, help="Labels instead of field names, dates as dd/mm/yyyy: for people.")
@click.option("--unit", help="Only the rows of this unit and of those below it.")
@JSON
def dump(home: Path, table: str, file: Path, labels: bool, unit: str | None, as_json: bool) -> None:
    """Write a table's rows into a CSV file that Excel opens and 'load' takes back.

    It holds what people trusted the register with, so its owner alone may read it.
    """
    arguments = {"table": table, "file": str(file.absolute()), "labels": labels, "unit": unit}
    tell = teller("dump.progress", silent=as_json)
    try:
        done = execute(home, "dump", arguments, lambda said: tell({"rows": number(said["rows"])}))
    finally:
        clear_progress()
    if as_json:
        show_json(done)
    else:
        click.echo(say("dump.done", rows=number(done["rows"]), table=done["table"], file=file))
