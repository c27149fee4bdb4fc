"""A new version of the registry travels like data; and any other registry works like the shipped one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.storage import adoption
from node.storage.inbox import Taken
from node.storage.outbox import for_peer
from node.storage.registries import current_registry, is_due
from node.storage.report import set_aside
from sync_engine.batch import parse_batch
from sync_engine.errors import BadSignature
from sync_engine.registry import parse_registry
from tests.forging import PERSON, Stream, rows
from tests.test_apply import live
from tests.test_digest import digest
from tests.test_sealing import insert, shift
from tests.world import SHIPPED, World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
LIBRARY = (Path(__file__).parent / "registries" / "library.toml").read_text(encoding="utf-8")
NEXT = SHIPPED.replace("version = 1", "version = 2").replace(
    "other_name =", 'nick_name = { type = "text", label = "Bí danh" }\nother_name ='
)
AWARDS = NEXT + '\n[tables.award]\nlabel = "Khen thưởng"\nfields.name = { type = "text", required = true }\n'


def publish(world: World, toml: str = AWARDS) -> None:
    version = parse_registry(toml).version
    world.node(ROOT).sql("INSERT INTO _registry (unit, id, toml) VALUES (?, ?, ?)", ROOT, str(version), toml)
    world.node(ROOT).seal()


def version(node: WorldNode) -> int:
    with node.read() as connection:
        return current_registry(connection, node.context).version


def equal(world: World, query: str, *units: str) -> list[tuple[Any, ...]]:
    world.settle(3)
    shown = [world.node(unit).sql(query) for unit in units or (VANG, HUE, ROOT)]
    assert all(each == shown[0] for each in shown)
    scope = max(units or (VANG, HUE, ROOT), key=len)
    assert len({digest(world.node(unit), scope).digest for unit in units or (VANG, HUE, ROOT)}) == 1
    return shown[0]


def test_a_new_version_adds_fields_and_tables_on_every_node(world: World) -> None:
    insert(world.node(VANG), note="before")
    publish(world)
    world.settle(2)
    assert [version(world.node(unit)) for unit in (VANG, HUE, ROOT)] == [2, 2, 2]
    world.node(VANG).sql("UPDATE member SET nick_name = 'Út', other_name = 'Hai'")
    world.node(HUE).sql("INSERT INTO award (unit, id, name) VALUES (?, '1', 'Huân chương')", VANG)
    query = "SELECT note, nick_name, other_name, (SELECT name FROM award) FROM member"
    assert equal(world, query) == [("before", "Út", "Hai", "Huân chương")]


def test_what_was_noted_before_is_sealed_under_the_old_version(world: World) -> None:
    root = world.node(ROOT)
    insert(root)
    root.seal()
    root.sql("UPDATE member SET note = 'x', home_town = 'y'")
    publish(world)
    assert equal(world, "SELECT note, home_town, nick_name FROM member") == [("x", "y", None)]
    versions = root.sql(
        "SELECT registry FROM _batch JOIN _stream ON _stream.no = stream"
        " WHERE scope = ? AND origin = ? AND entries > 0 ORDER BY seq",
        VANG,
        ROOT,
    )
    assert versions == [(1,), (1,)]


def test_batches_of_a_version_that_has_not_come_are_kept_passed_on_and_applied_after(world: World) -> None:
    vang, hue, root = (world.node(unit) for unit in (VANG, HUE, ROOT))
    insert(vang, note="before")
    world.settle(2)
    publish(world)
    root.sql("UPDATE member SET nick_name = 'Út', note = 'after'")
    root.sql("INSERT INTO award (unit, id, name) VALUES (?, '1', 'Huân chương')", VANG)
    root.seal()
    newer = "SELECT data FROM _batch WHERE registry = 2 ORDER BY no"
    made = root.sql(newer)
    assert [hue.take(data) for (data,) in made] == [Taken.WAITING] * len(made)
    world.sync(VANG)
    for node in (hue, vang):
        assert (node.sql(newer), version(node)) == (made, 1), "the very bytes"
        assert node.sql("SELECT note FROM member") == [("before",)]
    query = "SELECT nick_name, note, (SELECT name FROM award) FROM member"
    assert equal(world, query) == [("Út", "after", "Huân chương")]


def test_a_relay_that_does_not_know_a_column_passes_it_to_nobody_who_might_not_read_it(world: World) -> None:
    hue, root = world.node(HUE), world.node(ROOT)
    newer = parse_registry(AWARDS)
    stream = Stream(world, VANG, epoch="00000000000000ff", registry=newer).certify(hue)
    made = stream.batch(rows(newer.tables["member"], ("1", 10, {**PERSON, "nick_name": "Út"}), new=True))
    hue.take(made.data)
    with hue.read() as connection:
        up, down = (parse_batch(for_peer(connection, hue.context, unit, made)) for unit in (ROOT, VANG))
    assert down.data == made.data
    assert {made.header.sections[0].columns[at].name for at in up.chunks[0]} == {"id", "_identity", "_time", "_new"}
    stream.certify(root)
    publish(world)
    with pytest.raises(BadSignature):  # who knows the version asks for the whole again
        root.take(up.data)


def test_a_batch_of_the_old_version_is_taken_after_the_new_one_came(world: World) -> None:
    hue = world.node(HUE)
    publish(world)
    world.settle(2)
    old = parse_registry(SHIPPED)
    stream = Stream(world, VANG, epoch="00000000000000ff", registry=old).certify(hue)
    member = old.tables["member"]
    made = [
        stream.batch(rows(member, ("1", 10, {**PERSON, "other_name": "Hai"}), new=True)),
        stream.batch(rows(member, ("1", 20, {"has_handbook": True, "note": "x"}))),
    ]
    assert [hue.take(each.data) for each in made] == [Taken.APPLIED] * 2
    assert hue.sql("SELECT other_name, nick_name, has_handbook, note FROM member") == [("Hai", None, 1, "x")]


BAD = {
    "a table before the others": NEXT.replace(
        "[tables.member]", '[tables.award]\nfields.name = { type = "text" }\n[tables.member]', 1
    ),
    "a table taken away": NEXT[: NEXT.index("[tables.catalog]")].replace('type = "code", kind', 'type = "text" #'),
    "a field of another type": NEXT.replace('note = { type = "text"', 'note = { type = "int"'),
    "an older number": NEXT.replace("version = 2", "version = 1"),
}


@pytest.mark.parametrize("toml", BAD.values(), ids=BAD)
def test_a_version_that_cannot_follow_never_leaves_the_root(world: World, toml: str) -> None:
    root = world.node(ROOT)
    root.sql("INSERT INTO _registry (unit, id, toml) VALUES (?, '2', ?)", ROOT, toml)
    insert(root)
    assert equal(world, "SELECT id FROM member") == [("1",)]
    assert [version(world.node(unit)) for unit in (VANG, HUE, ROOT)] == [1, 1, 1]
    assert world.node(HUE).sql("SELECT id FROM _registry") == [("1",)]
    with root.read() as connection:
        assert [each["key"] for each in set_aside(connection, root.context)] == ["2"]


def test_only_the_root_publishes(world: World) -> None:
    with pytest.raises(Exception, match="only the root publishes a registry"):
        world.node(HUE).sql("INSERT INTO _registry (unit, id, toml) VALUES ('vn', '2', ?)", AWARDS)


# -- rows with rivals --------------------------------------------------------------------------------------------------


def rivals(world: World, name: str, below: Any, above: Any) -> None:
    """The district and the province write one field without knowing of each other; the province is later."""
    insert(world.node(VANG), "8")
    world.settle(2)
    world.node(VANG).sql(f"UPDATE member SET {name} = ?", below)
    world.node(VANG).seal()
    world.now += 1000
    world.node(HUE).sql(f"UPDATE member SET {name} = ?", above)
    shift(world.node(HUE), 1000)
    world.settle(3)


RULES = {
    "latest becomes earliest": ("note", ("x", "y"), ("", 'merge = "earliest"'), "y", "x"),
    "superior becomes local": ("status", ("official", "exempt"), ("", 'merge = "local"'), "exempt", "official"),
    "latest becomes a person's": ("note", ("x", "y"), ("", 'merge = "review"'), "y", "y"),
    "a person's becomes superior": ("citizen_id", ("1" * 12, "2" * 12), ("", 'merge = "superior"'), "2", "2"),
    "other values are the greatest": (
        "political_theory", ("sơ cấp", "cao cấp"),
        ('["sơ cấp", "trung cấp", "cao cấp", "cử nhân"]', '["cử nhân", "cao cấp", "trung cấp", "sơ cấp"]'),
        "cao cấp", "sơ cấp",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "writes", "rule", "before", "after"), RULES.values(), ids=RULES)
def test_rows_with_rivals_are_shown_by_the_new_rule(
    world: World, name: str, writes: tuple[str, str], rule: tuple[str, str], before: str, after: str
) -> None:
    rivals(world, name, *writes)
    before, after = (value * 12 if len(value) == 1 and name == "citizen_id" else value for value in (before, after))
    shown = f"SELECT {name} FROM member"
    assert [world.node(unit).sql(shown) for unit in (VANG, HUE)] == [[(before,)]] * 2
    publish(world, changed_rule(name, rule))
    world.settle(2)
    assert [world.node(unit).sql(shown) for unit in (VANG, HUE)] == [[(after,)]] * 2
    conflicts = "SELECT number, field, policy, state FROM _conflict WHERE live = 1"
    ((_, *told),) = world.node(VANG).sql(conflicts)
    policy = parse_registry(changed_rule(name, rule)).tables["member"].field(name).policy
    assert told == [name, policy, "open" if policy == "review" else "settled"]
    assert world.node(HUE).sql(conflicts) == world.node(VANG).sql(conflicts)
    assert world.node(VANG).sql("SELECT 1 FROM _pending") == []
    world.node(HUE).sql(f"UPDATE member SET {name} = ?", writes[0])
    assert equal(world, shown, VANG, HUE) == [(writes[0],)]


def changed_rule(name: str, rule: tuple[str, str]) -> str:
    """The next version, with another merge rule for one field, or with a part of its text replaced."""
    if rule[0]:
        return NEXT.replace(*rule)
    (line,) = (each for each in NEXT.splitlines() if each.startswith(f"{name} ="))
    plain = ", ".join(part for part in line.split(", ") if not part.startswith("merge ="))
    plain = plain if plain.endswith("}") else plain + " }"
    return NEXT.replace(line, plain.replace(" }", f", {rule[1]} }}"))


def test_rows_are_shown_anew_a_few_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "KEYS_AT_ONCE", 2)
    root = world.node(ROOT)
    for key in "1234567":
        insert(world.node(VANG), key)
    rivals(world, "note", "x", "y")
    publish(world, changed_rule("note", ("", 'merge = "earliest"')))
    shown = "SELECT note, count(*) FROM member GROUP BY note ORDER BY note"
    assert root.sql(shown) == [("x", 2), ("y", 6)]
    root.sql("UPDATE member SET note = 'z' WHERE id = '3'")  # beside it, and by the new rule
    root.apply_ready()
    assert root.sql(shown) == [("x", 7), ("z", 1)]
    assert equal(world, shown) == [("x", 7), ("z", 1)]
    with root.read() as connection:
        assert not is_due(connection, root.context)


@pytest.mark.parametrize("rule", ["delete", "keep"])
def test_a_delete_beside_an_edit_is_settled_by_the_new_rule(world: World, rule: str) -> None:
    insert(world.node(VANG))
    world.settle(2)
    world.node(VANG).sql("UPDATE member SET note = 'x'")
    world.node(VANG).seal()
    world.node(HUE).sql("DELETE FROM member")
    assert equal(world, "SELECT note FROM member") == [("x",)]
    publish(world, NEXT.replace('delete = "review"', f'delete = "{rule}"'))
    world.settle(2)
    assert equal(world, "SELECT note FROM member") == ([] if rule == "delete" else [("x",)])
    for unit in (VANG, HUE, ROOT):
        assert world.node(unit).sql("SELECT policy, state FROM _conflict WHERE live = 1") == [(rule, "settled")]
    world.node(ROOT).sql("INSERT OR REPLACE INTO member (unit, id, full_name, birth_date, sex, note)"
                         " VALUES (?, '1', 'Nguyễn Thị Mẫu', '1945-08', 'nữ', 'again')", VANG)  # fmt: skip
    assert equal(world, "SELECT note FROM member") == [("again",)]


# -- another registry -----------------------------------------------------------------------------------------------

BRANCH, REGION, NATION = "b.r.vn", "r.vn", "vn"
LEVELS = (BRANCH, REGION, NATION)


@pytest.fixture(name="library")
def library_fixture(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, registry=LIBRARY)
    world.node(BRANCH)
    world.settle(1)
    yield world
    for node in world.nodes.values():
        node.engine.dispose()


def asset(node: WorldNode, key: str = "1", **values: Any) -> None:
    row = {"unit": BRANCH, "id": key, "title": "T", "serial": b"\0\xff", **values}
    node.sql(f"INSERT INTO asset ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())


def test_every_type_travels_three_levels_as_it_was_written(library: World) -> None:
    values = {
        "price": 0.1 + 0.2, "copies": -(2**63), "seen_at": "2026-01-31T23:59:59Z", "lent": 0, "shelf": "s",
        "subjects": '["a","ă"]', "keepers": '["k"]', "valuation": 5, "bought": "2026-02-28", "mark_60": "last",
    }  # fmt: skip
    asset(library.node(BRANCH), **values)
    columns = ", ".join(values)
    (row,) = equal(library, f"SELECT serial, {columns} FROM asset", BRANCH, REGION)
    assert row == (b"\0\xff", *values.values())
    (above,) = library.node(NATION).sql(f"SELECT {columns} FROM asset")
    assert above == (None, *list(values.values())[1:]), "a nation does not read prices"
    assert digest(library.node(NATION), BRANCH).digest == digest(library.node(BRANCH), BRANCH).digest


def test_a_deleted_row_keeps_exact_values_beneath(library: World) -> None:
    asset(library.node(BRANCH), price=0.1 + 0.2)
    asset(library.node(BRANCH), "2", price=5.0)
    equal(library, "SELECT id FROM asset", *LEVELS)
    library.node(BRANCH).sql("DELETE FROM asset")
    assert equal(library, "SELECT id FROM asset", *LEVELS) == []
    mine, theirs = (digest(library.node(unit), BRANCH) for unit in (BRANCH, REGION))
    assert mine.columns == theirs.columns


POLICIES = {
    "superior": ("title", ("branch", "region", "nation"), "nation"),
    "max": ("copies", (9, 4, 7), 9),
    "local": ("seen_at", ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z", "2022-01-01T00:00:00Z"), None),
    "union": ("subjects", ('["a"]', '["b"]', '["c"]'), '["a","b","c"]'),
}


@pytest.mark.parametrize(("name", "values", "shown"), POLICIES.values(), ids=POLICIES)
def test_three_levels_write_one_field_and_the_policy_decides_alike(
    library: World, name: str, values: tuple[Any, ...], shown: Any
) -> None:
    asset(library.node(BRANCH))
    equal(library, "SELECT id FROM asset", *LEVELS)
    for unit, value in zip(LEVELS, values, strict=True):
        library.node(unit).sql(f"UPDATE asset SET {name} = ?", value)
    expected = values[0] if shown is None else shown
    assert equal(library, f"SELECT {name} FROM asset", *LEVELS) == [(expected,)]
    told = [live(library.node(unit)) for unit in LEVELS]
    assert told[0] == told[1] == told[2]
    assert bool(told[0]) is (name != "subjects"), "elements of their own are no rivals"


def test_the_least_price_stands_between_those_who_read_it(library: World) -> None:
    asset(library.node(BRANCH), price=9.5)
    equal(library, "SELECT id FROM asset", *LEVELS)
    library.node(BRANCH).sql("UPDATE asset SET price = 8.0")
    library.node(REGION).sql("UPDATE asset SET price = 7.5")
    assert equal(library, "SELECT price FROM asset", BRANCH, REGION) == [(7.5,)]


def test_a_table_that_keeps_rows_keeps_one_edited_beside_a_delete(library: World) -> None:
    asset(library.node(BRANCH))
    equal(library, "SELECT id FROM asset", *LEVELS)
    library.node(NATION).sql("DELETE FROM asset")
    library.node(BRANCH).sql("UPDATE asset SET mark_60 = 'x'")
    assert equal(library, "SELECT mark_60 FROM asset", *LEVELS) == [("x",)]
    assert [(field, state) for _, _, _, field, _, state, _ in live(library.node(REGION))] == [("_alive", "settled")]


@pytest.mark.parametrize("publisher", LEVELS)
def test_a_catalogue_travels_down_and_up_from_whoever_publishes_it(library: World, publisher: str) -> None:
    statement = "INSERT INTO place_code (unit, id, kind, code) VALUES (?, '1', 'place', 'p1')"
    library.node(publisher).sql(statement, publisher)
    library.settle(2)
    for unit in LEVELS:
        assert library.node(unit).sql("SELECT unit, code FROM place_code") == [(publisher, "p1")]
    assert len({digest(library.node(unit), f"{publisher}/catalog").digest for unit in LEVELS}) == 1


def test_a_neighbour_sees_the_catalogue_above_and_no_rows(library: World) -> None:
    other = library.node("c.r.vn")
    asset(library.node(BRANCH))
    for unit in (BRANCH, REGION):
        statement = "INSERT INTO place_code (unit, id, kind, code) VALUES (?, '1', 'place', 'p')"
        library.node(unit).sql(statement, unit)
    library.settle(3)
    assert other.sql("SELECT unit FROM place_code") == [(REGION,)]
    assert other.sql("SELECT id FROM asset") == []
