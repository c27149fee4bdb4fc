"""What the two sides of a session tell each other beside batches: statements, and the receipts of what they hold.

Role: compare what both know said, scope by scope; bound what a peer may say; an exchange has one of these.
Reach: frames, limits. Invariant: nothing is assumed of the peer but what it said in this session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conflict.values import Head, Scope, StreamId
from sync_engine.errors import LimitExceeded
from sync_engine.frames import HeadsFrame, Statement
from sync_engine.limits import STATEMENTS_SESSION_MAX

NOTHING: Mapping[Scope, bytes] = {}


@dataclass(frozen=True, slots=True)
class KeepStatements:
    """Verify what others have signed, and keep what is new."""

    statements: tuple[Statement, ...]


class Telling:
    """One side of it. ``statements`` has by scope a digest of what this node knows said of it."""

    def __init__(self, statements: Mapping[Scope, bytes]) -> None:
        self.statements = dict(statements)
        self._theirs: dict[Scope, bytes] = {}
        self._heard = 0

    def heads(self, held: Mapping[StreamId, Head]) -> HeadsFrame:
        """What this side names as the session begins."""
        return HeadsFrame(tuple(sorted(held.values())), tuple(sorted(self.statements.items())))

    def on_heads(self, theirs: HeadsFrame) -> None:
        self._theirs = dict(theirs.statements)

    def on_statements(self, statements: tuple[Statement, ...]) -> KeepStatements:
        """Raises LimitExceeded."""
        self._heard += len(statements)
        if self._heard > STATEMENTS_SESSION_MAX:
            raise LimitExceeded("the peer says more than it may in one session")
        return KeepStatements(statements)

    @property
    def untold(self) -> frozenset[Scope]:
        """The scopes of which this node knows other statements than the peer."""
        return frozenset(scope for scope, said in self.statements.items() if self._theirs.get(scope) != said)
