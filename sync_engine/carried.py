"""One side of a session that is written down and carried by hand: the exchange without answers.

Role: say what goes into a bundle, and what the frames of one mean, where the peer hears of it weeks later or never.
Reach: exchange, frames. Source: docs/decisions/0034. Invariant: what the peer holds is what it has signed for; nothing
counts as delivered because it was written into a file.

What is read comes from a bundle of the peer's or, where there is none, from what its last receipt names: its heads,
then Done. What is sent goes into the bundle that is carried back. So ``export`` is a session with a peer that only
repeats what it said last, and ``import`` one with a peer that says all that a file holds and hears the answer later.
"""

from __future__ import annotations

from conflict.values import Head
from sync_engine.errors import LimitExceeded, Malformed
from sync_engine.exchange import Effect, Exchange, Finish, PeerHeard, PeerRefused, Send, Store
from sync_engine.frames import Ack, Chain, Credit, Done, Frame, Hello, Refusal


class CarriedExchange(Exchange):
    """As ``Exchange``, for one side of a session that has no other side now."""

    def start(self) -> list[Effect]:
        """Both sides introduce themselves at once."""
        wants = [Send(want) for want in self.wanting.frames()]
        return [Send(self.hello), *wants, Send(self.telling.heads(self.held))]

    def on_frame(self, frame: Frame) -> list[Effect]:
        """Raises a RemoteFault where the bundle breaks the protocol."""
        if isinstance(frame, Ack | Credit):
            return []
        return super().on_frame(frame)

    def on_stored(self, head: Head | None, size: int) -> list[Effect]:
        """What a receipt names needs no ack, and nobody waits for credit."""
        del size
        self._storing -= 1
        if head is not None:
            self.telling.on_moved(head.stream.scope)
        return self._finish_if_due()

    def may_send(self, size: int) -> bool:
        """A disk has the room that was looked for before."""
        del size
        return True

    def on_sent(self, head: Head, size: int, *, again: bool = False) -> None:
        """Nobody acknowledges it."""
        super().on_sent(head, size, again=again)
        self._unacked.clear()

    @property
    def is_complete(self) -> bool:
        """Whether all that was written for this node is stored, and all that the peer lacks has been written."""
        return self._compared and self._shipped and self._peer_done and not (self._storing or self.branches.is_shipping)

    def on_shipped(self) -> list[Effect]:
        self._shipped = True
        return self._finish_if_due()

    def on_receipt_sent(self) -> list[Effect]:
        """The receipt is the last but one: only what stands before it has been stored."""
        self.telling.has_sent = True
        return [Send(Done()), Finish()]

    def on_receipt_kept(self) -> list[Effect]:
        return []

    def _check_introduced(self, frame: Frame) -> None:
        """For a peer that is not heard now its last receipt speaks, which names heads alone."""

    def _on_hello(self, theirs: Hello) -> list[Effect]:
        if self.peer_hello is not None:
            raise Malformed("a bundle introduces its sender twice")
        self._meet(theirs)
        return [PeerHeard(theirs)]

    def _on_batch(self, data: bytes) -> list[Effect]:
        if not self._compared:
            raise LimitExceeded("a bundle holds batches before it names heads")
        self._storing += 1
        return [Store(data)]

    def _on_refusal(self, refusal: Refusal) -> list[Effect]:
        """It was sent with another bundle, of which nothing is remembered here."""
        return [PeerRefused(refusal.head, refusal.reason)]

    def _on_chain(self, chain: Chain) -> list[Effect]:
        """What answers a chain goes into the bundle that is carried back; nobody waits for it here."""
        return [*self.branches.on_chain(chain)]

    def _finish_if_due(self) -> list[Effect]:
        if not self.is_complete:
            return []
        return [*self.telling.on_complete(frozenset(head.stream.scope for head in self.held.values()))]
