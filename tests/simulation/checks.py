"""The invariants of reliability.md, checked against the truth.

Role: ``Observer`` follows every commit (cheap: I2, I3, I4, I9, I11, I17); ``check_node`` compares one node with the
oracle (I1, I2, I6, I7, I18); ``check_disk`` looks for bytes where they may not be (I13).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import zstandard

from sync_engine.batch import NO_PREV, parse_batch
from sync_engine.frames import Ack, HeadsFrame
from tests.simulation.model import BY_NUMBER, TABLES, holds, readable
from tests.simulation.process import Process
from tests.simulation.truth import Truth, key_scope

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

    def copy(self) -> Followed:
        twin = Followed()
        twin.last_no, twin.heads, twin.tips = self.last_no, dict(self.heads), dict(self.tips)
        twin.stored = dict(self.stored)
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
        self.restored: set[str] = set()
        self.knows: set[str] = set()
        """Restored nodes that have been shown what they lost: from then on they may not seal in that stream."""

    def committed(self, node: Process) -> None:
        """Called after each commit, before anything else happens."""
        mine = self.followed.setdefault(node.unit, Followed())
        sealed = self._new_batches(node, mine)
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
            require(holds(node.unit, scope), lambda s=scope: f"I4: {node.unit} holds a batch of {s}")  # type: ignore[misc]
            mine.stored[digest] = stream
            if origin == node.unit:
                own[scope] = digest
                self._sealed_once(node.unit, stream, seq, digest)
                self.truth.batches.setdefault(digest, [])
                self.say(f"{origin} seals {scope} {seq} as {digest.hex()[:8]}")
        return own

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

    def _sealed_once(self, unit: str, stream: Stream, seq: int, digest: bytes) -> None:
        first = self.places.setdefault((stream, seq), digest)
        if first != digest:
            require(unit in self.restored, lambda: f"I11: {unit} sealed two batches at {stream} {seq}")
            require(unit not in self.knows, lambda: f"I11: {unit} knew better and sealed again at {stream} {seq}")

    # --- I2: notes and rows commit together ---

    def _sealed_keys(self, node: Process, sealed: dict[str, bytes]) -> None:
        windows = self.truth.nodes[node.unit].windows
        if not windows:
            return
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

    # --- I9: heads ---

    def _heads(self, node: Process, mine: Followed) -> None:
        rows = node.query("SELECT origin, epoch, scope, held_seq, held_hash, applied_seq, applied_hash FROM _stream")
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
        stored = self.followed[node.unit].stored
        if any(head.stream.origin == node.unit and head.hash not in stored for head in frame.heads):
            self.knows.add(node.unit)


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


__all__ = ["Any", "Followed", "Observer", "Violation", "check_disk", "check_text", "require"]
