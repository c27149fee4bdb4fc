"""Units that live by stick: bundles that cross, get lost, come twice or weeks late, and all are equal in the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from conflict.values import Epoch, UnitPath
from node.carrying import missing_parts, parts_of
from node.commands.trust import revoke
from sync_engine.bundle import NOBODY, BundleHeader
from sync_engine.errors import Revoked
from tests.lives import Family, assert_equal, assert_proven
from tests.sticks import Sticks

D, P, C = "phu-vang.hue.vn", "hue.vn", "vn"


async def test_a_stick_carries_both_ways_and_counts_when_its_answer_is_home(family: Family, sticks: Sticks) -> None:
    await family.rounds(2)
    family.enter(D, D, "1", "Nguyễn Văn An", note="by stick")
    family.enter(P, D, "2", "Trần Thị Bình")
    told = await sticks.take(P, await sticks.export(D, P))
    assert family.sql(P, "SELECT note FROM member WHERE id = '1'") == [("by stick",)]
    unconfirmed = "SELECT count(*) FROM _stream LEFT JOIN _peer_head ON stream = no AND unit = ? WHERE scope = ?"
    unconfirmed += " AND origin = ? AND held_seq > coalesce(seq, 0)"
    assert family.sql(D, unconfirmed, P, D, D) == [(1,)]
    await sticks.take(D, Path(str(told["answer"])))
    assert family.sql(D, unconfirmed, P, D, D) == [(0,)]
    assert family.sql(D, "SELECT id FROM member ORDER BY id") == [("1",), ("2",)]
    await sticks.round(D, P)
    await sticks.round(P, C)
    await assert_equal(family, D, P)
    await assert_proven(family)


async def test_an_answer_holds_nothing_that_was_just_confirmed(family: Family, sticks: Sticks) -> None:
    """A bundle's receipt is newer than the heads at its beginning: what a large one held is not carried twice."""
    await family.rounds(2)
    for at in range(3):
        family.enter(D, D, str(at), "Nguyễn Văn An")
        await family.nodes[D].seal()
    there = await sticks.take(P, await sticks.export(D, P))
    back = await sticks.take(D, Path(str(there["answer"])))
    last = await sticks.take(P, Path(str(back["answer"])))
    counts = [[each["received_batches"] for each in told["from"]] for told in (there, back, last)]  # type: ignore[attr-defined]
    assert counts == [[3], [0], [0]]
    await family.sync(P)
    await sticks.round(D, P)
    await assert_equal(family, D, P)
    await assert_proven(family)


async def test_ten_weeks_without_a_line_and_a_lost_stick(family: Family, sticks: Sticks) -> None:
    """Edits at three levels; the district's sticks go to and fro every week, one of them is lost, one answer too."""
    await family.rounds(2)
    for week in range(10):
        family.enter(D, D, f"d{week}", "Nguyễn Văn An", note=str(week))
        family.edit(P, D, "d0", home_town=f"by the province {week}")
        family.edit(C, D, "d0", note=f"by the centre {week}")
        await family.sync(P)
        there = await sticks.export(D, P)
        if week == 3:
            continue  # lost on the way
        told = await sticks.take(P, there)
        if week != 6:
            await sticks.take(D, Path(str(told["answer"])))
        await family.sync(P)
    await sticks.round(D, P)
    await family.sync(P)
    await sticks.round(D, P)
    await assert_equal(family, D, P)
    assert family.sql(D, "SELECT count(*) FROM member") == [(10,)]
    assert family.sql(D, "SELECT note, home_town FROM member WHERE id = 'd0'") == [
        ("by the centre 9", "by the province 9")
    ]
    await assert_proven(family)


async def test_sticks_cross_come_twice_and_late(family: Family, sticks: Sticks) -> None:
    await family.rounds(2)
    family.enter(D, D, "1", "Nguyễn Văn An", note="one")
    first = await sticks.export(D, P)
    family.edit(D, D, "1", note="two")
    second = await sticks.export(D, P)
    family.enter(P, D, "2", "Trần Thị Bình")
    crossing = await sticks.export(P, D)
    newer = await sticks.take(P, second)
    assert family.sql(P, "SELECT note FROM member WHERE id = '1'") == [("two",)]
    older = await sticks.take(P, first)
    assert [each["is_news"] for each in newer["from"] + older["from"]] == [True, False]  # type: ignore[operator]
    await sticks.take(P, second, first)
    await sticks.take(D, crossing)
    for told in (newer, older, newer):
        await sticks.take(D, Path(str(told["answer"])))
    await sticks.round(D, P)
    await sticks.round(P, C)
    await assert_equal(family, D, P)
    await assert_proven(family)


async def test_line_and_stick_together(family: Family, sticks: Sticks) -> None:
    """A stick that was written before the line was mended tells nothing older than what the line has told."""
    await family.rounds(2)
    family.enter(D, D, "1", "Nguyễn Văn An", note="one")
    there = await sticks.export(D, P)
    back = await sticks.export(P, D)
    family.edit(D, D, "1", note="two")
    await family.rounds(2)
    told = await sticks.take(P, there)
    await sticks.take(D, back, Path(str(told["answer"])))
    await family.rounds(2)
    await assert_equal(family, D, P)
    assert family.sql(C, "SELECT note FROM member") == [("two",)]


async def test_a_restored_node_that_lives_by_stick_heals(family: Family, sticks: Sticks) -> None:
    """It cannot know before it hears; then it begins a new life, which its parent certifies by stick."""
    await family.rounds(2)
    family.enter(D, D, "1", "Nguyễn Văn An", note="one")
    await sticks.round(D, P)
    await family.image(D, "image")
    family.edit(D, D, "1", note="lost")
    family.enter(D, D, "2", "Trần Thị Bình")
    await sticks.round(D, P)
    await family.restore(D, "image")
    family.edit(D, D, "1", home_town="since")
    await sticks.round(D, P)
    for _ in range(4):
        await sticks.round(D, P)
    await sticks.round(P, C)
    await assert_equal(family, D, P)
    for name in (D, P, C):
        rows = family.sql(name, "SELECT id, note, home_town FROM member ORDER BY id")
        assert [row[:3] for row in rows] == [("1", "lost", "since"), ("2", "", rows[1][2])]
    await assert_proven(family)


async def test_a_restored_parent_gets_everything_again_by_stick(family: Family, sticks: Sticks) -> None:
    await family.rounds(2)
    family.enter(D, D, "1", "Nguyễn Văn An", note="one")
    await sticks.round(D, P)
    await family.image(P, "image")
    family.enter(D, D, "2", "Trần Thị Bình")
    await sticks.round(D, P)
    await family.restore(P, "image")
    for _ in range(3):
        await sticks.round(D, P)
    await family.sync(P)
    await sticks.round(D, P)
    await family.sync(P)
    await assert_equal(family, D, P)
    assert family.sql(P, "SELECT count(*) FROM member") == [(2,)]


async def test_parts_that_are_missing_are_told_and_the_rest_waits(family: Family, sticks: Sticks) -> None:
    await family.rounds(2)
    for at in range(12):
        noise = "".join(chr(0x4E00 + hash((at, each)) % 20_000) for each in range(30_000))
        family.enter(D, D, str(at), "Nguyễn Văn An", note=noise)
        await family.nodes[D].seal()
    stick = await sticks.export(D, P, part_bytes=70_000)
    files = sorted(stick.iterdir(), key=lambda path: path.stat().st_size)
    assert len(files) > 2
    away = sticks.stick()
    gone = [path for path in files if path.name == files[-1].name]
    for path in gone:
        path.rename(away / path.name)
    told = await sticks.take(P, stick)
    [only] = told["from"]  # type: ignore[misc]
    assert len(only["missing"]) == 1
    assert family.sql(P, "SELECT count(*) FROM member") < [(12,)]
    await sticks.take(P, away, stick)
    assert family.sql(P, "SELECT count(*) FROM member") == [(12,)]
    await sticks.take(D, Path(str(told["answer"])))
    await sticks.round(D, P)
    await sticks.round(P, C)
    await assert_equal(family, D)


async def test_an_answer_goes_to_whoever_was_never_heard_before(family: Family, sticks: Sticks) -> None:
    """Its first bundle says under which key its answer is to be encrypted."""
    await family.rounds(2)
    family.enter(D, D, "1", "Nguyễn Văn An")
    there = await sticks.export(D, P)
    family.sql(P, "DELETE FROM _statement WHERE tag = 'encryption' AND unit = ?", D)
    told = await sticks.take(P, there)
    await sticks.take(D, Path(str(told["answer"])))
    await sticks.round(D, P)
    await sticks.round(P, C)
    await assert_equal(family, D, P)


async def test_a_bundle_of_a_revoked_unit_is_refused_whole(family: Family, sticks: Sticks) -> None:
    await family.rounds(2)
    family.enter(D, D, "1", "Nguyễn Văn An")
    there = await sticks.export(D, P)
    await revoke(family.nodes[P], {"unit": D, "reason": "stolen"}, lambda _progress: None)
    with pytest.raises(Revoked, match="has ended this key"):
        await sticks.take(P, there)
    assert family.sql(P, "SELECT count(*) FROM member") == [(0,)]


@dataclass
class File:
    """A part of a bundle, of which nothing but its header matters."""

    header: BundleHeader
    parts: int = 1

    def frames(self) -> Iterator[bytes]:
        return iter(())


def test_two_lives_of_a_sender_number_their_bundles_alike() -> None:
    """An old image counts from where it was: what the life before said is no part of what the present one says."""
    left = BundleHeader(b"", UnitPath(D), Epoch("a" * 16), UnitPath(P), NOBODY, 7, 1, 0, 0, ())
    present = replace(left, epoch=Epoch("b" * 16), part=2)
    files = [File(left), File(present, parts=2)]
    assert parts_of(files, present) == [files[1]]
    assert parts_of(files, None) == []
    assert missing_parts(files) == ["7: 1"]
