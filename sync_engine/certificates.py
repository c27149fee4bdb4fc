"""Decides whether a certificate path proves a unit, and whether a signature is that unit's.

Role: the rules for a path (a leaf, one CA per ancestor, the root) and the tag that tells one kind of signed message
from another.
Reach: conflict, names, errors and `cryptography`; time is an argument, keys and their files stay in node.
Invariant: what a path proves depends on its bytes and the tree id alone, so every node judges one batch alike, and
still does years later: it is verified at a fixed instant; dates count where a link or an invitation is at stake.
Source: RFC 5280, 6 (the standard part, done by `cryptography`); protocol, "Certificates" (what that part lets through).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from conflict.values import Epoch, UnitPath
from sync_engine.errors import BadCertificate, BadName, BadSignature, WrongTree
from sync_engine.names import check_unit, dns_name, parent_of, path_of

PATH_CERTIFICATES_MAX = 17
CERTIFICATE_BYTES_MAX = 8 * 1024
"""Ours are under 1 KiB; both limits hold before a byte is parsed."""

PATHS_VERIFIED_AT = datetime(1970, 1, 2, tzinfo=UTC)
"""Every certificate of a tree is valid then, so no batch is ever judged by the receiver's clock."""

ENROLMENT_PREFIX = "enrol."
EPOCH = re.compile(r"[0-9a-f]{16}")

TAGS = frozenset(
    {
        *("batch", "hello", "receipt", "heartbeat", "bundle", "enrol", "revocation", "lost", "fork", "handover"),
        "encryption",
    },
)
"""What a node key signs. A signature made under one tag is worth nothing under another."""

Signer: TypeAlias = Callable[[str, bytes], bytes]
"""(tag, body) -> the signature of ``signed_message(tag, body)``, ECDSA P-256 with SHA-256, DER."""

NODE_USAGES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
ENROLMENT_USAGES = (ExtendedKeyUsageOID.CLIENT_AUTH,)

ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)

# What `cryptography` raises over bytes that are not a certificate, or not one it knows: the sender's fault, all of it.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # raised where warnings are made errors: a serial number below 1, say
)


@dataclass(frozen=True, slots=True)
class Certified:
    """What a verified path proves."""

    unit: UnitPath
    epoch: Epoch | None
    """The stream that the key writes; None in an invitation's certificate."""
    enrolment: bool
    sha256: bytes
    """Of the leaf's DER."""
    path: tuple[bytes, ...]
    """DER: the leaf first, the root last."""
    not_after: datetime
    public_key: ec.EllipticCurvePublicKey = field(compare=False, repr=False)


# --- names in certificates -------------------------------------------------------------------------------------------


def tree_id_of(root_der: bytes) -> bytes:
    """A tree's identity: SHA-256 of its root certificate."""
    return hashlib.sha256(root_der).digest()


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """A CA certifies and does nothing else; a leaf signs and does nothing else."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def subject_of(name: str, epoch: str | None = None) -> x509.Name:
    """One DC per label, root first; then the epoch, where the subject is a node."""
    attributes = [x509.NameAttribute(NameOID.DOMAIN_COMPONENT, label) for label in reversed(name.split("."))]
    if epoch is not None:
        attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, epoch))
    return x509.Name(attributes)


def named_in(subject: x509.Name) -> tuple[UnitPath, Epoch | None]:
    """The unit and the epoch that a subject names: the inverse of ``subject_of``. Raises BadCertificate."""
    labels: list[str] = []
    epochs: list[str | None] = [None]
    for attribute in subject:
        (labels if attribute.oid == NameOID.DOMAIN_COMPONENT else epochs).append(str(attribute.value))
    epoch = epochs[-1]
    try:
        unit = check_unit(".".join(reversed(labels)))
    except BadName as error:
        raise BadCertificate("the subject does not name a unit") from error
    if (epoch is not None and not EPOCH.fullmatch(epoch)) or subject != subject_of(unit, epoch):
        raise BadCertificate("the subject does not name a unit and its epoch in the order of the tree")
    return unit, None if epoch is None else Epoch(epoch)


def issuers_of(unit: str) -> tuple[UnitPath, ...]:
    """Whose CAs stand above a unit's node certificate, nearest first; only the root's is issued by its own."""
    return tuple(path_of(parent_of(unit) or unit))


# --- paths -----------------------------------------------------------------------------------------------------------


def verify_node_path(path: Sequence[bytes], tree_id: bytes) -> Certified:
    """The unit and epoch whose batches this path's first key signs; no clock has a say.

    Raises WrongTree if the path ends in another root, else BadCertificate.
    """
    return _verified(path, tree_id, enrolment=False)[0]


def verify_link_path(path: Sequence[bytes], tree_id: bytes, now: datetime) -> Certified:
    """A node path that is good for a link now: dates bind links, and nothing else. Raises as ``verify_node_path``."""
    certified, certificates = _verified(path, tree_id, enrolment=False)
    for certificate in certificates:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise BadCertificate(
                "a certificate of the path is not valid now",
                hint="renew it with 'dongbo rotate', after looking at the clocks of both nodes",
            )
    return certified


def verify_enrolment_path(path: Sequence[bytes], tree_id: bytes, now: datetime | None) -> Certified:
    """The unit that may enrol with this invitation. None leaves its expiry to the parent, by whose clock it was set.

    Raises as ``verify_node_path``.
    """
    certified, _ = _verified(path, tree_id, enrolment=True)
    if now is not None and now > certified.not_after:
        raise BadCertificate("the invitation has expired", hint="ask the parent unit for a new one ('dongbo invite')")
    return certified


def _verified(
    path: Sequence[bytes], tree_id: bytes, *, enrolment: bool
) -> tuple[Certified, tuple[x509.Certificate, ...]]:
    if not 2 <= len(path) <= PATH_CERTIFICATES_MAX:
        raise BadCertificate(f"a path has 2 to {PATH_CERTIFICATES_MAX} certificates")
    if any(len(der) > CERTIFICATE_BYTES_MAX for der in path):
        raise BadCertificate(f"a certificate is longer than {CERTIFICATE_BYTES_MAX} bytes")
    if tree_id_of(path[-1]) != tree_id:
        raise WrongTree("the certificates belong to another tree")
    try:
        certificates = tuple(_read_certificate(der) for der in path)
        unit, epoch, key = _read_leaf(certificates[0], enrolment=enrolment)
        _check_issuers(certificates[1:], unit, enrolment=enrolment)
    except UNREADABLE as error:
        raise BadCertificate("a certificate of the path cannot be read") from error
    _check_standard(certificates)
    leaf = certificates[0]
    return Certified(
        unit=unit,
        epoch=epoch,
        enrolment=enrolment,
        sha256=hashlib.sha256(path[0]).digest(),
        path=tuple(path),
        not_after=leaf.not_valid_after_utc,
        public_key=key,
    ), certificates


def _read_certificate(der: bytes) -> x509.Certificate:
    certificate = x509.load_der_x509_certificate(der)
    # The library passes over the count of unused bits before the signature, the one byte that nothing else covers.
    if not der.endswith(b"\0" + certificate.signature):
        raise BadCertificate("a certificate is not in its one proper form")
    return certificate


def _read_leaf(leaf: x509.Certificate, *, enrolment: bool) -> tuple[UnitPath, Epoch | None, ec.EllipticCurvePublicKey]:
    key = _check_algorithms(leaf)
    names = list(_extension(leaf, x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], x509.DNSName):
        raise BadCertificate("the certificate must carry one name, a DNS name, and no other")
    unit = _unit_named(names[0].value, enrolment=enrolment)

    usages = _extension(leaf, x509.ExtendedKeyUsage).value
    wanted = ENROLMENT_USAGES if enrolment else NODE_USAGES
    if len(usages) != len(wanted) or set(usages) != set(wanted):
        raise BadCertificate("the certificate is not for the uses that its kind has")
    if _extension(leaf, x509.KeyUsage).value != key_usage(signs_certificates=False):
        raise BadCertificate("the certificate's key must be for signatures, and for nothing else")
    if _extension(leaf, x509.BasicConstraints).value.ca:
        raise BadCertificate("a CA certificate cannot stand for a node")

    if enrolment:
        if leaf.subject != subject_of(ENROLMENT_PREFIX + unit):
            raise BadCertificate("the certificate's subject and its DNS name differ")
        return unit, None, key
    named, epoch = named_in(leaf.subject)
    if named != unit:
        raise BadCertificate("the certificate's subject and its DNS name differ")
    if epoch is None:
        raise BadCertificate("a node's certificate must name its epoch")
    return unit, epoch, key


def _unit_named(name: str, *, enrolment: bool) -> UnitPath:
    """The unit behind a DNS name; its labels leave no room for a wildcard, capitals or a final dot."""
    prefix = ENROLMENT_PREFIX if enrolment else ""
    bare = name.removeprefix(prefix).removesuffix(dns_name(""))
    try:
        unit = check_unit(bare)
    except BadName as error:
        raise BadCertificate("the certificate's DNS name is not the one its kind has") from error
    if name != prefix + dns_name(unit) or (enrolment and parent_of(unit) is None):
        raise BadCertificate("the certificate's DNS name is not the one its kind has")
    return unit


def _check_issuers(authorities: Sequence[x509.Certificate], unit: UnitPath, *, enrolment: bool) -> None:
    """Exactly one CA per ancestor, nearest first, each bound to its own subtree."""
    issuers = issuers_of(unit)
    if len(authorities) != len(issuers):
        raise BadCertificate(f"the path has {len(authorities)} CA certificates where {unit} has {len(issuers)} issuers")
    for below, (authority, issuer) in enumerate(zip(authorities, issuers, strict=True)):
        _check_algorithms(authority)
        if authority.subject != subject_of(issuer):
            raise BadCertificate(f"the path has another unit's CA in the place of {issuer}'s")
        if _extension(authority, x509.KeyUsage).value != key_usage(signs_certificates=True):
            raise BadCertificate(f"the CA key of {issuer} must be for certificates, and for nothing else")
        constraints = _extension(authority, x509.NameConstraints)
        subtree = [x509.DNSName(dns_name(issuer))]
        if not constraints.critical or constraints.value != x509.NameConstraints(subtree, None):
            raise BadCertificate(f"the CA of {issuer} is not bound to its own subtree")
        basic = _extension(authority, x509.BasicConstraints)
        if not (basic.critical and basic.value.ca):
            raise BadCertificate(f"the certificate of {issuer} is not a CA's")
        limit, is_root = basic.value.path_length, below == len(issuers) - 1
        if (limit is None) != is_root or (limit is not None and limit < below):
            raise BadCertificate(f"the path length of the CA of {issuer} does not allow this path")


def _check_standard(certificates: Sequence[x509.Certificate]) -> None:
    """RFC 5280: signatures, constraints, key identifiers, no unknown critical extension, at the fixed instant."""
    root = certificates[-1]
    policy = PolicyBuilder().store(Store([root])).time(PATHS_VERIFIED_AT).max_chain_depth(PATH_CERTIFICATES_MAX)
    try:
        verified = policy.build_client_verifier().verify(certificates[0], list(certificates[1:-1]))
    except VerificationError as error:
        raise BadCertificate("the certificates of the path do not vouch for one another") from error
    # The library may leave out what it does not need: a leaf that the root signed itself would pass behind any CAs.
    if list(verified.chain) != list(certificates):
        raise BadCertificate("the path holds more than the certificates that prove its first one")


def _check_algorithms(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise BadCertificate("a certificate is signed with another algorithm than ECDSA with SHA-256")
    return check_key(certificate.public_key())


def check_key(key: object) -> ec.EllipticCurvePublicKey:
    """Raises BadCertificate unless the key is a P-256 one, the only kind that every part of the node handles."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadCertificate("a certificate's key is not an ECDSA key on P-256")
    return key


def _extension(certificate: x509.Certificate, kind: type[ExtensionT]) -> x509.Extension[ExtensionT]:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound as error:
        raise BadCertificate(f"a certificate lacks its {kind.__name__}") from error


# --- signatures ------------------------------------------------------------------------------------------------------


def signed_message(tag: str, body: bytes) -> bytes:
    """The bytes that a signature covers. A tag that is not one of TAGS is a mistake of ours: ValueError."""
    if tag not in TAGS:
        raise ValueError(f"no message is signed under {tag!r}")
    return b"dongbo/" + tag.encode() + b"/1\0" + body


def check_signature(public_key: ec.EllipticCurvePublicKey, tag: str, body: bytes, signature: bytes) -> None:
    """Raises BadSignature unless the key signed this body under this tag."""
    message = signed_message(tag, body)
    try:
        public_key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise BadSignature(f"the {tag} was not signed by the key that it names") from error
