"""Histories of ended keys, second keys and statements that break a promise of decisions 0030, 0032 and 0033."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conflict.values import Epoch, Scope, StreamId, UnitPath
from node import authority, renewal
from node.local import Node
from node.storage import statements
from node.storage.certificates import keep_path
from node.storage.inbox import Taken
from node.storage.statements import keep
from sync_engine.batch import NO_PREV, BatchHeader, encode_batch, encode_header
from sync_engine.entries import encode_section
from sync_engine.errors import BadCertificate, RemoteFault
from sync_engine.frames import Statement
from sync_engine.registry import parse_registry
from sync_engine.statements import HANDOVER, Handover, body_of
from tests.forging import PERSON, Stream, rows
from tests.lives import Family
from tests.pki import EPOCH
from tests.test_revocation import members, revocation
from tests.world import SHIPPED, World

assert renewal.RENEW_BEFORE  # imported: it says what a handover changes
COMMUNE, VANG, HUE, ROOT = "a.phu-vang.hue.vn", "phu-vang.hue.vn", "hue.vn", "vn"
SECOND = "00000000000000b2"
MEMBER = parse_registry(SHIPPED).tables["member"]


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_thief_cannot_write_below_the_cut_where_its_batches_have_not_come(world: World) -> None:
    """The key is stolen and revoked as of its second batch; whoever has neither is shown another first one."""
    centre = world.node(ROOT)
    Stream(world, HUE).certify(centre)
    vang = Stream(world, VANG).certify(centre)
    forged = vang.batch(rows(MEMBER, ("x", 99, PERSON), new=True), keep=False)
    honest = [vang.batch(rows(MEMBER, (str(at), 10, PERSON), new=True)) for at in (1, 2)]
    with centre.write() as connection:
        keep(connection, centre.context, revocation(world, VANG, world.tree.node(HUE), honest[1].head))
    centre.take(forged.data)
    assert members(centre) == []


def test_a_key_that_does_not_count_vouches_for_nothing(world: World) -> None:
    """The province's machine is stolen, with its CA key. Its node key is revoked; the thief makes a second key of a
    district, which counts nowhere, and lets it say that it has seen what the stolen key signed."""
    centre = world.node(ROOT)
    vang = Stream(world, VANG).certify(centre)
    hue = Stream(world, HUE).certify(centre)
    second = Stream(world, VANG, epoch=SECOND).certify(centre, signed=False)
    one = vang.batch(rows(MEMBER, ("1", 10, PERSON), new=True))
    good = hue.batch(rows(MEMBER, ("1", 20, {"note": "good"})), seen=[one.head])
    bad = hue.batch(rows(MEMBER, ("1", 30, {"note": "thief"})))
    with centre.write() as connection:
        keep(connection, centre.context, revocation(world, HUE, world.tree.node(ROOT), good.head))
    assert [centre.take(each.data) for each in (one, good, bad)] == [Taken.APPLIED, Taken.APPLIED, Taken.WAITING]
    voucher = second.batch(rows(MEMBER, ("1", 40, {"cell": "x"})), seen=[bad.head])
    assert centre.take(voucher.data) is Taken.WAITING
    centre.apply_ready()
    assert centre.sql("SELECT note FROM member") == [("good",)]


async def test_a_child_is_no_copy_because_its_parent_was_rebuilt(family: Family) -> None:
    """A district and later its province lose their disks; the district, which goes on, is later restored or rotates."""
    await family.rounds(2)
    await family.lose(VANG)
    await family.rounds(3)
    await family.lose(HUE)
    await family.rounds(4)
    await family.nodes[VANG].begin_life(family.nodes[VANG].context.epoch, again=False)
    family.enter(VANG, VANG, "1", "Nguyễn Văn An")
    await family.rounds(3)
    assert family.refused == []
    assert family.sql(ROOT, "SELECT count(*) FROM member") == [(1,)]


async def test_a_rebuilt_node_begins_one_life(family: Family) -> None:
    await family.rounds(2)
    await family.lose(VANG)
    epoch = family.nodes[VANG].context.epoch
    await family.rounds(4)
    assert family.nodes[VANG].context.epoch == epoch


def test_heartbeats_leave_room_for_a_revocation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A centre of some ten thousand units signs a heartbeat for each, in each of its lives; then a key is stolen."""
    centre = world.node(ROOT)
    Stream(world, HUE).certify(centre)
    count = centre.sql("SELECT count(*) FROM _statement WHERE signer = ?", ROOT)[0][0]
    monkeypatch.setattr(statements, "SAID_MAX", 20)
    for at in range(count, 20):
        centre.sql(
            "INSERT INTO _statement (id, tag, unit, epoch, scope, signer, time, came_ms, body, signature)"
            " VALUES (?, 'heartbeat', 'vn', ?, ?, 'vn', 1, 1, x'', x'')",
            *(bytes([at]) * 32, SECOND, f"d{at}.hue.vn"),
        )
    with centre.write() as connection:
        assert keep(connection, centre.context, revocation(world, HUE, world.tree.node(ROOT))) is not None


async def test_a_branch_under_a_key_that_does_not_count_begins_no_life(family: Family) -> None:
    """A hostile province makes a second key of the district with its CA, and two batches at one place of its stream.
    Nothing of it counts, but the district leaves its life each time such a pair comes."""
    province, district = family.nodes[HUE], family.nodes[VANG]
    family.enter(VANG, VANG, "1", "Nguyễn Văn An")
    await family.rounds(2)
    epoch = district.context.epoch
    path, forged = forged_pair(province, VANG)
    await district.database.write(keep_path, path, district.context.tree_id)
    for data in forged:
        await district.take(await district.verify(data, HUE))
    assert district.context.epoch == epoch


def forged_pair(province: Node, unit: str) -> tuple[tuple[bytes, ...], list[bytes]]:
    key = authority.new_key()
    ca_key, ca_cert = province.keys.require_ca()
    leaf = authority.issue_node(ca_key, ca_cert, unit, SECOND, key.public_key(), datetime.now(UTC))
    path = (authority.der_of(leaf), *province.keys.ca_path)
    stream = StreamId(UnitPath(unit), Epoch(SECOND), Scope(unit))
    registry = parse_registry(SHIPPED)
    made = []
    for name in ("a", "b"):
        described, chunk = encode_section(rows(MEMBER, (name, 10, PERSON), new=True), lambda: bytes(16))
        header = BatchHeader(
            tree_id=province.keys.tree_id,
            stream=stream,
            seq=1,
            prev=NO_PREV,
            seen_delta=(),
            registry_version=(registry.version, registry.sha256),
            again=False,
            sections=(described,),
        )
        raw = encode_header(header)
        made.append(encode_batch(raw, authority.signer_of(key)("batch", raw), (chunk,)))
    return path, made


@pytest.mark.slow
def test_a_signed_flood_of_handovers_costs_each_no_more_than_the_one_before(world: World) -> None:
    """A hostile district hands over to keys that do not exist: each is kept for ever, and each is judged with all."""
    node = world.node(HUE)
    Stream(world, VANG).certify(node)
    before = world.tree.node(VANG, EPOCH)

    def cost(start: int, count: int) -> float:
        made = []
        for at in range(start, start + count):
            said = Handover(
                world.tree.tree_id, UnitPath(VANG), Epoch(f"{at + 500:016x}"), bytes(32), before.unit, before.epoch, at
            )
            body = body_of(said)
            made.append(Statement(HANDOVER, body, before.signer(HANDOVER, body)))
        began = time.process_time()
        with node.write() as connection:
            for each in made:
                keep(connection, node.context, each)
        return time.process_time() - began

    first = cost(0, 100)
    cost(100, 900)
    last = cost(1_000, 100)
    assert last < 3 * first, (first, last)


def test_a_key_is_ended_where_it_is_known(world: World) -> None:
    """A hostile parent ends keys of children that it makes up: each would be kept for ever."""
    node = world.node(ROOT)
    Stream(world, HUE).certify(node)
    with node.write() as connection:
        said = revocation(world, VANG, world.tree.node(HUE))
        with pytest.raises(BadCertificate):
            keep(connection, node.context, said)
    Stream(world, VANG).certify(node)
    with node.write() as connection:
        assert keep(connection, node.context, said) is not None


def test_a_unit_hands_over_to_so_many_keys_and_its_parent_still_names_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "HANDOVERS_MAX", 2)
    node = world.node(HUE)
    Stream(world, VANG).certify(node)

    def named(at: int, by: str) -> Statement:
        signer = world.tree.node(by, EPOCH)
        epoch = Epoch(f"{at + 500:016x}")
        said = Handover(world.tree.tree_id, UnitPath(VANG), epoch, bytes(32), UnitPath(by), signer.epoch, at)
        body = body_of(said)
        return Statement(HANDOVER, body, signer.signer(HANDOVER, body))

    with node.write() as connection:
        for at in range(2):
            assert keep(connection, node.context, named(at, VANG)) is not None
        with pytest.raises(RemoteFault):
            keep(connection, node.context, named(2, VANG))
        assert keep(connection, node.context, named(3, HUE)) is not None
