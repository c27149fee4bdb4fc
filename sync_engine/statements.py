"""What one node signs for all whom it concerns: heartbeats, handovers, revocations, what is lost, encryption keys.

Role: encode and decode their bodies, bounded; say in which scope each travels, who may sign it, and prove that.
Reach: the generated protobuf, frames, certificates. Source: protocol, "Exchange". Invariant: a statement is kept and
passed on as the bytes that were signed; nothing here looks at a clock.

A ``Statement`` is bytes with a tag; ``parse`` makes a ``Heartbeat``, ``Handover``, ``Revocation``, ``Lost`` or
``EncryptionKey`` of it,
``body_of`` the bytes to sign. Each travels like the batches of one scope (``scope_of``): a heartbeat is about one
scope, so that it shows no heads to who may not know them; what is about a unit's key travels like that unit's
catalogue, to all that can meet its batches. ``RULES`` has by kind what must hold of a statement whatever its signature:
more rules may be added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias

from dongbo.v1 import sync_pb2
from google.protobuf.message import DecodeError, Message

from conflict.values import Epoch, Head, Scope, UnitPath
from sync_engine.audit import AUDIT_HEAD_BYTES
from sync_engine.batch import epoch_from_wire, epoch_to_wire
from sync_engine.certificates import Certified, check_signature
from sync_engine.errors import BadName, BadSignature, LimitExceeded, Malformed, OutOfScope, WrongTree
from sync_engine.frames import TIME_MS_MAX, Statement, guard_scopes, heads_from_wire, scopes_to_wire
from sync_engine.limits import STATEMENT_BYTES_MAX
from sync_engine.names import CATALOG, check_scope, check_unit, is_held_by, is_shared, may_write, parent_of
from sync_engine.wire import guard

HEARTBEAT, HANDOVER, REVOCATION, LOST, ENCRYPTION = "heartbeat", "handover", "revocation", "lost", "encryption"

REASON_LENGTH_MAX = 500

KEM_KEY_BYTES = {"x25519": 32, "mlkem768-x25519": 1184 + 32}
"""By key encapsulation (RFC 9180, and its hybrid with ML-KEM-768) the length of a public key."""

KEMS: dict[sync_pb2.Kem, str] = {sync_pb2.KEM_X25519: "x25519", sync_pb2.KEM_MLKEM768_X25519: "mlkem768-x25519"}

CHUNKS_LOST_MAX = 5_000
"""Of one batch: with the hashes in a statement of the greatest size there is room for some more."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How far a unit's own streams of one scope go (``heads``), and what it holds of that scope where the scope's unit
    lies below it (``holds``): a confirmation beyond the neighbour. Of one unit, epoch and scope the one with the
    greatest ``time_ms`` counts; its signer never lets that fall, whatever its clock does."""

    tree_id: bytes
    unit: UnitPath
    epoch: Epoch
    scope: Scope
    heads: tuple[Head, ...]
    holds: tuple[Head, ...]
    time_ms: int
    audit_head: bytes = b""


@dataclass(frozen=True, slots=True)
class Handover:
    """A new epoch of a unit counts: signed by the key of an epoch before it, or by the parent."""

    tree_id: bytes
    unit: UnitPath
    epoch: Epoch
    key_sha256: bytes
    signer: UnitPath
    signer_epoch: Epoch
    time_ms: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key ends; ``last`` has per stream the last head that the revoking parent accepts."""

    tree_id: bytes
    unit: UnitPath
    epoch: Epoch
    reason: str
    last: tuple[Head, ...]
    signer: UnitPath
    signer_epoch: Epoch
    time_ms: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Chunks of a batch of the signer's own that nobody has any more: whoever passes it on without them withholds
    nothing. ``batch`` is the hash that it was sealed with first, ``chunks`` are the hashes in its header."""

    tree_id: bytes
    unit: UnitPath
    epoch: Epoch
    scope: Scope
    batch: bytes
    chunks: tuple[bytes, ...]
    time_ms: int


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """Under which key things are encrypted to this unit. Of several that one epoch names the greatest ``time_ms``
    counts."""

    tree_id: bytes
    unit: UnitPath
    epoch: Epoch
    kem: str
    """One of KEM_KEY_BYTES; empty: one that this version does not know."""
    public_key: bytes
    time_ms: int


Said: TypeAlias = Heartbeat | Handover | Revocation | Lost | EncryptionKey


def tag_of(said: Said) -> str:
    match said:
        case Heartbeat():
            return HEARTBEAT
        case Handover():
            return HANDOVER
        case Revocation():
            return REVOCATION
        case Lost():
            return LOST
        case EncryptionKey():
            return ENCRYPTION


def signer_of(said: Said) -> tuple[UnitPath, Epoch]:
    """The node whose key must have signed it."""
    if isinstance(said, Handover | Revocation):
        return said.signer, said.signer_epoch
    return said.unit, said.epoch


def lives_of(said: Said) -> frozenset[tuple[UnitPath, Epoch]]:
    """The (unit, epoch) whose certificates go before it: the signer's, and that of the life it is about."""
    return frozenset({signer_of(said), (said.unit, said.epoch)})


def scope_of(said: Said) -> Scope:
    """The scope that it travels with."""
    return said.scope if isinstance(said, Heartbeat | Lost) else Scope(said.unit + CATALOG)


def travels(said: Said, child: str) -> bool:
    """Whether it goes over the link between ``child`` and its parent."""
    return is_shared(scope_of(said), child)


def id_of(statement: Statement) -> bytes:
    """Its identity: what is said, whatever the signature, for the same words may be signed twice."""
    return sha256(statement.tag.encode() + b"\0" + statement.body).digest()


def digest_of_said(ids: Iterable[bytes]) -> bytes:
    """What two nodes compare to know whether they know the same statements of one scope."""
    digest = sha256()
    for each in sorted(ids):
        digest.update(each)
    return digest.digest()[:8]  # nobody gains by making two equal: what is said still travels with the next one


# --- bytes ---


def body_of(said: Said) -> bytes:
    """The bytes to sign, made once."""
    return _to_wire(said).SerializeToString()


def _to_wire(said: Said) -> Message:
    match said:
        case Heartbeat():
            heads = scopes_to_wire(said.heads) or [sync_pb2.ScopeHeads(scope=said.scope)]
            return sync_pb2.HeartbeatBody(
                **_common(said), heads=heads, holds=scopes_to_wire(said.holds), audit_head=said.audit_head
            )
        case Handover():
            return sync_pb2.HandoverBody(**_common(said), **_signed_by(said), key_sha256=said.key_sha256)
        case Revocation():
            last = scopes_to_wire(said.last)
            return sync_pb2.RevocationBody(**_common(said), **_signed_by(said), reason=said.reason, last=last)
        case Lost():
            return sync_pb2.LostBody(**_common(said), scope=said.scope, batch=said.batch, chunks=said.chunks)
        case EncryptionKey():
            kem = next((number for number, name in KEMS.items() if name == said.kem), sync_pb2.KEM_UNSPECIFIED)
            return sync_pb2.EncryptionKeyBody(**_common(said), kem=kem, public_key=said.public_key)


def _common(said: Said) -> dict[str, Any]:
    return {
        "tree_id": said.tree_id,
        "unit": said.unit,
        "epoch": epoch_to_wire(said.epoch),
        "time": said.time_ms,
    }


def _signed_by(said: Handover | Revocation) -> dict[str, Any]:
    return {"signer": said.signer, "signer_epoch": epoch_to_wire(said.signer_epoch)}


def parse(statement: Statement) -> Said:
    """Raises Malformed or LimitExceeded; of a tag that this version does not know, Malformed."""
    body = statement.body
    if len(body) > STATEMENT_BYTES_MAX:
        raise LimitExceeded("a statement is too large")
    try:
        match statement.tag:
            case "heartbeat":
                guard(body, {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1})
                guard_scopes(body, 4)
                guard_scopes(body, 7)
                return _heartbeat(sync_pb2.HeartbeatBody.FromString(body))
            case "handover":
                guard(body, dict.fromkeys(range(1, 8), 1))
                return _handover(sync_pb2.HandoverBody.FromString(body))
            case "revocation":
                guard_scopes(body, 5)
                return _revocation(sync_pb2.RevocationBody.FromString(body))
            case "lost":
                guard(body, dict.fromkeys((1, 2, 3, 4, 5, 7), 1) | {6: CHUNKS_LOST_MAX})
                return _lost(sync_pb2.LostBody.FromString(body))
            case "encryption":
                guard(body, dict.fromkeys(range(1, 7), 1))
                return _encryption(sync_pb2.EncryptionKeyBody.FromString(body))
            case _:
                raise Malformed("a statement of a kind that is not known here")
    except DecodeError as error:
        raise Malformed(f"a {statement.tag} does not parse") from error
    except BadName as error:
        raise Malformed(f"a {statement.tag} names no unit or scope") from error


def _heartbeat(wire: sync_pb2.HeartbeatBody) -> Heartbeat:
    if len(wire.heads) != 1 or any(each.scope != wire.heads[0].scope for each in wire.holds):
        raise Malformed("a heartbeat is about one scope")
    return Heartbeat(
        **_read(wire),
        scope=check_scope(wire.heads[0].scope),
        heads=heads_from_wire(wire.heads),
        holds=heads_from_wire(wire.holds),
        audit_head=wire.audit_head[:AUDIT_HEAD_BYTES],
    )


def _handover(wire: sync_pb2.HandoverBody) -> Handover:
    if len(wire.key_sha256) != 32:
        raise Malformed("a handover names no key")
    return Handover(**_read(wire), **_read_signer(wire), key_sha256=wire.key_sha256)


def _revocation(wire: sync_pb2.RevocationBody) -> Revocation:
    last = heads_from_wire(wire.last)
    return Revocation(**_read(wire), **_read_signer(wire), reason=wire.reason[:REASON_LENGTH_MAX], last=last)


def _lost(wire: sync_pb2.LostBody) -> Lost:
    if not wire.chunks or any(len(each) != 32 for each in (wire.batch, *wire.chunks)):
        raise Malformed("what is lost is named by hashes")
    return Lost(**_read(wire), scope=check_scope(wire.scope), batch=wire.batch, chunks=tuple(wire.chunks))


def _encryption(wire: sync_pb2.EncryptionKeyBody) -> EncryptionKey:
    kem = KEMS.get(wire.kem, "")
    if kem and len(wire.public_key) != KEM_KEY_BYTES[kem]:
        raise Malformed("an encryption key has a wrong length")
    return EncryptionKey(**_read(wire), kem=kem, public_key=wire.public_key)


def _read(wire: Any) -> dict[str, Any]:
    return {
        "tree_id": wire.tree_id,
        "unit": check_unit(wire.unit),
        "epoch": epoch_from_wire(wire.epoch),
        "time_ms": max(0, min(wire.time, TIME_MS_MAX)),
    }


def _read_signer(wire: Any) -> dict[str, Any]:
    return {"signer": check_unit(wire.signer), "signer_epoch": epoch_from_wire(wire.signer_epoch)}


# --- who may say what ---


def _rule_heartbeat(said: Heartbeat) -> None:
    if not is_held_by(said.scope, said.unit):
        raise OutOfScope("a heartbeat is about a scope that its unit may not hold")
    if any(head.stream.origin != said.unit for head in said.heads):
        raise OutOfScope("a heartbeat names another unit's streams as its own")
    if any(not may_write(head.stream.origin, said.scope) for head in (*said.heads, *said.holds)):
        raise OutOfScope("a heartbeat names a stream that cannot be")


def _rule_handover(said: Handover) -> None:
    if said.signer not in (said.unit, parent_of(said.unit)):
        raise OutOfScope("a handover is signed by neither the unit nor its parent")
    if signer_of(said) == (said.unit, said.epoch):
        raise OutOfScope("a new epoch cannot vouch for itself")


def _rule_revocation(said: Revocation) -> None:
    if said.signer != (parent_of(said.unit) or said.unit):
        raise OutOfScope("a revocation is signed by another unit than the parent")
    if any((head.stream.origin, head.stream.epoch) != (said.unit, said.epoch) for head in said.last):
        raise OutOfScope("a revocation names streams of another key")
    if any(not may_write(head.stream.origin, head.stream.scope) for head in said.last):
        raise OutOfScope("a revocation names a stream that cannot be")


def _rule_lost(said: Lost) -> None:
    if not may_write(said.unit, said.scope):
        raise OutOfScope("a unit calls lost what it cannot have written")


RULES: dict[str, list[Callable[[Any], None]]] = {
    HEARTBEAT: [_rule_heartbeat],
    HANDOVER: [_rule_handover],
    REVOCATION: [_rule_revocation],
    LOST: [_rule_lost],
    ENCRYPTION: [],
}
"""What must hold of a statement from its own words; each raises a RemoteFault."""


def check_admissible(said: Said, tree_id: bytes, unit: str) -> None:
    """Whether a statement may be kept at ``unit`` at all, from its own words. Raises WrongTree or OutOfScope."""
    if said.tree_id != tree_id:
        raise WrongTree("a statement belongs to another tree")
    if not is_held_by(scope_of(said), unit):
        raise OutOfScope("a statement is about a scope outside this unit's path")
    for rule in RULES[tag_of(said)]:
        rule(said)


def check_signed(statement: Statement, said: Said, signer: Certified) -> None:
    """Raises BadSignature unless its signer signed it."""
    if (signer.unit, signer.epoch) != signer_of(said):
        raise BadSignature("a statement is offered with another node's certificate")
    check_signature(signer.public_key, statement.tag, statement.body, statement.signature)
