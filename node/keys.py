"""The keys and certificates of a home.

Role: makes, stores and loads them, and hands out what signs, what certifies and what TLS needs.
Reach: node.authority, node.platform, sync_engine.certificates; files under ``home/keys`` only, written under the
home's lock.
Invariant: a key never leaves its home and is never readable by others. ``node.pem`` is the commit point: before it is
replaced the old identity is whole, afterwards the new one is, wherever a crash falls in between.

    node.key  ca.key             PEM, PKCS#8, encrypted where the home or the CA has a secret (node.secret)
    node.pem                     the node's certificate, its ancestors' CAs, the root
    ca.pem                       this unit's own CA certificate (absent at the deepest level)
    next-*                       the same for a new life that waits for its certificates, and its requests (.csr)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from conflict.values import Epoch, UnitPath
from node import authority, platform, secret
from node.pem import from_pem, key_from_pem, key_to_pem, to_pem
from sync_engine.certificates import (
    UNREADABLE,
    Certified,
    Signer,
    check_key,
    named_in,
    subject_of,
    tree_id_of,
    verify_node_path,
)
from sync_engine.errors import BadCertificate, LocalFault, NotSetUp

NODE_KEY, CA_KEY, NODE_PEM, CA_PEM = "node.key", "ca.key", "node.pem", "ca.pem"
NEXT = "next-"
NODE_REQUEST, CA_REQUEST = NEXT + "node.csr", NEXT + "ca.csr"

LOCKED_HINT = "node.toml must say where its secret comes from: [at_rest], or [ca] for the key of the CA"

Authority: TypeAlias = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]
"""A unit's CA: its key and its certificate."""


class KeyFault(LocalFault):
    """The home's keys or certificates cannot be used as they are."""

    default_hint = "put the 'keys' directory back as it was, or run 'dongbo recover'"


class CaKeyAway(KeyFault):
    """The CA key is kept elsewhere, and has not been brought."""

    default_hint = "bring it (put the disk in that holds it), or name it with --ca-key, and run this again"


@dataclass(frozen=True, slots=True)
class Pending:
    """A new life of the node: keys that were made here and wait for their certificates.

    Its epoch may be sealed under at once (after a recovery); others accept that when the certificate reaches them.
    """

    unit: UnitPath
    epoch: Epoch
    node_request: bytes
    ca_request: bytes
    """Empty where no CA certificate is asked."""
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    def signer(self) -> Signer:
        return authority.signer_of(self.key)


class KeyStore:
    """A node's identity, as verified on loading."""

    def __init__(
        self,
        home: Path,
        certified: Certified,
        key: ec.EllipticCurvePrivateKey,
        ca_certificate: x509.Certificate | None,
        ca_key_file: Path,
    ) -> None:
        self.home = home
        self.certified = certified
        self.key = key
        self.ca_certificate = ca_certificate
        self.ca_key_file = ca_key_file

    # --- making and loading ---

    @classmethod
    def create_root(cls, home: Path, unit: str, now: datetime) -> Self:
        """A new tree: the root's CA, which certifies its own node."""
        waiting = request(home, unit, with_ca=True)
        ca_key = _load_key(_directory(home) / (NEXT + CA_KEY))
        ca_cert = authority.make_root_ca(unit, ca_key)
        node_key = waiting.key.public_key()
        leaf = authority.issue_node(ca_key, ca_cert, unit, waiting.epoch, node_key, now)
        root = authority.der_of(ca_cert)
        return cls.install(home, (authority.der_of(leaf), root), root, tree_id_of(root))

    @classmethod
    def install(
        cls,
        home: Path,
        node_path: Sequence[bytes],
        ca_certificate: bytes,
        tree_id: bytes,
        ca_key_file: Path | None = None,
    ) -> Self:
        """Puts what the parent (or the root's own CA) certified in place; a repeat changes nothing.

        The node's certificate is for the keys that wait, or renews the one in place. ``ca_certificate`` may be empty:
        a CA that the node has stays. Raises BadCertificate or WrongTree if the answer does not fit what was asked,
        before anything is written.
        """
        directory = _directory(home)
        _settle(directory)
        certified = verify_node_path(node_path, tree_id)
        _check_answer(home, certified)
        if ca_certificate:
            ca_pem = directory / _ca_file(directory, ca_certificate, certified)
            platform.write_private(ca_pem, to_pem([ca_certificate]))
        platform.write_private(directory / NODE_PEM, to_pem(node_path))
        return cls.load(home, ca_key_file)

    @classmethod
    def load(cls, home: Path, ca_key_file: Path | None = None) -> Self:
        """Raises NotSetUp if there is no identity here, KeyFault if it is exposed or does not fit together.

        ``ca_key_file``: where the CA key is, if not in the home. It need not be there now.
        """
        directory = _directory(home)
        if not (directory / NODE_PEM).exists():
            raise NotSetUp(f"there is no node in {home}")
        _settle(directory)
        path = _load_certificates(directory / NODE_PEM)
        try:
            certified = verify_node_path(path, tree_id_of(path[-1]))
        except BadCertificate as error:
            raise KeyFault(f"{NODE_PEM} does not hold a node's certificates: {error}") from error
        key = _load_key(directory / NODE_KEY)
        if key.public_key() != certified.public_key:
            raise KeyFault(f"{NODE_KEY} does not belong to the certificate in {NODE_PEM}")
        certificate = _load_ca_certificate(directory, certified.unit)
        keys = cls(home, certified, key, certificate, ca_key_file or directory / CA_KEY)
        if keys.ca_key_is_here and not secret.has_own_passphrase(home):
            keys.require_ca()
        return keys

    # --- what it holds ---

    @property
    def unit(self) -> UnitPath:
        return self.certified.unit

    @property
    def epoch(self) -> Epoch:
        assert self.certified.epoch is not None  # noqa: S101 (a node path always names one)
        return self.certified.epoch

    @property
    def tree_id(self) -> bytes:
        return tree_id_of(self.node_path[-1])

    @property
    def node_path(self) -> tuple[bytes, ...]:
        """DER: the node's certificate, its ancestors' CAs, the root."""
        return self.certified.path

    @property
    def ca_path(self) -> tuple[bytes, ...]:
        """DER: this unit's CA, its ancestors' CAs, the root: what follows the certificate of a child. Else KeyFault."""
        own = authority.der_of(self._require_ca_certificate())
        return (own, *(der for der in self.node_path[1:] if der != own))

    @property
    def ca_key_is_here(self) -> bool:
        """Whether this node can certify now: a CA key may be kept elsewhere and brought for each signing."""
        return self.ca_certificate is not None and self.ca_key_file.exists()

    def require_ca(self) -> Authority:
        """The CA. Raises CaKeyAway while its key is kept elsewhere, NoSecret while its passphrase is, and KeyFault
        where the unit has none."""
        certificate = self._require_ca_certificate()
        if not self.ca_key_file.exists():
            raise CaKeyAway(f"the CA key of {self.unit} is not here: {self.ca_key_file} does not exist")
        key = _load_key(self.ca_key_file, self.home)
        if key.public_key() != certificate.public_key() or certificate.subject != subject_of(self.unit):
            raise KeyFault(f"{self.ca_key_file.name} and {CA_PEM} are not those of {self.unit}")
        return key, certificate

    def _require_ca_certificate(self) -> x509.Certificate:
        if self.ca_certificate is None:
            raise KeyFault(f"{self.unit} cannot have units below it", hint="it has no CA key: it is of the last level")
        return self.ca_certificate

    def signer(self) -> Signer:
        return authority.signer_of(self.key)

    @cached_property
    def tls_chain_pem(self) -> bytes:
        """The leaf and the CAs between; the other side has the root itself."""
        return to_pem(self.node_path[:-1])

    @cached_property
    def tls_root_pem(self) -> bytes:
        return to_pem(self.node_path[-1:])

    @cached_property
    def tls_key_pem(self) -> bytes:
        return key_to_pem(self.key)


# --- a new life ------------------------------------------------------------------------------------------------------


def request(home: Path, unit: str, *, with_ca: bool, fresh: bool = False) -> Pending:
    """Keys and requests for a new epoch of ``unit``, durable before they are shown to anyone.

    Asked again it gives the same, so that a lost answer is asked for again in the same words. ``fresh`` drops what
    waits: a recovery must not go on with an epoch out of an old image, which may have been lived already.
    """
    directory = _directory(home)
    platform.make_private_dir(directory)
    drop = fresh or _pending_differs(home, unit, with_ca=with_ca)
    waiting = None if drop else pending(home)
    if waiting:
        return waiting
    drop_pending(home)
    key, epoch = authority.new_key(), authority.new_epoch()
    if with_ca:
        ca_key = authority.new_key()
        _write_key(directory / (NEXT + CA_KEY), ca_key)
        platform.write_private(directory / CA_REQUEST, authority.ca_request(unit, ca_key))
    _write_key(directory / (NEXT + NODE_KEY), key)
    # Last, for it is what says that the others are whole.
    platform.write_private(directory / NODE_REQUEST, authority.node_request(unit, epoch, key))
    made = pending(home)
    assert made is not None  # noqa: S101 (written just now, under the home's lock)
    return made


def pending(home: Path) -> Pending | None:
    """The new life that waits for its certificates, if one does. Raises KeyFault."""
    directory = _directory(home)
    _settle(directory)
    if not (directory / NODE_REQUEST).exists():
        return None
    node_request = (directory / NODE_REQUEST).read_bytes()
    key = _load_key(directory / (NEXT + NODE_KEY))
    try:
        unit, epoch = authority.named_in_request(node_request)
        fits = authority.check_request(node_request, unit, epoch) == key.public_key()
    except BadCertificate as error:
        raise KeyFault(f"{NODE_REQUEST} cannot be used: {error}") from error
    if not fits or epoch is None:
        raise KeyFault(f"{NODE_REQUEST} does not belong to {NEXT}{NODE_KEY}")
    ca_request = (directory / CA_REQUEST).read_bytes() if (directory / CA_REQUEST).exists() else b""
    return Pending(unit, epoch, node_request, ca_request, key)


def drop_pending(home: Path) -> None:
    """Forgets a new life that was never certified, and leaves the one in place as it is."""
    directory = _directory(home)
    _settle(directory)
    for name in (NODE_REQUEST, CA_REQUEST, NEXT + CA_PEM, NEXT + CA_KEY, NEXT + NODE_KEY):
        (directory / name).unlink(missing_ok=True)
    if directory.exists():
        platform.sync_directory(directory)


def _pending_differs(home: Path, unit: str, *, with_ca: bool) -> bool:
    waiting = pending(home)
    return waiting is not None and (waiting.unit, bool(waiting.ca_request)) != (unit, with_ca)


def _settle(directory: Path) -> None:
    """Finishes an installation whose commit point (``node.pem``) was reached: what waits gets its lasting names.

    Each step may be the last before a crash; the next call goes on from there, for ``next-node.key`` moves last.
    """
    waiting = directory / (NEXT + NODE_KEY)
    if not (waiting.exists() and (directory / NODE_PEM).exists()):
        return
    if _load_key(waiting).public_key() != _public_key(_load_certificates(directory / NODE_PEM)[0]):
        return
    if (directory / (NEXT + CA_PEM)).exists():
        _move(directory, NEXT + CA_KEY, CA_KEY)
        _move(directory, NEXT + CA_PEM, CA_PEM)
    for name in (NEXT + CA_KEY, CA_REQUEST, NODE_REQUEST):
        (directory / name).unlink(missing_ok=True)
    _move(directory, waiting.name, NODE_KEY)


def _move(directory: Path, name: str, lasting: str) -> None:
    if (directory / name).exists():
        (directory / name).replace(directory / lasting)
        platform.sync_directory(directory)


def _check_answer(home: Path, certified: Certified) -> None:
    """Whether a certificate is the one that was asked for, or renews the one in place."""
    directory, waiting = _directory(home), pending(home)
    if waiting and certified.public_key == waiting.key.public_key():
        expected = (waiting.unit, waiting.epoch)
    elif (directory / NODE_PEM).exists() and _load_key(directory / NODE_KEY).public_key() == certified.public_key:
        unit, epoch = named_in(x509.load_der_x509_certificate(_load_certificates(directory / NODE_PEM)[0]).subject)
        expected = (unit, epoch or Epoch(""))
    else:
        raise BadCertificate("the certificate is not for a key of this node")
    if (certified.unit, certified.epoch) != expected:
        raise BadCertificate("the certificate is for another unit or epoch than the one asked for")


def _ca_file(directory: Path, der: bytes, certified: Certified) -> str:
    """Where a CA certificate belongs: beside the key that waits for it, or in place of the one it renews."""
    try:
        unit, epoch = named_in(x509.load_der_x509_certificate(der).subject)
        public_key = _public_key(der)
    except UNREADABLE as error:
        raise BadCertificate("the CA certificate cannot be read") from error
    if unit != certified.unit or epoch is not None:
        raise BadCertificate("the CA certificate is for another unit")
    for key_file, pem in ((NEXT + CA_KEY, NEXT + CA_PEM), (CA_KEY, CA_PEM)):
        if (directory / key_file).exists() and _load_key(directory / key_file).public_key() == public_key:
            return pem
    raise BadCertificate("the CA certificate is not for a key of this node")


# --- files -----------------------------------------------------------------------------------------------------------


def _directory(home: Path) -> Path:
    return home / "keys"


def _load_key(path: Path, ca_of: Path | None = None) -> ec.EllipticCurvePrivateKey:
    """A key of the home that the file lies in; ``ca_of``: the CA key of that home, wherever it is kept. Raises
    KeyFault; NoSecret or BadSecret where it is encrypted."""
    try:
        if not platform.is_private(path):
            raise KeyFault(
                f"{path.name} may be read by others than its owner",
                hint=f"run 'chmod 600 {path}'; if others may have read it, 'dongbo rotate' as well",
            )
        text = path.read_bytes()
        vault = secret.vault(ca_of or path.parent.parent)
        return key_from_pem(text, vault.password_of(CA_KEY if ca_of else path.name) if secret.is_locked(text) else None)
    except (OSError, BadCertificate) as error:
        raise KeyFault(
            f"{path.name} cannot be used: {_words(error)}", hint=LOCKED_HINT if "encrypted" in str(error) else ""
        ) from error


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    home = path.parent.parent
    platform.write_private(path, key_to_pem(key, secret.vault(home, make=True).password_of(path.name)))


def _load_certificates(path: Path) -> tuple[bytes, ...]:
    try:
        return from_pem(path.read_bytes())
    except (OSError, BadCertificate) as error:
        raise KeyFault(f"{path.name} cannot be used: {_words(error)}") from error


def _load_ca_certificate(directory: Path, unit: UnitPath) -> x509.Certificate | None:
    """The unit's own CA certificate. Its key may be elsewhere."""
    if not (directory / CA_PEM).exists():
        return None
    certificate = x509.load_der_x509_certificate(_load_certificates(directory / CA_PEM)[0])
    if certificate.subject != subject_of(unit):
        raise KeyFault(f"{CA_PEM} is not that of {unit}")
    return certificate


def _public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    return check_key(x509.load_der_x509_certificate(der).public_key())


def _words(error: OSError | BadCertificate) -> str:
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)
