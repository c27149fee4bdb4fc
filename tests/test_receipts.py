"""Only what a neighbour has signed for counts as delivered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.storage import peers
from node.storage.certificates import keep_path
from node.storage.digests import digest_scope, remember
from node.storage.receipts import digest_known, draw, keep, unconfirmed
from node.storage.streams import held_heads
from sync_engine.errors import BadCertificate, BadSignature, LimitExceeded, Malformed, OutOfScope, RemoteFault
from sync_engine.frames import Receipt
from sync_engine.receipts import DigestKnown, ReceiptBody, body_of, parse
from tests.test_session import Two
from tests.world import World, WorldNode

HUE, VN = UnitPath("hue.vn"), UnitPath("vn")
EPOCH = Epoch("00000000000000a1")


def head(origin: str, scope: str, seq: int = 1) -> Head:
    return Head(StreamId(UnitPath(origin), EPOCH, Scope(scope)), seq, sha256(f"{origin}{seq}".encode()).digest())


HEADS = (head("hue.vn", "hue.vn", 3), head("vn", "hue.vn", 7))
BODY = ReceiptBody(
    HUE,
    EPOCH,
    VN,
    frozenset({Scope("hue.vn"), Scope("hue.vn/catalog")}),
    HEADS,
    (DigestKnown(Scope("hue.vn"), HEADS, b"d" * 32, 12),),
    1_800_000_000_000,
)


def test_a_receipt_comes_back_as_it_was() -> None:
    assert parse(Receipt(body_of(BODY), b"signature")) == BODY


MALFORMED = {
    "does not parse": (b"\xff\xff", Malformed),
    "names no unit": (b"", Malformed),
    "says two things at once": (body_of(BODY) * 2, LimitExceeded),
    "is too large": (bytes(6 * 1024 * 1024), LimitExceeded),
}


@pytest.mark.parametrize(("body", "fault"), MALFORMED.values(), ids=MALFORMED)
def test_a_receipt_is_worth_nothing_that(body: bytes, fault: type[RemoteFault]) -> None:
    with pytest.raises(fault):
        parse(Receipt(body, b""))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.node("phu-vang.hue.vn")
    world.settle(2)
    return world


def add_member(node: WorldNode, key: str) -> None:
    node.sql(
        "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, 'Nguyễn Văn Mẫu', '1950', 'nam')",
        node.unit,
        key,
    )
    node.seal()


def behind(node: WorldNode, peer: str, child: str) -> int:
    with node.read() as connection:
        return peers.behind(connection, peer, child)


def kept_at(node: WorldNode, signer: str) -> list[ReceiptBody]:
    rows = node.sql("SELECT body, signature FROM _receipt WHERE signer = ? ORDER BY no", signer)
    return [parse(Receipt(body, signature)) for body, signature in rows]


async def sync(world: World, unit: str) -> int:
    """The production session on both ends; how many frames went over."""
    two = Two(world, UnitPath(unit))
    await two.run()
    assert two.parents_fault is None
    return two.down.frames + two.up.frames


IN_STEP = 3
"""A hello each, and the word that all is done."""


async def test_after_a_session_both_hold_the_others_receipt_and_then_nothing_has_changed(world: World) -> None:
    district, province = world.node("phu-vang.hue.vn"), world.node("hue.vn")
    add_member(district, "1")
    assert behind(district, "hue.vn", "phu-vang.hue.vn") == 1
    assert await sync(world, "phu-vang.hue.vn") > IN_STEP
    for node, peer in ((district, province), (province, district)):
        assert behind(node, peer.unit, "phu-vang.hue.vn") == 0
        (*_before, newest) = kept_at(node, peer.unit)
        assert (newest.unit, newest.epoch, newest.peer) == (peer.unit, peer.context.epoch, node.unit)
        with peer.read() as connection:
            held = held_heads(connection, UnitPath("phu-vang.hue.vn"))
        assert set(newest.heads) == {each for each in held.values() if each.stream.scope in newest.scopes}
    assert await sync(world, "phu-vang.hue.vn") == IN_STEP


async def test_a_session_costs_a_receipt_for_what_has_changed_and_the_rest_stays_signed_for(world: World) -> None:
    district = world.node("phu-vang.hue.vn")
    await sync(world, "phu-vang.hue.vn")
    all_scopes = {each for body in kept_at(district, "hue.vn") for each in body.scopes}
    for key in "12":
        add_member(district, key)
        await sync(world, "phu-vang.hue.vn")
    *older, newest = kept_at(district, "hue.vn")
    assert newest.scopes == {"phu-vang.hue.vn"}
    assert {each for body in older for each in body.scopes} == all_scopes
    assert len(older) < 3, "what no scope needs is gone"
    assert behind(district, "hue.vn", "phu-vang.hue.vn") == 0


async def test_an_acknowledgement_counts_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session in which no receipt comes is not the last one."""
    district = world.node("phu-vang.hue.vn")
    add_member(district, "1")

    def lost(*_arguments: object) -> ReceiptBody:
        raise BadSignature("nothing that counts")

    with monkeypatch.context() as without:
        without.setattr("node.telling.keep", lost)
        await sync(world, "phu-vang.hue.vn")
    assert behind(district, "hue.vn", "phu-vang.hue.vn") == 1
    assert world.node("hue.vn").sql("SELECT count(*) FROM member") == [(1,)]
    assert await sync(world, "phu-vang.hue.vn") > IN_STEP, "equal heads are not enough"
    assert behind(district, "hue.vn", "phu-vang.hue.vn") == 0
    assert await sync(world, "phu-vang.hue.vn") == IN_STEP


async def test_a_receipt_is_void_once_its_signer_lives_another_epoch(world: World) -> None:
    district, province = world.node("phu-vang.hue.vn"), world.node("hue.vn")
    add_member(district, "1")
    await sync(world, "phu-vang.hue.vn")
    path = world.tree.node("hue.vn", "00000000000000b2").path
    province.context.epoch = Epoch("00000000000000b2")
    province.context.sign = world.tree.node("hue.vn", "00000000000000b2").signer
    with province.write() as connection:
        keep_path(connection, path, world.tree.tree_id)
    await sync(world, "phu-vang.hue.vn")
    assert {body.epoch for body in kept_at(district, "hue.vn")} <= {"00000000000000b2"}
    assert behind(district, "hue.vn", "phu-vang.hue.vn") > 0
    await sync(world, "phu-vang.hue.vn")
    assert behind(district, "hue.vn", "phu-vang.hue.vn") == 0
    assert await sync(world, "phu-vang.hue.vn") == IN_STEP


FORGED: dict[str, tuple[Callable[[ReceiptBody], ReceiptBody], str, type[RemoteFault]]] = {
    "signed by another key": (lambda body: body, "phu-vang.hue.vn", BadSignature),
    "for another unit": (lambda body: replace(body, peer=UnitPath("lao-cai.vn")), "hue.vn", OutOfScope),
    "of another life": (lambda body: replace(body, epoch=Epoch("1" * 16)), "hue.vn", BadSignature),
    "of another unit": (lambda body: replace(body, unit=UnitPath("vn")), "hue.vn", BadSignature),
    "about a scope that does not travel here": (
        lambda body: replace(body, scopes=body.scopes | {Scope("hue.vn")}),
        "hue.vn",
        OutOfScope,
    ),
}


@pytest.mark.parametrize(("change", "signer", "fault"), FORGED.values(), ids=FORGED)
def test_a_receipt_is_not_kept(
    change: Callable[[ReceiptBody], ReceiptBody], signer: str, fault: type[RemoteFault], world: World
) -> None:
    district, province, link = world.node("phu-vang.hue.vn"), world.node("hue.vn"), UnitPath("phu-vang.hue.vn")
    with province.read() as connection:
        good = draw(connection, province.context, link, link, [Scope("phu-vang.hue.vn")])
    body = body_of(change(parse(good)))
    forged = Receipt(body, world.node(signer).context.sign("receipt", body))
    before = kept_at(district, "hue.vn")
    with district.write() as connection, pytest.raises(fault):
        keep(connection, district.context, link, (HUE, province.context.epoch), forged)
    assert kept_at(district, "hue.vn") == before
    with district.write() as connection, pytest.raises(BadCertificate):
        keep(connection, district.context, link, (HUE, Epoch("1" * 16)), good)


def test_who_holds_less_than_before_has_signed_for_less(world: World) -> None:
    """A restored neighbour's receipt replaces what it signed for before."""
    district, province, link = world.node("phu-vang.hue.vn"), world.node("hue.vn"), UnitPath("phu-vang.hue.vn")
    add_member(district, "1")
    world.sync("phu-vang.hue.vn")
    assert behind(district, "hue.vn", "phu-vang.hue.vn") == 0
    with province.read() as connection:
        full = parse(draw(connection, province.context, link, link, [Scope("phu-vang.hue.vn")]))
    body = body_of(replace(full, heads=()))
    with district.write() as connection:
        signed = Receipt(body, province.context.sign("receipt", body))
        keep(connection, district.context, link, (HUE, province.context.epoch), signed)
        held = held_heads(connection, link).values()
        assert unconfirmed(connection, link, HUE, held) == {"phu-vang.hue.vn"}


def test_a_digest_that_is_known_is_signed_for_and_none_is_computed(world: World) -> None:
    district, province, link = world.node("phu-vang.hue.vn"), world.node("hue.vn"), UnitPath("phu-vang.hue.vn")
    add_member(district, "1")
    world.sync("phu-vang.hue.vn")
    with district.read() as connection:
        assert digest_known(connection, HUE, Scope("phu-vang.hue.vn")) is None
    with province.write() as connection:
        digest = digest_scope(connection, province.context, "phu-vang.hue.vn")
        remember(connection, province.context, digest)
    add_member(world.node("hue.vn"), "other")
    with province.read() as connection:
        receipt = draw(connection, province.context, link, link, [Scope("phu-vang.hue.vn")])
    with district.write() as connection:
        keep(connection, district.context, link, (HUE, province.context.epoch), receipt)
        known = digest_known(connection, HUE, Scope("phu-vang.hue.vn"))
        mine = digest_scope(connection, district.context, "phu-vang.hue.vn")
    assert known is not None
    assert (known.sha256, known.rows) == (mine.digest, 1)
