"""Decides which epochs of a unit count: a key follows another where that one, or the parent, signed so.

Role: from the certificates and handovers that are here, the epochs that are accepted; what a child's request for a new
certificate must prove.
Reach: certificates, statements, errors. Why it is decided so: docs/decisions/0032.
Invariant: what is accepted depends on the bytes that are here, not on the order in which they came, wherever the
parent has named a unit's first key; only for a unit of which it has named none does the first to come count.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conflict.values import Epoch
from sync_engine.certificates import Certified
from sync_engine.errors import BadCertificate
from sync_engine.frames import Statement
from sync_engine.statements import Handover, check_admissible, check_signed, parse


@dataclass(frozen=True, slots=True)
class Known:
    """An epoch whose certificate is here."""

    epoch: Epoch
    key_sha256: bytes


def key_hash(key: ec.EllipticCurvePublicKey) -> bytes:
    """SHA-256 of a key's SubjectPublicKeyInfo: its name wherever a key is named."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def is_by_parent(handover: Handover) -> bool:
    """Whether the parent signed it, and not the unit under an earlier key."""
    return handover.signer != handover.unit


def check_request(
    statement: Statement, caller: Certified, epoch: Epoch, key: ec.EllipticCurvePublicKey, tree_id: bytes
) -> None:
    """Whether the handover that a child asks a certificate with leads from the key it called with to the one it asks
    for. Raises BadCertificate, BadSignature, OutOfScope, Malformed or WrongTree."""
    said = parse(statement)
    if not isinstance(said, Handover) or (said.unit, said.epoch, said.key_sha256) != (
        caller.unit,
        epoch,
        key_hash(key),
    ):
        raise BadCertificate("the handover is not one to the key that is to be certified")
    check_admissible(said, tree_id, caller.unit)
    check_signed(statement, said, caller)


def accepted(known: Sequence[Known], handovers: Collection[Handover]) -> frozenset[Epoch]:
    """The epochs of one unit that count, of those whose certificates are here, in the order in which they came.

    ``handovers`` are proven: signed by a key of this unit, or by an accepted one of its parent.
    """
    keys = {each.epoch: each.key_sha256 for each in known}
    valid = [each for each in handovers if keys.get(each.epoch) == each.key_sha256]
    follows = [(each.signer_epoch, each.epoch) for each in valid if not is_by_parent(each)]
    begin = {each.epoch for each in valid if is_by_parent(each)}
    if not begin and known:
        begin = {_first(known, follows)}
    return _reached(begin, follows)


def _first(known: Sequence[Known], follows: Collection[tuple[Epoch, Epoch]]) -> Epoch:
    """Where the parent has named none: the first that came, or the one before it that handed over to it."""
    order = [each.epoch for each in known]
    first, met = order[0], {order[0]}
    while before := [each for each in order if (each, first) in follows and each not in met]:
        first = before[0]
        met.add(first)
    return first


def _reached(begin: set[Epoch], follows: Collection[tuple[Epoch, Epoch]]) -> frozenset[Epoch]:
    reached = set(begin)
    while more := {after for before, after in follows if before in reached and after not in reached}:
        reached |= more
    return frozenset(reached)
