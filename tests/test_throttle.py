"""A line is as fast as the operator allows and no faster; nothing else about it is different."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from node.config import RATE_KBIT_S_MIN
from node.keys import KeyStore
from node.parent_link import _connected
from node.session import IDLE_S
from node.throttle import Pace, throttled
from node.transport import EXCHANGE, PATIENCE_MS, SERVER_OPTIONS, bind, channel_to, handlers, server_credentials
from sync_engine.errors import LinkFault
from sync_engine.limits import FRAME_BYTES_MAX
from tests.pki import NOW, join

pytestmark = pytest.mark.alone

CHILD, PARENT = "hue.vn", "vn"
MESSAGE_BYTES = 60_000
SOON_S = 5.0


@dataclass(frozen=True)
class Pair:
    child: KeyStore
    parent: KeyStore


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "vn").mkdir()
    parent = KeyStore.create_root(folder / "vn", PARENT, NOW)
    return Pair(join(parent, folder / "hue", CHILD), parent)


@asynccontextmanager
async def parent_that_sends(pair: Pair, messages: int) -> AsyncIterator[int]:
    """A server with real certificates that takes all it is sent, sends as much, and ends; gives its port."""

    async def answer(_requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        async def take() -> None:
            while isinstance(await context.read(), bytes):
                pass

        taking = asyncio.create_task(take())
        for _ in range(messages):
            await context.write(secrets.token_bytes(MESSAGE_BYTES))
        await taking

    keys = pair.parent
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers([handlers([("Exchange", grpc.stream_stream_rpc_method_handler(answer))])])
    credentials = server_credentials(key=keys.tls_key_pem, chain=keys.tls_chain_pem, root=keys.tls_root_pem)
    port = bind(server, "127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@dataclass
class Line:
    """What passed one way: how many bytes, and when."""

    passed: list[tuple[float, int]] = field(default_factory=list)

    @property
    def kbit_s(self) -> float:
        """From the first piece to the last; the first one is what the clock was started by."""
        took = self.passed[-1][0] - self.passed[0][0]
        return sum(count for _at, count in self.passed[1:]) * 8 / 1000 / took


@asynccontextmanager
async def counted(port: int) -> AsyncIterator[tuple[int, Line, Line]]:
    """A line to ``port`` on which all bytes are counted, up and down; gives the port to dial."""
    up, down = Line(), Line()
    going: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(256 * 1024):
                line.passed.append((asyncio.get_running_loop().time(), len(piece)))
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        going.update({asyncio.create_task(carry(reader, back, up)), asyncio.create_task(carry(there, writer, down))})

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], up, down
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*going), SOON_S)


async def speak(pair: Pair, near: str, messages: int) -> int:
    """A session that sends and takes messages at once; returns how many bytes came."""
    keys = pair.child
    channel = channel_to(
        near, PARENT, key=keys.tls_key_pem, chain=keys.tls_chain_pem, root=keys.tls_root_pem, relayed=True
    )
    async with channel:
        await _connected(channel, near)
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(EXCHANGE)()

        async def send() -> None:
            for _ in range(messages):
                await call.write(secrets.token_bytes(MESSAGE_BYTES))
            await call.done_writing()

        sending, came = asyncio.create_task(send()), 0
        while isinstance(data := await call.read(), bytes):
            came += len(data)
        await sending
        return came


RATES = {"1 Mbit/s": (1_000, 3), "4 Mbit/s": (4_000, 12), "20 Mbit/s": (20_000, 60)}


@pytest.mark.parametrize(("kbit_s", "messages"), RATES.values(), ids=RATES)
async def test_a_line_keeps_to_its_rate_within_a_tenth_both_ways_at_once(
    pair: Pair, kbit_s: float, messages: int
) -> None:
    async with (
        parent_that_sends(pair, messages) as port,
        counted(port) as (there, up, down),
        throttled(f"127.0.0.1:{there}", kbit_s) as near,
    ):
        came = await asyncio.wait_for(speak(pair, near, messages), 20)
    assert came == messages * MESSAGE_BYTES
    for name, line in (("up", up), ("down", down)):
        print(f"\n{kbit_s} kbit/s {name}: {line.kbit_s:.0f}, {sum(n for _t, n in line.passed)} bytes")
        assert 0.9 * kbit_s < line.kbit_s < 1.1 * kbit_s


async def test_without_a_rate_the_parent_is_dialled_itself() -> None:
    async with throttled("parent.example:7470", 0) as near:
        assert near == "parent.example:7470"


DEAD_ENDS = {"a port nobody listens on": "127.0.0.1:1", "a name that is none": "-:7470", "no port": "parent"}


@pytest.mark.parametrize("address", DEAD_ENDS.values(), ids=DEAD_ENDS)
async def test_a_parent_out_of_reach_is_told_in_the_same_words_as_without_a_relay(pair: Pair, address: str) -> None:
    keys = pair.child
    async with throttled(address, 1_000) as near:
        channel = channel_to(
            near, PARENT, key=keys.tls_key_pem, chain=keys.tls_chain_pem, root=keys.tls_root_pem, relayed=True
        )
        async with channel:
            with pytest.raises(LinkFault, match="no answer in 0 seconds: the parent is not running"):
                await _connected(channel, address, 0.3)


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that answers when it has heard all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_one_side_may_end_and_go_on_listening() -> None:
    async with echo() as port, throttled(f"127.0.0.1:{port}", 10_000) as near:
        reader, writer = await asyncio.open_connection(*near.split(":"))
        writer.write(b"x" * 10_000)
        writer.write_eof()
        assert len(await asyncio.wait_for(reader.read(), SOON_S)) == 10_000
        writer.close()


async def test_all_is_closed_when_the_session_ends() -> None:
    async with echo() as port:
        async with throttled(f"127.0.0.1:{port}", 64) as near:
            reader, writer = await asyncio.open_connection(*near.split(":"))
            writer.write(b"x" * 100_000)  # more than a second's worth is under way
            await asyncio.sleep(0.05)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), SOON_S) == b""
        writer.close()
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection(*near.split(":"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose a connection is")
async def test_another_programs_connection_is_closed_at_once() -> None:
    code = "import socket,sys; s=socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); print(len(s.recv(1)))"
    async with echo() as port, throttled(f"127.0.0.1:{port}", 10_000) as near:
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, near.split(":")[1], stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(other.communicate(), 10)
    assert said.strip() == b"0"


async def test_the_time_of_an_idle_line_is_not_made_up_for() -> None:
    pace = Pace(100_000)
    await pace.carry(1_000)
    await asyncio.sleep(0.3)
    began = asyncio.get_running_loop().time()
    for _ in range(20):
        await pace.carry(1_000)
    assert asyncio.get_running_loop().time() - began >= 0.2


def test_the_largest_frame_at_the_lowest_rate_breaks_no_time_out() -> None:
    slowest_s = FRAME_BYTES_MAX * 1.02 * 8 / 1000 / RATE_KBIT_S_MIN  # TLS and HTTP/2 add a fiftieth
    assert slowest_s < PATIENCE_MS / 1000
    assert slowest_s < IDLE_S
    assert dict(SERVER_OPTIONS)["grpc.keepalive_timeout_ms"] == PATIENCE_MS
