"""Runs mutants by seed and number, and counts what became of them.

Role: number -> mutant -> verdict; the table. Reach: corpus, judge. Invariant: a mutant depends on seed and number
alone, but for what is new in each corpus: keys, signatures, salts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from tests.hostile import forged, talk, unsigned
from tests.hostile.corpus import ABOVE, ROOT, Corpus
from tests.hostile.judge import Bench, Verdict
from tests.hostile.unsigned import Mutant

MAKERS: Mapping[str, Callable[[Corpus, Random], Mutant]] = {**unsigned.MAKERS, **forged.MAKERS, **talk.MAKERS}
THOROUGH_EVERY = 12
PRINTED_EVERY = 5_000


@dataclass(frozen=True)
class Result:
    number: int
    kind: str
    verdict: Verdict


@dataclass
class Table:
    """Counts by kind of mutation and outcome."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.counts.setdefault(result.kind, Counter())[result.verdict.outcome] += 1
        if result.verdict.fault is not None:
            self.wrong.append(result)

    def lines(self) -> Iterator[str]:
        yield f"{'kind of mutation':<44} {'count':>7}  outcome"
        for kind, outcomes in sorted(self.counts.items()):
            listed = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
            yield f"{kind:<44} {sum(outcomes.values()):>7}  {listed}"


def make(corpus: Corpus, seed: int, number: int) -> tuple[Mutant, Random]:
    """The mutant of one number, and the chance that its judge goes on with."""
    rng = Random(f"{seed}/{number}")
    kinds = list(MAKERS)
    return MAKERS[kinds[number % len(kinds)]](corpus, rng), rng


def results(bench: Bench, seed: int, numbers: Iterable[int], *, thorough: bool = False) -> Iterator[Result]:
    """Judge mutants; now and then compare all that is stored with what was, byte for byte."""
    prints = {unit: bench.print_of(unit) for unit in (ABOVE, ROOT)}
    last = 0
    for number in numbers:
        mutant, rng = make(bench.corpus, seed, number)
        deep = thorough or rng.random() < 1 / THOROUGH_EVERY
        yield Result(number, mutant.kind, bench.judge(mutant, rng, thorough=deep))
        last = number
        if number % PRINTED_EVERY == PRINTED_EVERY - 1:
            yield from _compared(bench, prints, number)
    yield from _compared(bench, prints, last)


def _compared(bench: Bench, prints: Mapping[str, str], number: int) -> Iterator[Result]:
    for unit, known in prints.items():
        if bench.print_of(unit) != known:
            fault = Verdict(
                "wrong", f"what {unit} has stored changed by mutant {number} or one of the {PRINTED_EVERY} before"
            )
            yield Result(number, "all that is stored", fault)
