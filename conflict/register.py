"""The multi-value register: the writes that no other write has seen, nearly always one.

Role: add a write; tell which writes it drove out.
Reach: conflict.values, conflict.vector. Source: Shapiro et al., "A comprehensive study of Convergent and Commutative
Replicated Data Types", INRIA RR-7506, 2011 (MV-Register), with causal delivery done by the caller.
"""

from __future__ import annotations

from dataclasses import replace

from conflict.policies import value_key
from conflict.values import Write
from conflict.vector import Vector


def same_edit(one: Write, other: Write) -> bool:
    """One edit sealed twice, in two lives of its origin, is one write: same origin (whatever epoch), time and value."""
    return one.origin == other.origin and one.time == other.time and value_key(one.value) == value_key(other.value)


def add_write(held: frozenset[Write], new: Write, seen: Vector) -> frozenset[Write]:
    """Keep what the new write had not seen, and the new write: the same set on every node, in whatever causal order.

    ``seen`` is what the new write's batch had merged, its own stream's earlier batches included.
    """
    kept = {write for write in held if not seen.saw(write)}
    twin = next((write for write in kept if same_edit(write, new)), None)
    if twin is not None:
        return frozenset(kept - {twin} | {replace(twin, dots=twin.dots | new.dots)})
    return frozenset(kept | {new})
