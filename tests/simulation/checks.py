"""The invariants of reliability.md, checked against the truth.

Role: ``Observer`` follows every commit (cheap: I2, I3, I4, I9, I11, I17); ``check_node`` compares one node with the
oracle (I1, I2, I6, I7, I18); ``check_disk`` looks for bytes where they may not be (I13).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Any

import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection

from node.storage import inbox
from node.storage.context import Context
from sync_engine.batch import NO_PREV, SectionKind, parse_batch
from sync_engine.errors import RemoteFault
from sync_engine.frames import Ack, HeadsFrame
from tests.simulation.identities import IDENTITIES
from tests.simulation.model import BY_NUMBER, TABLES, holds, readable, within
from tests.simulation.process import Process
from tests.simulation.telling import entries_of, note_codes, tell
from tests.simulation.truth import ALIVE, Truth, key_scope

Stream = tuple[str, str, str]
"""(origin, epoch, scope)"""


class Violation(AssertionError):
    """An invariant does not hold; the message begins with its name."""


def require(condition: bool, message: Callable[[], str]) -> None:
    if not condition:
        raise Violation(message())


class Followed:
    """What was last seen of one node's database."""

    def __init__(self) -> None:
        self.last_no = 0
        self.heads: dict[Stream, tuple[int, bytes, int, bytes]] = {}
        self.tips: dict[Stream, tuple[int, bytes]] = {}
        self.stored: dict[bytes, Stream] = {}
        self.knows = False
        """Whether it has been shown that it lost history: from then on it may not seal."""

    def copy(self) -> Followed:
        twin = Followed()
        twin.last_no, twin.heads, twin.tips = self.last_no, dict(self.heads), dict(self.tips)
        twin.stored, twin.knows = dict(self.stored), self.knows
        return twin


class Observer:
    """Follows all nodes' databases, commit by commit."""

    def __init__(self, truth: Truth, say: Callable[[str], None]) -> None:
        self.truth, self.say = truth, say
        self.followed: dict[str, Followed] = {}
        self.progress = 0
        """Grows with every batch stored and every head that moves."""
        self.places: dict[tuple[Stream, int], bytes] = {}
        """Every place that an origin has sealed, by its first batch there."""
        self.held_back: dict[str, set[bytes]] = {}
        """By unit: the batches that its brake holds."""
        self.restored: set[str] = set()
        self.on_sealed: Callable[[Process, bytes], None] = lambda _node, _digest: None
        """Told of each batch of local programs' edits."""
        self.two_lives: set[str] = set()
        """Nodes whose key has signed two batches at one place without their database's knowing."""

    def committed(self, node: Process) -> None:
        """Called after each commit, before anything else happens."""
        mine = self.followed.setdefault(node.unit, Followed())
        sealed = self._new_batches(node, mine)
        if node.brake.share < 1:
            self._braked(node)
        self._sealed_keys(node, sealed)
        self._heads(node, mine)

    # --- I3, I4, I11: what is stored ---

    def _new_batches(self, node: Process, mine: Followed) -> dict[str, bytes]:
        """Check what was stored since; returns this node's own new batches by scope."""
        found = node.query(
            "SELECT _batch.no, origin, epoch, scope, seq, hash, data FROM _batch JOIN _stream ON _stream.no = stream"
            " WHERE _batch.no > ? ORDER BY _batch.no",
            mine.last_no,
        )
        own: dict[str, bytes] = {}
        for no, origin, epoch, scope, seq, digest, data in found:
            stream = (origin, epoch, scope)
            mine.last_no = no
            self.progress += 1
            self._chain(node, mine, stream, seq, digest, data)
            self._entitled(node, stream, data)
            mine.stored[digest] = stream
            held_by = [unit for unit, held in self.held_back.items() if digest in held and unit != node.unit]
            require(not held_by, lambda u=held_by: f"brake: {node.unit} has a batch that is held back by {u}")  # type: ignore[misc]
            if origin == node.unit:
                own[scope] = digest
                self._sealed_once(mine, stream, seq, digest)
                self.truth.batches.setdefault(digest, [])
                self.say(f"{origin} seals {scope} {seq} as {digest.hex()[:8]}")
        return own

    def _braked(self, node: Process) -> None:
        """Which of its batches a node holds back now."""
        found = node.query(
            "SELECT hash FROM _batch JOIN _brake ON _brake.stream = _batch.stream AND seq >= from_seq"
            " WHERE _brake.state IN ('pulled', 'undoing')"
        )
        self.held_back[node.unit] = {digest for (digest,) in found}

    def _chain(self, node: Process, mine: Followed, stream: Stream, seq: int, digest: bytes, data: bytes) -> None:
        batch = parse_batch(data)
        header = batch.header
        tip = mine.tips.get(stream, (0, NO_PREV))
        require(
            (header.stream.origin, header.stream.epoch, header.stream.scope, header.seq) == (*stream, seq)
            and sha256(batch.header_bytes).digest() == digest,
            lambda: f"I3: {node.unit} stores {stream} {seq} under another name",
        )
        require(
            (seq, header.prev) == (tip[0] + 1, tip[1]),
            lambda: f"I3: {node.unit} stores {stream} {seq}, which does not continue {tip[0]}",
        )
        mine.tips[stream] = seq, digest

    def _entitled(self, node: Process, stream: Stream, data: bytes) -> None:
        """I4: signed by its origin's key, its origin on the scope's path, the scope one that this node may hold."""
        origin, _epoch, scope = stream
        unit = scope.partition("/")[0]
        require(holds(node.unit, scope), lambda: f"I4: {node.unit} holds a batch of {scope}")
        require(within(unit, origin), lambda: f"I4: {node.unit} holds a batch of {scope} by {origin}")
        batch = parse_batch(data)
        require(
            signed_by(origin, batch.header_bytes, batch.signature),
            lambda: f"I4: {node.unit} holds a batch that {origin} did not sign",
        )

    def _sealed_once(self, mine: Followed, stream: Stream, seq: int, digest: bytes) -> None:
        unit = stream[0]
        first = self.places.setdefault((stream, seq), digest)
        if first != digest:
            require(unit in self.restored, lambda: f"I11: {unit} sealed two batches at {stream} {seq}")
            require(not mine.knows, lambda: f"I11: {unit} knew better and sealed again at {stream} {seq}")

    def started(self, node: Process) -> None:
        """I9, I17: after a crash, or a power cut, all is there that was committed before it."""
        mine = self.followed.setdefault(node.unit, Followed())
        self._heads(node, mine)
        found = {digest for (digest,) in node.query("SELECT hash FROM _batch")}
        lost = mine.stored.keys() - found
        require(not lost, lambda: f"I17: {node.unit} has lost {len(lost)} batches that it had stored")

    # --- I2: notes and rows commit together ---

    def _sealed_keys(self, node: Process, sealed: dict[str, bytes]) -> None:
        if self.truth.telling == node.unit:
            self._told(node, sealed)
        elif self.truth.nodes[node.unit].windows:
            self._close_windows(node, sealed)
        for scope, digest in sealed.items():
            if scope.endswith("/catalog"):
                note_codes(node, self.truth, digest)

    def _close_windows(self, node: Process, sealed: dict[str, bytes]) -> None:
        windows = self.truth.nodes[node.unit].windows
        pending = {
            (BY_NUMBER[number].name, unit, key)
            for number, unit, key in node.query("SELECT DISTINCT tbl, unit, id FROM _pending WHERE tbl > 10")
        }
        for key in [key for key in windows if key not in pending]:
            ops = windows[key].ops
            batch = sealed.get(key_scope(key))
            if batch is None and (ops[-1].after is not None or windows[key].shown is not None):
                raise Violation(f"I2: {node.unit} changed {key} and keeps no note of it: {ops}")
            self.truth.sealed(node.unit, key, batch)
        for batch in sealed.values():
            self._note_times(node, batch)
            self.on_sealed(node, batch)

    def _told(self, node: Process, sealed: dict[str, bytes]) -> None:
        """No program's statement wrote this: it is what its batches say."""
        for scope, digest in sealed.items():
            tell(node, self.truth, scope, digest)
            self._note_times(node, digest)

    def _note_times(self, node: Process, digest: bytes) -> None:
        """The times that a batch gives its writes: the product's own, and the same everywhere from now on."""
        if not self.truth.batches[digest]:
            return
        unit = self.truth.batches[digest][0].place[1]
        sealed: dict[tuple[Any, ...], dict[str, int]] = {}
        for entries in entries_of(node, digest):
            for at, time in enumerate(entries.times):
                row = sealed.setdefault((entries.table.name, unit, entries.ids[at], entries.identities[at]), {})
                named = [each.name for each in entries.written(at)]
                if entries.kind is SectionKind.DELETE:
                    named = ["(delete)"]
                elif entries.is_new(at):
                    named.append("(insert)")
                row.update({name: max(time, row.get(name, 0)) for name in named})
        for write in self.truth.batches[digest]:
            row = sealed.get(write.place[:4], {})
            if write.place[4] == ALIVE:
                times = [time for name, time in row.items() if (name == "(delete)") != write.value]
            else:
                times = [row[name] for name in (write.place[4], "(insert)") if name in row][:1]
            if times:
                self.truth.times[(write.place, digest)] = max(times)
                if row.get("(insert)", max(times)) < max(times) and write.place[4] != ALIVE:
                    self.truth.split.add((write.place, digest))

    # --- I9: heads ---

    def _heads(self, node: Process, mine: Followed) -> None:
        rows = node.query("SELECT origin, epoch, scope, held_seq, held_hash, applied_seq, applied_hash FROM _stream")
        gone = mine.heads.keys() - {row[:3] for row in rows}
        require(not gone, lambda: f"I9: {node.unit} has lost its heads of {gone}")
        newly: set[bytes] = set()
        for origin, epoch, scope, held, held_hash, applied, applied_hash in rows:
            stream = (origin, epoch, scope)
            now = (held, held_hash or b"", applied, applied_hash or b"")
            was = mine.heads.get(stream, (0, b"", 0, b""))
            if now == was:
                continue
            require(
                held >= was[0] and applied >= was[2] and applied <= held,
                lambda s=stream, w=was, n=now: f"I9: {node.unit} went from {w} to {n} in {s}",  # type: ignore[misc]
            )
            require(
                mine.tips.get(stream, (0, b"")) == (held, held_hash),
                lambda s=stream: f"I3: {node.unit} names a head of {s} that it does not hold",  # type: ignore[misc]
            )
            if applied > was[2]:
                newly.update(self._hashes(node, stream, was[2], applied))
            mine.heads[stream] = now
            self.progress += 1
        if newly:
            truth = self.truth.nodes[node.unit]
            truth.applied = truth.applied | newly
            self.say(f"{node.unit} has applied {' '.join(sorted(each.hex()[:8] for each in newly))}")

    def _hashes(self, node: Process, stream: Stream, after: int, upto: int) -> list[bytes]:
        found = node.query(
            "SELECT hash FROM _batch JOIN _stream ON _stream.no = stream"
            " WHERE origin = ? AND epoch = ? AND scope = ? AND seq > ? AND seq <= ?",
            *stream,
            after,
            upto,
        )
        return [digest for (digest,) in found]

    # --- what sessions show ---

    def acked(self, node: Process, ack: Ack) -> None:
        """I17: what a node acknowledges, its files hold."""
        for head in ack.heads:
            found = node.query("SELECT 1 FROM _batch WHERE hash = ?", head.hash)
            require(bool(found), lambda h=head: f"I17: {node.unit} acknowledges {h.stream} {h.seq} before it has it")  # type: ignore[misc]

    def heads_met(self, node: Process, frame: HeadsFrame) -> None:
        """The parent's word tells a node that it lost history. A child's does not: it must show the batch, and then
        the node is fenced."""
        stored = self.followed[node.unit].stored
        if any(head.stream.origin == node.unit and head.hash not in stored for head in frame.heads):
            self.followed[node.unit].knows = True


@lru_cache(maxsize=20_000)
def signed_by(origin: str, header: bytes, signature: bytes) -> bool:
    try:
        IDENTITIES.public(origin).verify(signature, b"dongbo/batch/1\0" + header, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


# --- I5: again is the same as once ---


def check_twice(node: Process, rng: Random, count: Callable[[str], None]) -> None:
    """Bring a node a batch that it has, as a lost ack does; nothing of what it stores may differ after."""
    stored = node.query("SELECT data FROM _batch ORDER BY no")
    if not stored or node.is_fenced:
        return
    before = fingerprint(node)
    node.look(_take_again, node.context, rng.choice(stored)[0])
    count("taken again")
    require(fingerprint(node) == before, lambda: f"I5: {node.unit} took a batch again and has changed")


def _take_again(connection: Connection, context: Context, data: bytes) -> None:
    try:
        inbox.take(connection, context, inbox.verify(connection, context, data))
    except RemoteFault:
        return  # stored here without the chunks that others may not read, or of a stream that was left
    connection.commit()


def fingerprint(node: Process) -> bytes:
    """All that a node stores of rows, registers, batches, heads and conflicts."""
    digest = sha256()
    for table in (*TABLES, "_row", "_write", "_stream", "_batch", "_conflict", "_pending", "_seen", "_fork"):
        digest.update(repr(sorted(map(repr, node.query(f"SELECT * FROM {table}")))).encode())
    return digest.digest()


# --- I13: no byte where it may not be ---

_MARK = re.compile(rb"~([a-z0-9.-]+)~([a-z]+)~[0-9]+~")


def check_text(text: str) -> None:
    """What is logged, or said of a fault, holds nothing of what people have entered."""
    require(_MARK.search(text.encode()) is None, lambda: f"I13: a value stands in {text!r}")


def check_disk(node: Process) -> None:
    """Search the database files, free pages and log too, and what the stored batches hold once unpacked."""
    found = set(_MARK.findall(node.bytes_on_disk()))
    for (data,) in node.query("SELECT data FROM _batch"):
        batch = parse_batch(data)
        for section in batch.chunks:
            for chunk in section.values():
                found.update(_MARK.findall(zstandard.ZstdDecompressor().decompress(chunk)))
    for raw_unit, raw_field in found:
        unit, field = raw_unit.decode(), raw_field.decode()
        table = next(each for each in TABLES.values() if field in each.fields)
        register = next(each for each in table.registers if field in each.fields)
        scope = unit + "/catalog" if table.catalogue else unit
        allowed = holds(node.unit, scope) and readable(register, node.unit, unit)
        require(allowed, lambda u=unit, f=field: f"I13: {node.unit} has bytes of {f} of a row of {u}")  # type: ignore[misc]
