"""A client that says what a test wants said, over the real link, with a real node's key.

Role: one gRPC call to a running node, frame by frame; and TLS connections below gRPC.
Reach: grpc, node.transport, node.keys.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from conflict.values import UnitPath
from node.keys import KeyStore
from node.local import context_of
from node.pem import to_pem
from node.storage.engine import open_engine
from node.storage.outbox import hello_of
from node.transport import EXCHANGE, error_of
from sync_engine.errors import ReplicationError
from sync_engine.frames import Frame, Hello, decode, encode
from sync_engine.names import dns_name
from tests.e2e.processes import Home

WAIT_S = 15.0


@dataclass(frozen=True)
class Identity:
    """A key with its certificates, in PEM, and the root that it trusts."""

    key: bytes
    chain: bytes
    root: bytes

    @classmethod
    def of(cls, keys: KeyStore) -> Identity:
        return cls(keys.tls_key_pem, keys.tls_chain_pem, keys.tls_root_pem)

    @classmethod
    def at(cls, home: Home) -> Identity:
        return cls.of(KeyStore.load(home.path))

    @classmethod
    def invited(cls, invitation: Any) -> Identity:
        return cls(invitation.key_pem, to_pem(invitation.path[:-1]), to_pem([invitation.root]))


@asynccontextmanager
async def connected(port: int, unit: str, who: Identity) -> AsyncIterator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(who.root, who.key, who.chain)
    options = [
        ("grpc.ssl_target_name_override", dns_name(unit)),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),  # what a well-behaved client would not send is sent as well
    ]
    channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)
    try:
        yield channel
    finally:
        await channel.close()


class Refusal(AssertionError):
    """The other side ended the call; ``fault`` is its typed error."""

    def __init__(self, fault: ReplicationError) -> None:
        super().__init__(f"{fault.code}: {fault}")
        self.fault = fault


class Line:
    """One Exchange call: frames out, frames in."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self._call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(EXCHANGE)(timeout=WAIT_S)
        self._address = address
        self.sent = self.received = self.frames = 0

    async def say(self, data: bytes | Frame) -> None:
        raw = data if isinstance(data, bytes) else encode(data)
        self.sent += len(raw)
        try:
            await self._call.write(raw)
        except grpc.aio.AioRpcError as error:
            raise Refusal(error_of(error, self._address)) from None

    async def hear(self) -> Frame | None:
        """The next frame; None at the end. Raises Refusal."""
        try:
            raw = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise Refusal(error_of(error, self._address)) from None
        if not isinstance(raw, bytes):
            return None
        self.received += len(raw)
        self.frames += 1
        return decode(raw)

    async def talk(self, data: bytes | Frame) -> list[Frame]:
        """Say one thing and listen to the end. Raises Refusal."""
        await self.say(data)
        heard = []
        while (frame := await self.hear()) is not None:
            heard.append(frame)
        return heard


@asynccontextmanager
async def exchange(port: int, unit: str, who: Identity) -> AsyncIterator[Line]:
    """An Exchange with the node at ``port``, which must be ``unit``'s."""
    async with connected(port, unit, who) as channel:
        yield Line(channel, f"127.0.0.1:{port}")


def hello_from(home: Home, **changes: Any) -> Hello:
    """What this home's node would say first on the link to its parent."""
    keys = KeyStore.load(home.path)
    engine = open_engine(home.database)
    try:
        with engine.connect() as connection:
            connection.execution_options(reads_only=True)
            context = context_of(keys)
            hello, _held = hello_of(connection, context, UnitPath(home.unit), keys.certified.sha256)
    finally:
        engine.dispose()
    return replace(hello, **changes)


def tls_context(
    folder: Path, root: bytes, who: Identity | None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    """A plain TLS client that offers versions up to ``newest``, and every cipher it has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, newest
    context.set_ciphers("ALL:@SECLEVEL=1")
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=root.decode())
    if who is not None:
        (folder / "client.pem").write_bytes(who.chain)
        (folder / "client.key").write_bytes(who.key)
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
    return context


def greet(port: int, unit: str, context: ssl.SSLContext) -> tuple[str | None, bytes]:
    """Open TLS and HTTP/2: (version agreed on, the server's first bytes). Raises OSError where it is refused."""
    with (
        closing(socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)) as plain,
        context.wrap_socket(plain, server_hostname=dns_name(unit)) as secure,
    ):
        secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
        return secure.version(), secure.recv(64)


def throw(port: int, piece: bytes, context: ssl.SSLContext | None = None) -> None:
    """Throw bytes at a port, below TLS or inside it."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)) as plain:
        if context is None:
            plain.sendall(piece)
        else:
            context.check_hostname = False
            with context.wrap_socket(plain) as secure:
                secure.sendall(piece)
