"""Applying batches on real databases: the short way and the long way come to the same, and so do all nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from node.storage.apply import _TableApply
from node.storage.inbox import Taken
from node.storage.review import conflicts
from sync_engine.merge import TWIN
from sync_engine.registry import parse_registry
from tests.forging import PERSON, Stream, deletes, rows
from tests.pki import Tree
from tests.test_digest import digest
from tests.test_sealing import insert, shift
from tests.world import SHIPPED, World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
PATH = (VANG, HUE, ROOT)
MEMBER = parse_registry(SHIPPED).tables["member"]
OTHER = {"full_name": "Trần Văn Khác", "birth_date": "1950", "sex": "nam"}

Make = Callable[..., World]


@pytest.fixture(name="make")
def make_fixture(tmp_path: Path) -> Iterator[Make]:
    made: list[World] = []

    def world(**changes: Any) -> World:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(World(folder, **changes))
        return made[-1]

    yield world
    for each in made:
        for node in each.nodes.values():
            node.engine.dispose()


@pytest.fixture(name="world")
def world_fixture(make: Make) -> World:
    world = make()
    world.node(VANG)
    world.settle(1)  # the centre learns of the district
    return world


def journal(node: WorldNode) -> list[tuple[Any, ...]]:
    """Conflicts as people are told of them."""
    with node.read() as connection:
        found = conflicts(connection, node.context)
    told = ("id", "field", "state", "shown")
    return sorted(
        (*(each[name] for name in told), tuple((write["value"], write["origin"]) for write in each["writes"]))
        for each in found
    )


def live(node: WorldNode) -> list[tuple[Any, ...]]:
    """Conflicts as the registers hold them now; those that have ended may have looked otherwise on each node's way. A
    write's last part, the batch it was sealed in, is a number of the node's own; a twin's rows are told as far as the
    node may read them."""
    columns = "number, id, identity, field, policy, state, writes"
    found = node.sql(f"SELECT {columns} FROM _conflict WHERE live = 1 ORDER BY number")
    return [
        (*row, [write[: 3 if row[3] == TWIN else 5] for write in msgspec.msgpack.decode(writes)])
        for *row, writes in found
    ]


def same_everywhere(world: World, *columns: str) -> list[tuple[Any, ...]]:
    """After syncing: the same rows, registers and conflicts on every node of the path. Returns the rows."""
    world.settle(3)
    nodes = [world.nodes[unit] for unit in PATH if unit in world.nodes]
    listed = ", ".join(columns or ("id", "full_name", "note", "languages"))
    shown = [node.sql(f"SELECT {listed} FROM member ORDER BY id") for node in nodes]
    assert all(each == shown[0] for each in shown)
    assert len({digest(node).digest for node in nodes}) == 1
    told = [live(node) for node in nodes]
    assert all(each == told[0] for each in told)
    return shown[0]


# -- the short way and the long way ---------------------------------------------------------------------------------


def act(chance: Random, node: WorldNode) -> None:
    """Something that a clerk's program might do."""
    key = chance.choice("12345")
    there = node.sql("SELECT 1 FROM member WHERE unit = ? AND id = ?", VANG, key)
    kind = chance.choice(["edit", "edit", "edit", "many", "delete", "again"])
    if not there:
        insert(node, key, **chance.choice([OTHER, {}]), languages=chance.choice([None, '["Anh"]', '["Anh","Nga"]']))
    elif kind == "delete":
        node.sql("DELETE FROM member WHERE id = ?", key)
    elif kind == "again":
        node.sql("DELETE FROM member WHERE id = ?", key)
        insert(node, key, **chance.choice([OTHER, {}]), note="again")
    else:
        name, value = chance.choice(
            [("note", "x"), ("note", "y"), ("note", None), ("status", "official"), ("languages", '["Pháp"]'),
             ("languages", None), ("address_line", "12"), ("political_theory", "cao cấp"), ("has_handbook", 1)]
        )  # fmt: skip
        where = "" if kind == "many" else f" WHERE id = '{key}'"
        node.sql(f"UPDATE member SET {name} = ?{where}", value)
    shift(node, chance.choice([0, 0, 5_000, -3_600_000, 86_400_000]))


def run(world: World, seed: int, steps: int = 40) -> list[tuple[Any, ...]]:
    world.node(VANG)
    world.settle(1)  # the centre learns of the district
    chance = Random(seed)
    for _ in range(steps):
        act(chance, world.node(chance.choice(PATH)))
        if chance.random() < 0.4:
            world.sync(chance.choice(PATH[:2]))
    every = [each.name for each in MEMBER.fields if each.read_up_to is None]
    return same_everywhere(world, "id", *every)


@pytest.mark.parametrize("seed", range(5))
def test_any_history_ends_alike_on_all_nodes(make: Make, seed: int) -> None:
    run(make(), seed)


@pytest.mark.parametrize("careful", PATH)
@pytest.mark.parametrize("seed", range(100, 102))
def test_a_node_that_looks_at_every_key_ends_like_those_that_do_not(
    make: Make, seed: int, careful: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = _TableApply._general_keys

    def general_keys(self: _TableApply, keys: set[str]) -> set[str]:
        return set(keys) if self.context.unit == careful else usual(self, keys)

    monkeypatch.setattr(_TableApply, "_general_keys", general_keys)
    run(make(), seed)


HOSTILE: dict[str, Callable[[], list[Any]]] = {
    "one register twice in a batch": lambda: [
        rows(MEMBER, ("1", 30, {"note": "a"}), ("1", 31, {"note": "b", "cell": "c"}), ("1", 32, {"note": "last"})),
    ],
    "the same, with another row that fixes another order": lambda: [
        rows(MEMBER, ("1", 30, {"note": "a", "cell": "x"}), ("1", 31, {"note": "last"}), ("0", 30, {"note": "z"})),
    ],
    "an insert that hides values behind its mask": lambda: [_masked()],
    "an insert of a row that is there": lambda: [rows(MEMBER, ("1", 5, {**PERSON, "note": "again"}), new=True)],
    "an insert beside an edit of the same row": lambda: [
        rows(MEMBER, ("9", 5, PERSON), ("9", 6, {"note": "x"}), new=[True, False]),
    ],
    "an edit of a row that is not there": lambda: [rows(MEMBER, ("404", 5, {"note": "x"}), ("1", 9, {"note": "y"}))],
    "an edit and a delete of the same row": lambda: [
        rows(MEMBER, ("1", 50, {"note": "x"})), deletes(MEMBER, ("1", 40)),
    ],
    "a field that a district may not change": lambda: [rows(MEMBER, ("1", 50, {"card_number": "1", "note": "n"}))],
    "a time at the end of all times": lambda: [rows(MEMBER, ("1", 2**63 - 1, {"note": "x"}))],
}  # fmt: skip


def _masked() -> Any:
    entries = rows(MEMBER, ("7", 10, {**PERSON, "note": "hidden"}), new=True)
    entries.masks = [1 << len(entries.registers) >> 1 ^ ((1 << len(entries.registers)) - 1)]
    return entries


@pytest.mark.parametrize("sections", HOSTILE.values(), ids=HOSTILE)
def test_whatever_an_origin_seals_two_nodes_make_the_same_of_it(
    make: Make, sections: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = _TableApply._general_keys
    ends = []
    world = make(tree=Tree())
    stream = Stream(world, VANG)
    people = [(key, 10, {**PERSON, "note": "old"}) for key in "01"]
    batches = [stream.batch(rows(MEMBER, *people, new=True)), stream.batch(*sections())]
    batches.append(stream.batch(rows(MEMBER, ("0", 60, {"note": "after"}))))
    for general_keys in (usual, lambda self, keys: set(keys)):
        monkeypatch.setattr(_TableApply, "_general_keys", general_keys)
        other = make(tree=world.tree)
        node = other.node(HUE)
        stream.certify(node)
        assert [node.take(each.data) for each in batches] == [Taken.APPLIED] * 3
        ends.append((node.sql("SELECT * FROM member ORDER BY id"), digest(node), journal(node)))
    assert ends[0] == ends[1]


# -- conflicts ------------------------------------------------------------------------------------------------------


def test_different_fields_edited_at_two_levels_both_survive(world: World) -> None:
    insert(world.node(VANG))
    same_everywhere(world)
    world.node(VANG).sql("UPDATE member SET note = 'district'")
    world.node(ROOT).sql("UPDATE member SET home_town = 'centre'")
    assert same_everywhere(world, "note", "home_town") == [("district", "centre")]
    assert journal(world.node(HUE)) == []


def test_one_field_at_two_levels_is_decided_alike_and_the_loser_is_in_every_journal(world: World) -> None:
    insert(world.node(VANG))
    same_everywhere(world)
    world.node(HUE).sql("UPDATE member SET status = 'official'")
    world.node(VANG).sql("UPDATE member SET status = 'exempt'")
    assert same_everywhere(world, "status") == [("official",)]
    ((_, field, state, shown, writes),) = journal(world.node(ROOT))
    assert (field, state, shown) == ("status", "settled", "official")
    assert set(writes) == {("official", HUE), ("exempt", VANG)}


def test_a_conflict_under_review_is_open_on_all_nodes_till_somebody_settles_it(world: World) -> None:
    insert(world.node(VANG))
    same_everywhere(world)
    for unit, name in ((HUE, "Nguyễn Thị A"), (VANG, "Nguyễn Thị B")):
        world.node(unit).sql("UPDATE member SET full_name = ?", name)
    same_everywhere(world, "full_name")
    assert [(field, state) for _, field, state, _, _ in journal(world.node(VANG))] == [("identity", "open")]
    world.node(ROOT).sql("UPDATE member SET full_name = 'Nguyễn Thị C'")
    assert same_everywhere(world, "full_name") == [("Nguyễn Thị C",)]
    assert [state for _, _, state, _, _ in journal(world.node(VANG))] == ["settled"]


def test_a_delete_beside_an_edit_leaves_the_row_and_an_open_conflict_everywhere(world: World) -> None:
    insert(world.node(VANG))
    same_everywhere(world)
    world.node(HUE).sql("DELETE FROM member")
    world.node(VANG).sql("UPDATE member SET note = 'alive'")
    assert same_everywhere(world, "note") == [("alive",)]
    assert [(field, state) for _, field, state, _, _ in journal(world.node(ROOT))] == [("_alive", "open")]
    world.node(ROOT).sql("DELETE FROM member")
    assert same_everywhere(world) == []


def test_deleted_stays_deleted(world: World) -> None:
    insert(world.node(VANG), note="x")
    same_everywhere(world)
    world.node(ROOT).sql("DELETE FROM member")
    assert same_everywhere(world) == []
    insert(world.node(VANG), "2")
    assert [row[0] for row in same_everywhere(world)] == ["2"]


def test_an_address_never_blends(world: World) -> None:
    insert(world.node(VANG), address_line="1", address_commune="a")
    same_everywhere(world)
    world.node(HUE).sql("UPDATE member SET address_line = '2'")
    world.node(VANG).sql("UPDATE member SET address_commune = 'b'")
    assert same_everywhere(world, "address_line", "address_commune")[0] in {("2", "a"), ("1", "b")}


# -- two people under one key ---------------------------------------------------------------------------------------


def twins(world: World) -> str:
    """The same id given to two people before their nodes met; returns who is shown everywhere."""
    insert(world.node(VANG), note="district", languages='["Anh"]')
    insert(world.node(HUE), **OTHER, note="province", phone="5")
    shift(world.node(HUE), -60_000)
    ((_, name, note, _),) = same_everywhere(world)
    assert (name, note) == (OTHER["full_name"], "province"), "the older one"
    return str(name)


def test_twins_are_shown_alike_everywhere_and_neither_is_lost(world: World) -> None:
    twins(world)
    world.node(ROOT).sql("DELETE FROM member")
    assert same_everywhere(world) == [("1", "Nguyễn Thị Mẫu", "district", '["Anh"]')]
    world.node(HUE).sql("UPDATE member SET note = 'seen'")
    assert same_everywhere(world, "note") == [("seen",)]


def test_an_edit_of_the_twin_shown_leaves_the_other_as_it_was(world: World) -> None:
    twins(world)
    world.node(VANG).sql("UPDATE member SET note = 'edited', languages = '[\"Nga\"]'")
    assert same_everywhere(world)[0][2:] == ("edited", '["Nga"]')
    world.node(VANG).sql("DELETE FROM member")
    assert same_everywhere(world)[0][2:] == ("district", '["Anh"]')


def test_one_person_registered_at_two_levels_is_one_row(world: World) -> None:
    insert(world.node(VANG), note="a", languages='["Anh"]')
    insert(world.node(HUE), note="b", languages='["Nga"]')
    assert same_everywhere(world, "languages") == [('["Anh","Nga"]',)]
    assert world.node(ROOT).sql("SELECT count(*) FROM _row WHERE id = '1' AND tbl > 10") == [(1,)]


# -- rights and reading levels --------------------------------------------------------------------------------------


def test_a_value_its_origin_had_no_right_to_is_not_shown_and_travels_on(world: World) -> None:
    hue, root = world.node(HUE), world.node(ROOT)
    stream = Stream(world, VANG, epoch="00000000000000ff").certify(hue, root)
    for made in (
        stream.batch(rows(MEMBER, ("1", 10, {**PERSON, "card_number": "right"}), new=True)),
        stream.batch(rows(MEMBER, ("1", 20, {"card_number": "wrong", "note": "n"}))),
    ):
        for node in (hue, root):
            assert node.take(made.data) is Taken.APPLIED
    for node in (hue, root):
        assert node.sql("SELECT card_number, note FROM member") == [("right", "n")]
        assert node.sql("SELECT count(*) FROM _write WHERE held = 1") == [(1,)]
    assert digest(hue).digest == digest(root).digest
    hue.sql("UPDATE member SET card_number = 'new'")
    hue.seal()
    assert hue.sql("SELECT count(*) FROM _write WHERE held = 1") == [(0,)]


def test_what_a_level_may_not_read_never_reaches_it(world: World) -> None:
    secret = "0987654321"
    insert(world.node(VANG), phone=secret, note="open")
    same_everywhere(world)
    root, hue = world.node(ROOT), world.node(HUE)
    assert (hue.sql("SELECT phone FROM member"), root.sql("SELECT phone FROM member")) == ([(secret,)], [(None,)])
    for file in root.path.parent.glob(f"{ROOT}.db*"):
        assert secret.encode() not in file.read_bytes()
    hue.sql("UPDATE member SET phone = '111', note = 'seen'")
    assert same_everywhere(world, "note") == [("seen",)]
    assert world.node(VANG).sql("SELECT phone FROM member") == [("111",)]


def test_a_row_may_come_before_what_it_speaks_of(world: World) -> None:
    """A code that no catalogue has yet, and a unit that nobody has named: rows are stored whatever comes first, and the
    code is shown as soon as it is known."""
    insert(world.node(VANG), religion="not-yet", cell="unknown")
    assert same_everywhere(world, "religion", "cell") == [(None, "unknown")]
    world.node(ROOT).sql("INSERT INTO catalog (unit, id, kind, code) VALUES (?, 'new', 'religion', 'not-yet')", ROOT)
    assert same_everywhere(world, "religion", "cell") == [("not-yet", "unknown")]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_order_of_arrival_does_not_matter(make: Make, order: tuple[int, ...]) -> None:
    world = make()
    hue = world.node(HUE)
    lives = ((VANG, "fe"), (ROOT, "ff"), (VANG, "ff"))
    streams = [Stream(world, unit, epoch=f"{life:0>16}").certify(hue) for unit, life in lives]
    first = Stream(world, VANG).certify(hue).batch(rows(MEMBER, ("1", 10, PERSON), new=True))
    rivals = [
        streams[0].batch(rows(MEMBER, ("1", 20, {"note": "a", "status": "exempt"})), seen=[first.head]),
        streams[1].batch(rows(MEMBER, ("1", 15, {"note": "b", "status": "official"})), seen=[first.head]),
        streams[2].batch(deletes(MEMBER, ("1", 30)), seen=[first.head]),
    ]
    hue.take(first.data)
    assert [hue.take(rivals[at].data) for at in order] == [Taken.APPLIED] * 3
    assert hue.sql("SELECT note, status FROM member") == [("a", "official")]
    assert sorted((field, state) for _, _, _, field, _, state, _ in live(hue)) == [
        ("_alive", "open"),
        ("note", "settled"),
        ("status", "settled"),
    ]
