"""``dongbo conflicts``: the journal, one conflict, a decision, and the review in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from node.cli.calling import HOME, JSON, execute, no_progress, show_json
from node.messages import say

DAYS = ("%d/%m/%Y", "%Y-%m-%d")
NUMBER = click.argument("number", type=int, metavar="N")
BY = click.option("--by", metavar="NAME", help="Who decides: told with the decision, everywhere.")
WHY = click.option("--why", metavar="TEXT", help="The reason: told with the decision, everywhere.")


class Day(click.ParamType[int]):
    """A day as people write it: the milliseconds of its beginning, local."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        for form in DAYS:
            try:
                return round(datetime.strptime(str(value), form).astimezone().timestamp() * 1000)
            except ValueError:
                continue
        return self.fail(say("since.bad", text=value), param, ctx)


def filters(command: Any) -> Any:
    """Which conflicts: the same for the list and for the review."""
    for option in (
        click.option("--since", type=Day(), help="Only those noted on that day or later: 24/11/2026 or 2026-11-24."),
        click.option("--field", help="Only this field, by name."),
        click.option("--table", help="Only this table."),
        click.option("--unit", help="Only records of this unit."),
    ):
        command = option(command)
    return command


def home_of(home: Path | None) -> Path:
    """What HOME requires, asked for only where the group itself is the command."""
    if home is None:
        raise click.MissingParameter(param_type="option", param_hint="--home")
    return home


def refuse_stray(ctx: click.Context) -> None:
    """An option in front of a subcommand would be forgotten: say where it belongs."""
    for param in ctx.command.params:
        if param.name and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            words = {"group": ctx.info_name, "command": ctx.invoked_subcommand, "option": param.opts[0]}
            raise click.UsageError(say("options.behind", **words))


GROUP_HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="DONGBO_HOME",
    help="The node's home. DONGBO_HOME says it once for all commands.",
)


@click.group(invoke_without_command=True)
@GROUP_HOME
@JSON
@click.option("--open", "only_open", is_flag=True, help="Only those that wait for a person here.")
@filters
@click.pass_context
def conflicts(
    ctx: click.Context,
    home: Path | None,
    as_json: bool,
    only_open: bool,
    unit: str | None,
    table: str | None,
    field: str | None,
    since: int | None,
) -> None:
    """Fields that two units changed without knowing of each other.

    What is shown, what is not, who wrote it and when, and the rule that decided. Some fields no rule may decide: they
    are open and wait for a person. A conflict has the same number at every unit, so two people on the telephone speak
    of one thing.

    \b
    dongbo conflicts                                      all, newest first
    dongbo conflicts --open --unit phu-vang.hue.vn        what waits, of one unit
    dongbo conflicts --field birth_date --since 01/11/2026
    dongbo conflicts review                               settle what is open, one after another
    """
    if ctx.invoked_subcommand is not None:
        refuse_stray(ctx)
        return
    asked = {"unit": unit, "table": table, "field": field, "since": since}
    found = execute(home_of(home), "conflicts", {**asked, "open": only_open, "number": None}, no_progress)
    if as_json:
        show_json(found)
        return
    from node.cli.journal_views import show_conflicts

    narrowed = any(each is not None for each in asked.values())
    nothing = "conflicts.none_open" if only_open else "conflicts.none"
    show_conflicts(found, nothing="conflicts.none_such" if narrowed else nothing)


@conflicts.command("show")
@HOME
@JSON
@NUMBER
def show_command(home: Path, as_json: bool, number: int) -> None:
    """One conflict: its values, who wrote them, the rule, and what was decided.

    \b
    dongbo conflicts show 219043332105
    """
    found = find(home, number)
    if as_json:
        show_json(found)
        return
    from node.cli.journal_views import show_conflict

    show_conflict(found)


@conflicts.command("resolve")
@HOME
@JSON
@NUMBER
@click.option("--keep", type=int, metavar="WRITE", help="Keep this write, by its number in the list.")
@click.option(
    "--value",
    "values",
    multiple=True,
    metavar="VALUE",
    help="Another value, as people write it; '' is no value. Fields that belong together: FIELD=VALUE, repeated.",
)
@click.option("--new-id", metavar="ID", help="Two people under one id: the second one's own; '' makes one.")
@BY
@WHY
def resolve_command(
    home: Path,
    as_json: bool,
    number: int,
    keep: int | None,
    values: tuple[str, ...],
    new_id: str | None,
    by: str | None,
    why: str | None,
) -> None:
    """Settle a conflict, or decide one anew that was settled before.

    The decision is an ordinary change: it travels with the next sync and can be replaced by another. Keeping what is
    shown settles too.

    \b
    dongbo conflicts resolve 219043332105 --keep 2 --by "Lê Thị Lan"
    dongbo conflicts resolve 219043332105 --value 12/03/1962 --why "căn cước"
    dongbo conflicts resolve 87120045331 --value "address_line=5 Lê Lợi" --value address_province=Huế
    dongbo conflicts resolve 5520917734 --new-id ""
    """
    if sum((keep is not None, bool(values), new_id is not None)) != 1:
        raise click.UsageError(say("resolve.one_of"))
    conflict = find(home, number)
    value = value_asked(conflict, values) if values else None
    arguments = {"number": number, "keep": keep, "value": value, "new_id": new_id, "by": by, "why": why}
    done = execute(home, "resolve", arguments, no_progress)
    if as_json:
        show_json(done)
        return
    from node.cli.journal_views import outcome, who_of

    click.echo(who_of(conflict))
    click.echo(say("decided", what=outcome(conflict, done["value"])))
    if done["overturned"]:
        click.echo(say("decided.overturned"))


@conflicts.command("review")
@HOME
@filters
@BY
def review_command(
    home: Path, unit: str | None, table: str | None, field: str | None, since: int | None, by: str | None
) -> None:
    """Settle what is open in the terminal, one after another.

    The values stand side by side, with who wrote them and when. A key decides: the number of the one that is right,
    or 'v' to type another value. '?' explains the keys, 'b' goes back, 'q' leaves; what was decided stays decided.

    \b
    dongbo conflicts review --by "Lê Thị Lan"
    dongbo conflicts review --unit phu-vang.hue.vn
    """
    from sync_engine.errors import BadInput

    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise BadInput(say("review.no_terminal"), hint=say("review.no_terminal.hint"))
    from node.cli.review import Keyboard, Review
    from node.cli.views import console

    def ask(name: str, arguments: Mapping[str, Any]) -> Any:
        return execute(home, name, arguments, no_progress)

    asked = {"unit": unit, "table": table, "field": field, "since": since, "number": None}
    Review(ask, Keyboard(), console(), filters=asked, by=by).run()


def find(home: Path, number: int) -> Mapping[str, Any]:
    """The conflict of a number. Raises BadInput where this node has none."""
    from sync_engine.errors import BadInput

    arguments = {"open": False, "unit": None, "table": None, "field": None, "since": None, "number": number}
    found: Sequence[Mapping[str, Any]] = execute(home, "conflicts", arguments, no_progress)
    if not found:
        raise BadInput(say("conflicts.no_number", number=number), hint=say("conflicts.no_number.hint"))
    return found[0]


def value_asked(conflict: Mapping[str, Any], values: Sequence[str]) -> str | dict[str, str]:
    """One text, or a text for each field of a group. Raises click.UsageError."""
    if len(values) == 1 and len(conflict["fields"]) <= 1:
        return values[0]
    parts: dict[str, str] = {}
    for each in values:
        field, equals, text = each.partition("=")
        if not equals:
            raise click.UsageError(say("resolve.pair", fields=", ".join(conflict["fields"])))
        if field in parts:
            raise click.UsageError(say("resolve.twice", field=field))
        parts[field] = text
    return parts
