"""The service ends when asked, goes on when started again, and commands are the same with and without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from sync_engine.frames import Hello
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, dongbo, until
from tests.e2e.raw import Identity, exchange, hello_from
from tests.e2e.writing import write_members

STOP_S = 5.0
ROWS = 10_000


def held(home: Home) -> int:
    return int(home.sql("SELECT count(*) FROM _batch")[0][0])


def test_sigterm_ends_a_service_within_seconds_in_mid_session_and_a_start_goes_on(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    district.configure(on_change="true", every_s="1.0", jitter_s="0.1", backoff_max_s="0.5")
    line.start(PROVINCE, DISTRICT)

    for home in (province, district):
        least = held(province) + 1
        write_members(district, ROWS, seed=len(home.unit), at_once=ROWS)
        until("batches flow", lambda least=least: held(province) >= least, tail=line.tails)
        under_way = held(province) < held(district) or district.sql("SELECT 1 FROM _pending LIMIT 1")
        assert under_way, "the session was over before the signal: more rows are needed"
        took = home.stop()
        print(f"\n{home.unit} ended {took:.2f} s after SIGTERM in mid-session")
        assert took < STOP_S
        home.start()

    del line.homes[CENTRE]
    line.assert_in_step(deadline_s=60)
    assert province.sql("SELECT count(*) FROM member") == [(2 * ROWS,)]
    for home in line.homes.values():
        assert home.json("verify")["ok"]
        assert "Traceback" not in home.log, home.tail()


async def test_sigterm_does_not_wait_for_a_child_that_has_fallen_silent_in_mid_session(line: Cluster) -> None:
    province, district = line[PROVINCE], line[DISTRICT]
    write_members(district, 1, seed=4)
    province.start()
    async with exchange(province.port, PROVINCE, Identity.at(district)) as half:
        await half.say(hello_from(district, digest=b"\1" * 32))
        assert isinstance(await half.hear(), Hello)
        took = await asyncio.to_thread(province.stop)
    assert took < STOP_S
    province.start()
    assert district.sync()["ok"]


def test_sigterm_ends_a_service_at_rest_and_leaves_no_socket(line: Cluster) -> None:
    line.start(PROVINCE)
    assert (line[PROVINCE].path / "control.sock").exists() or len(str(line[PROVINCE].path)) > 80
    assert line[PROVINCE].stop() < STOP_S
    assert not (line[PROVINCE].path / "control.sock").exists()
    assert line[PROVINCE].json("status")["running"] is False


# --- the same answers with and without the service -------------------------------------------------------------------

STATUS = {
    "unit", "version", "registry_version", "running", "parent", "children", "pending_changes", "unsent_batches",
    "waiting_batches", "waiting_for", "conflicts_open", "held", "quarantined", "frozen", "records", "scopes",
}  # fmt: skip
WRITE = {"value", "origin", "level", "at", "won"}
KEYS: dict[str, set[str]] = {
    "status": STATUS,
    "status.unit": {"id", "name", "level"},
    "status.parent": {"unit", "address", "state", "last_sync_at", "last_error", "clock_skew_ms"},
    "status.children[]": {"unit", "name", "level", "state", "last_seen_at", "behind_batches", "clock_skew_ms"},
    "status.records": {"member", "catalog"},
    "status.scopes[]": {"scope", "unit", "rows", "digest", "digests", "heads"},
    "sync": {
        "ok", "peer", "sent_batches", "sent_bytes", "received_batches", "received_bytes", "applied_rows", "conflicts",
        "seconds", "error",
    },
    "verify": {"ok", "batches", "bad", "scopes"},
    "verify.scopes[]": {"scope", "rows", "digest", "matches_parent"},
    "conflicts[]": {"id", "table", "key", "field", "scope", "state", "policy", "shown", "writes"},
    "conflicts[].writes[]": WRITE,
    "units[]": {"unit", "name", "level", "has_node"},
}  # fmt: skip


def shapes(name: str, value: Any) -> dict[str, set[str]]:
    """The keys of every object in a document, by its place."""
    found: dict[str, set[str]] = {}
    if isinstance(value, dict):
        found[name] = set(value)
        for key, inner in value.items():
            found |= shapes(f"{name}.{key}", inner)
    elif isinstance(value, list) and value:
        found |= shapes(f"{name}[]", value[0])
    return found


@pytest.fixture(scope="module")
def contested(template: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A member whose status two levels changed without knowing of each other: one settled conflict."""
    with template.copy(tmp_path_factory.mktemp("contested"), CENTRE, PROVINCE, DISTRICT) as line:
        contest(line)
        yield line


def contest(line: Cluster) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    (key,) = write_members(district, 1, seed=6)
    line.start()
    district.sync()
    change = "UPDATE member SET status = ? WHERE unit = ? AND id = ?"
    province.sql(change, "exempt", DISTRICT, key)
    district.sql(change, "deceased", DISTRICT, key)
    district.sync()
    province.sync()


def test_a_conflict_has_the_same_number_and_loser_at_every_level(contested: Cluster) -> None:
    found = {unit: home.json("conflicts") for unit, home in contested.homes.items()}
    assert [each["state"] for each in found[PROVINCE]].count("overwritten") == 1, "the district's value had just come"
    rivals = {unit: [each for each in told if each["state"] != "overwritten"] for unit, told in found.items()}
    assert len({conflicts[0]["id"] for conflicts in rivals.values()}) == 1
    for conflicts in rivals.values():
        (conflict,) = conflicts
        assert (conflict["state"], conflict["policy"], conflict["shown"]) == ("settled", "superior", "exempt")
        assert {write["value"]: (write["origin"], write["won"]) for write in conflict["writes"]} == {
            "exempt": (PROVINCE, True),
            "deceased": (DISTRICT, False),
        }
    contested.assert_in_step()


def test_commands_give_the_same_keys_with_and_without_the_service(contested: Cluster) -> None:
    province = contested[PROVINCE]
    met: dict[bool, dict[str, set[str]]] = {}
    for running in (True, False):
        if not running:
            province.stop()
        met[running] = {}
        for command in ("status", "sync", "conflicts", "verify", "units"):
            answer = province.dongbo(command, "--json")
            assert answer.err == "", "nothing is told beside the document"
            document = json.loads(answer.out)
            if command == "status":
                assert document["running"] is running
            met[running] |= shapes(command, document)
    assert met[True] == met[False]
    missing = {place: keys - met[True].get(place, set()) for place, keys in KEYS.items()}
    assert not {place: keys for place, keys in missing.items() if keys}


USAGE = {
    "a command that does not exist": ("frobnicate",),
    "an option that does not exist": ("status", "--colour"),
    "an option without its value": ("invite", "hue", "--name"),
    "a missing argument": ("join",),
    "a registry that is not there": ("init", "--unit", "vn", "--name", "V", "--registry", "missing.toml"),
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_status_2_and_says_so_on_standard_error(tmp_path: Any, name: str) -> None:
    answer = dongbo(*USAGE[name], env={"DONGBO_HOME": str(tmp_path / "home")})
    assert (answer.code, answer.out) == (2, "")
    assert "Error: " in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "home").exists()


def test_a_command_without_a_home_says_what_is_missing() -> None:
    answer = dongbo("status", env={"DONGBO_HOME": ""})
    assert answer.code == 2
    assert "--home" in answer.err


def test_a_failed_sync_with_json_prints_one_document_and_one_line(line: Cluster) -> None:
    centre = line[CENTRE].dongbo("sync", "--json", code=1)
    assert centre.document["ok"] is False
    assert KEYS["sync"] <= set(centre.document)
    assert "root" in centre.complaint
