"""What a certificate path proves, and the many that prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from node import authority
from sync_engine.certificates import (
    CERTIFICATE_BYTES_MAX,
    ENROLMENT_USAGES,
    NODE_USAGES,
    TAGS,
    check_signature,
    signed_message,
    subject_of,
    tree_id_of,
    verify_enrolment_path,
    verify_link_path,
    verify_node_path,
)
from sync_engine.errors import BadCertificate, BadSignature, WrongTree
from sync_engine.names import check_unit
from tests.pki import COMMUNE, DISTRICT, EPOCH, NOW, PROVINCE, ROOT, Ca, Leaf, Tree, dns, only, subtree

TREE = Tree(ROOT)
OTHER_TREE = Tree(ROOT)


def shuffled(*places: int) -> tuple[bytes, ...]:
    path = TREE.node(COMMUNE).path
    return tuple(path[place] for place in places)


def with_an_unused_bit() -> tuple[bytes, ...]:
    """The byte before the signature counts the unused bits of its last byte: 0, or 1 where that happens to be even."""
    while True:
        path = Leaf().path(TREE)
        signature = x509.load_der_x509_certificate(path[0]).signature
        if signature[-1] % 2 == 0:
            return (path[0][: -len(signature) - 1] + b"\x01" + signature, *path[1:])


def dcs(*labels: str, epoch: str = EPOCH) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.DOMAIN_COMPONENT, label) for label in labels]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.SERIAL_NUMBER, epoch)])


def sibling_path() -> tuple[bytes, ...]:
    """Da Nang's CA, real and honest in form, speaks for a district of Hue."""
    name, subject = dns(f"{DISTRICT}.dongbo"), subject_of(DISTRICT, EPOCH)
    return Leaf(issuer="da-nang.vn", names=name, subject=subject).path(TREE)


def sibling_path_with_parents_name() -> tuple[bytes, ...]:
    """The same, with Hue's own CA certificate put in the place of the one that signed."""
    return (sibling_path()[0], *TREE.ca_path(PROVINCE))


def skipped_level() -> tuple[bytes, ...]:
    """The province certifies a commune itself, over its district's head."""
    return Leaf(issuer=PROVINCE).path(TREE)


# --- good paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [ROOT, PROVINCE, DISTRICT, COMMUNE])
def test_every_level_of_a_tree_proves_its_unit_and_epoch(unit: str) -> None:
    node = TREE.node(unit)
    certified = verify_node_path(node.path, TREE.tree_id)
    assert (certified.unit, certified.epoch, certified.enrolment) == (unit, EPOCH, False)
    assert certified.path == node.path
    assert certified.public_key == node.key.public_key()
    assert certified.sha256 == tree_id_of(node.path[0])  # both are SHA-256 of DER


@pytest.mark.parametrize(("unit", "length"), [(ROOT, 2), (PROVINCE, 2), (DISTRICT, 3), (COMMUNE, 4)])
def test_a_path_holds_exactly_one_ca_per_ancestor(unit: str, length: int) -> None:
    assert len(TREE.node(unit).path) == length


def test_the_forgers_unspoilt_certificates_are_good() -> None:
    """Else the tables below would prove nothing."""
    assert verify_node_path(Leaf().path(TREE), TREE.tree_id).unit == COMMUNE
    assert verify_node_path(Ca().path(TREE), TREE.tree_id).unit == COMMUNE


def test_a_path_length_above_what_is_needed_is_good_for_the_tree_may_grow() -> None:
    assert verify_node_path(Ca(path_length=3).path(TREE), TREE.tree_id).unit == COMMUNE


def test_the_deepest_path_that_names_allow_verifies() -> None:
    unit = check_unit(".".join(["a"] * 16))
    tree = Tree("a", deepest_level=15)
    assert verify_node_path(tree.node(unit).path, tree.tree_id).unit == unit


def test_a_path_length_follows_from_the_level() -> None:
    lengths = [
        TREE.ca(unit)[1].extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for unit in (ROOT, PROVINCE, DISTRICT)
    ]
    assert lengths == [None, 1, 0]


# --- bad paths -------------------------------------------------------------------------------------------------------


Forged = Leaf | Ca | Callable[[], Sequence[bytes]]

FORGED: dict[str, tuple[str, Forged]] = {
    # the shape of the path
    "a leaf without the CA between": ("CA certificates where", lambda: shuffled(0, 2, 3)),
    "CAs in the wrong order": ("in the place of", lambda: shuffled(0, 2, 1, 3)),
    "a CA twice": ("CA certificates where", lambda: shuffled(0, 1, 1, 2, 3)),
    "a CA more than its ancestors": (
        "CA certificates where",
        lambda: (*shuffled(0, 1, 2), TREE.ca_path("da-nang.vn")[0], *shuffled(3)),
    ),
    "the root alone": ("2 to 17", lambda: shuffled(3)),
    "the root as its own node": ("lacks its SubjectAlternativeName", lambda: shuffled(3, 3)),
    "a CA certificate in the leaf's place": ("lacks its SubjectAlternativeName", lambda: shuffled(1, 2, 3)),
    "more certificates than any tree has": ("2 to 17", lambda: (*shuffled(*[0] * 17), *shuffled(3))),
    "a certificate longer than any of ours": (
        "longer than 8192",
        lambda: (b"\0" * (CERTIFICATE_BYTES_MAX + 1), *shuffled(1, 2, 3)),
    ),
    "bytes that are no certificate": ("cannot be read", lambda: (b"\x30\x03\x02\x01\x01", *shuffled(1, 2, 3))),
    "a leaf with a byte after its end": ("cannot be read", lambda: (shuffled(0)[0] + b"\0", *shuffled(1, 2, 3))),
    "a leaf with a bit that nothing covers": ("one proper form", with_an_unused_bit),
    # who issued it
    "a sibling's CA for another's district": ("in the place of", sibling_path),
    "a sibling's CA, hidden behind the parent's": ("do not vouch", sibling_path_with_parents_name),
    "an ancestor above the parent": ("CA certificates where", skipped_level),
    "an ancestor above the parent, hidden behind the parent's": (
        "more than the certificates that prove",
        lambda: (Leaf(issuer=PROVINCE).sign(TREE), *TREE.ca_path(DISTRICT)),
    ),
    "the root, hidden behind all between": (
        "more than the certificates that prove",
        lambda: (Leaf(issuer=ROOT).sign(TREE), *TREE.ca_path(DISTRICT)),
    ),
    "the unit's own CA": (
        "CA certificates where",
        Leaf(issuer=DISTRICT, names=dns(f"{DISTRICT}.dongbo"), subject=subject_of(DISTRICT, EPOCH)),
    ),
    "another tree's CA of the same name": ("do not vouch", lambda: (Leaf().sign(OTHER_TREE), *TREE.ca_path(DISTRICT))),
    # the leaf
    "two names": ("one name", Leaf(names=dns(f"{COMMUNE}.dongbo", f"khac.{DISTRICT}.dongbo"))),
    "one name twice": ("one name", Leaf(names=dns(f"{COMMUNE}.dongbo", f"{COMMUNE}.dongbo"))),
    "a wildcard": ("not the one its kind has", Leaf(names=dns(f"*.{DISTRICT}.dongbo"))),
    "a URI beside the name": (
        "one name",
        Leaf(names=(*dns(f"{COMMUNE}.dongbo"), x509.UniformResourceIdentifier("sync://vn.dongbo/"))),
    ),
    "a URI instead of the name": (
        "one name",
        Leaf(names=(x509.UniformResourceIdentifier(f"sync://{COMMUNE}.dongbo/"),)),
    ),
    "no name": ("lacks its SubjectAlternativeName", Leaf(names=None)),
    "capitals": ("not the one its kind has", Leaf(names=dns(f"{COMMUNE}.dongbo".upper()))),
    "a final dot": ("not the one its kind has", Leaf(names=dns(f"{COMMUNE}.dongbo."))),
    "a name without the tree's ending": ("not the one its kind has", Leaf(names=dns(COMMUNE))),
    "a name that ends twice": ("differ", Leaf(names=dns(f"{COMMUNE}.dongbo.dongbo"))),
    "another unit's name": ("differ", Leaf(names=dns("my-khe.son-tra.da-nang.vn.dongbo"))),
    "no extended usage": ("lacks its ExtendedKeyUsage", Leaf(usages=None)),
    "client usage alone": ("not for the uses", Leaf(usages=(ExtendedKeyUsageOID.CLIENT_AUTH,))),
    "server usage alone": ("not for the uses", Leaf(usages=(ExtendedKeyUsageOID.SERVER_AUTH,))),
    "a usage more": ("not for the uses", Leaf(usages=(*NODE_USAGES, ExtendedKeyUsageOID.CODE_SIGNING))),
    "a usage twice": ("not for the uses", Leaf(usages=(*NODE_USAGES, ExtendedKeyUsageOID.CLIENT_AUTH))),
    "any usage": ("not for the uses", Leaf(usages=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,))),
    "no key usage": ("lacks its KeyUsage", Leaf(key_usage=None)),
    "a key for encryption": ("must be for signatures", Leaf(key_usage=only("key_encipherment"))),
    "a key for signing and encryption": (
        "must be for signatures",
        Leaf(key_usage=only("digital_signature", "key_encipherment")),
    ),
    "a leaf that is a CA": (
        "must be for signatures",
        Leaf(is_ca=True, key_usage=only("digital_signature", "key_cert_sign")),
    ),
    "a leaf that is a CA by its constraints alone": ("cannot stand for a node", Leaf(is_ca=True)),
    "an Ed25519 key": ("on P-256", Leaf(public_key=ed25519.Ed25519PrivateKey.generate().public_key())),
    "a P-384 key": ("on P-256", Leaf(public_key=ec.generate_private_key(ec.SECP384R1()).public_key())),
    "a signature over SHA-384": ("another algorithm", Leaf(hash=hashes.SHA384())),
    "a subject of another unit": ("differ", Leaf(subject=subject_of(DISTRICT, EPOCH))),
    "a subject leaf first": ("differ", Leaf(subject=dcs("vinh-an", "phu-vang", "hue", "vn"))),
    "no epoch in the subject": ("name its epoch", Leaf(subject=subject_of(COMMUNE))),
    "a short epoch": ("order of the tree", Leaf(subject=subject_of(COMMUNE, "a1"))),
    "an epoch in capitals": ("order of the tree", Leaf(subject=subject_of(COMMUNE, EPOCH.upper()))),
    "two epochs": (
        "order of the tree",
        Leaf(subject=x509.Name([*subject_of(COMMUNE, EPOCH), x509.NameAttribute(NameOID.SERIAL_NUMBER, EPOCH)])),
    ),
    "something else in the subject": (
        "order of the tree",
        Leaf(subject=x509.Name([*subject_of(COMMUNE, EPOCH), x509.NameAttribute(NameOID.COMMON_NAME, "x")])),
    ),
    "a leaf that begins after the fixed instant": ("do not vouch", Leaf(not_before=NOW)),
    "an unknown critical extension": ("do not vouch", Leaf(unknown_critical=True)),
    # the CAs
    "name constraints not critical": ("own subtree", Ca(constraints_critical=False)),
    "no name constraints": ("lacks its NameConstraints", Ca(constraints=None)),
    "name constraints wider than the subtree": ("own subtree", Ca(constraints=subtree(PROVINCE))),
    "name constraints narrower than the subtree": ("own subtree", Ca(constraints=subtree(COMMUNE))),
    "a second subtree": ("own subtree", Ca(constraints=subtree(DISTRICT, "a-luoi.hue.vn"))),
    "an excluded subtree": ("own subtree", Ca(constraints=subtree(DISTRICT, excluded=f"x.{DISTRICT}.dongbo"))),
    "no path length below the root": ("does not allow", Ca(path_length=None)),
    "a CA of another unit in the ancestor's place": ("in the place of", Ca(subject=subject_of("a-luoi.hue.vn"))),
    "a CA that names an epoch": ("in the place of", Ca(subject=subject_of(DISTRICT, EPOCH))),
    "basic constraints not critical": ("is not a CA's", Ca(basic_critical=False)),
    "an issuer that is no CA": ("is not a CA's", Ca(is_ca=False)),
    "a CA key that signs messages as well": (
        "must be for certificates",
        Ca(key_usage=only("key_cert_sign", "digital_signature")),
    ),
    "a CA key on P-384": ("on P-256", Ca(curve=ec.SECP384R1())),
}


@pytest.mark.parametrize(("reason", "forged"), FORGED.values(), ids=FORGED)
def test_a_forged_or_broken_path_is_refused(reason: str, forged: Forged) -> None:
    path = forged() if callable(forged) else forged.path(TREE)
    with pytest.raises(BadCertificate, match=reason):
        verify_node_path(path, TREE.tree_id)


def test_a_path_length_too_short_for_the_path_is_refused() -> None:
    """A province allowed to have districts certifies one that then certifies a commune's CA."""
    shallow = Tree(ROOT, deepest_level=2)
    key = authority.new_key()
    extra = Tree(ROOT, deepest_level=3, _authorities={k: shallow.ca(k) for k in (ROOT, PROVINCE)})
    extra._authorities[DISTRICT] = (key, authority.issue_ca(*extra.ca(PROVINCE), DISTRICT, key.public_key(), 3))
    path = extra.node(COMMUNE).path
    with pytest.raises(BadCertificate, match="path length"):
        verify_node_path(path, extra.tree_id)


def test_a_root_that_could_change_is_refused() -> None:
    """A root with a path length would have to be replaced when the tree grows, and its hash is the tree's name."""
    key = authority.new_key()
    template = authority._ca_template(ROOT, key.public_key(), path_length=5)
    root = authority._signed(template, subject_of(ROOT), key, authority.FIRST_INSTANT, authority.LAST_INSTANT)
    tree = Tree(ROOT, _authorities={ROOT: (key, root)})
    with pytest.raises(BadCertificate, match="path length"):
        verify_node_path(tree.node(ROOT).path, tree.tree_id)


def test_a_path_of_another_tree_is_told_apart() -> None:
    with pytest.raises(WrongTree):
        verify_node_path(OTHER_TREE.node(COMMUNE).path, TREE.tree_id)
    with pytest.raises(WrongTree):
        verify_node_path((*shuffled(0, 1, 2), b"not a certificate"), TREE.tree_id)


@settings(max_examples=300, deadline=None)
@given(
    place=st.integers(0, 3),
    offset=st.integers(0, 10_000),
    flip=st.integers(1, 255),
)
def test_no_changed_byte_gives_another_identity(place: int, offset: int, flip: int) -> None:
    """Hostile bytes end in our own errors, never in one of the library's."""
    node = TREE.node(COMMUNE)
    path = list(node.path)
    spoilt = bytearray(path[place])
    spoilt[offset % len(spoilt)] ^= flip
    path[place] = bytes(spoilt)
    with pytest.raises((BadCertificate, WrongTree)):
        verify_node_path(path, TREE.tree_id)


# --- dates -----------------------------------------------------------------------------------------------------------


def test_an_expired_certificate_still_proves_batches_but_opens_no_link() -> None:
    expired = Leaf(not_after=NOW - timedelta(seconds=1)).path(TREE)
    assert verify_node_path(expired, TREE.tree_id).unit == COMMUNE
    with pytest.raises(BadCertificate, match="not valid now"):
        verify_link_path(expired, TREE.tree_id, NOW)


@pytest.mark.parametrize("now", [NOW, NOW.replace(year=2037), NOW.replace(year=1990)])
def test_a_clock_ten_years_off_still_links(now: datetime) -> None:
    assert verify_link_path(TREE.node(COMMUNE).path, TREE.tree_id, now).unit == COMMUNE


def test_a_parent_whose_clock_reads_1970_issues_certificates_that_last() -> None:
    path = TREE.node(COMMUNE, "00000000000000b2", now=datetime(1970, 1, 1, tzinfo=UTC)).path
    assert verify_link_path(path, TREE.tree_id, NOW).not_after.year == 2056


# --- invitations -----------------------------------------------------------------------------------------------------


EXPIRES = NOW + timedelta(hours=72)


def test_an_invitation_proves_the_unit_that_may_enrol() -> None:
    certified = verify_enrolment_path(TREE.enrolment(COMMUNE, EXPIRES), TREE.tree_id, NOW)
    assert (certified.unit, certified.epoch, certified.enrolment) == (COMMUNE, None, True)
    assert certified.not_after == EXPIRES


def test_an_invitation_ends_by_the_parents_clock_alone() -> None:
    path = TREE.enrolment(COMMUNE, EXPIRES)
    with pytest.raises(BadCertificate, match="expired"):
        verify_enrolment_path(path, TREE.tree_id, EXPIRES + timedelta(seconds=1))
    assert verify_enrolment_path(path, TREE.tree_id, None).unit == COMMUNE


def test_an_invitation_is_no_node_and_a_node_no_invitation() -> None:
    with pytest.raises(BadCertificate):
        verify_node_path(TREE.enrolment(COMMUNE, EXPIRES), TREE.tree_id)
    with pytest.raises(BadCertificate):
        verify_enrolment_path(TREE.node(COMMUNE).path, TREE.tree_id, NOW)


INVITED = Leaf(
    names=dns(f"enrol.{COMMUNE}.dongbo"),
    usages=ENROLMENT_USAGES,
    subject=subject_of(f"enrol.{COMMUNE}"),
    not_after=EXPIRES,
)
BAD_INVITATIONS: dict[str, tuple[str, Forged]] = {
    "with a server's usage": ("not for the uses", replace(INVITED, usages=NODE_USAGES)),
    "with the unit's name": ("not the one its kind has", replace(INVITED, names=dns(f"{COMMUNE}.dongbo"))),
    "with both names": ("one name", replace(INVITED, names=dns(f"enrol.{COMMUNE}.dongbo", f"{COMMUNE}.dongbo"))),
    "with a subject that is the unit's": ("differ", replace(INVITED, subject=subject_of(COMMUNE))),
    "made by a unit for itself": (
        "CA certificates where",
        replace(INVITED, names=dns(f"enrol.{DISTRICT}.dongbo"), subject=subject_of(f"enrol.{DISTRICT}")),
    ),
    "to the root": (
        "not the one its kind has",
        replace(INVITED, issuer=ROOT, names=dns("enrol.vn.dongbo"), subject=subject_of("enrol.vn")),
    ),
    "of a unit named enrol": (
        "not the one its kind has",
        replace(INVITED, names=dns(f"enrol.enrol.{DISTRICT}.dongbo"), subject=subject_of(f"enrol.enrol.{DISTRICT}")),
    ),
}


def test_the_forgers_unspoilt_invitation_is_good() -> None:
    assert verify_enrolment_path(INVITED.path(TREE), TREE.tree_id, NOW).unit == COMMUNE


@pytest.mark.parametrize(("reason", "forged"), BAD_INVITATIONS.values(), ids=BAD_INVITATIONS)
def test_a_forged_invitation_is_refused(reason: str, forged: Forged) -> None:
    path = forged() if callable(forged) else forged.path(TREE)
    with pytest.raises(BadCertificate, match=reason):
        verify_enrolment_path(path, TREE.tree_id, NOW)


# --- signatures ------------------------------------------------------------------------------------------------------


def test_a_signature_holds_for_its_own_body_and_key() -> None:
    node, other = TREE.node(COMMUNE), TREE.node(DISTRICT)
    signature = node.signer("batch", b"header")
    check_signature(node.key.public_key(), "batch", b"header", signature)
    for key, body, offered in (
        (other.key, b"header", signature),
        (node.key, b"header\0", signature),
        (node.key, b"header", b""),
        (node.key, b"header", signature[:-1]),
        (node.key, b"header", signature + b"\0"),
    ):
        with pytest.raises(BadSignature):
            check_signature(key.public_key(), "batch", body, offered)


@pytest.mark.parametrize("tag", sorted(TAGS))
def test_a_signature_under_one_tag_is_worth_nothing_under_another(tag: str) -> None:
    node = TREE.node(COMMUNE)
    signature = node.signer(tag, b"body")
    for other in TAGS - {tag}:
        with pytest.raises(BadSignature):
            check_signature(node.key.public_key(), other, b"body", signature)


def test_the_signed_bytes_are_fixed() -> None:
    assert signed_message("batch", b"\x01\x02") == b"dongbo/batch/1\x00\x01\x02"
    with pytest.raises(ValueError, match="signed under"):
        signed_message("anything", b"")
