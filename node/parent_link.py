"""The child's side of a link: dial the parent, run one session.

Role: one exchange with the parent; one enrolment with an invitation.
Reach: grpc, node.session. Invariant: whoever answers must hold the parent's certificate; the address alone proves
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime

import grpc
import grpc.aio
import structlog
from dongbo.v1 import sync_pb2

from conflict.values import UnitPath
from node import __version__, renewal
from node.carry_key import publish_key
from node.invitation import Invitation
from node.keys import Pending
from node.link import StreamLink
from node.local import Node
from node.session import Session, faults_noted
from node.summary import Summary
from node.throttle import throttled
from node.transport import ENROL, EXCHANGE, RENEW, channel_to, error_of
from sync_engine.enrolling import enrol_bytes
from sync_engine.errors import LinkFault, LocalFault, Malformed, NotCertifiedYet, ReplicationError, TooOften
from sync_engine.names import parent_of

log = structlog.get_logger()

CONNECT_S = 20.0
"""How long a connection may take to come about: several retries of a handshake over a slow, lossy line."""


EXPIRED_CONNECT_S = 3.0
"""How long a parent is tried with an invitation that has expired by this machine's clock."""

RUN_AGAIN = "start the parent's service, or mend the line to it; then run this again"


class InvitationExpired(LocalFault):
    """The invitation is too old by this machine's clock, and the parent does not take it."""

    default_hint = "ask the parent unit for a new invitation ('dongbo invite'); if it is new, set this machine's clock"


class NoParent(LocalFault):
    """The root has nobody to call."""

    default_hint = "run this on a unit below the root; the root is called by its children"


class LivesByStick(LocalFault):
    """A node that knows no address of its parent."""

    default_hint = (
        "carry bundles: 'dongbo export --to PARENT --out FOLDER' and 'dongbo import FOLDER'; if there is a line now,"
        " write parent_address into node.toml"
    )


async def sync_with_parent(node: Node, progress: Callable[[Summary], None] = lambda _summary: None) -> Summary:
    """One exchange with the parent now. Raises NoParent, LivesByStick, LinkFault or RemoteFault; the
    reason is kept for status."""
    parent = parent_of(node.config.unit)
    if parent is None:
        raise NoParent(f"{node.config.unit} is the root of its tree")
    address = node.config.parent_address
    if not address:
        raise LivesByStick(f"{node.config.unit} has no address of {parent} to call: it lives by stick")
    async with faults_noted(node, parent), throttled(address, node.config.schedule.rate_kbit_s) as near:
        await publish_key(node)
        if renewal.is_due(node, datetime.now(UTC)):
            await _renew(node, parent, near)
        summary = await _dial(node, parent, near, progress)
        if renewal.may_ask_again(node):  # a new life began in that session: what it sealed goes up in another
            await _renew(node, parent, near)
            summary = _together(summary, await _dial(node, parent, near, progress))
    node.on_in_step(summary.seconds)
    return summary


def _together(first: Summary, second: Summary) -> Summary:
    """What two sessions came to, told as one."""
    told = {each.name: getattr(first, each.name) + getattr(second, each.name) for each in fields(Summary)[1:]}
    return Summary(second.peer, **told)


def _channel(node: Node, parent: UnitPath, near: str) -> grpc.aio.Channel:
    """To the parent, by way of ``near``, under the certificate in place."""
    keys, relayed = node.keys, near != node.config.parent_address
    return channel_to(
        near, parent, key=keys.tls_key_pem, chain=keys.tls_chain_pem, root=keys.tls_root_pem, relayed=relayed
    )


async def _dial(node: Node, parent: UnitPath, near: str, progress: Callable[[Summary], None]) -> Summary:
    """One session by way of ``near``: the parent's address, or a relay that leads there."""
    address = node.config.parent_address
    channel = _channel(node, parent, near)
    try:
        await _connected(channel, address)
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(EXCHANGE)()
        link = StreamLink(call.read, call.write)
        session = Session(node, link, child=node.config.unit, peer=parent, progress=progress)
        try:
            summary = await session.run()
            await call.done_writing()
            await asyncio.wait_for(link.drain(), CONNECT_S)  # the parent's status comes after its last frame
            return summary
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise await _ended_with(call, address) from error
        except TimeoutError:
            raise LinkFault(f"{address}: the parent did not end the session") from None
        finally:
            link.close()
            call.cancel()
    except grpc.aio.AioRpcError as error:
        raise error_of(error, address) from error
    finally:
        await channel.close()


async def _ended_with(call: grpc.aio.StreamStreamCall[bytes, bytes], address: str) -> ReplicationError:
    """Why a call that can be written to no more has ended: a parent that refuses at once does not read first."""
    if not call.done():
        return LinkFault(f"{address}: the connection broke")
    code, metadata = await call.code(), grpc.aio.Metadata()
    return error_of(grpc.aio.AioRpcError(code, metadata, metadata, await call.details()), address)


async def _renew(node: Node, parent: UnitPath, near: str) -> None:
    """Have the new life that waits, or the certificate that nears its end, certified. A parent that cannot do so now,
    or is too old to know of it, is asked again next time. Raises Cloned or LinkFault."""
    address = node.config.parent_address
    channel = _channel(node, parent, near)
    try:
        await _connected(channel, address)
        request = await renewal.request_of(node)
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(RENEW)
        response = await method(request, timeout=CONNECT_S)
        await renewal.install(node, request, response)
        log.info("certified anew", epoch=node.keys.epoch)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            node.renewal_waits = "the parent's software is too old to certify a new key"
        else:
            fault = error_of(error, address)
            if not isinstance(fault, NotCertifiedYet | TooOften):
                raise fault from error
            log.warning("not certified yet", reason=str(fault), hint=fault.hint)
            node.renewal_waits = f"{fault}; {fault.hint}"
    finally:
        node.renewal_asked = datetime.now(UTC)
        await channel.close()


async def _connected(channel: grpc.aio.Channel, address: str, seconds: float = CONNECT_S) -> None:
    """Wait until the handshake is done. Raises LinkFault."""
    try:
        await asyncio.wait_for(channel.channel_ready(), seconds)
    except TimeoutError:
        raise LinkFault(
            f"{address}: no answer in {seconds:.0f} seconds: the parent is not running, the line is down, or the"
            " certificates do not fit"
        ) from None


def _of_a_command(fault: ReplicationError) -> ReplicationError:
    """With what a person can do, where no service is there yet that would try again by itself."""
    if isinstance(fault, LinkFault):
        fault.hint = RUN_AGAIN
    return fault


async def enrol(invitation: Invitation, pending: Pending) -> sync_pb2.EnrolResponse:
    """Ask the parent to certify new keys, with an invitation's one-time certificate. Raises Refused or LinkFault."""
    channel = channel_to(
        invitation.address,
        invitation.parent,
        key=invitation.key_pem,
        chain=invitation.tls_chain_pem,
        root=invitation.tls_root_pem,
    )
    software = f"dongbo {__version__}"
    request = enrol_bytes(pending.node_request, pending.ca_request, pending.epoch, software)
    expired = invitation.is_expired(datetime.now(UTC))  # the parent decides, but answers such a key with silence
    try:
        await _connected(channel, invitation.address, EXPIRED_CONNECT_S if expired else CONNECT_S)
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENROL)
        answer = await method(request, timeout=CONNECT_S)
        with contextlib.suppress(ValueError):
            return sync_pb2.EnrolResponse.FromString(answer)
        raise Malformed("the parent's answer does not parse")
    except grpc.aio.AioRpcError as error:
        raise _of_a_command(error_of(error, invitation.address)) from error
    except LinkFault as fault:
        if not expired:
            raise _of_a_command(fault) from None
        ended = invitation.expires.astimezone().strftime("%d/%m/%Y %H:%M")
        raise InvitationExpired(f"the invitation expired on {ended}") from fault
    finally:
        await channel.close()
