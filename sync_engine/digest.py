"""Digests: what two nodes that hold the same registers have in common, column by column.

Role: fold rows' registers into 256 buckets a column, and buckets into one value.
Reach: the standard library, msgspec. Source: protocol, "Digest". Invariant: registers only, never what a table shows:
equal applied heads imply equal digests in every column that both hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

BUCKETS = 256
HASH_BYTES = 32
_ENCODE = msgspec.msgpack.Encoder().encode


def bucket_of(key: str) -> int:
    """A row's bucket: the first byte of SHA-256 over its id."""
    return sha256(key.encode()).digest()[0]


@dataclass(slots=True)
class ColumnDigest:
    """One column's buckets. Rows must come sorted by (id, identity)."""

    buckets: list[bytearray] = field(default_factory=lambda: [bytearray() for _ in range(BUCKETS)])
    hashes: list[Any] = field(default_factory=lambda: [sha256() for _ in range(BUCKETS)])

    def add(self, bucket: int, key: str, identity: bytes, writes: Any) -> None:
        """A row's register: its writes as sorted (unit, time, value)."""
        self.buckets[bucket] += _ENCODE((key, identity, writes))

    def flush(self) -> None:
        """Hash what has been added, so that memory stays bounded."""
        for at, raw in enumerate(self.buckets):
            if raw:
                self.hashes[at].update(raw)
                raw.clear()

    def bucket_hashes(self) -> bytes:
        """The hashes of all buckets, one after another."""
        self.flush()
        return b"".join(each.digest() for each in self.hashes)

    def value(self) -> bytes:
        """SHA-256 over the bucket hashes."""
        return sha256(self.bucket_hashes()).digest()


def with_buckets(older: bytes | None, newer: bytes, dirty: Iterable[int]) -> bytes:
    """Bucket hashes of a column of which some buckets were computed anew; ``older`` is None where the column is new."""
    hashes = bytearray(NO_ROWS if older is None else older)
    for bucket in dirty:
        at = slice(bucket * HASH_BYTES, (bucket + 1) * HASH_BYTES)
        hashes[at] = newer[at]
    return bytes(hashes)


NO_ROWS = ColumnDigest().bucket_hashes()
EMPTY = ColumnDigest().value()
"""A column's digest where no row has anything in it."""


def scope_digest(columns: Mapping[str, bytes], readable_by_all: Iterable[str]) -> bytes:
    """One value for a scope: over the columns that every level may read, by name.

    A column in which nothing has been written is left out: a registry version that adds it changes no scope by that,
    so two nodes of different versions compare like two of one.
    """
    digest = sha256()
    for name in sorted(each for each in readable_by_all if columns[each] != EMPTY):
        digest.update(name.encode() + b"\0" + columns[name])
    return digest.digest()
