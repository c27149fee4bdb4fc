"""The command: every place to die of some steps and kinds in a table, the mutants, or one death with its trace.

Role: arguments, words, the exit code.
Reach: campaign.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.crash.campaign import KINDS, Campaign, Row, scratch
from tests.crash.mutants import MUTANTS
from tests.crash.steps import STEPS

WHAT = "Die everywhere; or --step S --kind K --k N: replay one death with its trace."


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=WHAT)
    parser.add_argument("--step", choices=STEPS, action="append", help="this step alone (may be repeated)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="this kind of death alone (may be repeated)")
    parser.add_argument("--k", type=int, help="one place to die, with a trace; needs one --step and one --kind")
    parser.add_argument("--every", type=int, default=1, help="only every n-th place")
    parser.add_argument("--plan", help="rows of STEP:KIND:EVERY, separated by commas, in place of all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutant", choices=MUTANTS, help="break the product on purpose")
    parser.add_argument("--mutants", action="store_true", help="see each mutant noticed; with --plan, after its rows")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    return parser.parse_args()


def plan_of(given: argparse.Namespace) -> list[tuple[str, str, int]]:
    if given.plan:
        rows = [row.split(":") for row in given.plan.split(",")]
        return [(step, kind, int(every)) for step, kind, every in rows]
    return [(step, kind, given.every) for step in given.step or STEPS for kind in given.kind or KINDS]


def strike(running: Campaign, given: argparse.Namespace) -> list[Row]:
    """The table, row by row, and its sum."""
    began = time.monotonic()
    rows: list[Row] = []
    print(f"{'step':10} {'kind':10} {'places':>7} {'deaths':>7} {'losses':>7} {'seconds':>8}", flush=True)
    for step, kind, every in plan_of(given):
        if sys.stdout.isatty():
            print(f"{step:10} {kind:10} ...", end="\r", flush=True)
        row = running.run(step, kind, every)
        rows.append(row)
        counts = f"{row.places:7} {row.met:7} {len(row.losses):7} {row.seconds:8.1f}"
        print(f"{step:10} {kind:10} {'left out: ' + row.skipped if row.skipped else counts}", flush=True)
        for struck in row.losses[:3]:
            print(f"  --step {step} --kind {kind} --k {struck.k}: {struck.what}: {'; '.join(struck.faults)[:2000]}")
    deaths, losses = sum(row.met for row in rows), sum(len(row.losses) for row in rows)
    print(f"{deaths:,} kill points, {losses:,} losses, {time.monotonic() - began:.0f} s", flush=True)
    return rows


def hunt(running: Campaign) -> dict[str, dict[str, str]]:
    """Each mutant, and what was noticed of it first."""
    found = {}
    for name, mutant in MUTANTS.items():
        bench = running.bench(mutant.step)
        bench.mutant = name
        row = running.run(mutant.step, mutant.kind, mutant.every, stop_early=True)
        bench.mutant = ""
        first = row.losses[0] if row.losses else None
        found[name] = {"skipped": row.skipped, "fault": "" if first is None else first.faults[0]}
        words = "nobody noticed" if first is None else f"at {first.k}: {first.faults[0].splitlines()[0][:120]}"
        print(f"{name:34} {mutant.step:8} {mutant.kind:10} {row.skipped or words}", flush=True)
    missed = [name for name, each in found.items() if not each["fault"] and not each["skipped"]]
    print(f"{len(found) - len(missed)} of {len(found)} mutants noticed")
    return found


def campaign(given: argparse.Namespace) -> int:
    rows: list[Row] = []
    noticed: dict[str, dict[str, str]] = {}
    with scratch() as folder:
        running = Campaign(folder, given.workers, given.mutant or "")
        if given.plan or not given.mutants:
            rows = strike(running, given)
        if given.mutants:
            noticed = hunt(running)
    if given.json:
        given.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], "mutants": noticed}))
    missed = any(not each["fault"] and not each["skipped"] for each in noticed.values())
    return 1 if missed or any(row.losses for row in rows) else 0


def replay(given: argparse.Namespace) -> int:
    ((step, kind, _),) = plan_of(given)
    with scratch() as folder:
        running = Campaign(folder, 1, given.mutant or "")
        struck = running.replay(step, kind, given.k, lambda words: print(words, flush=True))
    print(f"{step}, {kind} {struck.k} ({struck.what}): {'died' if struck.met else 'lived'}")
    print("\n".join(struck.faults) or "nothing is lost")
    return 1 if struck.faults else 0


def main() -> int:
    given = arguments()
    return campaign(given) if given.k is None else replay(given)
