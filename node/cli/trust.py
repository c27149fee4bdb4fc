"""``dongbo recover``, ``rotate``, ``revoke``, ``approve``: keys and certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli import by_hand
from node.cli.at_rest import at_rest_of, secret_options
from node.cli.calling import HOME, JSON, clear_progress, execute, no_progress, show_json, teller
from node.messages import say

CA_KEY = click.option(
    "--ca-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The file of the CA key, where it is kept off this machine.",
)


@click.command()
@HOME
@JSON
@click.option("--from-parent", "invitation", help="What 'dongbo invite LABEL --recover' gave: the token, or its file.")
@click.option("--listen", help="Where to wait for this unit's own children, HOST:PORT; empty: it has none.")
@click.option("--address", help="What its children dial, where it differs from --listen.")
@click.option("--every", type=float, hidden=True)
@secret_options
def recover(
    home: Path,
    as_json: bool,
    invitation: str | None,
    listen: str | None,
    address: str | None,
    every: float | None,
    **at_rest: Any,
) -> None:
    """Begin anew with new keys, and take back what others hold of this unit.

    A node that finds that it was restored from an old copy does so by itself. With --from-parent a lost node is built
    anew on another machine, or the one of two copies that is to stay is told apart: the parent must approve it.

    \b
    On the parent:        dongbo invite LABEL --recover
    On the new machine:   dongbo recover --from-parent TOKEN
    """

    if invitation is None:
        _show_life(execute(home, "recover", {}, teller("sync.progress", silent=as_json)), as_json, "recover.here")
        return
    from node import recovery
    from node.invitation import read_token
    from node.logs import configure

    configure(quiet=True)
    schedule, wish = recovery.schedule_of(every), at_rest_of(**at_rest)
    done = asyncio.run(recovery.from_parent(home, read_token(invitation), listen, address, schedule, wish))
    if as_json:
        show_json(done)
        return
    click.echo(say("recover.done", unit=done["unit"], name=done["name"]))
    click.echo(say("recover.synced"))
    if done.get("counts_with_next_edit"):
        click.echo(say("look.next_edit"))
    click.echo(say("recover.next"))


@click.command()
@HOME
@JSON
def rotate(home: Path, as_json: bool) -> None:
    """Give this node a new key.

    After a machine was in strange hands, or as a habit. A service that runs goes on without a restart. What was signed
    with the old key stays valid.
    """
    _show_life(execute(home, "rotate", {}, teller("sync.progress", silent=as_json)), as_json, "rotate.done")


def _show_life(done: Mapping[str, Any], as_json: bool, key: str) -> None:
    clear_progress()
    if as_json:
        show_json(done)
        return
    click.echo(say(key, **done))
    if not done["certified"]:
        click.echo(say("rotate.waits", **done), err=True)


@click.command()
@HOME
@JSON
@click.argument("unit")
@click.option("--reason", required=True, help="Told to every node that has met this unit's batches.")
@click.option("--old-keys", is_flag=True, help="Only the keys it had before its present one.")
def revoke(home: Path, as_json: bool, unit: str, reason: str, old_keys: bool) -> None:
    """On the parent: end the keys of a unit whose machine was stolen or misused.

    UNIT is its full name, such as phu-vang.hue.vn, or its short one. What this node holds of it so far stays valid;
    what its keys sign from now on waits everywhere and changes nothing. 'dongbo invite LABEL --recover' lets the unit
    come back.
    """
    done = execute(home, "revoke", {"unit": unit, "reason": reason, "old_keys": old_keys}, no_progress)
    if as_json:
        show_json(done)
        return
    click.echo(say("revoke.done.former" if old_keys else "revoke.done", **done))
    if not old_keys:
        click.echo(say("revoke.next", label=unit.partition(".")[0], **done))


@click.command()
@HOME
@JSON
@CA_KEY
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the grant for FILE goes: a file on the stick.")
@click.option("--name", help="The unit's name as people know it, where it is not to be the one it asks for.")
@click.option("--recover", is_flag=True, help="The unit has a node, whose place the machine that asks is to take.")
@click.option("--yes", is_flag=True, help="The words were compared already: do not ask.")
def approve(
    home: Path,
    as_json: bool,
    ca_key: Path | None,
    file: Path | None,
    out: Path | None,
    name: str | None,
    recover: bool,
    yes: bool,
) -> None:
    """Certify what waits for the CA key, or a request that came by stick.

    Where the CA key is kept off the machine, requests of the units below wait until somebody brings it.

    FILE is what 'dongbo join --request' wrote on a machine that has no line. Its words are shown: compare them over the
    telephone. The grant is carried back, for 'dongbo join --grant'.

    \b
    dongbo approve /media/stick/request --out /media/stick/grant
    """
    if file is not None:
        if out is None:
            raise click.UsageError(say("approve.needs_out"))
        by_hand.approve(home, file, out, name, ca_key, recover=recover, yes=yes, as_json=as_json)
        return
    if out is not None or name is not None or recover or yes:
        raise click.UsageError(say("approve.needs_file"))
    done = execute(home, "approve", {"ca_key": None if ca_key is None else str(ca_key.resolve())}, no_progress)
    if as_json:
        show_json(done)
        return
    if not done["certified"]:
        click.echo(say("approve.nothing"))
    for each in done["certified"]:
        click.echo(say("approve.done", **each))
