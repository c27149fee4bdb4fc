"""What befalls a simulated tree from one turn to the next: crashes, clocks, lines, old images, clones.

Role: draw the faults of one turn and bring them about. Faults of single frames are the line's (link.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sync_engine.names import parent_of
from tests.simulation.checks import Followed, Observer
from tests.simulation.forest import BEGAN_MS
from tests.simulation.link import Line
from tests.simulation.process import Process
from tests.simulation.swarm import YEAR_MS, Swarm
from tests.simulation.truth import NodeTruth, Truth

JUMPS_MS = (-10 * YEAR_MS, 10 * YEAR_MS, -BEGAN_MS, 0, 60_000, -60_000)


@dataclass
class Image:
    """A copy of a node's files, and what was true of it then."""

    files: dict[str, bytes]
    truth: NodeTruth
    followed: Followed


@dataclass
class Misfortune:
    """``stop`` ends a node's process for some turns; ``count`` and ``say`` are told of each fault."""

    rng: Random
    swarm: Swarm
    nodes: dict[str, Process]
    lines: dict[str, Line]
    truth: Truth
    observer: Observer
    stop: Callable[[str], None]
    count: Callable[[str], None]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.images: dict[str, Image] = {}

    def strike(self) -> None:
        """The faults of one turn."""
        node = self.nodes[self.rng.choice(sorted(self.nodes))]
        self._light_a_fuse(node)
        self._turn_the_clock(node)
        self._trouble_a_line(self.rng.choice(sorted(self.lines)))
        if node.is_up and (node.unit not in self.images or self.rng.random() < 0.2) and self._happens("image"):
            self.images[node.unit] = self._image(node)
        if self.images and self._happens("restore"):
            older = [unit for unit, image in sorted(self.images.items()) if self._loses_history(unit, image)]
            self._restore(self.rng.choice(older or sorted(self.images)))

    def _loses_history(self, unit: str, image: Image) -> bool:
        """Whether a node has sealed since: only then is anything wrong with its image."""
        then, now = (
            sum(stream[0] == unit for stream in followed.stored.values())
            for followed in (image.followed, self.observer.followed[unit])
        )
        return then < now

    def _happens(self, fault: str) -> bool:
        return self.swarm.happens(self.rng, fault)

    def _light_a_fuse(self, node: Process) -> None:
        if node.is_up and node.fuse is None and self._happens("crash"):
            cuts_power = self._happens("power cut")
            node.light(self.rng.randint(1, 20 if cuts_power else 120), cuts_power=cuts_power)

    def _turn_the_clock(self, node: Process) -> None:
        if self._happens("clock"):
            node.skew_ms = self.rng.choice(JUMPS_MS)
            self.count("clock jump" if node.skew_ms else "clock set right")
            self.say(f"{node.unit}'s clock is off by {node.skew_ms} ms")

    def _trouble_a_line(self, child: str) -> None:
        line = self.lines[child]
        if self._happens("slow line"):
            line.slow = self.rng.choice([1, 4])
            self.count("slow line")
        if self._happens("partition"):
            ends = [child, str(parent_of(child))]
            line.blocked = set(self.rng.choice([[], ends[:1], ends[1:], ends]))

    def _image(self, node: Process) -> Image:
        followed = self.observer.followed.setdefault(node.unit, Followed()).copy()
        return Image(node.image(), self.truth.nodes[node.unit].copy(), followed)

    def _restore(self, unit: str) -> None:
        """Put an old image back. Where what was there is kept as the next image, two lives of one node take turns, as
        on two machines that were made from one image."""
        image, node = self.images[unit], self.nodes[unit]
        self.stop(unit)
        if self._happens("clone"):
            self.images[unit] = self._image(node)
            self.count("clone")
        self.count("restore")
        self.say(f"{unit} is restored from an old copy")
        node.restore(image.files)
        self.truth.nodes[unit] = image.truth.copy()
        self.observer.followed[unit] = image.followed.copy()
        self.observer.restored.add(unit)
