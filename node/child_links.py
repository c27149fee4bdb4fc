"""The parent's side of its links: a server that children dial.

Role: prove who calls; run a session, or answer an enrolment.
Reach: grpc, node.session, node.enrolment. Invariant: an invitation's certificate may call Enrol and nothing else, a
node's may not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from conflict.values import Epoch
from node import auditing
from node.carry_key import publish_key
from node.enrolment import answer
from node.line import Line, Turn
from node.link import StreamLink
from node.local import Node
from node.metering import Metered
from node.renewal import answer as renewed
from node.renewal import certify_root_if_due, meet, name_children
from node.session import Session, faults_noted
from node.storage.certificates import check_not_replaced, epoch_of, note_former_call, path_of
from node.storage.revocations import check_not_revoked
from node.summary import Summary
from node.transport import (
    SERVER_OPTIONS,
    SERVICE,
    bind,
    handlers,
    living_credentials,
    peer_of,
    refuse,
)
from sync_engine.audit import Act
from sync_engine.certificates import Certified
from sync_engine.errors import (
    BadCertificate,
    LinkFault,
    OutOfScope,
    RemoteFault,
    Replaced,
    ReplicationError,
    TooOften,
)
from sync_engine.names import parent_of

log = structlog.get_logger()

GRACE_S = 2.0
"""How long a stop waits for running sessions: what they have acknowledged is safe in any case, and a service that is
asked to end has ended within five seconds."""

REPLACED_S = 10.0
"""How long the session that a newer call takes the place of may need to end: a transaction of its own, and its turn."""


class _Replaced(Exception):
    """The same unit has called anew: whatever the older call was waiting for, the unit does not."""


@dataclass(slots=True)
class _Running:
    """One session under way."""

    work: asyncio.Task[Summary]
    replaced: bool = False


REVOCATION_S = 10.0
"""How often a running session looks whether its child's key still is good: it is ended well within a minute."""


class _HealthForNodes:
    """The health service, for nodes of the tree: an invitation may call Enrol and nothing else."""

    def __init__(self, health_of: health.aio.HealthServicer, caller: Callable[[Any], Certified], node: Node) -> None:
        self._health, self._caller, self._node = health_of, caller, node

    async def Check(self, request: Any, context: Any) -> Any:
        async with self._admitted(context):
            return await self._health.Check(request, context)

    async def List(self, request: Any, context: Any) -> Any:
        async with self._admitted(context):
            return await self._health.List(request, context)

    async def Watch(self, request: Any, context: Any) -> None:
        async with self._admitted(context):
            await self._health.Watch(request, context)

    @asynccontextmanager
    async def _admitted(self, context: Any) -> AsyncIterator[None]:
        caps = self._node.caps
        try:
            certified = self._caller(context)
            async with caps.call(caps.caller(certified.unit, self._node.config.unit)):
                if certified.enrolment:
                    raise BadCertificate("an invitation may enrol a unit and do nothing else")
                yield
        except ReplicationError as fault:
            await refuse(context, fault)


class ChildLinks:
    """The server of one node; ``on_news`` is told when a child brought something. Raises PortTaken if it cannot
    listen."""

    def __init__(self, node: Node, on_news: Callable[[], None]) -> None:
        self.node = node
        self._on_news = on_news
        self._running: dict[str, _Running] = {}
        self._line = Line()
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=None)
        health_pb2_grpc.add_HealthServicer_to_server(_HealthForNodes(self._health, self._caller, node), self._server)
        self._server.add_generic_rpc_handlers(
            [
                handlers(
                    [
                        ("Exchange", grpc.stream_stream_rpc_method_handler(self._exchange)),
                        ("Enrol", grpc.unary_unary_rpc_method_handler(self._enrol)),
                        ("Renew", grpc.unary_unary_rpc_method_handler(self._renew)),
                    ]
                )
            ]
        )
        self.port = bind(self._server, node.config.listen, living_credentials(lambda: self.node.keys))

    @property
    def busy(self) -> set[str]:
        """The units with a session under way."""
        return set(self._running)

    async def start(self) -> None:
        await self.node.database.write(name_children, self.node.context, self.node.keys)
        await certify_root_if_due(self.node)
        await self._server.start()
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_S)

    async def _exchange(self, _requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        caller, caps = context.peer(), self.node.caps
        try:
            certified = self._caller(context)
            caller = certified.unit
            async with caps.call(caps.caller(caller, self.node.config.unit)):
                await self._check_child(certified)  # with a former key of a child it is not that child which fails
                async with faults_noted(self.node, caller):
                    await self._in_place(certified, context)
        except _Replaced:
            log.info("session replaced", unit=caller, reason="the unit has called anew")
            await refuse(context, LinkFault(f"{caller} has called anew"))
        except TooOften as fault:
            self._say_sometimes(caller, fault)
            await refuse(context, fault)
        except ReplicationError as fault:
            log.warning("session failed", unit=caller, reason=str(fault))
            await self._put_on_record(caller, fault)
            await refuse(context, fault)
        except Exception:
            log.exception("session broke", unit=caller)
            raise

    def _say_sometimes(self, caller: str, fault: TooOften) -> None:
        account = self.node.caps.caller(caller, self.node.config.unit)
        if self.node.caps.is_news(account):
            log.warning("calls refused", unit=caller, reason=str(fault), refused=account.refused_calls)

    async def _put_on_record(self, caller: str, fault: ReplicationError) -> None:
        """What a peer was refused for what it is or did; that it called too often, or its line broke, is no matter."""
        if isinstance(fault, RemoteFault):
            account = self.node.caps.caller(caller, self.node.config.unit).unit
            await auditing.refused(self.node, account, Act.CALL_REFUSED, {}, fault.code)

    async def _in_place(self, certified: Certified, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Run a session in the place of one that this unit has under way: it waits no more for that, or would not have
        called. Raises LinkFault where the older one does not end."""
        unit = certified.unit
        while (older := self._running.get(unit)) is not None:
            older.replaced = True
            older.work.cancel()
            await asyncio.wait({older.work}, timeout=REPLACED_S)
            if not older.work.done():
                raise LinkFault(f"a session with {unit} is under way already")
            if self._running.get(unit) is older:
                del self._running[unit]
            self.node.caps.of(unit).replaced_calls += 1
        running = self._running[unit] = _Running(asyncio.create_task(self._session(certified, context)))
        try:
            summary = await running.work
        except asyncio.CancelledError:
            if running.replaced:
                raise _Replaced from None
            raise
        finally:
            running.work.cancel()
            if self._running.get(unit) is running:
                del self._running[unit]
        if summary.received_batches:
            self._on_news()

    async def _session(self, certified: Certified, context: grpc.aio.ServicerContext[bytes, bytes]) -> Summary:
        unit, caps = certified.unit, self.node.caps
        turn, came = Turn(self._line), time.monotonic()
        try:
            await turn.take()
            await certify_root_if_due(self.node)
            await publish_key(self.node)
            waited = time.monotonic() - came
            if await self.node.database.read(path_of, unit, certified.epoch or Epoch("")) != certified.path:
                await self.node.database.write(meet, self.node.context, self.node.keys, certified)
            metered = Metered(context.read, context.write, caps.of(unit), caps)
            link = StreamLink(metered.read, metered.write)
            session = Session(self.node, link, child=unit, peer=unit, progress=lambda _summary: None, turn=turn)
            try:
                summary = await self._while_good(certified, session)
            finally:
                await link.settle()
                link.close()
            log.info(
                "session",
                unit=unit,
                received=summary.received_batches,
                sent=summary.sent_batches,
                rows=summary.applied_rows,
                seconds=round(summary.seconds, 3),
                waited=round(waited, 3),
            )
            return summary
        finally:
            turn.give()

    async def _enrol(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        async def work(caller: Certified) -> bytes:
            if not caller.enrolment:
                raise BadCertificate("only an invitation may enrol a unit")
            return await answer(self.node, caller, request)

        return await self._certifying(context, work, "enrolled")

    async def _renew(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        async def work(caller: Certified) -> bytes:
            await self._check_child(caller)
            return await renewed(self.node, caller, request)

        return await self._certifying(context, work, "certified anew")

    async def _certifying(
        self,
        context: grpc.aio.ServicerContext[bytes, bytes],
        work: Callable[[Certified], Awaitable[bytes]],
        done: str,
    ) -> bytes:
        """One call that asks for a certificate, within what its caller may ask."""
        caller, caps = context.peer(), self.node.caps
        try:
            certified = self._caller(context)
            caller = certified.unit
            account = caps.caller(caller, self.node.config.unit, invited=certified.enrolment)
            async with caps.call(account, enrols=True):
                response = await work(certified)
                log.info(done, unit=certified.unit)
                return response
        except TooOften as fault:
            self._say_sometimes(caller, fault)
            await refuse(context, fault)
        except ReplicationError as fault:
            log.warning("certificate refused", unit=caller, reason=str(fault))
            await self._put_on_record(caller, fault)
            await refuse(context, fault)
        return b""  # not reached: refuse() ends the call

    async def _check_child(self, caller: Certified) -> None:
        """Raises OutOfScope, Revoked or Replaced."""
        if caller.enrolment or parent_of(caller.unit) != self.node.config.unit:
            raise OutOfScope(f"{caller.unit} is not a child of {self.node.config.unit}")
        unit, epoch = caller.unit, epoch_of(caller)
        await self.node.database.read(check_not_revoked, unit, epoch)
        try:
            await self.node.database.read(check_not_replaced, unit, epoch)
        except Replaced:
            await self.node.database.write(note_former_call, self.node.context, unit, epoch)
            raise

    async def _while_good(self, caller: Certified, session: Session) -> Summary:
        """A session, ended as soon as its child's key is. Raises Revoked, Replaced, or what the session raises."""
        running = asyncio.ensure_future(session.run())
        try:
            while not (await asyncio.wait({running}, timeout=REVOCATION_S))[0]:
                await self._check_child(caller)
            return await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _caller(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> Certified:
        keys = self.node.keys
        return peer_of(context, keys.tree_id, keys.node_path[-1], datetime.now(UTC))
