"""The keys of simulated nodes: which life a node leads, which one waits for its certificate, whom it has certified.

Role: stand in for ``home/keys`` and for what a parent notes of the lives it has certified: a file beside the database,
which goes back with it where an old image is put back, and is copied with it.
Invariant: a parent certifies one successor of each life by itself; a second one only by its operator's word.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from conflict.values import Epoch
from sync_engine.certificates import Signer
from tests.simulation.identities import IDENTITIES, Identity, first_epoch


@dataclass(frozen=True)
class Life:
    """As much of ``node.keys.Pending`` as a node needs to begin."""

    epoch: Epoch
    sign: Signer

    def signer(self) -> Signer:
        return self.sign


@dataclass
class Keys:
    """``epoch`` is certified; ``waiting``, if there is one, is what the node seals under."""

    unit: str
    path: Path
    epoch: str = ""
    waiting: str = ""
    successors: dict[str, list[str]] = field(default_factory=dict)
    """By unit and epoch of a child: the epochs certified here to come after it."""

    @classmethod
    def load(cls, unit: str, path: Path) -> Keys:
        known = json.loads(path.read_text()) if path.exists() else {"epoch": first_epoch(unit)}
        return cls(unit, path, **known)

    def save(self) -> None:
        known = {"epoch": self.epoch, "waiting": self.waiting, "successors": self.successors}
        self.path.write_text(json.dumps(known))

    @property
    def sealing(self) -> Identity:
        return IDENTITIES.of(self.unit, self.waiting or self.epoch)

    @property
    def certified(self) -> Identity:
        return IDENTITIES.of(self.unit, self.epoch)

    def request(self, epoch: str) -> Life:
        """``node.keys.request``, made ``fresh``: the keys of a new life are on the disk before it begins."""
        self.waiting = epoch
        self.save()
        return Life(Epoch(epoch), self.sealing.sign)

    def install(self) -> None:
        """The life that waited has been certified."""
        self.epoch, self.waiting = self.waiting, ""
        self.save()

    def certify(self, unit: str, former: str, epoch: str, *, by_hand: bool = False) -> bool:
        """Whether this parent certifies a child's new life, which comes after a former one."""
        known = self.successors.setdefault(f"{unit} {former}", [])
        if epoch in known:
            return True
        if known and not by_hand:
            return False
        known.append(epoch)
        self.save()
        return True
