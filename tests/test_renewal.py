"""Certificates anew between whole nodes: what is granted, what is refused, and that a lost answer is given again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import sha256
from pathlib import Path

import pytest
from dongbo.v1 import sync_pb2

from conflict.values import Epoch
from node import authority, enrolment, keys, recovery, renewal
from node.config import AtRest, Ca, load, save
from node.enrolment import InvitationSpent, certify_waiting
from node.invitation import Invitation
from node.keys import CaKeyAway, KeyFault, KeyStore
from node.local import Node
from node.storage import revocations
from node.storage.certificates import is_accepted, path_of
from node.storage.certifications import waiting
from sync_engine.batch import epoch_to_wire
from sync_engine.errors import BadCertificate, BadSignature, Cloned, LinkFault, NotCertifiedYet, RemoteFault, Revoked
from sync_engine.frames import statement_from_wire
from sync_engine.handover import key_hash
from sync_engine.statements import HANDOVER, Handover, body_of, parse
from tests.lives import Family

D, P, C = "phu-vang.hue.vn", "hue.vn", "vn"
NOW = datetime.now(UTC)
NEAR_ITS_END = datetime(2055, 1, 1, tzinfo=UTC)


async def ask(child: Node, parent: Node, request: bytes) -> bytes:
    return await renewal.answer(parent, child.keys.certified, request)


class Later(datetime):
    """The parent's clock, years after it certified this child."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime(2030, 1, 1, tzinfo=tz)


async def test_a_certificate_that_nears_its_end_is_renewed_and_keeps_its_key(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "datetime", Later)
    child, parent = family.nodes[D], family.nodes[P]
    assert not renewal.is_due(child, NOW)
    assert renewal.is_due(child, NEAR_ITS_END)
    before = child.keys
    request = await renewal.request_of(child)
    await renewal.install(child, request, await ask(child, parent, request))
    assert child.keys.key.public_key() == before.key.public_key()
    assert (child.keys.epoch, child.context.epoch) == (before.epoch, before.epoch)
    assert child.keys.certified.not_after > before.certified.not_after
    assert KeyStore.load(child.home).node_path == child.keys.node_path
    assert await parent.database.read(path_of, child.keys.unit, before.epoch) == child.keys.node_path
    child.renewal_asked = NEAR_ITS_END
    assert not renewal.is_due(child, NEAR_ITS_END), "a clock that is decades wrong asks once a day"


async def test_the_root_renews_itself(family: Family) -> None:
    root = family.nodes[C]
    before = root.keys
    assert not await renewal.certify_root(root, NOW)
    assert await renewal.certify_root(root, NEAR_ITS_END)
    assert (root.keys.epoch, root.keys.key.public_key()) == (before.epoch, before.key.public_key())
    assert root.keys.certified.not_after > before.certified.not_after


async def begun(family: Family, name: str = D) -> Node:
    node = family.nodes[name]
    await node.begin_life(node.context.epoch, again=False)
    return node


async def test_a_lost_answer_is_given_again(family: Family) -> None:
    child, parent = await begun(family), family.nodes[P]
    first = await ask(child, parent, await renewal.request_of(child))
    again = await renewal.request_of(child)  # signed anew: other bytes
    assert await ask(child, parent, again) == first
    await renewal.install(child, again, first)
    assert keys.pending(child.home) is None
    assert child.keys.epoch == child.context.epoch


async def test_a_clock_that_is_behind_does_not_make_what_led_to_a_key_its_follower(family: Family) -> None:
    """Else the node would begin a new life with each session."""
    child, parent = await begun(family), family.nodes[P]
    child.context.now_ms = lambda: 5
    request = await renewal.request_of(child)
    await renewal.install(child, request, await ask(child, parent, request))
    said = parse(statement_from_wire(sync_pb2.RenewRequest.FromString(request).handover))
    assert said.time_ms > max(each for (each,) in family.sql(P, "SELECT time FROM _statement WHERE signer = ?", P))
    life = child.context.epoch
    await family.rounds(2)
    assert child.context.epoch == life


async def test_one_key_is_followed_by_one_key(family: Family) -> None:
    child, parent = await begun(family), family.nodes[P]
    await ask(child, parent, await renewal.request_of(child))
    keys.request(child.home, D, with_ca=False, fresh=True)  # another life of the same key: a copied home
    with pytest.raises(Cloned, match="copy of one that has gone on") as refused:
        await ask(child, parent, await renewal.request_of(child))
    assert "recover --from-parent" in refused.value.hint


Spoil = Callable[[sync_pb2.RenewRequest, Node, Family], None]


def of_another_unit(wire: sync_pb2.RenewRequest, child: Node, family: Family) -> None:
    del family
    key = authority.new_key()
    wire.node_request = authority.node_request("huong-thuy.hue.vn", f"{wire.epoch:016x}", key)


def of_another_key(wire: sync_pb2.RenewRequest, child: Node, family: Family) -> None:
    """The handover is good, and to a key that the request does not prove."""
    wire.node_request = authority.node_request(D, f"{wire.epoch:016x}", authority.new_key())


def signed_by_the_new_key(wire: sync_pb2.RenewRequest, child: Node, family: Family) -> None:
    waiting_life = keys.pending(child.home)
    assert waiting_life is not None
    wire.handover.signature = waiting_life.signer()(HANDOVER, wire.handover.body)


def without_a_handover(wire: sync_pb2.RenewRequest, child: Node, family: Family) -> None:
    wire.ClearField("handover")


def by_the_parent_itself(wire: sync_pb2.RenewRequest, child: Node, family: Family) -> None:
    """As the parent would sign for a recovery, offered by the child."""
    parent, waiting_life = family.nodes[P].keys, keys.pending(child.home)
    assert waiting_life is not None
    body = body_of(
        Handover(
            tree_id=parent.tree_id,
            unit=child.keys.unit,
            epoch=waiting_life.epoch,
            key_sha256=key_hash(waiting_life.key.public_key()),
            signer=parent.unit,
            signer_epoch=parent.epoch,
            time_ms=1,
        )
    )
    wire.handover.body, wire.handover.signature = body, child.keys.signer()(HANDOVER, body)


def under_the_old_epoch(wire: sync_pb2.RenewRequest, child: Node, family: Family) -> None:
    """A new key without a new epoch."""
    wire.epoch = epoch_to_wire(child.keys.epoch)
    wire.node_request = authority.node_request(D, child.keys.epoch, authority.new_key())


SPOILED: dict[str, Spoil] = {
    function.__name__.replace("_", " "): function
    for function in (
        of_another_unit,
        of_another_key,
        signed_by_the_new_key,
        without_a_handover,
        by_the_parent_itself,
        under_the_old_epoch,
    )
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_a_request_that_proves_too_little_is_refused_and_changes_nothing(family: Family, spoil: Spoil) -> None:
    child, parent = await begun(family), family.nodes[P]
    wire = sync_pb2.RenewRequest.FromString(await renewal.request_of(child))
    spoil(wire, child, family)
    with pytest.raises(RemoteFault) as refused:
        await ask(child, parent, wire.SerializeToString())
    assert isinstance(refused.value, BadCertificate | BadSignature) or refused.value.code in ("Malformed", "OutOfScope")
    assert family.sql(P, "SELECT count(*) FROM _node_key WHERE unit = ?", D) == [(1,)]
    good = await renewal.request_of(child)
    await renewal.install(child, good, await ask(child, parent, good))


# --- without the CA key ----------------------------------------------------------------------------------------------


def take_away(node: Node, stick: Path) -> None:
    (node.home / "keys" / "ca.key").rename(stick)


async def test_a_node_starts_and_works_without_its_ca_key(family: Family, tmp_path: Path) -> None:
    parent = family.nodes[P]
    take_away(parent, tmp_path / "ca.key")
    assert KeyStore.load(parent.home).epoch == parent.keys.epoch
    with pytest.raises(CaKeyAway, match=r"the CA key of hue\.vn is not here"):
        KeyStore.load(parent.home).require_ca()
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    assert family.sql(C, "SELECT id FROM member") == [("1",)]


async def test_requests_wait_for_the_ca_key_and_the_last_one_is_certified(family: Family, tmp_path: Path) -> None:
    child, parent = await begun(family), family.nodes[P]
    take_away(parent, tmp_path / "ca.key")
    for _ in range(2):
        with pytest.raises(NotCertifiedYet):
            await ask(child, parent, await renewal.request_of(child))
        keys.request(child.home, D, with_ca=False, fresh=True)
    last = await renewal.request_of(child)
    with pytest.raises(NotCertifiedYet):
        await ask(child, parent, last)
    (asked,) = await parent.database.read(waiting)
    brought = KeyStore.load(parent.home, tmp_path / "ca.key")
    assert await parent.database.write(certify_waiting, parent.context, brought, asked)
    await renewal.install(child, last, await ask(child, parent, last))
    assert await parent.database.read(waiting) == []


async def test_a_ca_key_on_a_disk_that_is_put_in_is_used_at_once(family: Family, tmp_path: Path) -> None:
    parent = family.nodes[P]
    (tmp_path / "stick").mkdir()
    take_away(parent, tmp_path / "ca.key")
    save(parent.home, replace(load(parent.home), ca=Ca(key=str(tmp_path / "stick" / "ca.key"))))
    await parent.close()
    parent = await family.open(P)
    child = await begun(family)
    with pytest.raises(NotCertifiedYet):
        await ask(child, parent, await renewal.request_of(child))
    (tmp_path / "ca.key").rename(tmp_path / "stick" / "ca.key")
    request = await renewal.request_of(child)
    await renewal.install(child, request, await ask(child, parent, request))
    assert child.keys.epoch == child.context.epoch


async def test_a_ca_key_of_somebody_else_is_refused(family: Family, tmp_path: Path) -> None:
    parent = family.nodes[P]
    take_away(parent, tmp_path / "ca.key")
    with pytest.raises(KeyFault, match=r"not those of hue\.vn"):
        KeyStore.load(parent.home, family.home(C) / "keys" / "ca.key")


# --- revoked ---------------------------------------------------------------------------------------------------------


async def revoke(family: Family, unit: str = D, *, keep_present: bool = False) -> list[Epoch]:
    parent = family.nodes[P]
    return await parent.database.write(
        revocations.revoke, parent.context, parent.keys, unit, "stolen", keep_present=keep_present
    )


async def test_a_revoked_key_gets_no_certificate(family: Family) -> None:
    child, parent = await begun(family), family.nodes[P]
    await revoke(family)
    with pytest.raises(Revoked, match="stolen"):
        await ask(child, parent, await renewal.request_of(child))


async def test_who_had_merged_more_than_the_parent_held_vouches_for_it_with_its_next_edit(family: Family) -> None:
    """The commune below the stolen district had more of it than the province, and goes on below its new node."""
    below = "a.phu-vang.hue.vn"
    family.enter(D, below, "9", "Lê Văn Chín")
    await family.sync(below)  # from the district straight to the commune, not to the province
    assert family.sql(below, "SELECT id FROM member") == [("9",)]
    await revoke(family)
    await family.lose(D)
    await family.rounds(3)
    assert family.sql(P, "SELECT id FROM member") == [], "nobody whose key is good has said that it saw this"
    family.edit(below, below, "9", note="thấy rồi")
    await family.rounds(4)
    for name in (C, P, D):
        assert family.sql(name, "SELECT id, note FROM member") == [("9", "thấy rồi")], name
    digests = await family.digests(below)
    assert len(set(digests.values())) == 1, digests


async def test_only_the_keys_before_the_present_one_are_ended(family: Family) -> None:
    old = family.nodes[D].keys.epoch
    await begun(family)
    await family.rounds(2)
    assert family.nodes[D].keys.epoch != old
    assert await revoke(family, keep_present=True) == [old]
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    assert family.sql(C, "SELECT id FROM member") == [("1",)]
    assert await family.nodes[C].database.read(is_accepted, family.nodes[D].keys.unit, old)


# --- recovered -------------------------------------------------------------------------------------------------------


async def invited(family: Family) -> Invitation:
    """What 'dongbo invite phu-vang --recover' gives at the province."""
    parent = family.nodes[P]
    parent.config = replace(parent.config, address="nowhere:1")
    return await enrolment.invite(parent, parent.keys, "phu-vang", "", timedelta(hours=1), recover=True)


async def recovered(family: Family, given: Invitation, folder: Path) -> None:
    """The parent's answer to who holds an invitation, on a machine of its own."""
    parent, life = family.nodes[P], keys.request(folder, D, with_ca=False)
    wire = sync_pb2.EnrolRequest(node_request=life.node_request, epoch=int(life.epoch, 16))
    digest, raw = sha256(given.path[0]).digest(), wire.SerializeToString(deterministic=True)
    answered = await parent.database.write(
        enrolment.certify_invited, parent.context, parent.keys, given.unit, digest, raw
    )
    assert answered is not None


async def test_an_invitation_is_void_as_soon_as_a_newer_one_is_made(family: Family, tmp_path: Path) -> None:
    older, newer = await invited(family), await invited(family)
    with pytest.raises(InvitationSpent, match="is void") as refused:
        await recovered(family, older, tmp_path / "older")
    assert "ask the parent unit for a new invitation" in refused.value.hint
    await recovered(family, newer, tmp_path / "newer")
    await recovered(family, newer, tmp_path / "newer")  # the answer was lost on the way


async def test_once_an_invitation_is_used_no_other_of_the_unit_displaces_its_machine(
    family: Family, tmp_path: Path
) -> None:
    left_over, used = await invited(family), await invited(family)
    family.sql(P, "UPDATE _invitation SET request = NULL")  # as older software left them
    await recovered(family, used, tmp_path / "used")
    with pytest.raises(InvitationSpent, match="is void"):
        await recovered(family, left_over, tmp_path / "left over")


async def test_a_recovery_that_is_cut_off_is_run_again_with_the_same_invitation(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off before the answer, before it is in place, and before the first exchange."""
    given, parent, home = await invited(family), family.nodes[P], family.home(D)
    await family.nodes.pop(D).close()
    cut = {"answer": True, "install": True, "exchange": True}

    def fail_once(at: str) -> None:
        if cut.pop(at, False):
            raise LinkFault(f"cut off at the {at}")

    async def enrol(invitation: Invitation, life: keys.Pending) -> sync_pb2.EnrolResponse:
        request = sync_pb2.EnrolRequest(node_request=life.node_request, epoch=int(life.epoch, 16))
        digest = sha256(invitation.path[0]).digest()
        raw = request.SerializeToString(deterministic=True)
        answered = await parent.database.write(
            enrolment.certify_invited, parent.context, parent.keys, invitation.unit, digest, raw
        )
        assert answered is not None
        fail_once("answer")
        return sync_pb2.EnrolResponse.FromString(answered)

    async def sync(node: Node, _arguments: object, _progress: object) -> dict[str, object]:
        fail_once("exchange")
        return {"ok": True, "epoch": node.keys.epoch}

    real = KeyStore.install.__func__  # type: ignore[attr-defined]

    def install(kind: type[KeyStore], *arguments: object) -> KeyStore:
        fail_once("install")
        return real(kind, *arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(recovery, "enrol", enrol)
    monkeypatch.setattr(recovery, "sync", sync)
    monkeypatch.setattr(KeyStore, "install", classmethod(install))
    for _ in range(3):
        with pytest.raises(LinkFault, match="cut off"):
            await recovery.from_parent(home, given, None, None, None, AtRest())
    done = await recovery.from_parent(home, given, None, None, None, AtRest())
    assert done["epoch"] == KeyStore.load(home).epoch
    assert keys.pending(home) is None
    assert family.sql(P, "SELECT count(*) FROM _node_key WHERE unit = ? AND accepted = 1", D) == [(2,)]
    assert not (home / "keys" / "recovering").exists()
    await family.open(D)
    told = family.sql(D, "SELECT 1 FROM _statement WHERE unit = ? AND epoch = ? AND signer = ?", D, done["epoch"], P)
    assert told == [(1,)], "the parent's word for the new key is here before the first exchange"
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(3)
    assert family.sql(C, "SELECT id FROM member") == [("1",)]
