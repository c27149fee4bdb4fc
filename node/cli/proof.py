"""``dongbo verify``: what it found and what it mended, for people.

Reach: click, node.messages; the rest is imported late, so that help appears at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.calling import HOME, JSON, clear_progress, execute, show_json, teller
from node.figures import number
from node.messages import say

OF_AN_INDEX = re.compile("index", re.IGNORECASE)


@click.command()
@HOME
@JSON
@click.option("--repair", is_flag=True, help="Mend what can be mended, and say what could not.")
def verify(home: Path, as_json: bool, repair: bool) -> None:
    """Prove the stored batches, and compare the tables with them.

    Every batch against its origin's certificate, every row against what the batches say, the watch on the tables, the
    database file. Without --repair nothing is changed.

    \b
    dongbo verify             says what is wrong
    dongbo verify --repair    puts rows back, fetches damaged batches again
    """
    proof = execute(home, "verify", {"repair": repair}, _progress(as_json))
    clear_progress()
    if as_json:
        show_json(proof)
    else:
        for line in told(proof):
            click.echo(line)
    if not proof["ok"]:
        raise SystemExit(1)


def _progress(silent: bool) -> Any:
    proving, comparing = (teller(key, silent=silent) for key in ("verify.progress", "verify.progress.rows"))
    return lambda each: proving(each) if "batches" in each else comparing(each)


def told(proof: Mapping[str, Any]) -> list[str]:
    """The sentences, worst first."""
    lines = [*_database(proof["database"]), *_repaired(proof.get("repaired"))]
    lines += [say(f"verify.capture.{each['what']}", table=each["table"]) for each in proof["capture"]]
    if proof["bad"]:
        lines.append(say("verify.bad", bad=len(proof["bad"]), batches=proof["batches"]))
        lines += ["  {origin}@{epoch} {scope} {seq}: {reason}".format(**each) for each in proof["bad"]]
    lines += map(_wanted, proof["wanted"])
    lines += [say("verify.alarm", **each) for each in proof["alarms"]]
    lines += [say("verify.unproven", **each) for each in proof["unproven"]]
    lines += map(_rows, proof["rows"])
    if proof["rows"]:
        lines.append(say("verify.rows.hint"))
    if not proof["bad"]:
        lines.append(say("verify.ok", batches=number(proof["batches"])))
        if proof["withheld"]:
            lines.append(say("verify.withheld", chunks=number(proof["withheld"])))
    if not proof["rows"] and not proof["unproven"]:
        lines.append(say("verify.rows.ok", rows=number(proof["compared"])))
    return lines


def _database(faults: list[str]) -> list[str]:
    if not faults:
        return []
    only_indexes = all(OF_AN_INDEX.search(each) for each in faults)
    hint = "verify.database.index" if only_indexes else "verify.database.hint"
    return [*(say("verify.database", fault=each) for each in faults), say(hint)]


def _rows(found: Mapping[str, Any]) -> str:
    what = ", ".join(
        say(f"verify.rows.{kind}", count=number(found[kind]), fields=", ".join(found["fields"]))
        for kind in ("changed", "lost", "added")
        if found[kind]
    )
    return say("verify.rows.bad", scope=found["scope"], table=found["table"], rows=number(found["rows"]), what=what)


def _wanted(batch: Mapping[str, Any]) -> str:
    if not batch["from"]:
        return say("verify.wanted.nobody", **batch)
    return say("verify.wanted", **batch, peers=", ".join(batch["from"]))


def _repaired(repaired: Mapping[str, Any] | None) -> list[str]:
    if repaired is None:
        return []
    lines = []
    if repaired["capture"]:
        lines.append(say("verify.repaired.capture", tables=", ".join(repaired["capture"])))
    lines += [say("verify.repaired.batch", **each) for each in repaired["batches"]]
    if repaired["rows"]:
        lines.append(say("verify.repaired.rows", rows=number(repaired["rows"]), file=repaired["kept_in"]))
    if repaired["parent_error"]:
        lines.append(say("verify.repaired.parent", error=repaired["parent_error"]))
    return lines or [say("verify.repaired.nothing")]
