"""A tree of whole nodes in this process that are restored, copied and lost: real files, the production session.

``Family(folder, unit, ...)`` has a home for each unit and its ancestors; ``sync(child)`` is one call of a child to its
parent, certification of a new life included, which the test's own CA gives.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from conflict.values import Epoch, UnitPath
from node import authority
from node import keys as key_files
from node.database import Database
from node.local import Node
from node.session import Session
from node.storage.certificates import keep_path
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.lives import is_begun
from sync_engine.certificates import issuers_of
from sync_engine.names import parent_of
from tests.world import NEVER_BRAKES, World

SOON_S = 20.0
ENTER = "INSERT INTO member (unit, id, full_name, birth_date, sex, phone, note) VALUES (?, ?, ?, '1950', 'nam', ?, ?)"


class Pipe:
    """One end of a link in memory."""

    def __init__(self, reads: asyncio.Queue[bytes | None], writes: asyncio.Queue[bytes | None]) -> None:
        self.reads, self.writes = reads, writes

    async def send(self, data: bytes) -> None:
        await self.writes.put(data)

    async def receive(self) -> bytes | None:
        return await self.reads.get()


@dataclass
class Family:
    """Homes by name: a unit's path, or another name for a copy of its home."""

    folder: Path
    units: tuple[str, ...]
    nodes: dict[str, Node] = field(default_factory=dict)
    certified: dict[tuple[str, str], str] = field(default_factory=dict)
    """(unit, epoch that was left) -> its one successor."""

    def __post_init__(self) -> None:
        (self.folder / "made").mkdir(parents=True)
        self.world = World(self.folder / "made")
        for unit in self.units:
            self.world.node(unit)
        self.world.settle(3)
        for unit, made in self.world.nodes.items():
            made.engine.dispose()
            home = self.home(unit)
            home.mkdir()
            shutil.copy(made.path, home / "dongbo.db")
            self.open(unit, unit)

    def home(self, name: str) -> Path:
        return self.folder / name

    def open(self, name: str, unit: str) -> Node:
        """Start a node on its home: the life that waits there is the one that seals."""
        made = self.world.tree.node(unit)
        context = Context(
            unit=UnitPath(unit),
            epoch=made.epoch,
            tree_id=self.world.tree.tree_id,
            sign=made.signer,
            salt=lambda: self.world.rng.randbytes(16),
            now_ms=lambda: self.world.now,
            brake=NEVER_BRAKES,
        )
        keys = cast(Any, SimpleNamespace(certified=SimpleNamespace(sha256=b"")))
        node = Node(self.home(name), cast(Any, None), keys, context, Database(self.home(name) / "dongbo.db"))
        waiting = key_files.pending(self.home(name))
        if waiting is not None:
            context.epoch, context.sign = waiting.epoch, waiting.signer()
        self.nodes[name] = node
        return node

    # --- what happens to homes ---

    async def image(self, name: str, to: str) -> None:
        """An administrator's copy of a home."""
        unit = self.nodes[name].context.unit
        await self.nodes[name].close()
        shutil.rmtree(self.home(to), ignore_errors=True)
        shutil.copytree(self.home(name), self.home(to))
        self.open(name, unit)

    async def restore(self, name: str, image: str) -> None:
        unit = self.nodes[name].context.unit
        await self.nodes[name].close()
        shutil.rmtree(self.home(name))
        shutil.copytree(self.home(image), self.home(name))
        self.open(name, unit)

    async def lose(self, name: str) -> None:
        """The disk is gone: a new home, which knows who it is and nothing else."""
        unit = self.nodes[name].context.unit
        await self.nodes[name].close()
        shutil.rmtree(self.home(name))
        self.home(name).mkdir()
        again = World(self.folder / f"empty-{len(list(self.folder.iterdir()))}")
        again.folder.mkdir()
        again.tree = self.world.tree
        blank = again._open(unit)
        with blank.write() as connection:
            from node.storage.setup import open_database

            open_database(connection, blank.context)
        blank.engine.dispose()
        shutil.copy(blank.path, self.home(name) / "dongbo.db")
        node = self.open(name, unit)
        await node.begin_life(node.context.epoch)

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.close()

    # --- what people do ---

    def sql(self, name: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """A local program: capture sees it."""
        from node.storage.engine import open_engine

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
            self.world.now += 1000
            self.sql(name, f"UPDATE member SET {column} = ? WHERE unit = ? AND id = ?", value, unit, key)

    # --- what nodes do ---

    async def sync(self, name: str, to: str | None = None) -> None:
        """One call; a life that the parent has not certified is certified first, once for each that was left."""
        child, parent = self.nodes[name], self.nodes[to or str(parent_of(self.nodes[name].context.unit))]
        self.world.now += 60_000
        await self.certify(name)
        if parent_of(parent.context.unit) is None:
            await self.certify(parent.home.name)
        there, back = asyncio.Queue[bytes | None](), asyncio.Queue[bytes | None]()
        unit = child.context.unit
        down = Session(child, Pipe(back, there), child=unit, peer=parent.context.unit, progress=lambda _: None)
        up = Session(parent, Pipe(there, back), child=unit, peer=unit, progress=lambda _: None)
        serving = asyncio.create_task(up.run())
        try:
            await asyncio.wait_for(down.run(), SOON_S)
        finally:
            there.put_nowait(None)
            await asyncio.wait([serving], timeout=SOON_S)
        serving.result()

    async def certify(self, name: str) -> bool:
        """What ``Renew`` does, without its line and without its statement."""
        node, waiting = self.nodes[name], key_files.pending(self.home(name))
        if waiting is None or not await node.database.read(is_begun, waiting.epoch):
            return False
        unit = node.context.unit
        left = (unit, await self._left(node))
        if self.certified.setdefault(left, waiting.epoch) != waiting.epoch:
            return False
        key, certificate = self.world.tree.ca(issuers_of(unit)[0])
        leaf = authority.issue_node(key, certificate, unit, waiting.epoch, waiting.key.public_key(), datetime.now(UTC))
        path = (authority.der_of(leaf), *self.world.tree.ca_path(issuers_of(unit)[0]))
        above = parent_of(unit)
        for each in (name, *(() if above is None else (str(above),))):
            await self.nodes[each].database.write(keep_path, path, self.world.tree.tree_id)
        return True

    async def _left(self, node: Node) -> Epoch:
        def newest(connection: Any) -> str:
            sql = "SELECT epoch FROM _certificate WHERE unit = ? AND epoch <> ? ORDER BY rowid DESC LIMIT 1"
            found = execute(
                connection, sql.replace("ORDER BY rowid DESC ", ""), (node.context.unit, node.context.epoch)
            )
            return str(found.scalar())

        return Epoch(await node.database.read(newest))

    async def rounds(self, count: int) -> None:
        """Everybody calls, deepest first."""
        for _ in range(count):
            for name in sorted(self.nodes, key=lambda each: -self.nodes[each].context.unit.count(".")):
                if parent_of(self.nodes[name].context.unit) is not None:
                    await self.sync(name)

    async def digests(self, scope: str) -> dict[str, tuple[int, str, tuple[str, ...]]]:
        """By node that holds a scope: rows, digest, and the applied heads."""
        found = {}
        for name, node in self.nodes.items():
            digest = await node.digest(scope)
            heads = self.sql(
                name,
                "SELECT epoch, applied_seq, hex(applied_hash) FROM _stream"
                " WHERE scope = ? AND applied_seq > 0 AND applied_seq = held_seq ORDER BY 1",
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


__all__ = ["Family", "sqlite3"]
