"""Whole trees under faults (tests/simulation), and the histories that it found, each cut down to what matters."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from conflict.values import Epoch, Head, StreamId, UnitPath
from node.storage.decisions import Choice, NotDecided, refuse, release, resolve
from node.storage.digests import digest_scope
from node.storage.review import Wanted, conflicts, quarantine
from sync_engine.batch import NO_PREV
from sync_engine.branches import LostHistory
from sync_engine.exchange import Exchange
from sync_engine.frames import HeadsFrame, Hello
from tests.simulation.model import TOML
from tests.simulation.mutants import MUTANTS, caught, run_seed
from tests.simulation.settling import forbidden
from tests.world import World

ROOT = Path(__file__).parent.parent
PROVINCE, DISTRICT = "p.vn", "d.p.vn"
SEEDS = 16
"""More in ``make soak``."""

SOUND = ("mixed", "changed", "braked", "crowded", "restored")
"""Kinds of trees; the others are those of ``make simulation``."""

EARLY = (
    "ack before commit",
    "forgotten loser",
    "tie broken by arrival",
    "delete writes fields",
    "contested rows take the fast path",
    "an insert forgets its rivals",
    "nothing is withheld",
    "a head moves without its rows",
    "a late clock refuses",
    "any two edits are one",
    "a batch is taken again",
    "conflicts have numbers of their own",
    "a code that comes releases nothing",
    "a release forgets what was seen",
    "unknown codes are shown",
    "whoever enters a row again may write all of it",
    "what is shown is not confirmed",
    "who was renamed waits still",
    "a repeat stands for nothing",
    "twins are not listed",
    "what is driven out is not told",
)
"""Mutants that the first few seeds notice, each within ``EARLY_SEEDS``; which one is first depends on the order in
which this process walks through sets. ``make mutants`` shows all of them caught."""

EARLY_SEEDS = 12


# --- the simulator ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_no_seed_breaks_an_invariant_and_every_fault_fires() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_runs_alike_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "2"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    runs = {subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment).stdout for _ in range(2)}
    (trace,) = runs
    assert "nothing wrong (trace " in trace


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", EARLY)
def test_a_defect_is_noticed(mutant: str) -> None:
    assert caught(mutant, range(1, EARLY_SEEDS + 1)) is not None


def test_sound_code_passes_the_seeds_that_notice_defects() -> None:
    for kind in SOUND:
        assert run_seed(1, kind=kind).failure is None


def test_every_mutant_that_tests_rely_on_is_listed() -> None:
    assert set(EARLY) <= MUTANTS.keys()


# --- what it found ---------------------------------------------------------------------------------------------------


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> World:
    world = World(tmp_path, registry=TOML)
    world.node(DISTRICT).sql(
        "INSERT INTO person (unit, id, name, line, badges) VALUES (?, '1', 'An', 'street 1', ?)", DISTRICT, '["a"]'
    )
    world.settle(2)
    return world


def edits_by(world: World, register: str) -> set[str]:
    """Who has written a register, as the root knows it."""
    rows = world.node("vn").sql(
        "SELECT DISTINCT origin FROM _write JOIN _batch ON _batch.no = _write.batch"
        " JOIN _stream ON _stream.no = _batch.stream WHERE register = ?",
        register,
    )
    return {origin for (origin,) in rows}


def columns(world: World, unit: str) -> dict[str, bytes]:
    node = world.node(unit)
    with node.read() as connection:
        return digest_scope(connection, node.context, DISTRICT).columns


def test_an_edit_of_the_row_in_a_deleted_ones_place_is_no_edit_of_the_deleted_one(world: World) -> None:
    district = world.node(DISTRICT)
    with district.write() as connection:
        for sql in (
            "DELETE FROM person WHERE id = '1'",
            "INSERT INTO person (unit, id, name) VALUES ('d.p.vn', '1', 'Binh')",
            "UPDATE person SET line = 'street 2' WHERE id = '1'",
        ):
            connection.exec_driver_sql(sql)
    world.settle(2)
    an_s_address = world.node("vn").sql(
        "SELECT count(*) FROM _write JOIN _row USING (scope, tbl, id, identity)"
        " WHERE register = 'address' AND _row.alive = 0"
    )
    assert an_s_address == [(0,)]
    assert world.node("vn").sql("SELECT name, line FROM person") == [("Binh", "street 2")]


def test_an_edit_before_a_delete_is_sealed_with_the_value_it_had(world: World) -> None:
    district = world.node(DISTRICT)
    with district.write() as connection:
        for sql in (
            "UPDATE person SET line = 'street 2' WHERE id = '1'",
            "DELETE FROM person WHERE id = '1'",
            "INSERT INTO person (unit, id, name) VALUES ('d.p.vn', '1', 'Binh')",
        ):
            connection.exec_driver_sql(sql)
    world.settle(2)
    assert edits_by(world, "address") == {DISTRICT}


def test_a_deleted_row_does_not_take_on_the_set_of_the_row_in_its_place(world: World) -> None:
    district = world.node(DISTRICT)
    with district.write() as connection:
        for sql in (
            "DELETE FROM person WHERE id = '1'",
            """INSERT INTO person (unit, id, name, badges) VALUES ('d.p.vn', '1', 'Binh', '["b","c"]')""",
            """UPDATE person SET badges = '["b"]' WHERE id = '1'""",
        ):
            connection.exec_driver_sql(sql)
    world.settle(2)
    assert columns(world, DISTRICT)["person.badges"] == columns(world, PROVINCE)["person.badges"]


def test_decomposed_text_of_a_deleted_row_does_not_set_its_last_edits_aside(world: World) -> None:
    district, decomposed = world.node(DISTRICT), unicodedata.normalize("NFD", "한글")
    with district.write() as connection:
        sql = "UPDATE person SET note = ?, town = 'Hue' WHERE id = '1'"
        connection.exec_driver_sql(sql, (decomposed,))
        connection.exec_driver_sql("DELETE FROM person WHERE id = '1'")
    world.settle(2)
    assert district.sql("SELECT count(*) FROM _set_aside") == [(0,)]
    assert edits_by(world, "note") == edits_by(world, "address") == {DISTRICT}


def add_code(world: World, unit: str, *codes: str) -> None:
    for code in codes:
        world.node(unit).sql("INSERT INTO word (unit, id, kind, code) VALUES (?, ?, 'trade', ?)", unit, code, code)


def test_what_an_insert_left_out_is_not_shown_again_when_the_code_of_a_later_edit_in_its_batch_comes(
    world: World,
) -> None:
    """At one node the code came before the batch, at another after it: both must keep the same."""
    district = world.node(DISTRICT)
    district.sql("INSERT INTO thing (unit, id, label) VALUES (?, '1', 'a')", DISTRICT)
    time.sleep(0.002)  # capture's clock is SQLite's own
    district.sql("UPDATE thing SET home = 'c1'")
    district.seal()
    add_code(world, "vn", "c1")
    world.settle(3)
    rows = {unit: world.node(unit).sql("SELECT home FROM thing") for unit in (PROVINCE, DISTRICT)}
    assert rows == {PROVINCE: [("c1",)], DISTRICT: [("c1",)]}


def test_of_two_held_values_whose_codes_come_at_once_the_later_has_seen_the_earlier(world: World) -> None:
    district = world.node(DISTRICT)
    codes = [f"c{at}" for at in range(8)]
    for code in codes:
        district.sql("INSERT INTO thing (unit, id, label, home) VALUES (?, ?, 'a', ?)", DISTRICT, code, code)
    district.seal()
    district.sql("UPDATE thing SET home = 'right'")
    district.seal()
    add_code(world, "vn", *codes, "right")
    world.settle(3)
    assert world.node(PROVINCE).sql("SELECT DISTINCT home FROM thing") == [("right",)]


def test_a_twin_entered_at_a_fast_clock_gets_an_id_of_its_own_by_the_clock_of_who_gives_it(world: World) -> None:
    """A row under a new id replaces nothing: its time may not come from another's clock."""
    for unit, name in ((DISTRICT, "An"), (PROVINCE, "Binh")):
        world.node(unit).sql("INSERT INTO thing (unit, id, label) VALUES (?, '2', ?)", DISTRICT, name)
    world.settle(2)
    (twin,) = world.node(PROVINCE).look(conflicts, Wanted(only_open=True))
    world.now = 1_000_000
    world.node(PROVINCE).rewrite(resolve, Choice(twin["id"], new_id="3"))
    assert world.node(PROVINCE).sql("SELECT time FROM _row WHERE id = '3'") == [(world.now << 16,)]


def test_who_has_got_an_id_of_their_own_is_not_given_another(world: World) -> None:
    for unit, name in ((DISTRICT, "An"), (PROVINCE, "Binh")):
        world.node(unit).sql("INSERT INTO thing (unit, id, label) VALUES (?, '2', ?)", DISTRICT, name)
    world.settle(2)
    province = world.node(PROVINCE)
    (twin,) = province.look(conflicts, Wanted(only_open=True))
    province.rewrite(resolve, Choice(twin["id"], new_id="3"))
    with pytest.raises(NotDecided):
        province.rewrite(resolve, Choice(twin["id"], new_id="4"))
    assert province.sql("SELECT id FROM thing ORDER BY id") == [("2",), ("3",)]


def test_a_held_value_that_no_table_may_show_cannot_be_kept(world: World) -> None:
    """It would be shown where it was chosen, and held at every other node."""
    province, district = world.node(PROVINCE), world.node(DISTRICT)
    district.sql("UPDATE person SET name = 'Binh'")
    district.seal()
    (who,) = province.sql("SELECT name, id, identity FROM _row JOIN _scope ON _scope.no = scope WHERE tbl = 11")
    province.rewrite(forbidden, who, {"name": None})
    world.settle(2)
    (found,) = province.look(conflicts, Wanted(only_open=True))
    (nothing,) = [each["n"] for each in found["writes"] if each["value"] is None]
    with pytest.raises(NotDecided):
        province.rewrite(resolve, Choice(found["id"], keep=nothing))


def test_to_refuse_a_code_beside_one_that_was_released_holds_nothing_anew(world: World) -> None:
    province, district = world.node(PROVINCE), world.node(DISTRICT)
    for code, decide in (("pilot", release), ("captain", refuse)):
        district.sql("UPDATE person SET trade = ?", code)
        world.settle(2)
        (held,) = province.look(quarantine)
        province.rewrite(decide, held["id"], None, None)
        world.settle(2)
    for unit in (DISTRICT, PROVINCE, "vn"):
        assert world.node(unit).look(quarantine) == []
        assert world.node(unit).sql("SELECT trade FROM person") == [("pilot",)]


def test_what_is_left_alone_is_not_overwritten(world: World) -> None:
    """A district that enters a row again leaves the province's field alone; an unknown code replaces none."""
    district = world.node(DISTRICT)
    world.node("vn").sql("INSERT INTO word (unit, id, kind, code) VALUES ('vn', '1', 'trade', 'nurse')")
    world.node(PROVINCE).sql("UPDATE person SET card = '17', trade = 'nurse', note = 'x'")
    world.settle(2)
    with district.write() as connection:
        connection.exec_driver_sql("DELETE FROM person")
        connection.exec_driver_sql("INSERT INTO person (unit, id, name, trade) VALUES ('d.p.vn', '1', 'An', 'pilot')")
    district.seal()
    told = {each["field"] for each in district.look(conflicts) if each["state"] == "overwritten"}
    assert told == {"note"}
    assert district.sql("SELECT card, trade FROM person") == [("17", "nurse")]


def head_of(seq: int, branch: bytes) -> Head:
    return Head(StreamId(UnitPath(DISTRICT), Epoch("00000000000000a1"), "d.p.vn"), seq, branch * 32)  # type: ignore[arg-type]


def hello_of(unit: str, branch: bytes) -> Hello:
    return Hello(UnitPath(unit), Epoch("00000000000000a1"), NO_PREV, NO_PREV, (1, NO_PREV), 0, b"", branch, "test")


def test_a_node_shown_another_batch_of_its_own_at_one_number_begins_a_new_life() -> None:
    """It was restored and has sealed since: went it on, it would fork its other streams, too."""
    mine, theirs = head_of(3, b"a"), head_of(3, b"b")
    exchange = Exchange(
        hello_of(DISTRICT, b"a"), {mine.stream: mine}, child=UnitPath(DISTRICT), peer=UnitPath(PROVINCE)
    )
    exchange.on_frame(hello_of(PROVINCE, b"b"))
    assert LostHistory() in exchange.on_frame(HeadsFrame((theirs,)))
