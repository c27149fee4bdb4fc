"""Follows every node's database, commit by commit: what is always so of batches, heads and notes.

Role: I2 (notes and rows), I3 (chains), I4 (who may sign), I9 (heads), I11 (one batch a place), I17 (what is durable);
and it tells the truth what was sealed, and by what name it is known.
Invariant: a batch that nobody has had before is sealed by the node that stores it first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from dongbo.v1 import batch_pb2

from sync_engine.batch import NO_PREV, SectionKind, parse_batch
from sync_engine.frames import Ack, HeadsFrame
from tests.simulation.checks import Stream, Violation, require, signed_by
from tests.simulation.model import BY_NUMBER, holds, within
from tests.simulation.process import Process
from tests.simulation.telling import entries_of, note_codes, tell
from tests.simulation.truth import ALIVE, Key, Truth, key_scope

BATCHES = "SELECT _batch.no, origin, epoch, scope, seq, hash, data FROM _batch JOIN _stream ON _stream.no = stream"
AGAIN = f"{BATCHES} WHERE _batch.no <= ? AND again = 1 ORDER BY seq, _batch.no"


class Standing(NamedTuple):
    """How far a node is in one stream: what it holds, and how much of that is applied."""

    held: int
    hash: bytes
    applied: int


NOTHING = Standing(0, NO_PREV, 0)


@dataclass
class Followed:
    """What was last seen of one machine's database."""

    last_no: int = 0
    standing: dict[Stream, Standing] = field(default_factory=dict)
    chains: dict[Stream, list[bytes]] = field(default_factory=dict)
    stored: dict[bytes, Stream] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    """Epochs of its unit that it may not seal under: it has been shown that they are another's, or forked."""

    def copy(self) -> Followed:
        chains = {stream: list(chain) for stream, chain in self.chains.items()}
        return Followed(self.last_no, dict(self.standing), chains, dict(self.stored), set(self.left))


class Observer:
    """Follows all nodes' databases, commit by commit."""

    def __init__(self, truth: Truth, say: Callable[[str], None], count: Callable[[str], None]) -> None:
        self.truth, self.say, self.count = truth, say, count
        self.followed: dict[str, Followed] = {}
        """By the name of the machine."""
        self.progress = 0
        """Grows with every batch stored and every head that moves."""
        self.places: dict[tuple[Stream, int], set[bytes]] = {}
        """What stands at each place of each stream; more than one batch where a node has had several lives."""
        self.before: dict[bytes, tuple[Stream, int, bytes]] = {}
        """Of each batch: its place, and the batch before it."""
        self.held_back: dict[str, set[bytes]] = {}
        """By unit: the batches that its brake holds."""
        self.restored: set[str] = set()
        """Units of which a machine lost what it knew."""
        self.on_sealed: Callable[[Process, bytes], None] = lambda _node, _digest: None
        """Told of each batch of local programs' edits."""

    def of(self, node: Process) -> Followed:
        return self.followed.setdefault(node.name, Followed())

    def committed(self, node: Process) -> None:
        """Called after each commit, before anything else happens."""
        mine = self.of(node)
        sealed = self._new_batches(node, mine)
        if node.brake.share < 1:
            self._braked(node)
        self._sealed_keys(node, sealed)
        self._heads(node, mine)

    # --- I4, I11: what is stored ---

    def _new_batches(self, node: Process, mine: Followed) -> list[tuple[str, bytes]]:
        """Check what was stored since; returns the scopes and batches that this node has sealed, without those that
        say another one again."""
        found = node.query(f"{BATCHES} WHERE _batch.no > ? ORDER BY _batch.no", mine.last_no)
        own: list[tuple[str, bytes]] = []
        if self.restored:  # a stored batch may have got the name of the one that says it again
            found += [row for row in node.query(AGAIN, mine.last_no) if row[5] not in mine.stored]
        for no, origin, epoch, scope, seq, digest, data in found:
            stream = (origin, epoch, scope)
            mine.last_no = max(no, mine.last_no)
            self.progress += 1
            self._entitled(node, stream, seq, digest, data)
            mine.stored[digest] = stream
            held_by = [unit for unit, held in self.held_back.items() if digest in held and unit != node.unit]
            require(not held_by, lambda u=held_by: f"brake: {node.name} has a batch that is held back by {u}")  # type: ignore[misc]
            if origin != node.unit:
                continue
            if digest in self.truth.scopes:
                self._own_past(node, mine, stream, seq)
            elif self._sealed(node, mine, (stream, seq), digest, data):
                own.append((scope, digest))
        return own

    def _sealed(self, node: Process, mine: Followed, place: tuple[Stream, int], digest: bytes, data: bytes) -> bool:
        """A batch has come into the world. Whether it is one of its own, and not another said again."""
        (_, epoch, scope), seq = place
        self._sealed_once(node, mine, place, digest)
        self.truth.scopes[digest] = scope
        repeated = repeats(data)
        if repeated:
            first = self.truth.first(repeated)
            require(
                self.truth.scopes.get(repeated) == scope,
                lambda: f"I1: {node.name} says in {scope} {seq} again what nobody has said there",
            )
            self.truth.names[digest] = repeated
            self.count("said again" if first == repeated else "said a third time")
            self.say(f"{node.name} says {first.hex()[:8]} again: {scope} {epoch[:4]} {seq} as {digest.hex()[:8]}")
            return False
        self.truth.batches.setdefault(digest, [])
        self.say(f"{node.name} seals {scope} {epoch[:4]} {seq} as {digest.hex()[:8]}")
        return True

    def _braked(self, node: Process) -> None:
        """Which of its batches a node holds back now."""
        found = node.query(
            "SELECT hash FROM _batch JOIN _brake ON _brake.stream = _batch.stream AND seq >= from_seq"
            " WHERE _brake.state IN ('pulled', 'undoing')"
        )
        self.held_back[node.unit] = {digest for (digest,) in found}

    def _entitled(self, node: Process, stream: Stream, seq: int, digest: bytes, data: bytes) -> None:
        """I4: signed by its origin's key, its origin on the scope's path, the scope one that this node may hold."""
        origin, epoch, scope = stream
        unit = scope.partition("/")[0]
        require(holds(node.unit, scope), lambda: f"I4: {node.name} holds a batch of {scope}")
        require(within(unit, origin), lambda: f"I4: {node.name} holds a batch of {scope} by {origin}")
        batch = parse_batch(data)
        header = batch.header
        require(
            signed_by(origin, epoch, batch.header_bytes, batch.signature),
            lambda: f"I4: {node.name} holds a batch that {origin} did not sign",
        )
        require(
            (header.stream.origin, header.stream.epoch, header.stream.scope, header.seq) == (*stream, seq)
            and sha256(batch.header_bytes).digest() == digest,
            lambda: f"I3: {node.name} stores {stream} {seq} under another name",
        )
        self.before[digest] = stream, seq, header.prev

    def _sealed_once(self, node: Process, mine: Followed, place: tuple[Stream, int], digest: bytes) -> None:
        """I11: no two batches at one place, but by a node that lost what it knew and has not learnt of it."""
        standing = self.places.setdefault(place, set())
        if standing:
            require(node.unit in self.restored, lambda: f"I11: {node.name} sealed two batches at {place}")
        require(place[0][1] not in mine.left, lambda: f"I11: {node.name} knew better and sealed at {place}")
        standing.add(digest)

    def _own_past(self, node: Process, mine: Followed, stream: Stream, seq: int) -> None:
        """A batch of its own has come that this database did not have: it may not go on in that epoch."""
        require(
            stream[1] != node.context.epoch,
            lambda: f"I11: {node.name} is given its own {stream} {seq}, and goes on in that epoch",
        )
        mine.left.add(stream[1])
        self.count("own past")

    def started(self, node: Process) -> None:
        """I9, I17: after a crash, or a power cut, all is there that was committed before it."""
        mine = self.of(node)
        self._heads(node, mine)
        found = {self.truth.first(digest) for (digest,) in node.query("SELECT hash FROM _batch")}
        lost = {self.truth.first(digest) for digest in mine.stored} - found
        require(not lost, lambda: f"I17: {node.name} has lost {len(lost)} batches that it had stored")

    # --- I2: notes and rows commit together ---

    def _sealed_keys(self, node: Process, sealed: list[tuple[str, bytes]]) -> None:
        if self.truth.telling == node.name:
            self._told(node, sealed)
        elif self.truth.nodes[node.name].windows:
            self._close_windows(node, sealed)
        for scope, digest in sealed:
            if scope.endswith("/catalog"):
                note_codes(node, self.truth, digest)

    def _close_windows(self, node: Process, sealed: list[tuple[str, bytes]]) -> None:
        windows = self.truth.nodes[node.name].windows
        pending = {
            (BY_NUMBER[number].name, unit, key)
            for number, unit, key in node.query("SELECT DISTINCT tbl, unit, id FROM _pending WHERE tbl > 10")
        }
        for key in [key for key in windows if key not in pending]:
            ops = windows[key].ops
            batch = self._batch_of(node, key, [digest for scope, digest in sealed if scope == key_scope(key)])
            if batch is None and (ops[-1].after is not None or windows[key].shown is not None):
                raise Violation(f"I2: {node.name} changed {key} and keeps no note of it: {ops}")
            self.truth.sealed(node.name, node.unit, key, batch)
        for _, batch in sealed:
            self._note_times(node, batch)
            self.on_sealed(node, batch)

    def _batch_of(self, node: Process, key: Key, batches: list[bytes]) -> bytes | None:
        """In which of these batches a key is; only where several were sealed at once is there a question."""
        if len(batches) < 2:
            return batches[0] if batches else None
        for digest in batches:
            if any(key[2] in entries.ids for entries in entries_of(node, digest) if entries.table.name == key[0]):
                return digest
        return None

    def _told(self, node: Process, sealed: list[tuple[str, bytes]]) -> None:
        """No program's statement wrote this: it is what its batches say."""
        for scope, digest in sealed:
            tell(node, self.truth, scope, digest)
            self._note_times(node, digest)

    def _note_times(self, node: Process, digest: bytes) -> None:
        """The times that a batch gives its writes: the product's own, and the same everywhere from now on."""
        if not self.truth.batches[digest]:
            return
        unit = self.truth.batches[digest][0].place[1]
        sealed: dict[tuple[str, str, str, bytes], dict[str, int]] = {}
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
                    self.truth.split[(write.place, digest)] = row["(insert)"]

    # --- I3, I9: heads ---

    def _heads(self, node: Process, mine: Followed) -> None:
        rows = node.query("SELECT origin, epoch, scope, held_seq, held_hash, applied_seq FROM _stream")
        gone = mine.standing.keys() - {row[:3] for row in rows}
        require(not gone, lambda: f"I9: {node.name} has lost its heads of {gone}")
        newly: set[bytes] = set()
        turned = False
        for origin, epoch, scope, held, held_hash, applied in rows:
            stream = (origin, epoch, scope)
            now, was = Standing(held, held_hash or NO_PREV, applied), mine.standing.get(stream, NOTHING)
            if now == was:
                continue
            require(applied <= held, lambda s=stream: f"I9: {node.name} has applied more of {s} than it holds")  # type: ignore[misc]
            back = self._follow(node, mine, stream, now) or applied < was.applied
            require(
                not back or len(self.lives_at(stream)) > 0,
                lambda s=stream, w=was, n=now: f"I9: {node.name} went from {w} to {n} in {s}",  # type: ignore[misc]
            )
            turned = turned or back
            newly.update(mine.chains[stream][was.applied : applied])
            mine.standing[stream] = now
            self.progress += 1
        if turned:
            self._turned(node, mine)
        elif newly:
            self._applied(node, newly)

    def lives_at(self, stream: Stream) -> list[int]:
        """The places of a stream at which several batches were sealed."""
        return [seq for (each, seq), batches in self.places.items() if each == stream and len(batches) > 1]

    def _follow(self, node: Process, mine: Followed, stream: Stream, now: Standing) -> bool:
        """I3: from its head back to where nothing is new, a stream is one chain of stored batches. Whether it has left
        the chain that it was."""
        old, new, at, digest = mine.chains.get(stream, []), list[bytes](), now.held, now.hash
        while at > len(old) or (at and old[at - 1] != digest):
            require(
                digest in mine.stored and self.before.get(digest, (None, 0))[:2] == (stream, at),
                lambda at=at: f"I3: {node.name} holds {stream} up to {now.held}, and not its batch {at}",  # type: ignore[misc]
            )
            new.append(digest)
            at, digest = at - 1, self.before[digest][2]
        require(at > 0 or digest == NO_PREV or not new, lambda: f"I3: {stream} at {node.name} begins with no beginning")
        mine.chains[stream] = old[:at] + new[::-1]
        return at < len(old)

    def _turned(self, node: Process, mine: Followed) -> None:
        """A fork heals: another life's batches stand in a stream now. All that was applied here is applied still, under
        whatever name."""
        self.count("healed stream")
        truth = self.truth.nodes[node.name]
        now = {
            self.truth.first(digest)
            for stream, standing in mine.standing.items()
            for digest in mine.chains[stream][: standing.applied]
        }
        lost = truth.applied - now
        require(not lost, lambda: f"I9: {node.name} no longer has {sorted(each.hex()[:8] for each in lost)}")
        self._applied(node, now)

    def _applied(self, node: Process, digests: set[bytes]) -> None:
        truth = self.truth.nodes[node.name]
        newly = {self.truth.first(digest) for digest in digests} - truth.applied
        truth.applied = truth.applied | newly
        if newly:
            self.say(f"{node.name} has applied {' '.join(sorted(each.hex()[:8] for each in newly))}")

    # --- what sessions show ---

    def acked(self, node: Process, ack: Ack) -> None:
        """I17: what a node acknowledges, its files hold."""
        for head in ack.heads:
            found = node.query("SELECT 1 FROM _batch WHERE hash = ?", head.hash)
            require(bool(found), lambda h=head: f"I17: {node.name} acknowledges {h.stream} {h.seq} before it has it")  # type: ignore[misc]

    def is_news(self, node: Process, frame: HeadsFrame) -> bool:
        """Whether a parent's heads tell a node that it lost history, of the epoch in which it seals."""
        mine = self.of(node)
        return any(
            (head.stream.origin, head.stream.epoch) == (node.unit, node.context.epoch) and head.hash not in mine.stored
            for head in frame.heads
        )

    def learnt(self, node: Process, epoch: str) -> None:
        """What a parent's heads told is known once the session is over, and lost if the process dies in it."""
        self.of(node).left.add(epoch)


def repeats(data: bytes) -> bytes:
    """The batch that a batch says again, by its hash; nothing, if it does not."""
    header = batch_pb2.BatchHeader.FromString(batch_pb2.Batch.FromString(data).header)
    return sha256(header.repeats_header).digest() if header.repeats_header else b""
