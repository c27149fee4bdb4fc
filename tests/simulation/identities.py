"""Keys and certificates that are the same in every run, made once a process.

The product draws keys, serial numbers and signature nonces at random; a run that is to be replayed may not. Only here
are they derived from the unit's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from conflict.values import Epoch
from node import authority
from node.storage import certificates, inbox, proving, statements
from sync_engine.certificates import Signer, signed_message, tree_id_of, verify_node_path
from sync_engine.names import parent_of

DEEPEST = 3
ISSUED = datetime(2027, 5, 4, tzinfo=UTC)
_SIGN = x509.CertificateBuilder.sign


def _key(*parts: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(sha256("\0".join(parts).encode()).digest(), "big") >> 1, ec.SECP256R1())


def _sign_alike(builder: Any, key: Any, algorithm: Any) -> Any:
    return _SIGN(builder, key, algorithm, ecdsa_deterministic=True)


@contextmanager
def _alike(unit: str, what: str) -> Iterator[None]:
    serial = int.from_bytes(sha256(f"{what} {unit}".encode()).digest()[:16], "big")
    with (
        mock.patch.object(x509, "random_serial_number", return_value=serial),
        mock.patch.object(x509.CertificateBuilder, "sign", _sign_alike),
    ):
        yield


@dataclass(frozen=True)
class Identity:
    """One life of a unit's node: epoch, certificate path, signer."""

    unit: str
    epoch: Epoch
    path: tuple[bytes, ...]
    sign: Signer


@dataclass
class Identities:
    """All units' identities, made on demand."""

    root: str = "vn"
    _authorities: dict[str, tuple[ec.EllipticCurvePrivateKey, x509.Certificate]] = field(default_factory=dict)
    _made: dict[tuple[str, str], Identity] = field(default_factory=dict)

    @property
    def tree_id(self) -> bytes:
        return tree_id_of(authority.der_of(self._authority(self.root)[1]))

    def _authority(self, unit: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        if unit not in self._authorities:
            key, above = _key("ca", unit), parent_of(unit)
            issuer = None if above is None else self._authority(above)
            with _alike(unit, "ca"):
                if issuer is None:
                    made = authority.make_root_ca(unit, key)
                else:
                    made = authority.issue_ca(*issuer, unit, key.public_key(), DEEPEST)
            self._authorities[unit] = key, made
        return self._authorities[unit]

    def of(self, unit: str, epoch: str = "") -> Identity:
        """A life of a unit's node; its first, if none is named."""
        epoch = epoch or first_epoch(unit)
        if (unit, epoch) not in self._made:
            key, issuer = _node_key(unit, epoch), parent_of(unit) or unit
            above = self._authority(issuer)
            with _alike(unit, "node" if epoch == first_epoch(unit) else f"node {epoch}"):
                leaf = authority.issue_node(*above, unit, Epoch(epoch), key.public_key(), ISSUED)
            step: str | None = issuer
            path = [authority.der_of(leaf)]
            while step is not None:
                path.append(authority.der_of(self._authority(step)[1]))
                step = parent_of(step)
            rule = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
            self._made[(unit, epoch)] = Identity(
                unit, Epoch(epoch), tuple(path), lambda tag, body: key.sign(signed_message(tag, body), rule)
            )
        return self._made[(unit, epoch)]

    def public(self, unit: str, epoch: str) -> ec.EllipticCurvePublicKey:
        """The key that a unit's batches of one life must be signed with."""
        return _node_key(unit, epoch).public_key()


def first_epoch(unit: str) -> str:
    """The epoch of the life that a unit's node begins a run with."""
    return sha256(f"epoch {unit}".encode()).hexdigest()[:16]


def _node_key(unit: str, epoch: str) -> ec.EllipticCurvePrivateKey:
    return _key("node", unit) if epoch == first_epoch(unit) else _key("node", unit, epoch)


IDENTITIES = Identities()


@lru_cache(maxsize=4096)
def _verified(path: tuple[bytes, ...], tree_id: bytes) -> Any:
    return verify_node_path(path, tree_id)


def remember_proofs() -> None:
    """Verifying a path is pure and slow: the same path is proven once a process."""

    def proven(path: Any, tree_id: bytes) -> Any:
        return _verified(tuple(path), tree_id)

    for module in (certificates, inbox, proving, statements):
        module.verify_node_path = proven  # type: ignore[assignment]
