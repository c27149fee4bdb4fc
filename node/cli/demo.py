"""``dongbo demo``: a whole tree on this machine, told as it happens.

Role: options, where the story is told, and the end of everything that was started, however the story ends.
Reach: node.demo, loaded when it is wanted.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.figures import decimal
from node.messages import say

if TYPE_CHECKING:
    from node.demo.tree import Tree

CANCEL_S = 2.0
MEMBERS_MIN = 30
"""Fewer would leave a district without the people that the story needs."""


class Teller:
    """Lines on standard output; what is going on just now, on a terminal's standard error only."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._wide = sys.stdout.isatty()

    def line(self, text: str = "") -> None:
        self._clear()
        click.echo(text)

    def head(self, text: str) -> None:
        self._clear()
        click.echo()
        click.secho(text, bold=self._wide)

    def progress(self, text: str) -> None:
        if self._live:
            click.echo("\r\x1b[K   " + text[:100], nl=False, err=True)

    def _clear(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)


@click.command()
@click.option(
    "--homes",
    type=click.Path(path_type=Path, file_okay=False),
    default=".demo",
    show_default=True,
    help="Where the homes of the five nodes are made.",
)
@click.option(
    "--members", type=click.IntRange(min=MEMBERS_MIN), default=2000, show_default=True, help="How many made-up members."
)
@click.option("--keep", is_flag=True, help="Leave the services running, and say how to look around.")
@click.option("--end", is_flag=True, help="End what --keep left running, and remove it.")
def demo(homes: Path, members: int, keep: bool, end: bool) -> None:
    """Show a whole tree on this machine, with made-up members.

    The centre, a province and three districts: five services keep their members in step over an outage. Takes well
    under a minute; exit status 0 means that everything came out as told.
    """
    if end:
        from node.demo.tree import end_kept

        click.echo(say("demo.ended_kept", count=end_kept(homes), folder=homes))
        return
    from node.demo.tree import Tree, make_folder

    make_folder(homes)
    tree = Tree.planned(homes)
    told, stubborn = False, []
    try:
        told = asyncio.run(_tell(tree, members))
    finally:
        if not (told and keep):
            stubborn = tree.end(remove=not keep)
    for each in stubborn:
        click.echo(say("error", message=each), err=True)
    if not told:
        click.echo(say("demo.interrupted"), err=True)
    if stubborn or not told:
        raise SystemExit(1)
    if keep:
        _look_around(tree)
    else:
        click.echo(say("demo.removed", command="make demo KEEP=1"))


async def _tell(tree: Tree, members: int) -> bool:
    """The whole story; False if somebody stopped it. Raises DemoFailed."""
    from node.platform import on_stop

    stopped = asyncio.Event()
    on_stop(asyncio.get_running_loop(), stopped.set)
    telling = asyncio.create_task(_acts(tree, members))
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({telling, waiting}, return_when=asyncio.FIRST_COMPLETED)
    while not telling.done():  # wait_for of Python 3.11 may lose one cancellation
        telling.cancel()
        await asyncio.wait({telling}, timeout=CANCEL_S)
    waiting.cancel()
    if telling.cancelled():
        return False
    telling.result()
    return True


async def _acts(tree: Tree, members: int) -> None:
    from node.demo.proof import Proof
    from node.demo.story import Story

    began, voice = time.monotonic(), Teller()
    story = Story(tree, voice, members)
    voice.line(say("demo.title", today=datetime.now().astimezone().strftime("%d/%m/%Y")))
    await story.set_up()
    await story.fill()
    played = await story.line_down(story.choose())
    proof = Proof(story, played)
    await proof.tell(await story.line_up(proof.missing))
    voice.line()
    voice.line(say("demo.done", seconds=decimal(time.monotonic() - began)))


def _look_around(tree: Tree) -> None:
    """Commands to paste, and how to end it."""
    from node.demo.tree import program

    dongbo, district = program(), tree.districts[0]
    click.echo()
    click.echo(say("demo.kept_running"))
    looks = ((tree.root, "status"), (tree.province, "status --tree"), (district, "conflicts"))
    for place, name in (*looks, (tree.province, "conflicts review")):
        click.echo(f"  {dongbo} {name} --home {place.home}")
    click.echo(
        f'  sqlite3 {tree.root.database} ".timeout 5000" "select unit, status, count(*) from member group by 1, 2"'
    )
    click.echo(say("demo.keep_edit"))
    click.echo(
        f"  sqlite3 {district.database} \".timeout 5000\" \"update member set note = 'Xin chào', edited_by = 'Lan'"
        f' where id = (select min(id) from member)"'
    )
    click.echo(
        f'  sqlite3 {tree.root.database} ".timeout 5000" "select full_name from member where note = \'Xin chào\'"'
    )
    click.echo(say("demo.keep_end"))
    click.echo(f"  {dongbo} demo --end --homes {tree.folder}")
