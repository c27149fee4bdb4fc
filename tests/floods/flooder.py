"""A process that holds a child's real keys and floods its parent in one way, until standard input ends.

Role: the ways; ``python -m tests.floods.flooder HOME PORT WAY`` prints how often it has done it.
Reach: tests.e2e.raw, node.transport. Invariant: every frame is one that the protocol has.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.keys import KeyStore
from node.storage.certificates import path_of
from node.storage.engine import execute, open_engine
from node.transport import ENROL, EXCHANGE
from sync_engine.frames import (
    Ack,
    BatchFrame,
    Certificates,
    Credit,
    Done,
    ForkProof,
    Frame,
    HeadsFrame,
    Refusal,
    encode,
)
from sync_engine.names import parent_of
from tests.e2e.processes import Home
from tests.e2e.raw import Identity, connected, hello_from

AT_ONCE = 4
"""Connections of one flooder side by side."""

HEADS, PATHS = 20_000, 1_000


class Flooder:
    """One hostile child."""

    def __init__(self, home: Path, port: int, unit: str) -> None:
        self.home, self.port, self.unit = Home(home, unit), port, unit
        self.parent = str(parent_of(unit))
        self.who = Identity.at(self.home)
        self.keys = KeyStore.load(home)
        self.hello = hello_from(self.home, digest=b"\0" * 32)
        self.done = self.refused = 0
        engine = open_engine(self.home.database)
        with engine.connect() as connection:
            connection.execution_options(reads_only=True)
            rows = execute(
                connection, "SELECT data FROM _batch JOIN _stream s ON s.no = stream WHERE origin = ?", (unit,)
            )
            self.batches = [bytes(data) for data in rows.scalars()]
            path = path_of(connection, UnitPath(unit), self.keys.epoch)
        engine.dispose()
        assert path is not None
        self.path = path

    # --- what is said after the greeting, again and again ---

    def acks(self) -> Iterator[Frame]:
        while True:
            yield Ack((Head(StreamId(UnitPath("vn"), Epoch("0" * 16), Scope("vn/registry")), 1, b"\0" * 32),))

    def credit(self) -> Iterator[Frame]:
        while True:
            yield Credit(1)

    def certificates(self) -> Iterator[Frame]:
        while True:
            yield Certificates((self.path,) * PATHS)

    def forks(self) -> Iterator[Frame]:
        while True:
            yield ForkProof((b"header", b"signature"), (b"another", b"signature"))

    def known(self) -> Iterator[Frame]:
        while True:
            yield from map(BatchFrame, self.batches)

    def spoiled(self) -> Iterator[Frame]:
        while True:
            yield from (BatchFrame(each[:-1] + bytes([each[-1] ^ 1])) for each in self.batches)

    def refusals(self) -> Iterator[Frame]:
        head = Head(StreamId(UnitPath("vn"), Epoch("0" * 16), Scope("vn/registry")), 1, b"\0" * 32)
        while True:
            yield Refusal(head, "no")

    def endings(self) -> Iterator[Frame]:
        while True:
            yield Done()

    def unknown(self) -> Iterator[bytes]:
        while True:
            yield b"\xfa\x06\x04next"  # field 111, of a version to come

    # --- calls, again and again ---

    async def calls(self, channel: grpc.aio.Channel) -> None:
        call: Any = channel.stream_stream(EXCHANGE)(timeout=10)
        await call.write(encode(self.hello))
        call.cancel()

    async def new_connections(self, _channel: grpc.aio.Channel) -> None:
        """Ten connections a second of each: faster, and the flooder takes the processor that the test measures."""
        await asyncio.sleep(0.1)
        async with connected(self.port, self.parent, self.who) as channel:
            await self.calls(channel)

    async def silence(self, channel: grpc.aio.Channel) -> None:
        call: Any = channel.stream_stream(EXCHANGE)(timeout=10)
        await call.wait_for_connection()
        await call.read()

    async def heads(self, channel: grpc.aio.Channel) -> None:
        """Heads of streams that nobody has."""
        call: Any = channel.stream_stream(EXCHANGE)(timeout=10)
        made = (
            Head(StreamId(UnitPath(self.unit), Epoch(f"{n:016x}"), Scope(self.unit)), 1, b"\0" * 32)
            for n in range(HEADS)
        )
        await call.write(encode(self.hello))
        await call.write(encode(HeadsFrame(tuple(made))))
        while isinstance(await call.read(), bytes):
            pass

    async def enrols(self, channel: grpc.aio.Channel) -> None:
        await channel.unary_unary(ENROL)(b"", timeout=10)

    async def health(self, channel: grpc.aio.Channel) -> None:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)

    # --- running ---

    async def flood(self, way: str) -> None:
        work: Callable[..., Any] = getattr(self, way)
        if asyncio.iscoroutinefunction(work):
            await asyncio.gather(*(self._again(work) for _ in range(AT_ONCE)))
        else:
            await self._talk(work)

    async def _again(self, call: Callable[[grpc.aio.Channel], Awaitable[None]]) -> None:
        async with connected(self.port, self.parent, self.who) as channel:
            while True:
                try:
                    await call(channel)
                    self.done += 1
                except grpc.aio.AioRpcError:
                    self.refused += 1
                except asyncio.CancelledError:
                    if (task := asyncio.current_task()) is not None and task.cancelling():
                        raise

    async def _talk(self, words: Callable[[], Iterator[Frame | bytes]]) -> None:
        """One session after another, each as long as the parent lets it."""
        while True:
            async with connected(self.port, self.parent, self.who) as channel:
                call: Any = channel.stream_stream(EXCHANGE)()
                listening = asyncio.create_task(_listen(call))
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.write(encode(self.hello))
                    await call.write(encode(HeadsFrame(())))
                    for word in words():
                        await call.write(word if isinstance(word, bytes) else encode(word))
                        self.done += 1
                self.refused += 1
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)


async def _listen(call: Any) -> None:
    while isinstance(await call.read(), bytes):
        pass


async def main(home: Path, port: int, unit: str, way: str) -> None:
    flooder = Flooder(home, port, unit)
    began = time.monotonic()
    flood = asyncio.create_task(flooder.flood(way))
    print("flooding", flush=True)
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait({flood, over}, return_when=asyncio.FIRST_COMPLETED)
    flood.cancel()
    await asyncio.wait({flood}, timeout=5)
    if flood.done() and not flood.cancelled() and (error := flood.exception()) is not None:
        raise error
    print(f"{way}: {flooder.done} done, {flooder.refused} refused in {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
