"""Which write of a register people see: one pure, total function a policy.

Role: project a register onto the value shown; name the writes that lost. Convergence comes from the register, so a
policy may be anything that looks at nothing but the writes and the scope.
Reach: conflict.values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, assert_never

import msgspec

from conflict.values import Value, Write


class Policy(StrEnum):
    """How a register with rival writes is shown."""

    LATEST = "latest"
    EARLIEST = "earliest"
    SUPERIOR = "superior"
    LOCAL = "local"
    MAX = "max"
    MIN = "min"
    UNION = "union"
    REVIEW = "review"


_ENCODER = msgspec.msgpack.Encoder()


def value_key(value: Value) -> bytes:
    """A total order over values of any type, the same everywhere; used for ties and for hashing."""
    return _ENCODER.encode(value)


def _recency(write: Write) -> tuple[int, int, str, bytes]:
    """Ties everywhere: greater time, then level nearer the root, then unit, then value; nothing local, never the
    dot."""
    return (write.time, -write.level, write.origin, value_key(write.value))


def _rank(value: Value, order: Sequence[Value]) -> tuple[int, int, Any]:
    """Where a value stands for ``max`` and ``min``: by the field's own order if it has one; nothing ranks below all.
    A group ranks by its fields in turn, any of which may be nothing."""
    if value is None:
        return (0, 0, None)
    if isinstance(value, tuple):
        return (1, 0, tuple(_rank(each, ()) for each in value))
    if order:
        return (1, order.index(value) if value in order else -1, None)
    return (1, 0, value)


def shown(policy: Policy, writes: Iterable[Write], *, order: Sequence[Value] = ()) -> Write:
    """Choose the write whose value the table shows.

    ``order`` lists an enum's values from least to greatest and matters to ``max`` and ``min`` only. ``local`` takes
    the deepest unit: in a row scope that is the scope's own, else the nearest that wrote. Raises ValueError on an
    empty register, which has nothing to show.
    """
    held = list(writes)
    if len(held) == 1:
        return held[0]
    match policy:
        case Policy.LATEST | Policy.REVIEW:
            return max(held, key=_recency)
        case Policy.EARLIEST:
            return min(held, key=lambda write: (write.time, write.level, write.origin, value_key(write.value)))
        case Policy.SUPERIOR:
            return max(held, key=lambda write: (-write.level, *_recency(write)))
        case Policy.LOCAL:
            return max(held, key=lambda write: (write.level, *_recency(write)))
        case Policy.MAX:
            return max(held, key=lambda write: (_rank(write.value, order), _recency(write)))
        case Policy.MIN:
            known = [write for write in held if write.value is not None] or held
            best = min(_rank(write.value, order) for write in known)
            return max((write for write in known if _rank(write.value, order) == best), key=_recency)
        case Policy.UNION:
            # One register per element: present (True) wins over removed (False).
            return max(held, key=lambda write: (bool(write.value), _recency(write)))
    assert_never(policy)


def is_conflict(writes: Iterable[Write]) -> bool:
    """A conflict is a register holding writes of different values."""
    return len({value_key(write.value) for write in writes}) > 1
