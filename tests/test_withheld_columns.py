"""Batches that a relay stripped of columns: whether they are whole can only be told by their registry version."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from conflict.values import Epoch
from node.cli import main as cli
from node.cli import proof as proof_cli
from node.storage.certificates import keep_path
from node.storage.inbox import Taken, take
from node.storage.lost import say_lost
from node.storage.outbox import for_peer, sendable
from node.storage.peers import note_success
from node.storage.proving import verify
from node.storage.statements import keep, said
from sync_engine.batch import SealedBatch, encode_batch, parse_batch
from sync_engine.errors import BadSignature, NotYet
from sync_engine.registry import parse_registry
from sync_engine.statements import LOST
from tests.forging import PERSON, Stream, rows
from tests.test_mixed_versions import PRIVATE, by_hand, of_version, waits_for
from tests.test_registry_change import AWARDS, publish
from tests.test_sealing import insert
from tests.world import World

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"


def without(batch: SealedBatch, *names: str) -> bytes:
    """The batch as a relay passes it on that leaves columns out."""
    kept = tuple(
        {at: data for at, data in section.items() if described.columns[at].name not in names}
        for section, described in zip(batch.chunks, batch.header.sections, strict=True)
    )
    return encode_batch(batch.header_bytes, batch.signature, kept)


def test_a_stripped_batch_is_not_taken_before_its_version_tells_what_it_may_lack(world: World) -> None:
    root = world.node(ROOT)
    newer, stream = of_version(PRIVATE, world, root)
    made = stream.batch(rows(newer.tables["member"], ("1", 10, {**PERSON, "nick_name": "Út", "note": "x"}), new=True))
    stored = root.sql("SELECT count(*) FROM _batch")
    for lacking in ("note", "nick_name"):
        with pytest.raises(NotYet, match="registry version 2 must be here"):
            root.take(without(made, lacking))
    assert root.sql("SELECT count(*) FROM _batch") == stored
    assert root.sql("SELECT state, held_seq FROM _stream WHERE epoch = '00000000000000ff'") == []
    publish(world, PRIVATE)
    with pytest.raises(BadSignature):
        root.take(without(made, "note"))
    assert root.take(without(made, "nick_name")) is Taken.APPLIED
    assert root.sql("SELECT note, nick_name FROM member") == [("x", None)]


def test_a_whole_batch_is_kept_before_its_version_comes_by_those_who_may_read_it_whatever_it_is(world: World) -> None:
    hue, root = world.node(HUE), world.node(ROOT)
    newer, stream = of_version(AWARDS, world, hue)
    stream.certify(root)
    made = stream.batch(rows(newer.tables["member"], ("1", 10, {**PERSON, "nick_name": "Út"}), new=True))
    assert hue.take(made.data) is Taken.WAITING
    assert waits_for(hue) == (1, {"registry version 2 (it has not come yet)"})
    with pytest.raises(NotYet, match="registry version 2 must be here"):
        root.take(made.data)
    publish(world)
    world.sync(HUE)
    world.sync(HUE)
    for node in (hue, root):
        assert node.sql("SELECT nick_name FROM member") == [("Út",)]


def test_a_session_goes_on_without_a_stream_that_cannot_be_judged(world: World) -> None:
    hue, root = world.node(HUE), world.node(ROOT)
    newer, stream = of_version(PRIVATE, world, hue, root)
    made = stream.batch(rows(newer.tables["member"], ("1", 10, {**PERSON, "nick_name": "Út"}), new=True))
    hue.take(made.data)
    hue.context.registries[2] = newer  # a relay that knows the version, to a parent that does not
    insert(hue, "2")
    world.sync(HUE)
    assert root.sql("SELECT id FROM member") == [("2",)]
    assert root.sql("SELECT count(*) FROM _batch WHERE hash = ?", made.head.hash) == [(0,)]
    assert root.sql("SELECT state FROM _stream WHERE state <> 'open'") == []
    del hue.context.registries[2]
    publish(world, PRIVATE)
    for _ in range(2):
        world.sync(HUE)
    assert root.sql("SELECT id, nick_name FROM member ORDER BY id") == [("1", None), ("2", None)]
    assert hue.sql("SELECT id, nick_name FROM member ORDER BY id") == [("1", "Út"), ("2", None)]


def test_a_version_that_is_here_and_not_in_force_judges(world: World) -> None:
    hue = by_hand(world, HUE)
    publish(world, PRIVATE)
    world.settle(2)
    newer, stream = of_version(PRIVATE, world, hue)
    made = stream.batch(rows(newer.tables["member"], ("1", 10, {**PERSON, "nick_name": "Út", "note": "x"}), new=True))
    with pytest.raises(BadSignature):
        hue.take(without(made, "note"))
    assert hue.take(made.data) is Taken.WAITING
    with hue.read() as connection:
        assert sendable(connection, hue.context, ROOT, made) == without(made, "nick_name")


@pytest.mark.parametrize(("peer", "goes"), [(ROOT, False), (VANG, True)])
def test_a_relay_that_cannot_judge_sends_whole_batches_or_none(world: World, peer: str, goes: bool) -> None:
    hue = world.node(HUE)
    newer, stream = of_version(AWARDS, world, hue)
    made = stream.batch(rows(newer.tables["member"], ("1", 10, {**PERSON, "nick_name": "Út"}), new=True))
    hue.take(made.data)
    with hue.read() as connection:
        assert sendable(connection, hue.context, peer, made) == (made.data if goes else None)
        left = parse_batch(for_peer(connection, hue.context, peer, made)).chunks[0]
    assert {made.header.sections[0].columns[at].name for at in left} >= {"id", "_identity", "_time", "_new"}


@pytest.mark.parametrize(("withheld", "lines"), [(0, 2), (1234, 3)])
def test_verify_tells_people_how_many_chunks_are_withheld(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, withheld: int, lines: int
) -> None:
    nothing = {name: [] for name in ("bad", "scopes", "rows", "unproven", "capture", "database", "wanted", "alarms")}
    proof = {"ok": True, "batches": 3, "compared": 0, "withheld": withheld, **nothing}
    monkeypatch.setattr(proof_cli, "execute", lambda *_arguments: proof)
    said = CliRunner().invoke(cli.main, ["verify", "--home", str(tmp_path)]).output.splitlines()
    assert len(said) == lines
    if withheld:
        assert said[1].startswith("Chunks of columns that are not here because this level may not read them: 1.234.")


def test_what_a_relay_should_have_left_out_comes_near_no_disk(world: World) -> None:
    """The whole batch, signed by its origin, in the hands of one who may not read all of it."""
    root = world.node(ROOT)
    insert(world.node(VANG), phone="~a phone~", note="open")
    world.node(VANG).seal()
    world.sync("hue.vn")
    assert root.sql("SELECT count(*) FROM member") == [(0,)]
    ((data,),) = world.node(VANG).sql(
        "SELECT data FROM _batch JOIN _stream ON _stream.no = stream WHERE origin = ? ORDER BY seq DESC LIMIT 1", VANG
    )
    with root.write() as connection:
        keep_path(connection, world.tree.node(VANG).path, world.tree.tree_id)
    assert root.take(data) is Taken.APPLIED
    assert root.sql("SELECT phone, note FROM member") == [(None, "open")]
    assert all(b"~a phone~" not in file.read_bytes() for file in world.folder.glob(f"{ROOT}.db*"))
    ((kept,),) = root.sql("SELECT data FROM _batch ORDER BY no DESC LIMIT 1")
    assert len(kept) < len(data)


def test_what_its_origin_calls_lost_may_be_missing_and_nothing_else(world: World) -> None:
    low, top = world.node(VANG), world.node(HUE)
    insert(low, "1", note="x", phone="0901")
    low.seal()
    [(data,)] = low.sql("SELECT data FROM _batch ORDER BY no DESC LIMIT 1")
    batch = parse_batch(data)
    names = {column.name: column.sha256 for section in batch.header.sections for column in section.columns}
    with pytest.raises(BadSignature, match="left out"):
        top.take(without(batch, "note"))
    with low.write() as connection:
        say_lost(connection, low.context, batch, [names["note"]])
        say_lost(connection, low.context, batch, [names["note"]])
        [kept] = said(connection, LOST)
    with top.write() as connection:
        keep(connection, top.context, kept.statement)
    for more in (("note", "phone"), ("phone",)):
        with pytest.raises(BadSignature, match="left out"):
            top.take(without(batch, *more))
    assert top.take(without(batch, "note")) is Taken.APPLIED
    assert top.sql("SELECT note, phone FROM member") == [(None, "0901")]


def test_what_was_judged_in_one_life_is_not_taken_in_the_next(world: World) -> None:
    """The child whose rows these are was met in the life before: it may have sent the batch whole, too early."""
    hue = world.node(HUE)
    mine = Stream(world, HUE)
    made = mine.batch(
        rows(parse_registry(world.registry).tables["member"], ("1", 10, {**PERSON, "phone": "0901"}), new=True)
    )
    hue.context.epoch = Epoch("f" * 16)
    with hue.write() as connection:
        note_success(connection, VANG, 1, hue.context.epoch)
        verified = verify(connection, hue.context, without(made, "phone"), ROOT)
        assert verified.lacks
        assert not verified.may_come_whole
    hue.context.epoch = Epoch("e" * 16)
    with hue.write() as connection:
        assert take(connection, hue.context, verified).taken is Taken.GAP
