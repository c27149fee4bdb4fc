"""The keys of simulated nodes: which life a node leads, and which one waits for its certificate.

Role: stand in for ``home/keys``: a file beside the database, which goes back with it where an old image is put back,
and is copied with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
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

    @classmethod
    def load(cls, unit: str, path: Path) -> Keys:
        known = json.loads(path.read_text()) if path.exists() else {"epoch": first_epoch(unit)}
        return cls(unit, path, **known)

    def save(self) -> None:
        self.path.write_text(json.dumps({"epoch": self.epoch, "waiting": self.waiting}))

    @property
    def tree_id(self) -> bytes:
        return IDENTITIES.tree_id

    def signer(self) -> Signer:
        """As ``node.keys.KeyStore`` has it: that of the certificate in place."""
        return self.certified.sign

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

    def install(self, life: Identity) -> None:
        """A life that waited has been certified. It may have been left since for another one."""
        waits = self.waiting == life.epoch
        self.epoch, self.waiting = life.epoch, "" if waits else self.waiting
        self.save()
