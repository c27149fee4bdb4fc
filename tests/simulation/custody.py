"""Which machine is a unit's node, and which of its lives counts: certifying, refusing, and the operators who decide.

Role: stand in for ``Renew`` and for ``dongbo invite --recover``: a node whose life is not certified asks its parent
before a session; of two machines that are one node the operators approve the second, or switch one of them off.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from random import Random

from sync_engine.names import parent_of
from tests.simulation.process import Process


class Custody:
    """``nodes`` by the names of the machines. ``switch_off`` takes a machine away for ever; ``count`` and ``say`` are
    told of what was decided."""

    def __init__(
        self,
        rng: Random,
        nodes: MutableMapping[str, Process],
        switch_off: Callable[[Process], None],
        count: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.rng, self.nodes, self.switch_off, self.count, self.say = rng, nodes, switch_off, count, say

    def machines(self, unit: str) -> list[Process]:
        return [node for node in self.nodes.values() if node.unit == unit]

    def any_of(self, unit: str) -> Process:
        """The machine that is met under a unit's address just now."""
        found = self.machines(unit)
        return found[0] if len(found) == 1 else self.rng.choice(found)

    def doubled(self) -> list[str]:
        """The units that have two machines."""
        units = [node.unit for node in self.nodes.values()]
        return sorted({unit for unit in units if units.count(unit) > 1})

    def certify(self, node: Process, parent: Process | None) -> None:
        """What a node does before a session, if it has begun a life that nobody has certified yet."""
        if not node.keys.waiting:
            return
        former, epoch = node.keys.epoch, node.keys.waiting
        if parent is not None and not parent.keys.certify(node.unit, former, epoch):
            if not node.is_refused:
                self.count("refused successor")
                self.say(f"{parent.name} has certified another life of {node.unit} than that of {node.name}")
            node.is_refused = True
            return
        node.install()
        self.count("certified")
        self.say(f"{node.name} is certified: {former[:4]} becomes {epoch[:4]}")

    def decide(self, *, at_once: bool = False) -> None:
        """The operators look at what was refused. Where there is but one machine it is the right one."""
        for node in [node for node in self.nodes.values() if node.is_refused]:
            others = [each for each in self.machines(node.unit) if each is not node]
            if others and not at_once and self.rng.random() < 0.5:
                self.switch_off(self.rng.choice([node, *others]))
            else:
                self.approve(node)

    def approve(self, node: Process) -> None:
        """``invite --recover``: this life, too, comes after the one that it had."""
        if not node.keys.waiting:
            return
        for parent in self.machines(str(parent_of(node.unit))):
            parent.keys.certify(node.unit, node.keys.epoch, node.keys.waiting, by_hand=True)
        node.is_refused = False
        self.count("approved")
        self.say(f"the operator approves {node.name}")

    def rebuild(self, node: Process) -> bool:
        """``recover --from-parent``: a home made anew; whether the parent was there to approve it."""
        above = [each for each in self.machines(str(parent_of(node.unit))) if each.is_up]
        if not above:
            return False
        former = node.keys.epoch
        node.rebuild()
        self.rng.choice(above).keys.certify(node.unit, former, node.keys.epoch, by_hand=True)
        self.count("rebuilt")
        self.say(f"{node.name} is rebuilt from nothing: {former[:4]} becomes {node.keys.epoch[:4]}")
        return True
