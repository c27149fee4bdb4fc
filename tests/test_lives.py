"""Restored, copied and lost nodes heal: nothing that either life sealed is lost, and all become equal again."""

from __future__ import annotations

import pytest

from node.cli.views import attention
from node.commands.state import status
from sync_engine.errors import LinkFault
from tests.lives import CutAfterHeads, Family, assert_equal, assert_proven

W, D, P, C = "a.phu-vang.hue.vn", "phu-vang.hue.vn", "hue.vn", "vn"
DAY_MS = 86_400_000
LAST = (
    "SELECT data FROM _batch JOIN _stream ON _stream.no = _batch.stream"
    " WHERE origin = ? AND scope = ? ORDER BY _batch.no DESC LIMIT 1"
)


async def test_a_restored_child_gets_its_history_back(family: Family) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An", note="one")
    await family.rounds(2)
    await family.image(D, "image")
    family.edit(D, D, "1", note="two")
    family.enter(D, D, "2", "Trần Thị Bình")
    await family.rounds(2)
    await family.restore(D, "image")
    assert family.sql(D, "SELECT count(*) FROM member") == [(1,)]
    await family.rounds(3)
    await assert_equal(family, D, P)
    assert family.sql(D, "SELECT id, note FROM member ORDER BY id") == [("1", "two"), ("2", "")]
    family.edit(D, D, "2", note="three")
    await family.rounds(3)
    await assert_equal(family, D)
    assert family.sql(C, "SELECT note FROM member WHERE id = '2'") == [("three",)]


async def test_what_a_restored_child_sealed_before_it_knew_is_said_again(family: Family) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An", note="one")
    await family.rounds(2)
    await family.image(D, "image")
    for value in ("two", "three"):
        family.edit(D, D, "1", note=value)
        await family.rounds(1)
    await family.rounds(1)
    await family.restore(D, "image")
    family.edit(D, D, "1", phone="0901")  # both lives say something
    await family.nodes[D].seal()
    family.enter(D, D, "2", "Trần Thị Bình")
    await family.nodes[D].seal()
    family.edit(D, D, "2", note="pending")
    await family.rounds(5)
    await assert_equal(family, D, P)
    for name in (D, P, C):
        phone = None if name == C else "0901"  # not for that level to read
        assert family.sql(name, "SELECT note, phone FROM member ORDER BY id")[0] == ("three", phone)
        assert family.sql(name, "SELECT note FROM member ORDER BY id")[1] == ("pending",)
    await assert_proven(family)


async def test_a_restored_child_that_sealed_more_than_it_lost_stops_as_soon_as_it_is_told(family: Family) -> None:
    """Its stream is the longer one: at the parent's number another batch stands."""
    family.enter(D, D, "1", "Nguyễn Văn An", note="one")
    await family.rounds(2)
    await family.image(D, "image")
    family.edit(D, D, "1", note="two")
    await family.sync(D)
    await family.restore(D, "image")
    left = family.nodes[D].context.epoch
    for phone in ("0901", "0902"):
        family.edit(D, D, "1", phone=phone)
        await family.nodes[D].seal()
    with pytest.raises(LinkFault):
        await family.sync(D, line=CutAfterHeads)
    assert family.nodes[D].context.epoch != left
    await family.rounds(5)
    await assert_equal(family, D, P)
    for name in (D, P):
        assert family.sql(name, "SELECT note, phone FROM member") == [("two", "0902")]
    await assert_proven(family)


async def test_a_restored_parent_gets_everything_again_from_above_and_below(family: Family) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(P, "image")
    family.enter(D, D, "2", "Trần Thị Bình", note="from below")
    family.edit(P, D, "1", note="by the province")
    family.sql(P, "INSERT INTO catalog (unit, id, kind, code, label, sort) VALUES (?, 'x', 'job', 'p-1', 'X', 1)", P)
    await family.rounds(2)
    await family.restore(P, "image")
    family.edit(P, D, "1", home_town="sealed before it knew")
    await family.nodes[P].seal()
    family.edit(P, D, "1", note="pending")
    await family.rounds(6)
    await assert_equal(family, D, P, P + "/catalog")
    for name in (D, P, C):
        assert family.sql(name, "SELECT note FROM member WHERE id = '2'") == [("from below",)]
        assert family.sql(name, "SELECT home_town FROM member WHERE id = '1'") == [("sealed before it knew",)]
    values = b" ".join(row[0] for row in family.sql(D, "SELECT writes FROM _conflict WHERE field = 'note'"))
    assert b"by the province" in values
    assert b"pending" in values


async def test_child_and_parent_restored_together(family: Family) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An", note="0")
    await family.rounds(2)
    await family.image(P, "image-p")
    await family.image(D, "image-d")
    family.edit(D, D, "1", note="1")
    family.edit(P, D, "1", home_town="1")
    family.enter(W, W, "w", "Lê Văn Cường")
    await family.rounds(3)
    await family.restore(P, "image-p")
    await family.restore(D, "image-d")
    family.edit(D, D, "1", cell="c")
    await family.nodes[D].seal()
    family.enter(P, D, "2", "Trần Thị Bình")
    await family.nodes[P].seal()
    await family.rounds(8)
    await assert_equal(family, D, W, P)
    for name in (D, P, C):
        rows = family.sql(name, "SELECT note, home_town, cell FROM member WHERE id = '1'")
        assert rows == [("1", "1", "c")]
        assert family.sql(name, "SELECT count(*) FROM member") == [(3,)]
    await assert_proven(family)


async def test_the_root_restored_certifies_itself_and_gets_everything_again(family: Family) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(C, "image")
    family.edit(C, D, "1", note="by the centre")
    family.enter(D, D, "2", "Trần Thị Bình")
    await family.rounds(2)
    await family.restore(C, "image")
    family.edit(C, D, "1", home_town="sealed anew")
    await family.nodes[C].seal()
    await family.rounds(6)
    await assert_equal(family, D, P)
    assert family.sql(C, "SELECT note, home_town FROM member WHERE id = '1'") == [("by the centre", "sealed anew")]
    assert family.sql(W, "SELECT count(*) FROM catalog WHERE unit = 'vn'")[0][0] > 10


async def test_a_lost_disk_is_rebuilt_from_the_parent(family: Family) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An", phone="0901")
    family.enter(W, W, "2", "Trần Thị Bình")
    family.edit(D, D, "1", note="two")
    await family.rounds(3)
    await family.lose(D)
    await family.rounds(4)
    await assert_equal(family, D, W)
    assert family.sql(D, "SELECT phone, note FROM member WHERE id = '1'") == [("0901", "two")]
    family.edit(D, D, "1", note="three")
    await family.rounds(3)
    assert family.sql(C, "SELECT note FROM member WHERE id = '1'") == [("three",)]


async def test_three_disasters_in_a_row(family: Family) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    for disaster in range(3):
        await family.image(D, f"image-{disaster}")
        family.edit(D, D, "1", note=f"lost {disaster}")
        await family.rounds(2)
        await family.restore(D, f"image-{disaster}")
        family.enter(D, D, f"new {disaster}", f"Người Thứ {disaster}")
        await family.nodes[D].seal()
        await family.rounds(4)
    await family.rounds(3)
    await assert_equal(family, D)
    assert family.sql(C, "SELECT count(*) FROM member") == [(4,)]
    assert family.sql(D, "SELECT note FROM member WHERE id = '1'") == [("lost 2",)]


async def test_an_edit_that_two_lives_sealed_is_one(family: Family) -> None:
    """Pending in the image, sealed in the first life, superseded by the province, and sealed again in the second."""
    family.enter(D, D, "1", "Nguyễn Văn An", note="0")
    await family.rounds(2)
    family.edit(D, D, "1", note="pending in the image")
    await family.image(D, "image")
    await family.rounds(2)
    family.edit(P, D, "1", note="the province knew better")
    await family.rounds(2)
    await family.restore(D, "image")
    await family.rounds(5)
    await assert_equal(family, D)
    for name in (D, P, C):
        assert family.sql(name, "SELECT note FROM member WHERE id = '1'") == [("the province knew better",)]
        assert family.sql(name, "SELECT count(*) FROM _conflict WHERE live = 1") == [(0,)]
    await assert_proven(family)


async def test_whoever_saw_an_edit_has_not_seen_another_that_has_its_time(family: Family) -> None:
    """Entered by a clock that ran ahead; edited in the second life by one that no longer does, so both are one entry
    at one time, and more than the province had seen when it deleted the row."""
    await family.rounds(2)
    family.enter(D, D, "1", "Nguyễn Văn An")
    family.sql(D, "UPDATE _pending SET first = first + ?, last = last + ?", *[DAY_MS << 16] * 2)
    await family.image(D, "image")
    await family.rounds(2)
    family.sql(P, "DELETE FROM member WHERE id = '1'")
    await family.rounds(2)
    await family.restore(D, "image")
    family.edit(D, D, "1", note="since the image")
    await family.rounds(5)
    await assert_equal(family, D)
    for name in (D, P, C):
        assert family.sql(name, "SELECT note FROM member") == [("since the image",)]
        assert family.sql(name, "SELECT state FROM _conflict WHERE live = 1 AND field = '_alive'") == [("open",)]
    await assert_proven(family)
    family.edit(D, D, "1", note="seen by all")
    await family.rounds(2)
    assert family.sql(C, "SELECT note FROM member") == [("seen by all",)]
    await assert_equal(family, D)


async def test_an_edit_that_two_lives_sealed_is_one_whatever_was_sealed_with_it(family: Family) -> None:
    """A batch leaves out a column that none of its rows fills: beside another row the same one says nothing there."""
    await family.rounds(2)
    family.sql(D, "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, '1', 'An', '1950', 'nam')", D)
    await family.image(D, "image")
    await family.rounds(2)
    family.sql(P, "DELETE FROM member WHERE id = '1'")
    await family.rounds(2)
    await family.restore(D, "image")
    family.enter(D, D, "2", "Trần Thị Bình", note="fills a column")
    await family.rounds(5)
    await assert_equal(family, D)
    for name in (D, P, C):
        assert family.sql(name, "SELECT id FROM member") == [("2",)]
        assert family.sql(name, "SELECT count(*) FROM _conflict WHERE live = 1") == [(0,)]
    await assert_proven(family)


async def test_columns_that_nobody_else_may_read_are_lost_with_the_disk_and_nothing_else_is(family: Family) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.image(P, "image")
    family.edit(P, D, "1", phone="0909")
    family.edit(P, D, "1", note="by the province")
    await family.nodes[P].seal()
    await family.sync(P)  # to the centre, which may not read telephone numbers, and not to the district
    await family.restore(P, "image")
    family.edit(P, D, "1", home_town="branch")
    await family.nodes[P].seal()
    await family.rounds(6)
    await assert_equal(family, D)
    for name in (D, P):
        rows = family.sql(name, "SELECT note, home_town, phone FROM member")
        assert rows == [("by the province", "branch", "")]


async def test_a_column_that_the_level_above_may_not_read_comes_back_from_the_child(family: Family) -> None:
    """The centre has the province's edit without the telephone number, and is met first; the district has all of it."""
    family.enter(D, D, "1", "Nguyễn Văn An", phone="0901")
    await family.rounds(2)
    await family.image(P, "image")
    family.edit(P, D, "1", phone="0902")
    family.enter(P, D, "2", "Trần Thị Bình", phone="0903")
    await family.rounds(2)
    await family.restore(P, "image")
    for _ in range(3):  # the life begins, is certified, and takes what it may
        await family.sync(P)
    assert family.sql(P, "SELECT id, phone FROM member ORDER BY id") == [("1", "0901")], "not without its column"
    await family.rounds(4)
    await assert_equal(family, D)
    assert family.sql(P, "SELECT id, phone FROM member ORDER BY id") == [("1", "0902"), ("2", "0903")]
    await assert_proven(family)


async def test_an_operator_reads_who_has_not_been_spoken_with_since(family: Family) -> None:
    async def read() -> list[str]:
        told = await status(family.nodes[P], {"brief": True}, lambda _progress: None)
        return [line for line in attention(told) if "Since then" in line]

    await family.rounds(2)
    await family.image(P, "image")
    family.enter(P, D, "1", "Nguyễn Văn An")
    await family.rounds(2)
    await family.restore(P, "image")
    assert await read() == [], "nothing is known yet of what was lost"
    await family.sync(P)
    [line] = await read()
    assert D in line
    assert "revoke it" in line
    await family.rounds(2)
    assert await read() == []


async def test_what_is_lost_is_lost_two_levels_down_as_well_and_holds_nothing_up(family: Family) -> None:
    """The commune gets from the district, not from its origin, what the province took back without a column."""
    family.enter(W, W, "1", "Nguyễn Văn An", phone="0901")
    await family.rounds(3)
    await family.image(P, "image")
    family.edit(P, W, "1", phone="0902")
    family.edit(P, W, "1", note="by the province")
    await family.nodes[P].seal()
    await family.sync(P)
    await family.restore(P, "image")
    family.edit(P, W, "1", home_town="branch")
    await family.nodes[P].seal()
    await family.rounds(6)
    await assert_equal(family, W)
    for name in (W, D, P):
        rows = family.sql(name, "SELECT note, home_town, phone FROM member")
        assert rows == [("by the province", "branch", "0901")]
    await assert_proven(family)


async def test_what_only_the_centre_still_has_of_a_district_comes_back_without_what_it_may_not_read(
    family: Family,
) -> None:
    """District and province are restored; the province passes on to the district what it may not merge yet itself."""
    family.enter(D, D, "1", "Nguyễn Văn An", phone="0901")
    await family.rounds(2)
    await family.image(P, "province")
    await family.image(D, "district")
    for note in ("one", "two"):
        family.edit(D, D, "1", phone="0902", note=note)
        await family.nodes[D].seal()
    family.edit(D, D, "1", home_town="three")
    await family.nodes[D].seal()
    await family.sync(D)
    await family.sync(P)
    await family.restore(P, "province")
    await family.restore(D, "district")
    family.edit(D, D, "1", email="a@b.c")
    await family.nodes[D].seal()
    await family.rounds(8)
    await assert_equal(family, D)
    for name in (D, P):
        rows = family.sql(name, "SELECT note, home_town, phone, email FROM member")
        assert rows == [("two", "three", "0901", "a@b.c")]
    await assert_proven(family)
