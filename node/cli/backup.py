"""``dongbo backup`` and ``dongbo restore``: the options, the passphrase, and what is said when they have ended.

Role: ask for the passphrase and make a key of it; the passphrase goes no further than this process.
Reach: click, node.cli.calling; the rest late.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.at_rest import at_rest_of, secret_options
from node.cli.calling import HOME, JSON, clear_progress, execute, show_json, teller
from node.figures import day_and_minute, number, size
from node.messages import say

if TYPE_CHECKING:
    from node.secret import Source

PASSPHRASE_FILE = click.option(
    "--passphrase-file", type=click.Path(path_type=Path, dir_okay=False), help="Holds the backup's passphrase."
)
PASSPHRASE_ENV = click.option("--passphrase-env", default="", help="The environment variable that holds it.")
LAST_DAY = 10
"""Characters of dd/mm/yyyy."""


@click.command()
@HOME
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@PASSPHRASE_FILE
@PASSPHRASE_ENV
@JSON
def backup(home: Path, file: Path, passphrase_file: Path | None, passphrase_env: str, as_json: bool) -> None:
    """Save this node into one encrypted file, while it works.

    FILE holds the register, the settings and the keys, and opens with its passphrase alone: also on another machine,
    also when the secret of an encrypted home is lost. Without an option the passphrase is asked for.
    """
    from node.sealed_file import FileKey

    key = FileKey.draw(_passphrase(passphrase_file, passphrase_env, "backup.passphrase", twice=True))
    arguments = {"file": str(file.absolute()), "salt": key.salt.hex(), "key": key.key.hex()}
    tell = teller("backup.progress", silent=as_json)
    try:
        done = execute(home, "backup", arguments, lambda said: tell(_megabytes(**said)))
    finally:
        clear_progress()
    if as_json:
        show_json(done)
        return
    click.echo(say("backup.done", unit=done["unit"], file=file, size=size(done["bytes"])))
    click.echo(say("backup.next"))
    if not done["holds_ca"]:
        click.echo(say("backup.without_ca"))


@click.command()
@HOME
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@PASSPHRASE_FILE
@PASSPHRASE_ENV
@secret_options
@click.option("--plain", is_flag=True, help="Do not encrypt database and keys on this machine's disk.")
@JSON
def restore(
    home: Path,
    file: Path,
    passphrase_file: Path | None,
    passphrase_env: str,
    plain: bool,
    as_json: bool,
    **at_rest: Any,
) -> None:
    """Make a node out of a backup, in an empty home.

    The whole FILE is proven before anything is put in place. Unless told otherwise the home lies encrypted if the old
    one did, with the same secret. What happened since the backup comes back from parent and children by itself.
    """
    from node import restoring
    from node.config import AtRest
    from sync_engine.names import parent_of

    if plain and at_rest["encrypt"]:
        raise click.UsageError(say("restore.one_form"))
    asked = at_rest_of(**at_rest)
    passphrase = _passphrase(passphrase_file, passphrase_env, "restore.passphrase", twice=False)
    wish = asked if at_rest["encrypt"] else AtRest() if plain else None
    tell = teller("restore.progress", silent=as_json)
    try:
        done = restoring.restore(file, home, passphrase, wish, lambda *said: tell(_megabytes(*said)))
    finally:
        clear_progress()
    unit, at, parent = done.config.unit, day_and_minute(done.made_at_ms), parent_of(done.config.unit)
    if as_json:
        show_json({"unit": unit, "backup_at": done.made_at_ms, "at_rest": done.config.at_rest.database})
        return
    click.echo(say("restore.done", unit=unit, name=done.config.name, home=home, at=at))
    click.echo(say("restore.parent" if parent else "restore.root", day=at[:LAST_DAY], parent=parent))
    click.echo(say("restore.next"))


def _megabytes(done: int, of: int) -> dict[str, str]:
    return {"done": number(done // 1_000_000), "of": number(of // 1_000_000)}


def _passphrase(file: Path | None, env: str, asked: str, *, twice: bool) -> bytes:
    """From a file, the environment, or the person at the terminal. Raises NoSecret or BadSecret."""
    from node import secret

    if not file and not env:
        if not sys.stdin.isatty():
            raise click.UsageError(say("backup.asked"))
        typed = click.prompt(say(asked), hide_input=True, confirmation_prompt=twice, err=True)
        return secret.checked(os.fsencode(typed), _source("", ""), say("backup.typed"))
    return secret.read(_source(str(file.absolute()) if file else "", env), None)


def _source(file: str, env: str) -> Source:
    from node.secret import Source

    return Source("the passphrase of the backup", "--passphrase-file or --passphrase-env", file, env)
