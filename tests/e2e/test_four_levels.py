"""Four levels under a registry of their own, whose private fields and one whole table end at the district: a commune's
are nowhere above it, however often they were edited, contested and settled below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from node.setup import SHIPPED_REGISTRY
from tests.e2e import traces
from tests.e2e.processes import NEVER, Cluster, Home, free_port
from tests.e2e.week import insert_all, place_of

CENTRE, PROVINCE, DISTRICT, COMMUNE = ALL = ("vn", "hue.vn", "phu-vang.hue.vn", "phu-my.phu-vang.hue.vn")
FIELDS = ("phone", "citizen_id", "health")
DISCIPLINE = """
[tables.discipline]
label = "Kỷ luật"
read_up_to = "district"

[tables.discipline.fields]
person = { type = "text", required = true, label = "Người" }
reason = { type = "text", label = "Lý do", merge = "review" }
"""
MEMBERS = 5

OPEN = {"note": "~xa~ghi-chu~"}
OF_COMMUNE = {
    "phone": "~xa~dien-thoai~",
    "citizen_id": "9991526",
    "health": "~xa~suc-khoe~",
    "person": "~xa~nguoi~",
    "reason": "~xa~ly-do~",
    "edited_by": "~xa~ai~",
}
OF_DISTRICT = {
    "phone of the district": "~huyen~dien-thoai~",
    "citizen_id of the district": "9993748",
    "health of the district": "~huyen~suc-khoe~",
}
"""A unit's parent reads everything of it: a second copy must exist. So these are at the province, and not above."""
MARKS = OPEN | OF_COMMUNE | OF_DISTRICT


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes that run, in step, after the commune's records have been entered, edited apart and settled."""
    folder = tmp_path_factory.mktemp("deep")
    with Cluster(folder) as tree:
        above = root_with(tree, registry(folder))
        above.start()
        for label, name in (("hue", "Thành phố Huế"), ("phu-vang", "Huyện Phú Vang"), ("phu-my", "Xã Phú Mỹ")):
            above = tree.join(above, label, name, listens=label != "phu-my")
            above.start()
        enter(tree)
        tree.settle(1)
        edit_apart(tree)
        tree.settle(2)
        settle_what_is_open(tree[DISTRICT])
        tree.settle(2)
        tree.assert_in_step()
        yield tree


def registry(folder: Path) -> Path:
    """The shipped register, whose private fields end at the district, and a table that does."""
    text = SHIPPED_REGISTRY.read_text("utf-8")
    assert text.count('read_up_to = "province"') > len(FIELDS)
    file = folder / "registry.toml"
    file.write_text(text.replace('read_up_to = "province"', 'read_up_to = "district"') + DISCIPLINE, encoding="utf-8")
    return file


def root_with(tree: Cluster, file: Path) -> Home:
    home = Home(tree.folder / CENTRE, CENTRE, free_port())
    at = f"127.0.0.1:{home.port}"
    home.dongbo("init", "--unit", CENTRE, "--name", "Trung ương", "--listen", at, "--registry", str(file))
    home.configure(**NEVER)
    tree.homes[CENTRE] = home
    return home


def enter(tree: Cluster) -> None:
    for unit, marks, ending in ((COMMUNE, OF_COMMUNE, ""), (DISTRICT, OF_DISTRICT, " of the district")):
        rows = [
            {
                "unit": unit,
                "id": str(n),
                "full_name": f"Trần Thị Mẫu {n}",
                "birth_date": f"{1950 + n}",
                "sex": "nữ",
                "note": f"{OPEN['note']}{n}",
                **{name: f"{marks[name + ending]}{n:05}" for name in FIELDS},
            }
            for n in range(MEMBERS)
        ]
        insert_all(tree[unit], "member", rows)
    cases = [{"unit": COMMUNE, "id": str(n), **discipline(n, "first")} for n in range(MEMBERS)]
    insert_all(tree[COMMUNE], "discipline", cases)


def discipline(n: int, word: str) -> dict[str, Any]:
    found = {name: f"{OF_COMMUNE[name]}{n}" for name in ("person", "edited_by")}
    return found | {"reason": f"{OF_COMMUNE['reason']}{n} {word}"}


def edit_apart(tree: Cluster) -> None:
    """Commune and district edit what only they may read; the province and the centre what all read; one deletes."""
    for unit, health in ((COMMUNE, "A"), (DISTRICT, "B")):
        home = tree[unit]
        health = f"{OF_COMMUNE['health']}{health}"
        number = f"{OF_COMMUNE['citizen_id']}{len(unit):05}"
        home.sql("UPDATE member SET health = ?, phone = NULL WHERE unit = ?", health, COMMUNE)
        home.sql("UPDATE member SET citizen_id = ? WHERE unit = ? AND id = '0'", number, COMMUNE)
        home.sql("UPDATE discipline SET reason = reason || ' ' || ?", unit)
    tree[COMMUNE].sql("DELETE FROM discipline WHERE id = '4'")
    for unit, occupation in ((PROVINCE, "giao-vien"), (CENTRE, "bac-si")):
        tree[unit].sql("UPDATE member SET occupation = ? WHERE unit = ?", occupation, COMMUNE)


def settle_what_is_open(district: Home) -> None:
    """With a person's name and words, which say no less than the values do."""
    for each in district.json("conflicts", "--open"):
        reason = ("--by", f"{OF_COMMUNE['edited_by']}!", "--why", f"{OF_COMMUNE['reason']}!")
        said = reason if each["table"] == "discipline" else ()
        district.dongbo("conflicts", "resolve", str(each["id"]), "--keep", "1", *said)


def contested(home: Home) -> set[tuple[str, str]]:
    entries: list[Mapping[str, Any]] = home.json("conflicts")
    return {(each["table"], place_of(each)[2]) for each in entries if each["state"] != "overwritten"}


def test_each_journal_tells_of_what_its_level_may_read(deep: Cluster) -> None:
    all_read = {("member", "occupation"), ("discipline", "_alive")}
    below = {("member", "health"), ("member", "citizen_id"), ("discipline", "reason")}
    for unit in ALL:
        assert contested(deep[unit]) == (all_read | below if unit in (DISTRICT, COMMUNE) else all_read), unit
        assert deep[unit].json("conflicts", "--open") == []
        assert deep[unit].json("verify")["ok"]


def test_nothing_of_the_communes_private_values_is_above_the_district(deep: Cluster) -> None:
    shares = {CENTRE: OPEN, PROVINCE: OPEN | OF_DISTRICT, DISTRICT: MARKS}
    for unit, marks in shares.items():
        assert traces.on_disk(MARKS, deep[unit]) == set(marks), unit
        assert traces.in_process(MARKS, deep[unit]) == set(marks), unit
    assert traces.on_disk(MARKS, deep[COMMUNE]) == set(OPEN | OF_COMMUNE)
