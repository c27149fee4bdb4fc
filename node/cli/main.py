"""``dongbo``: the command line. Imports are kept late, so that help appears at once.

Role: options in, one command, an exit status: 0 done, 1 refused or failed, 2 usage.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from node import __version__
from node.cli.accidents import history, release, undo
from node.cli.at_rest import at_rest_of, encrypt, secret_options
from node.cli.audit import audit
from node.cli.backup import backup, restore
from node.cli.bulk import dump, load
from node.cli.calling import HOME, JSON, account, clear_progress, execute, no_progress, show_json, teller
from node.cli.carrying import export, import_
from node.cli.demo import demo
from node.cli.duplicates import duplicates
from node.cli.joining import join, schedule_of
from node.cli.journal import conflicts
from node.cli.proof import verify
from node.cli.quarantine import quarantine
from node.cli.registry import registry
from node.cli.trust import CA_KEY, approve, recover, revoke, rotate
from node.figures import decimal, number
from node.messages import say
from sync_engine.errors import BadInput


class Group(click.Group):
    """Turns typed errors into one line, and what to do, and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)  # in the order in which they are needed, not of the alphabet

    def invoke(self, ctx: click.Context) -> Any:
        from sync_engine.errors import ReplicationError

        answer = None
        try:
            answer = super().invoke(ctx)
        except ReplicationError as error:
            click.echo(say("error", message=error), err=True)
            if error.hint:
                click.echo(say("hint", hint=error.hint), err=True)
        except OSError as error:
            click.echo(say("error", message=f"{error.filename or ''}: {error.strerror}".lstrip(": ")), err=True)
        else:
            return answer
        return ctx.exit(1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dongbo")
def main() -> None:
    """Keeps a register of members in step between the units of an administration.

    \b
    A new tree:     dongbo init --unit vn --name "Trung ương" --address HOST:7470
    A unit below:   dongbo invite hue --name "Thành phố Huế"       (on the parent)
                    dongbo join TOKEN --home FOLDER                (on the new unit's machine)
    Every day:      dongbo run, dongbo status, dongbo conflicts
    """


@main.command()
@HOME
@click.option("--unit", "label", required=True, help="The root's short name, such as vn.")
@click.option("--name", required=True, help="Its name as people know it.")
@click.option("--listen", default="0.0.0.0:7470", show_default=True, help="Where to wait for children, HOST:PORT.")
@click.option("--address", default="", help="What children dial, where it differs from --listen.")
@click.option(
    "--registry", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Tables and fields, TOML."
)
@secret_options
@click.option("--every", type=float, hidden=True)
def init(
    home: Path,
    label: str,
    name: str,
    listen: str,
    address: str,
    registry: Path | None,
    every: float | None,
    **at_rest: Any,
) -> None:
    """Make the root of a new tree.

    It has the shipped register of members, unless --registry names another.
    """
    from node import setup
    from node.storage.audit import acting

    found = setup.read_registry(registry)
    with acting(account()):
        config = setup.init(
            home,
            label,
            name,
            found,
            listen=listen,
            address=address,
            schedule=schedule_of(every),
            at_rest=at_rest_of(**at_rest),
        )
    click.echo(say("init.done", unit=config.unit, name=config.name))
    click.echo(say("init.next"))


@main.command()
@HOME
@click.argument("label")
@click.option("--name", help="The unit's name as people know it.")
@click.option("--recover", is_flag=True, help="For a unit whose machine is lost or shut out: it may begin again.")
@click.option("--ttl", "ttl_hours", default=168.0, show_default=True, help="Hours until the invitation expires.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the invitation to a file.")
@CA_KEY
@JSON
def invite(
    home: Path,
    label: str,
    name: str | None,
    recover: bool,
    ttl_hours: float,
    out: Path | None,
    ca_key: Path | None,
    as_json: bool,
) -> None:
    """On the parent: invite a unit to join below it.

    LABEL is the unit's short name: phu-vang, invited on hue.vn, becomes phu-vang.hue.vn. The invitation is good for
    one machine, once. With --recover it is for 'dongbo recover --from-parent', and the unit keeps its name.
    """
    if name is None and not recover:
        raise click.UsageError("Missing option '--name'.")
    if out is not None and out.exists():
        raise BadInput(f"{out} is there already", hint="name another file, or take that one away first")
    asked = {"label": label, "name": name, "ttl_hours": ttl_hours, "recover": recover}
    asked["ca_key"] = None if ca_key is None else str(ca_key.resolve())
    made = execute(home, "invite", asked, no_progress)
    if out is not None:
        from node.platform import write_private

        write_private(out, made["token"].encode())
    if as_json:
        show_json(made)
        return
    if out is not None:
        click.echo(say("invite.written.recover" if made["recover"] else "invite.written", file=out))
        return
    until = datetime.fromisoformat(made["expires"]).astimezone().strftime("%d/%m/%Y %H:%M")
    click.echo(say("invite.done", unit=made["unit"], name=made["name"], until=until), err=True)
    click.echo(made["token"])
    click.echo(say("invite.next.recover" if made["recover"] else "invite.next"), err=True)


main.add_command(join)


@main.command()
@HOME
def run(home: Path) -> None:
    """Run the node: keep in step with the parent and the children.

    SIGTERM or Ctrl-C ends it cleanly.
    """
    from node.logs import configure
    from node.service import serve

    configure(quiet=False)
    asyncio.run(serve(home))


@main.command()
@HOME
@JSON
def sync(home: Path, as_json: bool) -> None:
    """One exchange with the parent now.

    Everything edited here goes up, everything new comes down.
    """
    from sync_engine.errors import ReplicationError

    try:
        done = execute(home, "sync", {}, teller("sync.progress", silent=as_json))
    except ReplicationError as error:
        clear_progress()
        if as_json:
            zero = dict.fromkeys(
                ("sent_batches", "sent_bytes", "received_batches", "received_bytes", "applied_rows", "conflicts"), 0
            )
            show_json({"ok": False, "peer": None, **zero, "seconds": 0.0, "error": str(error)})
        raise
    clear_progress()
    seconds = decimal(done["seconds"])
    if as_json:
        show_json(done)
    elif done["sent_batches"] or done["received_batches"]:
        words = {"peer": done["peer"], "sent": done["sent_batches"], "received": done["received_batches"]}
        click.echo(say("sync.done", **words, rows=number(done["applied_rows"]), seconds=seconds))
    else:
        click.echo(say("sync.same", peer=done["peer"], seconds=seconds))
    for reason in done["refused"] if not as_json else ():
        click.echo(say("sync.refused", reason=reason), err=True)
    if done["brakes"] and not as_json:
        click.echo(say("brake.holds"), err=True)
    if done["conflicts"] and not as_json:
        click.echo(say("sync.conflicts", count=done["conflicts"]))
    if not done["ok"]:
        raise SystemExit(1)


@main.command()
@HOME
@JSON
@click.option("--tree", is_flag=True, help="The units below as a tree.")
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
def status(home: Path, as_json: bool, tree: bool, watch: bool) -> None:
    """How this node stands, and what needs a person."""
    if as_json:
        show_json(execute(home, "status", {}, no_progress))
        return
    from node.cli.views import show_status

    show_status(lambda: execute(home, "status", {"brief": True}, no_progress), tree=tree, watch=watch)


main.add_command(verify)


@main.command()
@HOME
@JSON
def units(home: Path, as_json: bool) -> None:
    """The units this node knows of."""
    found = execute(home, "units", {}, no_progress)
    if as_json:
        show_json(found)
        return
    from node.cli.views import show_units

    show_units(found)


main.add_command(conflicts)
main.add_command(quarantine)
main.add_command(duplicates)
main.add_command(release)
main.add_command(undo)
main.add_command(history)
main.add_command(audit)
main.add_command(registry)
main.add_command(load)
main.add_command(dump)
main.add_command(export)
main.add_command(import_)
main.add_command(rotate)
main.add_command(recover)
main.add_command(revoke)
main.add_command(approve)
main.add_command(backup)
main.add_command(restore)
main.add_command(encrypt)
main.add_command(demo)
