"""Real nodes with a real history, and what travelled between them: the material that mutants are made of.

Role: a district ``CHILD`` (whose key the hostile ones have), its neighbour, their province and the root; batches that
are stored above, batches that come next, one frame of each kind. Nothing here is mutated.
Reach: tests.world. Invariant: one seed, one corpus, but for keys and signatures, which are new each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conflict.values import Head, UnitPath
from node.storage.certificates import path_of
from node.storage.engine import execute
from node.storage.outbox import for_peer, hello_of
from node.storage.streams import held_heads
from sync_engine.batch import SealedBatch, parse_batch
from sync_engine.frames import (
    Ack,
    BatchFrame,
    Certificates,
    Credit,
    Done,
    ForkProof,
    Frame,
    HeadsFrame,
    Refusal,
    encode,
)
from sync_engine.registry import Registry, parse_registry
from tests.world import World, WorldNode

ROOT, ABOVE, CHILD, NEIGHBOUR = "vn", "hue.vn", "phu-vang.hue.vn", "huong-tra.hue.vn"

TOML = """
version = 1
name = "hostile"
levels = ["central", "province", "district"]

[tables.person.fields]
name = { type = "text", required = true, merge = "review" }
born = { type = "date", partial = true, required = true, merge = "review" }
note = { type = "text" }
phone = { type = "text", digits = 10, read_up_to = "province" }
card = { type = "text", merge = "superior", write_from = "province" }
line = { type = "text", group = "address" }
town = { type = "text", group = "address" }
badges = { type = "set", merge = "union" }
tongues = { type = "set" }
rank = { type = "enum", values = ["low", "high"], merge = "max" }
pages = { type = "int", merge = "min" }
share = { type = "real" }
present = { type = "bool" }
met_at = { type = "timestamp", merge = "earliest" }
photo = { type = "bytes", merge = "local" }
word = { type = "code", kind = "word" }

[tables.thing]
delete = "delete"

[tables.thing.fields]
label = { type = "text", required = true }
count = { type = "int", merge = "max" }

[tables.word]
catalogue = true

[tables.word.fields]
kind = { type = "text", required = true }
text = { type = "text" }
"""

PERSON = (
    "INSERT INTO person (unit, id, name, born, note, phone, line, town, badges, tongues, rank, pages, share, present,"
    " met_at, photo, word) VALUES (?, ?, ?, '1950-02', ?, '0234000000', 'Đường Mẫu', 'Huế', '[\"30\",\"40\"]',"
    " '[\"Nga\"]', 'low', 7, 0.5, 1, '2026-01-31T23:59:59Z', x'00ff', 'w1')"
)


@dataclass
class Corpus:
    """``stored`` batches are held by those above; ``fresh`` ones of the child come next in their streams. By receiver,
    because the root does not get every chunk."""

    folder: Path
    world: World = field(init=False)
    registry: Registry = field(init=False)
    stored: dict[str, list[SealedBatch]] = field(init=False)
    fresh: dict[str, list[SealedBatch]] = field(init=False)
    neighbours: list[SealedBatch] = field(init=False)
    frames: dict[str, bytes] = field(init=False)
    paths: set[tuple[bytes, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.folder, TOML)
        self.registry = parse_registry(TOML)
        for unit in (CHILD, NEIGHBOUR):
            self.world.node(unit)
        self._first_life()
        self.world.settle(3)
        above = {unit: self._held(unit) for unit in (ROOT, ABOVE)}
        self.stored = {unit: self._batches(unit) for unit in (ROOT, ABOVE)}
        self._second_life()
        child = self.world.nodes[CHILD]
        self.fresh = {unit: [b for b in self._for(unit, child) if b.header.stream not in above[unit] or
                             b.header.seq > above[unit][b.header.stream].seq] for unit in (ROOT, ABOVE)}  # fmt: skip
        self.neighbours = [b for b in self._for(ABOVE, self.world.nodes[NEIGHBOUR]) if _is_next(b, above[ABOVE])]
        self.paths = {self.world.tree.node(unit).path for unit in (ROOT, ABOVE, CHILD, NEIGHBOUR)}
        self.frames = {name: encode(frame) for name, frame in self._frames().items()}

    def node(self, unit: str) -> WorldNode:
        return self.world.nodes[unit]

    @property
    def genuine(self) -> Mapping[bytes, SealedBatch]:
        """Every real batch by its hash, with the most chunks that anybody has."""
        known = [*self.stored[ROOT], *self.stored[ABOVE], *self.fresh[ABOVE], *self.neighbours]
        return {batch.head.hash: batch for batch in known}

    # --- history ---

    def _first_life(self) -> None:
        """What all of them have: inserts, edits of every kind, a delete, two people under one key, a conflict."""
        child, above, root = (self.world.nodes[unit] for unit in (CHILD, ABOVE, ROOT))
        for number in range(6):
            child.sql(PERSON, CHILD, str(number), f"Người {number}", None)
        child.sql("INSERT INTO thing (unit, id, label, count) VALUES (?, 't', 'Bàn', 1)", CHILD)
        child.sql("INSERT INTO word (unit, id, kind, text) VALUES (?, 'w1', 'word', 'Từ')", CHILD)
        self.world.nodes[NEIGHBOUR].sql(PERSON, NEIGHBOUR, "1", "Láng giềng", "x")
        self.world.settle(2)
        child.sql("UPDATE person SET note = 'dưới', rank = 'high', pages = 3 WHERE id = '1'")
        child.sql("UPDATE person SET badges = '[\"40\",\"50\"]', line = 'Ngõ' WHERE id = '2'")
        child.sql("DELETE FROM person WHERE id = '5'")
        child.sql(PERSON, CHILD, "both", "Hoa", None)
        above.sql(PERSON, CHILD, "both", "Huệ", "khác")
        above.sql("UPDATE person SET note = 'giữa', card = '12' WHERE id = '1'")
        root.sql("UPDATE person SET name = 'Tên khác' WHERE id = '3'")
        child.sql("UPDATE person SET name = 'Tên mới' WHERE id = '3'")

    def _second_life(self) -> None:
        """What comes next: edits below and above that know nothing of each other, sealed and not yet sent."""
        child, above, root = (self.world.nodes[unit] for unit in (CHILD, ABOVE, ROOT))
        self.world.now += 60_000
        child.sql(PERSON, CHILD, "new", "Mới", "n")
        child.sql("UPDATE person SET note = 'dưới 2', tongues = NULL, share = 2.5 WHERE id IN ('0', '1')")
        child.sql("UPDATE person SET badges = '[\"50\",\"60\"]', town = NULL WHERE id = '2'")
        child.sql("DELETE FROM person WHERE id = '4'")
        child.sql("UPDATE thing SET count = 5")
        child.sql("UPDATE word SET text = 'Từ khác'")
        above.sql("UPDATE person SET note = 'giữa 2', town = 'Đà Nẵng', badges = NULL WHERE id IN ('0', '2', '4')")
        root.sql("UPDATE person SET note = 'trên', rank = 'low' WHERE id IN ('0', '4')")
        self.world.nodes[NEIGHBOUR].sql("UPDATE person SET note = 'y'")
        for node in (child, above, root, self.world.nodes[NEIGHBOUR]):
            node.seal()

    # --- what travels ---

    def _held(self, unit: str) -> dict[Any, Head]:
        with self.world.nodes[unit].read() as connection:
            return held_heads(connection)

    def _batches(self, unit: str) -> list[SealedBatch]:
        return [parse_batch(data) for (data,) in self.world.nodes[unit].sql("SELECT data FROM _batch ORDER BY no")]

    def _for(self, unit: str, node: WorldNode) -> list[SealedBatch]:
        """A node's own batches with the chunks that ``unit`` may read."""
        own = [batch for batch in self._batches(node.unit) if batch.header.stream.origin == node.unit]
        with node.read() as connection:
            return [parse_batch(for_peer(connection, node.context, unit, batch)) for batch in own]

    def _frames(self) -> dict[str, Frame]:
        child = self.world.nodes[CHILD]
        with child.read() as connection:
            hello, held = hello_of(connection, child.context, UnitPath(CHILD), b"c" * 32)
            path = path_of(connection, UnitPath(CHILD), child.context.epoch)
            execute(connection, "SELECT 1")
        assert path is not None
        heads = tuple(sorted(held.values()))
        first, second = self.stored[ABOVE][-2:]
        return {
            "hello": hello,
            "heads": HeadsFrame(heads),
            "certificates": Certificates((path, self.world.tree.node(NEIGHBOUR).path)),
            "batch": BatchFrame(self.fresh[ABOVE][0].data),
            "known batch": BatchFrame(self.stored[ABOVE][-1].data),
            "ack": Ack(heads[:2]),
            "credit": Credit(1 << 24),
            "refusal": Refusal(heads[0], "không nhận"),
            "fork": ForkProof((first.header_bytes, first.signature), (second.header_bytes, second.signature)),
            "done": Done(),
        }


def _is_next(batch: SealedBatch, held: Mapping[Any, Head]) -> bool:
    head = held.get(batch.header.stream)
    return head is None or batch.header.seq > head.seq
