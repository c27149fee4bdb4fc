"""Nodes with an older and a newer registry: what one does not know it keeps, passes on, and applies once it may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest

from node.storage.context import Context
from node.storage.inbox import Taken
from node.storage.publishing import PlanChanged, bring_newest
from node.storage.registries import (
    SoftwareTooOld,
    Standing,
    current_registry,
    is_due,
    newest_fit,
    number_in_force,
    waiting_versions,
)
from node.storage.report import newer_registries, waiting
from node.storage.setup import open_database
from node.storage.window import Window
from sync_engine import registry_file
from sync_engine.registry import Registry, parse_registry
from tests.forging import PERSON, Stream, rows
from tests.test_digest import digest
from tests.test_registry_change import AWARDS, publish, version
from tests.test_sealing import insert
from tests.world import World, WorldNode

VANG, DIEN, HUE, ROOT = "phu-vang.hue.vn", "phong-dien.hue.vn", "hue.vn", "vn"
PRIVATE = AWARDS.replace('label = "Bí danh"', 'label = "Bí danh", read_up_to = "province"')


def by_hand(world: World, unit: str) -> WorldNode:
    """The unit's operator has chosen to bring new versions into force."""
    node = world.node(unit)
    node.context.registry_by_hand = True
    return node


def apply_newest(node: WorldNode) -> None:
    """``dongbo registry apply``"""
    node.seal()
    with node.write() as connection:
        newest = newest_fit(connection, node.context)
        assert newest is not None
        bring_newest(connection, node.context, (number_in_force(connection), newest.version))
    node.apply_ready()


def waits_for(node: WorldNode) -> tuple[int, set[str]]:
    """How many batches wait, and for what, as ``status`` says it."""
    with node.read() as connection:
        count, reasons = waiting(connection, node.context)
    return count, {cause for each in reasons for cause in each["for"]}


def of_version(toml: str, world: World, *known: WorldNode) -> tuple[Registry, Stream]:
    registry = parse_registry(toml)
    return registry, Stream(world, VANG, epoch="00000000000000ff", registry=registry).certify(*known)


def standings(node: WorldNode) -> list[tuple[int, Standing]]:
    with node.read() as connection:
        return [(each.version, each.standing) for each in waiting_versions(connection, node.context)]


def assert_equal(world: World, *units: str) -> None:
    """Every scope: rows, digests and open conflicts are the same on all the nodes that hold it."""
    for scope in units:
        holders = [node for unit, node in world.nodes.items() if scope == unit or scope.endswith("." + unit)]
        whole = [digest(node, scope) for node in holders]
        assert len({(each.rows, each.digest) for each in whole}) == 1, scope
        for each in whole:
            common = each.columns.keys() & whole[0].columns.keys()
            assert {name: each.columns[name] for name in common} == {name: whole[0].columns[name] for name in common}
        names = "id, full_name, note, other_name, nick_name, status, political_theory"
        told = [
            (
                node.sql(f"SELECT {names} FROM member WHERE unit = ? ORDER BY id", scope),
                node.sql("SELECT * FROM award WHERE unit = ? ORDER BY id", scope),
                node.sql("SELECT number, field FROM _conflict WHERE live = 1 AND state = 'open' ORDER BY number"),
            )
            for node in holders
        ]
        assert all(each[:2] == told[0][:2] for each in told), scope
    for node in world.nodes.values():
        assert waits_for(node) == (0, set())


# -- one node is late ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "seed"), [(VANG, 0), (HUE, 1), (DIEN, 2), (HUE, 3)])
def test_a_node_that_is_late_by_three_rounds_ends_equal_to_all_others(world: World, late: str, seed: int) -> None:
    chance = Random(seed)
    world.node(DIEN)
    for unit in (VANG, DIEN):
        for key in "123":
            world.node(unit).sql(
                "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, ?, ?, ?)",
                unit, key, *PERSON.values(),
            )  # fmt: skip
    world.settle(3)
    behind = by_hand(world, late)
    publish(world)
    world.settle(2)
    assert [version(node) for unit, node in sorted(world.nodes.items())] == [
        2 - (u == late) for u in sorted(world.nodes)
    ]
    for _ in range(3):
        for unit in chance.sample(sorted(world.nodes), 4):
            for _edit in range(3):
                edit(chance, world.node(unit), knows=unit != late)
        for unit in chance.sample([VANG, DIEN, HUE], 3):
            world.sync(unit)
    world.settle(3)
    assert version(behind) == 1
    assert waits_for(behind)[0] > 0
    assert "registry version 2 (run 'dongbo registry apply')" in waits_for(behind)[1]
    edit(chance, behind, knows=False)  # pending while the version changes
    apply_newest(behind)
    assert version(behind) == 2
    world.settle(3)
    assert_equal(world, VANG, DIEN)


def edit(chance: Random, node: WorldNode, *, knows: bool) -> None:
    """Something that a clerk's program does: with the new field and table where it knows them."""
    unit = chance.choice([each for each in (VANG, DIEN) if each == node.unit or each.endswith("." + node.unit)])
    key = chance.choice("1234")
    changes = [("note", "xyz"), ("other_name", "uvw"), ("status", ["official", "exempt"])]
    changes += [("political_theory", ["cao cấp", "sơ cấp"])]
    changes += [("nick_name", "abc")] * 3 if knows else []
    name, values = chance.choice(changes)
    if not node.sql("SELECT 1 FROM member WHERE unit = ? AND id = ?", unit, key):
        row = {"unit": unit, "id": key, **PERSON, name: chance.choice(values)}
        node.sql(f"INSERT INTO member ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())
    elif chance.random() < 0.1:
        node.sql("DELETE FROM member WHERE unit = ? AND id = ?", unit, key)
    else:
        node.sql(f"UPDATE member SET {name} = ? WHERE unit = ? AND id = ?", chance.choice(values), unit, key)
    if knows and chance.random() < 0.3:
        node.sql("INSERT OR IGNORE INTO award (unit, id, name) VALUES (?, ?, 'Huân chương')", unit, key)


def test_the_bytes_pass_through_a_node_where_they_wait(world: World) -> None:
    hue = by_hand(world, HUE)
    insert(world.node(VANG))
    world.settle(2)
    publish(world)
    world.settle(2)
    world.node(ROOT).sql("UPDATE member SET nick_name = 'Út'")
    world.node(VANG).sql("UPDATE member SET other_name = 'Hai'")
    hue.sql("UPDATE member SET note = 'x'")
    world.settle(3)
    newer = "SELECT data FROM _batch WHERE registry = 2 AND hash IN (SELECT hash FROM _batch) ORDER BY hash"
    assert hue.sql(newer) == world.node(VANG).sql(newer) == world.node(ROOT).sql(newer)
    assert len(hue.sql(newer)) == 2
    assert hue.sql("SELECT other_name, note FROM member") == [(None, "x")]
    everywhere = [("Út", "Hai", "x")]
    for unit in (VANG, ROOT):
        assert world.node(unit).sql("SELECT nick_name, other_name, note FROM member") == everywhere, (
            "nobody waits for hue"
        )
    apply_newest(hue)
    assert hue.sql("SELECT nick_name, other_name, note FROM member") == everywhere


def test_a_node_may_miss_versions_in_between(world: World) -> None:
    vang = by_hand(world, VANG)
    insert(world.node(VANG))
    world.settle(2)
    for number in (2, 3, 4):
        text = AWARDS.replace("version = 2", f"version = {number}").replace(
            "nick_name =", _fields(number) + "nick_name ="
        )
        publish(world, text)
        world.node(ROOT).sql(f"UPDATE member SET field_{number} = 'x', nick_name = '{number}'")
        world.settle(2)
    assert standings(vang) == [(2, Standing.BY_HAND), (3, Standing.BY_HAND), (4, Standing.BY_HAND)]
    apply_newest(vang)
    assert vang.sql("SELECT field_2, field_3, field_4, nick_name FROM member") == [("x", "x", "x", "4")]
    assert_equal_columns(world)


def _fields(upto: int) -> str:
    return "".join(f'field_{number} = {{ type = "text" }}\n' for number in range(upto, 1, -1))


def assert_equal_columns(world: World) -> None:
    mine, theirs = digest(world.node(VANG)), digest(world.node(HUE))
    assert (mine.columns, mine.digest) == (theirs.columns, theirs.digest)


def test_whoever_confirmed_a_plan_gets_that_plan(world: World) -> None:
    vang = by_hand(world, VANG)
    publish(world)
    world.settle(2)
    with pytest.raises(PlanChanged), vang.write() as connection:
        bring_newest(connection, vang.context, (1, 3))
    assert version(vang) == 1


def test_an_operator_who_asks_no_more_has_the_version_at_the_next_start(world: World) -> None:
    vang = by_hand(world, VANG)
    publish(world)
    world.settle(2)
    insert(vang, note="pending")
    vang.context.registry_by_hand = False
    vang.apply_ready()
    assert version(vang) == 2
    assert vang.sql("SELECT registry FROM _batch WHERE entries > 0 ORDER BY no DESC LIMIT 1") == [(1,)]
    world.settle(2)
    assert world.node(ROOT).sql("SELECT note FROM member") == [("pending",)]


def test_the_first_registry_comes_by_itself_even_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.world.Context", partial(Context, registry_by_hand=True))
    world = World(tmp_path)
    assert version(world.node(VANG)) == 1
    publish(world)
    world.settle(2)
    assert [version(world.node(unit)) for unit in (ROOT, HUE, VANG)] == [2, 1, 1], "the root has chosen to publish"


# -- digests ---------------------------------------------------------------------------------------------------------


def test_nodes_of_two_versions_compare_what_both_know(world: World) -> None:
    vang = by_hand(world, VANG)
    insert(vang, languages='["Anh"]')
    publish(world)
    world.settle(3)
    assert (version(vang), version(world.node(HUE))) == (1, 2)
    mine, theirs = digest(vang), digest(world.node(HUE))
    assert mine.columns.items() <= theirs.columns.items()
    assert theirs.columns.keys() - mine.columns.keys() == {"member.nick_name", "award._alive", "award.name"}
    assert mine.digest == theirs.digest
    world.node(HUE).sql("UPDATE member SET nick_name = 'Út'")
    world.settle(1)
    assert digest(world.node(HUE)).digest != theirs.digest


# -- newer software needed -------------------------------------------------------------------------------------------

STRANGE = PRIVATE.replace('label = "Bí danh"', 'label = "Bí danh", colour = "red"')


@contextmanager
def newer_software(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, a field may have a colour."""
    with monkeypatch.context() as patch:
        patch.setattr(registry_file, "_FIELD_KEYS", registry_file._FIELD_KEYS | {"colour"})
        yield


def restart(node: WorldNode) -> None:
    """What a start of the service does with a database."""
    node.context.registries.clear()
    node.context.unreadable.clear()
    with node.write() as connection:
        open_database(connection, node.context)
    with node.read() as connection:
        due = is_due(connection, node.context)
    if due:
        node.apply_ready()


def test_a_version_that_needs_newer_software_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vang, hue, root = (world.node(unit) for unit in (VANG, HUE, ROOT))
    insert(vang)
    world.settle(2)
    with newer_software(monkeypatch):
        publish(world, STRANGE)
    world.sync(HUE)
    assert standings(hue) == [(2, Standing.UNREADABLE)]
    with newer_software(monkeypatch):
        world.sync(VANG)  # the district has the newer software, too
    assert [version(node) for node in (vang, hue, root)] == [2, 1, 2]
    vang.sql("UPDATE member SET nick_name = 'Út', note = 'x'")
    root.sql("UPDATE member SET other_name = 'Hai'")
    hue.sql("UPDATE member SET home_town = 'y'")
    world.settle(3)
    assert hue.sql("SELECT note, home_town FROM member") == [(None, "y")]
    assert waits_for(hue) == (2, {"registry version 2 (it needs newer software)"})
    with hue.read() as connection:
        (told,) = newer_registries(connection, hue.context)
    assert "unknown key 'colour'" in told["reason"]
    assert vang.sql("SELECT nick_name, note, other_name, home_town FROM member") == [("Út", "x", "Hai", "y")]
    assert root.sql("SELECT note, other_name, home_town FROM member") == [(None, "Hai", "y")], (
        "whoever does not know what may be read passes nothing on above a parent"
    )
    restart(hue)
    assert (version(hue), standings(hue)) == (1, [(2, Standing.UNREADABLE)])
    hue.sql("UPDATE member SET birth_place = 'z'")
    hue.seal()
    with newer_software(monkeypatch):
        restart(hue)
        assert version(hue) == 2
        world.settle(3)
    for node in (vang, hue, root):
        query = "SELECT note, other_name, home_town, birth_place FROM member"
        assert node.sql(query) == [("x", "Hai", "y", "z")]
    assert hue.sql("SELECT nick_name FROM member") == [("Út",)]
    assert_equal_columns(world)


def test_the_older_software_says_that_it_cannot_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with newer_software(monkeypatch):
        publish(world, STRANGE)
    with pytest.raises(SoftwareTooOld, match="needs newer software"):
        restart(world.node(ROOT))


# -- a root that breaks the rules ------------------------------------------------------------------------------------


def test_a_version_that_would_lose_something_never_comes_into_force(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    vang, root = world.node(VANG), world.node(ROOT)
    insert(vang, note="x", other_name="y")
    world.settle(2)
    lossy = AWARDS.replace('other_name = { type = "text"', 'other_name = { type = "int"')
    with monkeypatch.context() as patch:
        patch.setattr(Window, "_is_bad_registry", lambda *_: False)
        publish(world, lossy)
    world.settle(2)
    assert standings(vang) == standings(root) == [(2, Standing.UNFIT)]
    publish(world, AWARDS.replace("version = 2", "version = 3"))
    world.settle(2)
    assert [version(node) for node in world.nodes.values()] == [3, 3, 3]
    registry, stream = of_version(lossy, world, root)
    made = stream.batch(rows(registry.tables["member"], ("1", 1 << 62, {"note": "forged"})))
    assert root.take(made.data) is Taken.WAITING
    assert waits_for(root) == (1, {"registry version 2 (it cannot follow the one in force)"})
    assert root.sql("SELECT note, other_name FROM member") == [("x", "y")]


def test_a_text_under_another_number_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Window, "_is_bad_registry", lambda *_: False)
        world.node(ROOT).sql("INSERT INTO _registry (unit, id, toml) VALUES ('vn', '7', ?)", AWARDS)
        world.node(ROOT).seal()
    world.settle(2)
    assert [standings(node) for node in world.nodes.values()] == [[(7, Standing.UNREADABLE)]] * 3
    with world.node(VANG).read() as connection:
        assert current_registry(connection, world.node(VANG).context).version == 1
