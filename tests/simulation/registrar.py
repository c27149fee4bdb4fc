"""A registry change in mid-run: the root publishes, some nodes' operators bring it into force when they like.

Role: publish as a plain program does, apply as ``dongbo registry apply`` does; what must hold of versions in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from node.storage.engine import execute
from node.storage.inbox import SealFirst
from node.storage.publishing import bring_newest
from node.storage.registries import newest_fit
from tests.simulation.checks import require
from tests.simulation.model import NEXT_TOML
from tests.simulation.process import Process
from tests.simulation.swarm import Swarm


class Registrar:
    """``count`` is told what happened, ``say`` as well. The root is the first of ``nodes``."""

    def __init__(
        self,
        rng: Random,
        swarm: Swarm,
        nodes: Mapping[str, Process],
        count: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.rng, self.swarm, self.nodes, self.count, self.say = rng, swarm, nodes, count, say

    def appoint(self, unit: str) -> None:
        """Some operators want to be asked before tables change."""
        if "registry published" in self.swarm.rates and self.rng.random() < 0.5:
            self.nodes[unit].by_hand = True

    def turn(self, guarded: Callable[[Process, Callable[[], object]], None]) -> None:
        """The changes of one turn; ``guarded`` runs what a crash may end."""
        if "registry published" not in self.swarm.rates:
            return
        root = next(iter(self.nodes.values()))
        if self.swarm.happens(self.rng, "registry published") and root.is_up and not self._is_written(root):
            self.say(f"{root.unit} publishes the next registry")
            guarded(root, lambda: self._publish(root))
        late = [node for node in self.nodes.values() if node.by_hand and node.is_up]
        if late and self.swarm.happens(self.rng, "registry applied"):
            node = self.rng.choice(late)
            guarded(node, lambda: self._apply(node))

    def _is_written(self, root: Process) -> bool:
        return len(root.query("SELECT 1 FROM _registry")) > 1

    def _publish(self, root: Process) -> None:
        sql = "INSERT INTO _registry (unit, id, toml) VALUES (?, '2', ?)"
        root.write(execute, sql, (root.unit, NEXT_TOML))
        self.count("registry published")

    def _apply(self, node: Process) -> None:
        newest = node.read(newest_fit, node.context)
        if newest is None:
            return
        self._count_waiting(node)
        try:
            node.write(bring_newest, node.context, (1, newest.version))
        except SealFirst:
            return
        self.say(f"{node.unit} brings registry version {newest.version} into force")
        self.count("registry applied late")

    def _count_waiting(self, node: Process) -> None:
        if node.query("SELECT 1 FROM _batch WHERE state = 'waiting' AND registry = 2"):
            self.count("batch waited for a registry")

    def end(self) -> None:
        """Nobody wants to be asked any more."""
        for node in self.nodes.values():
            if node.by_hand:
                self._count_waiting(node)
            node.by_hand = node.context.registry_by_hand = False

    def check(self) -> None:
        """Once published, the version is in force everywhere."""
        found = {node.query("SELECT value FROM _meta WHERE key = 'registry'")[0][0] for node in self.nodes.values()}
        require(len(found) == 1, lambda: f"I16: registry versions {sorted(found)} are in force")
