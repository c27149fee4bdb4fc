"""Keys and certificates as text.

Role: PEM to keys and DER, and back; a key is encrypted where a password is given.
Reach: cryptography, node.secret for telling whether a key is encrypted. Invariant: what is said of a text that cannot
be used never holds any of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from node import authority, secret
from sync_engine.certificates import UNREADABLE, check_key
from sync_engine.errors import BadCertificate

PrivateKey = ec.EllipticCurvePrivateKey | X25519PrivateKey | MLKEM768PrivateKey
"""What a home may hold: P-256 to sign with, the others to have things encrypted to."""


def to_pem(certificates: Sequence[bytes]) -> bytes:
    """DER certificates as one PEM text, in order."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


def from_pem(text: bytes) -> tuple[bytes, ...]:
    """The DER certificates of a PEM text. Raises BadCertificate."""
    try:
        return tuple(authority.der_of(certificate) for certificate in x509.load_pem_x509_certificates(text))
    except UNREADABLE as error:
        raise BadCertificate("these are not certificates in PEM") from error


def key_to_pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    lock = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


def any_key_from_pem(text: bytes, password: bytes | None = None) -> PrivateKey:
    """A key of whatever kind a home holds. Raises BadCertificate, whose words never hold any of the text."""
    if not secret.is_locked(text):
        password = None
    elif password is None:
        raise BadCertificate("this key is encrypted")
    try:
        key = load_pem_private_key(text, password)
    except UNREADABLE:
        raise BadCertificate("this is not a key in PEM") from None
    if not isinstance(key, PrivateKey):
        raise BadCertificate("this is no key of a node")
    return key


def key_from_pem(text: bytes, password: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """A P-256 key, as sign and certify. Raises BadCertificate."""
    key = any_key_from_pem(text, password)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("the key is not an ECDSA key")
    check_key(key.public_key())
    return key
