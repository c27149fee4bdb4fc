"""``dongbo join``: with an invitation over a line, or by stick in three steps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli import by_hand
from node.cli.at_rest import at_rest_of, secret_options
from node.cli.calling import HOME, account
from node.messages import say

if TYPE_CHECKING:
    from node.config import AtRest, Schedule

FILE = click.Path(path_type=Path)


def schedule_of(every: float | None) -> Schedule:
    """As a new node has it, or for tests a shorter one."""
    from node.config import Schedule

    return Schedule() if every is None else Schedule(every_s=every, jitter_s=min(5.0, every / 10))


@click.command()
@HOME
@click.argument("invitation", required=False)
@click.option("--request", "request_file", type=FILE, help="Without a line, first: write a request into this file.")
@click.option("--unit", default="", help="For --request: this unit's full path, or its label with --parent.")
@click.option("--parent", default="", help="For --request: the full path of the unit above.")
@click.option("--name", default="", help="For --request: the unit's name as people know it.")
@click.option("--grant", "grant_file", type=FILE, help="Without a line, at last: join with the grant in this file.")
@click.option("--out", type=FILE, help="For --grant: where the answer goes; else beside the grant.")
@click.option("--yes", is_flag=True, help="For --grant: the words were compared already; do not ask.")
@click.option("--listen", default="", help="Where to wait for this unit's own children, HOST:PORT; empty: it has none.")
@click.option("--address", default="", help="What its children dial, where it differs from --listen.")
@secret_options
@click.option("--every", type=float, hidden=True)
def join(
    home: Path,
    invitation: str | None,
    request_file: Path | None,
    grant_file: Path | None,
    unit: str,
    parent: str,
    name: str,
    out: Path | None,
    yes: bool,
    listen: str,
    address: str,
    every: float | None,
    **at_rest: Any,
) -> None:
    """On the new unit's machine: join with an invitation, or by stick.

    INVITATION is the token itself, or the file that holds it. Without a line between the units, three files are carried
    and two telephone calls made:

    \b
    here:           dongbo join --request /media/stick/request --unit phu-vang.hue.vn --name "Huyện Phú Vang"
    on the parent:  dongbo approve /media/stick/request --out /media/stick/grant
    here:           dongbo join --grant /media/stick/grant      (then carry the answer to the parent)
    """
    wish = at_rest_of(**at_rest)
    if sum(each is not None for each in (invitation, request_file, grant_file)) != 1:
        raise click.UsageError(say("join.which"))
    _check_fit(
        {"--unit": unit, "--parent": parent, "--name": name} if request_file is None else {},
        {"--out": out, "--yes": yes} if grant_file is None else {},
        {"--listen": listen, "--address": address} if request_file is not None else {},
        what="--request" if request_file else "--grant" if grant_file else "INVITATION",
    )
    if request_file is not None:
        if not unit or not name:
            raise click.UsageError(say("join.request_needs"))
        by_hand.request(home, request_file, unit, parent, name, wish)
    elif grant_file is not None:
        settings: dict[str, Any] = {"listen": listen, "address": address, "schedule": schedule_of(every)}
        by_hand.join(home, grant_file, out, yes=yes, at_rest=wish, **settings)
    elif invitation is not None:
        _with_invitation(home, invitation, listen, address, schedule_of(every), wish)


def _check_fit(*options: dict[str, Any], what: str) -> None:
    """Raises a usage error for an option that would be passed over in silence."""
    for option, value in ((option, value) for some in options for option, value in some.items()):
        if value:
            raise click.UsageError(say("join.not_with", option=option, what=what))


def _with_invitation(
    home: Path, invitation: str, listen: str, address: str, schedule: Schedule, at_rest: AtRest
) -> None:
    from node import setup
    from node.invitation import read_token
    from node.storage.audit import acting

    token = read_token(invitation)
    joining = setup.join(home, token, listen=listen, address=address, schedule=schedule, at_rest=at_rest)
    with acting(account()):
        config = asyncio.run(joining)
    click.echo(say("join.done", unit=config.unit, name=config.name))
    click.echo(say("join.next"))
