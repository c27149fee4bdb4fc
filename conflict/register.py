"""The multi-value register: the writes that no other write has seen, nearly always one.

Role: add a write; tell the register from what is kept beside it because held writes had seen it.
Reach: conflict.values, conflict.vector. Source: Shapiro et al., "A comprehensive study of Convergent and Commutative
Replicated Data Types", INRIA RR-7506, 2011 (MV-Register), with causal delivery done by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from conflict.policies import value_key
from conflict.values import Head, Hold, Write
from conflict.vector import Vector


def same_edit(one: Write, other: Write) -> bool:
    """One edit sealed twice, in two lives of its origin, is one write: same origin (whatever epoch), time and value."""
    return one.origin == other.origin and one.time == other.time and value_key(one.value) == value_key(other.value)


def add_write(kept: frozenset[Write], new: Write, seen: Vector) -> frozenset[Write]:
    """Drop what the new write had seen, and add it: the same set on every node, in whatever causal order.

    ``seen`` is what the new write's batch had merged, its own stream's earlier batches included. A held write drives
    nothing out that might still be shown: it covers it. So what is kept is every write that may be shown (now, or once
    its code is known) and that no shown one has seen, and the register, which is every write that no other has seen.
    """
    unseen = {write for write in kept if not seen.saw(write)}
    left = set(unseen)
    if new.held:
        left |= {replace(write, covered=True) for write in kept - unseen if write.held in (Hold.NONE, Hold.CODE)}
    twin = next((write for write in unseen if same_edit(write, new)), None)
    if twin is not None:
        return frozenset(left - {twin} | {replace(twin, dots=twin.dots | new.dots)})
    return frozenset(left | {new})


def add_again(kept: frozenset[Write], new: Write, seen: Vector, former: frozenset[Head]) -> frozenset[Write]:
    """``add_write`` for an edit that its origin may have sealed before, in another life.

    ``former`` are the batches merged here in which it was. Where the edit is still kept it has one dot more; where it
    is not, a write that had seen one of its dots has driven it out, and seen is seen (docs/decisions/0025).
    """
    if not former:
        return add_write(kept, new, seen)
    return frozenset(
        replace(write, dots=write.dots | new.dots) if same_edit(write, new) and write.dots & former else write
        for write in kept
    )


def add_beside(kept: frozenset[Write], new: Write, seen: Vector) -> frozenset[Write]:
    """``add_write`` where edits that say the same at one time may be several: a row's standing has its entry's time,
    which a clock gives twice if it stands still or goes back. Which are one edit, ``add_again`` is told."""
    return frozenset(write for write in kept if not seen.saw(write)) | {new}


def rivals(kept: Iterable[Write]) -> frozenset[Write]:
    """The register itself: the writes that no other write has seen."""
    return frozenset(write for write in kept if not write.covered)


def showable(kept: Iterable[Write]) -> list[Write]:
    """The writes among which a policy chooses what is shown."""
    return [write for write in kept if not write.held]


def admitted(kept: frozenset[Write], write: Write, seen: Vector) -> frozenset[Write]:
    """What is kept once a held write may be shown after all (its code is known now). ``seen`` is what that write's
    batch had merged, without the batch itself: of its own entries a later one has seen the earlier ones."""
    if write not in kept:
        return kept  # another that has become known had seen it
    left = {
        each
        for each in kept - {write}
        if not seen.saw(each) and not (each.dots & write.dots and each.time < write.time)
    }
    return frozenset(left | {replace(write, held=Hold.NONE)})
