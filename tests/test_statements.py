"""What a node signs for all whom it concerns: it comes back as it was, is proven, and reaches those nodes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.local import Node
from node.storage import statements
from node.storage.statements import keep, keep_all, said, say
from sync_engine import limits
from sync_engine.errors import (
    BadCertificate,
    BadSignature,
    LimitExceeded,
    Malformed,
    OutOfScope,
    RemoteFault,
    WrongTree,
)
from sync_engine.frames import Statement, Statements, decode, encode
from sync_engine.statements import (
    HANDOVER,
    HEARTBEAT,
    LOST,
    REVOCATION,
    Handover,
    Heartbeat,
    Lost,
    Revocation,
    Said,
    body_of,
    check_admissible,
    parse,
    tag_of,
    travels,
)
from tests.test_session import Two
from tests.world import World, WorldNode

EPOCH, LATER = Epoch("00000000000000a1"), Epoch("ffffffffffffffff")
TREE = b"t" * 32
HUE, VN, PHU_VANG, HUONG_THUY = (UnitPath(each) for each in ("hue.vn", "vn", "phu-vang.hue.vn", "huong-thuy.hue.vn"))


def head(origin: str, scope: str, seq: int = 1, epoch: Epoch = EPOCH) -> Head:
    return Head(StreamId(UnitPath(origin), epoch, Scope(scope)), seq, sha256(f"{origin}{seq}".encode()).digest())


HEARTBEAT_SAID = Heartbeat(
    TREE,
    HUE,
    EPOCH,
    Scope(PHU_VANG),
    (head(HUE, PHU_VANG, 3),),
    (head(PHU_VANG, PHU_VANG, 7),),
    1_800_000_000_000,
    b"a",
)
HANDOVER_SAID = Handover(TREE, HUE, LATER, b"k" * 32, HUE, EPOCH, 1_800_000_000_000)
REVOCATION_SAID = Revocation(TREE, HUE, EPOCH, "stolen", (head(HUE, PHU_VANG, 3),), VN, EPOCH, 1_800_000_000_000)
LOST_SAID = Lost(TREE, HUE, EPOCH, Scope(PHU_VANG), b"b" * 32, (b"c" * 32, b"d" * 32), 1_800_000_000_000)

SAID: dict[str, Said] = {
    "a heartbeat": HEARTBEAT_SAID,
    "a heartbeat of a unit without batches": replace(HEARTBEAT_SAID, heads=(), holds=(), audit_head=b""),
    "a handover": HANDOVER_SAID,
    "a revocation": REVOCATION_SAID,
    "what is lost": LOST_SAID,
    "a revocation of a key without batches": replace(REVOCATION_SAID, last=()),
}


@pytest.mark.parametrize("each", SAID.values(), ids=SAID)
def test_what_is_said_comes_back_as_it_was(each: Said) -> None:
    statement = Statement(tag_of(each), body_of(each), b"signature")
    assert decode(encode(Statements((statement, statement)))) == Statements((statement, statement))
    assert parse(statement) == each


MALFORMED = {
    "of no kind that is known": (Statement("will", b"", b""), Malformed),
    "that does not parse": (Statement(HEARTBEAT, b"\xff\xff", b""), Malformed),
    "about no scope": (Statement(HEARTBEAT, b"", b""), Malformed),
    "about two scopes": (Statement(HEARTBEAT, body_of(HEARTBEAT_SAID) + b"\x22\x04\x0a\x02vn", b""), LimitExceeded),
    "that names no unit": (Statement(REVOCATION, b"", b""), Malformed),
    "without a key": (Statement(HANDOVER, body_of(replace(HANDOVER_SAID, key_sha256=b"short")), b""), Malformed),
    "of nothing lost": (Statement(LOST, body_of(replace(LOST_SAID, chunks=())), b""), Malformed),
    "of something lost without its hash": (
        Statement(LOST, body_of(replace(LOST_SAID, chunks=(b"c",))), b""),
        Malformed,
    ),
    "that is too large": (Statement(REVOCATION, bytes(limits.STATEMENT_BYTES_MAX + 1), b""), LimitExceeded),
}


@pytest.mark.parametrize(("statement", "fault"), MALFORMED.values(), ids=MALFORMED)
def test_a_statement_is_refused(statement: Statement, fault: type[RemoteFault]) -> None:
    with pytest.raises(fault):
        parse(statement)


def test_a_frame_holds_no_more_and_no_larger_statements_than_allowed() -> None:
    small, large = Statement("a", b"", b""), Statement("a", bytes(limits.STATEMENT_BYTES_MAX), b"")
    for each in ((small,) * (limits.STATEMENTS_MAX + 1), (large,)):
        with pytest.raises(LimitExceeded):
            decode(encode(Statements(each)))


INADMISSIBLE: dict[str, tuple[Said, type[RemoteFault]]] = {
    "of another tree": (replace(HANDOVER_SAID, tree_id=b"o" * 32), WrongTree),
    "about a scope outside the path": (replace(HEARTBEAT_SAID, scope=Scope("lao-cai.vn")), OutOfScope),
    "about a scope that its unit may not hold": (
        replace(HEARTBEAT_SAID, unit=HUONG_THUY, heads=(), scope=Scope(PHU_VANG)),
        OutOfScope,
    ),
    "with another unit's streams as its own": (
        replace(HEARTBEAT_SAID, heads=(head(PHU_VANG, PHU_VANG),)),
        OutOfScope,
    ),
    "with a stream that cannot be": (replace(HEARTBEAT_SAID, holds=(head(HUONG_THUY, PHU_VANG),)), OutOfScope),
    "by a sibling": (replace(HANDOVER_SAID, unit=PHU_VANG, signer=HUONG_THUY), OutOfScope),
    "by the new life itself": (replace(HANDOVER_SAID, signer_epoch=LATER), OutOfScope),
    "of another's batches": (replace(LOST_SAID, unit=HUONG_THUY), OutOfScope),
    "by the revoked unit": (replace(REVOCATION_SAID, signer=HUE), OutOfScope),
    "by the grandparent": (replace(REVOCATION_SAID, unit=PHU_VANG), OutOfScope),
    "that cuts another key's streams": (replace(REVOCATION_SAID, epoch=LATER), OutOfScope),
    "that cuts a stream that cannot be": (replace(REVOCATION_SAID, last=(head(HUE, "lao-cai.vn"),)), OutOfScope),
}


@pytest.mark.parametrize(("each", "fault"), INADMISSIBLE.values(), ids=INADMISSIBLE)
def test_nobody_may_say(each: Said, fault: type[RemoteFault]) -> None:
    with pytest.raises(fault):
        check_admissible(each, TREE, HUE)


def test_what_may_be_said_may_be_kept() -> None:
    for each in SAID.values():
        check_admissible(each, TREE, HUE)


def test_it_travels_where_it_concerns_somebody() -> None:
    links = ("phu-vang.hue.vn", "huong-thuy.hue.vn", "hue.vn", "lao-cai.vn")
    assert [travels(HEARTBEAT_SAID, each) for each in links] == [True, False, True, False]
    assert [travels(HANDOVER_SAID, each) for each in links] == [True, True, True, False]
    assert [travels(replace(HANDOVER_SAID, unit=VN, signer=VN), each) for each in links] == [True] * 4


# --- kept ---


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.node("phu-vang.hue.vn"), world.node("huong-thuy.hue.vn")
    world.settle(2)
    return world


def heartbeat(node: WorldNode, scope: str, time_ms: int = 5, **more: Any) -> Heartbeat:
    context = node.context
    return Heartbeat(context.tree_id, context.unit, context.epoch, Scope(scope), (), (), time_ms, **more)


def handover(world: World, node: WorldNode) -> Handover:
    return Handover(world.tree.tree_id, node.context.unit, LATER, b"k" * 32, node.context.unit, node.context.epoch, 5)


def revocation(world: World, node: WorldNode, unit: str) -> Revocation:
    signer = node.context
    return Revocation(
        world.tree.tree_id, UnitPath(unit), signer.epoch, "stolen", (), signer.unit, signer.epoch, world.now
    )


def signed(node: WorldNode, each: Said) -> Statement:
    body = body_of(each)
    return Statement(tag_of(each), body, node.context.sign(tag_of(each), body))


def tell(node: WorldNode, each: Said) -> Statement:
    with node.write() as connection:
        return say(connection, node.context, each)


def known(node: WorldNode, tag: str = HEARTBEAT) -> list[Said]:
    with node.read() as connection:
        return [each.said for each in said(connection, tag)]


def test_of_heartbeats_the_newest_is_kept_and_of_all_else_everything(world: World) -> None:
    centre, province = world.node("vn"), world.node("hue.vn")
    beats = [heartbeat(province, "phu-vang.hue.vn", time) for time in (5, 9, 7)]
    with centre.write() as connection:
        kept = keep_all(connection, centre.context, [signed(province, each) for each in beats])
    assert kept == beats[:2]
    assert known(centre) == [beats[1]]
    revocations = [replace(revocation(world, centre, "hue.vn"), reason=reason) for reason in ("stolen", "lost")]
    for each in revocations:
        tell(centre, each)
        tell(centre, each)
    assert known(centre, REVOCATION) == revocations


FORGED: dict[str, tuple[Callable[[World], Statement], type[RemoteFault]]] = {
    "signed by another": (
        lambda world: signed(world.node("phu-vang.hue.vn"), heartbeat(world.node("hue.vn"), "hue.vn")),
        BadSignature,
    ),
    "signed under another tag": (
        lambda world: replace(
            signed(world.node("hue.vn"), heartbeat(world.node("hue.vn"), "hue.vn")),
            signature=world.node("hue.vn").context.sign("handover", body_of(heartbeat(world.node("hue.vn"), "hue.vn"))),
        ),
        BadSignature,
    ),
    "of a life without a certificate": (
        lambda world: signed(
            world.node("hue.vn"), replace(heartbeat(world.node("hue.vn"), "hue.vn"), epoch=Epoch("1" * 16))
        ),
        BadCertificate,
    ),
}


@pytest.mark.parametrize(("make", "fault"), FORGED.values(), ids=FORGED)
def test_a_forged_statement_is_not_kept(
    make: Callable[[World], Statement], fault: type[RemoteFault], world: World
) -> None:
    centre, forged = world.node("vn"), make(world)
    good = signed(world.node("hue.vn"), heartbeat(world.node("hue.vn"), "hue.vn", 77))
    with centre.write() as connection, pytest.raises(fault):
        keep(connection, centre.context, forged)
    with centre.write() as connection:
        assert len(keep_all(connection, centre.context, [forged, good, forged])) == 1, "the others are kept"
    assert [each.time_ms for each in known(centre)] == [77]


def test_one_signer_cannot_fill_a_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "SAID_MAX", 3)
    centre, province = world.node("vn"), world.node("hue.vn")
    many = [signed(province, heartbeat(province, f"made-up-{number}.hue.vn")) for number in range(9)]
    with centre.write() as connection:
        assert len(keep_all(connection, centre.context, many)) == 3


def test_what_follows_from_a_statement_is_part_of_keeping_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_connection: Any, _context: Any, each: Said) -> None:
        raise OutOfScope("not while this test runs")

    monkeypatch.setitem(statements.KEPT, HANDOVER, [refuse])
    centre, province = world.node("vn"), world.node("hue.vn")
    with centre.write() as connection:
        assert keep_all(connection, centre.context, [signed(province, handover(world, province))]) == []
    assert known(centre, HANDOVER) == []


# --- carried ---


async def test_statements_reach_those_whom_they_concern_and_then_nothing_has_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_told(_node: Node) -> None:
        """That its key has handed over is no news to the one that says so."""

    monkeypatch.setattr(Node, "notice_successor", is_told)
    monkeypatch.setattr("node.session.beat", is_told)  # only what this test says
    monkeypatch.setattr(
        "node.session.check_not_revoked", lambda *_arguments: None
    )  # the link stays, to see what travels
    names = ("phu-vang.hue.vn", "huong-thuy.hue.vn", "hue.vn", "vn")
    for node in map(world.node, names):
        tell(node, heartbeat(node, node.unit))
    tell(world.node("vn"), revocation(world, world.node("vn"), "hue.vn"))
    tell(world.node("phu-vang.hue.vn"), handover(world, world.node("phu-vang.hue.vn")))
    frames = []
    for _ in range(3):
        for unit in names[:3]:
            two = Two(world, UnitPath(unit))
            await two.run()
            frames.append(two.down.frames + two.up.frames)
    assert frames[-3:] == [3, 3, 3], "a hello each, and the word that all is done"
    kept = {unit: sorted(each.unit for each in known(world.node(unit))) for unit in names}
    assert kept == {
        "vn": ["hue.vn", "huong-thuy.hue.vn", "phu-vang.hue.vn", "vn"],
        "hue.vn": ["hue.vn", "huong-thuy.hue.vn", "phu-vang.hue.vn"],
        "phu-vang.hue.vn": ["phu-vang.hue.vn"],
        "huong-thuy.hue.vn": ["huong-thuy.hue.vn"],
    }
    assert all(len(known(world.node(unit), REVOCATION)) == 1 for unit in names), "it goes down to all below"
    with_handover = [unit for unit in names if known(world.node(unit), HANDOVER)]
    assert with_handover == ["phu-vang.hue.vn", "hue.vn", "vn"]
