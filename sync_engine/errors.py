"""Errors, grouped by what the catcher can do. None carries personal data.

ReplicationError          hint= says what an operator can do
├── RemoteFault           the peer sent it          -> leave that stream or link, say so, let the others go on
│   ├── Malformed, BadSignature, BadCertificate, OutOfScope, WrongTree, IncompatibleVersion, LimitExceeded, Forked,
│   │   RuleBroken
│   ├── NotYet             nobody's fault: it can be judged later -> not taken now, asked for again
│   ├── Cloned (Replaced), Revoked   this home's key has ended   -> a person decides
│   ├── NotCertifiedYet    the parent's CA key is not there      -> go on with the old certificate, ask again
│   └── Refused           the peer said no          -> tell the operator the peer's words
├── LocalFault            our store, setup or input -> stop this command, change nothing, tell the operator
│   ├── BadName, RegistryError, BadInput, BadInvitation, RowTooLarge
│   └── HomeLocked, NotSetUp, AlreadySetUp, PortTaken, DiskFull
└── LinkFault             nobody's fault            -> back off, reconnect, resume
    └── TooOften          the peer calls too often  -> call again after retry_s
"""

from __future__ import annotations

from conflict.values import Head


class ReplicationError(Exception):
    """``str(error)`` says what is wrong in one line; ``hint`` what the operator can do next."""

    default_hint = ""
    by_peer = False
    """Whether the other side said so, and not this one of it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint

    @property
    def code(self) -> str:
        """The error's stable name on the wire, in JSON and in counters."""
        return type(self).__name__


class RemoteFault(ReplicationError):
    """The peer, or an origin behind it, sent something that must not be taken."""


class Malformed(RemoteFault):
    """Bytes that do not parse, or break the format."""


class LimitExceeded(RemoteFault):
    """Larger than the protocol allows; found before memory was spent on it."""


class BadSignature(RemoteFault):
    """Bytes that match no signed header."""


class BadCertificate(RemoteFault):
    """A certificate path that does not prove the unit it claims."""


class OutOfScope(RemoteFault):
    """A stream that may not travel here, or whose origin may not write it."""


class WrongTree(RemoteFault):
    """The peer belongs to another tree."""

    default_hint = "check the address, and that the invitation came from your own parent"


class IncompatibleVersion(RemoteFault):
    """The peer speaks another major version of the protocol."""

    default_hint = "upgrade the older of the two nodes"


class RuleBroken(RemoteFault):
    """A batch that its origin did sign and that breaks a rule: its stream is left, the others go on."""

    def __init__(self, message: str, *, head: Head) -> None:
        super().__init__(message, hint=f"{head.stream.origin} must look into what its node sealed")
        self.head = head


class NotYet(RemoteFault):
    """A batch that cannot be judged before something else has come: nothing is held against anybody."""


class Forked(RemoteFault):
    """Two signed batches at one place of one stream: proof is kept, the stream is frozen."""

    default_hint = "the origin was restored from an old image or cloned: run 'dongbo recover' there"


class Cloned(RemoteFault):
    """A second key wants to follow one key: two machines run the same home, or an old copy of it was restored."""

    default_hint = (
        "switch one of the two machines off; to keep this one, ask the parent unit for an invitation ('dongbo invite"
        " LABEL --recover' there) and run 'dongbo recover --from-parent' with it here"
    )


class Replaced(Cloned):
    """Another machine has taken the unit's place: under this key nothing is taken or given any more."""

    default_hint = (
        "what is entered here stays on this machine until the operator of the parent unit lets it back ('dongbo invite"
        " LABEL --recover' there, then 'dongbo recover --from-parent' here); if the other machine is the right one,"
        " switch this one off"
    )


class Revoked(RemoteFault):
    """The parent has ended this key."""

    default_hint = (
        "ask the parent unit; it lets the unit come back with 'dongbo invite LABEL --recover', and with what that gives"
        " 'dongbo recover --from-parent' goes on"
    )


class NotCertifiedYet(RemoteFault):
    """The parent cannot sign now, because its CA key is kept elsewhere: what was asked waits there."""

    default_hint = (
        "the parent's operator must bring the CA key ('dongbo approve' there); this node asks again by itself"
    )


class Refused(RemoteFault):
    """The peer refused, in its own words."""


class LocalFault(ReplicationError):
    """Our own store, setup or input."""


class BadName(LocalFault):
    """Not a unit's name or a scope."""


class BadInput(LocalFault):
    """A value that the table may not hold."""


class BadInvitation(LocalFault):
    """An invitation that was cut, mistyped or made up."""

    default_hint = "copy the whole token again, or ask the parent unit for a new one"


class RegistryError(LocalFault):
    """The registry file is wrong; ``line`` (from 1) says where."""

    def __init__(self, message: str, *, line: int, hint: str = "") -> None:
        super().__init__(f"registry line {line}: {message}", hint=hint)
        self.line = line


class RowTooLarge(LocalFault):
    """One row over the limit: it stays local and stops nothing."""


class HomeLocked(LocalFault):
    """Another process works on this home."""


class NotSetUp(LocalFault):
    """There is no node in this home yet."""

    default_hint = "make one with 'dongbo init' (a tree's root) or 'dongbo join' (with an invitation)"


class AlreadySetUp(LocalFault):
    """There is a node in this home already."""


class PortTaken(LocalFault):
    """The address to listen on is in use."""


class DiskFull(LocalFault):
    """No space left where the node keeps its data; nothing was half-written."""

    default_hint = "free some space; the node goes on by itself"


class LinkFault(ReplicationError):
    """The link or the peer's service failed; trying again later is enough."""

    default_hint = "the node tries again by itself; check the line if it goes on"


class TooOften(LinkFault):
    """A peer that asks more than its share; ``retry_s`` says when it may call again."""

    default_hint = "the node calls again by itself, later; look for a second copy of it, or a program that calls for it"

    def __init__(self, message: str, *, hint: str = "", retry_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_s = retry_s
