"""From an invitation to a certified home: tokens, requests, grants, and the files they end in."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from conflict.values import Epoch
from node import authority, invitation, keys, parent_link, pem
from node.invitation import PREFIX, TOKEN_CHARS_MAX, Invitation
from node.keys import KeyFault, KeyStore
from sync_engine.certificates import subject_of, verify_enrolment_path, verify_node_path
from sync_engine.errors import (
    BadCertificate,
    BadInput,
    BadInvitation,
    BadName,
    LinkFault,
)
from tests.pki import DEEPEST, NOW, join

EXPIRES = NOW + timedelta(hours=72)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore.create_root(tmp_path_factory.mktemp("vn"), "vn", NOW)


@pytest.fixture(scope="module")
def invited(root: KeyStore) -> Invitation:
    return invitation.create(root, "hue", "Thành phố Huế", "dongbo.example:7443", EXPIRES)


@pytest.fixture(scope="module")
def token(invited: Invitation) -> str:
    return invitation.encode(invited)


# --- the token -------------------------------------------------------------------------------------------------------


def test_a_token_carries_an_invitation_whole(invited: Invitation, token: str) -> None:
    assert invitation.decode(token) == invited
    assert "\n" not in token
    assert len(token) < 4096


def test_an_invitation_says_whom_to_call_and_whom_to_trust(root: KeyStore, invited: Invitation) -> None:
    assert (invited.unit, invited.parent, invited.name) == ("hue.vn", "vn", "Thành phố Huế")
    assert invited.tree_id == root.tree_id
    assert invited.expires == EXPIRES
    assert verify_enrolment_path(invited.path, root.tree_id, NOW).unit == "hue.vn"
    assert b"PRIVATE" not in repr(invited).encode()


@pytest.mark.parametrize("carried", ["  {}\n", "\n\n{}\r\n", "\t{}"], ids=["spaces", "line ends", "a tab"])
def test_white_space_around_a_token_does_no_harm(invited: Invitation, token: str, carried: str) -> None:
    assert invitation.decode(carried.format(token)) == invited


def test_a_token_that_a_mail_program_broke_into_lines_is_whole(invited: Invitation, token: str) -> None:
    lines = [token[start : start + 76] for start in range(0, len(token), 76)]
    assert invitation.decode("\r\n".join(lines)) == invited


BROKEN: dict[str, tuple[str, Callable[[str], str]]] = {
    "nothing": ("starts with", lambda token: ""),
    "something else": ("starts with", lambda token: "hello"),
    "a later version's": ("newer program", lambda token: token.replace("-1:", "-2:")),
    "without its prefix": ("starts with", lambda token: token.removeprefix(PREFIX)),
    "the prefix alone": ("cut short", lambda token: PREFIX),
    "cut in the middle": ("cut short", lambda token: token[: len(token) // 2]),
    "without its last character": ("cut short", lambda token: token[:-1]),
    "with a character more": ("altered or mistyped", lambda token: token + "A"),
    "with four characters more": ("altered or mistyped", lambda token: token + "AAAA"),
    "with one character changed": ("altered or mistyped", lambda token: flipped(token, 500)),
    "with two characters swapped": ("altered or mistyped", lambda token: swapped(token)),
    "with a foreign character": ("do not belong", lambda token: token[:500] + "ạ" + token[501:]),
    "too long": ("too long", lambda token: token + "A" * TOKEN_CHARS_MAX),
    "padded beyond reason": ("too long", lambda token: token + " " * 1_000_000),
}


def flipped(token: str, place: int) -> str:
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


def swapped(token: str) -> str:
    place = next(i for i in range(600, len(token)) if token[i] != token[i + 1])
    return token[:place] + token[place + 1] + token[place] + token[place + 2 :]


@pytest.mark.parametrize(("reason", "spoil"), BROKEN.values(), ids=BROKEN)
def test_a_token_that_is_not_whole_is_refused(token: str, reason: str, spoil: Callable[[str], str]) -> None:
    with pytest.raises(BadInvitation, match=reason) as refused:
        invitation.decode(spoil(token))
    assert refused.value.hint


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, 3000))
def test_every_cut_is_noticed(token: str, length: int) -> None:
    with pytest.raises(BadInvitation):
        invitation.decode(token[: min(length, len(token) - 1)])


def forged(invited: Invitation, **changed: object) -> str:
    """A token whose checksum fits, whatever it says."""
    fields = {"name": invited.name, "address": invited.address, "path": invited.path, "key_pem": invited.key_pem}
    body = msgspec.msgpack.encode(list({**fields, **changed}.values()))
    return framed(body)


def framed(body: bytes) -> str:
    data = len(body).to_bytes(2, "big") + invitation._checksum(body) + body
    return PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


MADE_UP: dict[str, Callable[[Invitation], str]] = {
    "no certificates": lambda good: forged(good, path=()),
    "another key": lambda good: forged(good, key_pem=pem.key_to_pem(authority.new_key())),
    "no key": lambda good: forged(good, key_pem=b""),
    "another root": lambda good: forged(
        good, path=(*good.path[:-1], authority.der_of(authority.make_root_ca("vn", authority.new_key())))
    ),
    "an empty name": lambda good: forged(good, name=""),
    "a name with a line end": lambda good: forged(good, name="Huế\n"),
    "an address without a port": lambda good: forged(good, address="dongbo.example"),
    "a field of another type": lambda good: forged(good, address=7),
    "a field more": lambda good: forged(good, more=1),
    "no array": lambda good: framed(b"\x01"),
    "no message at all": lambda good: framed(b"\xc1"),
}


def test_the_forgers_unspoilt_token_is_good(invited: Invitation) -> None:
    assert invitation.decode(forged(invited)) == invited


@pytest.mark.parametrize("make", MADE_UP.values(), ids=MADE_UP)
def test_a_token_that_no_parent_made_is_refused(invited: Invitation, make: Callable[[Invitation], str]) -> None:
    with pytest.raises(BadInvitation, match="not one that a parent"):
        invitation.decode(make(invited))


def test_an_expired_invitation_is_read_and_left_to_the_parent_to_refuse(root: KeyStore) -> None:
    """A child whose clock is ten years ahead must still be able to join."""
    late = EXPIRES + timedelta(seconds=1)
    read = invitation.decode(invitation.encode(invitation.create(root, "hue", "Huế", "h:1", EXPIRES)))
    assert not read.is_expired(EXPIRES)
    assert read.is_expired(late)
    with pytest.raises(BadCertificate, match="expired"):
        verify_enrolment_path(read.path, root.tree_id, late)


def test_an_invitation_too_long_for_a_token_is_refused(invited: Invitation) -> None:
    with pytest.raises(BadInvitation, match="too long"):
        invitation.encode(replace(invited, name="ế" * TOKEN_CHARS_MAX))


@pytest.mark.parametrize(
    ("label", "name", "address", "error"),
    [
        ("Huế", "Huế", "h:1", BadName),
        ("enrol", "Huế", "h:1", BadName),
        ("a.b", "Huế", "h:1", BadName),
        ("hue", "", "h:1", BadInput),
        ("hue", "Huế", "h", BadInput),
        ("hue", "Huế", "h :1", BadInput),
    ],
)
def test_what_an_operator_mistypes_is_named(
    root: KeyStore, label: str, name: str, address: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        invitation.create(root, label, name, address, EXPIRES)


# --- enrolling -------------------------------------------------------------------------------------------------------


async def test_whoever_joins_a_parent_that_does_not_answer_is_told_to_run_it_again(
    invited: Invitation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent_link, "CONNECT_S", 0.2)
    nowhere = replace(invited, address="127.0.0.1:1", expires=NOW + timedelta(days=36_500))
    with pytest.raises(LinkFault, match="the parent is not running") as told:
        await parent_link.enrol(nowhere, keys.request(tmp_path, "hue.vn", with_ca=True))
    assert "run this again" in told.value.hint
    assert "by itself" not in told.value.hint


def test_a_chain_of_units_joins_down_to_the_deepest_level(root: KeyStore, tmp_path: Path) -> None:
    unit, parent = "", root
    for label in ("hue", "phu-vang", "vinh-an"):
        unit = invitation.create(parent, label, label, "h:1", EXPIRES).unit
        parent = join(parent, tmp_path / label, unit)
        assert (parent.unit, parent.tree_id) == (unit, root.tree_id)
        assert verify_node_path(parent.node_path, root.tree_id).epoch == parent.epoch
    assert unit == "vinh-an.phu-vang.hue.vn"
    assert parent.ca_certificate is None
    with pytest.raises(KeyFault, match="below it"):
        invitation.create(parent, "x", "x", "h:1", EXPIRES)


def grant_for(root: KeyStore, **changed: object) -> tuple[tuple[bytes, ...], bytes]:
    key, epoch = authority.new_key(), authority.new_epoch()
    asked: dict[str, object] = {
        "unit": "hue.vn",
        "epoch": epoch,
        "node_request": authority.node_request("hue.vn", epoch, key),
        "ca_request": authority.ca_request("hue.vn", authority.new_key()),
        "deepest_level": DEEPEST,
        "now": NOW,
    }
    for name, value in changed.items():
        asked[name] = value(epoch, key) if callable(value) else value
    return invitation.grant(root, **asked)  # type: ignore[arg-type]  # the table spoils one at a time


NOT_GRANTED: dict[str, dict[str, object]] = {
    "another unit than was invited": {"unit": "da-nang.vn"},
    "another epoch than it says": {"epoch": Epoch("00000000000000ff")},
    "a node request without an epoch": {"node_request": lambda _, key: authority.ca_request("hue.vn", key)},
    "a CA request for another unit": {"ca_request": lambda *_: authority.ca_request("vn", authority.new_key())},
    "a CA request that names an epoch": {
        "ca_request": lambda epoch, _: authority.node_request("hue.vn", epoch, authority.new_key())
    },
    "one key for both": {"ca_request": lambda _, key: authority.ca_request("hue.vn", key)},
    "bytes that are no request": {"node_request": b"\x30\x00"},
    "nothing": {"node_request": b""},
    "a request longer than any": {"node_request": b"\x30" * 100_000},
}


def test_the_unspoilt_request_is_granted(root: KeyStore) -> None:
    node_path, ca = grant_for(root)
    assert verify_node_path(node_path, root.tree_id).unit == "hue.vn"
    assert ca


@pytest.mark.parametrize("changed", NOT_GRANTED.values(), ids=NOT_GRANTED)
def test_a_request_that_does_not_prove_itself_is_not_granted(root: KeyStore, changed: dict[str, object]) -> None:
    with pytest.raises(BadCertificate):
        grant_for(root, **changed)


def test_names_and_limits_in_a_request_are_not_taken_over(root: KeyStore) -> None:
    key, epoch = authority.new_key(), authority.new_epoch()
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject_of("hue.vn", epoch))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("da-nang.vn.dongbo")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .sign(key, SHA256())
    )
    node_path, _ = grant_for(root, epoch=epoch, node_request=request.public_bytes(Encoding.DER))
    assert verify_node_path(node_path, root.tree_id).unit == "hue.vn"
