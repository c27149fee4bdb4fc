"""Older and newer nodes on one link, and what a session costs when nothing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from dongbo.v1 import sync_pb2

from conflict.values import UnitPath
from node.keys import KeyStore
from node.link import StreamLink
from node.local import Node
from node.session import Session
from node.storage.streams import held_heads
from node.summary import Summary
from node.transport import EXCHANGE, bind, handlers, server_credentials
from sync_engine.frames import MAJOR, MINOR, Hello, decode, encode
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, free_port
from tests.e2e.raw import Identity, Refusal, connected, exchange, hello_from
from tests.e2e.writing import write_members

UNKNOWN_FIELD = b"\xfa\x3e\x03new"  # field 1007, bytes
UNKNOWN_FRAME = b"\xa2\x06\x05later"  # field 100 of Frame, bytes


class TestLink:
    """The link of a session that runs here: counts what passes; ``rewrite`` changes what this side says."""

    __test__ = False

    def __init__(self, link: StreamLink, rewrite: Any = lambda data: [data]) -> None:
        self._link, self._rewrite = link, rewrite
        self.out: list[int] = []
        self.back: list[int] = []

    async def send(self, data: bytes) -> None:
        for each in self._rewrite(data):
            self.out.append(len(each))
            await self._link.send(each)

    async def receive(self) -> bytes | None:
        data = await self._link.receive()
        if data is not None:
            self.back.append(len(data))
        return data


async def session(child: Home, parent: Home, rewrite: Any = lambda data: [data]) -> tuple[Summary, TestLink]:
    """One session of a child whose node runs in this process, with its parent's service."""
    node = await Node.open(child.path)
    try:
        async with connected(parent.port, parent.unit, Identity.at(child)) as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(EXCHANGE)(timeout=30)
            raw = StreamLink(call.read, call.write)
            link = TestLink(raw, rewrite)
            unit = UnitPath(child.unit)
            try:
                summary = await Session(
                    node, link, child=unit, peer=UnitPath(parent.unit), progress=lambda _: None
                ).run()
                await call.done_writing()
                while await link.receive() is not None:
                    pass
            finally:
                raw.close()
    finally:
        await node.close()
    return summary, link


# --- versions --------------------------------------------------------------------------------------------------------


def as_newer(data: bytes) -> list[bytes]:
    """The same frame as a newer minor version would say it: a number, fields and frames that we do not know."""
    wire = sync_pb2.Frame.FromString(data)
    match wire.WhichOneof("kind"):
        case "hello":
            wire.hello.minor = MINOR + 7
            wire.hello.MergeFromString(UNKNOWN_FIELD)
            return [wire.SerializeToString()]
        case "heads" | "ack":
            getattr(wire, str(wire.WhichOneof("kind"))).scopes[0].MergeFromString(UNKNOWN_FIELD)
    return [UNKNOWN_FRAME, wire.SerializeToString() + UNKNOWN_FRAME]


async def test_a_child_of_a_newer_minor_version_and_all_that_it_adds_are_understood(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    write_members(district, 30, seed=8)
    province.start()
    summary, _link = await session(district, province, as_newer)
    assert (summary.sent_batches, summary.refused) == (1, [])
    assert province.sql("SELECT count(*) FROM member WHERE unit = ?", DISTRICT) == [(30,)]
    assert "session failed" not in province.log


async def test_a_child_of_another_major_version_is_refused_with_both_numbers(shared: Cluster) -> None:
    hello = hello_from(shared[DISTRICT], major=MAJOR + 1, minor=4)
    async with exchange(shared[PROVINCE].port, PROVINCE, Identity.at(shared[DISTRICT])) as line:
        with pytest.raises(Refusal) as caught:
            await line.talk(hello)
    fault = caught.value.fault
    assert fault.code == "IncompatibleVersion"
    assert f"{MAJOR + 1}.4" in str(fault)
    assert f"{MAJOR}.{MINOR}" in str(fault)
    assert "upgrade" in fault.hint
    (child,) = [each for each in shared[PROVINCE].json("status")["children"] if each["unit"] == DISTRICT]
    assert child["state"] == "failing"
    assert f"{MAJOR + 1}.4" in child["last_error"]
    shared[DISTRICT].sync()


@asynccontextmanager
async def parent_of_the_future(home: Home) -> AsyncIterator[int]:
    """A parent with the real one's keys that speaks the next major version; gives its port."""
    said = encode(replace(hello_from(home), major=MAJOR + 1, minor=4))

    async def answer(_requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.read()
        await context.write(said)
        await context.read()

    keys = KeyStore.load(home.path)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([handlers([("Exchange", grpc.stream_stream_rpc_method_handler(answer))])])
    credentials = server_credentials(key=keys.tls_key_pem, chain=keys.tls_chain_pem, root=keys.tls_root_pem)
    port = bind(server, f"127.0.0.1:{free_port()}", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def test_a_parent_of_another_major_version_is_named_to_the_operator_with_both_numbers(line: Cluster) -> None:
    district = line[DISTRICT]
    ids = write_members(district, 3, seed=8)
    async with parent_of_the_future(line[PROVINCE]) as port:
        district.configure(parent_address=f'"127.0.0.1:{port}"')
        answer = await asyncio.to_thread(district.dongbo, "sync", "--json", code=1)
    assert answer.document["ok"] is False
    assert f"{MAJOR + 1}.4" in answer.complaint
    assert f"{MAJOR}.{MINOR}" in answer.complaint
    assert "upgrade the older" in answer.err
    assert district.sql("SELECT count(*) FROM member") == [(len(ids),)]
    status = await asyncio.to_thread(district.json, "status")
    assert status["parent"]["state"] == "failing"
    assert f"{MAJOR + 1}.4" in status["parent"]["last_error"]


# --- nothing to say --------------------------------------------------------------------------------------------------

DISTRICTS = 12


async def test_equal_nodes_part_after_one_round_trip_and_under_1_kb_at_16_scopes(line: Cluster) -> None:
    province, centre = line[PROVINCE], line[CENTRE]
    line.start(CENTRE, PROVINCE)
    for number in range(DISTRICTS - 2):
        province.json("invite", f"huyen-{number}", "--name", f"Huyện {number}")
    province.sql(
        "INSERT INTO catalog (unit, id, kind, code, label) VALUES (?, 'a', 'profession', 'tho-theu', 'Thợ thêu')",
        PROVINCE,
    )
    province.sync()
    province.stop()

    summary, link = await session(province, centre)

    assert scopes_shared(province) == 16
    assert (summary.sent_batches, summary.received_batches) == (0, 0)
    assert len(link.out) == 1, "one hello, and nothing more"
    assert len(link.back) == 2, "a hello, and at once the word that all is done"
    assert sum(link.out) + sum(link.back) < 1024
    print(f"\n16 scopes, nothing new: {sum(link.out)} bytes out, {sum(link.back)} back")


def scopes_shared(home: Home) -> int:
    from node.storage.engine import open_engine

    engine = open_engine(home.database)
    with engine.connect() as connection:
        scopes = {stream.scope for stream in held_heads(connection, home.unit)}
    engine.dispose()
    return len(scopes)


def test_what_as_newer_makes_is_really_unknown_here() -> None:
    assert decode(UNKNOWN_FRAME) is None
    (data,) = as_newer(encode(Hello(UnitPath("vn"), "00" * 8, b"", b"", (0, b""), 0, b"", b"", "")))  # type: ignore[arg-type]
    assert UNKNOWN_FIELD in data
