"""Batches that one side of a session wants back, because its own stored bytes of them are damaged.

Role: what this side asks for, and what the peer has asked for when shipping begins.
Reach: frames, names. Source: decision 0031. Invariant: asking comes before the heads, which is before anything is
shipped; a side that asks is in step with nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from conflict.values import Head, UnitPath
from sync_engine.errors import OutOfScope
from sync_engine.frames import Want
from sync_engine.names import is_shared


@dataclass(slots=True)
class Wanting:
    """``wanted`` is this side's, ``asked`` the peer's."""

    wanted: tuple[Head, ...] = ()
    asked: tuple[Head, ...] = ()

    def frames(self) -> list[Want]:
        return [Want(self.wanted)] if self.wanted else []

    def on_want(self, want: Want, child: UnitPath) -> None:
        """Kept till there is something to be sent at all. Raises OutOfScope."""
        if any(not is_shared(head.stream.scope, child) for head in want.heads):
            raise OutOfScope("the peer wants batches of a scope that does not travel here")
        self.asked = want.heads
