"""Two machines of one unit sign at one place of a stream: all that either said is in effect, once, whoever is lost."""

from __future__ import annotations

from node.storage.inbox import Taken
from sync_engine.batch import parse_batch
from sync_engine.frames import ForkProof
from tests.lives import Family, assert_equal, assert_proven

W, D, P, C = "a.phu-vang.hue.vn", "phu-vang.hue.vn", "hue.vn", "vn"
DAY_MS = 86_400_000
LAST = (
    "SELECT data FROM _batch JOIN _stream ON _stream.no = _batch.stream"
    " WHERE origin = ? AND scope = ? ORDER BY _batch.no DESC LIMIT 1"
)


async def sealed_by_copy(family: Family, name: str, **values: str) -> bytes:
    """What a copy of the district's machine seals of an edit; it is never seen again."""
    copy = await family.open(name)
    family.edit(name, D, "1", **values)
    await copy.seal()
    [(data,)] = family.sql(name, LAST, D, D)
    await family.nodes.pop(name).close()
    return bytes(data)


async def test_what_the_branch_that_gives_way_had_seen_the_other_had_not(family: Family) -> None:
    """Two edits of one field, neither of which has seen the other, stay two: with whose branch gave way, too."""
    family.enter(W, W, "1", "Nguyễn Văn An")
    await family.sync(W)
    family.edit(D, W, "1", cell="before")  # names what it has seen: the next one says nothing of it
    await family.rounds(2)
    await family.image(D, "image")
    family.edit(D, W, "1", note="lost")
    await family.sync(D)
    await family.restore(D, "image")
    family.edit(W, W, "1", note="by the commune")
    await family.sync(W)
    family.edit(D, W, "1", home_town="branch")  # it has seen the commune's
    await family.nodes[D].seal()
    await family.rounds(5)
    await assert_equal(family, W)
    for name in (W, D, P, C):
        assert family.sql(name, "SELECT note, home_town FROM member") == [("by the commune", "branch")]
        values = b" ".join(row[0] for row in family.sql(name, "SELECT writes FROM _conflict WHERE field = 'note'"))
        assert b"lost" in values, name
    await assert_proven(family)


async def test_of_a_copied_home_the_parent_certifies_one(family: Family) -> None:
    """Both machines go on, each with edits of its own, and call; what is lost is nothing, who is refused is told."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(D, "copy")
    await family.open("copy")
    family.edit(D, D, "1", note="at the first machine")
    family.edit("copy", D, "1", home_town="at the copy")
    for name in (D, "copy", D, "copy"):
        await family.sync(name)
    family.enter(D, D, "2", "Trần Thị Bình")
    family.enter("copy", D, "3", "Lê Văn Cường")
    for name in (D, "copy", D, "copy", D, "copy"):
        await family.sync(name)
    assert set(family.refused) <= {D}
    await family.rounds(3)
    assert family.frozen() == []
    rows = family.sql(C, "SELECT id, note, home_town FROM member ORDER BY id")
    assert rows[0] == ("1", "at the first machine", "at the copy")
    assert ("3", None, None) in rows or ("3", "", None) in rows
    lives = family.sql(D, "SELECT count(DISTINCT epoch) FROM _stream WHERE origin = ? AND scope = ?", D, D)
    assert lives[0][0] >= 2
    copies = {
        D: family.sql(D, "SELECT count(*) FROM member"),
        "copy": family.sql("copy", "SELECT count(*) FROM member"),
    }
    assert copies[D] == [(3,)], copies


async def test_a_branch_that_a_later_life_has_seen_is_said_again_before_it(family: Family) -> None:
    """In one stream with what had seen it, it would wait at everybody's for what comes after it."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(D, "image")
    family.edit(D, D, "1", note="lost")
    await family.rounds(2)
    await family.restore(D, "image")
    family.edit(D, D, "1", home_town="branch")
    await family.nodes[D].seal()
    await family.nodes[D].begin_life(family.nodes[D].context.epoch)
    family.edit(D, D, "1", cell="later")
    await family.nodes[D].seal()
    await family.rounds(6)
    await assert_equal(family, D)
    for name in (D, P, C):
        rows = family.sql(name, "SELECT note, home_town, cell FROM member")
        assert rows == [("lost", "branch", "later")]
        assert family.sql(name, "SELECT count(*) FROM _batch WHERE state = 'waiting'") == [(0,)]


async def test_a_fork_heals_when_the_machine_that_has_its_other_branch_never_calls_again(family: Family) -> None:
    """Three machines have sealed a batch at one number. The living one has said its own again when it is shown that
    those of the two others stand at one place."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(D, "image")
    await family.image(D, "second")
    family.edit(D, D, "1", note="of the first")
    await family.rounds(2)
    await family.restore(D, "image")
    family.edit(D, D, "1", home_town="of the third")
    await family.nodes[D].seal()
    await family.rounds(3)
    data = await sealed_by_copy(family, "second", cell="of the second")
    parent = family.nodes[P]
    assert (await parent.take(await parent.verify(data))).taken is Taken.FORKED
    family.sql(P, "DELETE FROM _stray")
    assert family.frozen() != []
    family.edit(D, D, "1", note="since")
    await family.rounds(4)
    await assert_equal(family, D)
    for name in (D, P, C):
        assert family.sql(name, "SELECT note, home_town FROM member") == [("since", "of the third")]
    await assert_proven(family)


async def test_a_proof_does_not_tell_how_far_back_two_branches_part(family: Family) -> None:
    """Said again from there on, the earlier batches of the branch would come after what had seen them."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(D, "image")
    for note in ("one", "two"):
        family.edit(D, D, "1", note=note)
        await family.rounds(1)
    [(theirs,)] = family.sql(P, LAST, D, D)
    await family.restore(D, "image")
    node = family.nodes[D]
    for town in ("there", "here"):
        family.edit(D, D, "1", home_town=town)
        await node.seal()
    [(mine,)] = family.sql(D, LAST, D, D)
    first, second = parse_batch(theirs), parse_batch(mine)
    assert first.header.seq == second.header.seq
    await node.take_proof(ForkProof((first.header_bytes, first.signature), (second.header_bytes, second.signature)))
    await family.rounds(5)
    await assert_equal(family, D)
    for name in (D, P, C):
        assert family.sql(name, "SELECT note, home_town FROM member") == [("two", "here")]


async def test_what_parts_further_back_is_said_again_in_a_life_of_its_own(family: Family) -> None:
    """After the later batches of its branch, which have been said again already, it would come too late for them."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(D, "third")
    family.edit(D, D, "1", note="both have it")
    await family.nodes[D].seal()
    await family.image(D, "image")
    family.edit(D, D, "1", phone="lost")
    await family.rounds(2)
    await family.restore(D, "image")
    family.edit(D, D, "1", home_town="branch")
    await family.nodes[D].seal()
    await family.rounds(3)
    data = await sealed_by_copy(family, "third", cell="of the third")
    parent = family.nodes[P]
    assert (await parent.take(await parent.verify(data))).taken is Taken.FORKED
    await family.rounds(5)
    await assert_equal(family, D)
    for name in (D, P):
        rows = family.sql(name, "SELECT note, phone, home_town, cell FROM member")
        assert rows == [("both have it", "lost", "branch", "of the third")]
    await assert_proven(family)


async def test_a_third_branch_that_follows_one_that_has_given_way_is_said_again_too(family: Family) -> None:
    """It stands farther on than what came in that one's place, so nothing here shows that it parts."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(D, "image")
    for note in ("one", "two"):
        family.edit(D, D, "1", note=note)
        await family.nodes[D].seal()
    await family.image(D, "living")
    await family.image(D, "third")
    await family.restore(D, "image")
    family.edit(D, D, "1", home_town="sent by the first")
    await family.rounds(2)
    await family.restore(D, "living")
    await family.rounds(3)
    data = await sealed_by_copy(family, "third", cell="of the third")
    node = family.nodes[D]
    assert (await node.take(await node.verify(data))).taken is Taken.KNOWN
    await family.rounds(4)
    await assert_equal(family, D, P)
    for name in (D, P):
        rows = family.sql(name, "SELECT note, home_town, cell FROM member")
        assert rows == [("two", "sent by the first", "of the third")]
    await assert_proven(family)
