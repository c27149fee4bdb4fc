"""A tree of whole nodes in this process that are restored, copied and lost: real homes, keys and files, the production
session, and the production answers to requests for certificates; only the line between them is a list.

``Family(folder)`` has a home for each unit of ``UNITS``; ``sync(name)`` is one call of a child to its parent.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from conflict.values import UnitPath
from node import config as configs
from node import renewal, setup
from node.carry_key import publish_key
from node.commands.proof import verify
from node.config import Config, Schedule
from node.local import Node
from node.session import Session
from node.storage.engine import execute, open_engine
from node.storage.setup import name_unit
from sync_engine.errors import Cloned, LinkFault
from sync_engine.frames import HeadsFrame, decode
from sync_engine.names import parent_of
from tests import pki
from tests.world import NEVER_BRAKES

SOON_S = 20.0
UNITS = ("vn", "hue.vn", "phu-vang.hue.vn", "a.phu-vang.hue.vn")
ENTER = "INSERT INTO member (unit, id, full_name, birth_date, sex, phone, note) VALUES (?, ?, ?, '1950', 'nam', ?, ?)"

TEMPLATE: list[Path] = []
"""Homes that were made before: copying them is faster than most tests."""


class Pipe:
    """One end of a link in memory."""

    def __init__(self, reads: asyncio.Queue[bytes | None], writes: asyncio.Queue[bytes | None]) -> None:
        self.reads, self.writes = reads, writes

    async def send(self, data: bytes) -> None:
        await self.writes.put(data)

    async def receive(self) -> bytes | None:
        return await self.reads.get()


class CutAfterHeads(Pipe):
    """The line is gone once the other end has named its heads."""

    is_cut = False

    async def receive(self) -> bytes | None:
        if self.is_cut:
            raise LinkFault("the line was cut")
        data = await super().receive()
        self.is_cut = data is not None and isinstance(decode(data), HeadsFrame)
        return data


@dataclass
class Family:
    """Open nodes by name: a unit's path, or another name for a copy of its home."""

    folder: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """Names of homes that the parent would not certify: copies."""
    ahead_ms: int = 0

    @classmethod
    async def made(cls, folder: Path) -> Self:
        if TEMPLATE:
            shutil.copytree(TEMPLATE[0], folder)
            family = cls(folder)
            for unit in UNITS:
                await family.open(unit)
            return family
        folder.mkdir(parents=True)  # noqa: ASYNC240 - nothing else runs meanwhile
        family = cls(folder)
        for unit in UNITS:
            await family._plant(unit)
        await family.rounds(2)
        await family.close()
        TEMPLATE.append(folder.with_name("template"))
        shutil.copytree(folder, TEMPLATE[0])
        for unit in UNITS:
            await family.open(unit)
        return family

    async def _plant(self, unit: str) -> None:
        home, above = self.home(unit), parent_of(unit)
        if above is None:
            registry = setup.read_registry(None)
            setup.init(home, unit, unit, registry, listen="", address="", schedule=Schedule())
        else:
            parent = self.nodes[above]
            self.sql(above, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", unit)
            await parent.database.write(name_unit, unit, unit)
            keys = pki.join(parent.keys, home, unit)
            await parent.database.write(_meet, parent, keys.node_path)
            setup.make_database(home, keys)
            configs.save(home, Config(UnitPath(unit), unit, "nowhere:1"))
        await self.open(unit)
        if above is not None:
            await self.sync(unit)

    def home(self, name: str) -> Path:
        return self.folder / name

    async def open(self, name: str) -> Node:
        """Start a node on its home."""
        node = self.nodes[name] = await Node.open(self.home(name))
        node.context.brake = NEVER_BRAKES
        node.context.now_ms = lambda: int(datetime.now(UTC).timestamp() * 1000) + self.ahead_ms
        return node

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.close()
        self.nodes.clear()

    # --- what happens to homes ---

    async def image(self, name: str, to: str) -> None:
        """An administrator's copy of a home."""
        await self.nodes[name].close()
        shutil.rmtree(self.home(to), ignore_errors=True)
        shutil.copytree(self.home(name), self.home(to))
        await self.open(name)

    async def restore(self, name: str, image: str) -> None:
        await self.nodes[name].close()
        shutil.rmtree(self.home(name))
        shutil.copytree(self.home(image), self.home(name))
        await self.open(name)

    async def lose(self, name: str) -> None:
        """The disk is gone. The parent's operator lets new hardware in."""
        node = self.nodes.pop(name)
        unit, parent = node.context.unit, self.nodes[str(parent_of(node.context.unit))]
        await node.close()
        shutil.rmtree(self.home(name))
        keys = pki.join(parent.keys, self.home(name), unit)
        await parent.database.write(_let_in, parent, keys.node_path)
        setup.make_database(self.home(name), keys)
        configs.save(self.home(name), Config(unit, unit, "nowhere:1"))
        await self.open(name)

    # --- what people do ---

    def sql(self, name: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """A local program: capture sees it."""
        engine = open_engine(self.home(name) / "dongbo.db")
        try:
            with engine.begin() as connection:
                result = execute(connection, statement, values)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()

    def enter(self, name: str, unit: str, key: str, full_name: str, phone: str = "", note: str = "") -> None:
        self.sql(name, ENTER, unit, key, full_name, phone, note)

    def edit(self, name: str, unit: str, key: str, **values: str) -> None:
        for column, value in values.items():
            self.sql(name, f"UPDATE member SET {column} = ? WHERE unit = ? AND id = ?", value, unit, key)

    # --- what nodes do ---

    async def sync(self, name: str, to: str | None = None, line: type[Pipe] = Pipe) -> None:
        """One call, which begins with the certificates that are due; over ``line`` as the child hears it."""
        child, parent = self.nodes[name], self.nodes[to or str(parent_of(self.nodes[name].context.unit))]
        await renewal.certify_root(parent, datetime.now(UTC))
        for node in (child, parent):
            await publish_key(node)
        await self._renew(name, parent)
        there, back = asyncio.Queue[bytes | None](), asyncio.Queue[bytes | None]()
        unit = child.context.unit
        down = Session(child, line(back, there), child=unit, peer=parent.context.unit, progress=lambda _: None)
        up = Session(parent, Pipe(there, back), child=unit, peer=unit, progress=lambda _: None)
        serving = asyncio.create_task(up.run())
        try:
            await asyncio.wait_for(down.run(), SOON_S)
        finally:
            there.put_nowait(None)
            await asyncio.wait([serving], timeout=SOON_S)
            parents_fault = serving.exception()
        if parents_fault is not None:
            raise parents_fault

    async def _renew(self, name: str, parent: Node) -> None:
        node = self.nodes[name]
        if not renewal.is_due(node, datetime.now(UTC)):
            return
        request = await renewal.request_of(node)
        try:
            await renewal.install(node, request, await renewal.answer(parent, node.keys.certified, request))
        except Cloned:
            self.refused.append(name)

    async def rounds(self, count: int) -> None:
        """Everybody calls, deepest first."""
        for _ in range(count):
            for name in sorted(self.nodes, key=lambda each: -self.nodes[each].context.unit.count(".")):
                if parent_of(self.nodes[name].context.unit) is not None:
                    await self.sync(name)

    async def digests(self, scope: str) -> dict[str, tuple[int, str, tuple[str, ...]]]:
        """By node that holds a scope: rows, digest, and the applied heads of streams that all of them must have."""
        found = {}
        for name, node in self.nodes.items():
            digest = await node.digest(scope)
            heads = self.sql(
                name,
                "SELECT origin, epoch, held_seq, applied_seq, hex(applied_hash) FROM _stream"
                " WHERE scope = ? AND held_seq > 0 ORDER BY origin, epoch",
                scope,
            )
            if digest is not None and heads:
                found[name] = (digest.rows, digest.digest.hex(), tuple(map(str, heads)))
        return found

    def frozen(self) -> list[tuple[Any, ...]]:
        return [
            (name, *row)
            for name in self.nodes
            for row in self.sql(name, "SELECT origin, scope, state, reason FROM _stream WHERE state <> 'open'")
        ]


def _meet(connection: Any, parent: Node, path: tuple[bytes, ...]) -> None:
    certified = renewal.verify_node_path(path, parent.keys.tree_id)
    renewal.meet(connection, parent.context, parent.keys, certified)


def _let_in(connection: Any, parent: Node, path: tuple[bytes, ...]) -> None:
    certified = renewal.keep_path(connection, path, parent.keys.tree_id)
    renewal.name_child(connection, parent.context, parent.keys, certified.unit, renewal.epoch_of(certified))


async def assert_equal(family: Family, *scopes: str) -> None:
    for scope in scopes:
        digests = await family.digests(scope)
        assert len(set(digests.values())) == 1, digests
    assert family.frozen() == []


async def assert_proven(family: Family) -> None:
    """Stored batches, registers and tables say the same, at everybody."""
    for name, node in family.nodes.items():
        told = await verify(node, {}, lambda _progress: None)
        assert told["ok"], (name, told)
