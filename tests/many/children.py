"""A process that is many units at once: real homes, real keys, real files and real TLS, and one event loop for all.

Role: join, write members, call the parent at one moment, say what is held, as orders on standard input ask; one JSON
line for each order, one for each answer.
Reach: node. Invariant: a call that fails is counted with its words and made again; what nobody foresaw is told by name.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import grpc.aio
import sqlcipher3.dbapi2

from node import invitation as invitations
from node import logs, setup
from node.config import Schedule
from node.demo.members import members
from node.local import Node
from node.parent_link import sync_with_parent
from node.storage.report import scope_report
from node.transport import EXCHANGE, channel_to
from sync_engine.errors import ReplicationError
from sync_engine.names import parent_of
from tests.e2e.writing import INSERT

TRIES = 8
RETRY_S = (0.5, 1.5)
JOIN_AT_ONCE = 8
NEVER = Schedule(every_s=0, on_change=False)


@dataclass
class Call:
    """What became of one unit's call: seconds from the common start to its end, retries included."""

    unit: str
    seconds: float = 0.0
    ok: bool = False
    faults: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    sent_batches: int = 0
    received_batches: int = 0
    refused: list[str] = field(default_factory=list)


class Children:
    """The units of one process."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._rng = folder, Random(seed)
        self._nodes: dict[str, Node] = {}
        self._hanging: list[grpc.aio.Channel] = []

    async def obey(self, order: Mapping[str, Any]) -> Any:
        match order["do"]:
            case "join":
                return await self._join(order["tokens"])
            case "write":
                return [self._write(unit, count, order["seed"]) for unit, count in order["rows"].items()]
            case "call":
                calls = [self._call(self._nodes[unit], order["at"]) for unit in order.get("units", self._nodes)]
                return [asdict(each) for each in await asyncio.gather(*calls)]
            case "digests":
                return {unit: await self._digest(self._nodes[unit]) for unit in order["units"]}
            case "count":
                return {unit: self._count(unit, order["where"]) for unit in self._nodes}
            case "hang":
                await asyncio.gather(*(self._hang(self._nodes[unit]) for unit in order["units"]))
                return len(self._hanging)
            case "hang up":
                await asyncio.gather(*(channel.close() for channel in self._hanging))
                return self._hanging.clear()
        raise ValueError(order["do"])

    async def close(self) -> None:
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    async def _join(self, tokens: list[str]) -> list[str]:
        turns = asyncio.Semaphore(JOIN_AT_ONCE)

        async def one(token: str) -> None:
            invitation = invitations.decode(token)
            home = self._folder / invitation.unit
            async with turns:
                await setup.join(home, invitation, listen="", schedule=NEVER)
                self._nodes[invitation.unit] = await Node.open(home)

        await asyncio.gather(*map(one, tokens))
        return list(self._nodes)

    async def _digest(self, node: Node) -> Any:
        """What a unit says of its own scope."""
        digest = await node.digest(node.config.unit)
        assert digest is not None
        return await node.database.read(scope_report, digest)

    async def _hang(self, node: Node) -> None:
        """Call, prove who calls, and say nothing, as behind a line that broke at that moment."""
        keys, parent = node.keys, parent_of(node.config.unit)
        assert parent is not None
        channel = channel_to(
            node.config.parent_address,
            parent,
            key=keys.tls_key_pem,
            chain=keys.tls_chain_pem,
            root=keys.tls_root_pem,
        )
        await channel.channel_ready()
        call: Any = channel.stream_stream(EXCHANGE)()
        await call.wait_for_connection()
        self._hanging.append(channel)

    def _write(self, unit: str, count: int, seed: int) -> int:
        """What a program at that unit does, which knows nothing of us."""
        made = members(count, seed=crc32(f"{seed} {unit}".encode()), communes=("Phú Mỹ", "Vinh An"), random_ids=True)
        self._sql(unit, lambda file: file.executemany(INSERT, [(unit, *row) for row in made]))
        return count

    def _count(self, unit: str, where: str) -> int:
        sql = f"SELECT count(*) FROM member WHERE {where}"
        return int(self._sql(unit, lambda file: file.execute(sql).fetchone())[0])

    def _sql(self, unit: str, work: Any) -> Any:
        file = sqlcipher3.dbapi2.connect(str(self._nodes[unit].database.path), timeout=10)
        try:
            with file:
                return work(file)
        finally:
            file.close()

    async def _call(self, node: Node, at: float) -> Call:
        """Call until a call ends well; each fault is kept."""
        call = Call(node.config.unit)
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        while not call.ok and len(call.faults) + len(call.broken) < TRIES:
            try:
                summary = await sync_with_parent(node)
            except ReplicationError as fault:
                call.faults.append(f"{fault.code}: {fault}")
                await asyncio.sleep(self._rng.uniform(*RETRY_S))
            except Exception as error:
                call.broken.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(self._rng.uniform(*RETRY_S))
            else:
                call.ok = True
                call.sent_batches, call.received_batches = summary.sent_batches, summary.received_batches
                call.refused = summary.refused
        call.seconds = time.monotonic() - at
        return call


async def main(folder: Path, seed: int) -> None:
    """Orders until standard input ends."""
    children = Children(folder, seed)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await children.obey(json.loads(line))), flush=True)
    finally:
        await children.close()


if __name__ == "__main__":
    logs.configure(quiet=False)
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
