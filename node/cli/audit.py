"""``dongbo audit``: who did what on this node, and whether the record of it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.cli.calling import HOME, JSON, execute, no_progress, show_json
from node.figures import day_and_minute, number
from node.messages import say

HASH_SHOWN = 12
COUNTS = ("rows", "inserted", "updated")


@click.command()
@HOME
@JSON
@click.option("--since", metavar="DATE", help="From that day on: 24/11/2026.")
@click.option("--all", "everything", is_flag=True, help="From the beginning.")
@click.option("--verify", "proves", is_flag=True, help="Prove that nothing was changed or taken away.")
@click.option("--head", metavar="NUMBER:HASH", help="With --verify: this node's last record, as another unit holds it.")
def audit(home: Path, as_json: bool, since: str | None, everything: bool, proves: bool, head: str | None) -> None:
    """What was done on this node, when and by whom.

    Set-up, invitations, files read and written, decisions, accidents, recoveries, refusals, settings. Never what a
    member's record says. Each entry is bound to all before it, and this node signs the last one for other units at
    least daily: what is changed or taken away later is found by --verify.
    """
    asked = {"since": since, "all": everything, "verify": proves or head is not None, "head": head}
    found = execute(home, "audit", asked, no_progress)
    if as_json:
        show_json(found)
    elif "proof" in found:
        _show_proof(found["proof"])
    else:
        _show_records(found)
    if "proof" in found and not found["proof"]["ok"]:
        raise SystemExit(1)


def _show_records(found: Mapping[str, Any]) -> None:
    from rich.table import Table

    from node.cli.views import console, show
    from node.messages import plain

    if not found["records"]:
        click.echo(say("audit.none"))
        return
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for key in ("when", "by", "act", "about"):
        table.add_column(say(f"column.{key}"), no_wrap=key == "when", overflow="fold")
    for each in found["records"]:
        by = say("audit.service") if each["by"] == "service" else plain(each["by"])
        table.add_row(day_and_minute(each["at"]), by, _act(each), plain(_about(each["subject"])))
    show(console(), table)
    if found["more"]:
        click.echo(say("audit.more", shown=len(found["records"])))


def _act(record: Mapping[str, Any]) -> str:
    """In words; of an act of a newer version its own name."""
    try:
        words = say(f"audit.{record['act']}")
    except KeyError:
        words = record["act"]
    if record["outcome"] == "done" or record["act"].endswith("-refused"):
        return words
    ended = say("audit.begun") if record["outcome"] == "begun" else say("audit.failed", code=record["outcome"])
    return f"{words} ({ended})"


def _about(subject: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {number(value) if key in COUNTS else value}" for key, value in subject.items())


def _show_proof(proof: Mapping[str, Any]) -> None:
    if proof["head"] is None:
        click.echo(say("audit.proof.empty"))
    elif not proof["faults"]:
        click.echo(say("audit.proof.ok", records=number(proof["records"]), **_short(proof["head"])))
    for fault in proof["faults"]:
        click.echo(say(f"audit.proof.{fault['kind']}", no=number(fault["no"])))
    if not proof["anchors"]:
        click.echo(say("audit.anchor.none"))
    for each in proof["anchors"]:
        words = {"at": day_and_minute(each["at"]), "unit": each["unit"], **_short(each["head"])}
        click.echo(say(f"audit.anchor.{each['verdict']}", **words))
    if proof["others"]:
        click.echo(say("audit.heads", sample="NUMBER:HASH"))
        for each in proof["others"]:
            click.echo(f"  {each['unit']}  {day_and_minute(each['at'])}  {each['head']}")


def _short(head: str) -> dict[str, str]:
    no, _, digits = head.partition(":")
    return {"no": number(int(no)), "hash": digits[:HASH_SHOWN]}
