"""One session between a child and its parent, as a state machine.

Role: told what arrives and what the shell has done, name what to do next; ``carried`` is one side of this, written
down.
Reach: frames, names. Invariant: an Ack is named only after the shell reports a batch durable; nothing is assumed of
the peer but what it said in this session, because either side may have been restored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from sync_engine import frames
from sync_engine.branches import BranchEffect, Branches
from sync_engine.errors import IncompatibleVersion, LimitExceeded, Malformed, OutOfScope, WrongTree
from sync_engine.frames import (
    Ack,
    BatchFrame,
    Certificates,
    Chain,
    Credit,
    Done,
    ForkProof,
    Frame,
    HeadsFrame,
    Hello,
    Receipt,
    Refusal,
    Statements,
    Want,
)
from sync_engine.names import CATALOG, REGISTRY, is_shared
from sync_engine.telling import NOTHING, KeepReceipt, KeepStatements, SignReceipt, Telling
from sync_engine.wanting import Wanting

CREDIT_BYTES = 16 * 1024 * 1024
"""How far a sender may run ahead of what the receiver has stored: both sides' memory is bounded by it."""


@dataclass(frozen=True, slots=True)
class Send:
    frame: Frame


@dataclass(frozen=True, slots=True)
class Store:
    """Verify and store a batch, then report ``on_stored`` or ``on_refused``."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StoreCertificates:
    paths: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a stream that the peer lacks: after ``after`` (None: from its beginning) up to ``upto``."""

    stream: StreamId
    after: Head | None
    upto: Head

    @property
    def batches(self) -> int:
        return self.upto.seq - (self.after.seq if self.after else 0)


@dataclass(frozen=True, slots=True)
class Ship:
    """Send these, scope by scope in this order and within a scope in local order; then report ``on_shipped``."""

    scopes: tuple[tuple[Span, ...], ...]


@dataclass(frozen=True, slots=True)
class PeerHolds:
    """The peer said that it has these, durably."""

    heads: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class PeerForked:
    """The peer says that it has ``theirs`` where this node has another batch: both show theirs, and what both origins
    signed freezes the stream. A word alone is held against nobody."""

    theirs: Head


@dataclass(frozen=True, slots=True)
class Prove:
    """The peer passes on a proof that two batches stand at one place: verify it, keep it, freeze the stream."""

    proof: ForkProof


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """The peer did not take a batch: nothing more of its stream is sent in this session, and the operator is told."""

    head: Head
    reason: str


@dataclass(frozen=True, slots=True)
class PeerMet:
    """The peer introduced itself: who it is, and how far its clock is from ours (milliseconds, theirs minus ours)."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """A bundle says who wrote it: as ``PeerMet``, but when it was written nobody knows, and it is not there to meet."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do or to wait for."""


Effect: TypeAlias = (
    Send
    | Store
    | StoreCertificates
    | KeepStatements
    | SignReceipt
    | KeepReceipt
    | Ship
    | Prove
    | PeerHolds
    | PeerForked
    | BranchEffect
    | PeerRefused
    | PeerMet
    | PeerHeard
    | Finish
)


def digest_of(
    heads: Iterable[Head],
    *,
    pending: bool = False,
    unconfirmed: str = "",
    forked: Iterable[StreamId] = (),
    statements: Mapping[Scope, bytes] = NOTHING,
    wanted: Iterable[Head] = (),
) -> bytes:
    """What hello carries: SHA-256 over the held heads of the shared scopes, the streams whose fork is proven, and each
    scope's statements. With edits that are not sealed yet, while ``unconfirmed``, the speaker, lacks a receipt, or with
    batches that it wants back, it equals no peer's: a session that found itself in step would end without them."""
    digest = sha256(b"pending" if pending else b"")
    digest.update(f"unconfirmed\0{unconfirmed}\0".encode() if unconfirmed else b"")
    for head in sorted(wanted):
        digest.update(b"wanted\0" + head.hash)
    for stream in sorted(forked):
        digest.update(f"fork\0{stream.origin}\0{stream.epoch}\0{stream.scope}\0".encode())
    for head in sorted(heads):
        digest.update(f"{head.stream.origin}\0{head.stream.epoch}\0{head.stream.scope}\0{head.seq}\0".encode())
        digest.update(head.hash)
    for scope, said in sorted(statements.items()):
        digest.update(f"said\0{scope}\0".encode())
        digest.update(said)
    return digest.digest()


def sending_order(spans: Iterable[Span]) -> tuple[tuple[Span, ...], ...]:
    """Registry, then catalogues (others wait for them), then small scopes before large backlogs."""
    by_scope: dict[str, list[Span]] = {}
    for span in spans:
        by_scope.setdefault(span.stream.scope, []).append(span)

    def rank(scope: str) -> tuple[int, int, str]:
        kind = 0 if scope.endswith(REGISTRY) else 1 if scope.endswith(CATALOG) else 2
        return kind, sum(span.batches for span in by_scope[scope]), scope

    return tuple(tuple(by_scope[scope]) for scope in sorted(by_scope, key=rank))


class Exchange:
    """One side of a session. ``held`` are this node's held heads of the shared scopes as the session begins,
    ``statements`` a digest of what it knows said of each, ``unconfirmed`` the scopes for which it lacks a receipt."""

    def __init__(
        self,
        hello: Hello,
        held: Mapping[StreamId, Head],
        *,
        child: UnitPath,
        peer: UnitPath,
        statements: Mapping[Scope, bytes] = NOTHING,
        unconfirmed: frozenset[Scope] = frozenset(),
        wanted: tuple[Head, ...] = (),
    ) -> None:
        self.hello = hello
        self.held = dict(held)
        self.child, self.peer = child, peer
        self.telling = Telling(statements, unconfirmed)
        self.wanting = Wanting(wanted)
        self.dials = hello.unit == child
        self.branches = Branches(hello.unit, hello.epoch, child, peer)
        self.peer_hello: Hello | None = None
        self._unacked: dict[StreamId, int] = {}
        self._refused: set[StreamId] = set()
        self._fillers: set[Head] = set()
        self._theirs: dict[StreamId, Head] = {}
        self._granted = self._received = 0  # of what the peer may send us
        self._credit = self._sent = 0  # of what we may send
        self._storing = 0
        self._compared = self._shipped = self._peer_done = self._finished = False

    # --- what the shell reports ---

    def start(self) -> list[Effect]:
        """The child speaks first."""
        return [Send(self.hello)] if self.dials else []

    def on_frame(self, frame: Frame) -> list[Effect]:
        """Raises a RemoteFault when the peer broke the protocol; the session is over then."""
        self._check_introduced(frame)
        match frame:
            case Hello():
                return self._on_hello(frame)
            case HeadsFrame(heads):
                self.telling.on_heads(frame, self.child)
                return self._on_heads(heads)
            case BatchFrame(data):
                return self._on_batch(data)
            case Ack(heads):
                return self._on_ack(heads)
            case Credit(total):
                self._credit = max(self._credit, total)
                return []
            case Chain():
                return self._on_chain(frame)
            case Want():
                self.wanting.on_want(frame, self.child)
                return []
            case Refusal():
                return self._on_refusal(frame)
            case Done():
                self._peer_done = True
                return self._finish_if_due()
            case _:
                return self._on_told(frame)

    def _check_introduced(self, frame: Frame) -> None:
        if self.peer_hello is None and not isinstance(frame, Hello):
            raise Malformed("the peer spoke before introducing itself")

    def _on_told(self, frame: Certificates | Statements | Receipt | ForkProof) -> list[Effect]:
        """What nodes have signed beside batches: it is kept."""
        match frame:
            case Certificates(paths):
                return [StoreCertificates(paths)]
            case Statements(statements):
                return [self.telling.on_statements(statements)]
            case Receipt():
                return [self.telling.on_receipt(frame)]
            case ForkProof():
                return [Prove(frame)]

    def on_stored(self, head: Head | None, size: int) -> list[Effect]:
        """A batch is durable (its stream is held up to ``head``), or was dropped (None)."""
        self._storing -= 1
        self._granted += size
        effects: list[Effect] = [Send(Credit(self._granted))]
        if head is not None:
            effects.insert(0, Send(Ack((head,))))
            self.telling.on_moved(head.stream.scope)
        return effects + self._finish_if_due()

    def on_refused(self, head: Head, reason: str, size: int) -> list[Effect]:
        """A batch breaks a rule, or its bytes are not its origin's: say so, go on with the other streams."""
        return [Send(Refusal(head, reason)), *self.on_stored(None, size)]

    def may_send(self, size: int) -> bool:
        """Whether the peer's credit allows a batch of ``size`` bytes."""
        return self._sent + size <= self._credit

    def on_filler(self, head: Head) -> None:
        """A batch that has been said again goes out for the sake of what follows it: who knows it by its present name
        does not take it, and takes what follows."""
        self._fillers.add(head)

    def on_sent(self, head: Head, size: int, *, again: bool = False) -> None:
        """A batch has gone out. One that the peer wanted back is not acknowledged: its heads have counted it all
        along."""
        self._sent += size
        if again:
            return
        self._unacked[head.stream] = head.seq
        self._theirs[head.stream] = head
        self.telling.on_moved(head.stream.scope)

    def on_forked(self, theirs: Head) -> None:
        """The peer's head is not on the chain held here: nothing of that stream is sent but what proves it."""
        self._refused.add(theirs.stream)

    def more(self, held: Mapping[StreamId, Head]) -> tuple[tuple[Span, ...], ...]:
        """What has been sealed or stored here since the session began and the peer still lacks, in sending order."""
        spans = []
        for stream, mine in held.items():
            theirs = self._theirs.get(stream)
            if stream not in self._refused and (theirs is None or theirs.seq < mine.seq):
                spans.append(Span(stream, theirs, mine))
        return sending_order(spans)

    def knows_origin(self, unit: UnitPath, epoch: Epoch) -> bool:
        """Whether the peer has batches of that life of a unit, and so its certificate."""
        return any((stream.origin, stream.epoch) == (unit, epoch) for stream in self._theirs)

    def leave(self, stream: StreamId) -> None:
        """Nothing more of a stream is sent in this session, nor an answer to what was sent waited for."""
        self._refused.add(stream)
        self._unacked.pop(stream, None)

    def is_refused(self, stream: StreamId) -> bool:
        """Whether the peer refused a batch of this stream: nothing more of it is sent in this session."""
        return stream in self._refused

    @property
    def is_complete(self) -> bool:
        """Whether both sides have said all they had, and all of ours was acknowledged or refused."""
        said = self._compared and self._shipped and self._peer_done
        return said and not (self._unacked or self._storing) and self.branches.are_settled

    def on_shipped(self) -> list[Effect]:
        """All that the peer lacked has been sent."""
        self._shipped = True
        return [Send(Done()), *self._finish_if_due()]

    def on_branch_shipped(self, stream: StreamId) -> list[Effect]:
        """All that a chain made necessary has been sent."""
        return [Send(self.branches.on_branch_shipped(stream)), *self._finish_if_due()]

    def on_receipt_sent(self) -> list[Effect]:
        """What this node holds has been signed for the peer."""
        self.telling.has_sent = True
        return self._finish_if_due()

    def on_receipt_kept(self) -> list[Effect]:
        """What the peer has signed is durable here, or was worth nothing."""
        self.telling.has_kept = True
        return self._finish_if_due()

    # --- what follows from it ---

    def _meet(self, theirs: Hello) -> None:
        """Raises a RemoteFault where the peer cannot be talked with, or is another than was expected."""
        if self.peer_hello is not None:
            raise Malformed("the peer introduced itself twice")
        if theirs.major != frames.MAJOR:
            raise IncompatibleVersion(
                f"{theirs.unit} speaks protocol {theirs.major}.{theirs.minor}, this node {frames.MAJOR}.{frames.MINOR}"
            )
        if theirs.tree_id != self.hello.tree_id:
            raise WrongTree(f"{theirs.unit} belongs to another tree")
        if theirs.unit != self.peer:
            raise OutOfScope(f"the peer calls itself {theirs.unit}, its certificate {self.peer}")
        self.peer_hello = theirs

    def _on_hello(self, theirs: Hello) -> list[Effect]:
        self._meet(theirs)
        equal = theirs.digest == self.hello.digest
        effects: list[Effect] = [PeerMet(theirs)]
        if not self.dials:
            effects.append(Send(self.hello))
        if equal:
            self._compared = self._shipped = self._peer_done = True
            self.telling.on_in_step()
            if not self.dials:
                effects.append(Send(Done()))
            return [*effects, PeerHolds(tuple(self.held.values())), *self._finish_if_due()]
        self._granted = CREDIT_BYTES
        effects += [Send(want) for want in self.wanting.frames()]
        return [*effects, Send(self.telling.heads(self.held)), Send(Credit(self._granted))]

    def _on_heads(self, theirs: tuple[Head, ...]) -> list[Effect]:
        if self._compared:
            raise Malformed("the peer named its heads twice")
        self._compared = True
        if any(not is_shared(head.stream.scope, self.child) for head in theirs):
            raise OutOfScope("the peer names a scope that does not travel here")
        self._theirs = {head.stream: head for head in theirs}
        effects: list[Effect] = [*self.branches.on_heads(self.held, self._theirs)]
        for stream, mine in self.held.items():
            head = self._theirs.get(stream)
            if head is not None and head.seq == mine.seq and head.hash != mine.hash:
                self.on_forked(head)
                effects.append(PeerForked(head))
        return [PeerHolds(theirs), *effects, Ship(self.more(self.held))]

    def _on_batch(self, data: bytes) -> list[Effect]:
        self._received += len(data)
        if not self._compared or self._received > self._granted:
            raise LimitExceeded("the peer sent more than it was allowed to")
        self._storing += 1
        return [Store(data)]

    def _on_chain(self, chain: Chain) -> list[Effect]:
        return [*self.branches.on_chain(chain), *self._finish_if_due()]

    def _on_refusal(self, refusal: Refusal) -> list[Effect]:
        stream = refusal.head.stream
        if stream not in self._theirs or refusal.head in self._fillers:
            return []  # of what was sent alone: each is kept and told
        told = [] if stream in self._refused else [PeerRefused(refusal.head, refusal.reason)]
        self.leave(stream)
        return [*told, *self._finish_if_due()]

    def _on_ack(self, heads: tuple[Head, ...]) -> list[Effect]:
        heads = tuple(head for head in heads if head.stream in self._theirs)  # of anything else there was no talk
        for head in heads:
            if self._unacked.get(head.stream, 0) <= head.seq:
                self._unacked.pop(head.stream, None)
        return [PeerHolds(heads), *self._finish_if_due()]

    def _finish_if_due(self) -> list[Effect]:
        """Each side signs for what it holds once all it sent is acknowledged and all it was sent is stored: the peer
        can make nothing of a receipt for what it has not stored itself. When both have signed the child ends it."""
        if not self.is_complete:
            return []
        effects: list[Effect] = [*self.telling.on_complete()]
        if self.telling.is_signed and self.dials and not self._finished:
            self._finished = True
            effects.append(Finish())
        return effects
