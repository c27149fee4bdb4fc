"""``dongbo encrypt``, and the options that say where a home's secret comes from.

Role: options in, settings out.
Reach: click, node.at_rest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.calling import HOME
from node.messages import say

if TYPE_CHECKING:
    from node.config import AtRest

SECRET_FILE = click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Holds the secret; outside the home, on a key disk perhaps.",
)
SECRET_ENV = click.option("--secret-env", default="", help="The environment variable that holds the secret.")


def secret_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--encrypt`` with the two places that a secret may come from."""
    encrypt = click.option("--encrypt", is_flag=True, help="Encrypt database and keys on this machine's disk.")
    return encrypt(SECRET_FILE(SECRET_ENV(command)))


def at_rest_of(*, encrypt: bool, secret_file: Path | None, secret_env: str) -> AtRest:
    """Raises a usage error where the options do not fit together."""
    from node.config import ENCRYPTED, AtRest

    named = bool(secret_file) + bool(secret_env)
    if encrypt and named != 1:
        raise click.UsageError(say("encrypt.one_place"))
    if named and not encrypt:
        raise click.UsageError(say("encrypt.needs_flag"))
    if not encrypt:
        return AtRest()
    return AtRest(ENCRYPTED, str(secret_file.absolute()) if secret_file else "", secret_env)


@click.command()
@HOME
@SECRET_FILE
@SECRET_ENV
@click.option("--decrypt", is_flag=True, help="The other way: everything lies plain afterwards.")
@click.option("--show-key", is_flag=True, help="Print the database's key, for another program; change nothing.")
def encrypt(home: Path, secret_file: Path | None, secret_env: str, decrypt: bool, show_key: bool) -> None:
    """Encrypt this home's database and keys, or name another place of its secret.

    The service must be stopped, and no other program may have the database open. Cut off, it is finished by the next
    start. Other programs need the key from then on: see docs/at-rest.md.
    """
    from node import at_rest, config, platform, secret
    from node.config import AtRest

    config.load(home)  # says that there is no node before a lock file is made
    if (decrypt or show_key) and (secret_file or secret_env):
        raise click.UsageError(say("encrypt.decrypts"))
    if show_key:
        key = secret.vault(home).database_key
        click.echo(say("encrypt.no_key") if key is None else key.hex(), err=key is None)
        return
    wish = AtRest() if decrypt else at_rest_of(encrypt=True, secret_file=secret_file, secret_env=secret_env)
    with platform.HomeLock(home):
        at_rest.turn(home, wish)
    click.echo(say("encrypt.undone" if decrypt else "encrypt.done", home=home))
    if not decrypt:
        click.echo(say("encrypt.next"))
