"""What one session does about lost history: who begins a new life, and how the branches of a stream find each other.

Role: the part of the exchange that speaks of streams whose origin has had more than one life.
Reach: frames, names. Source: docs/decisions/0025. Invariant: who stands nearer to a stream's origin shows its chain,
and whoever stands farther sends what parts from it; nothing travels away from the origin this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from conflict.values import Epoch, Head, StreamId, UnitPath
from sync_engine.errors import LimitExceeded, OutOfScope
from sync_engine.frames import Chain
from sync_engine.names import is_shared, is_towards


@dataclass(frozen=True, slots=True)
class LostHistory:
    """The parent has batches of this node that this node does not have: it was restored from an older copy, or runs
    twice. A new life begins before anything else; what it lost comes in this session like anybody's."""


@dataclass(frozen=True, slots=True)
class MayHaveLostHistory:
    """The parent has less of this node's own streams, up to these heads. Numbers do not tell whether it is the same: a
    node that was restored may have sealed more since than it lost. Where another batch stands here at the place of one
    of them, this is ``LostHistory``."""

    theirs: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class TellChain:
    """The peer has another branch, or more, of a stream of this node's own: show it where the branches part."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class ShipBranch:
    """The peer stands nearer to a stream's origin and has shown its chain: send what parts from it here, then report
    ``on_branch_shipped``."""

    chain: Chain


@dataclass(frozen=True, slots=True)
class PeerRestored:
    """The peer is behind on its own stream: it was restored from an older copy, and is sent what it lost."""

    stream: StreamId


BranchEffect: TypeAlias = LostHistory | MayHaveLostHistory | TellChain | ShipBranch | PeerRestored


@dataclass(slots=True)
class Branches:
    """One side of a session between ``child`` and its parent; ``epoch`` is the life that ``unit`` leads then."""

    unit: UnitPath
    epoch: Epoch
    child: UnitPath
    peer: UnitPath
    theirs: Mapping[StreamId, Head] = field(default_factory=dict)
    """What the peer said it holds."""
    _shipping: set[StreamId] = field(default_factory=set)
    _awaited: int = 0

    @property
    def are_settled(self) -> bool:
        """Whether no branch is on its way in either direction."""
        return not (self._shipping or self._awaited)

    @property
    def is_shipping(self) -> bool:
        """Whether a branch is being sent."""
        return bool(self._shipping)

    def on_heads(self, held: Mapping[StreamId, Head], theirs: Mapping[StreamId, Head]) -> list[BranchEffect]:
        """The parent's word is enough to begin a new life; a child must show the batches, else it could make its parent
        do so with a lie."""
        self.theirs = dict(theirs)
        beyond = [stream for stream, head in theirs.items() if self._is_beyond(held.get(stream), head)]
        effects: list[BranchEffect] = self._own(beyond, held) if self.unit == self.child else []
        effects += [TellChain(stream) for stream in beyond]
        for stream, mine in held.items():
            head = theirs.get(stream)
            if stream.origin == self.peer and (head is None or head.seq < mine.seq):
                effects.append(PeerRestored(stream))
        return effects

    def _own(self, beyond: list[StreamId], held: Mapping[StreamId, Head]) -> list[BranchEffect]:
        """What the parent's heads say of the life that this node leads."""
        if any(stream.epoch == self.epoch for stream in beyond):
            return [LostHistory()]
        own = [head for s, head in self.theirs.items() if (s.origin, s.epoch) == (self.unit, self.epoch)]
        behind = tuple(head for head in own if head.seq < held[head.stream].seq)
        return [MayHaveLostHistory(behind)] if behind else []

    def _is_beyond(self, mine: Head | None, theirs: Head) -> bool:
        """Whether the peer has what this node signed and does not have."""
        if theirs.stream.origin != self.unit:
            return False
        return mine is None or mine.seq < theirs.seq or (mine.seq == theirs.seq and mine.hash != theirs.hash)

    def on_chain(self, chain: Chain) -> list[BranchEffect]:
        """The peer shows a chain; from one that stands farther from the origin, an empty one ends its answer. Raises
        OutOfScope or LimitExceeded."""
        if not is_shared(chain.stream.scope, self.child):
            raise OutOfScope("the peer shows the chain of a stream that does not travel here")
        if not is_towards(chain.stream.origin, self.peer, self.unit):
            self._awaited = max(0, self._awaited - 1)
            return []
        if chain.stream in self._shipping:
            raise LimitExceeded("the peer shows a chain again while what parts from it is on its way")
        self._shipping.add(chain.stream)
        return [ShipBranch(chain)]

    def on_chain_told(self) -> None:
        """A chain has been shown: the session goes on until the peer has sent what parts from it."""
        self._awaited += 1

    def on_branch_shipped(self, stream: StreamId) -> Chain:
        """All that a chain made necessary has been sent: what is to be said then."""
        self._shipping.discard(stream)
        return Chain(stream, 1, ())

    def is_linear(self, stream: StreamId, common: int) -> bool:
        """Whether the peer holds nothing of a stream beyond what both have: the rest is sent as always."""
        head = self.theirs.get(stream)
        return head is None or head.seq <= common
