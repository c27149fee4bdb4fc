"""Trees of certified units for tests, made on demand: ``Tree("vn").node("phu-vang.hue.vn")``.

And a forger who holds their real CA keys: ``Leaf`` and ``Ca`` are as they should be until a test spoils one thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from conflict.values import Epoch, UnitPath, level_of
from node import authority, invitation, keys
from node.keys import KeyStore
from sync_engine.certificates import NODE_USAGES, Signer, key_usage, subject_of, tree_id_of
from sync_engine.names import parent_of, path_of

COMMUNE, DISTRICT, PROVINCE, ROOT = "vinh-an.phu-vang.hue.vn", "phu-vang.hue.vn", "hue.vn", "vn"
EPOCH = "00000000000000a1"
DEEPEST = 3
NOW = datetime(2027, 5, 4, 3, 2, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Node:
    """One life of a unit's node."""

    unit: UnitPath
    epoch: Epoch
    path: tuple[bytes, ...]
    key: ec.EllipticCurvePrivateKey
    signer: Signer


@dataclass
class Tree:
    """Makes each unit's CA once, and a node of it per epoch."""

    root: str = "vn"
    deepest_level: int = DEEPEST
    _authorities: dict[str, tuple[ec.EllipticCurvePrivateKey, x509.Certificate]] = field(default_factory=dict)
    _nodes: dict[tuple[str, str], Node] = field(default_factory=dict)

    @property
    def tree_id(self) -> bytes:
        return tree_id_of(authority.der_of(self.ca(self.root)[1]))

    def ca(self, unit: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        if unit not in self._authorities:
            key, above = authority.new_key(), parent_of(unit)
            if above is None:
                self._authorities[unit] = key, authority.make_root_ca(unit, key)
            else:
                issued = authority.issue_ca(*self.ca(above), unit, key.public_key(), self.deepest_level)
                self._authorities[unit] = key, issued
        return self._authorities[unit]

    def ca_path(self, unit: str) -> tuple[bytes, ...]:
        """DER: the unit's CA, its ancestors', the root."""
        return tuple(authority.der_of(self.ca(step)[1]) for step in path_of(unit))

    def node(self, unit: str, epoch: str = EPOCH, now: datetime = NOW) -> Node:
        """The same node each time it is asked for by unit and epoch."""
        if (unit, epoch) not in self._nodes:
            key, issuer = authority.new_key(), parent_of(unit) or unit
            leaf = authority.issue_node(*self.ca(issuer), unit, epoch, key.public_key(), now)
            path = (authority.der_of(leaf), *self.ca_path(issuer))
            signer = authority.signer_of(key)
            self._nodes[unit, epoch] = Node(UnitPath(unit), Epoch(epoch), path, key, signer)
        return self._nodes[unit, epoch]

    def enrolment(self, unit: str, expires: datetime) -> tuple[bytes, ...]:
        """The path of an invitation's certificate."""
        issuer = parent_of(unit)
        assert issuer is not None
        assert level_of(unit) <= self.deepest_level
        leaf = authority.issue_enrolment(*self.ca(issuer), unit, authority.new_key().public_key(), expires)
        return authority.der_of(leaf), *self.ca_path(issuer)


# --- homes -----------------------------------------------------------------------------------------------------------


def answer(parent: KeyStore, waiting: keys.Pending, deepest_level: int = DEEPEST) -> tuple[tuple[bytes, ...], bytes]:
    return invitation.grant(
        parent,
        unit=waiting.unit,
        epoch=waiting.epoch,
        node_request=waiting.node_request,
        ca_request=waiting.ca_request,
        deepest_level=deepest_level,
        now=NOW,
    )


def join(parent: KeyStore, home: Path, unit: str) -> KeyStore:
    home.mkdir(exist_ok=True)
    waiting = keys.request(home, unit, with_ca=True)
    return KeyStore.install(home, *answer(parent, waiting), parent.tree_id)


# --- a forger with real CA keys --------------------------------------------------------------------------------------


SIGNS, CERTIFIES = key_usage(signs_certificates=False), key_usage(signs_certificates=True)
THE_COMMUNE, THE_DISTRICT = subject_of(COMMUNE, EPOCH), subject_of(DISTRICT)
THE_SUBTREE = x509.NameConstraints([x509.DNSName(f"{DISTRICT}.dongbo")], None)


@dataclass(frozen=True)
class Leaf:
    """A node certificate as it should be; each case spoils one thing."""

    issuer: str = DISTRICT
    names: tuple[x509.GeneralName, ...] | None = (x509.DNSName(f"{COMMUNE}.dongbo"),)
    usages: Sequence[x509.ObjectIdentifier] | None = NODE_USAGES
    key_usage: x509.KeyUsage | None = SIGNS
    subject: x509.Name = THE_COMMUNE
    public_key: object = None
    hash: hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA256)
    is_ca: bool = False
    not_before: datetime = authority.FIRST_INSTANT
    not_after: datetime = NOW + timedelta(days=3650)
    unknown_critical: bool = False

    def sign(self, tree: Tree) -> bytes:
        ca_key, ca_cert = tree.ca(self.issuer)
        key = self.public_key or ec.generate_private_key(ec.SECP256R1()).public_key()
        builder = blank(self.subject, key, ca_key, ca_cert.subject, self.not_before, self.not_after)
        builder = builder.add_extension(x509.BasicConstraints(self.is_ca, None), critical=True)
        if self.names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(self.names), critical=False)
        if self.usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.usages), critical=False)
        if self.key_usage is not None:
            builder = builder.add_extension(self.key_usage, critical=True)
        if self.unknown_critical:
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
            builder = builder.add_extension(unknown, critical=True)
        return authority.der_of(builder.sign(ca_key, self.hash))

    def path(self, tree: Tree) -> tuple[bytes, ...]:
        return (self.sign(tree), *tree.ca_path(self.issuer))


@dataclass(frozen=True)
class Ca:
    """The district's CA as the province should have issued it; each case spoils one thing."""

    issuer: str = PROVINCE
    subject: x509.Name = THE_DISTRICT
    constraints: x509.NameConstraints | None = THE_SUBTREE
    constraints_critical: bool = True
    path_length: int | None = 0
    basic_critical: bool = True
    is_ca: bool = True
    key_usage: x509.KeyUsage = CERTIFIES
    curve: ec.EllipticCurve = field(default_factory=ec.SECP256R1)

    def path(self, tree: Tree) -> tuple[bytes, ...]:
        """A good commune below this CA."""
        key = ec.generate_private_key(self.curve)
        ca_key, ca_cert = tree.ca(self.issuer)
        always = authority.FIRST_INSTANT, authority.LAST_INSTANT
        builder = blank(self.subject, key.public_key(), ca_key, ca_cert.subject, *always)
        basic = x509.BasicConstraints(self.is_ca, self.path_length if self.is_ca else None)
        builder = builder.add_extension(basic, critical=self.basic_critical)
        builder = builder.add_extension(self.key_usage, critical=True)
        if self.constraints is not None:
            builder = builder.add_extension(self.constraints, critical=self.constraints_critical)
        ca = builder.sign(ca_key, hashes.SHA256())
        forger = Tree(tree.root, _authorities={**tree._authorities, DISTRICT: (key, ca)})
        return Leaf().path(forger)


def blank(
    subject: x509.Name,
    public_key: object,
    ca_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    assert isinstance(public_key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )


def dns(*names: str) -> tuple[x509.GeneralName, ...]:
    return tuple(x509.DNSName(name) for name in names)


def only(*extra: str) -> x509.KeyUsage:
    """A leaf's key usage with more allowed than it should be."""
    flags = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    wanted = {flag: flag in extra for flag in flags.split()}
    return x509.KeyUsage(**wanted, encipher_only=False, decipher_only=False)


def subtree(*units: str, excluded: str = "") -> x509.NameConstraints:
    names = [x509.DNSName(f"{unit}.dongbo") for unit in units]
    return x509.NameConstraints(names, [x509.DNSName(excluded)] if excluded else None)
