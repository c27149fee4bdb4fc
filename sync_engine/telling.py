"""What the two sides of a session tell each other beside batches: statements, and the receipts of what they hold.

Role: compare what both know said, scope by scope; bound what a peer may say; an exchange has one of these.
Reach: frames, limits. Invariant: nothing is assumed of the peer but what it said in this session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conflict.values import Head, Scope, StreamId, UnitPath
from sync_engine.errors import LimitExceeded, Malformed
from sync_engine.frames import HeadsFrame, Receipt, Statement
from sync_engine.limits import STATEMENTS_SESSION_MAX
from sync_engine.names import is_shared

NOTHING: Mapping[Scope, bytes] = {}


@dataclass(frozen=True, slots=True)
class KeepStatements:
    """Verify what others have signed, and keep what is new."""

    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class SignReceipt:
    """Both have what the other had: sign what this node holds of these scopes, send it, then report
    ``on_receipt_sent``."""

    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class KeepReceipt:
    """Verify and keep what the peer has signed that it holds, then report ``on_receipt_kept``."""

    receipt: Receipt


class Telling:
    """One side of it. ``statements`` has by scope a digest of what this node knows said of it, ``unconfirmed`` the
    scopes for whose heads it has no receipt of the peer's."""

    def __init__(self, statements: Mapping[Scope, bytes], unconfirmed: frozenset[Scope]) -> None:
        self.statements, self.unconfirmed = dict(statements), unconfirmed
        self._wanted: set[Scope] = set()
        """What the receipt is to name: that for which the peer has none, and of which batches went over."""
        self._asked = self._has_theirs = self.has_sent = self.has_kept = False
        self._theirs: dict[Scope, bytes] = {}
        self._heard = 0

    def heads(self, held: Mapping[StreamId, Head]) -> HeadsFrame:
        """What this side names as the session begins."""
        return HeadsFrame(tuple(sorted(held.values())), tuple(sorted(self.statements.items())), self.unconfirmed)

    def on_heads(self, theirs: HeadsFrame, child: UnitPath) -> None:
        self._theirs = dict(theirs.statements)
        self._wanted |= {scope for scope in theirs.unconfirmed if is_shared(scope, child)}

    def on_moved(self, scope: Scope) -> None:
        """A batch of this scope has been sent or stored."""
        self._wanted.add(scope)

    def on_complete(self, more: frozenset[Scope] = frozenset()) -> list[SignReceipt]:
        """Nothing is left to send or to store. Once a session. ``more`` are scopes to sign for in any case."""
        if self._asked:
            return []
        self._asked = True
        return [SignReceipt(frozenset(self._wanted) | more)]

    def on_receipt(self, receipt: Receipt) -> KeepReceipt:
        """Raises Malformed."""
        if self._has_theirs:
            raise Malformed("the peer signed two receipts")
        self._has_theirs = True
        return KeepReceipt(receipt)

    @property
    def is_signed(self) -> bool:
        """Whether both have signed."""
        return self.has_sent and self.has_kept

    def on_in_step(self) -> None:
        """Both said the same at once: what they hold is signed already."""
        self._asked = self._has_theirs = self.has_sent = self.has_kept = True

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
