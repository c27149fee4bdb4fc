"""Certificates anew: for the key in place, or for that of a new life.

Role: what a child asks its parent, what the parent grants, and how a running node goes on with the answer; the root
certifies itself.
Reach: node.keys, node.invitation, node.storage, sync_engine.handover. gRPC is in node.parent_link and
node.child_links. Why it is done so: docs/decisions/0032.
Invariant: one key follows a key, and no second one: who asks for a second runs a copy of a home that has gone on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from dongbo.v1 import sync_pb2
from google.protobuf.message import DecodeError
from sqlalchemy import Connection

from conflict.values import Epoch, UnitPath
from node import __version__, authority, invitation
from node import keys as key_files
from node.keys import CaKeyAway, KeyStore
from node.local import Node
from node.storage.audit import note
from node.storage.certificates import (
    accepted_epochs,
    certified_children,
    epoch_of,
    is_accepted,
    is_known,
    is_named,
    judge,
    keep_path,
    mark_mine,
    may_be_followed,
    note_all_keys,
    path_of,
    time_of_next,
)
from node.storage.certifications import Asked, answer_to, note_asked
from node.storage.context import Context
from node.storage.registries import current_registry
from node.storage.revocations import check_not_revoked
from node.storage.setup import name_of
from node.storage.statements import KEPT, keep
from sync_engine.audit import Act
from sync_engine.batch import epoch_from_wire, epoch_to_wire
from sync_engine.certificates import Certified, verify_node_path
from sync_engine.errors import BadCertificate, Cloned, LocalFault, Malformed, NotCertifiedYet
from sync_engine.frames import Statement, statement_from_wire, statement_to_wire
from sync_engine.handover import check_request, key_hash
from sync_engine.names import parent_of
from sync_engine.statements import HANDOVER, Handover, body_of
from sync_engine.wire import guard

log = structlog.get_logger()

REQUEST_BYTES_MAX = 16 * 1024

Granted: TypeAlias = sync_pb2.EnrolResponse
"""What a parent answers to who enrols, recovers or renews."""

RENEW_BEFORE = timedelta(days=3 * 365)
"""A tenth of a certificate's life: a unit may be shut for a year, and a clock be wrong by two."""

ASK_AGAIN = timedelta(days=1)
"""A clock that is decades wrong would else ask with each session."""

COPY = "{unit} has gone on under another key: this home is a copy of one that has gone on, or an old image of it"


# --- the child -------------------------------------------------------------------------------------------------------


def is_due(node: Node, now: datetime) -> bool:
    """Whether the parent is to be asked before the next session."""
    if key_files.pending(node.home) is not None:
        return True
    asked = node.renewal_asked
    return node.keys.certified.not_after - now < RENEW_BEFORE and (asked is None or now - asked > ASK_AGAIN)


def may_ask_again(node: Node) -> bool:
    """Whether a new life waits of which the parent has not heard yet."""
    return key_files.pending(node.home) is not None and not node.renewal_waits


async def request_of(node: Node) -> bytes:
    """What to ask: a certificate for the life that waits, to which the key in place hands over; else for that key."""
    waiting = key_files.pending(node.home)
    if waiting is None:
        request = authority.node_request(node.keys.unit, node.keys.epoch, node.keys.key)
        wire = sync_pb2.RenewRequest(node_request=request, epoch=epoch_to_wire(node.keys.epoch))
    else:
        time_ms = await node.database.read(time_of_next, waiting.unit, node.context.now_ms())
        said = _signed(node.keys, waiting.unit, waiting.epoch, waiting.key.public_key(), time_ms)
        wire = sync_pb2.RenewRequest(
            node_request=waiting.node_request,
            ca_request=waiting.ca_request,
            epoch=epoch_to_wire(waiting.epoch),
            handover=statement_to_wire(said),
        )
    wire.software = f"dongbo {__version__}"
    return wire.SerializeToString()


async def take_answer(node: Node, response: bytes) -> None:
    """Install what came without being waited for: again and again, until the parent has heard of it. Raises what
    ``install`` does."""
    try:
        granted = sync_pb2.EnrolResponse.FromString(response)
    except DecodeError as error:
        raise Malformed("the parent's answer does not parse") from error
    if tuple(granted.node_path) != node.keys.node_path:
        await install(node, await request_of(node), response)


async def install(node: Node, request: bytes, response: bytes) -> None:
    """Go on under what the parent granted, without a restart. Raises BadCertificate, WrongTree or Malformed."""
    asked = sync_pb2.RenewRequest.FromString(request)
    try:
        granted = sync_pb2.EnrolResponse.FromString(response)
    except DecodeError as error:
        raise Malformed("the parent's answer does not parse") from error
    await _go_on(node, tuple(granted.node_path), granted.ca_certificate, asked.handover)


async def _go_on(node: Node, path: tuple[bytes, ...], ca_certificate: bytes, said: sync_pb2.Statement) -> None:
    """What others need to accept the new life is durable here first: the root has nobody who would bring it back."""
    await node.database.write(_adopt, node.context, path, said)
    tree_id, ca_key_file = node.keys.tree_id, node.keys.ca_key_file
    node.keys = KeyStore.install(node.home, path, ca_certificate, tree_id, ca_key_file)
    node.context.epoch, node.context.sign, node.context.proven = node.keys.epoch, node.keys.signer(), None
    node.renewal_waits = ""


def _adopt(connection: Connection, context: Context, path: tuple[bytes, ...], said: sync_pb2.Statement) -> None:
    certified = keep_path(connection, path, context.tree_id)
    if said.body:
        keep(connection, context, statement_from_wire(said))
    mark_mine(connection, certified)


# --- the root --------------------------------------------------------------------------------------------------------


async def certify_root(node: Node, now: datetime, keys: KeyStore | None = None) -> bool:
    """The root certifies itself, where a new life waits or its certificate nears its end. Raises NotCertifiedYet while
    its CA key is elsewhere."""
    if parent_of(node.keys.unit) is not None or not is_due(node, now):
        return False
    request = await request_of(node)
    wire = sync_pb2.RenewRequest.FromString(request)
    epoch = epoch_from_wire(wire.epoch)
    node.renewal_asked = now
    path = await node.database.read(path_of, node.keys.unit, epoch) if wire.handover.body else None
    if path is None:  # else a crash came between the two steps
        try:
            ca_key, ca_cert = (keys or node.keys).require_ca()
        except CaKeyAway as fault:
            raise NotCertifiedYet(str(fault), hint=fault.hint) from fault
        key = authority.check_request(wire.node_request, node.keys.unit, epoch)
        leaf = authority.issue_node(ca_key, ca_cert, node.keys.unit, epoch, key, now)
        path = (authority.der_of(leaf), *node.keys.ca_path)
    await _go_on(node, path, b"", wire.handover)
    return True


async def certify_root_if_due(node: Node) -> None:
    """The same as a matter of course, before a child is served; without the CA key it waits, and says so."""
    try:
        if await certify_root(node, datetime.now(UTC)):
            log.info("certified anew", epoch=node.keys.epoch)
    except NotCertifiedYet as fault:
        node.renewal_waits = f"{fault}; {fault.hint}"


# --- the parent ------------------------------------------------------------------------------------------------------


async def answer(node: Node, caller: Certified, request: bytes) -> bytes:
    """Certify a child anew. Raises Cloned, NotCertifiedYet, BadCertificate, BadSignature or Malformed."""
    if len(request) > REQUEST_BYTES_MAX:
        raise Malformed("a request for a certificate is too large")
    guard(request, {1: 1, 2: 1, 3: 1, 4: 1, 5: 1})
    answered = await node.database.write(_answer, node.context, node.keys, caller, request)
    if answered is None:
        raise NotCertifiedYet(f"{node.keys.unit} cannot certify now: its CA key is kept elsewhere")
    return answered


def _parse(request: bytes) -> sync_pb2.RenewRequest:
    try:
        return sync_pb2.RenewRequest.FromString(request)
    except DecodeError as error:
        raise Malformed("a request for a certificate does not parse") from error


def _answer(
    connection: Connection, context: Context, keys: KeyStore, caller: Certified, request: bytes
) -> bytes | None:
    """The answer; None where the request waits for the CA key, which is noted."""
    keep_path(connection, caller.path, context.tree_id)
    wire = _parse(request)
    epoch = epoch_from_wire(wire.epoch)
    key = authority.check_request(wire.node_request, caller.unit, epoch)
    check_may_follow(connection, caller.unit, epoch_of(caller), epoch)
    if epoch == epoch_of(caller):
        if key_hash(key) != key_hash(caller.public_key):
            raise BadCertificate("a new key needs a new epoch")
    else:
        check_request(statement_from_wire(wire.handover), caller, epoch, key, context.tree_id)
        known, answered = path_of(connection, caller.unit, epoch), answer_to(connection, caller.unit, epoch)
        if known is not None and answered is not None:
            if key_hash(verify_node_path(known, context.tree_id).public_key) == key_hash(key):
                return answered  # the first answer was lost on the way
            raise BadCertificate(f"a second key is offered for one epoch of {caller.unit}")
    return certify(connection, context, keys, caller.unit, epoch_of(caller), request)


def check_may_follow(connection: Connection, unit: UnitPath, present: Epoch, epoch: Epoch) -> None:
    """Whether a unit's present key may have a certificate for ``epoch``. Raises Cloned where another key has followed
    it, or taken its place, and Revoked where it has ended."""
    check_not_revoked(connection, unit, present)
    if not is_accepted(connection, unit, present):
        raise BadCertificate(f"a second key of {unit} that the first did not sign cannot ask for another")
    if not may_be_followed(connection, unit, present, by=epoch):
        raise Cloned(COPY.format(unit=unit))


def granted(
    connection: Connection,
    context: Context,
    keys: KeyStore,
    unit: UnitPath,
    epoch: Epoch,
    wire: sync_pb2.EnrolRequest | sync_pb2.RenewRequest,
) -> tuple[tuple[bytes, ...], bytes]:
    """What a child's request is given: its node's path, and its CA certificate where it asks for one. Raises CaKeyAway
    or BadCertificate."""
    try:
        return invitation.grant(
            keys,
            unit=unit,
            epoch=epoch,
            node_request=wire.node_request,
            ca_request=wire.ca_request,
            deepest_level=current_registry(connection, context).deepest,
            now=datetime.now(UTC),
        )
    except CaKeyAway:
        raise
    except LocalFault as fault:
        raise BadCertificate(str(fault), hint=fault.hint) from fault


def certify(
    connection: Connection, context: Context, keys: KeyStore, unit: UnitPath, present: Epoch, request: bytes
) -> bytes | None:
    """Issue what a checked request asks for, and record it; None where the CA key is elsewhere: the request waits."""
    wire = _parse(request)
    epoch = epoch_from_wire(wire.epoch)
    asked = Asked(unit, epoch, present, None, request)
    try:
        path, ca = granted(connection, context, keys, unit, epoch, wire)
    except CaKeyAway:
        note_asked(connection, context, asked)
        return None
    keep_path(connection, path, context.tree_id)
    if wire.handover.body:
        keep(connection, context, statement_from_wire(wire.handover))
    name = name_of(connection, unit) or unit
    made = sync_pb2.EnrolResponse(unit=unit, name=name, node_path=path, ca_certificate=ca).SerializeToString()
    note_asked(connection, context, asked, made)
    note(connection, context, Act.RENEW, {"unit": unit, "epoch": epoch})
    return made


# --- statements ------------------------------------------------------------------------------------------------------


def _signed(keys: KeyStore, unit: UnitPath, epoch: Epoch, key: ec.EllipticCurvePublicKey, time_ms: int) -> Statement:
    """A handover, signed under the certificate in place: that of a life that waits would prove nothing yet."""
    said = Handover(
        tree_id=keys.tree_id,
        unit=unit,
        epoch=epoch,
        key_sha256=key_hash(key),
        signer=keys.unit,
        signer_epoch=keys.epoch,
        time_ms=time_ms,
    )
    body = body_of(said)
    return Statement(HANDOVER, body, keys.signer()(HANDOVER, body))


def _judge_named(connection: Connection, _context: Context, said: Handover) -> None:
    """A handover to a key that is not here changes nothing until it comes: then it is judged with all."""
    if is_known(connection, said.unit, said.epoch):
        judge(connection, said.unit)


KEPT.setdefault(HANDOVER, []).append(_judge_named)


def name_child(connection: Connection, context: Context, keys: KeyStore, unit: UnitPath, epoch: Epoch) -> Statement:
    """Sign, as the parent, for a key that was certified here: a first one, or one after a recovery."""
    path = path_of(connection, unit, epoch)
    assert path is not None  # noqa: S101 - the caller has seen it
    key = verify_node_path(path, context.tree_id).public_key
    said = _signed(keys, unit, epoch, key, context.now_ms())
    keep(connection, context, said)
    return said


def keep_vouched(connection: Connection, context: Context, granted: Granted) -> None:
    """Keep, as the child, what the parent has signed for the key of this home: an older parent sends nothing of it.
    Raises a RemoteFault."""
    if granted.signer_path:
        keep_path(connection, tuple(granted.signer_path), context.tree_id)
        keep(connection, context, statement_from_wire(granted.handover))


def meet(connection: Connection, context: Context, keys: KeyStore, caller: Certified) -> None:
    """Keep the certificate that a child calls with; a first one was certified here. Where no invitation of this
    database led to it (an older life of this node enrolled the child, or somebody else has its CA key), that is on
    record."""
    keep_path(connection, caller.path, context.tree_id)
    for epoch in name_known(connection, context, keys, caller.unit):
        note(connection, context, Act.ENROL, {"unit": caller.unit, "epoch": epoch, "invited": False})


def name_children(connection: Connection, context: Context, keys: KeyStore) -> None:
    """Sign for the first keys of children that an older version of the software, or a life of this node whose database
    is lost, has certified. Every node judges them alike then, in whatever order things come to it."""
    for unit in certified_children(connection, keys.unit):
        name_known(connection, context, keys, unit)


def name_known(connection: Connection, context: Context, keys: KeyStore, unit: UnitPath) -> list[Epoch]:
    """Sign for a child's accepted keys that no statement names; which they were."""
    note_all_keys(connection, unit)
    unnamed = [epoch for epoch in accepted_epochs(connection, unit) if not is_named(connection, unit, epoch)]
    for epoch in unnamed:
        name_child(connection, context, keys, unit, epoch)
    return unnamed
