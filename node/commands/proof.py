"""``dongbo verify``: proves every stored batch, that the streams are unbroken chains, that tables and registers say
what the batches say, and that the database is sound; ``--repair`` mends what can be mended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import structlog
from sqlalchemy import Connection

from conflict.values import Head
from node.commands import Progress
from node.commands.exchange import sync
from node.commands.rows import KeptFile, RowCheck
from node.local import Node
from node.storage.alarms import agrees_with, alarms
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.damaged import forget, note, waits_for
from node.storage.digests import forget as forget_digest
from node.storage.engine import execute
from node.storage.health import OF_AN_INDEX, capture_faults, file_faults, put_right, rebuild_indexes
from node.storage.lost import check_complete
from node.storage.proving import decoded
from node.storage.registries import registry_for
from node.storage.replay import sweep
from node.storage.report import scopes_held
from node.storage.streams import stream_named
from sync_engine.batch import NO_PREV, SealedBatch, parse_batch
from sync_engine.certificates import Certified, verify_node_path
from sync_engine.errors import BadCertificate, BadSignature, RemoteFault, ReplicationError
from sync_engine.names import parent_of
from sync_engine.verify import check_admissible, check_origin

log = structlog.get_logger()

BATCHES_AT_ONCE = 8

_turns: dict[int, asyncio.Lock] = {}


async def verify(node: Node, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The keys of ``verify --json``. Without ``repair`` nothing is changed but the note of which batches are damaged:
    they are asked for in the next session."""
    async with _turns.setdefault(id(node), asyncio.Lock()):
        sweep(node.home)
        await node.seal()  # what is pending is an edit: it becomes a batch before anything is compared
        await node.apply_ready()
        if not arguments.get("repair"):
            return await _examine(node, progress, None)
        mended = await _mend(node, progress)
        answer = await _examine(node, progress, None)
        return {**answer, "repaired": mended}


async def _examine(node: Node, progress: Progress, keep: KeptFile | None) -> dict[str, Any]:
    faults = await node.database.read(file_faults)
    capture = await node.database.read(capture_faults, node.context)
    proof = await _prove(node, progress)
    check = RowCheck(node, progress, keep)
    await check.run()
    scopes = []
    for scope in await node.database.read(scopes_held, node.context):
        await node.database.write(forget_digest, scope)  # of what is there, not of what was
        digest = await node.digest(scope)
        if digest is None:
            continue
        same = await node.database.read(_matches_parent, node.context, scope)
        scopes.append({"scope": scope, "rows": digest.rows, "digest": digest.digest.hex(), "matches_parent": same})
    waiting = await node.database.read(waits_for, node.context)
    differing = [asdict(each) for each in await node.database.read(alarms, node.context)]
    return {
        "ok": not (proof.bad or faults or capture or check.found or check.unproven or differing),
        "batches": proof.batches,
        "withheld": proof.withheld,
        "bad": proof.bad,
        "compared": check.rows,
        "rows": check.found,
        "unproven": check.unproven,
        "capture": [{"table": each.table, "what": each.what} for each in capture],
        "database": faults,
        "wanted": [{**_told(each.head), "from": list(each.peers)} for each in waiting],
        "alarms": differing,
        "scopes": scopes,
    }


def _matches_parent(connection: Connection, context: Context, scope: str) -> bool | None:
    parent = parent_of(context.unit)
    return None if parent is None else agrees_with(connection, context, parent, scope)


def _told(head: Head) -> dict[str, Any]:
    stream = head.stream
    return {"origin": stream.origin, "epoch": stream.epoch, "scope": stream.scope, "seq": head.seq}


async def _mend(node: Node, progress: Progress) -> dict[str, Any]:
    """Mend in the order in which one thing rests on another: the file, the triggers, the batches, the rows."""
    faults = await node.database.read(file_faults)
    if faults and all(OF_AN_INDEX.search(each) for each in faults):
        await node.database.write(rebuild_indexes)
    capture = await node.database.read(capture_faults, node.context)
    if capture:
        await node.database.write(put_right, node.context)
    mended, failed = await _fetch(node, progress)
    keep = KeptFile(node.home)
    check = RowCheck(node, progress, keep)
    await check.run()
    if capture or check.found:
        log.warning("repaired", rows=keep.rows, tables=len({each.table for each in capture}))
    return {
        "rows": keep.rows,
        "tables": check.found,
        "kept_in": str(keep.path) if keep.rows else None,
        "capture": sorted({each.table for each in capture}),
        "batches": [_told(each) for each in mended],
        "parent_error": failed,
    }


async def _fetch(node: Node, progress: Progress) -> tuple[list[Head], str | None]:
    """Ask the parent for what is damaged; children are asked when they call. Returns what came, and why no more did.
    Of several batches that are gone in a row, each tells of the one before it once it is here again."""
    mended: list[Head] = []
    while True:
        await _prove(node, progress)
        asked = {each.head for each in await node.database.read(waits_for, node.context)}
        if not asked or parent_of(node.context.unit) is None:
            return mended, None
        try:
            failed = (await sync(node, {}, lambda _progress: None))["error"]
        except ReplicationError as fault:
            return mended, str(fault)
        await node.apply_ready()
        came = asked - {each.head for each in await node.database.read(waits_for, node.context)}
        mended += sorted(came)
        if not came:
            return mended, failed


async def _prove(node: Node, progress: Progress) -> _Proof:
    """Prove all batches, and note which are damaged and which are whole (again)."""
    proof = _Proof(node.context)
    total = await node.database.read(_count)
    while await node.database.read(proof.next_batches):
        progress({"batches": proof.batches, "of": total})
    await node.database.read(proof.check_ends)
    await node.database.write(proof.note_damaged)
    return proof


def _count(connection: Connection) -> int:
    return int(execute(connection, "SELECT count(*) FROM _batch").scalar_one())


class _Proof:
    """Walks stored batches stream by stream, a few at a time."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.batches = 0
        self.withheld = 0
        self.bad: list[dict[str, Any]] = []
        self._damaged: list[Head] = []
        self._at = (0, 0)
        self._before = NO_PREV
        self._ends: dict[int, tuple[int, bytes]] = {}
        self._origins: dict[tuple[str, str], Certified] = {}

    def next_batches(self, connection: Connection) -> bool:
        """Prove some more; False when all have been."""
        rows = execute(
            connection,
            "SELECT stream, seq, hash, data FROM _batch WHERE (stream, seq) > (?, ?) ORDER BY stream, seq LIMIT ?",
            (*self._at, BATCHES_AT_ONCE),
        ).all()
        for stream, seq, digest, data in rows:
            if stream != self._at[0]:
                self._before = NO_PREV
            expected = self._at[1] + 1 if stream == self._at[0] else 1
            self._at = (stream, seq)
            self.batches += 1
            self._prove(connection, stream, seq, expected, digest, data)
            self._before = digest
            self._ends[stream] = (seq, digest)
        return bool(rows)

    def _prove(self, connection: Connection, stream: int, seq: int, expected: int, digest: bytes, data: bytes) -> None:
        try:
            batch = parse_batch(data)
        except RemoteFault as fault:
            self._note_damaged(connection, stream, seq, digest, f"{fault.code}: {fault}")
            return
        if batch.head.hash != digest or batch.header.seq != seq:
            told = "the stored bytes are not the batch they were stored as"
            self._note_damaged(connection, stream, seq, digest, told)
            return
        try:
            if seq != expected or batch.header.prev != self._before:
                self._note(connection, stream, seq, "the chain is broken here")
                self._missing(connection, stream, seq - 1, batch.header.prev, expected)
            check_admissible(batch, self.context.tree_id, self.context.unit)
            check_origin(batch, self._origin(connection, batch))
            registry = registry_for(connection, self.context, batch)
            if registry is not None:
                check_complete(connection, self.context, batch, registry)
                decoded(batch, registry)
                named = sum(len(section.columns) for section in batch.header.sections)
                self.withheld += named - sum(map(len, batch.chunks))
        except BadSignature as fault:
            self._note_damaged(connection, stream, seq, digest, f"{fault.code}: {fault}")
        except RemoteFault as fault:
            self._note(connection, stream, seq, f"{fault.code}: {fault}")

    def _note_damaged(self, connection: Connection, stream: int, seq: int, digest: bytes, reason: str) -> None:
        self._note(connection, stream, seq, reason)
        self._damaged.append(Head(stream_named(connection, stream), seq, digest))

    def _missing(self, connection: Connection, stream: int, seq: int, digest: bytes, expected: int) -> None:
        """A batch that is gone, by the hash that the one after it names. Of several in a row the last comes first, and
        tells of the one before it."""
        if seq >= expected:
            self._damaged.append(Head(stream_named(connection, stream), seq, digest))

    def _origin(self, connection: Connection, batch: SealedBatch) -> Certified:
        stream = batch.header.stream
        key = (stream.origin, stream.epoch)
        if key not in self._origins:
            path = path_of(connection, stream.origin, stream.epoch)
            if path is None:
                raise BadCertificate(f"the certificate of {stream.origin} is not here")
            self._origins[key] = verify_node_path(path, self.context.tree_id)
        return self._origins[key]

    def _note(self, connection: Connection, stream: int, seq: int, reason: str) -> None:
        origin, epoch, scope = execute(
            connection, "SELECT origin, epoch, scope FROM _stream WHERE no = ?", (stream,)
        ).one()
        self.bad.append({"origin": origin, "epoch": epoch, "scope": scope, "seq": seq, "reason": reason})

    def check_ends(self, connection: Connection) -> None:
        """Each stream's held head is the end of what is stored."""
        for no, seq, digest in execute(connection, "SELECT no, held_seq, held_hash FROM _stream WHERE held_seq > 0"):
            there, _ = end = self._ends.get(no, (0, NO_PREV))
            if end != (seq, digest):
                self._note(connection, no, seq, "the stream's head is not the last batch stored")
                self._missing(connection, no, seq, digest, there + 1)

    def note_damaged(self, connection: Connection) -> None:
        """What is damaged is asked for from the next session on; what was and is whole is asked for no more."""
        wrong = {head.hash for head in self._damaged}
        noted = execute(connection, "SELECT hash FROM _damaged").scalars().all()
        stored = (
            execute(connection, "SELECT hash FROM _damaged WHERE hash IN (SELECT hash FROM _batch)").scalars().all()
        )
        forget(connection, [digest for digest in stored if digest not in wrong])
        for head in self._damaged:
            if head.hash not in noted:
                note(connection, self.context, head)
