"""Invitations: what a parent hands to a new unit, and what it grants in return.

Role: the token (address, root certificate, one-time key and certificate) and the certificates issued for it.
Reach: node.authority, node.keys, sync_engine.certificates. That an invitation is spent once is the caller's, in the
transaction that stores what was granted.
Invariant: a token is believed only as a whole: cut, mistyped or made up, nothing of it is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from conflict.values import Epoch, UnitPath, level_of
from node import authority
from node.keys import KeyStore
from node.pem import key_from_pem, key_to_pem, to_pem
from sync_engine.certificates import tree_id_of, verify_enrolment_path
from sync_engine.errors import BadCertificate, BadInput, BadInvitation, WrongTree
from sync_engine.names import check_label, check_unit, is_name, parent_of

PREFIX = "dongbo-invitation-1:"
ANY_VERSION = re.compile(r"dongbo-invitation-\d+:")

TOKEN_CHARS_MAX = 16 * 1024
"""A token of the deepest tree that names allow is shorter; more is not worth looking at."""

LENGTH_BYTES, CHECKSUM_BYTES = 2, 8
ADDRESS = re.compile(r"[!-~]{1,255}:[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a new unit needs to enrol: whom to call, whom to trust, and a key for that one call."""

    tree_id: bytes
    unit: UnitPath
    name: str
    parent: UnitPath
    address: str
    """host:port of the parent."""
    root: bytes
    """DER."""
    path: tuple[bytes, ...]
    """DER: the one-time certificate, the parent's CA, its ancestors', the root."""
    key_pem: bytes = field(repr=False)
    expires: datetime
    """By the parent's clock, in UTC."""

    @property
    def tls_chain_pem(self) -> bytes:
        return to_pem(self.path[:-1])

    @property
    def tls_root_pem(self) -> bytes:
        return to_pem([self.root])

    def is_expired(self, now: datetime) -> bool:
        """What this clock says; the parent decides by its own."""
        return now > self.expires


class _Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The token's bytes. What can be told from the certificates is told from them."""

    name: str
    address: str
    path: tuple[bytes, ...]
    key_pem: bytes


# --- the token -------------------------------------------------------------------------------------------------------


def encode(invitation: Invitation) -> str:
    """One line that survives a chat, a mail or a print-out. Raises BadInvitation if it would be too long."""
    body = msgspec.msgpack.encode(
        _Body(invitation.name, invitation.address, invitation.path, invitation.key_pem),
    )
    framed = len(body).to_bytes(LENGTH_BYTES, "big") + _checksum(body) + body
    token = PREFIX + base64.urlsafe_b64encode(framed).rstrip(b"=").decode()
    if len(token) > TOKEN_CHARS_MAX:
        raise BadInvitation("the invitation is too long for a token", hint="use shorter names")
    return token


def decode(token: str) -> Invitation:
    """Reads a token, whatever white space a mail program put around or into it.

    Everything is verified but its expiry, which the parent judges by its own clock. Raises BadInvitation.
    """
    if len(token) > TOKEN_CHARS_MAX + TOKEN_CHARS_MAX // 8:  # room for line ends
        raise BadInvitation("this is too long for an invitation")
    text = "".join(token.split())
    if not text.startswith(PREFIX):
        if ANY_VERSION.match(text):
            raise BadInvitation("the invitation was made by a newer program", hint="upgrade this node")
        raise BadInvitation(f"an invitation starts with {PREFIX}")
    if len(text) > TOKEN_CHARS_MAX:
        raise BadInvitation("this is too long for an invitation")
    body = _unframe(text.removeprefix(PREFIX))
    try:
        return _understand(msgspec.msgpack.decode(body, type=_Body))
    except (msgspec.MsgspecError, BadCertificate, WrongTree) as error:
        raise BadInvitation("the invitation is not one that a parent unit made") from error


def read_token(given: str) -> Invitation:
    """The invitation that somebody typed, or the name of whose file. Raises BadInvitation."""
    token = given if ANY_VERSION.match(given.strip()) else Path(given).read_text(encoding="ascii", errors="replace")
    return decode(token)


def _unframe(text: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise BadInvitation("the invitation holds characters that do not belong there: it was mistyped")
    whole = len(text) - len(text) % 4 if len(text) % 4 == 1 else len(text)  # one character alone is no byte
    try:
        framed = base64.urlsafe_b64decode(text[:whole] + "=" * (-whole % 4))
    except (binascii.Error, ValueError) as error:
        raise BadInvitation("the invitation cannot be read") from error
    length = int.from_bytes(framed[:LENGTH_BYTES], "big")
    checksum, body = framed[LENGTH_BYTES:][:CHECKSUM_BYTES], framed[LENGTH_BYTES + CHECKSUM_BYTES :]
    if len(body) < length or len(framed) < LENGTH_BYTES + CHECKSUM_BYTES:
        raise BadInvitation("the invitation was cut short: its end is missing")
    if len(body) > length or whole != len(text) or checksum != _checksum(body):
        raise BadInvitation("the invitation was altered or mistyped: its checksum does not fit")
    return body


def _understand(body: _Body) -> Invitation:
    """Raises BadCertificate or WrongTree if the parts do not prove one another."""
    if not body.path:
        raise BadCertificate("an invitation without certificates")
    root = body.path[-1]
    certified = verify_enrolment_path(body.path, tree_id_of(root), None)
    if key_from_pem(body.key_pem).public_key() != certified.public_key:
        raise BadCertificate("the invitation's key and certificate do not belong together")
    parent = parent_of(certified.unit)
    if parent is None or not ADDRESS.fullmatch(body.address) or not is_name(body.name):
        raise BadCertificate("the invitation's address or name cannot be")
    return Invitation(
        tree_id=tree_id_of(root),
        unit=certified.unit,
        name=body.name,
        parent=parent,
        address=body.address,
        root=root,
        path=body.path,
        key_pem=body.key_pem,
        expires=certified.not_after,
    )


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:CHECKSUM_BYTES]


# --- the parent's side -----------------------------------------------------------------------------------------------


def create(keys: KeyStore, label: str, name: str, address: str, expires: datetime) -> Invitation:
    """A one-time invitation for a child of this node's unit.

    Raises KeyFault where the unit has no CA, BadName or BadInput for what the operator typed.
    """
    ca_key, ca_cert = keys.require_ca()
    unit = check_unit(f"{check_label(label)}.{keys.unit}")
    if not is_name(name):
        raise BadInput("a unit's name cannot be empty, long or hold control characters", hint="choose a shorter name")
    if not ADDRESS.fullmatch(address):
        raise BadInput(f"{address!r} is not an address", hint="give HOST:PORT, as children reach this node")
    key = authority.new_key()
    leaf = authority.issue_enrolment(ca_key, ca_cert, unit, key.public_key(), expires)
    return Invitation(
        tree_id=keys.tree_id,
        unit=unit,
        name=name,
        parent=keys.unit,
        address=address,
        root=keys.node_path[-1],
        path=(authority.der_of(leaf), *keys.ca_path),
        key_pem=key_to_pem(key),
        expires=leaf.not_valid_after_utc.astimezone(UTC),
    )


def grant(
    keys: KeyStore,
    *,
    unit: str,
    epoch: Epoch,
    node_request: bytes,
    ca_request: bytes,
    deepest_level: int,
    now: datetime,
) -> tuple[tuple[bytes, ...], bytes]:
    """The answer to an enrolment: the node's path (DER, root last) and the CA certificate (DER).

    The latter is empty at the deepest level, or where none was asked. Raises BadCertificate for a request that does
    not prove its keys, or asks for another unit than ``unit``: the one that the caller's certificate names.
    """
    ca_key, ca_cert = keys.require_ca()
    node_key = authority.check_request(node_request, unit, epoch)
    if node_key == ca_cert.public_key():
        raise BadCertificate("the request is for a key that another unit holds")
    leaf = authority.issue_node(ca_key, ca_cert, unit, epoch, node_key, now)
    node_path = (authority.der_of(leaf), *keys.ca_path)
    if not ca_request or level_of(unit) >= deepest_level:
        return node_path, b""
    own_ca_key = authority.check_request(ca_request, unit, None)
    if own_ca_key == node_key:
        raise BadCertificate("one key cannot be a node's and a CA's at once")
    issued = authority.issue_ca(ca_key, ca_cert, unit, own_ca_key, deepest_level)
    return node_path, authority.der_of(issued)
