"""Performs one session: what the exchange decides, done over a link.

Role: store what comes, ship what is lacking, both at once.
Reach: node.local, sync_engine.exchange. The shell has no opinions: every effect comes from the state machine, and
each result goes back to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from conflict.values import Epoch, Head, Scope, UnitPath
from node.auditing import batch_refused
from node.heartbeat import beat
from node.line import Line, Turn
from node.link import Link
from node.local import Node
from node.shipping import Shipper
from node.storage import peers
from node.storage.carried import note_line
from node.storage.certificates import check_not_replaced
from node.storage.damaged import note_if_damaged
from node.storage.inbox import Taken
from node.storage.lives import is_another_life
from node.storage.proving import Verified
from node.storage.receipts import void
from node.storage.revocations import check_not_revoked
from node.summary import Summary
from node.telling import Teller, begin
from sync_engine.batch import parse_batch
from sync_engine.branches import LostHistory, MayHaveLostHistory, PeerRestored, ShipBranch, TellChain
from sync_engine.carried import CarriedExchange
from sync_engine.errors import (
    BadCertificate,
    BadSignature,
    Cloned,
    LinkFault,
    LocalFault,
    NotYet,
    RemoteFault,
    Replaced,
    ReplicationError,
    Revoked,
    RuleBroken,
)
from sync_engine.exchange import (
    Effect,
    Exchange,
    Finish,
    PeerForked,
    PeerHeard,
    PeerMet,
    PeerRefused,
    Prove,
    Send,
    Ship,
    Store,
    StoreCertificates,
)
from sync_engine.frames import ForkProof, Frame, decode, encode
from sync_engine.names import parent_of
from sync_engine.telling import KeepReceipt, KeepStatements, SignReceipt

log = structlog.get_logger()

IDLE_S = 400.0
"""A peer that says nothing for so long is gone: the session ends and resumes later by batch. The largest frame over a
line of 128 kbit/s takes nearly six minutes, in which its receiver hears nothing and its sender no answer; that a line
is dead is seen earlier, by pings."""


@asynccontextmanager
async def faults_noted(node: Node, peer: str) -> AsyncIterator[None]:
    """What a session with ``peer`` fails with is kept, and told by status. A machine whose place another has taken is
    not that child: it does not fail."""
    try:
        yield
    except ReplicationError as fault:
        if isinstance(fault, Replaced) and parent_of(peer) == node.config.unit:
            raise
        await node.database.write(peers.note_failure, peer, node.context.now_ms(), str(fault))
        if fault.by_peer and isinstance(fault, Cloned | Revoked):
            await node.database.write(peers.note_refused, peer, node.keys.epoch, fault.code)
        raise


class Session:
    """One session on one link. ``child`` names the link; the peer is the other end of it. ``turn`` is that of a server
    with many children: whoever runs the session has taken it, and gives it back. ``answers``: the link is a
    file that was carried here, and one that will be; the peer had heard of this life of this node."""

    def __init__(
        self,
        node: Node,
        link: Link,
        *,
        child: UnitPath,
        peer: UnitPath,
        progress: Callable[[Summary], None],
        turn: Turn | None = None,
        answers: Epoch | None = None,
    ) -> None:
        self.node, self.link, self.child, self.peer = node, link, child, peer
        self.summary = Summary(peer)
        self._progress = progress
        self._turn = turn or Turn(Line())
        self._answers = answers
        self._sending = asyncio.Lock()
        self._inbox: asyncio.Queue[Verified] = asyncio.Queue(maxsize=2)  # prove the next while one is stored
        self._tasks: list[asyncio.Task[None]] = []
        self._teller: Teller
        self._shipper: Shipper
        self._doubted = list[Head]()
        self._some_wait = self._left_own = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exchange: Exchange

    async def run(self) -> Summary:
        """Raises a RemoteFault, LocalFault or LinkFault; what was acknowledged until then is safe."""
        began = time.monotonic()
        await self.node.apply_ready()  # what a session that was cut off had stored and not yet applied
        await self.node.seal_next()  # often that is all; the rest of a backlog is sealed while we ship
        await beat(self.node)
        certificate, kind = self.node.keys.certified.sha256, Exchange if self._answers is None else CarriedExchange
        self._exchange = await self.node.database.read(
            begin, self.node.context, self.child, self.peer, certificate, kind
        )
        self._teller = Teller(self.node, self._exchange, self._send)
        self._shipper = Shipper(
            *(self.node, self._exchange, self._teller, self.summary),
            send=self._send,
            perform=self._perform,
            progress=self._progress,
        )
        self._shipper.sealing = self._beside(self._shipper.seal_rest())
        self._beside(self._store_verified())
        try:
            await self._perform(self._exchange.start())
            self._beside(self._read_frames())
            await self._ended
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()  # what they ended with refers to this session, and so to its connection
            del self._teller, self._shipper  # they send through this session
            self._turn.put_all_away()
            with suppress(LocalFault):  # what ended the session says more
                for head in self._doubted:  # what the peer dropped may be damaged here
                    await self.node.database.write(note_if_damaged, self.node.context, head)
        if not self._exchange.is_complete:
            raise LinkFault(f"{self.peer} ended the session early")
        if self._some_wait:  # what was held back may have been vouched for by what came after it
            await self.node.apply_ready()
        life = None if self._left_own else self.node.context.epoch
        if self._answers is None:
            await self.node.database.write(peers.note_success, self.peer, self.node.context.now_ms(), life)
            await self.node.database.write(note_line, self.node.context, self.peer)
        elif self._answers == life:
            await self.node.database.write(peers.note_success, self.peer, self.node.context.now_ms(), life)
        self.summary.seconds = time.monotonic() - began
        return self.summary

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a part of the session beside the others. The first that fails ends it, whatever the others wait for."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._part_done)
        self._tasks.append(task)
        return task

    def _part_done(self, task: asyncio.Task[None]) -> None:
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not self._ended.done():
            self._ended.set_exception(fault)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _read_frames(self) -> None:
        while (data := await self._turn.to_hear(self._next_frame, self._inbox.join)) is not None:
            frame = decode(data)
            if frame is not None:
                await self._perform(self._exchange.on_frame(frame))
                self._shipper.credit.set()
        await self._inbox.join()  # a peer that was told of a refusal waits for no answer to what it sent after
        self._end()

    async def _next_frame(self) -> bytes | None:
        """The next frame, or None when the peer has ended its side."""
        try:
            # wait_for forgets that it was cancelled where a frame comes just then
            async with asyncio.timeout(IDLE_S if self._answers is None else None):
                return await self.link.receive()
        except TimeoutError:
            raise LinkFault(f"{self.peer} has said nothing for {IDLE_S:.0f} seconds") from None

    async def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(frame):
                    await self._send(frame)
                case Store(data):
                    await self._prove(data)
                case StoreCertificates() | KeepStatements() | KeepReceipt():
                    await self._keep(effect)
                case Ship(scopes):
                    self._beside(self._shipper.ship(scopes))
                case SignReceipt(scopes):
                    self._beside(self._sign(scopes))
                case ShipBranch(chain):
                    self._beside(self._shipper.ship_branch(chain))
                case TellChain(stream):
                    await self._shipper.tell_chain(stream)
                case Prove(proof):
                    await self._keep_proof(proof)
                case LostHistory() | MayHaveLostHistory():
                    await self._leave_life(effect)
                case Finish():
                    async with self._sending:  # an ack on its way goes out: cut off, the peer would wait for it
                        self._end()
                case _:
                    await self._note(effect)

    async def _keep(self, told: StoreCertificates | KeepStatements | KeepReceipt) -> None:
        if isinstance(told, KeepReceipt):
            await self._inbox.join()  # what it names may stand before it in one bundle
        self._some_wait |= isinstance(told, KeepStatements)
        await self._teller.keep(told)
        if isinstance(told, KeepReceipt):
            await self._perform(self._exchange.on_receipt_kept())

    async def _note(self, effect: Effect) -> None:
        """What the peer is, holds and says of itself."""
        match effect:
            case PeerForked(theirs):
                self._shipper.forked.append(theirs)
            case PeerRestored(stream):
                log.warning("a neighbour was restored from an older copy", peer=self.peer, stream=str(stream))
            case PeerRefused(head, why):
                log.warning("batch refused by the peer", peer=self.peer, stream=str(head.stream), reason=why)
                self.summary.refused.append(f"{head.stream}: {self.peer} did not take it: {why}")
                self._doubted.append(head)
            case PeerHeard(hello):
                await self.node.database.write(void, self.peer, hello.epoch)
            case PeerMet(hello):
                await self.node.database.read(check_not_revoked, self.peer, hello.epoch)
                await self.node.database.read(check_not_replaced, self.peer, hello.epoch)
                skew_ms = hello.time_ms - self.node.context.now_ms()
                await self.node.database.write(peers.note_met, self.peer, skew_ms, hello.epoch)

    async def _leave_life(self, effect: LostHistory | MayHaveLostHistory) -> None:
        """Before anything else is done about what the parent has named: the line may be gone at any time."""
        if isinstance(effect, LostHistory) or await self.node.database.read(is_another_life, effect.theirs):
            await self.node.begin_life(self._exchange.hello.epoch)

    async def _send(self, frame: Frame) -> None:
        async with self._sending:
            await self.link.send(encode(frame))

    async def _sign(self, scopes: frozenset[Scope]) -> None:
        """Sign for what is held, now that all that the peer had is stored."""
        await self._teller.send_receipt(scopes)
        await self._perform(self._exchange.on_receipt_sent())

    # --- receiving ---

    async def _prove(self, data: bytes) -> None:
        """Verify a batch; what does not match its signature is dropped and asked for again, what breaks a rule is
        refused."""
        self.summary.received_batches += 1
        self.summary.received_bytes += len(data)
        await self._turn.unpack()
        verified = await self._verified(data)
        if verified is None:
            self._turn.put_away()
        else:
            await self._inbox.put(verified)

    async def _verified(self, data: bytes) -> Verified | None:
        """A batch proven; None where it was dropped or refused, and the peer told so."""
        try:
            return await self._proven(data)
        except RuleBroken as fault:
            log.warning("batch refused", peer=self.peer, stream=str(fault.head.stream), reason=str(fault))
            await batch_refused(self.node, self.peer, fault)
            self.summary.refused.append(f"{fault.head.stream}: {fault}")
            await self._perform(self._exchange.on_refused(fault.head, str(fault), len(data)))
        except NotYet as fault:
            log.info("batch left for later", peer=self.peer, reason=str(fault))
            await self._perform(self._exchange.on_refused(parse_batch(data).head, str(fault), len(data)))
        except (BadSignature, BadCertificate) as fault:
            head = parse_batch(data).head  # what the bytes claim to be: nothing is held against that stream
            log.warning("bytes dropped", peer=self.peer, stream=str(head.stream), reason=str(fault))
            self.summary.refused.append(f"{head.stream}: {fault}")
            await self._perform(self._exchange.on_refused(head, str(fault), len(data)))
        return None

    async def _proven(self, data: bytes) -> Verified:
        try:
            return await self.node.verify(data, self.peer)
        except NotYet:
            await self._inbox.join()  # what it waits for may have come just before it, and be under way
            return await self.node.verify(data, self.peer)

    async def _store_verified(self) -> None:
        """Store proven batches one after another, beside the reader; an ack follows each commit."""
        while True:
            await self._store(await self._inbox.get())
            self._inbox.task_done()
            self._progress(self.summary)

    async def _store(self, verified: Verified) -> None:
        outcome = await self.node.take(verified)
        batch = verified.batch
        self._left_own |= outcome.taken is Taken.GAP and verified.is_own and not verified.lacks
        del verified  # what was unpacked is done with
        self._turn.put_away()
        self.summary.applied_rows += outcome.applied.rows
        self.summary.conflicts += outcome.applied.conflicts
        size = len(batch.data)
        if outcome.taken is Taken.FORKED:
            await self._shipper.ship_beside(batch.head)
        self._some_wait |= outcome.taken is Taken.WAITING
        if outcome.taken in (Taken.FROZEN, Taken.FORKED):
            row_reason = "the stream is frozen or refused here"
            await self._perform(self._exchange.on_refused(batch.head, row_reason, size))
        elif outcome.held is None or outcome.held.seq < batch.head.seq:  # no ack would answer for it
            reason = (
                "it has been said again since" if outcome.taken is Taken.KNOWN else "what comes before it is not here"
            )
            await self._perform(self._exchange.on_refused(batch.head, reason, size))
        else:
            await self._perform(self._exchange.on_stored(outcome.held, size))
        if outcome.taken is Taken.APPLIED or batch.header.settles is not None:
            ready = await self.node.apply_ready()
            self.summary.applied_rows += ready.rows
            self.summary.conflicts += ready.conflicts

    async def _keep_proof(self, proof: ForkProof) -> None:
        try:
            await self.node.take_proof(proof)
        except RemoteFault as fault:
            log.warning("proof of a fork refused", peer=self.peer, reason=str(fault))
