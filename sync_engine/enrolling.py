"""Joining without a network, as bytes: what a new unit asks and what its parent answers.

Role: encode and decode both, bounded. What is in them is proven elsewhere: the keys of a request by its node's key, the
certificates of a grant by the tree's root.
Reach: the generated protobuf, names. Source: docs/decisions/0034. Invariant: the fingerprints that two people compare
are over bytes that are never made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from dongbo.v1 import bundle_pb2, sync_pb2
from google.protobuf.message import DecodeError

from conflict.values import Epoch, UnitPath
from sync_engine.batch import epoch_from_wire, epoch_to_wire
from sync_engine.certificates import PATH_CERTIFICATES_MAX
from sync_engine.errors import BadName, RemoteFault
from sync_engine.frames import Statement, statement_from_wire, statement_to_wire
from sync_engine.names import check_unit, is_name
from sync_engine.statements import KEM_KEY_BYTES, KEMS
from sync_engine.wire import guard

ENROL = "enrol"
"""The tag under which a new node signs its request."""

REQUEST_MAGIC, GRANT_MAGIC = b"dongbo request 1\n", b"dongbo grant 1\n"
REQUEST_BYTES_MAX = 16 * 1024
GRANT_BYTES_MAX = 512 * 1024


class NoRequest(RemoteFault):
    """A file that is no request, or one that was changed on the way."""

    default_hint = "nothing was done; have it written again there with 'dongbo join --request', or copy it again"


class NoGrant(RemoteFault):
    """A file that is no grant, or one that was changed on the way."""

    default_hint = "nothing was done; copy it again, or have it written again with 'dongbo approve FILE --out FILE'"


@dataclass(frozen=True, slots=True)
class HandRequest:
    """What a new unit asks. ``body`` is what its node's key signed, ``kem`` and ``public_key`` are of the key to which
    the answer is encrypted."""

    unit: UnitPath
    name: str
    epoch: Epoch
    node_request: bytes
    ca_request: bytes
    kem: str
    public_key: bytes
    enrol: bytes
    """An EnrolRequest, as it is asked over a line."""
    body: bytes
    signature: bytes

    @property
    def digest(self) -> bytes:
        return sha256(self.body).digest()


@dataclass(frozen=True, slots=True)
class Grant:
    """What the parent answers: certificates, and under which key things are encrypted to the parent."""

    request: bytes
    response: bytes
    carry: Statement
    carry_path: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        return sha256(self.response).digest()


def enrol_bytes(node_request: bytes, ca_request: bytes, epoch: Epoch, software: str) -> bytes:
    """What is asked with an invitation, and by hand."""
    return sync_pb2.EnrolRequest(
        node_request=node_request, ca_request=ca_request, epoch=epoch_to_wire(epoch), software=software
    ).SerializeToString()


# --- the request ---


def request_body(unit: UnitPath, name: str, enrol: bytes, kem: str, public_key: bytes) -> bytes:
    """What the new node's key signs."""
    number = next(number for number, known in KEMS.items() if known == kem)
    return bundle_pb2.HandRequestBody(
        enrol=enrol, unit=unit, name=name, kem=number, public_key=public_key
    ).SerializeToString()


def encode_request(body: bytes, signature: bytes) -> bytes:
    return REQUEST_MAGIC + bundle_pb2.HandRequest(body=body, signature=signature).SerializeToString()


def parse_request(data: bytes) -> HandRequest:
    """Raises NoRequest. Nothing is proven."""
    if not data.startswith(REQUEST_MAGIC):
        raise NoRequest("this is no request of a new unit")
    if len(data) > REQUEST_BYTES_MAX:
        raise NoRequest("this is too large for a request")
    message = data[len(REQUEST_MAGIC) :]
    try:
        guard(message, {1: 1, 2: 1}, others=0)
        wire = bundle_pb2.HandRequest.FromString(message)
        guard(wire.body, dict.fromkeys(range(1, 6), 1))
        body = bundle_pb2.HandRequestBody.FromString(wire.body)
        guard(body.enrol, dict.fromkeys(range(1, 5), 1))
        enrol = sync_pb2.EnrolRequest.FromString(body.enrol)
        unit, epoch = check_unit(body.unit), epoch_from_wire(enrol.epoch)
    except (DecodeError, RemoteFault, BadName) as error:
        raise NoRequest("this request is damaged") from error
    kem = KEMS.get(body.kem, "")
    if kem and len(body.public_key) != KEM_KEY_BYTES[kem]:
        raise NoRequest("this request is damaged")
    if not is_name(body.name):
        raise NoRequest("this request gives its unit a name that cannot be")
    asked = (enrol.node_request, enrol.ca_request, kem, body.public_key, body.enrol)
    return HandRequest(unit, body.name, epoch, *asked, wire.body, wire.signature)


# --- the grant ---


def encode_grant(grant: Grant) -> bytes:
    return bundle_pb2.Grant(
        request=grant.request,
        response=grant.response,
        carry=statement_to_wire(grant.carry),
        carry_path=grant.carry_path,
    ).SerializeToString()


def parse_grant(data: bytes) -> Grant:
    """Raises NoGrant. Nothing is proven."""
    try:
        guard(data, {1: 1, 2: 1, 3: 1, 4: PATH_CERTIFICATES_MAX}, others=0)
        wire = bundle_pb2.Grant.FromString(data)
    except (DecodeError, RemoteFault) as error:
        raise NoGrant("this grant is damaged") from error
    return Grant(wire.request, wire.response, statement_from_wire(wire.carry), tuple(wire.carry_path))


def parse_response(response: bytes) -> sync_pb2.EnrolResponse:
    """What a parent has certified. Raises NoGrant."""
    try:
        guard(response, {1: 1, 2: 1, 3: PATH_CERTIFICATES_MAX, 4: 1, 5: 1, 6: PATH_CERTIFICATES_MAX})
        return sync_pb2.EnrolResponse.FromString(response)
    except (DecodeError, RemoteFault) as error:
        raise NoGrant("this grant is damaged") from error
