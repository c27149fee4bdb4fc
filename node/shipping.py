"""The sending half of one session: what the peer lacks, in order, as fast as its credit allows.

Role: send stored batches, proofs and branches of forks, and show chains, as the exchange says; a backlog is sealed
meanwhile.
Reach: node.local, node.telling, sync_engine.exchange. Invariant: a batch goes out as its origin's bytes, less what the
peer may not read; what is damaged here goes to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from conflict.values import Head, StreamId
from node.local import Node
from node.storage.batches import lacking, stored_batch
from node.storage.damaged import asked_for, note, sound
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
from node.summary import Summary
from node.telling import Teller
from sync_engine.exchange import Effect, Exchange, Span
from sync_engine.frames import BatchFrame, Chain, Frame
from sync_engine.names import is_towards

log = structlog.get_logger()


class Shipper:
    """One side of a session, as far as batches leave it. ``send`` sends a frame, ``perform`` does what the exchange
    says then, ``progress`` is told of each batch sent. ``sealing`` is the task that seals a backlog (``seal_rest``)."""

    def __init__(
        self,
        node: Node,
        exchange: Exchange,
        teller: Teller,
        summary: Summary,
        *,
        send: Callable[[Frame], Awaitable[None]],
        perform: Callable[[list[Effect]], Awaitable[None]],
        progress: Callable[[Summary], None],
    ) -> None:
        self.node, self.exchange, self.teller, self.summary = node, exchange, teller, summary
        self.child, self.peer = exchange.child, exchange.peer
        self.credit = asyncio.Event()
        """Set when the peer may have allowed more."""
        self.forked = list[Head]()
        """Where the peer names another batch than stands here."""
        self.sealing: asyncio.Task[None]
        self._send, self._perform, self._progress = send, perform, progress
        self._sealed = asyncio.Event()
        self._shown, self._told = set[StreamId](), set[StreamId]()

    async def seal_rest(self) -> None:
        """Seal a backlog beside the session, batch by batch."""
        while await self.node.seal_next():
            self._sealed.set()
        self._sealed.set()

    async def ship(self, scopes: tuple[tuple[Span, ...], ...]) -> None:
        """Send what the peer lacks, and what is sealed meanwhile, until there is no more."""
        await self._ship_proofs()
        await self.teller.send_statements()
        for head in await self.node.database.read(asked_for, self.child, self.exchange.wanting.asked):
            await self._ship_batch(head, again=True)
        while True:
            await self._ship_scopes(scopes)
            all_sealed = self.sealing.done()
            self._sealed.clear()
            scopes = self.exchange.more(await self.node.database.read(held_on_link, self.node.context, self.child))
            if not scopes and all_sealed:
                break
            if not scopes and not self.sealing.done():
                await self._sealed.wait()
        await self._perform(self.exchange.on_shipped())

    async def _ship_scopes(self, scopes: tuple[tuple[Span, ...], ...]) -> None:
        """As fast as the peer's credit allows; the origin's bytes, untouched; certificates before what they certify."""
        for spans in scopes:
            lacks, forked = await self.node.database.read(lacking, spans)
            for theirs in forked:
                self.exchange.on_forked(theirs)
                await self.ship_beside(theirs)
                await self.tell_chain(theirs.stream)
            unknown = (span.stream for span in spans if span.after is None)
            await self.teller.certify((stream.origin, stream.epoch) for stream in unknown)
            for head in lacks:
                await self._ship_batch(head)

    async def _ship_proofs(self) -> None:
        """Forks that are proven here, and what stands here where the peer names another batch: its word alone would
        prove nothing."""
        known = await self.node.database.read(forks, self.child)
        await self.teller.certify((fork.stream.origin, fork.stream.epoch) for fork in known)
        for fork in known:
            await self._send(fork.proof)
            await self.tell_chain(fork.stream)
        for theirs in self.forked:
            await self.ship_beside(theirs)
            await self.tell_chain(theirs.stream)
        for digest in await self.node.database.read(strays, self.node.context, self.peer, self.child):
            batch = await self.node.database.read(stray, digest)
            if batch is None:
                continue
            self.exchange.on_forked(batch.head)
            await self.teller.certify([(batch.header.stream.origin, batch.header.stream.epoch)])
            data = await self.node.database.read(for_peer, self.node.context, self.peer, batch)
            await self._ship_bytes(batch.head, data)

    async def tell_chain(self, stream: StreamId) -> None:
        """Show a peer that stands farther from a stream's origin which chain is known here; once a session."""
        if stream in self._told or is_towards(stream.origin, self.peer, self.node.context.unit):
            return
        self._told.add(stream)
        chain = await self.node.database.read(chain_of, stream)
        if chain is not None:
            self.exchange.branches.on_chain_told()
            await self._send(chain)

    async def ship_branch(self, chain: Chain) -> None:
        """What parts here from the chain of a peer that is, or stands on the way to, a stream's origin."""
        common, parted = await self.node.database.read(branch_from, chain)
        for head in () if self.exchange.branches.is_linear(chain.stream, common) else parted:
            stored = await self.node.database.read(stored_batch, head.hash)
            batch = None if stored is None else sound(stored[0], head.hash)
            if batch is None:
                break
            self.exchange.on_forked(batch.head)
            data = await self.node.database.read(for_peer, self.node.context, self.peer, batch)
            await self._ship_bytes(batch.head, data)
        await self._perform(self.exchange.on_branch_shipped(chain.stream))

    async def ship_beside(self, theirs: Head) -> None:
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
        if stored is None or self.exchange.is_refused(stream):
            return
        raw, fills = stored
        batch = sound(raw, head.hash)
        if batch is None:
            log.error("stored batch damaged", stream=str(stream), hint="it is asked for again; see 'dongbo verify'")
            await self.node.database.write(note, self.node.context, head)
            self.summary.refused.append(f"{stream}: a batch stored here is damaged, see 'dongbo verify'")
            self.exchange.leave(stream)
            return
        data = await self.node.database.read(sendable, self.node.context, self.peer, batch)
        if data is None:
            log.info("batch kept till its registry version is here", peer=self.peer, stream=str(stream))
            self.exchange.leave(stream)
            return
        if fills:
            self.exchange.on_filler(head)
        await self._ship_bytes(head, data, again=again or fills)

    async def _ship_bytes(self, head: Head, data: bytes, *, again: bool = False) -> None:
        while not self.exchange.may_send(len(data)):
            self.credit.clear()
            await self.credit.wait()
        self.exchange.on_sent(head, len(data), again=again)
        await self._send(BatchFrame(data))
        self.summary.sent_batches += 1
        self.summary.sent_bytes += len(data)
        self._progress(self.summary)
