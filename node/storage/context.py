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


@dataclass(slots=True)
class Context:
    """One node's identity and its means. ``now_ms`` is wall time; it decides nothing about merging."""

    unit: UnitPath
    epoch: Epoch
    tree_id: bytes
    sign: Signer
    salt: Salt
    now_ms: Callable[[], int]
    registries: dict[int, Registry] = field(default_factory=dict)

    @property
    def level(self) -> int:
        return level_of(self.unit)

    @property
    def root(self) -> UnitPath:
        return root_of(self.unit)
