"""A line that is no faster than the operator allows: a relay between a channel and the parent's address.

Role: gRPC dials the relay on loopback, which carries bytes on in both directions, each at its own even pace. What is
counted is what the line carries above TCP: TLS and HTTP/2 with all they add. TLS stays end to end.
Reach: asyncio, sockets. Invariant: little is ever held here or in the sockets on the way, so that a ping of gRPC never
waits behind seconds of data; the relay takes connections of this process alone and ends with its session.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

PIECE_S = 0.02
"""A piece takes so long ..."""

PIECE_BYTES_MIN, PIECE_BYTES_MAX = 512, 64 * 1024
"""... within these sizes."""

BURST_S = 0.1
"""What was not used for so long may be made up for: any second carries at most a tenth more than the rate."""

BUFFER_S = 0.5
BUFFER_BYTES_MIN = 16 * 1024
"""What a socket's own buffer may hold, in seconds of the line; the system doubles it."""

SEGMENT_BYTES = 1_400
"""On loopback a segment is 64 KB by default, and the system then lets a sender run megabytes ahead of its reader."""

CONNECT_S = 20.0

DEAD_AFTER = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6, "TCP_USER_TIMEOUT": 60_000}
"""A line is dead on which nothing has been answered for a minute."""


class Pace:
    """One direction's even pace: who asks for ``count`` bytes waits until they are due."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_at = 0.0

    async def carry(self, count: int) -> None:
        now = asyncio.get_running_loop().time()
        # An idle line starts without credit: else every session would begin with a burst.
        begins = now if now - self._free_at > BURST_S else self._free_at
        self._free_at = begins + count / self.bytes_per_s
        await asyncio.sleep(self._free_at - now)


class _Relay:
    """Carries the connections of one channel to one address."""

    def __init__(self, address: str, rate_kbit_s: float) -> None:
        self._address = address
        rate = rate_kbit_s * 1000 / 8
        self._up, self._down = Pace(rate), Pace(rate)
        self._piece = int(min(max(rate * PIECE_S, PIECE_BYTES_MIN), PIECE_BYTES_MAX))
        self._buffer = int(max(rate * BUFFER_S / 2, BUFFER_BYTES_MIN))
        self._carried: set[asyncio.Task[None]] = set()

    def listen(self) -> socket.socket:
        listener = socket.socket()
        self._make_small(listener)  # what it accepts is the same
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)
        return listener

    async def serve(self, listener: socket.socket) -> None:
        try:
            while True:
                near, peer = await asyncio.get_running_loop().sock_accept(listener)
                near.setblocking(False)
                if not _is_of_this_process(peer, listener.getsockname()):
                    near.close()
                    continue
                task = asyncio.create_task(self._connect(near))
                self._carried.add(task)
                task.add_done_callback(self._carried.discard)
        finally:
            for task in self._carried:
                task.cancel()
            await asyncio.gather(*self._carried, return_exceptions=True)

    async def _connect(self, near: socket.socket) -> None:
        """Carry one connection to its end; one that the parent does not take ends at once, and gRPC sees a line that
        is down."""
        with near, contextlib.suppress(OSError, TimeoutError, ValueError):
            far = await asyncio.wait_for(self._dial(), CONNECT_S)
            with far:
                ways = [
                    asyncio.create_task(self._pump(near, far, self._up)),
                    asyncio.create_task(self._pump(far, near, self._down)),
                ]
                try:
                    await asyncio.gather(*ways)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _dial(self) -> socket.socket:
        """Raises OSError or ValueError for an address that leads nowhere."""
        host, _, port = self._address.rpartition(":")
        loop = asyncio.get_running_loop()
        fault = OSError(f"{self._address} leads nowhere")
        for family, kind, protocol, _name, place in await loop.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        ):
            far = socket.socket(family, kind, protocol)
            try:
                self._make_small(far)
                _end_when_dead(far)
                far.setblocking(False)
                await loop.sock_connect(far, place)
            except OSError as error:
                far.close()
                fault = error
                continue
            except BaseException:
                far.close()
                raise
            return far
        raise fault

    async def _pump(self, source: socket.socket, target: socket.socket, pace: Pace) -> None:
        """One direction, to its end, which is passed on."""
        loop = asyncio.get_running_loop()
        while piece := await loop.sock_recv(source, self._piece):
            await pace.carry(len(piece))
            await loop.sock_sendall(target, piece)
        target.shutdown(socket.SHUT_WR)

    def _make_small(self, one: socket.socket) -> None:
        """Before it connects or listens: both ends agree then on how far the sender may run ahead."""
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_MAXSEG"):
            with contextlib.suppress(OSError):  # a system that does not let it be set has no use for it
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)


@contextlib.asynccontextmanager
async def throttled(address: str, rate_kbit_s: float) -> AsyncIterator[str]:
    """Where to dial so that ``address`` is reached at that rate in each direction; the address itself for 0."""
    if not rate_kbit_s:
        yield address
        return
    relay = _Relay(address, rate_kbit_s)
    with relay.listen() as listener:
        serving = asyncio.create_task(relay.serve(listener))
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def _end_when_dead(far: socket.socket) -> None:
    """Let the system notice a line that is dead, which gRPC cannot do here (see ``transport.RELAYED``)."""
    far.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in DEAD_AFTER.items():
        if hasattr(socket, name):
            far.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _is_of_this_process(peer: tuple[str, int], here: tuple[str, int]) -> bool:
    """Whether a loopback connection comes from this process. Only Linux tells; elsewhere the port alone is private,
    and whoever finds it gains nothing: the parent asks for a certificate all the same."""
    if sys.platform != "linux":
        return True
    ends = [_as_listed(*peer), _as_listed(*here)]
    for table in ("tcp", "tcp6"):  # gRPC speaks IPv4 through sockets of the newer kind
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/net", table).read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                if [each[-LISTED:] for each in columns[1:3]] == ends:
                    mine = f"socket:[{columns[9]}]"
                    return any(_target(entry) == mine for entry in Path("/proc/self/fd").iterdir())
    return False


LISTED = len("0100007F:1F90")


def _as_listed(host: str, port: int) -> str:
    """As the system lists an address: the bytes of a machine word, in hexadecimal."""
    word = int.from_bytes(socket.inet_aton(host), sys.byteorder)
    return f"{word:08X}:{port:04X}"


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed meanwhile
        return ""
