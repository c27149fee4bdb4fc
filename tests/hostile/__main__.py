"""``python -m tests.hostile --count N --seed S``: N mutants against real nodes; 1 if one got through.

Role: arguments, progress, the table, what to replay.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.hostile.corpus import Corpus
from tests.hostile.judge import Bench
from tests.hostile.memory import GROWTH_BYTES_MAX, bombs, capped, peak_rss
from tests.hostile.run import Result, Table, results

MIB = 1024 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first mutant's number")
    parser.add_argument("--only", type=int, help="one mutant, looked at thoroughly")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        bench = Bench(Corpus(Path(folder)))
        try:
            return _run(bench, arguments)
        finally:
            bench.close()


def _run(bench: Bench, arguments: argparse.Namespace) -> int:
    table, began, alone = Table(), time.monotonic(), arguments.only is not None
    first = arguments.only if alone else arguments.first
    numbers = range(first, first + (1 if alone else arguments.count))
    for bomb in () if alone else bombs(bench.corpus):
        with capped():
            table.add(Result(-1, bomb.kind, bench.judge(bomb, Random(1), thorough=False)))
    before = peak_rss()
    with capped():
        for result in results(bench, arguments.seed, numbers, thorough=alone):
            table.add(result)
            if result.number % 1_000 == 0:
                sys.stderr.write(f"\r{result.number - first} of {len(numbers)}, {len(table.wrong)} wrong ")
                sys.stderr.flush()
    sys.stderr.write("\n")
    print("\n".join(table.lines()))
    seconds = time.monotonic() - began
    print(f"\n{len(numbers)} mutants of seed {arguments.seed} in {seconds:.0f} s; {len(table.wrong)} wrong")
    print(f"memory: at most {GROWTH_BYTES_MAX // MIB} MiB more were allowed; peak {before // MIB} MiB after the bombs,"
          f" {peak_rss() // MIB} MiB at the end")  # fmt: skip
    for wrong in table.wrong[:20]:
        print(f"\n{wrong.kind}: {wrong.verdict.fault}\n  replay: {_replay(arguments.seed, wrong)}")
    return 1 if table.wrong else 0


def _replay(seed: int, wrong: Result) -> str:
    if wrong.number < 0:
        return "python -m tests.hostile --count 0"
    return f"python -m tests.hostile --seed {seed} --only {wrong.number}"


if __name__ == "__main__":
    sys.exit(main())
