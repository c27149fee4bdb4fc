"""``dongbo export`` and ``dongbo import``: bundles that are carried by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.calling import HOME, JSON, clear_progress, execute, show_json, teller
from node.figures import number, size
from node.messages import say

MEGABYTE = 1_000_000


@click.command()
@HOME
@click.option("--to", required=True, help="The parent or a child: its full name, or its short one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The stick's folder, or a file on it.")
@click.option("--part-size", type=click.IntRange(min=1), help="Megabytes after which another file is begun.")
@JSON
def export(home: Path, to: str, out: Path, part_size: int | None, as_json: bool) -> None:
    """Write what a neighbour lacks into a file, to be carried there by hand.

    Only the unit that it is written for can read it, and nobody can change it unnoticed. It holds all that this unit
    has not signed for yet, so a stick that is lost costs a walk and nothing else. There 'dongbo import' takes it in and
    writes an answer: carry that back, and import it here.

    \b
    dongbo export --to hue --out /media/stick
    """
    arguments = {
        "to": to,
        "out": str(out.absolute()),
        "part_bytes": None if part_size is None else part_size * MEGABYTE,
    }
    try:
        done = execute(home, "export", arguments, teller("sync.progress", silent=as_json))
    finally:
        clear_progress()
    if as_json:
        show_json(done)
        return
    _show_files("export.done", done)
    click.echo(say("export.next", unit=done["unit"]))


@click.command("import")
@HOME
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the answer goes; else beside what was taken in.")
@click.option("--expired", is_flag=True, help="Take bundles that are too old by this machine's clock.")
@JSON
def import_(home: Path, files: tuple[Path, ...], out: Path | None, expired: bool, as_json: bool) -> None:
    """Take in what was carried here, and write the answer to be carried back.

    FILES are bundles, or folders that hold some: in any order, and as often as you like. What is damaged, or was
    written for another unit, is refused whole. Until the answer has come home nothing counts as delivered there.

    \b
    dongbo import /media/stick
    """
    arguments = {
        "files": [str(each.absolute()) for each in files],
        "out": None if out is None else str(out.absolute()),
        "expired": expired,
    }
    try:
        done = execute(home, "import", arguments, teller("sync.progress", silent=as_json))
    finally:
        clear_progress()
    if as_json:
        show_json(done)
        return
    for each in done["from"]:
        _show_imported(each)
    for line in done["left"]:
        click.echo(say("import.left", line=line), err=True)


def _show_imported(told: Mapping[str, Any]) -> None:
    counts = {"rows": number(told["applied_rows"]), "conflicts": number(told["conflicts"])}
    click.echo(say("import.done", unit=told["unit"], batches=number(told["received_batches"]), **counts))
    if not told["is_news"]:
        click.echo(say("import.old", unit=told["unit"]))
    for line in told["missing"]:
        click.echo(say("import.missing", line=line), err=True)
    for line in told["refused"]:
        click.echo(say("import.refused", line=line), err=True)
    _show_files("import.answer", told["answer"])
    click.echo(say("import.next", unit=told["unit"]))


def _show_files(key: str, done: Mapping[str, Any]) -> None:
    names = "\n  ".join(done["files"])
    click.echo(say(key, unit=done["unit"], batches=number(done["batches"]), size=size(done["bytes"]), files=names))
