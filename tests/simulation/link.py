"""One session between a child and its parent, frame by frame, over a line that may do anything.

Role: the synchronous twin of ``node.session`` around the production state machine; the line with its faults.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from conflict.values import UnitPath
from node import session as production
from node.storage import peers
from node.storage.batches import lacking, stored_batch
from node.storage.certificates import keep_path
from node.storage.inbox import Taken, Verified, refuse
from node.storage.meta import fence
from sync_engine.batch import parse_batch
from sync_engine.errors import BadCertificate, BadSignature, Fenced, RemoteFault, ReplicationError, RuleBroken
from sync_engine.exchange import (
    Effect,
    Exchange,
    Finish,
    PeerForked,
    PeerHolds,
    PeerMet,
    PeerRestored,
    Send,
    Ship,
    Store,
    StoreCertificates,
)
from sync_engine.frames import Ack, BatchFrame, Certificates, HeadsFrame, decode, encode
from tests.simulation.process import Process


@dataclass
class Line:
    """What one link does to frames; rates are of one frame. ``count`` is told of each fault that really happened."""

    rng: Random
    count: Callable[[str], None]
    rates: dict[str, float] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    """Receivers that nothing reaches: one name is a one-way partition, two a whole one."""
    slow: int = 1
    """A frame moves on one in so many turns."""
    overheard: list[bytes] = field(default_factory=list)
    """Batch frames of earlier sessions."""

    def happens(self, fault: str) -> bool:
        if self.rng.random() < self.rates.get(fault, 0.0):
            self.count(fault)
            return True
        return False

    def carry(self, to: str, data: bytes, queue: deque[bytes]) -> None:
        if to in self.blocked:
            self.count("partition, one way" if len(self.blocked) == 1 else "partition")
            return
        is_batch = isinstance(decode(data), BatchFrame)
        if (is_batch or self.rng.random() < 0.3) and self.happens("loss"):
            return  # a session that lost its first words says nothing: most losses are of batches
        if is_batch and self.happens("garbled"):
            at = self.rng.randrange(len(data) // 2, len(data))
            data = data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1 :]
        queue.append(data)
        if not is_batch:
            return
        if self.happens("repeat"):
            queue.append(data)
        if self.overheard and self.happens("replay"):
            queue.append(self.rng.choice(self.overheard))
        waiting = next((at for at, each in enumerate(reversed(queue)) if not is_batch_frame(each)), len(queue))
        if waiting > 1 and self.happens("reorder"):
            queue.insert(len(queue) - self.rng.randrange(1, waiting), queue.pop())
        if len(self.overheard) < 20:
            self.overheard.append(data)


def is_batch_frame(data: bytes) -> bool:
    try:
        return isinstance(decode(data), BatchFrame)
    except RemoteFault:
        return False


@dataclass
class Watch:
    """Who is told of what a session shows, for the checks."""

    acked: Callable[[Process, Ack], None]
    heads_met: Callable[[Process, HeadsFrame], None]
    say: Callable[[str], None]
    count: Callable[[str], None]


class End:
    """One side: performs what the exchange names. Any step may raise a fault or crash."""

    def __init__(self, node: Process, child: str, peer: str, send: Callable[[bytes], None], watch: Watch) -> None:
        self.node, self.child, self.peer, self._send, self.watch = node, child, peer, send, watch
        self.inbox: deque[Verified] = deque()
        self.shipping: Iterator[bool] | None = None
        self.finished = False
        node.apply_ready()
        node.seal_one()
        self.sealing = True
        """The rest of what is pending is sealed beside the session."""
        hello, held = node.read(production.hello_of, node.context, UnitPath(child), b"")
        self.exchange = Exchange(hello, held, child=UnitPath(child), peer=UnitPath(peer))

    def begin(self) -> None:
        self.perform(self.exchange.start())

    def receive(self, data: bytes) -> None:
        frame = decode(data)
        if frame is None:
            return
        effects = self.exchange.on_frame(frame)
        if isinstance(frame, HeadsFrame):
            self.watch.heads_met(self.node, frame)
        self.perform(effects)

    def perform(self, effects: list[Effect]) -> None:
        write = self.node.write
        for effect in effects:
            match effect:
                case Send(frame):
                    if isinstance(frame, Ack):
                        self.watch.acked(self.node, frame)
                    self._send(encode(frame))
                case Store(data):
                    self._prove(data)
                case StoreCertificates(paths):
                    self._keep(paths)
                case Ship(scopes):
                    self.shipping = self._ship(scopes)
                case PeerHolds(heads):
                    write(peers.note_holds, self.peer, heads)
                case PeerForked(theirs):
                    write(production._freeze, self.node.context.unit, theirs)
                case PeerRestored(stream):
                    write(peers.note_fenced, self.peer, f"{self.peer} is behind on its own stream {stream}")
                case PeerMet(hello):
                    write(peers.note_met, self.peer, hello.time_ms - self.node.now_ms())
                case Finish():
                    self.finished = True

    def _keep(self, paths: tuple[tuple[bytes, ...], ...]) -> None:
        for path in paths:
            try:
                self.node.write(keep_path, path, self.node.context.tree_id)
            except (BadCertificate, RemoteFault) as fault:
                self.watch.say(f"{self.node.unit} refuses a certificate: {fault}")

    def _prove(self, data: bytes) -> None:
        try:
            self.inbox.append(self.node.verify(data))
        except RuleBroken as fault:
            self.watch.say(f"{self.node.unit} refuses {fault.head.stream} {fault.head.seq}: {fault}")
            self.node.write(refuse, fault)
            self.perform(self.exchange.on_refused(fault.head, str(fault), len(data)))
        except (BadSignature, BadCertificate) as fault:
            self.perform(self.exchange.on_refused(parse_batch(data).head, str(fault), len(data)))

    def store_next(self) -> None:
        verified = self.inbox.popleft()
        outcome = self.node.take(verified)
        head, size = verified.batch.head, len(verified.batch.data)
        self.watch.say(f"{self.node.unit} takes {head.stream} {head.seq}: {outcome.taken}")
        self.watch.count(f"batch {outcome.taken}")
        if outcome.taken is Taken.FROZEN:
            self.perform(self.exchange.on_refused(head, "the stream is frozen or refused here", size))
        else:
            self.perform(self.exchange.on_stored(outcome.held, size))
        if outcome.taken is Taken.APPLIED:
            self.node.apply_ready()

    def ship_next(self) -> bool:
        """One more step of shipping; False where the peer's credit does not allow it."""
        assert self.shipping is not None
        moved = next(self.shipping, None)
        if moved is None:
            self.shipping = None
            self.perform(self.exchange.on_shipped())
            return True
        return moved

    def seal_next(self) -> None:
        self.sealing = self.node.seal_one()

    def _ship(self, scopes: Any) -> Iterator[bool]:
        certified: set[tuple[Any, Any]] = set()
        while True:
            for spans in scopes:
                yield from self._ship_scope(spans, certified)
            all_sealed = not self.sealing
            scopes = self.exchange.more(self.node.read(production.held_on_link, UnitPath(self.child)))
            if not scopes and all_sealed:
                return
            if not scopes:
                yield False

    def _ship_scope(self, spans: Any, certified: set[tuple[Any, Any]]) -> Iterator[bool]:
        nos, forked = self.node.read(lacking, spans)
        for theirs in forked:
            self.exchange.on_forked(theirs)
            self.node.write(production._freeze, self.node.context.unit, theirs)
        new = {(span.stream.origin, span.stream.epoch) for span in spans if span.after is None} - certified
        paths = self.node.read(production._paths, sorted(new))
        if paths:
            self._send(encode(Certificates(paths)))
        certified |= new
        for no in nos:
            stream, digest, raw = self.node.read(stored_batch, no)
            if self.exchange.is_refused(stream):
                continue
            batch = production._undamaged(raw, digest)
            assert batch is not None, "nothing here damages what is stored"
            data = self.node.read(production.for_peer, self.node.context, self.peer, batch)
            while not self.exchange.may_send(len(data)):
                yield False
            self.exchange.on_sent(batch.head, len(data))
            self._send(encode(BatchFrame(data)))
            yield True


class Session:
    """Both ends and what is under way between them."""

    def __init__(self, child: Process, parent: Process, line: Line, watch: Watch) -> None:
        self.child, self.parent, self.line, self.watch = child, parent, line, watch
        self.queues: dict[str, deque[bytes]] = {child.unit: deque(), parent.unit: deque()}
        self.ends: dict[str, End] = {}
        self.turns = 0
        self.over = False
        try:
            for node, peer in ((parent, child), (child, parent)):
                at = node
                self.ends[node.unit] = End(node, child.unit, peer.unit, self._sender(peer.unit), watch)
            at = child
            self.ends[child.unit].begin()
        except ReplicationError as fault:
            self.fail(at, fault)

    def _sender(self, to: str) -> Callable[[bytes], None]:
        return lambda data: self.line.carry(to, data, self.queues[to])

    def moves(self) -> list[tuple[str, str]]:
        """What could happen next: (unit, receive | store | ship)."""
        found = []
        for unit, end in self.ends.items():
            if self.queues[unit] and len(end.inbox) < 2:
                found.append((unit, "receive"))
            if end.inbox:
                found.append((unit, "store"))
            if end.sealing:
                found.append((unit, "seal"))
            if end.shipping is not None:
                found += [(unit, "ship")] * 3
        return found

    def step(self, rng: Random) -> bool:
        """One event; False if nothing could move: both sides would wait until they give up."""
        self.turns += 1
        if self.line.slow > 1 and self.turns % self.line.slow:
            return True
        moves = self.moves()
        while moves:
            unit, what = moves.pop(rng.randrange(len(moves)))
            if self._do(unit, what):
                return True
        return False

    def _do(self, unit: str, what: str) -> bool:
        end = self.ends[unit]
        try:
            if what == "ship":
                moved = end.ship_next()
            else:
                moved = True
                if what == "receive":
                    end.receive(self.queues[unit].popleft())
                elif what == "seal":
                    end.seal_next()
                else:
                    end.store_next()
            if end.finished:
                self._close()
        except ReplicationError as fault:
            self.fail(end.node, fault)
            return True
        return moved

    def _close(self) -> None:
        """The child ended it; the parent takes in what is still on the way, as its call ends only after that."""
        self.over = True
        for node, peer in ((self.child, self.parent), (self.parent, self.child)):
            node.write(peers.note_success, peer.unit, node.now_ms())

    def fail(self, at: Process, fault: ReplicationError) -> None:
        """What ``parent_link`` and ``child_links`` do with a fault."""
        self.over = True
        self.watch.say(f"session {self.child.unit}: {at.unit} raises {fault.code}: {fault}")
        peer = self.parent if at is self.child else self.child
        if isinstance(fault, Fenced):
            at.write(fence, str(fault))
        else:
            at.write(peers.note_failure, peer.unit, at.now_ms(), str(fault))
