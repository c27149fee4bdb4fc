"""Decides how far the streams of a revoked key count.

Role: from the cuts that parents signed and from what other streams name, the last number of each that counts.
Reach: conflict and statements. Why it is decided so: docs/decisions/0033.
Invariant: nothing but signed bytes decides: no clock, and not when anything came. What counts only grows as batches
come, so every order of them ends in the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from conflict.values import Epoch, Head, StreamId, UnitPath
from sync_engine.statements import Revocation


@dataclass(frozen=True, slots=True)
class Naming:
    """Batch ``by_seq`` of a stream has seen another stream up to a head: its writer had applied that."""

    by: StreamId
    by_seq: int
    seen: Head


def cut_of(stream: StreamId, revocations: Iterable[Revocation]) -> Head | None:
    """The last head of a stream of a revoked key that its parent accepts; None: nothing of it. Of several revocations
    of one key the most generous counts: each said that so much was good."""
    heads = [head for each in revocations for head in each.last if head.stream == stream]
    return max(heads, key=lambda head: head.seq, default=None)


def reach(
    cuts: Mapping[StreamId, int], namings: Iterable[Naming], revoked: frozenset[tuple[UnitPath, Epoch]]
) -> dict[StreamId, int]:
    """The last number that counts of each stream in ``cuts``: what the parent accepts, and beyond it what a batch that
    counts itself has seen."""
    known, last = tuple(namings), dict(cuts)
    changed = True
    while changed:
        changed = False
        for each in known:
            of, by = each.seen.stream, each.by
            vouches = (by.origin, by.epoch) not in revoked or each.by_seq <= last.get(by, 0)
            if vouches and each.seen.seq > last.get(of, 0) and of in last:
                last[of], changed = each.seen.seq, True
    return last
