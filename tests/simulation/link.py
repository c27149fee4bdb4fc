"""One session between a child and its parent, frame by frame, over a line that may do anything.

Role: the line with its faults; the production session on both its ends, on a loop that moves only when told to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from conflict.values import Head, UnitPath
from node.local import Node
from node.session import IDLE_S, faults_noted
from node.session import Session as ProductionSession
from node.storage.inbox import Outcome
from sync_engine.batch import SealedBatch, encode_batch, encode_header, parse_batch
from sync_engine.errors import LinkFault, RemoteFault, ReplicationError
from sync_engine.frames import Ack, BatchFrame, Credit, Frame, HeadsFrame, Hello, decode, encode
from tests.simulation.checks import require
from tests.simulation.identities import IDENTITIES
from tests.simulation.loop import Loop
from tests.simulation.process import Process, SimulatedCrash


@dataclass
class Line:
    """What one link does to frames; rates are of one frame. ``count`` is told of each fault that really happened."""

    rng: Random
    count: Callable[[str], None]
    ends: tuple[str, str] = ("", "")
    rates: dict[str, float] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    """Receivers that nothing reaches: one name is a one-way partition, two a whole one."""
    on_equivocated: Callable[[Head, Head], None] = lambda _one, _other: None
    slow: int = 1
    """A frame moves on one in so many turns."""
    overheard: list[bytes] = field(default_factory=list)
    """Batch frames of earlier sessions."""

    def happens(self, fault: str) -> bool:
        if self.rng.random() < self.rates.get(fault, 0.0):
            self.count(fault)
            return True
        return False

    def carry(self, to: str, data: bytes, queue: deque[bytes | LinkFault | None]) -> None:
        if to in self.blocked:
            self.count("partition, one way" if len(self.blocked) == 1 else "partition")
            return
        is_batch = isinstance(decode(data), BatchFrame)
        if (is_batch or self.rng.random() < 0.3) and self.happens("loss"):
            return  # a session that lost its first words says nothing: most losses are of batches
        if is_batch and self.happens("garbled"):
            at = self.rng.randrange(len(data) // 2, len(data))
            data = data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1 :]
        elif self.happens("truncated"):
            data = data[: self.rng.randrange(1, len(data))]
        elif is_batch and self.happens("forged"):
            data = forged(data)
        elif is_batch and self._is_by_sender(to, data) and self.happens("poisoned"):
            data = poisoned(data)
        elif is_batch and opened(data).header.stream.origin not in self.ends and self.happens("equivocated"):
            before, data = opened(data), equivocated(data)
            self.on_equivocated(before.head, opened(data).head)
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

    def _is_by_sender(self, to: str, data: bytes) -> bool:
        sender = next(each for each in self.ends if each != to)
        return opened(data).header.stream.origin == sender


def opened(data: bytes) -> SealedBatch:
    frame = decode(data)
    assert isinstance(frame, BatchFrame)
    return parse_batch(frame.data)


def signed_again(batch: SealedBatch, header_bytes: bytes, by: str, epoch: str = "") -> bytes:
    signature = IDENTITIES.of(by, epoch).sign("batch", header_bytes)
    return encode(BatchFrame(encode_batch(header_bytes, signature, batch.chunks)))


def poisoned(data: bytes) -> bytes:
    """The same batch by a hostile origin: its own key has signed that there are more rows in it than there are."""
    batch = opened(data)
    first, *others = batch.header.sections
    header = replace(batch.header, sections=(replace(first, rows=first.rows + 1), *others))
    return signed_again(batch, encode_header(header), header.stream.origin, header.stream.epoch)


def equivocated(data: bytes) -> bytes:
    """Another batch at the same place, signed by its origin: as if it had had two lives."""
    batch = opened(data)
    header = replace(batch.header, again=not batch.header.again)
    return signed_again(batch, encode_header(header), header.stream.origin, header.stream.epoch)


def forged(data: bytes) -> bytes:
    """The same batch, signed by another node of the tree with the key that it has."""
    batch = opened(data)
    return signed_again(batch, batch.header_bytes, "vn" if batch.header.stream.origin != "vn" else "p0.vn")


def decoded(item: bytes | LinkFault | None) -> Frame | None:
    """A frame, unless it is none (garbled, or the connection's end)."""
    try:
        return decode(item) if isinstance(item, bytes) else None
    except RemoteFault:
        return None


def is_batch_frame(item: bytes | LinkFault | None) -> bool:
    return isinstance(decoded(item), BatchFrame)


@dataclass
class Watch:
    """Who is told of what a session shows, for the checks."""

    acked: Callable[[Process, Ack], None]
    is_news: Callable[[Process, HeadsFrame], bool]
    """Whether a parent's heads tell a node that it lost history."""
    learnt: Callable[[Process, str], None]
    """A node knows that from now on, and had this epoch when it was told."""
    say: Callable[[str], None]
    count: Callable[[str], None]


class TurnedDatabase:
    """Stands where ``node.database.Database`` does: each transaction waits until it is that task's turn."""

    def __init__(self, end: End) -> None:
        self._end = end

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        await self._end.turn()
        return self._watched(self._end.node.read, work, *args, **kwargs)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        await self._end.turn()
        result = self._watched(self._end.node.write, work, *args, **kwargs)
        if isinstance(result, Outcome):
            self._end.watch.count(f"batch {result.taken}")
        return result

    write_late = write

    def _watched(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except AssertionError as violation:
            self._end.violation = violation
            raise


class End:
    """One side: a node's session, the frames that have reached it, and its tasks that wait for their turn."""

    def __init__(self, loop: Loop, node: Process, child: str, peer: str, watch: Watch) -> None:
        self.node, self.child, self.peer, self.watch = node, child, peer, watch
        self.send_on: Callable[[bytes], None] = lambda _data: None
        self.queue: deque[bytes | LinkFault | None] = deque()
        """None: the other side has ended its session; a fault: the connection broke here."""
        self.is_dead = self.is_cut = False
        self._introduced = False
        self.learnt = ""
        """The epoch in which the parent's heads told that history was lost: known once the session is over, and
        forgotten if the process dies in it."""
        self.violation: AssertionError | None = None
        self._loop = loop
        self._sent = self._credit = 0
        self._turns: list[asyncio.Future[None]] = []
        self._reading: asyncio.Future[bytes | None] | None = None
        self.task = loop.create_task(self._live())

    async def _live(self) -> None:
        keys = SimpleNamespace(certified=SimpleNamespace(sha256=b""))
        node = Node(
            self.node.path,  # by which ``request`` knows whose keys are asked for
            cast(Any, None),
            cast(Any, keys),
            self.node.context,
            cast(Any, TurnedDatabase(self)),
        )
        async with faults_noted(node, self.peer):
            session = ProductionSession(
                node, self, child=UnitPath(self.child), peer=UnitPath(self.peer), progress=lambda _summary: None
            )
            await session.run()

    # --- what the session waits for ---

    async def turn(self) -> None:
        """Wait until it is this task's turn. A dead process has none."""
        if not self.is_dead:
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._turns.append(waiting)
            await waiting
        if self.is_dead:
            raise SimulatedCrash(self.node.unit)

    async def send(self, data: bytes) -> None:
        if self.is_dead:
            raise SimulatedCrash(self.node.unit)
        if self.is_cut:
            raise LinkFault("the connection is gone")
        match decode(data):
            case Ack() as ack:
                self.watch.acked(self.node, ack)
            case BatchFrame(batch):
                require(
                    opened(data).header.stream.epoch != self.node.keys.waiting,
                    lambda: f"I4: {self.node.name} sends what it sealed in a life that nobody has certified",
                )
                self._sent += len(batch)
                require(self._sent <= self._credit, lambda: f"I14: {self.node.unit} sends more than there is room for")
        self.send_on(data)

    async def receive(self) -> bytes | None:
        self._reading = self._loop.create_future()
        return await self._reading

    # --- what the simulator does with it ---

    def moves(self) -> list[Callable[[], None]]:
        """What could happen next here."""
        self._turns = [each for each in self._turns if not each.done()]
        found: list[Callable[[], None]] = [lambda each=each: self._give(each) for each in self._turns]  # type: ignore[misc]
        if self.queue and self._reading is not None and not self._reading.done():
            found.append(self._deliver)
        return found

    def _give(self, waiting: asyncio.Future[None]) -> None:
        waiting.set_result(None)
        self._loop.settle()

    def _deliver(self) -> None:
        assert self._reading is not None
        item = self.queue.popleft()
        if isinstance(item, LinkFault):
            self._reading.set_exception(item)
        else:
            match decoded(item):
                case Hello():
                    self._introduced = True
                case HeadsFrame() as heads if self.node.unit == self.child and self._introduced:
                    if self.watch.is_news(self.node, heads):
                        self.learnt = self.node.context.epoch
                case Credit(total):
                    self._credit = max(self._credit, total)
            self._reading.set_result(item)
        self._loop.settle()

    def die(self) -> None:
        """The process is gone: nothing of it runs on."""
        self.is_dead = True
        while not self.task.done():
            waiting = [each for each in (*self._turns, self._reading) if each is not None and not each.done()]
            self._turns, self._reading = [], None
            for each in waiting:
                each.set_exception(SimulatedCrash(self.node.unit))
            self._loop.settle()
            if not waiting:
                self.task.cancel()
                self._loop.settle()

    def hang_up(self, how: LinkFault | None) -> None:
        """Nothing comes from the other side after what is here already. One that has ended in order lets what is
        still sent to it pass; a broken connection takes nothing more."""
        self.queue.append(how)
        self.is_cut = how is not None

    def ended_with(self) -> BaseException | None:
        return LinkFault("given up") if self.task.cancelled() else self.task.exception()


class Session:
    """Both ends and what is under way between them."""

    def __init__(self, child: Process, parent: Process, line: Line, watch: Watch) -> None:
        self.child, self.parent, self.line, self.watch = child, parent, line, watch
        self.turns = 0
        self._loop = Loop()
        self._told: set[str] = set()
        self.ends = {
            node.unit: End(self._loop, node, child.unit, peer.unit, watch)
            for node, peer in ((child, parent), (parent, child))
        }
        for end in self.ends.values():
            end.send_on = self._sender(end.peer)
        self._loop.settle()

    def _sender(self, to: str) -> Callable[[bytes], None]:
        return lambda data: self.line.carry(to, data, self.ends[to].queue)

    @property
    def over(self) -> bool:
        return all(end.task.done() for end in self.ends.values())

    def step(self, rng: Random) -> bool:
        """One event; False if nothing could move: both sides wait, and time passes."""
        self.turns += 1
        if self.line.slow > 1 and self.turns % self.line.slow:
            return True
        moves = [move for end in self.ends.values() for move in end.moves()]
        if moves:
            rng.choice(moves)()
        else:
            self._loop.advance(IDLE_S / 2)
        self._notice()
        return bool(moves)

    def _notice(self) -> None:
        """Tell of ends that have ended; whoever is on the other side learns it by the connection."""
        for end in self.ends.values():
            if end.violation is not None:
                raise end.violation
            if not end.task.done() or end.node.unit in self._told:
                continue
            self._told.add(end.node.unit)
            fault = end.ended_with()
            other = self.ends[end.peer]
            if end.learnt and not isinstance(fault, SimulatedCrash):
                self.watch.learnt(end.node, end.learnt)
            if fault is None:
                other.hang_up(None)
            elif isinstance(fault, SimulatedCrash):
                other.hang_up(LinkFault(f"{end.node.unit} is gone"))
            elif isinstance(fault, ReplicationError):
                self.watch.say(f"session {self.child.unit}: {end.node.unit} ends with {fault.code}: {fault}")
                other.hang_up(LinkFault(f"{end.node.unit} broke off"))
            else:
                raise fault

    def cut(self) -> None:
        """The connection is gone, and what was on the way with it."""
        for end in self.ends.values():
            end.queue.clear()
            end.hang_up(LinkFault("the connection was closed in mid-session"))

    def lose(self, unit: str) -> None:
        """One side's process is gone."""
        self.ends[unit].die()
        self._notice()

    def forget(self) -> None:
        """The run is over, in mid-session."""
        for end in self.ends.values():
            end.die()
