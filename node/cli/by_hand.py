"""``join --request``, ``approve FILE`` and ``join --grant``: a unit joins by stick.

Role: show who asks and the words that two people compare over the telephone, ask, and do it.
Reach: click; the rest is imported late, so that help appears at once. Invariant: what was shown is what is done.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.calling import account, clear_progress, execute, no_progress, show_json, teller
from node.figures import number, size
from node.messages import say
from sync_engine.errors import BadInput

if TYPE_CHECKING:
    from node.config import AtRest, Schedule


def request(home: Path, file: Path, unit: str, parent: str, name: str, at_rest: AtRest) -> None:
    """On the new unit's machine, first."""
    from node import joining
    from sync_engine.words import words_of

    asked = joining.request(home, joining.unit_of(unit, parent), name, file.absolute(), at_rest)
    click.echo(say("request.done", unit=asked.unit, name=asked.name, file=file))
    _show_words(words_of(asked.digest))
    click.echo(say("request.next"))


def approve(
    home: Path,
    file: Path,
    out: Path,
    name: str | None,
    ca_key: Path | None,
    *,
    recover: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """On the parent: compare, certify, write the grant."""
    from node.grant_file import read_request

    asked: dict[str, Any] = {"request": base64.b64encode(read_request(file)).decode(), "file": file.name}
    asked |= {"name": name, "recover": recover, "out": str(out.absolute())}
    asked["ca_key"] = None if ca_key is None else str(ca_key.resolve())
    found = execute(home, "look_at_request", asked, no_progress)
    click.echo(say("approve.asks.recover" if recover else "approve.asks", **found), err=True)
    _show_words(found["words"], err=True)
    _compare("approve.compare", yes=yes)
    try:
        done = execute(home, "approve_request", asked, teller("sync.progress", silent=as_json))
    finally:
        clear_progress()
    if as_json:
        show_json({**done, "request_words": found["words"]})
        return
    click.echo(say("approve.written", unit=done["unit"], file=out, size=size(done["bytes"])))
    if not done["is_whole"]:
        click.echo(say("approve.more"))
    click.echo(say("approve.next", unit=done["unit"]))
    _show_both(done["tree_words"], done["words"])


def join(
    home: Path,
    file: Path,
    out: Path | None,
    *,
    yes: bool,
    listen: str,
    address: str,
    schedule: Schedule,
    at_rest: AtRest,
) -> None:
    """On the new unit's machine, at last: compare, install, take in what came, write the answer."""
    from node import joining
    from node.commands.carrying import imported, told
    from node.logs import configure
    from node.storage.audit import acting
    from sync_engine.names import parent_of
    from sync_engine.words import words_of

    configure(quiet=True)
    looked = joining.look(home, file, at_rest)
    parent = parent_of(looked.unit)
    click.echo(say("grant.says", unit=looked.unit, name=looked.name, parent=parent), err=True)
    _show_both(words_of(looked.tree_id), words_of(looked.digest), err=True)
    _compare("grant.compare", yes=yes)
    tell, where = told(teller("sync.progress", silent=False)), None if out is None else out.absolute()
    settings: dict[str, Any] = {"listen": listen, "address": address, "schedule": schedule, "at_rest": at_rest}
    try:
        with acting(account()):
            done = imported(asyncio.run(joining.join(home, file.absolute(), looked, where, tell, **settings)))
    finally:
        clear_progress()
    click.echo(say("join.done", unit=looked.unit, name=looked.name))
    for line in done["refused"]:
        click.echo(say("import.refused", line=line), err=True)
    _show_answer(done["answer"])
    click.echo(say("grant.next", parent=parent))


def _show_answer(answer: Mapping[str, Any]) -> None:
    words = {"batches": number(answer["batches"]), "size": size(answer["bytes"]), "files": "\n  ".join(answer["files"])}
    click.echo(say("import.answer", unit=answer["unit"], **words))


def _show_both(tree: Sequence[str], grant: Sequence[str], *, err: bool = False) -> None:
    click.echo(say("words.tree"), err=err)
    _show_words(tree, err=err)
    click.echo(say("words.grant"), err=err)
    _show_words(grant, err=err)


def _show_words(words: Sequence[str], *, err: bool = False) -> None:
    click.echo("\n    " + "  ".join(words) + "\n", err=err)


def _compare(question: str, *, yes: bool) -> None:
    """Nothing happens before somebody has compared the words. Raises BadInput."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(say("words.not_compared"), hint=say("words.needs_yes"))
    if not click.confirm(say(question), err=True):
        raise BadInput(say("words.differ"), hint=say("words.differ.hint"))
