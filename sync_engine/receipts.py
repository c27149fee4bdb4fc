"""What one node signs for its neighbour at the end of a session: what it holds durably.

Role: encode and decode a receipt's body, bounded; prove that the peer signed it.
Reach: the generated protobuf, frames, certificates. Source: protocol, "Exchange". Invariant: only what a receipt names
counts as delivered; acks let a session flow and are forgotten with it.

A receipt names the scopes for which the other lacks one and those of which batches went over in its session, so that a
session costs what has changed and not what there is; per scope the newest counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from dongbo.v1 import sync_pb2
from google.protobuf.message import DecodeError

from conflict.values import Epoch, Head, Scope, UnitPath
from sync_engine import limits
from sync_engine.batch import epoch_from_wire, epoch_to_wire
from sync_engine.certificates import Certified, check_signature
from sync_engine.errors import BadName, BadSignature, LimitExceeded, Malformed, OutOfScope
from sync_engine.frames import TIME_MS_MAX, Receipt, guard_scopes, heads_from_wire, scopes_to_wire
from sync_engine.names import check_scope, check_unit, is_shared
from sync_engine.wire import guard

RECEIPT = "receipt"


@dataclass(frozen=True, slots=True)
class DigestKnown:
    """A scope's digest as its holder knew it at these applied heads, over the columns that every level may read; and
    how many rows it shows."""

    scope: Scope
    applied: tuple[Head, ...]
    sha256: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class ReceiptBody:
    """``unit`` holds ``heads``, all that it holds of ``scopes``; it says so to ``peer``. A receipt of an epoch that its
    signer has left is void."""

    unit: UnitPath
    epoch: Epoch
    peer: UnitPath
    scopes: frozenset[Scope]
    heads: tuple[Head, ...]
    digests: tuple[DigestKnown, ...]
    time_ms: int


def body_of(receipt: ReceiptBody) -> bytes:
    """The bytes to sign, made once."""
    scopes = {each.scope: each for each in scopes_to_wire(receipt.heads)}
    return sync_pb2.ReceiptBody(
        unit=receipt.unit,
        epoch=epoch_to_wire(receipt.epoch),
        peer=receipt.peer,
        held_heads=[scopes.get(scope, sync_pb2.ScopeHeads(scope=scope)) for scope in sorted(receipt.scopes)],
        digests=[
            sync_pb2.ScopeDigest(
                scope=each.scope,
                applied_heads=[head for scope in scopes_to_wire(each.applied) for head in scope.heads],
                sha256=each.sha256,
                rows=each.rows,
            )
            for each in receipt.digests
        ],
        time=receipt.time_ms,
    ).SerializeToString()


def parse(receipt: Receipt) -> ReceiptBody:
    """Raises Malformed or LimitExceeded."""
    _guard(receipt.body)
    try:
        wire = sync_pb2.ReceiptBody.FromString(receipt.body)
        return ReceiptBody(
            unit=check_unit(wire.unit),
            epoch=epoch_from_wire(wire.epoch),
            peer=check_unit(wire.peer),
            scopes=frozenset(check_scope(each.scope) for each in wire.held_heads),
            heads=heads_from_wire(wire.held_heads),
            digests=tuple(_digest(each) for each in wire.digests if not each.table),
            time_ms=max(0, min(wire.time, TIME_MS_MAX)),
        )
    except DecodeError as error:
        raise Malformed("a receipt does not parse") from error
    except BadName as error:
        raise Malformed("a receipt names no unit or scope") from error


def _guard(body: bytes) -> None:
    if len(body) > limits.FRAME_BYTES_MAX:
        raise LimitExceeded("a receipt is too large")
    spans = guard(body, {1: 1, 2: 1, 3: 1, 4: limits.SCOPES_MAX, 5: limits.SCOPES_MAX, 6: 1})
    guard_scopes(body, 4)
    heads = 0
    for start, end in spans[5]:
        heads += len(guard(body[start:end], {1: 1, 2: limits.HEADS_MAX, 3: 1, 4: 1, 5: 1, 6: 1})[2])
        if heads > limits.HEADS_MAX:
            raise LimitExceeded("a receipt holds too many heads")


def _digest(wire: sync_pb2.ScopeDigest) -> DigestKnown:
    scope = check_scope(wire.scope)
    applied = heads_from_wire([sync_pb2.ScopeHeads(scope=scope, heads=wire.applied_heads)])
    return DigestKnown(scope, applied, wire.sha256[:32], min(wire.rows, 2**62))


def check_receipt(receipt: Receipt, body: ReceiptBody, *, signer: Certified, to: UnitPath, child: UnitPath) -> None:
    """Whether this is what the peer with this certificate signed for this node. Raises BadSignature or OutOfScope."""
    if (signer.unit, signer.epoch) != (body.unit, body.epoch):
        raise BadSignature("a receipt is offered with another node's certificate")
    check_signature(signer.public_key, RECEIPT, receipt.body, receipt.signature)
    if body.peer != to:
        raise OutOfScope("a receipt was signed for another unit")
    if any(not is_shared(scope, child) for scope in body.scopes):
        raise OutOfScope("a receipt names a scope that does not travel here")
