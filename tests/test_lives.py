"""Restored, copied and lost nodes heal: nothing that either life sealed is lost, and all become equal again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.lives import Family

W, D, P, C = "a.phu-vang.hue.vn", "phu-vang.hue.vn", "hue.vn", "vn"


@pytest_asyncio.fixture
async def family(tmp_path: Path) -> AsyncIterator[Family]:
    made = Family(tmp_path / "family", (W,))
    yield made
    await made.close()


async def assert_equal(family: Family, *scopes: str) -> None:
    for scope in scopes:
        digests = await family.digests(scope)
        assert len(set(digests.values())) == 1, digests
    assert family.frozen() == []


async def notes(family: Family, name: str, key: str) -> set[str]:
    """All values that anybody can find of a member's note: what the table shows, and what lost."""
    return {str(row[0]) for row in family.sql(name, "SELECT note FROM member WHERE id = ?", key)}


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
