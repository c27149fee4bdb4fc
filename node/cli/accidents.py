"""``dongbo release``, ``dongbo undo``, ``dongbo history``: accidents, and the life of one row."""

from __future__ import annotations

from pathlib import Path

import click

from node.cli.calling import HOME, JSON, clear_progress, execute, no_progress, show_json, teller
from node.figures import number as figure
from node.messages import say

NUMBER = click.argument("number", type=int, required=False)
ALL = click.option("--all", "all_of_them", is_flag=True, help="All that are pulled here.")


@click.command()
@HOME
@JSON
@NUMBER
@ALL
def release(home: Path, as_json: bool, number: int | None, all_of_them: bool) -> None:
    """Let an unusually large change go out after all.

    A sealing that deletes, or changes one field of, more than a twentieth of a unit's records stays on this machine
    until somebody has looked. NUMBER is the brake's, as 'dongbo status' shows it; where there is one, none is needed.
    """
    done = execute(home, "release", {"number": number, "all": all_of_them}, no_progress)
    if as_json:
        show_json(done)
        return
    click.echo(say("release.done", scopes=", ".join(done["scopes"])))


@click.command()
@HOME
@JSON
@NUMBER
@ALL
@click.option("--by", help="Who takes it back: told with the change, everywhere.")
def undo(home: Path, as_json: bool, number: int | None, all_of_them: bool, by: str | None) -> None:
    """Take an accident back that the brake holds.

    Every record gets back what it had before; what was edited since stays. Other units never see the accident's
    values, only that there was one, in the history. NUMBER is the brake's, as 'dongbo status' shows it.
    """
    arguments = {"number": number, "all": all_of_them, "by": by}
    done = execute(home, "undo", arguments, teller("undo.progress", silent=as_json))
    clear_progress()
    if as_json:
        show_json(done)
        return
    click.echo(say("undo.done", rows=figure(done["rows"]), scopes=", ".join(done["scopes"])))


@click.command()
@HOME
@JSON
@click.argument("table")
@click.argument("key", metavar="ID")
@click.option("--unit", help="Whose record, where several units have one under this id.")
def history(home: Path, as_json: bool, table: str, key: str, unit: str | None) -> None:
    """The life of one record, as the signed batches tell it.

    What was entered, changed and deleted, when, by which unit, and by whom where the program told.

    \b
    dongbo history member 17
    dongbo history member 17 --unit phu-vang.hue.vn
    """
    found = execute(home, "history", {"table": table, "key": key, "unit": unit}, no_progress)
    if as_json:
        show_json(found)
        return
    from node.cli.past import show_history

    show_history(found)
