"""Whole trees under faults (tests/simulation), and the histories that it found, each cut down to what matters."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from conflict.values import Epoch, Head, StreamId, UnitPath
from node.storage.digests import digest_scope
from sync_engine.batch import NO_PREV
from sync_engine.errors import Fenced
from sync_engine.exchange import Exchange
from sync_engine.frames import HeadsFrame, Hello
from tests.simulation.model import TOML
from tests.simulation.mutants import MUTANTS, caught, run_seed
from tests.simulation.swarm import KINDS
from tests.world import World

ROOT = Path(__file__).parent.parent
PROVINCE, DISTRICT = "p.vn", "d.p.vn"
SEEDS = 250
"""More in ``make soak``."""

EARLY = {
    "ack before commit": 1,
    "forgotten loser": 1,
    "trust the sender's checkpoint": 2,
    "tie broken by arrival": 5,
    "delete writes fields": 1,
    "fast path looks at nothing": 3,
    "contested rows take the fast path": 2,
    "an insert forgets its rivals": 1,
    "nothing is withheld": 1,
    "a restored node is not fenced": 2,
    "a union is never taken from": 2,
    "a head moves without its rows": 1,
    "a late clock refuses": 1,
    "a write is no later than what it replaces": 3,
    "any two edits are one": 1,
    "a batch is taken again": 1,
    "digests tell of arrival": 1,
    "conflicts have numbers of their own": 2,
    "clocks are absorbed": 1,
    "credit is ignored": 5,
}
"""Mutants that the first seeds notice, and which; ``make mutants`` shows all of them caught."""


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
@pytest.mark.parametrize(("mutant", "seeds"), EARLY.items(), ids=EARLY)
def test_a_defect_is_noticed(mutant: str, seeds: int) -> None:
    assert caught(mutant, range(1, 1 + 2 * seeds)) is not None


def test_sound_code_passes_the_seeds_that_notice_defects() -> None:
    for kind in KINDS:
        assert run_seed(1, kind=kind).failure is None


def test_every_mutant_that_tests_rely_on_is_listed() -> None:
    assert EARLY.keys() <= MUTANTS.keys()


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


def head_of(seq: int, branch: bytes) -> Head:
    return Head(StreamId(UnitPath(DISTRICT), Epoch("00000000000000a1"), "d.p.vn"), seq, branch * 32)  # type: ignore[arg-type]


def hello_of(unit: str, branch: bytes) -> Hello:
    return Hello(UnitPath(unit), Epoch("00000000000000a1"), NO_PREV, NO_PREV, (1, NO_PREV), 0, b"", branch, "test")


def test_a_node_shown_another_batch_of_its_own_at_one_number_stops() -> None:
    """It was restored and has sealed since: were only that stream frozen, it would fork the others, too."""
    mine, theirs = head_of(3, b"a"), head_of(3, b"b")
    exchange = Exchange(
        hello_of(DISTRICT, b"a"), {mine.stream: mine}, child=UnitPath(DISTRICT), peer=UnitPath(PROVINCE)
    )
    exchange.on_frame(hello_of(PROVINCE, b"b"))
    with pytest.raises(Fenced):
        exchange.on_frame(HeadsFrame((theirs,)))
