"""The parent's side of its links: a server that children dial.

Role: prove who calls; run a session, or answer an enrolment.
Reach: grpc, node.session, node.enrolment. Invariant: an invitation's certificate may call Enrol and nothing else, a
node's may not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from conflict.values import Epoch
from node.enrolment import answer
from node.line import Line, Turn
from node.link import StreamLink
from node.local import Node
from node.renewal import answer as renewed
from node.renewal import meet, name_children
from node.session import Session, faults_noted
from node.storage.certificates import path_of
from node.transport import (
    SERVER_OPTIONS,
    SERVICE,
    bind,
    handlers,
    living_credentials,
    peer_of,
    refuse,
)
from sync_engine.certificates import Certified
from sync_engine.errors import BadCertificate, LinkFault, OutOfScope, ReplicationError
from sync_engine.names import parent_of

log = structlog.get_logger()

GRACE_S = 2.0
"""How long a stop waits for running sessions: what they have acknowledged is safe in any case, and a service that is
asked to end has ended within five seconds."""


class _HealthForNodes:
    """The health service, for nodes of the tree: an invitation may call Enrol and nothing else."""

    def __init__(self, health_of: health.aio.HealthServicer, caller: Callable[[Any], Certified]) -> None:
        self._health, self._caller = health_of, caller

    async def Check(self, request: Any, context: Any) -> Any:
        await self._admit(context)
        return await self._health.Check(request, context)

    async def List(self, request: Any, context: Any) -> Any:
        await self._admit(context)
        return await self._health.List(request, context)

    async def Watch(self, request: Any, context: Any) -> None:
        await self._admit(context)
        await self._health.Watch(request, context)

    async def _admit(self, context: Any) -> None:
        try:
            if self._caller(context).enrolment:
                raise BadCertificate("an invitation may enrol a unit and do nothing else")
        except ReplicationError as fault:
            await refuse(context, fault)


class ChildLinks:
    """The server of one node; ``on_news`` is told when a child brought something. Raises PortTaken if it cannot
    listen."""

    def __init__(self, node: Node, on_news: Callable[[], None]) -> None:
        self.node = node
        self._on_news = on_news
        self.busy: set[str] = set()
        self._line = Line()
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=None)
        health_pb2_grpc.add_HealthServicer_to_server(_HealthForNodes(self._health, self._caller), self._server)
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

    async def start(self) -> None:
        await self.node.database.write(name_children, self.node.context, self.node.keys)
        await self._server.start()
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_S)

    async def _exchange(self, _requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        caller = context.peer()
        try:
            certified = self._caller(context)
            caller = certified.unit
            async with faults_noted(self.node, caller):
                self._check_child(certified)
                if caller in self.busy:
                    raise LinkFault(f"a session with {caller} is under way already")
                await self._session(certified, context)
        except ReplicationError as fault:
            log.warning("session failed", unit=caller, reason=str(fault))
            await refuse(context, fault)
        except Exception:
            log.exception("session broke", unit=caller)
            raise

    async def _session(self, certified: Certified, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        unit = certified.unit
        self.busy.add(unit)
        turn, came = Turn(self._line), time.monotonic()
        try:
            await turn.take()
            waited = time.monotonic() - came
            if await self.node.database.read(path_of, unit, certified.epoch or Epoch("")) != certified.path:
                await self.node.database.write(meet, self.node.context, self.node.keys, certified)
            link = StreamLink(context.read, context.write)
            session = Session(self.node, link, child=unit, peer=unit, progress=lambda _summary: None, turn=turn)
            try:
                summary = await session.run()
            finally:
                link.close()
            if summary.received_batches:
                self._on_news()
            log.info(
                "session",
                unit=unit,
                received=summary.received_batches,
                sent=summary.sent_batches,
                rows=summary.applied_rows,
                seconds=round(summary.seconds, 3),
                waited=round(waited, 3),
            )
        finally:
            turn.give()
            self.busy.discard(unit)

    async def _enrol(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            certified = self._caller(context)
            if not certified.enrolment:
                raise BadCertificate("only an invitation may enrol a unit")
            response = await answer(self.node, certified, request)
            log.info("enrolled", unit=certified.unit)
            return response
        except ReplicationError as fault:
            log.warning("enrolment refused", reason=str(fault))
            await refuse(context, fault)
        return b""  # not reached: refuse() ends the call

    async def _renew(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            certified = self._caller(context)
            self._check_child(certified)
            response = await renewed(self.node, certified, request)
            log.info("certified anew", unit=certified.unit)
            return response
        except ReplicationError as fault:
            log.warning("not certified anew", reason=str(fault))
            await refuse(context, fault)
        return b""  # not reached: refuse() ends the call

    def _check_child(self, caller: Certified) -> None:
        if caller.enrolment or parent_of(caller.unit) != self.node.config.unit:
            raise OutOfScope(f"{caller.unit} is not a child of {self.node.config.unit}")

    def _caller(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> Certified:
        keys = self.node.keys
        return peer_of(context, keys.tree_id, keys.node_path[-1], datetime.now(UTC))
