"""The audit chain: what people and nodes did here, each record bound to all before it.

Role: name the acts, link records, tell where a chain was changed or cut.
Reach: msgpack and the standard library. Source: decision 0028. Invariant: a record's hash covers the hash before it, so
whoever knows one hash knows the whole chain up to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

import msgspec

TAG = b"dongbo/audit/1\0"
NOTHING_BEFORE = bytes(32)
NO_BYTES = 8
AUDIT_HEAD_BYTES = NO_BYTES + 32
DONE = "done"
BEGUN = "begun"
SERVICE = "service"


class Act(StrEnum):
    """What is recorded. The words are for ever: they stand in chains."""

    INIT = "init"
    JOIN = "join"
    INVITE = "invite"
    ENROL = "enrol"
    LOAD = "load"
    DUMP = "dump"
    RESOLVE = "resolve"
    OVERTURN = "overturn"
    RENAME = "rename"
    RELEASE = "release"
    UNDO = "undo"
    RELEASE_HELD = "release-held"
    REFUSE_HELD = "refuse-held"
    PUBLISH = "registry-publish"
    APPLY = "registry-apply"
    BATCH_REFUSED = "batch-refused"
    CERTIFICATE_REFUSED = "certificate-refused"
    CALL_REFUSED = "call-refused"
    FENCE = "fence"
    NEW_LIFE = "new-life"
    RECOVER = "recover"
    APPROVE = "recover-approve"
    RESTORE = "restore"
    ROTATE = "rotate"
    RENEW = "renew"
    REVOKE = "revoke"
    BACKUP = "backup"
    EXPORT = "bundle-export"
    IMPORT = "bundle-import"
    REPAIR = "repair"
    CONFIG = "config"
    START = "start"
    STOP = "stop"


LOSES_HISTORY = frozenset({Act.NEW_LIFE, Act.RECOVER, Act.RESTORE})
"""After these an older copy of the chain goes on: what was signed of the one before cannot be in it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One act. ``subject`` is JSON with sorted keys and names units, tables, numbers and files, never a person whose
    record it is; ``by`` is who did it; ``outcome`` is 'done', 'begun' or the code of the error it ended with."""

    no: int
    time_ms: int
    act: str
    subject: str
    by: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Link:
    record: Record
    hash: bytes


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a node once signed as the last link of its chain, where others hold it. Times are the signer's."""

    unit: str
    epoch: str
    no: int
    hash: bytes
    signed_ms: int


def link(before: bytes, record: Record) -> bytes:
    """The record's hash, after the hash ``before``."""
    fields = [record.no, record.time_ms, record.act, record.subject, record.by, record.outcome]
    return sha256(TAG + before + msgspec.msgpack.encode(fields)).digest()


def head_to_wire(no: int, digest: bytes) -> bytes:
    """The chain's end as a heartbeat carries it: with its number, a cut can be told from a change."""
    return no.to_bytes(NO_BYTES) + digest


def head_from_wire(data: bytes) -> tuple[int, bytes] | None:
    """None for bytes that are no head."""
    if len(data) != AUDIT_HEAD_BYTES:
        return None
    return int.from_bytes(data[:NO_BYTES]), data[NO_BYTES:]


@dataclass(frozen=True, slots=True)
class Fault:
    """``kind``: changed, missing, cut (against an anchor) or rewritten (against an anchor)."""

    no: int
    kind: str


@dataclass(slots=True)
class Walk:
    """Proves a chain from its beginning, link by link. A break is told once: what stands after it is measured by what
    is stored before it."""

    anchors: Iterable[Anchor] = ()
    no: int = 0
    hash: bytes = NOTHING_BEFORE
    faults: list[Fault] = field(default_factory=list)
    _wanted: set[int] = field(default_factory=set)
    _met: dict[int, bytes] = field(default_factory=dict)
    _renewed_ms: int = -1

    def __post_init__(self) -> None:
        self.anchors = tuple(self.anchors)
        self._wanted = {each.no for each in self.anchors}

    def add(self, each: Link) -> None:
        if each.record.no != self.no + 1:
            self.faults.append(Fault(self.no + 1, "missing"))
        elif link(self.hash, each.record) != each.hash:
            self.faults.append(Fault(each.record.no, "changed"))
        self.no, self.hash = each.record.no, each.hash
        if self.no in self._wanted:
            self._met[self.no] = self.hash
        if each.record.act in LOSES_HISTORY:
            self._renewed_ms = max(self._renewed_ms, each.record.time_ms)

    def judged(self) -> list[tuple[Anchor, str]]:
        """Each anchor with what it says: holds, cut, rewritten, or 'former' where a restore since then is on record."""
        return [(each, self._judge(each)) for each in self.anchors]

    def _judge(self, anchor: Anchor) -> str:
        if anchor.no == 0 or self._met.get(anchor.no) == anchor.hash:
            return "holds"
        if self._renewed_ms >= anchor.signed_ms:
            return "former"
        return "cut" if anchor.no > self.no else "rewritten"
