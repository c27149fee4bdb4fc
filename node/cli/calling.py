"""What every command of the command line shares: its options, the way to the node, progress.

Role: run a command through the service if one runs on the home, else directly under the home's lock.
Reach: click; the rest is imported late, so that help appears at once.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from node.messages import say

HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="DONGBO_HOME",
    required=True,
    help="The node's home. DONGBO_HOME says it once for all commands.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


def execute(home: Path, name: str, arguments: Mapping[str, Any], progress: Callable[[Mapping[str, Any]], None]) -> Any:
    """Run a command through the service if one runs on the home, else directly under the home's lock."""
    return asyncio.run(_execute(home, name, arguments, progress))


async def _execute(
    home: Path, name: str, arguments: Mapping[str, Any], progress: Callable[[Mapping[str, Any]], None]
) -> Any:
    from node.private_socket import ask

    arguments = {**arguments, "who": account()}
    try:
        return await ask(home, name, arguments, progress)
    except ConnectionError:
        pass
    from node import platform
    from node.commands import commands
    from node.config import load
    from node.local import Node
    from node.logs import configure

    configure(quiet=True)
    load(home)  # says that there is no node before a lock file is made
    with platform.HomeLock(home):
        node = await Node.open(home)
        try:
            return await commands()[name](node, arguments, progress)
        finally:
            await node.close()


def account() -> str:
    """Whose account of this machine gives the command: who became the node's user by sudo is told as well."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        user = str(os.getuid()) if hasattr(os, "getuid") else ""
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} as {user}" if behind and behind != user else user


def show_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def no_progress(_progress: Mapping[str, Any]) -> None:
    """Where nobody is watching."""


def teller(key: str, *, silent: bool) -> Callable[[Mapping[str, Any]], None]:
    """Progress on one line of a terminal; silent for programs and files."""
    if silent or not sys.stderr.isatty():
        return no_progress

    def tell(progress: Mapping[str, Any]) -> None:
        click.echo("\r\x1b[K" + say(key, **progress), nl=False, err=True)

    return tell


def clear_progress() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
