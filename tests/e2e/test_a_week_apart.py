"""A week apart, with real processes: every value that lost is told, what machines cannot settle waits, clerks settle it
in their terminals, and of what the centre may not read there is no byte in its files, its log or its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import traces
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE, SECOND
from tests.e2e.processes import Cluster, differences
from tests.e2e.shifts import Shift
from tests.e2e.week import (
    ALL,
    MEMBERS,
    OPEN_MARK,
    PERSONS,
    PRIVATE,
    Journal,
    Member,
    Place,
    as_json,
    enter,
    gone,
    live_apart,
    place_of,
    told,
    values_told,
)

MARKS = PRIVATE | OPEN_MARK
Entries = list[dict[str, Any]]


@dataclass(frozen=True)
class Week:
    """The tree after the sync, all four services running; what was written; what each journal told then."""

    tree: Cluster
    written: Journal
    journals: Mapping[str, Entries]


@pytest.fixture(scope="module")
def week(template: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Week]:
    with template.copy(tmp_path_factory.mktemp("week")) as tree:
        start_with_own_temp(tree, CENTRE)
        tree.start(PROVINCE, DISTRICT, SECOND)
        enter(tree)
        tree.settle(1)
        written = live_apart(tree)
        tree.settle(2)
        tree.assert_in_step()
        yield Week(tree, written, {unit: tree[unit].json("conflicts") for unit in ALL})


def start_with_own_temp(tree: Cluster, unit: str) -> None:
    """Its temporary files are searched with its home."""
    home = tree[unit]
    temporary = home.path / "temp"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TMPDIR", "SQLITE_TMPDIR"):
            patch.setenv(name, str(temporary))
        home.start()


# --- what the sync has made of the week ---


def test_every_value_that_lost_is_in_the_journal_of_every_node_that_may_read_it(week: Week) -> None:
    for unit, entries in week.journals.items():
        live = {place_of(each): told(each) for each in entries if each["live"]}
        assert live == week.written.expected(unit), unit
        assert len(live) == sum(each["live"] for each in entries), unit
        over = {place_of(each): told(each) for each in entries if each["state"] == "overwritten"}
        assert over == week.written.replaced_at_once(unit), unit
        known = values_told(each for each in entries if each["state"] != "overwritten")
        assert known == values_told(each for each in entries if each["live"]), "nothing that nobody wrote"
        for write in (write for each in entries if each["live"] for write in each["writes"]):
            assert write["person"] in (PERSONS[write["origin"]], None), write
            assert write["person"] or write["value"] in (False, True), write


def test_the_birth_dates_and_the_deletes_wait_and_have_one_number_everywhere(week: Week) -> None:
    waits = {(each.unit, each.id, "identity") for each in MEMBERS}
    waits |= {(unit, key, "_alive") for unit, key in gone(CENTRE)}
    numbers: dict[Place, int] = {}
    for unit, entries in week.journals.items():
        found = {place_of(each) for each in entries if each["state"] == "open"}
        assert found == {place for place in waits if place[0].endswith(unit)}, unit
        for each in entries:
            if each["live"]:
                assert numbers.setdefault(place_of(each), each["id"]) == each["id"], (unit, each)
    assert len(set(numbers.values())) == len(numbers)


def test_no_byte_of_a_private_field_is_at_the_centre_and_the_search_finds_it_at_the_province(week: Week) -> None:
    assert traces.everywhere(MARKS, week.tree[CENTRE]) == {"disk": {"note"}, "process": {"note"}}
    assert traces.everywhere(MARKS, week.tree[PROVINCE]) == {"disk": set(MARKS), "process": set(MARKS)}


# --- clerks at work ---

NEVER_EXISTED = ("1", "2")
"""Of the deleted members, those for whom the delete was right."""
READ_BY_ALL = (
    "unit, id, full_name, birth_date, sex, occupation, status, languages, address_line, address_commune,"
    " address_province, note"
)
QUEUES = ("conflicts_open", "held", "quarantined", "waiting_batches", "pending_changes", "unsent_batches", "frozen")


def choice(entry: Mapping[str, Any]) -> str:
    """How clerks decide here: every way there is, by the member's number."""
    number = int(entry["key"])
    if entry["field"] == "_alive":
        return "d" if entry["key"] in NEVER_EXISTED else "k"
    return f"{number:02}/09/1980" if number % 4 == 0 else str(number % 4)


def test_clerks_settle_all_in_their_terminals_and_all_queues_are_empty_everywhere(week: Week) -> None:
    tree = week.tree
    write_a_stale_form_back(week)
    overturned = overturn(week)
    first, second = Shift(tree[DISTRICT], "Lan", choice), Shift(tree[SECOND], "Sen", choice)
    assert first.work(at_most=9).startswith("Settled: 9. Skipped: 0. Not looked at: ")
    assert second.work(at_most=5).startswith("Settled: 5. Skipped: 0. Not looked at: 20.")
    tree.settle(1)
    rest = Shift(tree[PROVINCE], "Minh", choice)
    assert rest.work().startswith(f"Settled: {len(rest.chosen)}. Skipped: 0. Not looked at: 0.")
    tree.settle(2)

    chosen = first.chosen | second.chosen | rest.chosen
    assert len(chosen) == len(first.chosen) + len(second.chosen) + len(rest.chosen), "nobody settled what was settled"
    places = {each["id"]: place_of(each) for each in week.journals[CENTRE] if each["state"] == "open"}
    assert_nothing_waits(tree)
    assert_shown(tree, {places[number]: value for number, value in chosen.items()})
    assert_told_alike(week, set(chosen), overturned)
    assert traces.everywhere(MARKS, tree[CENTRE]) == {"disk": {"note"}, "process": {"note"}}


def write_a_stale_form_back(week: Week) -> None:
    """A screen that was opened at the district before the sync is saved after it: what came is told as written over."""
    member, district = Member(DISTRICT, 21), week.tree[DISTRICT]
    names = ("occupation", "status")
    mine, centres = member.edit(DISTRICT), member.edit(CENTRE)
    shown = district.sql("SELECT occupation, status FROM member WHERE id = ?", member.id)
    assert shown == [tuple(centres[name] for name in names)], "the centre came last"
    district.sql(
        "UPDATE member SET occupation = ?, status = ? WHERE id = ?", *(mine[name] for name in names), member.id
    )
    district.sync()
    found = {each["field"]: told(each) for each in district.json("conflicts") if each["state"] == "overwritten"}
    assert found == {
        name: frozenset([(CENTRE, as_json(centres[name]), False), (DISTRICT, as_json(mine[name]), True)])
        for name in names
    }


def overturn(week: Week) -> int:
    """The rule has shown what the centre wrote; the province decides for the district. Gives the conflict's number."""
    member = Member(SECOND, 20)
    right = member.edit(SECOND)["status"]
    (entry,) = [each for each in week.journals[PROVINCE] if place_of(each) == (SECOND, "20", "status") and each["live"]]
    keep = next(each["n"] for each in entry["writes"] if each["value"] == right)
    done = week.tree[PROVINCE].json(
        "conflicts", "resolve", str(entry["id"]), "--keep", str(keep), "--by", "Minh", "--why", "quyết định 12"
    )
    assert (done["value"], done["overturned"]) == (right, True)
    number: int = entry["id"]
    return number


def assert_nothing_waits(tree: Cluster) -> None:
    statuses = {unit: tree[unit].json("status") for unit in ALL}
    assert differences(statuses) == []
    for unit, status in statuses.items():
        assert {key: status[key] for key in QUEUES if status[key]} == {}, unit
        assert tree[unit].json("conflicts", "--open") == []
        assert tree[unit].json("quarantine") == []
        assert tree[unit].json("verify")["ok"]


def assert_shown(tree: Cluster, chosen: Mapping[Place, Any]) -> None:
    """Every table shows what was chosen, and the same as the others."""
    everything = tree[CENTRE].sql(f"SELECT {READ_BY_ALL} FROM member ORDER BY unit, id")
    assert tree[PROVINCE].sql(f"SELECT {READ_BY_ALL} FROM member ORDER BY unit, id") == everything
    for unit in (DISTRICT, SECOND):
        of_unit = "SELECT * FROM member WHERE unit = ? ORDER BY id"
        assert tree[unit].sql(of_unit, unit) == tree[PROVINCE].sql(of_unit, unit), "private fields too"
    shown = {(unit, key): [name, day] for unit, key, name, day, *_rest in everything}
    assert shown.keys() == {(each.unit, each.id) for each in MEMBERS} - {(DISTRICT, key) for key in NEVER_EXISTED}
    for (unit, key, field), value in chosen.items():
        if field == "identity" and (unit, key) in shown:
            assert shown[unit, key] == value, (unit, key)
    assert {place for place in chosen if place[2] == "_alive"} == {(*each, "_alive") for each in gone(CENTRE)}
    (after,) = tree[CENTRE].sql("SELECT status FROM member WHERE unit = ? AND id = '20'", SECOND)
    assert after == (Member(SECOND, 20).edit(SECOND)["status"],)


def assert_told_alike(week: Week, settled: set[int], overturned: int) -> None:
    """Each journal still has all that was lost, and says who decided, as all others say it."""
    decided: dict[int, tuple[Any, ...]] = {}
    for unit in ALL:
        entries = week.tree[unit].json("conflicts")
        assert values_told(week.journals[unit]) <= values_told(entries), unit
        for each in entries:
            if each["id"] in settled or each["id"] == overturned:
                assert each["state"] == ("overturned" if each["id"] == overturned else "settled"), (unit, each)
                said = (each["decided"]["act"], each["decided"]["unit"], each["decided"]["person"])
                assert decided.setdefault(each["id"], said) == said, (unit, each)
    assert decided.keys() == settled | {overturned}
    assert decided.pop(overturned) == ("overturn", PROVINCE, "Minh")
    people = {("resolve", DISTRICT, "Lan"), ("resolve", SECOND, "Sen"), ("resolve", PROVINCE, "Minh")}
    assert set(decided.values()) == people
