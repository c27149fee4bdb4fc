"""Makes keys, requests and certificates.

Role: what a unit's CA issues (its children's CAs, nodes and invitations) and what a node asks of it.
Reach: sync_engine.certificates, which verifies what is made here; chance enters (keys, serial numbers, epochs); files
stay in node.keys.
Invariant: of a request only the public key and the proof that its holder signed it are taken; every name and limit in
a certificate is the issuer's own word.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import SignatureAlgorithmOID

from conflict.values import Epoch, UnitPath, level_of
from sync_engine.certificates import (
    CERTIFICATE_BYTES_MAX,
    ENROLMENT_PREFIX,
    ENROLMENT_USAGES,
    EPOCH,
    NODE_USAGES,
    UNREADABLE,
    Signer,
    check_key,
    issuers_of,
    key_usage,
    named_in,
    signed_message,
    subject_of,
)
from sync_engine.errors import BadCertificate, BadName
from sync_engine.names import check_unit, dns_name, parent_of

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
LAST_INSTANT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

# Thirty years: a node whose clock is ten years off must still link.
NODE_LIFETIME = timedelta(days=30 * 365 + 8)

# A clock that reads 1970 at boot must not issue a certificate that ended before it was made.
ISSUED_NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)

DNS_NAME_CHARS_MAX = 253
SHA256 = hashes.SHA256()


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_epoch() -> Epoch:
    """64 random bits as 16 hex digits."""
    return Epoch(secrets.token_hex(8))


def signer_of(key: ec.EllipticCurvePrivateKey) -> Signer:
    """The signer of a node key."""
    return lambda tag, body: key.sign(signed_message(tag, body), ec.ECDSA(SHA256))


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


# --- issuing ---------------------------------------------------------------------------------------------------------


def make_root_ca(unit: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A tree's root certificate. Its hash names the tree, so it carries nothing that might ever have to change."""
    if parent_of(check_unit(unit)) is not None:
        raise BadName(f"{unit} is not a root", hint="a root has a single label, such as vn")
    template = _ca_template(unit, key.public_key(), path_length=None)
    return _signed(template, subject_of(unit), key, FIRST_INSTANT, LAST_INSTANT)


def issue_ca(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_cert: x509.Certificate,
    unit: str,
    public_key: ec.EllipticCurvePublicKey,
    deepest_level: int,
) -> x509.Certificate:
    """A child's CA certificate. A unit of the deepest level has no children and gets none: BadName."""
    _check_issuer(ca_key, ca_cert, unit)
    path_length = deepest_level - level_of(unit) - 1
    if path_length < 0 or parent_of(unit) is None:
        raise BadName(f"{unit} cannot have a CA certificate from here", hint="the deepest level has no children")
    template = _ca_template(unit, public_key, path_length=path_length)
    return _signed(template, ca_cert.subject, ca_key, FIRST_INSTANT, LAST_INSTANT)


def issue_node(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_cert: x509.Certificate,
    unit: str,
    epoch: str,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
) -> x509.Certificate:
    """The certificate of a unit's node for one epoch. A renewal keeps the epoch and the key."""
    _check_issuer(ca_key, ca_cert, unit)
    ends = min(max(now, ISSUED_NOT_BEFORE), LAST_INSTANT - NODE_LIFETIME) + NODE_LIFETIME
    template = _leaf_template(dns_name(unit), subject_of(unit, _check_epoch(epoch)), public_key, NODE_USAGES)
    return _signed(template, ca_cert.subject, ca_key, FIRST_INSTANT, ends)


def issue_enrolment(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_cert: x509.Certificate,
    unit: str,
    public_key: ec.EllipticCurvePublicKey,
    expires: datetime,
) -> x509.Certificate:
    """An invitation's certificate: good for one call, until ``expires``."""
    _check_issuer(ca_key, ca_cert, unit)
    if parent_of(unit) is None:
        raise BadName(f"{unit} is the root of its tree and cannot be invited")
    name = ENROLMENT_PREFIX + unit
    template = _leaf_template(dns_name(name), subject_of(name), public_key, ENROLMENT_USAGES)
    return _signed(template, ca_cert.subject, ca_key, FIRST_INSTANT, expires)


def _check_issuer(ca_key: ec.EllipticCurvePrivateKey, ca_cert: x509.Certificate, unit: str) -> None:
    """A mistake here would make a certificate that nobody accepts: it is caught before it is made."""
    issuer, _ = named_in(ca_cert.subject)
    if issuer != issuers_of(check_unit(unit))[0]:
        raise BadName(f"{issuer} cannot certify {unit}", hint="a unit is certified by its parent")
    if ca_key.public_key() != ca_cert.public_key():
        raise BadCertificate(f"the CA key and the CA certificate of {issuer} do not belong together")
    if len(ENROLMENT_PREFIX + dns_name(unit)) > DNS_NAME_CHARS_MAX:
        raise BadName("the unit's path is too long for a certificate", hint="use shorter names")


def _check_epoch(epoch: str) -> str:
    if not EPOCH.fullmatch(epoch):
        raise BadCertificate("an epoch is 16 hex digits")
    return epoch


def _ca_template(
    unit: str, public_key: ec.EllipticCurvePublicKey, *, path_length: int | None
) -> x509.CertificateBuilder:
    subtree = x509.NameConstraints([x509.DNSName(dns_name(unit))], None)
    return (
        _template(subject_of(unit), public_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(subtree, critical=True)
    )


def _leaf_template(
    name: str, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, usages: Sequence[x509.ObjectIdentifier]
) -> x509.CertificateBuilder:
    return (
        _template(subject, public_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )


def _template(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(check_key(public_key))
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _signed(
    template: x509.CertificateBuilder,
    issuer: x509.Name,
    ca_key: ec.EllipticCurvePrivateKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.Certificate:
    return (
        template.issuer_name(issuer)
        .not_valid_before(not_before)
        .not_valid_after(not_after.replace(microsecond=0))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256)
    )


# --- asking ----------------------------------------------------------------------------------------------------------


def node_request(unit: str, epoch: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Asks for a node certificate (PKCS#10, DER)."""
    return _request(subject_of(check_unit(unit), _check_epoch(epoch)), key)


def ca_request(unit: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Asks for a CA certificate (PKCS#10, DER)."""
    return _request(subject_of(check_unit(unit)), key)


def _request(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> bytes:
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256).public_bytes(Encoding.DER)


def named_in_request(der: bytes) -> tuple[UnitPath, Epoch | None]:
    """Whom a request is for; the epoch is None where a CA certificate is asked. Raises BadCertificate."""
    return named_in(_load_request(der).subject)


def check_request(der: bytes, unit: str, epoch: str | None) -> ec.EllipticCurvePublicKey:
    """The key to certify, whose holder signed the request for this unit (and epoch). Raises BadCertificate."""
    request = _load_request(der)
    try:
        if request.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
            raise BadCertificate("the request is signed with another algorithm than ECDSA with SHA-256")
        key = check_key(request.public_key())
        if not request.is_signature_valid:
            raise BadCertificate("the request was not signed with the key that it carries")
    except UNREADABLE as error:
        raise BadCertificate("the certificate request cannot be read") from error
    if request.subject != subject_of(unit, epoch):
        raise BadCertificate(f"the request is not one of {unit} for this epoch")
    return key


def _load_request(der: bytes) -> x509.CertificateSigningRequest:
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise BadCertificate(f"a certificate request is longer than {CERTIFICATE_BYTES_MAX} bytes")
    try:
        return x509.load_der_x509_csr(der)
    except UNREADABLE as error:
        raise BadCertificate("the certificate request cannot be read") from error
