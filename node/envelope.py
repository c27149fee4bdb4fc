"""The keys under which things are encrypted to this unit, and encrypting to another's.

Role: make, keep and load key pairs; seal a file's key to a public key, and open what was sealed to one of ours.
Reach: HPKE of cryptography (RFC 9180), node.pem, node.secret; files under ``home/keys``. Source: protocol,
"Certificates"; docs/decisions/0034. Invariant: a key that signs is never one that decrypts, and the other way round.

    carry-<id>-x25519.key, carry-<id>-mlkem768.key      PEM, as the other keys; without the second it is X25519 alone
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from node import pem, platform, secret
from sync_engine.bundle import FILE_KEY_BYTES, Envelope, NoBundle, key_id
from sync_engine.errors import BadCertificate, LocalFault
from sync_engine.statements import KEM_KEY_BYTES

X25519, HYBRID = "x25519", "mlkem768-x25519"
SUITES = {
    X25519: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    HYBRID: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
}
INFO = b"dongbo/bundle/1"
NAME = re.compile(r"carry-([0-9a-f]{16})-x25519\.key")
X25519_BYTES = 32

KEPT = 8
"""Key pairs of former lives that are still opened with: a stick may be months on its way."""


class NoCarryKey(LocalFault):
    """A key that is needed to open what is carried here cannot be used."""

    default_hint = "put the 'keys' directory back as it was"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One of this unit's. ``public`` is as ``EncryptionKey.public_key``."""

    kem: str
    public: bytes
    _private: X25519PrivateKey | hpke.MLKEM768X25519PrivateKey = field(repr=False)

    @property
    def id(self) -> bytes:
        return key_id(self.public)

    def open(self, envelope: Envelope) -> bytes:
        """The file's key. Raises NoBundle."""
        try:
            found = SUITES[self.kem].decrypt(envelope.file_key, self._private, INFO)
        except (InvalidTag, ValueError) as error:
            raise NoBundle("this bundle's beginning is damaged") from error
        if len(found) != FILE_KEY_BYTES:
            raise NoBundle("this bundle's beginning is damaged")
        return found


def knows_hybrid() -> bool:
    """Whether this machine's cryptography has ML-KEM."""
    try:
        MLKEM768PrivateKey.generate()
    except UnsupportedAlgorithm:
        return False
    return True


def seal_to(kem: str, public: bytes, file_key: bytes) -> Envelope:
    """A file's key, encrypted to a recipient's public key. Raises LocalFault for a kind that this version, or this
    machine, does not know."""
    if kem not in KEM_KEY_BYTES or (kem == HYBRID and not knows_hybrid()):
        raise LocalFault("the recipient's key is of a kind that this node does not know", hint="upgrade this node")
    try:
        to: X25519PublicKey | hpke.MLKEM768X25519PublicKey
        to = X25519PublicKey.from_public_bytes(public[-X25519_BYTES:])
        if kem == HYBRID:
            to = hpke.MLKEM768X25519PublicKey(MLKEM768PublicKey.from_public_bytes(public[:-X25519_BYTES]), to)
        return Envelope(kem, key_id(public), SUITES[kem].encrypt(file_key, to, INFO))
    except ValueError as error:
        raise LocalFault("the recipient's key cannot be used", hint="the recipient must make a new one") from error


def make(home: Path) -> KeyPair:
    """A new pair, durable before it is told to anybody; the oldest beyond ``KEPT`` are dropped."""
    folder, name = home / "keys", secrets.token_hex(8)
    vault = secret.vault(home, make=True)

    def write(kind: str, key: pem.PrivateKey) -> None:
        path = folder / f"carry-{name}-{kind}.key"
        platform.write_private(path, pem.key_to_pem(key, vault.password_of(path.name)))

    if knows_hybrid():
        write("mlkem768", MLKEM768PrivateKey.generate())
    write("x25519", X25519PrivateKey.generate())  # last: it is what says that the pair is whole
    kept = sorted(_files(home), key=lambda path: path.stat().st_mtime_ns)
    for path in kept[: max(0, len(kept) - KEPT)]:
        path.unlink()
        _other(path).unlink(missing_ok=True)
    return _load(folder / f"carry-{name}-x25519.key", home)


def load_all(home: Path) -> list[KeyPair]:
    """Every pair of the home. Raises NoCarryKey."""
    return [_load(path, home) for path in _files(home)]


def _files(home: Path) -> list[Path]:
    return sorted(path for path in (home / "keys").glob("carry-*-x25519.key") if NAME.fullmatch(path.name))


def _other(path: Path) -> Path:
    return path.with_name(path.name.replace("x25519", "mlkem768"))


def _load(path: Path, home: Path) -> KeyPair:
    key, other = _read(path, home), _other(path)
    if not isinstance(key, X25519PrivateKey):
        raise NoCarryKey(f"{path.name} holds a key of another kind")
    public = key.public_key().public_bytes_raw()
    if not other.exists():
        return KeyPair(X25519, public, key)
    second = _read(other, home)
    if not isinstance(second, MLKEM768PrivateKey):
        raise NoCarryKey(f"{other.name} holds a key of another kind")
    both = hpke.MLKEM768X25519PrivateKey(second, key)
    return KeyPair(HYBRID, second.public_key().public_bytes_raw() + public, both)


def _read(path: Path, home: Path) -> pem.PrivateKey:
    try:
        text = path.read_bytes()
        return pem.any_key_from_pem(text, secret.vault(home).password_of(path.name) if secret.is_locked(text) else None)
    except (OSError, BadCertificate) as error:
        raise NoCarryKey(f"{path.name} cannot be used") from error
