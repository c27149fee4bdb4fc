"""``dongbo export`` and ``dongbo import``: bundles that are carried by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.calling import HOME, JSON, clear_progress, execute, show_json, teller
from node.figures import number, size
from node.messages import say

MEGABYTE = 1_000_000


@click.command()
@HOME
@click.option("--to", required=True, help="The parent or a child, by its full or its short name.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The stick's folder, or a new file on it.")
@click.option(
    "--part-size", type=click.IntRange(min=1), help="Megabytes after which another file is begun, 2000 if not said."
)
@JSON
def export(home: Path, to: str, out: Path, part_size: int | None, as_json: bool) -> None:
    """Write what a neighbour lacks into a file, to be carried there by hand.

    The file holds all edits that the neighbour has not confirmed yet. Only the neighbour can read it, and nobody can
    change it unnoticed. A lost stick costs a walk and nothing else: run this again. The file is good for 90 days.

    \b
    1. here    dongbo export --to hue --out /media/stick
    2. there   dongbo import /media/stick      takes it in, and writes an answer beside it
    3. here    dongbo import /media/stick      takes the answer in: only now it counts as delivered

    If the work breaks off, or the stick is pulled out, run it again: a file with a name that ends in .dongbo is whole.
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
@click.option("--out", type=click.Path(path_type=Path), help="Where the answer goes, else beside what was taken in.")
@click.option("--expired", is_flag=True, help="Take also what is too old by this machine's clock.")
@JSON
def import_(home: Path, files: tuple[Path, ...], out: Path | None, expired: bool, as_json: bool) -> None:
    """Take in what was carried here, and write the answer to be carried back.

    FILES are bundles, or folders that hold some: in any order, and as often as you like. What is damaged, or was
    written for another unit, is left alone whole, and a line says so. Until the answer has come home, and is imported
    there, nothing counts as delivered. What was taken in may be deleted from the stick; the answer may not.

    \b
    dongbo import /media/stick
    dongbo import /media/stick --out /media/other      where the stick cannot be written
    """
    arguments = {
        "files": [str(each.absolute()) for each in files],
        "out": None if out is None else str(out.absolute()),
        "expired": expired,
    }
    try:
        done = execute(home, "import", arguments, _teller(silent=as_json))
    finally:
        clear_progress()
    if as_json:
        show_json(done)
    else:
        _show_all(done)
    if not done["ok"]:
        raise SystemExit(1)


def _teller(*, silent: bool) -> Callable[[Mapping[str, Any]], None]:
    """Of the files as they are read, then of what is in them."""
    reading, moving = teller("import.reading", silent=silent), teller("sync.progress", silent=silent)

    def tell(progress: Mapping[str, Any]) -> None:
        if "read_bytes" in progress:
            reading({"file": progress["file"], "done": size(progress["read_bytes"])})
        else:
            moving(progress)

    return tell


def _show_all(done: Mapping[str, Any]) -> None:
    for each in done["from"]:
        _show_imported(each)
    for line in done["left"]:
        click.echo(say("import.left", line=line), err=True)


def _show_imported(told: Mapping[str, Any]) -> None:
    is_empty = not (told["received_batches"] or told["answer"]["batches"])
    counts = {"rows": number(told["applied_rows"]), "conflicts": number(told["conflicts"])}
    click.echo(say("import.done", unit=told["unit"], batches=number(told["received_batches"]), **counts))
    if told["conflicts"]:
        click.echo(say("import.conflicts"))
    if not told["is_news"]:
        click.echo(say("import.old", unit=told["unit"]))
    for line in told["missing"]:
        click.echo(say("import.missing", line=line), err=True)
    for line in told["refused"]:
        click.echo(say("import.refused", line=line), err=True)
    _show_files("import.answer", told["answer"])
    click.echo(say("import.no_hurry" if is_empty else "import.next", unit=told["unit"]))


def _show_files(key: str, done: Mapping[str, Any]) -> None:
    names = "\n  ".join(done["files"])
    click.echo(say(key, unit=done["unit"], batches=number(done["batches"]), size=size(done["bytes"]), files=names))
