"""``dongbo verify``: proves every stored batch, and that the streams are unbroken chains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from node.commands import Progress
from node.local import Node
from node.storage.certificates import path_of
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.inbox import decoded
from node.storage.registries import registry_for
from node.storage.report import scopes_held
from sync_engine.batch import NO_PREV, SealedBatch, parse_batch
from sync_engine.certificates import Certified, verify_node_path
from sync_engine.errors import BadCertificate, RemoteFault
from sync_engine.verify import check_admissible, check_complete, check_origin

BATCHES_AT_ONCE = 8


async def verify(node: Node, _arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The keys of ``verify --json``: each stored batch against its origin's certificate, its place in its chain,
    its content. ``withheld`` counts the chunks that this level does not hold by right: of them there is the hash that
    their origin signed."""
    proof = _Proof(node.context)
    total = await node.database.read(_count)
    while await node.database.read(proof.next_batches):
        progress({"batches": proof.batches, "of": total})
    await node.database.read(proof.check_heads)
    scopes = []
    for scope in await node.database.read(scopes_held, node.context):
        digest = await node.digest(scope)
        if digest is None:
            continue
        scopes.append({"scope": scope, "rows": digest.rows, "digest": digest.digest.hex(), "matches_parent": None})
    return {
        "ok": not proof.bad,
        "batches": proof.batches,
        "withheld": proof.withheld,
        "bad": proof.bad,
        "scopes": scopes,
    }


def _count(connection: Connection) -> int:
    return int(execute(connection, "SELECT count(*) FROM _batch").scalar_one())


class _Proof:
    """Walks stored batches stream by stream, a few at a time."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.batches = 0
        self.withheld = 0
        self.bad: list[dict[str, Any]] = []
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
            if batch.head.hash != digest or batch.header.seq != seq:
                self._note(connection, stream, seq, "the stored bytes are not the batch they were stored as")
                return
            if seq != expected or batch.header.prev != self._before:
                self._note(connection, stream, seq, "the chain is broken here")
            check_admissible(batch, self.context.tree_id, self.context.unit)
            check_origin(batch, self._origin(connection, batch))
            registry = registry_for(connection, self.context, batch)
            if registry is not None:
                check_complete(batch, registry, self.context.level)
                decoded(batch, registry)
                named = sum(len(section.columns) for section in batch.header.sections)
                self.withheld += named - sum(map(len, batch.chunks))
        except RemoteFault as fault:
            self._note(connection, stream, seq, f"{fault.code}: {fault}")

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

    def check_heads(self, connection: Connection) -> None:
        """Each stream's held head is the end of what is stored."""
        for no, seq, digest in execute(connection, "SELECT no, held_seq, held_hash FROM _stream WHERE held_seq > 0"):
            if self._ends.get(no) != (seq, digest):
                self._note(connection, no, seq, "the stream's head is not the last batch stored")
