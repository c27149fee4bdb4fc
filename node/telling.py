"""What one session tells beside batches: certificates, statements that nodes have signed, receipts.

Role: keep what the peer passes on; send what it lacks; sign for what is held.
Reach: node.local, node.storage, sync_engine. The shell has no opinions: what to send the exchange says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

import structlog
from sqlalchemy import Connection

from conflict.values import Epoch, Scope, UnitPath
from node.auditing import refused
from node.local import Node
from node.storage.alarms import untold
from node.storage.certificates import keep_path
from node.storage.context import Context
from node.storage.damaged import wanted
from node.storage.outbox import hello_of, paths_of
from node.storage.receipts import draw, keep, unconfirmed
from node.storage.statements import KEPT_AT_ONCE, digests_on_link, for_link, keep_all
from sync_engine.audit import Act
from sync_engine.errors import BadCertificate, RemoteFault
from sync_engine.exchange import Exchange, StoreCertificates
from sync_engine.frames import Certificates, Frame, Receipt, Statement, Statements
from sync_engine.limits import STATEMENTS_MAX
from sync_engine.statements import lives_of
from sync_engine.telling import KeepReceipt, KeepStatements

log = structlog.get_logger()

FRAME_BYTES = 512 * 1024
"""A frame is full with so many bytes of statements."""


def begin(
    connection: Connection,
    context: Context,
    child: UnitPath,
    peer: UnitPath,
    certificate: bytes,
    kind: type[Exchange] = Exchange,
) -> Exchange:
    """One side of a session, as things stand here."""
    hello, held = hello_of(connection, context, child, certificate)
    statements = digests_on_link(connection, child)
    lacking = unconfirmed(connection, child, peer, held.values())
    wants = wanted(connection, child)
    return kind(hello, held, child=child, peer=peer, statements=statements, unconfirmed=lacking, wanted=wants)


class Teller:
    """One side of a session, as far as it is not about batches."""

    def __init__(self, node: Node, exchange: Exchange, send: Callable[[Frame], Awaitable[None]]) -> None:
        self.node, self.exchange = node, exchange
        self._send = send
        self._certified: set[tuple[UnitPath, Epoch]] = set()

    async def keep(self, told: StoreCertificates | KeepStatements | KeepReceipt) -> None:
        """Keep what can be proven of what the peer passes on; the rest breaks nothing."""
        match told:
            case StoreCertificates(paths):
                await self._keep_certificates(paths)
            case KeepStatements(statements):
                for at in range(0, len(statements), KEPT_AT_ONCE):  # so that others may write between
                    some = statements[at : at + KEPT_AT_ONCE]
                    await self.node.database.write(keep_all, self.node.context, some)
                await self.node.notice_successor()
            case KeepReceipt(receipt):
                await self._keep_receipt(receipt)

    async def _keep_certificates(self, paths: tuple[tuple[bytes, ...], ...]) -> None:
        for path in paths:
            try:
                await self.node.database.write(keep_path, path, self.node.context.tree_id)
            except (BadCertificate, RemoteFault) as fault:
                log.warning("certificate refused", peer=self.exchange.peer, reason=str(fault))
                await refused(self.node, self.exchange.peer, Act.CERTIFICATE_REFUSED, {}, fault.code)

    async def _keep_receipt(self, receipt: Receipt) -> None:
        hello = self.exchange.peer_hello
        if hello is None:
            return
        signer = (hello.unit, hello.epoch)
        try:
            await self.node.database.write(keep, self.node.context, self.exchange.child, signer, receipt)
        except RemoteFault as fault:
            log.warning("receipt refused", peer=self.exchange.peer, reason=str(fault))

    async def certify(self, origins: Iterable[tuple[UnitPath, Epoch]]) -> None:
        """Send the certificates of origins that the peer may not know, once a session."""
        fresh = set(origins) - self._certified
        paths = await self.node.database.read(paths_of, sorted(fresh))
        if paths:
            await self._send(Certificates(paths))
        self._certified |= fresh

    async def send_statements(self) -> None:
        """What is known here of the scopes of which the peer knows something else; certificates go first."""
        known = await self.node.database.read(for_link, self.exchange.child, self.exchange.telling.untold)
        lives = {life for each in known for life in lives_of(each.said)}
        await self.certify(life for life in lives if not self.exchange.knows_origin(*life))
        for some in _in_frames([each.statement for each in known]):
            await self._send(Statements(some))

    async def send_receipt(self, scopes: frozenset[Scope]) -> None:
        """Sign what is held here of these scopes; the certificate goes first where the peer may not know it."""
        context, exchange = self.node.context, self.exchange
        life = (context.unit, context.speaks_as[0])
        if not exchange.knows_origin(*life):
            await self.certify([life])
        told = self.node.told_digests
        fresh = await self.node.database.read(untold, exchange.child, exchange.peer, told, scopes)
        named = scopes | fresh.keys()
        await self._send(await self.node.database.read(draw, context, exchange.child, exchange.peer, named))
        told.update({(exchange.peer, scope): state for scope, state in fresh.items()})


def _in_frames(statements: list[Statement]) -> Iterator[tuple[Statement, ...]]:
    some: list[Statement] = []
    for each in statements:
        if some and (len(some) == STATEMENTS_MAX or sum(len(one.body) for one in some) + len(each.body) > FRAME_BYTES):
            yield tuple(some)
            some = []
        some.append(each)
    if some:
        yield tuple(some)
