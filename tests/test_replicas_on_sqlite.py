"""Any interleaving ends equal, on real nodes with real SQLite files: capture, sealing, both paths of applying, digests.

Fewer histories than ``test_replicas``, and nothing of theirs is left out.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.storage.digests import digest_scope
from node.storage.engine import execute, open_engine
from node.storage.outbox import for_peer
from node.storage.registers import read_rows
from node.storage.streams import applied_heads
from sync_engine.batch import SealedBatch, parse_batch
from sync_engine.fields import to_sql
from tests.forging import Stream
from tests.pki import Tree
from tests.replicas import DEPTH, SCOPE, TOML, UNITS, VALUES, Replica, registry_of
from tests.world import World, WorldNode

SEEDS = int(os.environ.get("EXAMPLES", "150")) // 10
REGISTRY = registry_of()
THING = REGISTRY.tables["thing"]


@dataclass
class Forest:
    """Nodes copied from a template, and every batch that they sealed in the scope since."""

    world: World
    folder: Path
    seed: int
    nodes: dict[str, WorldNode] = field(default_factory=dict)
    log: list[tuple[WorldNode, SealedBatch]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = Random(self.seed)
        for unit in UNITS:
            path = self.folder / f"{unit}-{self.seed}.db"
            template = self.world.nodes[unit]
            shutil.copy(template.path, path)
            self.nodes[unit] = WorldNode(unit, template.context, open_engine(path), path, template.certificate)

    def write(self, node: WorldNode) -> None:
        """What a program of that level may do to one of two keys."""
        key, role = self.chance.choice("12"), Replica(node.unit, REGISTRY)
        there = node.sql("SELECT 1 FROM thing WHERE unit = ? AND id = ?", SCOPE, key)
        fields = [each for each in THING.fields if role.may_read(THING.register_of(each.name))]
        if not there:
            chosen = [each for each in fields if each.required or self.chance.random() < 0.6]
            names = ", ".join(each.name for each in chosen)
            marks = ", ".join("?" * (len(chosen) + 2))
            node.sql(f"INSERT INTO thing (unit, id, {names}) VALUES ({marks})", SCOPE, key, *self.values(chosen))
        elif self.chance.random() < 0.2:
            node.sql("DELETE FROM thing WHERE unit = ? AND id = ?", SCOPE, key)
        else:
            free = [each for each in fields if role.may_change(THING.register_of(each.name))]
            chosen = self.chance.sample(free, self.chance.randint(1, 4))
            sets = ", ".join(f"{each.name} = ?" for each in chosen)
            node.sql(f"UPDATE thing SET {sets} WHERE unit = ? AND id = ?", *self.values(chosen), SCOPE, key)

    def values(self, fields: list[Any]) -> list[Any]:
        return [to_sql(each, [self.chance.choice(VALUES[each.name])])[0] for each in fields]

    def seal(self, node: WorldNode) -> None:
        known = {batch.head.hash for _, batch in self.log}
        node.seal()
        for (data,) in node.sql("SELECT data FROM _batch ORDER BY no"):
            batch = parse_batch(data)
            mine = batch.header.stream.origin == node.unit and batch.header.stream.scope == SCOPE
            if mine and batch.head.hash not in known and any(s.table == "thing" for s in batch.header.sections):
                self.log.append((node, batch))

    def hear(self, node: WorldNode, part: float) -> None:
        """Batches in any order with repeats: what comes too early waits or is dropped, and comes again."""
        for origin, batch in self.chance.choices(self.log, k=len(self.log)) if part < 1 else self.shuffled():
            if origin is not node and self.chance.random() < part:
                with origin.read() as connection:
                    data = for_peer(connection, origin.context, node.unit, batch)
                node.take(data)
                self.seal(node)

    def shuffled(self) -> list[tuple[WorldNode, SealedBatch]]:
        return self.chance.sample(self.log, len(self.log))

    def end(self) -> None:
        for node in self.nodes.values():
            self.seal(node)
        heads = set()
        while len(heads) != 1 or len(next(iter(heads))) < len({batch.header.stream for _, batch in self.log}):
            for node in self.nodes.values():
                self.hear(node, 1.0)
            heads = {frozenset(self.applied(node)) for node in self.nodes.values()}

    def applied(self, node: WorldNode) -> list[Any]:
        with node.read() as connection:
            return applied_heads(connection, SCOPE)

    def shows(self, node: WorldNode, level: int) -> Any:
        """Digests, rows and open conflicts of what ``level`` may read too."""
        may = [each for each in THING.registers if THING.may_read(each, level, DEPTH)]
        names = {"_alive", *(each.name for each in may)}
        with node.read() as connection:
            columns = digest_scope(connection, node.context, SCOPE).columns
            rows = read_rows(connection, THING, SCOPE, ["1", "2"])
            conflicts = execute(
                connection,
                "SELECT number, id, identity, field, state FROM _conflict WHERE live = 1 ORDER BY number",
            ).all()
        fields = [each.name for register in may for each in register.fields]
        return (
            {name: value for name, value in columns.items() if name.removeprefix("thing.") in names},
            {key: {name: row[name] for name in fields} for key, row in rows.items()},
            [tuple(each) for each in conflicts if each[3].partition(":")[0] in names],
        )


@pytest.fixture(name="template", scope="module")
def template_fixture(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(
        tmp_path_factory.mktemp("template"), TOML.format(delete="review"), tree=Tree("a", deepest_level=DEPTH)
    )
    world.node(SCOPE)
    world.settle(2)
    for node in world.nodes.values():
        for unit in UNITS:
            Stream(world, unit, SCOPE).certify(node)
        with node.write() as connection:
            execute(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (SCOPE,))
        node.engine.dispose()
    return world


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_interleaving_of_real_nodes_ends_equal(template: World, tmp_path: Path, seed: int) -> None:
    forest = Forest(template, tmp_path, seed)
    nodes = list(forest.nodes.values())
    for _ in range(forest.chance.randint(5, 30)):
        template.now += forest.chance.randrange(1_000)
        node = forest.chance.choice(nodes)
        match forest.chance.randrange(6):
            case 0:
                forest.seal(node)
            case 1 | 2:
                forest.seal(node)
                forest.hear(node, 0.7)
            case _:
                forest.write(node)
    forest.end()
    for one, other in combinations(nodes, 2):
        level = min(one.context.level, other.context.level)
        assert forest.shows(one, level) == forest.shows(other, level)
    for node in nodes:
        node.engine.dispose()
