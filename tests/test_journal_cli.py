"""``dongbo conflicts`` and ``dongbo quarantine`` on the command line: what they ask of the node, and what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from node.cli import journal, quarantine, views
from node.cli.main import main
from node.messages import say
from tests.journals import FakeNode, address, birth_date, conflict, delete_beside_edit, held, language, twins, write

Run = Callable[..., Result]
MIDNIGHT = round(datetime(2026, 11, 24).astimezone().timestamp() * 1000)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode([birth_date(1), delete_beside_edit(2), address(3), twins(4), language(5)], [held(12)])


@pytest.fixture
def run(node: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs one command of the command line on the node."""

    def execute(home: Path, name: str, arguments: Mapping[str, Any], progress: Callable[..., None]) -> Any:
        assert home == tmp_path
        progress({})
        return node.ask(name, arguments)

    monkeypatch.setattr(journal, "execute", execute)
    monkeypatch.setattr(quarantine, "execute", execute)

    def invoke(*arguments: str, home: bool = True) -> Result:
        return CliRunner().invoke(main, [*arguments, *(("--home", str(tmp_path)) if home else ())])

    return invoke


# --- what is asked ---

NO_FILTER = {"open": False, "unit": None, "table": None, "field": None, "since": None, "number": None}
LISTS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "all": ([], {}),
    "only what waits": (["--open"], {"open": True}),
    "one unit": (["--unit", "phu-vang.hue.vn"], {"unit": "phu-vang.hue.vn"}),
    "one field of one table": (["--table", "member", "--field", "status"], {"table": "member", "field": "status"}),
    "since a day as people write it": (["--since", "24/11/2026"], {"since": MIDNIGHT}),
    "since a day as programs write it": (["--since", "2026-11-24"], {"since": MIDNIGHT}),
}


@pytest.mark.parametrize(("options", "asked"), LISTS.values(), ids=LISTS)
def test_the_list_asks_for(run: Run, node: FakeNode, options: list[str], asked: dict[str, Any]) -> None:
    done = run("conflicts", *options, "--json")
    assert (done.exit_code, node.asked) == (0, [("conflicts", {**NO_FILTER, **asked})])
    assert isinstance(json.loads(done.stdout), list)


RESOLVED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a write": (["1", "--keep", "2"], {"number": 1, "keep": 2}),
    "a value": (["1", "--value", "12/03/1962"], {"number": 1, "value": "12/03/1962"}),
    "no value": (["1", "--value", ""], {"number": 1, "value": ""}),
    "a value with an equals sign": (["1", "--value", "a=b"], {"number": 1, "value": "a=b"}),
    "one field of a group": (["3", "--value", "address_line=a=b"], {"number": 3, "value": {"address_line": "a=b"}}),
    "two fields of a group": (
        ["3", "--value", "address_line=5 Lê Lợi", "--value", "address_province="],
        {"number": 3, "value": {"address_line": "5 Lê Lợi", "address_province": ""}},
    ),
    "an id for the second person": (["4", "--new-id", "tdq"], {"number": 4, "new_id": "tdq"}),
    "an id that is made": (["4", "--new-id", ""], {"number": 4, "new_id": ""}),
    "who and why": (["1", "--keep", "1", "--by", "Lan", "--why", "căn cước"], {"number": 1, "keep": 1, "by": "Lan"}),
}


@pytest.mark.parametrize(("arguments", "asked"), RESOLVED.values(), ids=RESOLVED)
def test_resolve_sends(run: Run, node: FakeNode, arguments: list[str], asked: dict[str, Any]) -> None:
    done = run("conflicts", "resolve", *arguments, "--json")
    assert done.exit_code == 0, done.output
    why = {"why": "căn cước"} if "--why" in arguments else {}
    assert node.decisions == [asked | why]
    assert json.loads(done.stdout)["number"] == asked["number"]


USAGE: dict[str, tuple[list[str], str]] = {
    "nothing said": (["conflicts", "resolve", "1"], "say one of --keep, --value and --new-id"),
    "two things said": (["conflicts", "resolve", "1", "--keep", "1", "--value", "x"], "say one of"),
    "a group's value without its field": (
        ["conflicts", "resolve", "3", "--value", "Huế"],
        "the fields here are address_line, address_commune, address_province",
    ),
    "a field twice": (["conflicts", "resolve", "3", "--value", "a=1", "--value", "a=2"], "says a twice"),
    "no number": (["conflicts", "show"], "Missing argument 'N'"),
    "no day": (["conflicts", "--since", "31/02/2026"], "'31/02/2026' is no date: write 24/11/2026 or 2026-11-24"),
    "an option before the subcommand": (
        ["conflicts", "--json", "show", "1"],
        "options stand behind 'show': dongbo conflicts show ... --json",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_status_2_and_decides_nothing(run: Run, node: FakeNode, arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert node.decisions == []


@pytest.mark.parametrize("command", ["conflicts", "quarantine"])
def test_a_list_without_a_home_is_wrong_usage(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DONGBO_HOME", raising=False)
    done = run(command, home=False)
    assert (done.exit_code, "--home" in done.stderr) == (2, True)


REFUSED: dict[str, tuple[list[str], str]] = {
    "a conflict that is not here": (["conflicts", "show", "99"], "dongbo: there is no conflict 99 here"),
    "a decision about none": (["conflicts", "resolve", "99", "--keep", "1"], "dongbo: there is no conflict 99 here"),
    "a held value that is not here": (["quarantine", "release", "99"], "dongbo: no value is held aside here under 99"),
    "a value that is none": (["conflicts", "resolve", "1", "--value", "x"], "dongbo: x is no date"),
    "a review without a terminal": (["conflicts", "review"], "dongbo: 'dongbo conflicts review' asks for keys"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_status_1_with_a_line_and_what_to_do(
    run: Run, node: FakeNode, arguments: list[str], said: str
) -> None:
    node.refuses["x"] = "x is no date"
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    first, hint = done.stderr.splitlines()
    assert first.startswith(said)
    assert hint.startswith("        ")


# --- what is said ---


def test_the_list_tells_each_write_with_its_number_unit_person_and_time(run: Run, node: FakeNode) -> None:
    rivals = [write(1, "1962-03-12", won=True), write(2, None, person=None)]
    node.journal = [conflict(219043332105, "birth_date", rivals)]
    lines = run("conflicts").stdout.splitlines()
    at = [line.rsplit(", ", 1)[1] for line in lines if "(district)" in line]
    assert all(datetime.strptime(each, "%d/%m/%Y %H:%M") for each in at)  # noqa: DTZ007 - only its form is looked at
    assert lines == [
        "219043332105  open: waits for a person",
        "  Nguyễn Thị Hồng Phượng, 12/03/1962, nữ  (member 17 of phu-vang.hue.vn)",
        "  Ngày sinh",
        "  rule 'review': a person decides",
        "    1  shown now  12/03/1962",
        f"                  phu-vang.hue.vn (district), Lê Thị Lan, {at[0]}",
        "    2  waits      -",
        f"                  phu-vang.hue.vn (district), {at[1]}",
        "",
        "To settle what is open, one after another: 'dongbo conflicts review'.",
    ]


SHOWN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an open one can be settled": (birth_date(), ["1 --keep WRITE' or '--value VALUE'"]),
    "of an open one elsewhere": (
        birth_date(may_settle=False),
        ["open: waits for a person at a unit that may settle it", "This unit may not settle it; one that may does."],
    ),
    "a delete has no other value": (delete_beside_edit(), ["record deleted", "2 --keep WRITE'; or"]),
    "an element of a set is there or not": (language(), ["en: there", "en: not there", "5 --keep WRITE'; or"]),
    "a group on one line": (address(), ["12 Phạm Văn Đồng; Phường Vỹ Dạ; Thành phố Huế", "Phường Vỹ Dạ; -"]),
    "two people under one id": (twins(), ["Họ và tên khai sinh: Trương Đình Quốc", "--new-id ID", "waits for an id"]),
    "a past one can be decided otherwise": (
        birth_date(
            state="settled",
            live=False,
            decided={"act": "resolve", "unit": "hue.vn", "person": "Trần Văn Minh", "at": 0, "why": "căn cước"},
        ),
        ["Decided by Trần Văn Minh, hue.vn, ", "Reason: căn cước", "To decide otherwise: ", "was shown", "waited"],
    ),
    "what a form wrote over": (
        conflict(
            6, "note", [write(1, "mới", won=True), write(2, "cũ")], state="overwritten", policy="latest", live=False
        ),
        ["was replaced soon after", "stands", "was replaced", "rule 'latest': the later change is shown"],
    ),
    "what a rule settled": (birth_date(state="settled", policy="superior"), ["1 won", "2 lost", "rule 'superior'"]),
    "a rule of a later version": (birth_date(policy="median"), ["rule 'median'"]),
    "a record that is no longer shown": (birth_date(row=None), ["  member 17 of phu-vang.hue.vn"]),
}


@pytest.mark.parametrize(("entry", "told"), SHOWN.values(), ids=SHOWN)
def test_show_tells(run: Run, node: FakeNode, entry: dict[str, Any], told: list[str]) -> None:
    node.journal = [entry]
    done = run("conflicts", "show", str(entry["id"]))
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert [each for each in told if " ".join(each.split()) not in said] == []


def test_a_long_journal_is_cut_and_says_how_to_narrow_it(run: Run, node: FakeNode) -> None:
    node.journal = [birth_date(number) for number in range(1, 1052)]
    said = run("conflicts").stdout
    assert "... and 1.001 older: --unit, --table, --field and --since narrow the list" in said
    assert "\n1051  open" in "\n" + said


EMPTY = {
    "nothing at all": ([], "conflicts.none"),
    "nothing open": (["--open"], "conflicts.none_open"),
    "nothing that fits": (["--open", "--unit", "hue.vn"], "conflicts.none_such"),
}


@pytest.mark.parametrize(("options", "key"), EMPTY.values(), ids=EMPTY)
def test_an_empty_list_says_so(run: Run, node: FakeNode, options: list[str], key: str) -> None:
    node.journal = []
    assert run("conflicts", *options).stdout.strip() == say(key)


OUTCOMES: dict[str, tuple[list[str], str]] = {
    "a write": (["1", "--keep", "2"], "Decided: Ngày sinh is 13/02/1962. It travels with the next sync."),
    "a delete": (["2", "--keep", "2"], "Decided: the record is deleted. It travels"),
    "an edit beside a delete": (["2", "--keep", "1"], "Decided: the record stays. It travels"),
    "an element": (["5", "--keep", "2"], "Decided: Ngoại ngữ is en: not there. It travels"),
    "a group": (["3", "--keep", "2"], "Decided: Nơi thường trú is 21 Phạm Văn Đồng; Phường Vỹ Dạ; -. It travels"),
    "an id": (["4", "--new-id", ""], "Decided: the second person has an id of their own, made-1. It travels"),
}


@pytest.mark.parametrize(("arguments", "told"), OUTCOMES.values(), ids=OUTCOMES)
def test_resolve_says_whose_record_and_what_was_decided(run: Run, arguments: list[str], told: str) -> None:
    who, said = run("conflicts", "resolve", *arguments).stdout.splitlines()
    assert who.startswith("Nguyễn Thị Hồng Phượng, 12/03/1962, nữ")
    assert said.startswith(told)


def test_resolve_of_what_was_decided_says_that_it_replaces_it(run: Run) -> None:
    run("conflicts", "resolve", "1", "--keep", "1")
    assert run("conflicts", "resolve", "1", "--keep", "2").stdout.splitlines()[2] == say("decided.overturned")


# --- values held aside ---


def test_the_quarantine_tells_the_reason_the_value_and_what_is_shown_meanwhile(run: Run, node: FakeNode) -> None:
    node.quarantine = [held(12), held(13, reason="right", may_decide=False), held(14, reason="rule", row=None)]
    lines = run("quarantine").stdout.splitlines()
    assert lines[0] == "12  this code is in no list here; it comes in by itself when the code arrives"
    assert lines[1:3] == ["  Nguyễn Thị Hồng Phượng, 12/03/1962, nữ  (member 17 of phu-vang.hue.vn)", "  Nghề nghiệp"]
    assert lines[3].split(None, 2)[2] == "thuyền trưởng"
    assert lines[4].strip().startswith("hue.vn (province), Trần Văn Minh, ")
    assert lines[5].split(None, 2)[2] == "nông dân"
    assert "13  its unit may not change this field; another unit may decide on it" in lines
    assert lines[-1].startswith("To let one in: 'dongbo quarantine release N'.")


HELD: dict[str, tuple[str, str, str]] = {
    "let in": ("release", "release_held", "Let in: Nghề nghiệp is thuyền trưởng."),
    "refused": ("refuse", "refuse_held", "Refused: Nghề nghiệp stays nông dân."),
}


@pytest.mark.parametrize(("word", "command", "said"), HELD.values(), ids=HELD)
def test_a_held_value_is(run: Run, node: FakeNode, word: str, command: str, said: str) -> None:
    done = run("quarantine", word, "12", "--by", "Lan", "--why", "sai mã")
    assert node.asked[-1] == (command, {"number": 12, "by": "Lan", "why": "sai mã"})
    assert done.stdout.splitlines()[1].startswith(said)
    assert json.loads(run("quarantine", word, "12", "--json").stdout)["number"] == 12


def test_an_empty_quarantine_says_so(run: Run, node: FakeNode) -> None:
    node.quarantine = []
    assert run("quarantine").stdout.strip() == "Nothing is held aside."
    assert json.loads(run("quarantine", "--json").stdout) == []


def test_status_names_the_next_command() -> None:
    assert "'dongbo conflicts review'" in say("look.conflicts", count=2)
    assert "'dongbo quarantine'" in say("look.held", count=2)


def test_yes_and_no_and_dates_are_words_of_people() -> None:
    assert [views.value_of(each) for each in (True, False, None, "1962-03-12", ["a", "b"], 4)] == [
        *("yes", "no", "-", "12/03/1962", "a, b", "4")
    ]
