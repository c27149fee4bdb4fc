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
from dataclasses import dataclass, field
from typing import Any

import structlog

from conflict.values import Head, Scope, StreamId, UnitPath
from node.auditing import batch_refused
from node.heartbeat import beat
from node.line import Line, Turn
from node.link import Link
from node.local import Node
from node.storage import peers
from node.storage.batches import lacking, stored_batch
from node.storage.damaged import asked_for, note, note_if_damaged, sound
from node.storage.inbox import Taken, take_proof
from node.storage.lives import is_another_life
from node.storage.outbox import (
    batch_beside,
    branch_from,
    chain_of,
    for_peer,
    forks,
    held_on_link,
    sendable,
    stray,
    strays,
)
from node.storage.proving import Verified
from node.storage.revocations import check_not_revoked
from node.telling import Teller, begin
from sync_engine.batch import parse_batch
from sync_engine.branches import LostHistory, MayHaveLostHistory, PeerRestored, ShipBranch, TellChain
from sync_engine.errors import (
    BadCertificate,
    BadSignature,
    LinkFault,
    LocalFault,
    NotYet,
    RemoteFault,
    ReplicationError,
    RuleBroken,
)
from sync_engine.exchange import (
    Effect,
    Exchange,
    Finish,
    PeerForked,
    PeerMet,
    PeerRefused,
    Prove,
    Send,
    Ship,
    Span,
    Store,
    StoreCertificates,
)
from sync_engine.frames import BatchFrame, Chain, ForkProof, Frame, decode, encode
from sync_engine.names import is_towards
from sync_engine.telling import KeepReceipt, KeepStatements, SignReceipt

log = structlog.get_logger()

IDLE_S = 400.0
"""A peer that says nothing for so long is gone: the session ends and resumes later by batch. The largest frame over a
line of 128 kbit/s takes nearly six minutes, in which its receiver hears nothing and its sender no answer; that a line
is dead is seen earlier, by pings."""


@dataclass(slots=True)
class Summary:
    """What a session came to; the keys of ``sync --json``."""

    peer: str
    sent_batches: int = 0
    sent_bytes: int = 0
    received_batches: int = 0
    received_bytes: int = 0
    applied_rows: int = 0
    conflicts: int = 0
    seconds: float = 0.0
    refused: list[str] = field(default_factory=list)


@asynccontextmanager
async def faults_noted(node: Node, peer: str) -> AsyncIterator[None]:
    """What a session with ``peer`` fails with is kept, and told by status."""
    try:
        yield
    except ReplicationError as fault:
        await node.database.write(peers.note_failure, peer, node.context.now_ms(), str(fault))
        raise


class Session:
    """One session on one link. ``child`` names the link; the peer is the other end of it. ``turn`` is that of a server
    with many children: whoever runs the session has taken it, and gives it back."""

    def __init__(
        self,
        node: Node,
        link: Link,
        *,
        child: UnitPath,
        peer: UnitPath,
        progress: Callable[[Summary], None],
        turn: Turn | None = None,
    ) -> None:
        self.node, self.link, self.child, self.peer = node, link, child, peer
        self.summary = Summary(peer)
        self._progress = progress
        self._turn = turn or Turn(Line())
        self._sending = asyncio.Lock()
        self._credit = asyncio.Event()
        self._inbox: asyncio.Queue[Verified] = asyncio.Queue(maxsize=2)  # prove the next while one is stored
        self._tasks: list[asyncio.Task[None]] = []
        self._teller: Teller
        self._forked, self._doubted = list[Head](), list[Head]()
        self._shown: set[StreamId] = set()
        self._some_wait = False
        self._told: set[StreamId] = set()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sealed = asyncio.Event()
        self._sealing: asyncio.Task[None]
        self._exchange: Exchange

    async def run(self) -> Summary:
        """Raises a RemoteFault, LocalFault or LinkFault; what was acknowledged until then is safe."""
        began = time.monotonic()
        await self.node.apply_ready()  # what a session that was cut off had stored and not yet applied
        await self.node.seal_next()  # often that is all; the rest of a backlog is sealed while we ship
        await beat(self.node)
        certificate = self.node.keys.certified.sha256
        self._exchange = await self.node.database.read(begin, self.node.context, self.child, self.peer, certificate)
        self._teller = Teller(self.node, self._exchange, self._send)
        self._sealing = self._beside(self._seal_rest())
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
            del self._teller  # it sends through this session
            self._turn.put_all_away()
            with suppress(LocalFault):  # what ended the session says more
                for head in self._doubted:  # what the peer dropped may be damaged here
                    await self.node.database.write(note_if_damaged, self.node.context, head)
        if not self._exchange.is_complete:
            raise LinkFault(f"{self.peer} ended the session early")
        if self._some_wait:  # what was held back may have been vouched for by what came after it
            await self.node.apply_ready()
        await self.node.database.write(
            peers.note_success, self.peer, self.node.context.now_ms(), self.node.context.epoch
        )
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
                self._credit.set()
        await self._inbox.join()  # a peer that was told of a refusal waits for no answer to what it sent after
        self._end()

    async def _next_frame(self) -> bytes | None:
        """The next frame, or None when the peer has ended its side."""
        try:
            async with asyncio.timeout(IDLE_S):  # wait_for forgets that it was cancelled where a frame comes just then
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
                    self._some_wait |= isinstance(effect, KeepStatements)
                    await self._teller.keep(effect)
                    if isinstance(effect, KeepReceipt):
                        await self._perform(self._exchange.on_receipt_kept())
                case Ship(scopes):
                    self._beside(self._ship(scopes))
                case SignReceipt(scopes):
                    self._beside(self._sign(scopes))
                case ShipBranch(chain):
                    self._beside(self._ship_branch(chain))
                case TellChain(stream):
                    await self._tell_chain(stream)
                case Prove(proof):
                    await self._keep_proof(proof)
                case LostHistory() | MayHaveLostHistory():
                    await self._leave_life(effect)
                case Finish():
                    async with self._sending:  # an ack on its way goes out: cut off, the peer would wait for it
                        self._end()
                case _:
                    await self._note(effect)

    async def _note(self, effect: Effect) -> None:
        """What the peer is, holds and says of itself."""
        match effect:
            case PeerForked(theirs):
                self._forked.append(theirs)
            case PeerRestored(stream):
                log.warning("a neighbour was restored from an older copy", peer=self.peer, stream=str(stream))
            case PeerRefused(head, why):
                log.warning("batch refused by the peer", peer=self.peer, stream=str(head.stream), reason=why)
                self.summary.refused.append(f"{head.stream}: {self.peer} did not take it: {why}")
                self._doubted.append(head)
            case PeerMet(hello):
                await self.node.database.read(check_not_revoked, self.peer, hello.epoch)
                skew_ms = hello.time_ms - self.node.context.now_ms()
                await self.node.database.write(peers.note_met, self.peer, skew_ms, hello.epoch)

    async def _leave_life(self, effect: LostHistory | MayHaveLostHistory) -> None:
        """Before anything else is done about what the parent has named: the line may be gone at any time."""
        if isinstance(effect, LostHistory) or await self.node.database.read(is_another_life, effect.theirs):
            await self.node.begin_life(self._exchange.hello.epoch)

    async def _send(self, frame: Frame) -> None:
        async with self._sending:
            await self.link.send(encode(frame))

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
            return await self.node.verify(data, self.peer)
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

    async def _store_verified(self) -> None:
        """Store proven batches one after another, beside the reader; an ack follows each commit."""
        while True:
            await self._store(await self._inbox.get())
            self._inbox.task_done()
            self._progress(self.summary)

    async def _store(self, verified: Verified) -> None:
        outcome = await self.node.take(verified)
        batch = verified.batch
        del verified  # what was unpacked is done with
        self._turn.put_away()
        self.summary.applied_rows += outcome.applied.rows
        self.summary.conflicts += outcome.applied.conflicts
        size = len(batch.data)
        if outcome.taken is Taken.FORKED:
            await self._ship_beside(batch.head)
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
            taken = await self.node.database.write(take_proof, self.node.context, proof)
        except RemoteFault as fault:
            log.warning("proof of a fork refused", peer=self.peer, reason=str(fault))
            return
        if taken is Taken.OWN:
            await self.node.begin_life(self.node.context.epoch)

    # --- shipping ---

    async def _seal_rest(self) -> None:
        """Seal a backlog beside the session, batch by batch."""
        while await self.node.seal_next():
            self._sealed.set()
        self._sealed.set()

    async def _ship(self, scopes: tuple[tuple[Span, ...], ...]) -> None:
        """Send what the peer lacks, and what is sealed meanwhile, until there is no more."""
        await self._ship_proofs()
        await self._teller.send_statements()
        for head in await self.node.database.read(asked_for, self.child, self._exchange.wanting.asked):
            await self._ship_batch(head, again=True)
        while True:
            await self._ship_scopes(scopes)
            all_sealed = self._sealing.done()
            self._sealed.clear()
            scopes = self._exchange.more(await self.node.database.read(held_on_link, self.node.context, self.child))
            if not scopes and all_sealed:
                break
            if not scopes and not self._sealing.done():
                await self._sealed.wait()
        await self._perform(self._exchange.on_shipped())

    async def _sign(self, scopes: frozenset[Scope]) -> None:
        """Sign for what is held, now that all that the peer had is stored."""
        await self._teller.send_receipt(scopes)
        await self._perform(self._exchange.on_receipt_sent())

    async def _ship_scopes(self, scopes: tuple[tuple[Span, ...], ...]) -> None:
        """As fast as the peer's credit allows; the origin's bytes, untouched; certificates before what they certify."""
        for spans in scopes:
            lacks, forked = await self.node.database.read(lacking, spans)
            for theirs in forked:
                self._exchange.on_forked(theirs)
                await self._ship_beside(theirs)
                await self._tell_chain(theirs.stream)
            unknown = (span.stream for span in spans if span.after is None)
            await self._teller.certify((stream.origin, stream.epoch) for stream in unknown)
            for head in lacks:
                await self._ship_batch(head)

    async def _ship_proofs(self) -> None:
        """Forks that are proven here, and what stands here where the peer names another batch: its word alone would
        prove nothing."""
        known = await self.node.database.read(forks, self.child)
        await self._teller.certify((fork.stream.origin, fork.stream.epoch) for fork in known)
        for fork in known:
            await self._send(fork.proof)
            await self._tell_chain(fork.stream)
        for theirs in self._forked:
            await self._ship_beside(theirs)
            await self._tell_chain(theirs.stream)
        for digest in await self.node.database.read(strays, self.node.context, self.peer, self.child):
            batch = await self.node.database.read(stray, digest)
            if batch is None:
                continue
            self._exchange.on_forked(batch.head)
            await self._teller.certify([(batch.header.stream.origin, batch.header.stream.epoch)])
            data = await self.node.database.read(for_peer, self.node.context, self.peer, batch)
            await self._ship_bytes(batch.head, data)

    async def _tell_chain(self, stream: StreamId) -> None:
        """Show a peer that stands farther from a stream's origin which chain is known here; once a session."""
        if stream in self._told or is_towards(stream.origin, self.peer, self.node.context.unit):
            return
        self._told.add(stream)
        chain = await self.node.database.read(chain_of, stream)
        if chain is not None:
            self._exchange.branches.on_chain_told()
            await self._send(chain)

    async def _ship_branch(self, chain: Chain) -> None:
        """What parts here from the chain of a peer that is, or stands on the way to, a stream's origin."""
        common, parted = await self.node.database.read(branch_from, chain)
        for head in () if self._exchange.branches.is_linear(chain.stream, common) else parted:
            stored = await self.node.database.read(stored_batch, head.hash)
            batch = None if stored is None else sound(stored[0], head.hash)
            if batch is None:
                break
            self._exchange.on_forked(batch.head)
            data = await self.node.database.read(for_peer, self.node.context, self.peer, batch)
            await self._ship_bytes(batch.head, data)
        await self._perform(self._exchange.on_branch_shipped(chain.stream))

    async def _ship_beside(self, theirs: Head) -> None:
        """Show the peer which batch stands here at the place of its own; once a session."""
        batch = await self.node.database.read(batch_beside, theirs)
        if batch is not None and theirs.stream not in self._shown:
            self._shown.add(theirs.stream)
            data = await self.node.database.read(for_peer, self.node.context, self.peer, batch)
            await self._ship_bytes(batch.head, data)

    async def _ship_batch(self, head: Head, *, again: bool = False) -> None:
        """A stored batch by its name. In the meantime it may have got another, that of a life that nobody can prove
        yet: it goes out under that when its turn comes."""
        stream = head.stream
        stored = await self.node.database.read(stored_batch, head.hash)
        if stored is None or self._exchange.is_refused(stream):
            return
        raw, fills = stored
        batch = sound(raw, head.hash)
        if batch is None:
            log.error("stored batch damaged", stream=str(stream), hint="it is asked for again; see 'dongbo verify'")
            await self.node.database.write(note, self.node.context, head)
            self.summary.refused.append(f"{stream}: a batch stored here is damaged, see 'dongbo verify'")
            self._exchange.leave(stream)
            return
        data = await self.node.database.read(sendable, self.node.context, self.peer, batch)
        if data is None:
            log.info("batch kept till its registry version is here", peer=self.peer, stream=str(stream))
            self._exchange.leave(stream)
            return
        if fills:
            self._exchange.on_filler(head)
        await self._ship_bytes(head, data, again=again or fills)

    async def _ship_bytes(self, head: Head, data: bytes, *, again: bool = False) -> None:
        while not self._exchange.may_send(len(data)):
            self._credit.clear()
            await self._credit.wait()
        self._exchange.on_sent(head, len(data), again=again)
        await self._send(BatchFrame(data))
        self.summary.sent_batches += 1
        self.summary.sent_bytes += len(data)
        self._progress(self.summary)
