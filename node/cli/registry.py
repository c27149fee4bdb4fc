"""``dongbo registry``: show what is in force, look at a plan, apply it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.calling import HOME, JSON, execute, no_progress, show_json
from node.figures import number
from node.messages import say

FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
ACCESS = ("reads", "hidden", "may_change", "no_longer_changes")


@click.group()
def registry() -> None:
    """The registry: what tables and fields there are, for all units.

    The root publishes a new version with 'apply FILE'; it travels like data. Elsewhere it changes the tables as it
    arrives, or, where node.toml says registry = "by hand", with 'apply'.
    """


@registry.command("show")
@HOME
@JSON
def show_command(home: Path, as_json: bool) -> None:
    """The version in force here, its tables and fields, and newer versions that wait."""
    found = execute(home, "registry_show", {}, no_progress)
    if as_json:
        show_json(found)
        return
    _show_registry(found)


@registry.command("plan")
@HOME
@JSON
@FILE
def plan_command(home: Path, as_json: bool, file: Path | None) -> None:
    """What a new version would change. Nothing is changed by this.

    FILE is the new text; without it, the newest version that has come and waits here. Ends with 1 where data would be
    lost: such a version is refused.
    """
    made = execute(home, "registry_plan", _text(file), no_progress)
    if as_json:
        show_json(made)
    else:
        _show_plan(made)
    if not made["ok"]:
        raise SystemExit(1)


@registry.command("apply")
@HOME
@JSON
@FILE
@click.option("--yes", is_flag=True, help="Do not ask: the plan is shown and carried out.")
def apply_command(home: Path, as_json: bool, file: Path | None, yes: bool) -> None:
    """Bring a new version into force; the plan is shown first.

    \b
    At the root:    dongbo registry apply FILE     publishes it for all units
    Elsewhere:      dongbo registry apply          the newest version that has come and waits here
    """
    text = _text(file)
    made = execute(home, "registry_plan", text, no_progress)
    if not as_json or not yes:
        _show_plan(made, aside=as_json)
    if not made["ok"]:
        if as_json:
            show_json({"ok": False, "version": made["from"], "refused": made["refused"]})
        raise SystemExit(1)
    if made["to"] is None:
        if as_json:
            show_json({"ok": True, "version": made["from"], "published": False, "applied_batches": 0})
        return
    if not yes:
        _ask(made["to"], publishes=file is not None)
    done = execute(home, "registry_apply", {**text, "from": made["from"], "to": made["to"]}, no_progress)
    if as_json:
        show_json(done)
    elif done["published"]:
        click.echo(say("registry.apply.published", version=done["version"]))
    else:
        batches = number(done["applied_batches"])
        click.echo(say("registry.apply.done", version=done["version"], batches=batches))


def _text(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    from node.setup import read_text

    return {"toml": read_text(file)}


def _ask(version: int, *, publishes: bool) -> None:
    """Nothing happens without a yes; where nobody can be asked, the option is the yes."""
    if not sys.stdin.isatty():
        raise click.UsageError(say("registry.apply.needs_yes"))
    if not click.confirm(
        say("registry.apply.ask_publish" if publishes else "registry.apply.ask", version=version), err=True
    ):
        click.echo(say("registry.apply.left"), err=True)
        raise SystemExit(1)


def _show_plan(made: Mapping[str, Any], *, aside: bool = False) -> None:
    """In words; ``aside``: on standard error, because the other is for a program."""
    if made["to"] is None:
        click.echo(say("registry.plan.nothing", version=made["from"]), err=aside)
        for each in made["newer"]:
            click.echo(say(f"look.registry.{each['standing']}", **each), err=aside)
        return
    lines = [change_in_words(change) for change in made["changes"]] or [say("registry.plan.same")]
    lines += [
        say(f"registry.access.{what}", level=each["level"], fields=", ".join(each[what]))
        for each in made["levels"]
        for what in ACCESS
        if each[what]
    ]
    click.echo(say("registry.plan.title", before=made["from"], after=made["to"]), err=aside)
    for line in lines:
        click.echo("  " + line, err=aside)
    if made["waiting_batches"]:
        click.echo(say("registry.plan.batches", batches=number(made["waiting_batches"])), err=aside)
    if made["refused"]:
        click.echo(say("registry.plan.refused"), err=True)
        for each in made["refused"]:
            click.echo("  " + say("registry.plan.refusal", **each), err=True)


def change_in_words(change: Mapping[str, Any]) -> str:
    """One change as a sentence; a level that is not named is everybody."""
    said = dict(change)
    if said["kind"] == "write from":
        said["before"], said["after"] = (
            say("registry.write_from", level=level) if level else say("registry.all")
            for level in (said["before"], said["after"])
        )
    return say(f"registry.change.{said.pop('kind')}", **said)


def _show_registry(found: Mapping[str, Any]) -> None:
    from rich.table import Table

    from node.cli.views import console, show

    if not found["version"]:
        click.echo(say("registry.none", unit=found["unit"]))
        return
    click.echo(say("registry.in_force", **found))
    click.echo(say(f"registry.mode.{found['mode']}"))
    for each in found["newer"]:
        click.echo(say(f"look.registry.{each['standing']}", **each))
    screen = console()
    for each in found["tables"]:
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
        for key in ("field", "label", "type", "merge", "read", "write"):
            table.add_column(say(f"registry.column.{key}"), overflow="fold")
        for field in each["fields"]:
            reads, writes = field["read_up_to"], field["write_from"]
            table.add_row(
                field["name"],
                field["label"],
                f"{field['type']}, {say('registry.identifies')}" if field["identifies"] else field["type"],
                field["merge"],
                say("registry.read_up_to", level=reads) if reads else say("registry.all"),
                say("registry.write_from", level=writes) if writes else say("registry.all"),
            )
        click.echo()
        click.echo(f"{each['name']}: {each['label']}")
        if each["read_up_to"]:
            up_to = say("registry.read_up_to", level=each["read_up_to"])
            click.echo(say("registry.table_read_up_to", up_to=up_to))
        show(screen, table)
