"""A session written down: what stands around the frames in a file that is carried by hand.

Role: encode and decode envelope, header and end of a bundle, bounded; say whether one may be taken here.
Reach: the generated protobuf, certificates, names. Source: docs/decisions/0034. Invariant: nothing of a file is
believed before its end has been found and its sender's signature over all of it holds; the envelope names neither of
the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from dongbo.v1 import bundle_pb2
from google.protobuf.message import DecodeError

from conflict.values import Epoch, UnitPath
from sync_engine import limits
from sync_engine.batch import epoch_from_wire, epoch_to_wire
from sync_engine.certificates import Certified, Signer, check_signature, verify_node_path
from sync_engine.errors import BadCertificate, BadName, Malformed, OutOfScope, RemoteFault, WrongTree
from sync_engine.frames import TIME_MS_MAX, Statement, statement_from_wire, statement_to_wire
from sync_engine.names import check_unit, parent_of
from sync_engine.statements import KEMS
from sync_engine.wire import guard

BUNDLE = "bundle"
"""The tag under which a sender signs."""

MAGIC = b"dongbo bundle 1\n"
ENVELOPE_BYTES_MAX = 4 * 1024
HEADER_BYTES_MAX = 128 * 1024
END_BYTES_MAX = 1024
LENGTH_BYTES = 4
KEY_ID_BYTES = 8
FILE_KEY_BYTES = 32
NOBODY = Epoch("0" * 16)
"""In place of an epoch: of the recipient nothing has been heard yet."""


class NoBundle(RemoteFault):
    """A file that is damaged, cut, or none of ours."""

    default_hint = "nothing of it was taken; have it written again, or copy it again"


class NotForHere(RemoteFault):
    """A bundle that another unit's key opens."""

    default_hint = "nothing of it was read; carry it to the unit that it was written for"


class Expired(RemoteFault):
    """A bundle that is too old by this machine's clock."""

    default_hint = "have a new one written; if this machine's clock is wrong, set it, or say --expired"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What anybody sees who finds a bundle. ``kem`` is empty for one that this version does not know."""

    kem: str
    key_id: bytes
    file_key: bytes


@dataclass(frozen=True, slots=True)
class BundleHeader:
    """Who wrote for whom, and when. ``number`` counts what this sender has written for this recipient, ``part`` the
    files of one number. ``heard`` is the recipient's life that the sender knows of."""

    tree_id: bytes
    sender: UnitPath
    epoch: Epoch
    recipient: UnitPath
    heard: Epoch
    number: int
    part: int
    time_ms: int
    expires_ms: int
    path: tuple[bytes, ...]
    renew_request: bytes = b""
    renewal: bytes = b""
    encryption: Statement | None = None


@dataclass(frozen=True, slots=True)
class BundleEnd:
    """``digest`` is over all records before, each with its length; ``parts`` is how many files there are."""

    digest: bytes
    parts: int


def key_id(public_key: bytes) -> bytes:
    """By what a recipient sees that a bundle is for one of its keys."""
    return sha256(public_key).digest()[:KEY_ID_BYTES]


def is_neighbour(unit: str, other: str) -> bool:
    """Whether bundles go between two units: between a child and its parent."""
    return parent_of(unit) == other or parent_of(other) == unit


# --- bytes ---


def encode_envelope(envelope: Envelope) -> bytes:
    kem = next(number for number, name in KEMS.items() if name == envelope.kem)
    return bundle_pb2.Envelope(kem=kem, key_id=envelope.key_id, file_key=envelope.file_key).SerializeToString()


def parse_envelope(data: bytes) -> Envelope:
    """Raises NoBundle."""
    try:
        guard(data, {1: 1, 2: 1, 3: 1})
        wire = bundle_pb2.Envelope.FromString(data)
    except (DecodeError, RemoteFault) as error:
        raise NoBundle("this is no bundle, or its beginning is damaged") from error
    return Envelope(KEMS.get(wire.kem, ""), wire.key_id, wire.file_key)


def encode_header(header: BundleHeader) -> bytes:
    return bundle_pb2.BundleHeader(
        tree_id=header.tree_id,
        sender=header.sender,
        epoch=epoch_to_wire(header.epoch),
        recipient=header.recipient,
        heard_epoch=epoch_to_wire(header.heard),
        number=header.number,
        part=header.part,
        time=header.time_ms,
        expires=header.expires_ms,
        path=header.path,
        renew_request=header.renew_request,
        renewal=header.renewal,
        encryption=None if header.encryption is None else statement_to_wire(header.encryption),
    ).SerializeToString()


def parse_header(data: bytes) -> BundleHeader:
    """Raises Malformed or LimitExceeded."""
    guard(data, dict.fromkeys(range(1, 14), 1) | {10: 32})
    try:
        wire = bundle_pb2.BundleHeader.FromString(data)
        return BundleHeader(
            tree_id=wire.tree_id,
            sender=check_unit(wire.sender),
            epoch=epoch_from_wire(wire.epoch),
            recipient=check_unit(wire.recipient),
            heard=epoch_from_wire(wire.heard_epoch),
            number=min(wire.number, 2**62),
            part=wire.part,
            time_ms=max(0, min(wire.time, TIME_MS_MAX)),
            expires_ms=max(0, min(wire.expires, TIME_MS_MAX)),
            path=tuple(wire.path),
            renew_request=wire.renew_request,
            renewal=wire.renewal,
            encryption=statement_from_wire(wire.encryption) if wire.HasField("encryption") else None,
        )
    except (DecodeError, BadName) as error:
        raise Malformed("a bundle's header does not parse") from error


def sign_end(end: BundleEnd, tree_id: bytes, sign: Signer) -> bytes:
    """The last record of a file."""
    body = bundle_pb2.BundleEndBody(sha256=end.digest, parts=end.parts, tree_id=tree_id).SerializeToString()
    return bundle_pb2.BundleEnd(body=body, signature=sign(BUNDLE, body)).SerializeToString()


def check_end(data: bytes, header: BundleHeader, digest: bytes, tree_id: bytes) -> BundleEnd:
    """Whether the sender signed all that came before. Raises Malformed, WrongTree, BadCertificate or BadSignature."""
    try:
        guard(data, {1: 1, 2: 1})
        wire = bundle_pb2.BundleEnd.FromString(data)
        guard(wire.body, {1: 1, 2: 1, 3: 1})
        body = bundle_pb2.BundleEndBody.FromString(wire.body)
    except DecodeError as error:
        raise Malformed("a bundle's end does not parse") from error
    sender = sender_of(header, tree_id)
    check_signature(sender.public_key, BUNDLE, wire.body, wire.signature)
    if body.sha256 != digest or body.tree_id != tree_id:
        raise Malformed("a bundle's end is that of another file")
    if not 1 <= header.part <= body.parts <= limits.PARTS_MAX:
        raise Malformed("a bundle counts its parts wrongly")
    return BundleEnd(body.sha256, body.parts)


# --- whose it is ---


def sender_of(header: BundleHeader, tree_id: bytes) -> Certified:
    """The node that the header says has written this. Raises BadCertificate or WrongTree."""
    if header.tree_id != tree_id:
        raise WrongTree(
            "this bundle belongs to another tree", hint="nothing of it was taken; carry it where it belongs"
        )
    certified = verify_node_path(header.path, tree_id)
    if (certified.unit, certified.epoch) != (header.sender, header.epoch):
        raise BadCertificate("a bundle carries another node's certificate")
    return certified


def check_addressed(header: BundleHeader, unit: UnitPath) -> None:
    """Whether a bundle was written for this unit by a neighbour. Raises NotForHere or OutOfScope."""
    if header.recipient != unit:
        raise NotForHere(f"this bundle was written for {header.recipient}, and this is {unit}")
    if not is_neighbour(header.sender, unit):
        raise OutOfScope(
            f"this bundle was written by {header.sender}, which is neither the parent nor a child of {unit}",
            hint="nothing of it was taken; have it carried by way of the units between",
        )


def check_age(header: BundleHeader, now_ms: int) -> None:
    """Raises Expired."""
    if now_ms > header.expires_ms:
        raise Expired(f"this bundle of {header.sender} is too old, by this machine's clock")
