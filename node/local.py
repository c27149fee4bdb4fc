"""One node, open for work: its home, its identity, its database.

Role: what commands and the service share; the verbs seal and take, each in transactions of its own.
Reach: node.storage, node.keys, node.config.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

import structlog
from sqlalchemy import Connection

from conflict.values import Epoch
from node import at_rest, secret
from node import config as configs
from node import keys as key_files
from node.caps import Caps
from node.config import Config
from node.database import Database
from node.keys import KeyStore, Pending
from node.restoring import RESTORED
from node.storage.apply import Applied
from node.storage.audit import note_restored
from node.storage.certificates import followers_of, keep_path, mark_mine
from node.storage.context import BrakeRule, Context
from node.storage.digests import PendingFirst, RowsUnreadable, ScopeDigest, digest_scope, remember
from node.storage.inbox import Outcome, SealFirst, Taken, apply_waiting, next_ready, refuse, take, take_proof
from node.storage.journal import prune
from node.storage.lives import begin_life, is_begun, settle_down
from node.storage.meta import get_meta
from node.storage.proving import Verified, verify
from node.storage.registries import is_due
from node.storage.sealing import seal_next
from node.storage.setup import open_database
from node.timetable import NextCall
from sync_engine.chunks import SALT_BYTES
from sync_engine.errors import RuleBroken
from sync_engine.frames import ForkProof
from sync_engine.names import CATALOG

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")

DIGEST_TRIES = 5


def now_ms() -> int:
    """Wall time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def context_of(keys: KeyStore) -> Context:
    """This node's identity with real chance and time."""
    return Context(
        unit=keys.unit,
        epoch=keys.epoch,
        tree_id=keys.tree_id,
        sign=keys.signer(),
        salt=lambda: secrets.token_bytes(SALT_BYTES),
        now_ms=now_ms,
    )


def database_path(home: Path) -> Path:
    return home / secret.DATABASE


@dataclass
class Node:
    """A home that has been set up. Made with ``open``; whoever opens it holds the home's lock. A service's scheduler
    keeps ``next_call`` and is told by ``on_in_step`` of each session with the parent that ended well, in seconds."""

    home: Path
    config: Config
    keys: KeyStore
    context: Context
    database: Database
    next_call: NextCall | None = None
    renewal_asked: datetime | None = None
    renewal_waits: str = ""
    told_digests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """By neighbour and scope: what the digest was computed from that was told last."""
    on_in_step: Callable[[float], None] = field(default=lambda _seconds: None)
    caps: Caps = field(default_factory=Caps)
    _changing_life: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    async def open(cls, home: Path) -> Self:
        """Raises NotSetUp, BadConfig or KeyFault."""
        config = configs.load(home)
        await asyncio.to_thread(at_rest.settle, home)
        keys = KeyStore.load(home, config.ca_key_file)
        database = Database(database_path(home), secret.vault(home).database_key)
        node = cls(home, config, keys, context_of(keys), database)
        node.context.registry_by_hand = config.registry == configs.BY_HAND
        node.context.brake = BrakeRule(config.brake_percent / 100, config.brake_rows)
        node.context.journal_days, node.context.overwritten_hours = config.journal_days, config.overwritten_hours
        node.context.heartbeat_hours, node.context.withheld_hours = config.heartbeat_hours, config.withheld_hours
        await node.database.write(_start, node.context, keys.node_path)
        waiting = key_files.pending(home)
        if waiting is not None and await node.database.read(is_begun, waiting.epoch):
            node.context.proven = node.context.speaks_as
            node.context.epoch, node.context.sign = waiting.epoch, waiting.signer()
            await node.seal()  # what a crash has left of what was pending then
            await node.database.write(settle_down)
        elif waiting is not None:
            await node._live(waiting, again=True)  # a crash came between the key and the first batch
        await node._after_restore()
        if await node.database.read(is_due, node.context):
            await node.apply_ready()  # this software, or the operator, is ready for what waited
        return node

    async def _after_restore(self) -> None:
        """A database out of a backup: its history may have gone on without it, so a new life begins, and nothing is
        sealed in the old one. The mark goes last; a life begun twice is only one more epoch. One that waits for its
        certificate is not left: nobody could prove then what it has sealed."""
        if await self.database.read(get_meta, RESTORED) is not None:
            if self.context.proven is None:
                await self.begin_life(self.context.epoch)
            await self.database.write(note_restored, self.context, RESTORED)

    async def close(self) -> None:
        await self.database.close()

    async def seal(self) -> int:
        """Seal everything pending, one batch a transaction; returns in how many steps."""
        count = 0
        while await self.seal_next():
            count += 1
        return count

    async def seal_next(self) -> bool:
        """Seal one batch; False when nothing was pending."""
        sealed = await self.database.write_late(seal_next, self.context)
        if sealed is not None and sealed.head is not None:
            scope = sealed.head.stream.scope
            if sealed.braked:
                log.warning("brake pulled", scope=scope, seq=sealed.head.seq, hint="'dongbo status' says what to do")
            if scope.endswith(CATALOG):
                await self.apply_ready()  # values may have waited for a code that was entered here
        return sealed is not None

    async def digest(self, scope: str) -> ScopeDigest | None:
        """A scope's digests, kept for the next time; None when its edits cannot be sealed, or its rows not be read."""
        for _ in range(DIGEST_TRIES):
            try:
                digest = await self.database.read(digest_scope, self.context, scope)
            except PendingFirst:
                await self.seal()
                continue
            except RowsUnreadable:
                log.error("rows cannot be read", scope=scope, hint="'dongbo verify' says which")
                return None
            await self.database.write(remember, self.context, digest)
            return digest
        return None

    async def verify(self, data: bytes, peer: str = "") -> Verified:
        """Prove a batch that ``peer`` has sent. Raises a RemoteFault."""
        return await self.database.read(verify, self.context, data, peer)

    async def take(self, verified: Verified) -> Outcome:
        """Store a batch, and apply it if its causes are here. One of this node's own life that it does not know tells
        that it has lost history: it begins a new life first."""
        outcome = await self.rewrite(take, verified)
        while outcome.taken in (Taken.OWN, Taken.BRANCH):
            await self.begin_life(self.context.epoch, again=outcome.taken is Taken.OWN)
            outcome = await self.rewrite(take, verified)
        return outcome

    async def take_proof(self, proof: ForkProof) -> None:
        """Keep the proof of a fork; one about this node may begin a new life, as a batch does. Raises a RemoteFault."""
        while (taken := await self.database.write(take_proof, self.context, proof)) in (Taken.OWN, Taken.BRANCH):
            await self.begin_life(self.context.epoch, again=taken is Taken.OWN)

    async def begin_life(self, left: Epoch, *, again: bool = True) -> None:
        """Leave the epoch ``left``, unless that has been done: a new epoch and a new key, under which everything
        pending is sealed before any lost history is taken. The connection's certificate stays until the parent has
        certified the new key. ``again``: a life that this database does not remember may have sealed the same."""
        async with self._changing_life:
            if self.context.epoch != left:
                return
            if not again:
                await self.seal()
            life = key_files.request(self.home, self.context.unit, with_ca=False, fresh=True)
            await self._live(life, again=again)

    async def notice_successor(self) -> None:
        """The key in use has handed over to one that this database does not know: its home is an old image of one that
        has gone on, or a copy. A new life begins, for the parent to certify or to refuse."""
        epoch = self.context.epoch
        successors = await self.database.read(followers_of, self.context.unit, epoch)
        if successors and self.context.proven is None:
            await self.begin_life(epoch)

    async def _live(self, life: Pending, *, again: bool) -> None:
        log.warning("a new life begins", epoch=life.epoch, hint="what was lost comes back from parent and children")
        await self.database.write(begin_life, self.context, life.epoch, life.signer(), again=again)
        await self.seal()
        await self.database.write(settle_down)

    async def rewrite(
        self, work: Callable[Concatenate[Connection, Context, P], R], *args: P.args, **more: P.kwargs
    ) -> R:
        """Run ``work(connection, context, ...)``, which rewrites a table and says SealFirst while too much is pending
        to be sealed in passing."""
        while True:
            try:
                return await self.database.write(work, self.context, *args, **more)
            except SealFirst:
                await self.seal()

    async def apply_ready(self) -> Applied:
        """Apply held batches that wait no longer, one a transaction."""
        total = Applied()
        while (stream := await self.database.read(next_ready, self.context)) is not None:
            try:
                applied = await self.database.write(apply_waiting, self.context, stream)
            except SealFirst:
                await self.seal()
                continue
            except RuleBroken as fault:
                await self.database.write(refuse, fault)
                continue
            total.rows += applied.rows
            total.conflicts += applied.conflicts
        return total


def _start(connection: Connection, context: Context, path: tuple[bytes, ...]) -> None:
    open_database(connection, context)
    prune(connection, context)
    mark_mine(connection, keep_path(connection, path, context.tree_id))
