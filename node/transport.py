"""gRPC with mutual TLS: channels to a parent, servers for children, and what a connection proves about its peer.

Role: credentials, limits, raw frames in and out, typed errors across a call.
Reach: grpc, node.keys. Invariant: TLS 1.3 or nothing: an ECDSA key with no ECDSA suite for TLS 1.2 leaves no older
version to agree on, and each call is checked besides.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, cast

os.environ["GRPC_SSL_CIPHER_SUITES"] = (
    "ECDHE-RSA-AES256-GCM-SHA384"  # before grpc starts; TLS 1.3 has suites of its own
)

import grpc
import grpc.aio

from node.caps import connections_max
from node.keys import KeyStore
from node.pem import from_pem
from sync_engine import errors
from sync_engine.certificates import Certified, verify_enrolment_path, verify_link_path
from sync_engine.errors import BadCertificate, LinkFault, PortTaken, Refused, ReplicationError, TooOften
from sync_engine.limits import FRAME_BYTES_MAX
from sync_engine.names import dns_name

SERVICE = "dongbo.v1.SyncService"
EXCHANGE, ENROL, RENEW = f"/{SERVICE}/Exchange", f"/{SERVICE}/Enrol", f"/{SERVICE}/Renew"

PATIENCE_MS = 360_000
"""Over a slow line a ping waits behind what was written before it, and the largest frame takes nearly six minutes at
the lowest rate that node.toml allows."""

_LIMITS = [
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX + 1024),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX + 1024),
    ("grpc.keepalive_time_ms", 30_000),  # a half-open link is noticed
    ("grpc.http2.ping_timeout_ms", PATIENCE_MS),
]
SERVER_OPTIONS = [
    *_LIMITS,
    # gRPC gives it to TCP as well (TCP_USER_TIMEOUT), where Linux counts all the time in which a child takes less than
    # we could send: a child that keeps to a rate needs so long for the largest frame.
    ("grpc.keepalive_timeout_ms", PATIENCE_MS),
    ("grpc.max_concurrent_streams", 4),  # of one connection; more are told to wait, not dropped
    ("grpc.max_connection_idle_ms", 30_000),  # a child whose call has failed may keep its end open for long
    ("grpc.max_connection_age_ms", 3_600_000),  # a certificate that ended does not live on in an open connection
    ("grpc.max_connection_age_grace_ms", 600_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),  # else a second server takes the port in silence
    # Before the handshake nobody is known: who does not end it, or opens more than there are files for, is cut.
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_allowed_incoming_connections", connections_max()),
]


DIRECT = [("grpc.keepalive_timeout_ms", 60_000)]
RELAYED = [
    ("grpc.keepalive_time_ms", 2**31 - 1),  # it would break a relay that takes its time (TCP_USER_TIMEOUT, as above)
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment does not lead to this machine
]


def channel_to(
    address: str, unit: str, *, key: bytes, chain: bytes, root: bytes, relayed: bool = False
) -> grpc.aio.Channel:
    """A channel to ``unit`` at ``address`` (``relayed``: a relay in this process, which sees itself that the line is
    not dead); whoever answers must hold that unit's certificate. PEM throughout."""
    credentials = grpc.ssl_channel_credentials(root_certificates=root, private_key=key, certificate_chain=chain)
    options = [
        *(dict(_LIMITS) | dict(RELAYED if relayed else DIRECT)).items(),
        ("grpc.ssl_target_name_override", dns_name(unit)),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_reconnect_backoff_ms", 2_000),  # a parent that is back is met soon; who calls waits 20 s in all
    ]
    return grpc.aio.secure_channel(address, credentials, options=options)


def server_credentials(*, key: bytes, chain: bytes, root: bytes) -> grpc.ServerCredentials:
    """A server that no one reaches without a certificate of this tree."""
    return grpc.ssl_server_credentials([(key, chain)], root_certificates=root, require_client_auth=True)


def living_credentials(current: Callable[[], KeyStore]) -> grpc.ServerCredentials:
    """The same, whose certificate is the one that ``current`` gives at each handshake: a renewal needs no restart.

    Nothing is given while nothing has changed. gRPC would take each configuration for a new one and drop the one before
    it under the handshakes that use it: with 173 children calling at once that ended the process (1.85.1, SIGSEGV).
    """

    def parts() -> tuple[bytes, bytes, bytes]:
        keys = current()
        return keys.tls_key_pem, keys.tls_chain_pem, keys.tls_root_pem

    def configuration(key: bytes, chain: bytes, root: bytes) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=root)

    given = parts()

    def changed() -> grpc.ServerCertificateConfiguration | None:  # on a thread of grpc's, once a handshake
        nonlocal given
        now = parts()
        if now == given:
            return None
        given = now
        return configuration(*now)

    fetcher = cast(Callable[[], grpc.ServerCertificateConfiguration], changed)  # the stubs do not know of None
    return grpc.dynamic_ssl_server_credentials(configuration(*given), fetcher, require_client_authentication=True)


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    """The port bound. Raises PortTaken."""
    try:
        port = int(server.add_secure_port(address, credentials))
    except RuntimeError:
        port = 0
    if not port:
        raise PortTaken(
            f"cannot listen on {address}: the port is taken, or the address is not this machine's",
            hint="choose another with 'listen' in node.toml, or end the program that has it",
        )
    return port


def peer_of(context: grpc.aio.ServicerContext[Any, Any], tree_id: bytes, root: bytes, now: datetime) -> Certified:
    """Who is calling, proven by the certificates it sent in the handshake. Raises BadCertificate or WrongTree.

    Chain and root are checked again by our own rules: grpc accepts more than we do.
    """
    auth = {name: list(values) for name, values in context.auth_context().items()}
    if auth.get("ssl_tls_version", [b""])[0] != b"TLSv1.3":
        raise BadCertificate("the connection is not TLS 1.3")
    leaf, above = auth["x509_pem_cert"][0], auth.get("x509_pem_cert_chain", [b""])[0]
    names = auth.get("x509_subject_alternative_name", [])
    if any(name.startswith(b"enrol.") for name in names):
        return verify_enrolment_path(_path(leaf, above, root), tree_id, now)
    return _proven(leaf, above, tree_id, root, now.replace(second=0, microsecond=0))


def _path(leaf: bytes, above: bytes, root: bytes) -> tuple[bytes, ...]:
    """As it was sent, in DER; ``above`` is empty where the root itself certified the caller."""
    first = from_pem(leaf)
    return (*first, *(der for der in (from_pem(above) if above else ()) if der not in (*first, root)), root)


@functools.lru_cache(maxsize=256)
def _proven(leaf: bytes, above: bytes, tree_id: bytes, root: bytes, minute: datetime) -> Certified:
    """A node's path, proven once a minute: whoever calls without end costs little. What is refused is never kept."""
    return verify_link_path(_path(leaf, above, root), tree_id, minute)


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: ReplicationError) -> None:
    """End a call with a typed error that the other side can show."""
    said: dict[str, Any] = {"code": error.code, "message": str(error), "hint": error.hint}
    if isinstance(error, TooOften):
        said["retry_s"] = round(error.retry_s, 1)
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, json.dumps(said))


RETRY_S_MAX = 900.0
"""A parent may ask for patience, not for silence."""

_UNAVAILABLE = "no answer: the parent is not running, the line is down, or it does not accept this node's certificate"
_STATUS_WORDS = {
    grpc.StatusCode.UNAVAILABLE: _UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: "no answer in time",
    grpc.StatusCode.CANCELLED: "the connection was closed",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the other side is overloaded or a message was too large",
    grpc.StatusCode.UNAUTHENTICATED: "the other side does not accept this node's certificate",
    grpc.StatusCode.PERMISSION_DENIED: "the other side does not allow this",
    grpc.StatusCode.UNIMPLEMENTED: "what answers there is not a dongbo node of a version that understands this",
}


def error_of(error: grpc.aio.AioRpcError, address: str) -> ReplicationError:
    """Every gRPC status as one of our errors: a peer's typed refusal comes back as that type."""
    status = error.code()
    if status is grpc.StatusCode.FAILED_PRECONDITION:
        try:
            said = json.loads(error.details() or "")
            if said["code"] == TooOften.__name__:
                return TooOften(str(said["message"])[:500], retry_s=min(float(said.get("retry_s", 0)), RETRY_S_MAX))
            kind = getattr(errors, str(said["code"]), Refused)
            if isinstance(kind, type) and issubclass(kind, errors.RemoteFault | LinkFault):
                fault = kind(str(said["message"])[:500], hint=str(said["hint"])[:500])
                fault.by_peer = True
                return fault
            return Refused(str(said["message"])[:500], hint=str(said["hint"])[:500])
        except (ValueError, KeyError, TypeError):
            return Refused("the other side refused without saying why")
    words = _STATUS_WORDS.get(status, f"the call ended with {status.name}")
    return LinkFault(f"{address}: {words}")


def handlers(pairs: Iterable[tuple[str, grpc.RpcMethodHandler[Any, Any]]]) -> grpc.GenericRpcHandler:
    """A service whose methods speak raw bytes, so that limits are checked before anything is parsed."""
    return grpc.method_handlers_generic_handler(SERVICE, dict(pairs))
