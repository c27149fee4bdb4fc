"""A conflict's number: the same at every node, so that two people on the telephone speak of one thing.

Role: hash what a conflict consists of.
Reach: conflict.values. Source: design, 5. Invariant: only what all nodes of the scope hold goes in; dots do not,
because one edit sealed twice is one write.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from conflict.values import Write

NUMBER_BYTES = 6


def statement(writes: Iterable[Write]) -> list[tuple[str, int, object]]:
    """A register's writes as (unit, time, value), sorted: what numbers and digests are made of."""
    return sorted(
        ((write.origin, write.time, write.value) for write in writes),
        key=lambda each: (each[0], each[1], msgspec.msgpack.encode(each[2])),
    )


def conflict_number(scope: str, table: str, key: str, identity: bytes, field: str, writes: Iterable[Write]) -> int:
    """First 48 bits of SHA-256 over scope, table, id, identity, field and the sorted (unit, time, value)."""
    content = msgspec.msgpack.encode([scope, table, key, identity, field, statement(writes)])
    return int.from_bytes(sha256(content).digest()[:NUMBER_BYTES], "big")
