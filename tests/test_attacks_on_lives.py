"""Histories of restored, copied and lying nodes that break a promise of decision 0025."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node import renewal
from node.commands.accidents import release as release_command
from node.commands.proof import verify
from node.storage import receipts
from node.storage.brake import open_brakes
from node.storage.context import BrakeRule
from node.storage.inbox import Taken
from node.storage.outbox import stray, strays
from node.storage.statements import keep
from sync_engine.batch import NO_PREV, BatchHeader, SealedBatch, encode_header, parse_batch
from sync_engine.branches import Branches
from sync_engine.errors import LimitExceeded
from sync_engine.frames import Chain, Receipt, Statement
from sync_engine.handover import key_hash
from sync_engine.receipts import ReceiptBody
from sync_engine.receipts import body_of as receipt_body
from sync_engine.registry import parse_registry
from sync_engine.statements import HANDOVER, Handover, body_of
from tests.forging import PERSON, Stream, deletes, rows
from tests.lives import Family
from tests.pki import EPOCH
from tests.world import SHIPPED, World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
SECOND = "00000000000000b2"
assert renewal.RENEW_BEFORE  # imported: it says what a handover changes
MEMBER = parse_registry(SHIPPED).tables["member"]


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> World:
    return World(tmp_path)


def handover(world: World, unit: str, epoch: str, by: str = EPOCH) -> Statement:
    """A unit's key signs for the one that follows it."""
    node, before = world.tree.node(unit, epoch), world.tree.node(unit, by)
    said = Handover(
        tree_id=world.tree.tree_id,
        unit=UnitPath(unit),
        epoch=Epoch(epoch),
        key_sha256=key_hash(node.key.public_key()),
        signer=UnitPath(unit),
        signer_epoch=Epoch(by),
        time_ms=1,
    )
    body = body_of(said)
    return Statement(HANDOVER, body, before.signer(HANDOVER, body))


def let_follow(world: World, node: WorldNode, unit: str = VANG, epoch: str = SECOND) -> None:
    Stream(world, unit).certify(node)
    Stream(world, unit, epoch=epoch).certify(node)
    with node.write() as connection:
        keep(connection, node.context, handover(world, unit, epoch))


def repeat(stream: Stream, former: SealedBatch, seen: Sequence[Head] = (), **changes: Any) -> SealedBatch:
    """A batch that says a former one again, as ``said_again`` does; with a ``seen`` of its origin's choice."""
    header = BatchHeader(
        tree_id=former.header.tree_id,
        stream=stream.id,
        seq=1 if stream.last is None else stream.last.header.seq + 1,
        prev=NO_PREV if stream.last is None else stream.last.head.hash,
        seen_delta=tuple(sorted(seen)),
        registry_version=former.header.registry_version,
        again=True,
        sections=former.header.sections,
        repeats=(former.header_bytes, former.signature),
    )
    return stream.sign(encode_header(replace(header, **changes)), former.chunks)


def registers(node: WorldNode) -> list[tuple[Any, ...]]:
    node.apply_ready()
    return node.sql("SELECT id, note, phone, cell, home_town FROM member ORDER BY id")


# --- one edit in two lives -------------------------------------------------------------------------------------------


def test_an_edit_that_empties_a_field_is_not_taken_for_another_one_of_the_same_time(world: World) -> None:
    """Clock behind: every edit is one after what it replaces, so two lives edit one row at one time: one its note, the
    other, flagged ``again``, empties the telephone."""
    node = world.node(HUE)
    let_follow(world, node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    one = first.batch(rows(MEMBER, ("1", 10, {**PERSON, "cell": "A"}), new=True))
    lost = first.batch(rows(MEMBER, ("1", 11, {"note": "x"})))
    again = second.batch(rows(MEMBER, ("1", 11, {"cell": None})), seen=[one.head], again=True)
    for each in (one, lost, again):
        assert node.take(each.data) is Taken.APPLIED
    assert registers(node)[0][3] is None


def test_a_later_lives_edit_of_the_same_time_keeps_a_row_that_was_deleted_beside_it(world: World) -> None:
    """The same clock: an edit of another field, which nobody who deleted the row had seen, keeps it (review)."""
    node = world.node(HUE)
    let_follow(world, node)
    centre = Stream(world, ROOT).certify(node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    one = first.batch(rows(MEMBER, ("1", 10, {**PERSON, "cell": "A"}), new=True))
    lost = first.batch(rows(MEMBER, ("1", 11, {"note": "x"})))
    gone = centre.batch(deletes(MEMBER, ("1", 12)), seen=[lost.head])
    again = second.batch(rows(MEMBER, ("1", 11, {"home_town": "Huế"})), seen=[one.head], again=True)
    for each in (one, lost, gone, again):
        assert node.take(each.data) is Taken.APPLIED
    assert [row[4] for row in registers(node)] == ["Huế"]


# --- what repeats may say --------------------------------------------------------------------------------------------


def sealed_here(node: WorldNode, scope: str = VANG) -> SealedBatch:
    """The last batch that a node has sealed in a scope."""
    ((data,),) = node.sql(
        "SELECT data FROM _batch JOIN _stream ON _stream.no = stream WHERE origin = ? AND scope = ?"
        " ORDER BY _batch.no DESC LIMIT 1",
        node.unit,
        scope,
    )
    return parse_batch(data)


def test_who_held_a_batch_and_who_did_not_end_alike_whatever_its_repeat_has_seen(world: World) -> None:
    """A hostile district says a batch again and claims that it had seen more."""
    holder, stranger = world.node(HUE), world.node(ROOT)
    for node in (holder, stranger):
        let_follow(world, node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    one = first.batch(rows(MEMBER, ("1", 10, {**PERSON, "note": "0"}), new=True))
    mine = first.batch(rows(MEMBER, ("1", 20, {"note": "district"})))
    holder.take(one.data)
    holder.sql("UPDATE member SET note = 'province' WHERE id = '1'")
    holder.seal()
    theirs = sealed_here(holder)
    say = repeat(second, mine, seen=[one.head, theirs.head])
    assert holder.take(mine.data) is Taken.APPLIED
    assert holder.take(say.data) is Taken.APPLIED
    for each in (one, theirs, say):
        assert stranger.take(each.data) is Taken.APPLIED
    assert registers(holder) == registers(stranger)
    assert open_conflicts(holder) == open_conflicts(stranger)


def test_two_branches_said_again_in_one_stream_have_not_seen_each_other(world: World) -> None:
    """Of an origin that was restored twice: who held neither branch merges both, and neither had seen the other."""
    node = world.node(HUE)
    let_follow(world, node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    one = first.batch(rows(MEMBER, ("1", 10, {**PERSON, "note": "0"}), new=True))
    branches = [first.batch(rows(MEMBER, ("1", 20 + at, {"note": f"life {at}"})), keep=False) for at in (2, 3)]
    node.take(one.data)
    for each in branches:
        second.last = repeat(second, each, seen=[one.head])
        assert node.take(second.last.data) is Taken.APPLIED
    values = b" ".join(row[0] for row in node.sql("SELECT value FROM _write WHERE register = 'note'"))
    assert b"life 2" in values
    assert b"life 3" in values


def open_conflicts(node: WorldNode) -> list[tuple[Any, ...]]:
    """Numbers follow from who wrote what and when: the same on all nodes."""
    return node.sql("SELECT field, number FROM _conflict WHERE live = 1 ORDER BY field")


def test_a_batch_in_the_middle_of_a_chain_is_not_taken_out_of_it(world: World) -> None:
    """A hostile district says one in the middle again: whoever comes later could never be given what follows it."""
    node = world.node(HUE)
    let_follow(world, node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    made = [first.batch(rows(MEMBER, (str(at), 10, PERSON), new=True)) for at in range(1, 4)]
    for each in made:
        node.take(each.data)
    node.take(repeat(second, made[1], seen=[made[0].head]).data)
    held = node.sql(
        "SELECT seq FROM _batch JOIN _stream ON _stream.no = stream WHERE origin = ? AND epoch = ? AND scope = ?"
        " ORDER BY seq",
        *(VANG, EPOCH, VANG),
    )
    assert [seq for (seq,) in held] == list(range(1, len(held) + 1))


def test_whoever_comes_late_is_given_what_follows_a_batch_that_was_said_again(world: World) -> None:
    """First what says it again comes, then what follows it where it stood."""
    node = world.node(HUE)
    let_follow(world, node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    made = [first.batch(rows(MEMBER, (str(at), 10, PERSON), new=True)) for at in range(1, 5)]
    again = []
    for each in made[1:3]:
        second.last = repeat(second, each, seen=[made[each.header.seq - 2].head])
        again.append(second.last)
    told = [node.take(each.data) for each in (made[0], *again, *made[1:])]
    assert told == [Taken.APPLIED] * 3 + [Taken.KNOWN] * 2 + [Taken.APPLIED]
    assert node.sql("SELECT count(*) FROM member") == [(4,)]
    held = node.sql("SELECT held_seq, applied_seq FROM _stream WHERE origin = ? AND epoch = ?", VANG, EPOCH)
    assert held == [(4, 4)]


def test_what_follows_a_batch_that_was_said_again_is_sent_after_what_fills_its_place(world: World) -> None:
    """A relay has a chain of which one in the middle was said again, and the parent behind it has nothing."""
    relay, late = world.node(HUE), world.node(ROOT)
    for node in (relay, late):
        let_follow(world, node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    made = [first.batch(rows(MEMBER, (str(at), 10, PERSON), new=True)) for at in range(1, 4)]
    for each in (*made, repeat(second, made[1], seen=[made[0].head])):
        relay.take(each.data)
    world.sync(HUE)
    assert late.sql("SELECT count(*) FROM member") == [(3,)]
    held = "SELECT epoch, held_seq, applied_seq FROM _stream WHERE origin = ? AND scope = ? ORDER BY epoch"
    assert late.sql(held, VANG, VANG) == relay.sql(held, VANG, VANG)


def test_a_receipt_for_what_gave_way_is_none_for_what_stands_there_now(world: World) -> None:
    """The centre has signed for the third of one branch; the second of the other one comes in its stead."""
    node, centre, link = world.node(HUE), world.node(ROOT), UnitPath(HUE)
    let_follow(world, node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    one = first.batch(rows(MEMBER, ("1", 10, PERSON), new=True))
    other = first.batch(rows(MEMBER, ("2", 20, PERSON), new=True), keep=False)
    branch = [first.batch(rows(MEMBER, (str(at), 10, PERSON), new=True)) for at in (3, 4)]
    for each in (one, *branch):
        node.take(each.data)

    def signed_for() -> None:
        names = ReceiptBody(
            UnitPath(ROOT), centre.context.epoch, link, frozenset({Scope(VANG)}), (branch[-1].head,), (), 1
        )
        body = receipt_body(names)
        with node.write() as connection:
            receipts.keep(
                *(connection, node.context, link, (UnitPath(ROOT), centre.context.epoch)),
                Receipt(body, centre.context.sign("receipt", body)),
            )

    signed_for()
    before = one
    for each in branch:
        second.last = repeat(second, each, seen=[before.head])
        before = each
        node.take(second.last.data)
    assert node.take(other.data) is Taken.APPLIED
    for again in (False, True):
        if again:
            signed_for()
        assert node.sql("SELECT count(*) FROM _peer_head JOIN _stream ON no = stream WHERE scope = ?", VANG) == [(0,)]


def test_strays_are_in_memory_one_at_a_time(world: World) -> None:
    node = world.node(HUE)
    Stream(world, VANG).certify(node)
    first = Stream(world, VANG)
    forked = [first.batch(rows(MEMBER, (str(at), 10, PERSON), new=True), keep=False) for at in (1, 2)]
    for each in forked:
        node.take(each.data)
    found = node.look(lambda connection, context: strays(connection, context, UnitPath(VANG), UnitPath(VANG)))
    assert found == [forked[1].head.hash]
    with node.read() as connection:
        kept = stray(connection, found[0])
    assert kept is not None
    assert kept.data == forked[1].data


def test_one_chain_of_a_stream_is_answered_at_once() -> None:
    side = Branches(UnitPath(HUE), Epoch(EPOCH), UnitPath(VANG), UnitPath(VANG))
    stream = StreamId(UnitPath(VANG), Epoch(EPOCH), Scope(VANG))
    chain = Chain(stream, 1, (bytes(32),))
    assert len(side.on_chain(chain)) == 1
    with pytest.raises(LimitExceeded):
        side.on_chain(chain)
    side.on_branch_shipped(stream)
    assert side.are_settled
    assert len(side.on_chain(chain)) == 1


def test_headers_within_headers_are_few(world: World) -> None:
    """A hostile district with two keys: a header that repeats one that repeats one ... Each costs a signature."""
    node = world.node(HUE)
    let_follow(world, node)
    first, second = Stream(world, VANG), Stream(world, VANG, epoch=SECOND)
    inner = first.batch(rows(MEMBER, ("1", 10, PERSON), new=True), keep=False)
    while len(inner.header_bytes) < 900_000:
        inner = repeat(first, inner)
    outer = repeat(second, inner)
    began = time.perf_counter()
    with suppress(LimitExceeded):
        node.take(outer.data)
    took = time.perf_counter() - began
    assert took < 0.5


# --- whole nodes -----------------------------------------------------------------------------------------------------


async def healed(family: Family) -> None:
    """A fork that has healed: a batch of the image's life was said again."""
    family.enter(VANG, VANG, "1", "Nguyễn Văn An", note="one")
    await family.rounds(2)
    await family.image(VANG, "image")
    for value in ("two", "three"):
        family.edit(VANG, VANG, "1", note=value)
        await family.rounds(1)
    await family.rounds(1)
    await family.restore(VANG, "image")
    family.edit(VANG, VANG, "1", home_town="branch")
    await family.nodes[VANG].seal()
    family.edit(VANG, VANG, "1", home_town="pending")
    await family.rounds(5)


@pytest.mark.parametrize("name", [VANG, HUE, ROOT])
async def test_verify_finds_a_healed_fork_sound(family: Family, name: str) -> None:
    await healed(family)
    before = await family.digests(VANG)
    found = await verify(family.nodes[name], {"repair": True}, lambda _: None)
    assert await family.digests(VANG) == before
    assert found["ok"], found


COMMUNE = "a.phu-vang.hue.vn"


async def test_three_branches_heal(family: Family) -> None:
    """The district's stream of its commune's rows: one branch is known above, one below, one to itself."""
    family.enter(COMMUNE, COMMUNE, "1", "Nguyễn Văn An")
    await family.rounds(3)
    family.edit(VANG, COMMUNE, "1", note="0")
    await family.rounds(2)
    await family.image(VANG, "image")
    family.edit(VANG, COMMUNE, "1", note="first life")
    await family.sync(VANG)
    await family.restore(VANG, "image")
    family.edit(VANG, COMMUNE, "1", home_town="second life")
    await family.nodes[VANG].seal()
    await family.sync(COMMUNE)
    await family.restore(VANG, "image")
    family.edit(VANG, COMMUNE, "1", cell="third life")
    await family.nodes[VANG].seal()
    await family.rounds(12)
    digests = await family.digests(COMMUNE)
    assert len(set(digests.values())) == 1, digests
    assert family.frozen() == []
    for each in (COMMUNE, VANG, HUE, ROOT):
        rows = family.sql(each, "SELECT note, home_town, cell FROM member WHERE id = '1'")
        assert rows == [("first life", "second life", "third life")]


@pytest.mark.parametrize("name", [VANG, HUE, ROOT, COMMUNE])
async def test_verify_knows_what_was_seen_under_a_former_name(family: Family, name: str) -> None:
    """The province edits what a branch said; then the district says that branch again. ``verify --repair`` merges all
    anew."""
    family.enter(COMMUNE, COMMUNE, "1", "Nguyễn Văn An")
    await family.rounds(3)
    family.edit(VANG, COMMUNE, "1", note="0")
    await family.rounds(3)
    await family.image(VANG, "image")
    family.edit(VANG, COMMUNE, "1", note="first life")
    await family.nodes[VANG].seal()
    await family.sync(COMMUNE)
    await family.restore(VANG, "image")
    family.edit(VANG, COMMUNE, "1", home_town="second life")
    await family.nodes[VANG].seal()
    await family.sync(VANG)
    family.edit(HUE, COMMUNE, "1", home_town="the province knew better")
    await family.nodes[HUE].seal()
    await family.rounds(8)
    before = await family.digests(COMMUNE)
    assert len(set(before.values())) == 1, before
    shown = family.sql(name, "SELECT note, home_town FROM member")
    assert shown == [("first life", "the province knew better")]
    found = await verify(family.nodes[name], {}, lambda _: None)
    assert found["ok"], found
    await verify(family.nodes[name], {"repair": True}, lambda _: None)
    assert await family.digests(COMMUNE) == before
    assert family.sql(name, "SELECT count(*) FROM _conflict WHERE live = 1") == [(0,)]


async def test_branches_of_a_catalogue_heal(family: Family) -> None:
    add = "INSERT INTO catalog (unit, id, kind, code, label, sort) VALUES (?, ?, 'job', ?, 'X', 1)"
    await family.rounds(2)
    await family.image(HUE, "image")
    family.sql(HUE, add, HUE, "x", "p-1")
    await family.rounds(2)
    await family.restore(HUE, "image")
    family.sql(HUE, add, HUE, "y", "p-2")
    await family.nodes[HUE].seal()
    await family.rounds(6)
    for each in family.nodes:
        got = family.sql(each, "SELECT code FROM catalog WHERE unit = ? ORDER BY code", HUE)
        assert got == [("p-1",), ("p-2",)], each
        assert family.sql(each, "SELECT count(*) FROM _code WHERE code IN ('p-1', 'p-2')") == [(2,)], each
    assert family.frozen() == []


async def test_what_two_lives_of_a_catalogue_make_known_is_the_same_everywhere(family: Family) -> None:
    """One changes a row's kind, the other its code; who merges one first has another row than who merges the other."""
    add = "INSERT INTO catalog (unit, id, kind, code, label, sort) VALUES (?, 'x', 'job', 'p-1', 'X', 1)"
    family.sql(HUE, add, HUE)
    await family.rounds(2)
    await family.image(HUE, "image")
    family.sql(HUE, "UPDATE catalog SET kind = 'degree' WHERE id = 'x'")
    await family.rounds(2)
    await family.restore(HUE, "image")
    family.sql(HUE, "UPDATE catalog SET code = 'p-2' WHERE id = 'x'")
    await family.nodes[HUE].seal()
    await family.rounds(6)
    known = "SELECT kind, code FROM _code WHERE unit = ? ORDER BY kind, code"
    for each in family.nodes:
        assert family.sql(each, known, HUE) == [(kind, code) for kind in ("degree", "job") for code in ("p-1", "p-2")]


async def test_a_settlement_on_a_branch_can_be_said_again(family: Family) -> None:
    """A brake is on in the image; each life does something of its own and releases it."""
    district = family.nodes[VANG]
    for at in range(4):
        family.enter(VANG, VANG, str(at), f"Người Thứ {at}")
    await family.rounds(2)
    district.context.brake = BrakeRule(0.1, 1)
    family.sql(VANG, "DELETE FROM member WHERE unit = ?", VANG)
    await district.seal()
    assert await district.database.read(open_brakes)
    await family.image(VANG, "image")
    await release(family)
    family.enter(VANG, VANG, "a", "Người Đời Một")
    await family.rounds(2)
    await family.restore(VANG, "image")
    family.enter(VANG, VANG, "b", "Người Đời Hai")
    await family.nodes[VANG].seal()
    await release(family)
    await family.rounds(6)
    digests = await family.digests(VANG)
    assert len(set(digests.values())) == 1, digests
    assert family.frozen() == []


async def release(family: Family) -> None:
    await release_command(family.nodes[VANG], {}, lambda _: None)
