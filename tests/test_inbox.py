"""Taking batches in: what is applied, what waits, and what is refused without a trace.

The province takes batches of its district, made by hand and signed with the district's real key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from conflict.values import Epoch, Head, StreamId, UnitPath
from node.cli.views import told_of_left
from node.storage.engine import execute
from node.storage.inbox import REMAINDER_NOTES, SealFirst, Taken, refuse, take, take_proof
from node.storage.proving import verify
from node.storage.report import left_streams, waiting
from sync_engine.batch import SealedBatch, encode_batch, encode_header, parse_batch, withhold
from sync_engine.errors import (
    BadCertificate,
    BadSignature,
    Malformed,
    OutOfScope,
    RemoteFault,
    RuleBroken,
    WrongTree,
)
from sync_engine.frames import ForkProof
from sync_engine.registry import BUILTIN, Table, parse_registry
from tests.forging import PERSON, Stream, rows
from tests.world import SHIPPED, World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
MEMBER = parse_registry(SHIPPED).tables["member"]
UNIT = BUILTIN["_unit"]


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(name="hue")
def hue_fixture(world: World) -> WorldNode:
    return world.node(HUE)


@pytest.fixture(name="vang")
def vang_fixture(world: World, hue: WorldNode) -> Stream:
    """The district's stream of its own rows; the province knows its certificate."""
    return Stream(world, VANG).certify(hue)


def born(stream: Stream, key: str = "1", time: int = 10, **values: Any) -> SealedBatch:
    return stream.batch(rows(MEMBER, (key, time, {**PERSON, **values}), new=True))


def edit(stream: Stream, key: str = "1", time: int = 20, **values: Any) -> SealedBatch:
    return stream.batch(rows(MEMBER, (key, time, values)))


def everything(node: WorldNode, *, strays: bool = True) -> list[object]:
    """All that a node has stored, but for the numbers it gives to streams that it was asked about; and without what it
    keeps for the origin of a frozen stream."""
    names = [name for (name,) in node.sql("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    ours = [name for name in names if not name.startswith(("sqlite_", "_nfc")) and (strays or name != "_stray")]
    return [node.sql(f"SELECT * FROM {name}") for name in ours if name != "_stream"] + [
        node.sql("SELECT * FROM _stream WHERE held_seq > 0 OR state <> 'open'")
    ]


def notes(node: WorldNode) -> list[Any]:
    return node.sql("SELECT id, note FROM member ORDER BY id")


def left(node: WorldNode) -> list[tuple[str, str]]:
    with node.read() as connection:
        return [(each["stream"], each["state"]) for each in left_streams(connection)]


def waits_for(node: WorldNode) -> tuple[int, list[list[str]]]:
    with node.read() as connection:
        count, reasons = waiting(connection, node.context)
    return count, [each["for"] for each in reasons]


# -- order ----------------------------------------------------------------------------------------------------------


def test_a_batch_taken_twice_changes_nothing(hue: WorldNode, vang: Stream) -> None:
    first, second = born(vang), edit(vang, note="x")
    assert [hue.take(each.data) for each in (first, second)] == [Taken.APPLIED] * 2
    before = everything(hue)
    assert [hue.take(each.data) for each in (first, second, first)] == [Taken.KNOWN] * 3
    assert everything(hue) == before


def test_after_a_gap_nothing_is_taken(hue: WorldNode, vang: Stream) -> None:
    first, second, third = born(vang), edit(vang, note="x"), edit(vang, time=30, note="y")
    hue.take(first.data)
    before = everything(hue)
    assert hue.take(third.data) is Taken.GAP
    assert everything(hue) == before
    assert [hue.take(each.data) for each in (second, third)] == [Taken.APPLIED] * 2
    assert notes(hue) == [("1", "y")]


def test_a_batch_waits_for_what_its_writer_had_seen_and_is_applied_when_that_comes(
    hue: WorldNode, vang: Stream, world: World
) -> None:
    root = Stream(world, ROOT).certify(hue)
    first = born(vang)
    cause = root.batch(rows(MEMBER, ("1", 20, {"note": "root"})), seen=[first.head])
    effect = vang.batch(rows(MEMBER, ("1", 15, {"note": "district"})), seen=[cause.head])
    after = edit(vang, time=30, cell="c")
    assert [hue.take(each.data) for each in (first, effect, after)] == [Taken.APPLIED, Taken.WAITING, Taken.WAITING]
    assert waits_for(hue) == (2, [[f"{cause.head.stream} 1"]])
    assert notes(hue) == [("1", None)]
    assert hue.take(cause.data) is Taken.APPLIED
    assert hue.sql("SELECT note, cell FROM member") == [("district", "c")]
    assert waits_for(hue) == (0, [])


def test_a_batch_waits_for_the_branch_that_its_writer_had_seen(hue: WorldNode, vang: Stream, world: World) -> None:
    root = Stream(world, ROOT).certify(hue)
    hue.take(born(vang).data)
    seen = root.batch(rows(MEMBER, ("1", 20, {"note": "one life"})), keep=False)
    held = root.batch(rows(MEMBER, ("1", 20, {"note": "another life"})), keep=False)
    hue.take(held.data)
    effect = vang.batch(rows(MEMBER, ("1", 30, {"note": "late"})), seen=[seen.head])
    assert hue.take(effect.data) is Taken.WAITING


def test_a_batch_of_a_registry_version_that_has_not_come_waits_and_is_kept_as_it_is(
    hue: WorldNode, vang: Stream
) -> None:
    first, later = born(vang), vang.batch(rows(MEMBER, ("1", 20, {"note": "x"})), registry_version=(2, b"2" * 32))
    hue.take(first.data)
    assert hue.take(later.data) is Taken.WAITING
    assert waits_for(hue) == (1, [["registry version 2 (it has not come yet)"]])
    assert hue.sql("SELECT data FROM _batch WHERE state = 'waiting'") == [(later.data,)]


def test_another_registry_under_a_known_number_is_waited_for_too(hue: WorldNode, vang: Stream) -> None:
    other = vang.batch(rows(MEMBER, ("1", 10, PERSON), new=True), registry_version=(1, b"1" * 32))
    assert hue.take(other.data) is Taken.WAITING


def test_a_stream_does_not_go_back_to_an_older_registry(hue: WorldNode, vang: Stream) -> None:
    hue.take(born(vang).data)
    section = rows(UNIT, ("-", 10, {"name": "x"}), new=True)
    older = vang.batch(section, registry_version=(0, sha256(b"").digest()))
    assert hue.take(older.data) is Taken.FROZEN
    assert left(hue) == [(str(vang.id), "refused")]


# -- refused --------------------------------------------------------------------------------------------------------


def test_without_its_origins_certificate_a_batch_is_not_looked_at(world: World, hue: WorldNode) -> None:
    with pytest.raises(BadCertificate):
        hue.take(born(Stream(world, VANG)).data)


def wrong_tree(stream: Stream) -> SealedBatch:
    return stream.batch(rows(MEMBER, ("1", 10, PERSON), new=True), tree_id=b"x" * 32)


def as_stream(origin: str, scope: str) -> Callable[[Stream], SealedBatch]:
    def made(stream: Stream) -> SealedBatch:
        return born(Stream(stream.world, origin, scope))

    return made


def spoiled(stream: Stream) -> SealedBatch:
    good = born(stream)
    return parse_batch(
        encode_batch(good.header_bytes, bytes([good.signature[0] ^ 1]) + good.signature[1:], good.chunks)
    )


def longer_header(stream: Stream) -> SealedBatch:
    good = born(stream)
    return parse_batch(encode_batch(good.header_bytes + b"\xfa\x07\x00", good.signature, good.chunks))


def other_chunk(stream: Stream) -> SealedBatch:
    good, other = born(stream), born(stream, key="2")
    return parse_batch(encode_batch(good.header_bytes, good.signature, other.chunks))


def by_another(stream: Stream) -> SealedBatch:
    header, chunks = stream.header([rows(MEMBER, ("1", 10, PERSON), new=True)])
    return Stream(stream.world, "huong-tra.hue.vn").sign(encode_header(header), chunks)


def stripped(stream: Stream) -> SealedBatch:
    return parse_batch(withhold(born(stream, note="x"), lambda table, column: column != "note"))


def keyless(stream: Stream) -> SealedBatch:
    return parse_batch(withhold(born(stream), lambda table, column: column != "_time"))


def seen_impossible(stream: Stream) -> SealedBatch:
    elsewhere = Head(StreamId(UnitPath("da-nang.vn"), Epoch("0" * 16), stream.id.scope), 1, b"h" * 32)
    return stream.batch(rows(MEMBER, ("1", 10, PERSON), new=True), seen=[elsewhere])


REFUSED: dict[str, tuple[Callable[[Stream], SealedBatch], type[RemoteFault]]] = {
    "of another tree": (wrong_tree, WrongTree),
    "of a scope outside the path": (as_stream("da-nang.vn", "da-nang.vn"), OutOfScope),
    "of a sibling in this scope": (as_stream("huong-tra.hue.vn", VANG), OutOfScope),
    "of a district in its province's rows": (as_stream(VANG, HUE), OutOfScope),
    "of a district in another's catalogue": (as_stream(VANG, "hue.vn/catalog"), OutOfScope),
    "with a signature that is none": (spoiled, BadSignature),
    "with a byte more in the header": (longer_header, BadSignature),
    "with another batch's chunks": (other_chunk, BadSignature),
    "signed by a sibling": (by_another, BadSignature),
    "with a chunk left out that this level may read": (stripped, BadSignature),
    "with a chunk left out that is never withheld": (keyless, BadSignature),
    "that has seen what cannot be": (seen_impossible, Malformed),
}


@pytest.mark.parametrize(("make", "fault"), REFUSED.values(), ids=REFUSED)
def test_a_batch_is_refused_without_a_trace(
    hue: WorldNode, vang: Stream, make: Callable[[Stream], SealedBatch], fault: type[RemoteFault]
) -> None:
    before = everything(hue)
    with pytest.raises(fault):
        hue.take(make(vang).data)
    assert everything(hue) == before


def bad_rows(table: Table, name: str, value: Any) -> Callable[[Stream], SealedBatch]:
    return lambda stream: stream.batch(rows(table, ("1", 10, {**PERSON, name: value}), new=True))


RULES = {
    "text that is not NFC": bad_rows(MEMBER, "note", "a\u0301"),
    "a table of another scope": lambda stream: stream.batch(
        rows(replace(MEMBER, name="catalog"), ("1", 10, {"note": "x"}))
    ),
    "two sections for one table": lambda stream: stream.batch(
        rows(MEMBER, ("1", 10, PERSON), new=True), rows(MEMBER, ("2", 10, PERSON), new=True)
    ),
}


@pytest.mark.parametrize("make", RULES.values(), ids=RULES)
def test_a_signed_batch_that_breaks_a_rule_ends_its_stream_and_no_other(
    hue: WorldNode, vang: Stream, world: World, make: Callable[[Stream], SealedBatch]
) -> None:
    with pytest.raises(RuleBroken) as caught:
        hue.take(make(vang).data)
    with hue.write() as connection:
        refuse(connection, caught.value)
    assert left(hue) == [(str(vang.id), "refused")]
    again = Stream(world, VANG)
    assert hue.take(born(again).data) is Taken.FROZEN
    root = Stream(world, ROOT).certify(hue)
    assert hue.take(born(root, note="root").data) is Taken.APPLIED


# -- forks and lost history ------------------------------------------------------------------------------------------


def test_two_batches_at_one_number_freeze_that_stream_and_the_proof_is_kept(
    hue: WorldNode, vang: Stream, world: World
) -> None:
    first = born(vang)
    one = vang.batch(rows(MEMBER, ("1", 20, {"note": "one"})), keep=False)
    other = vang.batch(rows(MEMBER, ("1", 20, {"note": "other"})))
    for each in (first, one):
        hue.take(each.data)
    assert hue.take(other.data) is Taken.FORKED
    assert hue.take(edit(vang, time=30, note="after").data) is Taken.FROZEN
    proof = hue.sql("SELECT first_header, first_signature, second_header, second_signature FROM _fork")
    assert proof == [(one.header_bytes, one.signature, other.header_bytes, other.signature)]
    assert notes(hue) == [("1", "one")]
    assert left(hue) == [(str(vang.id), "frozen")]
    (told,) = hue.look(lambda connection, _context: left_streams(connection))
    assert told_of_left(told).startswith(f"What {VANG} signs is frozen: two batches at number 2")
    assert "whether two machines run; see docs/trust.md, A copy" in told_of_left(told)
    root = Stream(world, ROOT).certify(hue)
    seen = [first.head, one.head]
    assert hue.take(root.batch(rows(MEMBER, ("1", 30, {"note": "root"})), seen=seen[1:]).data) is Taken.APPLIED
    assert notes(hue) == [("1", "root")]


def test_a_batch_that_follows_another_one_than_is_held_freezes_the_stream(hue: WorldNode, vang: Stream) -> None:
    hue.take(born(vang).data)
    vang.last = None
    born(vang, note="another life")
    assert hue.take(edit(vang, note="y").data) is Taken.FORKED
    assert left(hue) == [(str(vang.id), "frozen")]


def test_a_proof_that_is_passed_on_freezes_the_stream_and_is_kept(hue: WorldNode, vang: Stream) -> None:
    hue.take(born(vang).data)
    with hue.write() as connection:
        assert take_proof(connection, hue.context, fork_of(vang)) is Taken.FORKED
    assert left(hue) == [(str(vang.id), "frozen")]
    assert hue.sql("SELECT count(*) FROM _fork") == [(1,)]


def test_a_frozen_stream_goes_on_to_where_it_is_proven_to_part(hue: WorldNode, vang: Stream) -> None:
    """What its origin says again may have been sealed after that."""
    first, second, third = born(vang), edit(vang, note="two"), edit(vang, note="three")
    hue.take(first.data)
    proof = fork_of(vang)  # at number 4
    with hue.write() as connection:
        take_proof(connection, hue.context, proof)
    assert [hue.take(each.data) for each in (second, third)] == [Taken.APPLIED] * 2
    other, after = vang.last, edit(vang, note="after")
    assert other is not None
    assert [hue.take(each.data) for each in (other, after)] == [Taken.FROZEN] * 2
    assert left(hue) == [(str(vang.id), "frozen")]
    # for their origin: these may be the only copies
    assert hue.sql("SELECT hash FROM _stray ORDER BY seq") == [(other.head.hash,), (after.head.hash,)]


def test_a_proof_of_a_fork_of_its_own_tells_a_node_that_it_lost_history(hue: WorldNode, world: World) -> None:
    proof = fork_of(Stream(world, HUE))
    with hue.write() as connection:
        assert take_proof(connection, hue.context, proof) is Taken.OWN
    hue.context.epoch = Epoch("f" * 16)  # a new life
    with hue.write() as connection:
        assert take_proof(connection, hue.context, proof) is Taken.KNOWN
    assert left(hue) == []


@pytest.mark.parametrize("what", ["signed by another", "one batch twice", "two places"])
def test_what_proves_no_fork_is_held_against_nobody(hue: WorldNode, vang: Stream, what: str) -> None:
    hue.take(born(vang).data)
    proof = fork_of(vang)
    if what == "signed by another":
        proof = ForkProof(proof.first, (proof.second[0], proof.first[1]))
    elif what == "one batch twice":
        proof = ForkProof(proof.first, proof.first)
    else:
        later = edit(vang, note="z")
        proof = ForkProof(proof.first, (later.header_bytes, later.signature))
    with hue.write() as connection, pytest.raises(RemoteFault):
        take_proof(connection, hue.context, proof)
    assert left(hue) == []


def fork_of(stream: Stream) -> ForkProof:
    """Two batches that its origin signed at one place."""
    one = stream.batch(rows(MEMBER, ("1", 40, {"note": "one"})), keep=False)
    other = stream.batch(rows(MEMBER, ("1", 40, {"note": "other"})))
    return ForkProof((one.header_bytes, one.signature), (other.header_bytes, other.signature))


def test_a_batch_of_its_own_that_a_node_does_not_have_is_taken_in_another_life(hue: WorldNode, world: World) -> None:
    mine = Stream(world, HUE)
    lost = born(mine)
    assert hue.take(lost.data) is Taken.OWN
    assert hue.sql("SELECT count(*) FROM member") == [(0,)]
    hue.context.epoch = Epoch("f" * 16)
    assert hue.take(lost.data) is Taken.APPLIED
    assert hue.sql("SELECT count(*) FROM member") == [(1,)]


# -- what is pending is sealed first --------------------------------------------------------------------------------


@pytest.mark.parametrize("edits", [1, REMAINDER_NOTES, REMAINDER_NOTES + 1])
def test_pending_edits_are_sealed_before_anything_foreign_is_applied(hue: WorldNode, vang: Stream, edits: int) -> None:
    people = [(str(number), 10, {**PERSON, "note": "old"}) for number in range(edits)]
    hue.take(vang.batch(rows(MEMBER, *people, new=True)).data)
    hue.sql("UPDATE member SET note = 'mine'")
    assert hue.take(edit(vang, "0", time=20, note="theirs").data) is Taken.APPLIED
    assert hue.sql("SELECT * FROM _pending") == []
    own = [parse_batch(data).header for (data,) in hue.sql("SELECT data FROM _batch")]
    (sealed,) = [each for each in own if (each.stream.origin, each.stream.scope) == (HUE, VANG)]
    assert [head.seq for head in sealed.seen_delta] == [1], "it had not seen what came after it"
    conflicts = hue.sql("SELECT DISTINCT field, state FROM _conflict WHERE live = 1")
    assert conflicts == [("note", "settled")]


def test_too_much_pending_is_never_sealed_inside_the_applying_transaction(hue: WorldNode, vang: Stream) -> None:
    people = [(str(number), 10, PERSON) for number in range(REMAINDER_NOTES + 1)]
    hue.take(vang.batch(rows(MEMBER, *people, new=True)).data)
    hue.sql("UPDATE member SET note = 'mine'")
    with hue.read() as connection:
        verified = verify(connection, hue.context, edit(vang, "0", note="theirs").data)
    before = everything(hue)
    with pytest.raises(SealFirst), hue.write() as connection:
        take(connection, hue.context, verified)
    assert everything(hue) == before


def test_pending_edits_are_sealed_before_a_waiting_batch_is_applied(hue: WorldNode, vang: Stream, world: World) -> None:
    root = Stream(world, ROOT).certify(hue)
    first = born(vang)
    cause = root.batch(rows(MEMBER, ("1", 20, {"cell": "c"})), seen=[first.head])
    effect = vang.batch(rows(MEMBER, ("1", 15, {"note": "theirs"})), seen=[cause.head])
    hue.take(first.data)
    assert hue.take(effect.data) is Taken.WAITING
    hue.sql("UPDATE member SET note = 'mine'")
    hue.take(cause.data)
    assert hue.sql("SELECT field FROM _conflict") == [("note",)]
    with hue.read() as connection:
        assert execute(connection, "SELECT count(*) FROM _pending").scalar() == 0
