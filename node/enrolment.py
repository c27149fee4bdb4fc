"""Invitations and their spending, on the parent.

Role: invite a unit; certify its keys once.
Reach: node.invitation, node.storage. Invariant: an invitation is recorded as spent in the transaction that stores
what it brought; the same request again gets the same answer, another request is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from dongbo.v1 import sync_pb2
from google.protobuf.message import DecodeError
from sqlalchemy import Connection

from conflict.values import Epoch, UnitPath
from node import invitation as invitations
from node.invitation import Invitation
from node.keys import CaKeyAway, KeyStore
from node.local import Node
from node.renewal import certify, check_may_follow, granted, name_child
from node.storage.audit import note
from node.storage.carried import note_hand_key
from node.storage.certificates import check_not_replaced, followers_of, keep_path, note_replaced
from node.storage.certifications import Asked, forget_asked, note_asked
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.receipts import void
from node.storage.registries import adopt_units, current_registry
from node.storage.revocations import check_not_revoked
from node.storage.sealing import seal_all
from node.storage.setup import name_of, name_unit
from sync_engine.audit import Act
from sync_engine.batch import epoch_from_wire
from sync_engine.certificates import Certified
from sync_engine.enrolling import HandRequest
from sync_engine.errors import BadInput, BadName, LocalFault, Malformed, NotCertifiedYet, RemoteFault
from sync_engine.frames import statement_to_wire
from sync_engine.names import check_label, check_unit, is_name
from sync_engine.statements import EncryptionKey
from sync_engine.wire import guard

REQUEST_BYTES_MAX = 16 * 1024

TAKEN_BY_HAND = "if this request is to take the place of a lost machine, say --recover; else ask whose request it is"

GOOD_FOR = timedelta(days=366)
"""How long a request that came by hand waits for the CA key, as the list of units tells it."""


class NoAddress(LocalFault):
    """Children cannot be told where to call."""

    default_hint = "set 'listen' (and 'address', where children dial another) in node.toml and start the service again"


class UnitTaken(LocalFault):
    """A unit has a node already."""

    default_hint = (
        "to replace a lost node, run 'dongbo invite LABEL --recover', and 'dongbo recover --from-parent' on the new"
        " machine"
    )


class InvitationSpent(RemoteFault):
    """The invitation was used with other keys, has expired, or was never made here."""

    default_hint = "ask the parent unit for a new invitation ('dongbo invite')"


VOID = b""
"""Stands in the place of the request that spent an invitation, where another invitation of the unit came first."""


class NothingToRecover(LocalFault):
    """The unit has never had a node."""

    default_hint = "invite it without --recover"


async def invite(
    node: Node, keys: KeyStore, label: str, name: str, ttl: timedelta, *, recover: bool = False
) -> Invitation:
    """Make a one-time invitation for a child, and name the child in its scope. ``recover`` lets a unit that has a node
    begin again, with new keys. Raises NoAddress, UnitTaken, NothingToRecover, BadName."""
    address = node.config.address_for_children
    if not address:
        raise NoAddress(f"{node.config.unit} does not say where its children reach it")
    if "." in label:
        label = _label_of(node.config.unit, label)
    check_label(label)
    expires = datetime.now(UTC) + ttl
    return await node.database.write(_invite, node.context, keys, label, name, address, expires, recover)


def _label_of(parent: UnitPath, path: str) -> str:
    """A child may be named by its full path. Raises BadName for somebody else's child."""
    label, _, above = path.partition(".")
    if above != parent:
        raise BadName(f"{path} is not a unit directly below {parent}", hint=f"only {above} can invite it")
    return label


def _invite(
    connection: Connection,
    context: Context,
    keys: KeyStore,
    label: str,
    name: str,
    address: str,
    expires: datetime,
    recover: bool,
) -> Invitation:
    unit = check_unit(f"{label}.{context.unit}")
    name = _check_may_enrol(connection, context, unit, name, recover=recover)
    made = invitations.create(keys, label, name, address, expires)
    _record(connection, context, unit, name, sha256(made.path[0]).digest(), expires, recover=recover)
    return made


def _check_may_enrol(connection: Connection, context: Context, unit: UnitPath, name: str, *, recover: bool) -> str:
    """The name of a unit that may have a node now. Raises BadName, UnitTaken or NothingToRecover."""
    registry = current_registry(connection, context)
    if unit.count(".") > registry.deepest:
        raise BadName(
            f"{unit} would lie deeper than the registry's levels",
            hint=f"the deepest level is {registry.level_name(registry.deepest)}",
        )
    if recover:
        _check_taken(connection, unit)
        return name or name_of(connection, unit) or unit.partition(".")[0]
    _check_free(connection, unit)
    return name


def _record(
    connection: Connection,
    context: Context,
    unit: UnitPath,
    name: str,
    digest: bytes,
    expires: datetime,
    *,
    recover: bool,
) -> None:
    """An invitation, by its digest, in the place of every open one; its unit is named in this node's scope."""
    _void_open(connection, unit)
    execute(
        connection,
        "INSERT INTO _invitation (certificate, unit, name, expires_ms) VALUES (?, ?, ?, ?)",
        (digest, unit, name, int(expires.timestamp() * 1000)),
    )
    if recover:
        execute(connection, "INSERT INTO _recovery (certificate) VALUES (?)", (digest,))
    if name == name_of(connection, unit):
        return
    execute(connection, "INSERT OR IGNORE INTO _writable_unit (unit) VALUES (?)", (unit,))
    name_unit(connection, unit, name)
    seal_all(connection, context)
    adopt_units(connection, context)
    note(connection, context, Act.INVITE, {"unit": unit})


def _void_open(connection: Connection, unit: UnitPath) -> None:
    """No open invitation of a unit is good any more: one left over would let somebody displace its machine."""
    execute(connection, "UPDATE _invitation SET request = ? WHERE unit = ? AND request IS NULL", (VOID, unit))


def _check_free(connection: Connection, unit: UnitPath) -> None:
    """One unit, one node: a second is a recovery, which is asked for by name."""
    if execute(connection, "SELECT 1 FROM _certificate WHERE unit = ? LIMIT 1", (unit,)).scalar() is not None:
        raise UnitTaken(f"{unit} has a node already")


def _check_taken(connection: Connection, unit: UnitPath) -> None:
    if execute(connection, "SELECT 1 FROM _certificate WHERE unit = ? LIMIT 1", (unit,)).scalar() is None:
        raise NothingToRecover(f"{unit} has no node that could be recovered")


async def answer(node: Node, caller: Certified, request: bytes) -> bytes:
    """Certify a child's keys. Raises InvitationSpent, UnitTaken, BadCertificate or Malformed, and NotCertifiedYet while
    the CA key is elsewhere."""
    if len(request) > REQUEST_BYTES_MAX:
        raise Malformed("an enrolment request is too large")
    guard(request, {1: 1, 2: 1, 3: 1, 4: 1})
    try:
        sync_pb2.EnrolRequest.FromString(request)
    except DecodeError as error:
        raise Malformed("an enrolment request does not parse") from error
    answered = await node.database.write(certify_invited, node.context, node.keys, caller.unit, caller.sha256, request)
    if answered is None:
        raise NotCertifiedYet(f"{node.keys.unit} cannot certify now: its CA key is kept elsewhere")
    return answered


def certify_invited(
    connection: Connection, context: Context, keys: KeyStore, unit: UnitPath, invitation: bytes, request: bytes
) -> bytes | None:
    """Issue what the holder of an invitation (SHA-256 of its certificate) asks; None where the CA key is elsewhere and
    the request, which is noted, waits for it."""
    digest = sha256(request).digest()
    found = execute(
        connection, "SELECT unit, name, request, response FROM _invitation WHERE certificate = ?", (invitation,)
    ).one_or_none()
    if found is None or found[0] != unit:
        raise InvitationSpent("this invitation was not made here")
    _unit, name, spent_by, response = found
    if spent_by is not None:
        if spent_by == digest:
            return bytes(response)  # the first answer was lost on the way
        if spent_by == VOID:
            raise InvitationSpent(f"this invitation is void: a newer one of {unit} was made, or another one used")
        raise InvitationSpent("this invitation has been used")
    recovers = execute(connection, "SELECT 1 FROM _recovery WHERE certificate = ?", (invitation,)).scalar() is not None
    try:
        if not recovers:
            _check_free(connection, unit)
    except UnitTaken as fault:
        raise InvitationSpent(str(fault), hint=fault.hint) from fault
    wire = sync_pb2.EnrolRequest.FromString(request)
    epoch = Epoch(epoch_from_wire(wire.epoch))
    asked = Asked(unit, epoch, None, invitation, request)
    try:
        path, ca = granted(connection, context, keys, unit, epoch, wire)
    except CaKeyAway:
        note_asked(connection, context, asked)
        return None
    if recovers:
        note_replaced(connection, unit)
    keep_path(connection, path, context.tree_id)
    said = name_child(connection, context, keys, unit, epoch)
    made = sync_pb2.EnrolResponse(
        unit=unit,
        name=name,
        node_path=path,
        ca_certificate=ca,
        handover=statement_to_wire(said),
        signer_path=keys.node_path,
    ).SerializeToString()
    note_asked(connection, context, asked, made)
    execute(
        connection, "UPDATE _invitation SET request = ?, response = ? WHERE certificate = ?", (digest, made, invitation)
    )
    _void_open(connection, unit)
    note(connection, context, Act.APPROVE if recovers else Act.ENROL, {"unit": unit, "epoch": epoch})
    return made


def may_certify_by_hand(
    connection: Connection, context: Context, asked: HandRequest, name: str, *, recover: bool
) -> str:
    """How the unit will be called: ``name``, or what it asks for, or, when it comes back, as it was. Raises BadName,
    BadInput, UnitTaken or NothingToRecover, unless this very request has been granted already."""
    if name and not is_name(name):
        raise BadInput("a unit's name cannot be long or hold control characters", hint="choose a shorter name")
    if _is_spent(connection, asked):
        return name_of(connection, asked.unit) or asked.name
    name = name or ("" if recover else asked.name)
    try:
        return _check_may_enrol(connection, context, asked.unit, name, recover=recover)
    except UnitTaken as fault:
        raise UnitTaken(str(fault), hint=TAKEN_BY_HAND) from fault


def _is_spent(connection: Connection, asked: HandRequest) -> bool:
    sql = "SELECT request FROM _invitation WHERE certificate = ?"
    return bool(execute(connection, sql, (asked.digest,)).scalar())


def certify_by_hand(
    connection: Connection, context: Context, keys: KeyStore, asked: HandRequest, name: str, *, recover: bool
) -> bytes | None:
    """Invite the unit whose proven request was carried here, and certify it with that invitation, which is known by the
    request. The same request again gets the same answer; None where it waits for the CA key. Raises what ``invite``
    does, and Replaced or Revoked for one whose keys have ended since."""
    assert keys.ca_path  # noqa: S101 - raises KeyFault where no unit can be below
    if not _is_spent(connection, asked):  # new, waiting for the CA key, or void: what is said now counts
        name = may_certify_by_hand(connection, context, asked, name, recover=recover)
        execute(connection, "DELETE FROM _recovery WHERE certificate = ?", (asked.digest,))
        execute(connection, "DELETE FROM _invitation WHERE certificate = ?", (asked.digest,))
        expires = datetime.now(UTC) + GOOD_FOR
        _record(connection, context, asked.unit, name, asked.digest, expires, recover=recover)
    made = certify_invited(connection, context, keys, asked.unit, asked.digest, asked.enrol)
    check_not_revoked(connection, asked.unit, asked.epoch)
    check_not_replaced(connection, asked.unit, asked.epoch)
    if made is not None:
        key = EncryptionKey(context.tree_id, asked.unit, asked.epoch, asked.kem, asked.public_key, context.now_ms())
        note_hand_key(connection, context, key)
        if not followers_of(connection, asked.unit, asked.epoch):
            void(connection, asked.unit, asked.epoch)
    return made


def certify_waiting(connection: Connection, context: Context, keys: KeyStore, asked: Asked) -> bool:
    """Certify what waits for the CA key; False for a request that may not be granted any more, which is forgotten.
    Raises CaKeyAway."""
    keys.require_ca()
    try:
        if asked.invitation is not None:
            certify_invited(connection, context, keys, asked.unit, asked.invitation, asked.request)
        elif asked.from_epoch is not None:
            check_may_follow(connection, asked.unit, asked.from_epoch, asked.epoch)
            certify(connection, context, keys, asked.unit, asked.from_epoch, asked.request)
    except RemoteFault:
        forget_asked(connection, asked)
        return False
    return True
