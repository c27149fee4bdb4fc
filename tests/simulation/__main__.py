"""``python -m tests.simulation``: replay one seed, or run many on two processes."""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation import forest
from tests.simulation.swarm import KINDS, MUST_FIRE

PROCESSES = 2
TELL_EVERY = 250
ENOUGH = 300
"""So many seeds must between them have seen every fault fire."""


def run_one(seed: int, given: argparse.Namespace) -> tuple[int, str | None, Counter[str]]:
    from tests.simulation.mutants import run_seed

    outcome = run_seed(seed, long=given.long, kind=given.kind, mutant=given.mutant)
    gc.collect()
    return seed, outcome.failure, outcome.counts


def prepare() -> None:
    """Of one process: garbage is collected between seeds, not in them, and what is imported is none."""
    import tests.simulation.mutants  # noqa: F401

    gc.collect()
    gc.freeze()
    gc.disable()


def replay(given: argparse.Namespace) -> int:
    from tests.simulation.mutants import run_seed

    outcome = run_seed(given.seed, long=given.long, kind=given.kind, mutant=given.mutant)
    print("\n".join(outcome.trace))
    print(f"seed {given.seed}: {outcome.failure or 'nothing wrong'} (trace {outcome.digest})")
    return 1 if outcome.failure else 0


def hunt(mutant: str, seeds: range) -> tuple[str, tuple[int, str] | None]:
    from tests.simulation.mutants import caught

    return mutant, caught(mutant, seeds)


def mutants(seeds: range) -> int:
    """Break the product in each known way; every way must be noticed."""
    from tests.simulation.mutants import MUTANTS

    missed = 0
    with ProcessPoolExecutor(PROCESSES) as pool:
        for name, found in pool.map(partial(hunt, seeds=seeds), MUTANTS):
            missed += found is None
            first = "nobody noticed" if found is None else f"seed {found[0]}: {found[1].splitlines()[0][:100]}"
            print(f"{name:44} {MUTANTS[name].breaks:4} {first}", flush=True)
    print(f"{len(MUTANTS) - missed} of {len(MUTANTS)} mutants caught, {len(seeds)} seeds each at most")
    return 1 if missed else 0


def many(seeds: range, given: argparse.Namespace) -> int:
    began, counts, failed = time.monotonic(), Counter[str](), 0
    with ProcessPoolExecutor(PROCESSES, initializer=prepare) as pool:
        for done, (seed, failure, found) in enumerate(pool.map(partial(run_one, given=given), seeds), 1):
            counts.update(found)
            if done % TELL_EVERY == 0 and done < len(seeds):
                left_s = (time.monotonic() - began) / done * (len(seeds) - done)
                print(
                    f"{done} of {len(seeds)} seeds, {failed} failed, about {left_s / 60:.0f} minutes left", flush=True
                )
            if failure is not None:
                failed += 1
                print(f"seed {seed}: {failure}", flush=True)
    for what, count in sorted(counts.items()):
        print(f"{what:24} {count:10}")
    expected = () if given.mutant or given.kind or len(seeds) < ENOUGH else MUST_FIRE
    missing = [what for what in expected if not counts[what]]
    if missing:
        print(f"never happened: {', '.join(missing)}")
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - began:.0f} s; replay one with --seed N")
    return 1 if failed or missing else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed with its trace")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--long", action="store_true", help="up to 60 nodes and thousands of turns a seed")
    parser.add_argument(
        "--kind", choices=tuple(KINDS), metavar="KIND", help=f"{', '.join(KINDS)}; drawn by the seed if not said"
    )
    parser.add_argument("--mutant", help="break the product on purpose, by name (see mutants.py)")
    parser.add_argument("--mutants", action="store_true", help="see each mutant caught, within --seeds")
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts are walked in an order of their own in each process, unless told otherwise.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    home = forest.new_home()
    os.environ[forest.HOME] = str(home)
    try:
        if given.seed is not None:
            return replay(given)
        return mutants(seeds) if given.mutants else many(seeds, given)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
