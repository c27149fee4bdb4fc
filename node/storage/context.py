"""Who this node is, for the functions that seal and apply.

Role: identity, chance and time as arguments, and the registry versions read so far.
Reach: sync_engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from conflict.values import Epoch, UnitPath, level_of
from sync_engine.certificates import Signer
from sync_engine.entries import Salt
from sync_engine.names import root_of
from sync_engine.registry import Registry

NO_REGISTRY = Registry(0, "", sha256(b"").digest(), (), {})
"""What a node knows before it has been given a registry: the built-in tables."""


@dataclass(frozen=True, slots=True)
class BrakeRule:
    """What one sealing may do to a scope before a person is asked: change one field of, or delete, at most ``share``
    of a table's rows; fewer than ``rows_min`` never matter."""

    share: float = 0.05
    rows_min: float = 50

    def is_too_much(self, rows: int, of: int) -> bool:
        return rows >= self.rows_min and rows > self.share * of


@dataclass(slots=True)
class Context:
    """One node's identity and its means. ``now_ms`` is wall time; it decides nothing about merging."""

    unit: UnitPath
    epoch: Epoch
    tree_id: bytes
    sign: Signer
    salt: Salt
    now_ms: Callable[[], int]
    proven: tuple[Epoch, Signer] | None = None
    """While nobody can prove the present life, because its key waits for its certificate: the one before it."""
    registries: dict[int, Registry] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    """Versions that this software is too old to read, each with what it stumbled over."""
    registry_by_hand: bool = False
    """Whether a newer version of the registry waits here till an operator brings it into force."""
    brake: BrakeRule = BrakeRule()
    journal_days: float = 400
    """How long the journal keeps what has ended."""
    overwritten_hours: float = 24
    """For how long after a value has come a local edit that replaces it is noted."""
    heartbeat_hours: float = 24
    """This node signs how far its streams go at least this often."""
    withheld_hours: float = 24
    """What others have signed for, and signs of life, are missed after so long."""
    is_signing: bool = False
    """Whether a round of heartbeats is under way in this process."""

    @property
    def speaks_as(self) -> tuple[Epoch, Signer]:
        """Under which epoch this node speaks to its neighbours, and signs what it tells them."""
        return self.proven or (self.epoch, self.sign)

    @property
    def level(self) -> int:
        return level_of(self.unit)

    @property
    def root(self) -> UnitPath:
        return root_of(self.unit)
