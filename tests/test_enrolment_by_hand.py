"""A unit that has no line joins by stick: what is carried proves itself, and two people compare words."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from node import carrying, envelope, grant_file, granting, joining, parent_link, secret, setup
from node import config as configs
from node import keys as key_files
from node.cli import by_hand
from node.commands.carrying import export, import_
from node.commands.exchange import sync
from node.commands.state import status
from node.config import AtRest, Schedule
from node.enrolment import NothingToRecover, UnitTaken
from node.keys import KeyStore
from node.local import Node
from node.renewal import Granted
from node.storage import carried
from sync_engine.enrolling import REQUEST_MAGIC, Grant, NoGrant, NoRequest, encode_request, parse_request
from sync_engine.errors import (
    AlreadySetUp,
    BadInput,
    BadName,
    NotCertifiedYet,
    NotSetUp,
    Replaced,
    ReplicationError,
)
from sync_engine.frames import Statement
from sync_engine.words import words_of
from tests import pki
from tests.by_stick import CHILD, KNOWN, NAME, PARENT, Sticks, opened, silent
from tests.lives import Family, assert_proven

OTHERS = "hai-chau.da-nang.vn"
CODES = "SELECT count(*) FROM catalog"


@pytest_asyncio.fixture
async def sticks(family: Family, tmp_path: Path) -> AsyncIterator[Sticks]:
    yield Sticks(family, tmp_path / "sticks")


async def test_a_unit_joins_in_three_steps_and_lives_by_stick(family: Family, sticks: Sticks) -> None:
    approved = await sticks.approve(sticks.request())
    done = await sticks.join()
    await sticks.take_answer()
    child = await opened(sticks)
    assert (approved["unit"], approved["is_whole"], done.sender) == (CHILD, True, PARENT)
    assert child.config.parent_address == ""
    assert family.sql(CHILD, CODES) == family.sql(PARENT, CODES) > [(0,)]
    assert family.sql(CHILD, "SELECT name FROM _unit WHERE unit = ?", CHILD) == [(NAME,)]
    family.enter(CHILD, CHILD, "1", "Nguyễn Văn An")
    await export(child, {"to": PARENT, "out": str(sticks.folder / "up")}, silent)
    out = sticks.folder / "down"
    out.mkdir()
    await import_(family.nodes[PARENT], {"files": [str(sticks.folder / "up.dongbo")], "out": str(out)}, silent)
    await import_(child, {"files": [str(out)]}, silent)
    assert family.sql(PARENT, "SELECT full_name FROM member WHERE unit = ?", CHILD) == [("Nguyễn Văn An",)]
    assert len(envelope.load_all(sticks.home)) == 1
    acts = family.sql(
        PARENT, "SELECT act FROM _audit WHERE subject LIKE ? AND act IN ('invite', 'enrol')", f"%{CHILD}%"
    )
    assert acts == [("invite",), ("enrol",)]
    await assert_proven(family)


# --- the words -------------------------------------------------------------------------------------------------------


async def test_both_sides_show_the_same_words(family: Family, sticks: Sticks) -> None:
    file = sticks.request()
    asked = parse_request(file.read_bytes())
    looked = await sticks.look_at(file)
    assert (looked["unit"], looked["name"], looked["words"]) == (CHILD, NAME, words_of(asked.digest))
    approved = await sticks.approve(file)
    grant = joining.look(sticks.home, sticks.folder / "grant", AtRest())
    assert (approved["tree_words"], approved["words"]) == (words_of(grant.tree_id), words_of(grant.digest))


def test_nothing_is_done_before_somebody_has_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="nothing was done") as refused:
        by_hand._compare("grant.compare", yes=False)
    assert "--yes" in refused.value.hint
    by_hand._compare("grant.compare", yes=True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda *_words, **_more: False)
    with pytest.raises(BadInput, match="not the same"):
        by_hand._compare("grant.compare", yes=False)


async def test_a_made_up_tree_is_told_by_its_words_alone(family: Family, sticks: Sticks, tmp_path: Path) -> None:
    """Who copied the request from the stick can certify it in a tree of his own: the telephone tells."""
    file, forged = sticks.request(), tmp_path / "forged"
    setup.init(forged, "vn", "vn", setup.read_registry(None), listen="", address="", schedule=Schedule())
    pki.join(KeyStore.load(forged), tmp_path / "hue", PARENT)
    keys = KeyStore.load(tmp_path / "hue")
    asked = parse_request(file.read_bytes())
    waiting = key_files.pending(sticks.home)
    assert waiting is not None
    path, ca = pki.answer(keys, waiting)
    response = Granted(unit=CHILD, name=NAME, node_path=path, ca_certificate=ca).SerializeToString()
    (tmp_path / "bundle").write_bytes(b"")
    grant = Grant(asked.digest, response, Statement("encryption", b"", b""), keys.node_path)
    grant_file.write_grant(sticks.folder / "forged", asked.kem, asked.public_key, grant, tmp_path / "bundle")
    false = joining.look(sticks.home, sticks.folder / "forged", AtRest())
    approved = await sticks.approve(file)
    assert words_of(false.tree_id) != approved["tree_words"]
    assert words_of(false.digest) != approved["words"]


# --- requests that are refused ---------------------------------------------------------------------------------------


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def resaid(data: bytes, was: bytes, now: bytes) -> bytes:
    """Another body of the same length, under the signature of the first."""
    asked = parse_request(data)
    assert was in asked.body
    return encode_request(asked.body.replace(was, now), asked.signature)


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "something else": lambda data: b"hello",
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "much longer": lambda data: data + bytes(100_000),
    "a bit in its first field": lambda data: flipped(data, len(REQUEST_MAGIC) + 20),
    "a bit in the middle": lambda data: flipped(data, len(data) // 2),
    "a bit in the signature": lambda data: flipped(data, len(data) - 5),
    "another unit": lambda data: resaid(data, b"huong-thuy.hue.vn", b"huong-thuz.hue.vn"),
    "another name": lambda data: resaid(data, "Hương".encode(), "Hường".encode()),
    "a name that steers the terminal": lambda data: resaid(data, b"Th", b"\x1b["),
    "another key to encrypt to": lambda data: resaid(
        data, parse_request(data).public_key, flipped(parse_request(data).public_key, 5)
    ),
}


@pytest.mark.parametrize("name", SPOILT)
async def test_a_request_that_was_changed_is_refused(sticks: Sticks, name: str) -> None:
    file = sticks.request()
    before = sticks.recorded()
    file.write_bytes(SPOILT[name](file.read_bytes()))
    with pytest.raises(NoRequest) as refused:
        await sticks.approve(file)
    assert refused.value.hint
    assert sticks.recorded() == before
    assert not (sticks.folder / "grant").exists()


async def test_every_byte_of_a_request_counts(family: Family, sticks: Sticks) -> None:
    data = sticks.request().read_bytes()
    assert granting.prove(data, family.nodes[PARENT].context.unit).unit == CHILD
    taken = []
    for at in range(0, len(data), 7):
        try:
            granting.prove(flipped(data, at), family.nodes[PARENT].context.unit)
            taken.append(at)
        except ReplicationError:
            continue
    assert taken == []


REFUSED: dict[str, tuple[str, dict[str, object], type[ReplicationError], str]] = {
    "another parent's child": (OTHERS, {}, granting.AnothersChild, "not directly below hue.vn"),
    "a grandchild": ("b.phu-vang.hue.vn", {}, granting.AnothersChild, "not directly below hue.vn"),
    "a unit that has a node": (KNOWN, {}, UnitTaken, "has a node already"),
    "nothing to recover": (CHILD, {"recover": True}, NothingToRecover, "no node"),
    "a name that cannot be": (CHILD, {"name": "\n"}, BadInput, "name"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_that_may_not_be_granted_changes_nothing(sticks: Sticks, name: str) -> None:
    unit, more, error, words = REFUSED[name]
    file = sticks.request(unit)
    before = sticks.recorded()
    with pytest.raises(error, match=words) as refused:
        await sticks.approve(file, **more)
    assert refused.value.hint
    with pytest.raises(error):
        await sticks.look_at(file, **more)
    assert sticks.recorded() == before


def test_only_a_plain_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(BadInput):
            grant_file.read_request(tmp_path / name)
        with pytest.raises(BadInput):
            grant_file.read_grant(tmp_path / name, [])


NAMED = {
    "a full path": ("phu-vang.hue.vn", "", "phu-vang.hue.vn"),
    "a label and its parent": ("phu-vang", "hue.vn", "phu-vang.hue.vn"),
    "both": ("phu-vang.hue.vn", "hue.vn", "phu-vang.hue.vn"),
}


@pytest.mark.parametrize(("said", "parent", "unit"), NAMED.values(), ids=NAMED)
def test_a_unit_is_named_by_its_full_path(said: str, parent: str, unit: str) -> None:
    assert joining.unit_of(said, parent) == unit


@pytest.mark.parametrize(("said", "parent"), [("phu-vang", ""), ("Phú Vang", "hue.vn"), ("a.b", "hue.vn")])
def test_a_label_alone_is_not_enough(said: str, parent: str) -> None:
    with pytest.raises((BadInput, BadName)) as refused:
        joining.unit_of(said, parent)
    assert refused.value.hint


# --- the same again --------------------------------------------------------------------------------------------------


async def test_the_same_request_gets_the_same_answer(sticks: Sticks) -> None:
    first = sticks.request()
    again = sticks.request(at="again")
    assert first.read_bytes() == again.read_bytes() == sticks.request().read_bytes()
    one = await sticks.approve(first)
    before = sticks.recorded()
    other = await sticks.approve(again, "grant again")
    assert one["words"] == other["words"]
    exports = [row for row in sticks.recorded() if row not in before]
    assert [row[0] for row in exports] == ["bundle-export"]
    await sticks.join("grant again")
    with pytest.raises(AlreadySetUp):
        await sticks.join()
    with pytest.raises(AlreadySetUp):
        sticks.request(at="more")


async def test_another_request_of_the_unit_is_refused(sticks: Sticks, tmp_path: Path) -> None:
    await sticks.approve(sticks.request())
    other = sticks.request(home=tmp_path / "second", at="second")
    with pytest.raises(UnitTaken) as refused:
        await sticks.approve(other, "no grant")
    assert "--recover" in refused.value.hint


async def test_a_file_that_is_there_is_not_written_over(sticks: Sticks) -> None:
    (sticks.folder / "request").write_text("của ai đó")
    with pytest.raises(BadInput, match="is there already"):
        sticks.request()
    file = sticks.request(at="another")
    (sticks.folder / "grant").write_text("của ai đó")
    before = sticks.recorded()
    with pytest.raises(BadInput, match="is there already"):
        await sticks.approve(file)
    assert sticks.recorded() == before


async def test_a_name_that_was_mistyped_is_asked_anew_with_the_same_keys(sticks: Sticks) -> None:
    first = parse_request(sticks.request(name="Hương Thuy").read_bytes())
    second = parse_request(sticks.request(at="again").read_bytes())
    assert (first.enrol, first.public_key) == (second.enrol, second.public_key)
    assert first.digest != second.digest


# --- grants that are refused -----------------------------------------------------------------------------------------


def is_no_node(home: Path) -> bool:
    return not (home / "node.toml").exists() and not (home / "dongbo.db").exists()


async def test_a_grant_for_another_home_is_refused(sticks: Sticks, tmp_path: Path) -> None:
    await sticks.approve(sticks.request())
    sticks.request(home=tmp_path / "second", at="second")
    with pytest.raises(NoGrant, match="not for this home"):
        await sticks.join(home=tmp_path / "second")
    with pytest.raises(NotSetUp, match="nothing was asked"):
        await sticks.join(home=tmp_path / "third")
    assert is_no_node(tmp_path / "second")


async def test_a_grant_for_what_was_asked_before_is_refused(sticks: Sticks) -> None:
    await sticks.approve(sticks.request())
    sticks.request(name="Hương Thủy", at="second")
    with pytest.raises(NoGrant, match="another request"):
        await sticks.join()


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "something else": lambda data: b"dongbo bundle 1\n" + data,
    "its beginning": lambda data: data[:100],
    "without its last byte": lambda data: data[:-1],
    "with one more": lambda data: data + b"\0",
    "a bit in the envelope": lambda data: flipped(data, 60),
    "a bit in the grant": lambda data: flipped(data, 2_000),
    "a bit in the bundle": lambda data: flipped(data, len(data) - 1_000),
}


@pytest.mark.parametrize("name", CUTS)
async def test_a_grant_that_was_changed_is_refused_whole(sticks: Sticks, name: str) -> None:
    await sticks.approve(sticks.request())
    whole = (sticks.folder / "grant").read_bytes()
    (sticks.folder / "grant").write_bytes(CUTS[name](whole))
    with pytest.raises(NoGrant) as refused:
        await sticks.join()
    assert refused.value.hint
    assert is_no_node(sticks.home)
    (sticks.folder / "grant").write_bytes(whole)
    await sticks.join()


async def test_what_was_compared_is_what_is_installed(sticks: Sticks, tmp_path: Path) -> None:
    await sticks.approve(sticks.request())
    looked = joining.look(sticks.home, sticks.folder / "grant", AtRest())
    other = joining.Looked(looked.unit, looked.name, looked.tree_id, bytes(32))
    settings: dict[str, Any] = {"listen": "", "address": "", "schedule": Schedule(), "at_rest": AtRest()}
    with pytest.raises(NoGrant, match="changed since"):
        await joining.join(sticks.home, sticks.folder / "grant", other, None, silent, **settings)
    assert is_no_node(sticks.home)


# --- interrupted -----------------------------------------------------------------------------------------------------

STEPS: dict[str, tuple[object, str]] = {
    "before the keys are in place": (KeyStore, "install"),
    "before the database": (setup, "make_database"),
    "before the settings": (configs, "save"),
    "before the node is open": (Node, "open"),
    "before its key is told": (joining, "publish_key"),
    "before the bundle is proven": (joining, "prove_bundle"),
    "before the bundle is taken in": (carrying, "take_in"),
    "in the exchange": (carrying, "exchange"),
    "before the bundle is noted": (carried, "note_heard"),
}


class Cut(Exception):
    """The power fails."""


@pytest.mark.parametrize("name", STEPS)
async def test_what_was_cut_off_is_run_again_with_the_same_files(
    family: Family, sticks: Sticks, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sticks.approve(sticks.request())

    def fails(*_given: object, **_more: object) -> None:
        raise Cut

    with monkeypatch.context() as during:
        during.setattr(*STEPS[name], fails)
        with pytest.raises(Cut):
            await sticks.join()
    await sticks.join()
    await sticks.take_answer()
    await opened(sticks)
    assert not (sticks.home / "keys" / joining.KEPT).exists()
    assert not (sticks.home / joining.FIRST).exists()
    assert family.sql(CHILD, CODES) == family.sql(PARENT, CODES) > [(0,)]
    await assert_proven(family)


async def test_a_parent_that_was_cut_off_is_asked_again(
    family: Family, sticks: Sticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_given: object, **_more: object) -> None:
        raise Cut

    file = sticks.request()
    with monkeypatch.context() as during:
        during.setattr(granting, "write_grant", fails)
        with pytest.raises(Cut):
            await sticks.approve(file)
    assert not (family.home(PARENT) / "granting").exists()
    await sticks.approve(file)
    await sticks.join()
    await sticks.take_answer()


# --- the CA key away, new lives, recovery ----------------------------------------------------------------------------


async def test_without_the_ca_key_the_request_waits(family: Family, sticks: Sticks, tmp_path: Path) -> None:
    node, file = family.nodes[PARENT], sticks.request()
    away = tmp_path / "ca.key"
    (family.home(PARENT) / "keys" / "ca.key").rename(away)
    with pytest.raises(NotCertifiedYet, match="CA key") as waits:
        await sticks.approve(file)
    assert "--ca-key" in waits.value.hint
    told = await status(node, {"brief": True}, silent)
    assert [each["unit"] for each in told["certificates_waiting"]] == [CHILD]
    await sticks.approve(file, ca_key=str(away))
    assert (await status(node, {"brief": True}, silent))["certificates_waiting"] == []
    await sticks.join()


async def test_a_parent_that_has_got_a_new_key_grants(family: Family, sticks: Sticks) -> None:
    node = family.nodes[PARENT]
    await node.begin_life(node.context.epoch, again=False)
    file = sticks.request()
    await sticks.approve(file, "before it is certified")
    await family.rounds(2)
    await sticks.approve(file)
    await sticks.join()
    await sticks.take_answer()


async def test_the_child_is_written_to_before_its_answer_has_come(family: Family, sticks: Sticks) -> None:
    await sticks.approve(sticks.request())
    out = sticks.folder / "more"
    out.mkdir()
    await export(family.nodes[PARENT], {"to": CHILD, "out": str(out)}, silent)
    await sticks.join()
    child = await opened(sticks)
    await import_(child, {"files": [str(out)]}, silent)


async def test_a_lost_unit_comes_back_by_stick_with_all_that_its_parent_holds(family: Family, sticks: Sticks) -> None:
    family.enter(KNOWN, KNOWN, "1", "Nguyễn Văn An", note="kept")
    await family.rounds(2)
    old = family.nodes.pop(KNOWN)
    file = sticks.request(KNOWN, name="whatever")
    approved = await sticks.approve(file, recover=True)
    await sticks.join()
    (key,) = envelope.load_all(sticks.home)
    to = await family.nodes[PARENT].database.read(carried.carry_key, family.nodes[PARENT].context, old.context.unit)
    assert to is not None
    assert to.public_key == key.public
    await sticks.take_answer()
    assert (await opened(sticks, "new")).context.epoch == approved["epoch"]
    assert family.sql("new", "SELECT full_name, note FROM member") == [("Nguyễn Văn An", "kept")]
    assert family.sql("new", "SELECT name FROM _unit WHERE unit = ?", KNOWN) == [(KNOWN,)]
    assert approved["unit"] == KNOWN
    assert ("recover-approve",) in family.sql(PARENT, "SELECT act FROM _audit")
    with pytest.raises(AlreadySetUp):
        sticks.request(KNOWN, at="again")
    await old.close()


async def test_a_machine_whose_place_another_has_taken_gets_no_grant(sticks: Sticks, tmp_path: Path) -> None:
    first = sticks.request()
    await sticks.approve(first)
    second = sticks.request(home=tmp_path / "second", at="second")
    await sticks.approve(second, "second grant", recover=True)
    with pytest.raises(Replaced):
        await sticks.approve(first, "no grant")
    assert not (sticks.folder / "no grant").exists()


async def test_keys_that_were_made_encrypted_stay_so(sticks: Sticks, tmp_path: Path) -> None:
    """Who forgets the option, or says it too late, is told."""
    (tmp_path / "secret").write_text("a secret that is long enough")
    (tmp_path / "secret").chmod(0o600)
    wish = AtRest(configs.ENCRYPTED, str(tmp_path / "secret"))
    file = sticks.folder / "request"
    joining.request(sticks.home, joining.unit_of(CHILD, ""), NAME, file, wish)
    await sticks.approve(file)
    grant = sticks.folder / "grant"
    with pytest.raises(BadInput, match="with --encrypt"):
        joining.look(sticks.home, grant, AtRest())
    looked = joining.look(sticks.home, grant, wish)
    settings: dict[str, Any] = {"listen": "", "address": "", "schedule": Schedule(), "at_rest": wish}
    await joining.join(sticks.home, grant, looked, None, silent, **settings)
    assert secret.lies_encrypted(sticks.home / "dongbo.db")
    assert all(secret.is_locked(path.read_bytes()) for path in (sticks.home / "keys").glob("*.key"))
    plain = tmp_path / "plain"
    sticks.request("b.hue.vn", home=plain, at="second")
    with pytest.raises(BadInput, match="without --encrypt"):
        joining.request(plain, joining.unit_of("b.hue.vn", ""), NAME, sticks.folder / "third", wish)


# --- no address ------------------------------------------------------------------------------------------------------


async def test_a_unit_without_an_address_of_its_parent_says_so_and_is_no_fault(sticks: Sticks) -> None:
    await sticks.approve(sticks.request())
    await sticks.join()
    child = await opened(sticks)
    with pytest.raises(parent_link.LivesByStick, match="lives by stick") as told:
        await sync(child, {}, silent)
    assert "dongbo export" in told.value.hint
    parent = (await status(child, {"brief": True}, silent))["parent"]
    assert (parent["state"], parent["by_hand"]["lives_by_stick"], parent["last_error"]) == ("ok", True, None)
    assert key_files.pending(sticks.home) is None
