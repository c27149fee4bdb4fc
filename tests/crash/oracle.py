"""Judges a survivor's database with nothing of the product's code.

Role: chains hashed anew, rows and notes against the story, what was told against what is there.
Reach: sqlcipher3, the generated protobuf, the story. Invariant: each check is a few lines, and names the invariant that
it is of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from dongbo.v1 import batch_pb2

from sync_engine.frames import Ack, BatchFrame, HeadsFrame, decode
from tests.crash import homes, story
from tests.crash.actor import Told
from tests.crash.steps import DYING, PEER, Step
from tests.crash.story import COMING, Key, Notes

Place = tuple[str, str, str, int]
"""(origin, epoch, scope, number)."""


@dataclass
class Promise:
    """What was told by all the lives of one home, in order."""

    held: dict[Place, str]
    applied: dict[Place, str]
    done: int = 0
    was_set_up: bool = False

    @classmethod
    def of(cls, told: Told, faults: list[str]) -> Promise:
        found = cls({}, {})
        for kind, what in told:
            if kind == "done":
                found.done = max(found.done, what)
            elif kind == "set up":
                found.was_set_up = True
            elif kind in ("held", "applied"):
                for origin, epoch, scope, seq, digest in what:
                    found._note(kind, (origin, epoch, scope, seq), digest, faults)
            elif kind == "frame":
                for place, digest in heads_in(bytes.fromhex(what)):
                    found._note("held", place, digest, faults)
        return found

    def _note(self, kind: str, place: Place, digest: str, faults: list[str]) -> None:
        promises = self.held if kind == "held" else self.applied
        if promises.setdefault(place, digest) != digest:
            faults.append(f"I11: two batches were shown at {place[0]} {place[2]} {place[3]}")


def heads_in(frame: bytes) -> Iterator[tuple[Place, str]]:
    """What a frame that leaves says its sender holds: acks, heads, and each batch it ships."""
    match decode(frame):
        case Ack(heads) | HeadsFrame(heads):
            for head in heads:
                yield (head.stream.origin, head.stream.epoch, head.stream.scope, head.seq), head.hash.hex()
        case BatchFrame(data):
            raw = batch_pb2.Batch.FromString(data).header
            yield place_of(batch_pb2.BatchHeader.FromString(raw)), sha256(raw).hexdigest()


def place_of(header: Any) -> Place:
    return header.origin, f"{header.epoch:016x}", header.scope, header.seq


class Survivor:
    """One database as it is after start-up."""

    def __init__(self, home: Path) -> None:
        with homes.client(home) as connection:
            self.integrity = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            self.batches = connection.execute(
                "SELECT origin, epoch, scope, _batch.seq, _batch.hash, _batch.state, entries, data"
                " FROM _batch JOIN _stream ON _stream.no = _batch.stream ORDER BY 1, 2, 3, 4"
            ).fetchall()
            self.streams = connection.execute(
                "SELECT origin, epoch, scope, held_seq, held_hash, applied_seq, applied_hash, state FROM _stream"
            ).fetchall()
            self.rows = homes.read_rows(connection)
            self.notes = _notes(connection)
            self.silenced = connection.execute("SELECT applying FROM _capture").fetchall()
            self.forks = connection.execute("SELECT count(*) FROM _fork").fetchone()[0]
            self.set_aside = connection.execute("SELECT * FROM _set_aside").fetchall()

    def applied_seq(self, origin: str, scope: str) -> int:
        return max((row[5] for row in self.streams if row[0] == origin and row[2] == scope), default=0)


def _notes(connection: Any) -> Notes:
    found: Notes = {}
    for unit, number, identifier, kind, mask in connection.execute("SELECT unit, tbl, id, kind, mask FROM _pending"):
        table = homes.REGISTRY.by_number[abs(number)]
        names = sorted(each.name for each in table.registers if kind == "E" and mask >> each.index & 1)
        key: Key = (table.name, unit, identifier)
        found.setdefault(key, set()).add((kind, *names))
    return found


def faults_of(step: Step, place: Path, told: Told) -> list[str]:
    """Everything that is wrong with the survivor of a step, given what it had told; empty if nothing is."""
    faults: list[str] = []
    promise = Promise.of(told, faults)
    survivor = Survivor(place / DYING)
    if survivor.integrity != ["ok"]:
        return [f"corrupt: {survivor.integrity[:2]}"]
    faults += sound(survivor)
    faults += kept(survivor, promise)
    if step.name == "capture":
        faults += captured(survivor, promise)
    elif not step.is_new:
        faults += told_by_story(survivor, step.unit == story.UNIT)
    return faults


def sound(survivor: Survivor) -> list[str]:
    """I3: each stream is a gap-free hash chain, and its heads are where it ends. Nothing is silenced."""
    faults = []
    at: tuple[Any, ...] = ()
    ends: dict[tuple[Any, ...], dict[int, tuple[bytes, str]]] = {}
    before = bytes(32)
    for origin, epoch, scope, seq, digest, state, _entries, data in survivor.batches:
        if (origin, epoch, scope) != at:
            at, before = (origin, epoch, scope), bytes(32)
        raw = batch_pb2.Batch.FromString(data).header
        header = batch_pb2.BatchHeader.FromString(raw)
        stored = ends.setdefault(at, {0: (b"", "")})
        chained = header.prev == before and seq == len(stored)
        if sha256(raw).digest() != digest or place_of(header) != (*at, seq) or not chained:
            faults.append(f"I3: {origin} {scope} {seq} does not follow the one before")
        before = digest
        stored[seq] = (digest, state)
    for origin, epoch, scope, held, held_hash, applied, applied_hash, state in survivor.streams:
        stored = ends.get((origin, epoch, scope), {0: (b"", "")})
        if held != len(stored) - 1 or (held and stored[held][0] != held_hash) or applied > held:
            faults.append(
                f"I3: the head of {origin} {scope} is {held} with {len(stored) - 1} stored, {applied} applied"
            )
        elif applied and stored[applied][0] != applied_hash:
            faults.append(f"I3: the applied head of {origin} {scope} is not the batch there")
        waiting = [seq for seq, (_, kind) in stored.items() if seq and (kind != "applied") != (seq > applied)]
        if waiting or state != "open":
            faults.append(f"I2: {origin} {scope} {waiting} marked wrongly, stream {state}")
    if survivor.silenced != [(0,)]:
        faults.append(f"I2: capture is silenced: {survivor.silenced}")
    if survivor.forks or survivor.set_aside:
        faults.append(f"I11: forks {survivor.forks}, set aside {survivor.set_aside}")
    return faults


def kept(survivor: Survivor, promise: Promise) -> list[str]:
    """I9, I11, I17: what was told to be held or applied is, and it is that very batch."""
    stored = {tuple(row[:4]): row[4].hex() for row in survivor.batches}
    faults = []
    for (origin, epoch, scope, seq), digest in promise.held.items():
        there = stored.get((origin, epoch, scope, seq))
        if there is None:
            faults.append(f"I17: {origin} {scope} {seq} was acknowledged and is gone")
        elif there != digest:
            faults.append(f"I11: another batch is at {origin} {scope} {seq} than was shown")
    for origin, _epoch, scope, seq in promise.applied:
        if survivor.applied_seq(origin, scope) < seq:
            faults.append(f"I9: {origin} {scope} {seq} was told to be applied and is not")
    return faults


def agreed(place: Path) -> list[str]:
    """I11: where both ends have a batch at one place, it is the same."""
    mine, theirs = ({tuple(row[:4]): row[4] for row in Survivor(place / name).batches} for name in (DYING, PEER))
    return [f"I11: two batches are stored at {at}" for at in mine.keys() & theirs.keys() if mine[at] != theirs[at]]


def captured(survivor: Survivor, promise: Promise) -> list[str]:
    """I1, I2: the tables are as after some of the transactions, at least those told; the notes are exactly theirs."""
    for done, (rows, notes) in enumerate(story.STATES):
        if survivor.rows == rows:
            faults = [] if survivor.notes == notes else [f"I2: rows of {done} transactions, notes of others"]
            if done < promise.done:
                faults.append(f"I1: {promise.done} transactions were told and {done} are there")
            return faults
    return ["I2: the rows are in no state between transactions"]


def told_by_story(survivor: Survivor, is_own: bool) -> list[str]:
    """I2: rows are what the applied batches and the local edits make them; notes are there until their batch is."""
    faults = []
    numbers = [1 + sum(each.origin == coming.origin for each in COMING[:at]) for at, coming in enumerate(COMING)]
    base = {story.PARENT: 1, story.ROOT: 0}

    def is_applied(number: int) -> bool:
        origin = COMING[number].origin
        return survivor.applied_seq(origin, story.UNIT) >= base[origin] + numbers[number]

    def is_sealed(scope: str) -> bool:
        return survivor.applied_seq(story.UNIT, scope) > story.SEALED[scope]

    expected = story.after(is_applied, lambda scope: is_own or is_sealed(scope))
    if story.comparable(survivor.rows) != story.comparable(expected):
        faults.append(f"I2: the rows are not what the log says: {_difference(survivor.rows, expected)}")
    owed = {key: kinds for key, kinds in story.NOTES.items() if is_own and not is_sealed(story.scope_of(key))}
    if survivor.notes != owed:
        faults.append(f"I2: notes of {sorted(survivor.notes.keys() ^ owed.keys())} and batches do not add up")
    for origin, _epoch, scope, seq, _hash, _state, entries, _data in survivor.batches:
        if origin == story.UNIT and seq == story.SEALED.get(scope, seq) + 1 and entries != story.ENTRIES[scope]:
            faults.append(f"I2: {scope} {seq} has {entries} entries of {story.ENTRIES[scope]}")
    return faults


def _difference(rows: story.Rows, expected: story.Rows) -> list[Key]:
    one, other = story.comparable(rows), story.comparable(expected)
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
