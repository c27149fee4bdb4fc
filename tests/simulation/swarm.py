"""Which faults a seed knows, and how often: each seed draws its own, so that rare faults meet in some of them.

Role: rates of faults, sizes; the list of faults that a batch of seeds must have seen fire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

YEAR_MS = 365 * 86_400_000

RATES = {
    # of one frame
    "loss": (0.01, 0.1),
    "garbled": (0.02, 0.2),
    "truncated": (0.005, 0.05),
    "forged": (0.02, 0.2),
    "repeat": (0.05, 0.3),
    "replay": (0.05, 0.3),
    "reorder": (0.1, 0.5),
    "cut": (0.01, 0.1),
    # of one turn
    "crash": (0.02, 0.12),
    "crash at start": (0.1, 0.5),
    "clock": (0.01, 0.05),
    "slow line": (0.01, 0.05),
    "partition": (0.01, 0.05),
    # of one text
    "NFD text": (0.02, 0.1),
}
POWER_CUTS = (0.3, 1.0)
"""Of the crashes."""
SMALL_CREDIT = 5_000
"""Bytes: two of a short run's largest batches."""
RESTORES = {
    "image": (0.1, 0.3),
    "restore": (0.01, 0.04),
    "clone": (0.0, 1.0),
    "both": (0.0, 0.6),
    "alone": (0.0, 0.5),
    "in a row": (0.0, 0.3),
}
LOST = {"lost": (0.005, 0.02), "image": (0.0, 0.2), "restore": (0.0, 0.01)}
CLONED = {"copied": (0.02, 0.08), "operator": (0.01, 0.06), "image": (0.0, 0.2), "restore": (0.0, 0.01)}
CROWDED = {"reorder": 0.8, "loss": 0.2, "cut": 0.02}
HOSTILE = {"poisoned": (0.1, 0.4)}
FORKED = {"equivocated": (0.2, 0.6)}
CHANGED = {"registry published": (0.3, 0.8), "registry applied": (0.02, 0.06)}
HELD = {"rogue": (0.02, 0.08), "decision": (0.02, 0.08)}
DECIDED = {"decision": (0.1, 0.25), "overturning": (0.03, 0.1)}
FAULTS = {"hostile": HOSTILE, "forked": FORKED, "changed": CHANGED, "lost": LOST, "cloned": CLONED}
SOMETIMES = {"rogue": (0.0, 0.02), "decision": (0.0, 0.05), "overturning": (0.0, 0.02)}
"""What clerks and operators of a mixed run do beside all else."""
KINDS = {
    "mixed": 0.22,
    "changed": 0.09,
    "braked": 0.08,
    "crowded": 0.13,
    "restored": 0.16,
    "lost": 0.06,
    "cloned": 0.08,
    "hostile": 0.08,
    "forked": 0.08,
    "held": 0.08,
    "decided": 0.08,
}
"""Shares of the seeds. Crowded: everybody writes one row within a few milliseconds, over a line on which nothing comes
in order. Restored: old images are put back. Lost: disks are lost, and nodes rebuilt from nothing. Cloned: a home is
copied and runs twice, until an operator decides. Hostile: an origin
breaks rules with its own key, and its streams are left; nothing else may suffer. Forked: somewhere on the way a batch
has a twin that its origin signed, too. Braked: a sealing that changes two rows of a few waits for a person.
Changed: the root publishes the next registry, and some nodes bring it into force late. Held: values are held for their
codes, which come and go, and for the rights of whoever wrote them. Decided: operators settle what waits, while it goes
on; and in the end, as in the held ones, until nothing waits anywhere."""

MUST_FIRE = (
    "local write",
    "loss",
    "garbled",
    "truncated",
    "forged",
    "poisoned",
    "refused stream",
    "equivocated",
    "batch forked",
    "fork proven",
    "frozen stream",
    "repeat",
    "replay",
    "reorder",
    "cut",
    "crash",
    "crash at start",
    "power cut",
    "torn write",
    "clock jump",
    "slow line",
    "partition",
    "partition, one way",
    "NFD text",
    "edits of several levels met",
    "delete met an edit",
    "row before its parent row",
    "move refused",
    "taken again",
    "restore",
    "clone",
    "restored root",
    "restored parent",
    "restored with its parent",
    "restored with edits unsealed",
    "restored from before a fork",
    "restored and alone",
    "three in a row",
    "lost disk",
    "rebuilt",
    "copied",
    "certified",
    "refused successor",
    "approved",
    "switched off",
    "own past",
    "sealed twice",
    "said again",
    "said a third time",
    "healed stream",
    "open conflict",
    "held, right",
    "held, rule",
    "held, code",
    "forbidden edit",
    "twin waits",
    "resolved",
    "overturned",
    "renamed",
    "released, right",
    "released, code",
    "refused, right",
    "refused, rule",
    "refused, code",
    "code has come",
    "nothing waits",
    "overwritten",
    "brake pulled",
    "brake released",
    "brake undone",
    "registry published",
    "registry applied late",
    "batch waited for a registry",
    "batch gap",
    "batch waiting",
    "batch known",
    "stick",
    "stick lost",
    "stick comes again",
    "stick taken in",
    "old stick taken in",
)
"""A batch of seeds in which one of these never happened proves nothing."""


@dataclass
class Swarm:
    """One seed's fate."""

    ticks: int
    ids: int
    hot: int
    """Units whose rows everybody writes: without them concurrent edits would be rare."""
    check_every: int
    nodes: tuple[int, int]
    """The least and the most that its tree may have."""
    rates: dict[str, float] = field(default_factory=dict)
    crowded: bool = False
    brakes: bool = False
    settles: bool = False
    """Whether everything that waits for a person is decided about in the end."""
    favourites: tuple[str, ...] = ()
    """Fields of persons that are edited more often than others."""
    shares: tuple[int, int, int] = (6, 3, 1)
    """How often persons, things and words are written."""
    credit: int | None = None
    """How many bytes a sender may be ahead; None: as the product has it, far more than these runs ever send."""
    clock: tuple[int, ...] = (0, 0, 1, 1, 2, 50)
    """How far time may go in one turn, in milliseconds."""

    @classmethod
    def drawn(cls, rng: Random, *, long: bool, kind: str | None = None) -> Swarm:
        kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
        rates = {fault: rng.uniform(*span) for fault, span in RATES.items() if rng.random() < 0.6}
        ticks = rng.randint(2_000, 5_000) if long else rng.randint(70, 180)
        swarm = cls(ticks, rng.choice([1, 2, 4]), rng.choice([1, 1, 2, 3]), 400 if long else 60, (4, 10), rates)
        if rates.get("crash") and rng.random() < 0.7:
            rates["power cut"] = rng.uniform(*POWER_CUTS)
        if not long and rng.random() < 0.4:
            swarm.credit = SMALL_CREDIT
        if kind == "braked":
            swarm.brakes, swarm.ids = True, 6
        elif kind == "restored":
            swarm.rates.update({fault: rng.uniform(*span) for fault, span in RESTORES.items()})
        elif kind in FAULTS:
            its = FAULTS[kind]
            swarm.rates.update({fault: rng.uniform(*span) for fault, span in its.items()})
        elif kind in ("held", "decided"):
            its = {"held": HELD, "decided": DECIDED}[kind]
            swarm.rates.update({fault: rng.uniform(*span) for fault, span in its.items()})
            swarm.settles, swarm.hot = True, 1
            if kind == "held":
                swarm.shares, swarm.check_every = (4, 2, 2), 30
            else:
                swarm.favourites = ("phone", "name")
        elif kind == "mixed":
            swarm.rates.update({fault: rng.uniform(*span) for fault, span in SOMETIMES.items()})
        elif kind == "crowded":
            swarm.ids, swarm.hot, swarm.crowded = 1, 1, True
            swarm.ticks, swarm.nodes = rng.randint(120, 240), (6, 12)
            swarm.clock, swarm.rates = (0,) * 30 + (1,), dict(CROWDED)
        if long:
            swarm.ticks, swarm.nodes = ticks, (20, 60)
        return swarm

    def happens(self, rng: Random, fault: str) -> bool:
        return rng.random() < self.rates.get(fault, 0.0)
