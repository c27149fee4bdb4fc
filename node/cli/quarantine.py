"""``dongbo quarantine``: values that were held aside, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.calling import HOME, JSON, execute, no_progress, show_json
from node.cli.journal import BY, GROUP_HOME, NUMBER, WHY, home_of, refuse_stray
from node.messages import say


@click.group(invoke_without_command=True)
@GROUP_HOME
@JSON
@click.pass_context
def quarantine(ctx: click.Context, home: Path | None, as_json: bool) -> None:
    """Values that came signed and are held aside, with the reason.

    A code that is in no list here, a value that breaks a rule, a field that its writer may not change: the value is
    kept, the table shows the last good one, and the rest of the record goes on. A missing code that arrives lets its
    values in by itself; so does a later good change, which takes their place.

    \b
    dongbo quarantine                                      what is held here
    dongbo quarantine release 87120045331                  let it in
    dongbo quarantine refuse 87120045331 --why "sai mã"    it stays out; its unit can read why
    """
    if ctx.invoked_subcommand is not None:
        refuse_stray(ctx)
        return
    found = execute(home_of(home), "quarantine", {}, no_progress)
    if as_json:
        show_json(found)
        return
    from node.cli.journal_views import show_held

    show_held(found)


@quarantine.command("release")
@HOME
@JSON
@NUMBER
@BY
@WHY
def release_command(home: Path, as_json: bool, number: int, by: str | None, why: str | None) -> None:
    """Let a held value in, everywhere.

    \b
    dongbo quarantine release 87120045331 --by "Lê Thị Lan"
    """
    _decide(home, "release_held", {"number": number, "by": by, "why": why}, as_json=as_json)


@quarantine.command("refuse")
@HOME
@JSON
@NUMBER
@BY
@WHY
def refuse_command(home: Path, as_json: bool, number: int, by: str | None, why: str | None) -> None:
    """Refuse a held value, everywhere: what is shown stays.

    \b
    dongbo quarantine refuse 87120045331 --by "Lê Thị Lan" --why "không có mã này trong danh mục"
    """
    _decide(home, "refuse_held", {"number": number, "by": by, "why": why}, as_json=as_json)


def _decide(home: Path, command: str, arguments: dict[str, Any], *, as_json: bool) -> None:
    held = _find(home, arguments["number"])
    done = execute(home, command, arguments, no_progress)
    if as_json:
        show_json(done)
        return
    from node.cli.journal_views import title_of, value_text, who_of

    key = "held.released" if command == "release_held" else "held.refused"
    texts = {name: value_text(held, done[name]) for name in ("value", "shown")}
    click.echo(who_of(held))
    click.echo(say(key, label=title_of(held), **texts))


def _find(home: Path, number: int) -> Mapping[str, Any]:
    """The held value of a number. Raises BadInput where this node has none."""
    from sync_engine.errors import BadInput

    for held in execute(home, "quarantine", {}, no_progress):
        if held["id"] == number:
            return dict(held)
    raise BadInput(say("held.no_number", number=number), hint=say("held.no_number.hint"))
