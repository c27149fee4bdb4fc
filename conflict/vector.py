"""Version vectors: what a batch's writer had merged when it was sealed.

Role: per stream the last (seq, hash); answers whether a write was seen.
Reach: conflict.values. Source: Parker et al., "Detection of Mutual Inconsistency in Distributed Systems", 1983; the
hash beside the number is ours, because after a restore one number can mean two batches (design, 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from conflict.values import Head, StreamId, Write


@dataclass(frozen=True, slots=True)
class Vector:
    """Per stream, the last (seq, hash) that was merged. Streams absent from it were not seen at all."""

    entries: Mapping[StreamId, tuple[int, bytes]] = field(default_factory=dict)
    also: frozenset[Head] = frozenset()
    """Single batches beside them: those that say again, in a new life, what a branch of a forked stream had said. Of
    what stands before them in their stream nothing was seen."""

    @classmethod
    def of(cls, heads: Iterable[Head]) -> Vector:
        return cls({head.stream: (head.seq, head.hash) for head in heads})

    def __iter__(self) -> Iterator[Head]:
        return (Head(stream, seq, digest) for stream, (seq, digest) in self.entries.items())

    def covers(self, dot: Head) -> bool:
        """Whether the batch at ``dot`` had been merged.

        Numbers below the entry are trusted to lie on the chain that its hash ends: whoever stores a batch checks that
        its ``prev`` is the hash before it, and whoever applies one checks that the entry's hash is the one held.
        """
        seq, digest = self.entries.get(dot.stream, (0, b""))
        return dot.seq < seq or (dot.seq == seq and dot.hash == digest) or dot in self.also

    def saw(self, write: Write) -> bool:
        """Whether a write was seen: an edit sealed in two lives has two dots, and either will do."""
        return any(self.covers(dot) for dot in write.dots)

    def updated(self, heads: Iterable[Head]) -> Vector:
        """This vector with later heads put in place."""
        return Vector({**self.entries, **{head.stream: (head.seq, head.hash) for head in heads}}, self.also)

    def with_also(self, heads: Iterable[Head]) -> Vector:
        """This vector with single batches beside it."""
        return Vector(self.entries, self.also | frozenset(heads))

    def joined(self, later: Vector) -> Vector:
        """This vector with a later one put in place."""
        return Vector({**self.entries, **later.entries}, self.also | later.also)

    def changed_since(self, earlier: Vector) -> list[Head]:
        """The heads that differ from an earlier vector's, sorted: what ``seen_delta`` carries."""
        return sorted(
            Head(stream, seq, digest)
            for stream, (seq, digest) in self.entries.items()
            if earlier.entries.get(stream) != (seq, digest)
        )
