"""Keys that come twice in one file, found in eight bytes a row.

Role: while reading, remember a short hash of every key; before writing, know the few whose hash came twice; while
writing, compare those in full.
Reach: the standard library. Invariant: a key is called a repeat only after it has been compared in full.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

_SHARES = 256
"""Hashes are kept apart by their last bits, so that looking for doubles needs little memory at a time."""


class SeenKeys:
    """The keys of one file."""

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(_SHARES)]
        self._doubtful: set[int] = set()
        self._first: dict[tuple[str, str], int] = {}

    def note(self, units: Iterable[str], ids: Iterable[str]) -> None:
        """While reading."""
        shares = self._hashes
        for hashed in map(hash, zip(units, ids, strict=True)):
            shares[hashed % _SHARES].append(hashed)

    def close(self) -> None:
        """Reading is over."""
        for at, share in enumerate(self._hashes):
            if len(distinct := set(share)) < len(share):
                for hashed in share:
                    if hashed in distinct:
                        distinct.discard(hashed)
                    else:
                        self._doubtful.add(hashed)
            self._hashes[at] = array("q")

    def repeats(self, units: Sequence[str], ids: Sequence[str], lines: Sequence[int]) -> dict[int, int]:
        """While writing, in the same order: places whose key stood on an earlier line, and that line."""
        found: dict[int, int] = {}
        if not self._doubtful:
            return found
        for at, key in enumerate(zip(units, ids, strict=True)):
            if hash(key) in self._doubtful:
                first = self._first.setdefault(key, lines[at])
                if first != lines[at]:
                    found[at] = first
        return found
