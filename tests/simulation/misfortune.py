"""What befalls a simulated tree from one turn to the next: crashes, clocks, lines, old images, copies, lost disks.

Role: draw the faults of one turn and bring them about. Faults of single frames are the line's (link.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sync_engine.names import parent_of
from tests.simulation.following import Followed, Observer
from tests.simulation.forest import BEGAN_MS
from tests.simulation.link import Line
from tests.simulation.process import Process
from tests.simulation.swarm import YEAR_MS, Swarm
from tests.simulation.truth import NodeTruth, Truth

JUMPS_MS = (-10 * YEAR_MS, 10 * YEAR_MS, -BEGAN_MS, 0, 60_000, -60_000)
IMAGES = 3
"""Old copies that are kept of one machine."""
COPIES = 2
"""Machines that may be made from others in one run."""


@dataclass
class Image:
    """A copy of a node's files, and what was true of it then."""

    files: dict[str, bytes]
    truth: NodeTruth
    followed: Followed
    forks: int
    """How many places had two batches then."""


@dataclass
class Misfortune:
    """``stop`` ends a machine's process for some turns; ``add`` makes another machine for a unit, under a name;
    ``count`` and ``say`` are told of each fault."""

    rng: Random
    swarm: Swarm
    nodes: dict[str, Process]
    lines: dict[str, Line]
    truth: Truth
    observer: Observer
    stop: Callable[[str], None]
    add: Callable[[str, str], Process]
    count: Callable[[str], None]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.images: dict[str, list[Image]] = {}
        self.coming: dict[str, int] = {}
        """By machine: disasters that are still to come over it."""
        self.turn = 0
        self.copies = 0

    def strike(self, turn: int) -> None:
        """The faults of one turn."""
        self.turn = turn
        node = self.nodes[self.rng.choice(sorted(self.nodes))]
        self._light_a_fuse(node)
        self._turn_the_clock(node)
        self._trouble_a_line(self.rng.choice(sorted(self.lines)))
        if node.is_up and (node.name not in self.images or self.rng.random() < 0.2) and self._happens("image"):
            self._take_image(node)
        if self._happens("restore"):
            self._disaster_somewhere()
        if self._happens("lost"):
            self._lose(self.nodes[self.rng.choice([name for name in sorted(self.nodes) if self._has_parent(name)])])
        if self._happens("copied"):
            self._copy()
        for name in [name for name in self.coming if name in self.nodes]:
            if self.rng.random() < 0.2:
                self._next_disaster(name)

    def _has_parent(self, name: str) -> bool:
        return parent_of(self.nodes[name].unit) is not None

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
            self.say(f"{node.name}'s clock is off by {node.skew_ms} ms")

    def _trouble_a_line(self, child: str) -> None:
        line = self.lines[child]
        if self._happens("slow line"):
            line.slow = self.rng.choice([1, 4])
            self.count("slow line")
        if self._happens("partition"):
            line.blocked = set(self.rng.choice([[], line.ends[:1], line.ends[1:], line.ends]))

    # --- old copies ---

    def _image(self, node: Process) -> Image:
        forks = sum(len(batches) > 1 for batches in self.observer.places.values())
        return Image(node.image(), self.truth.nodes[node.name].copy(), self.observer.of(node).copy(), forks)

    def _take_image(self, node: Process) -> None:
        kept = self.images.setdefault(node.name, [])
        kept.append(self._image(node))
        if len(kept) > IMAGES:
            kept.pop(self.rng.randrange(IMAGES))

    def _loses_history(self, name: str, image: Image) -> bool:
        """Whether a node has sealed since: only then is anything wrong with its image."""
        unit = self.nodes[name].unit
        then, now = (
            sum(stream[0] == unit for stream in followed.stored.values())
            for followed in (image.followed, self.observer.followed[name])
        )
        return then < now

    def _disaster_somewhere(self) -> None:
        """An old image is put back, of its neighbour as well where that is drawn."""
        known = [(name, image) for name in sorted(self.images) if name in self.nodes for image in self.images[name]]
        if not known:
            return
        name, image = self.rng.choice([each for each in known if self._loses_history(*each)] or known)
        self._restore(name, image)
        if self._happens("in a row"):
            self.coming[name] = 2
        above = parent_of(self.nodes[name].unit)
        if above in self.images and above in self.nodes and self._happens("both"):
            self._restore(above, self.rng.choice(self.images[above]))
            self.count("restored with its parent")

    def _next_disaster(self, name: str) -> None:
        """Another one over a machine that has not got over the last."""
        self.coming[name] -= 1
        if not self.coming[name]:
            del self.coming[name]
            self.count("three in a row")
        if self.rng.random() < 0.3 and self._has_parent(name):
            self._lose(self.nodes[name])
        elif self.images.get(name):
            self._restore(name, self.rng.choice(self.images[name]))

    def _restore(self, name: str, image: Image) -> None:
        """Put an old image back. Where what was there is kept as an image, too, two lives of one node take turns, as on
        two machines that were made from one image."""
        node = self.nodes[name]
        self.stop(name)
        if self._happens("clone") and not node.is_blank:
            self._take_image(node)
            self.count("clone")
        self.count("restore")
        if not self._has_parent(name):
            self.count("restored root")
        elif any(parent_of(other.unit) == node.unit for other in self.nodes.values()):
            self.count("restored parent")
        if image.truth.windows:
            self.count("restored with edits unsealed")
        if image.forks < sum(len(batches) > 1 for batches in self.observer.places.values()):
            self.count("restored from before a fork")
        if self._happens("alone"):
            node.alone_until = self.turn + self.rng.randint(20, 60)
            self.count("restored and alone")
        self.say(f"{name} is restored from an old copy")
        node.restore(image.files)
        node.is_blank = False
        self._goes_back(node, image.truth.copy(), image.followed.copy())

    def _goes_back(self, node: Process, truth: NodeTruth, followed: Followed) -> None:
        self.truth.nodes[node.name], self.observer.followed[node.name] = truth, followed
        self.observer.restored.add(node.unit)

    # --- copies and lost disks ---

    def _lose(self, node: Process) -> None:
        """A disk is gone. The operator rebuilds the node, as soon as its parent is there."""
        self.stop(node.name)
        self.count("lost disk")
        self.say(f"the disk of {node.name} is lost")
        node.is_blank = True
        self._goes_back(node, NodeTruth(), Followed())

    def _copy(self) -> None:
        """A home is copied, and run on another machine as well."""
        units = [node.unit for node in self.nodes.values()]
        single = [name for name in sorted(self.nodes) if units.count(self.nodes[name].unit) == 1]
        single = [name for name in single if self._has_parent(name) and not self.nodes[name].is_blank]
        if self.copies == COPIES or not single:
            return
        node = self.nodes[self.rng.choice(single)]
        self.copies += 1
        twin = self.add(node.unit, f"{node.unit}+{self.copies}")
        twin.restore(node.image())
        twin.down_until = self.turn + self.rng.randint(1, 10)
        self._goes_back(twin, self.truth.nodes[node.name].copy(), self.observer.of(node).copy())
        self.count("copied")
        self.say(f"{twin.name} is made from {node.name}")
