"""A bit that flips in a stored batch: found where it matters, asked for, and put back from whoever has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.messages import say
from node.storage import damaged
from node.storage.context import Context
from node.storage.damaged import noted, waits_for
from node.storage.report import left_streams, waiting
from sync_engine.batch import parse_batch
from sync_engine.exchange import CREDIT_BYTES, Exchange, Send, Ship
from sync_engine.frames import Credit, HeadsFrame, Want, decode, encode
from tests.test_exchange import CHILD, PARENT, head, hello
from tests.test_session import Two
from tests.world import World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
INSERT = "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, 'Trần An', '1970', 'nam')"

Stored = tuple[int, bytes, bytes]


def stored(node: WorldNode, origin: str = VANG, scope: str = VANG, seq: int = 1) -> Stored:
    """(local number, hash, bytes) of a batch."""
    found = node.sql(
        "SELECT _batch.no, hash, data FROM _batch JOIN _stream ON _stream.no = _batch.stream"
        " WHERE origin = ? AND scope = ? AND seq = ?",
        *(origin, scope, seq),
    )
    no, digest, data = found[0]
    return no, digest, data


def name(node: WorldNode, digest: bytes) -> Head:
    """As what a batch was stored, whatever has become of its bytes."""
    found = node.sql(
        "SELECT origin, epoch, scope, seq FROM _batch JOIN _stream ON _stream.no = stream WHERE hash = ?", digest
    )
    origin, epoch, scope, seq = found[0]
    return Head(StreamId(UnitPath(origin), Epoch(epoch), Scope(scope)), seq, digest)


def flip(node: WorldNode, part: str, batch: Stored) -> None:
    """Turn one bit of a stored batch."""
    no, _digest, data = batch
    parsed = parse_batch(data)
    chunk = max((each for section in parsed.chunks for each in section.values()), key=len)
    place = {"header": parsed.header_bytes, "signature": parsed.signature, "chunk": chunk}[part]
    at = data.index(place) + len(place) // 2
    bad = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
    node.sql("UPDATE _batch SET data = ? WHERE no = ?", bad, no)


def note_all(node: WorldNode) -> None:
    """What ``verify`` does with what is not as it was signed."""
    for digest, data in node.sql("SELECT hash, data FROM _batch"):
        named = name(node, digest)
        with node.write() as connection:
            if not damaged.is_proven(connection, node.context, data, digest):
                damaged.note(connection, node.context, named)


async def session(world: World, child: str = VANG) -> Two:
    two = Two(world, UnitPath(child))
    await two.run()
    assert two.parents_fault is None
    return two


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> World:
    world = World(tmp_path)
    node = world.node(VANG)
    for key in "123":
        node.sql(INSERT, VANG, key)
        node.seal()
    world.settle(3)
    return world


PARTS = ["header", "signature", "chunk"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("where", "link"), [(VANG, VANG), (HUE, VANG), (HUE, HUE), (ROOT, HUE)])
async def test_a_flipped_bit_is_mended_from_the_parent_or_from_a_child(
    world: World, part: str, where: str, link: str
) -> None:
    node = world.node(where)
    before = stored(node, seq=2)
    flip(node, part, before)
    assert stored(node, seq=2) != before
    note_all(node)
    assert [head.seq for head in node.look(lambda connection, _context: noted(connection))] == [2]
    await session(world, link)
    after = stored(node, seq=2)
    assert after[:2] == before[:2]
    assert parse_batch(after[2]).header_bytes == parse_batch(before[2]).header_bytes
    assert node.look(lambda connection, context: damaged.is_proven(connection, context, after[2], after[1]))
    assert node.look(waits_for) == []
    frames = await session(world, link)
    assert frames.up.batches == frames.down.batches == 0, "in step again, and nothing is sent twice"


async def test_nothing_is_put_back_that_nobody_has_noted(world: World) -> None:
    node = world.node(HUE)
    before = stored(node)
    flip(node, "chunk", before)
    broken = stored(node)
    assert node.take(before[2]) == "known"
    assert stored(node) == broken
    note_all(node)
    node.take(before[2])
    assert stored(node) == before


async def test_a_batch_that_is_lost_altogether_comes_back_in_its_place(world: World) -> None:
    node = world.node(HUE)
    nos = node.sql("SELECT no FROM _batch ORDER BY no")
    lost = stored(node, seq=2)
    node.sql("DELETE FROM _batch WHERE no = ?", lost[0])
    [(_no, digest, data)] = [stored(world.node(VANG), seq=2)]
    with node.write() as connection:
        damaged.note(connection, node.context, parse_batch(data).head)
    await session(world)
    assert stored(node, seq=2) == lost
    assert node.sql("SELECT no FROM _batch ORDER BY no") == nos
    assert node.sql("SELECT state FROM _batch WHERE hash = ?", digest) == [("applied",)]


@pytest.mark.parametrize("part", PARTS)
async def test_a_relay_notices_damage_as_it_ships_and_heals_from_the_origin(world: World, part: str) -> None:
    world.node(VANG).sql(INSERT, VANG, "4")
    world.node(VANG).seal()
    await session(world, VANG)
    flip(world.node(HUE), part, stored(world.node(HUE), seq=4))
    two = await session(world, HUE)
    assert any(VANG in reason for reason in two.sessions[0].summary.refused)
    assert len(world.node(HUE).look(lambda connection, _context: noted(connection))) == 1
    await session(world, VANG)
    assert world.node(HUE).look(waits_for) == []
    await session(world, HUE)
    assert world.node(ROOT).sql("SELECT id FROM member ORDER BY id") == [("1",), ("2",), ("3",), ("4",)]


@pytest.mark.parametrize("part", ["header", "chunk"])
def test_a_batch_that_waits_is_not_applied_while_it_is_damaged_nor_held_against_its_stream(
    world: World, part: str
) -> None:
    """Its cause comes while its own bytes are damaged here."""
    top, middle, low = (world.node(unit) for unit in (ROOT, HUE, VANG))
    middle.sql("UPDATE member SET note = 'x' WHERE id = '1'")
    world.sync(VANG)
    low.sql("UPDATE member SET note = 'y' WHERE id = '1'")
    low.seal()
    whole = stored(low, seq=4)
    assert top.take(whole[2]) == "waiting"
    flip(top, part, stored(top, seq=4))
    top.take(stored(middle, HUE, seq=2)[2])
    assert top.sql("SELECT note FROM member WHERE id = '1'") == [("x",)]
    assert len(top.look(waits_for)) == 1
    assert top.look(waiting)[1][0]["for"] == [say("damaged.cause")]
    assert top.look(left_streams_of) == []
    top.take(whole[2])
    assert top.sql("SELECT note FROM member WHERE id = '1'") == [("y",)]
    assert top.look(waits_for) == []


def left_streams_of(connection: Connection, _context: Context) -> list[dict[str, str]]:
    return left_streams(connection)


def test_what_waits_for_whom_is_told(world: World) -> None:
    node = world.node(HUE)
    _no, digest, _data = stored(node)
    node.sql("DELETE FROM _peer_head")
    named = name(node, digest)
    with node.write() as connection:
        damaged.note(connection, node.context, named)
    assert [each.peers for each in node.look(waits_for)] == [()], "nobody has said that it holds it"


async def test_what_waits_names_the_neighbours_that_hold_it_parent_first(world: World) -> None:
    await session(world, VANG)
    world.node(VANG).sql("UPDATE member SET note = 'x' WHERE id = '1'")
    world.node(VANG).seal()
    await session(world, VANG)
    await session(world, HUE)
    node = world.node(HUE)
    _no, digest, _data = stored(node)
    named = name(node, digest)
    with node.write() as connection:
        damaged.note(connection, node.context, named)
    assert [each.peers for each in node.look(waits_for)] == [(ROOT, VANG)]


def test_a_peer_is_given_back_what_stands_where_it_says_and_nothing_else(world: World) -> None:
    """A hash of another stream, asked for under the name of one that travels, brings nothing."""
    node = world.node(HUE)
    digests = [digest for (digest,) in node.sql("SELECT hash FROM _batch ORDER BY no")]
    mine, other = name(node, stored(node)[1]), next(each for each in digests if each != stored(node)[1])
    with node.read() as connection:
        assert damaged.asked_for(connection, UnitPath(VANG), [mine]) == [mine]
        assert damaged.asked_for(connection, UnitPath(VANG), [replace(mine, hash=other)]) == []


# --- the state machine ---


def test_a_side_that_wants_a_batch_is_in_step_with_nobody_and_asks_before_its_heads() -> None:
    mine = head(CHILD, 3)
    one = Exchange(hello(CHILD, [mine]), {mine.stream: mine}, child=CHILD, peer=PARENT, wanted=(mine,))
    said = one.on_frame(hello(PARENT, []))
    frames = [each.frame for each in said if isinstance(each, Send)]
    assert frames == [Want((mine,)), HeadsFrame((mine,)), Credit(CREDIT_BYTES)]


def test_what_was_asked_for_is_there_when_shipping_begins() -> None:
    mine = head(CHILD, 3)
    other = Exchange(hello(PARENT, [mine]), {mine.stream: mine}, child=CHILD, peer=CHILD)
    other.on_frame(hello(CHILD, []))
    assert other.on_frame(Want((mine,))) == []
    assert any(isinstance(each, Ship) for each in other.on_frame(HeadsFrame((mine,))))
    assert other.wanting.asked == (mine,)
    other.on_sent(head(CHILD, 2), 10, again=True)
    assert other.more({mine.stream: mine}) == (), "its heads have counted it all along"


def test_several_batches_of_one_stream_may_be_wanted() -> None:
    found = decode(encode(Want((head(CHILD, 3), head(CHILD, 4), head(PARENT, 1)))))
    assert isinstance(found, Want)
    assert [(each.stream.origin, each.seq) for each in found.heads] == [(PARENT, 1), (CHILD, 3), (CHILD, 4)]
