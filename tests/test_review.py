"""The review in the terminal: every key, every kind of conflict, and what others do meanwhile."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from node.cli import review
from node.cli.journal_views import side_by_side
from node.cli.review import Keyboard, Review, in_order, keys_of
from tests.journals import (
    NOON,
    PROVINCE,
    FakeNode,
    address,
    birth_date,
    conflict,
    delete_beside_edit,
    language,
    twins,
    write,
)

Step = str | Callable[[], None]
EVERYTHING: dict[str, Any] = {"unit": None, "table": None, "field": None, "since": None}


class Script:
    """A person who presses these keys and types these lines, and leaves by Ctrl-C when there are no more. A function
    among them is what happens meanwhile."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.prompts: list[str] = []

    def key(self) -> str:
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, str):
                return step
            step()
        raise KeyboardInterrupt

    def line(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.key()

    def forget(self) -> None:
        """What this person types is always an answer."""


def go(node: FakeNode, *steps: Step, by: str | None = "Lan", width: int = 80) -> str:
    """Work through a node's open conflicts; gives what was on the screen."""
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    Review(node.ask, Script(*steps), screen, filters=EVERYTHING, by=by).run()
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def flat(said: str) -> str:
    """Sentences as they were before the terminal's width broke them."""
    return " ".join(said.split())


DECISIONS = {
    "a number keeps that write": (birth_date, ["2"], {"keep": 2}),
    "the number of what is shown settles too": (birth_date, ["1"], {"keep": 1}),
    "v takes another value": (birth_date, ["v", " 14/03/1962 "], {"value": "14/03/1962"}),
    "a dash is no value": (birth_date, ["v", "-"], {"value": ""}),
    "capitals are keys too": (birth_date, ["V", "1962"], {"value": "1962"}),
    "only the fields that were typed are sent": (
        address,
        ["v", "", "Phường An Cựu", "-"],
        {"value": {"address_commune": "Phường An Cựu", "address_province": ""}},
    ),
    "a number keeps a whole group": (address, ["2"], {"keep": 2}),
    "d is the delete": (delete_beside_edit, ["d"], {"keep": 2}),
    "k is the edit": (delete_beside_edit, ["k"], {"keep": 1}),
    "a delete has its number too": (delete_beside_edit, ["2"], {"keep": 2}),
    "an element of a set is there": (language, ["1"], {"keep": 1}),
    "n asks for an id": (twins, ["n", "tdq-1975"], {"new_id": "tdq-1975"}),
    "no id: one is made": (twins, ["n", ""], {"new_id": ""}),
}


@pytest.mark.parametrize(("kind", "steps", "choice"), DECISIONS.values(), ids=DECISIONS)
def test_a_key_is_one_decision(
    kind: Callable[[int], dict[str, Any]], steps: list[Step], choice: dict[str, Any]
) -> None:
    node = FakeNode([kind(7)])
    said = flat(go(node, *steps))
    assert node.decisions == [{"number": 7, "by": "Lan", **choice}]
    assert said.count("Decided: ") == 1
    assert "It travels with the next sync." in said
    assert "Settled: 1. Skipped: 0. Not looked at: 0." in said


def test_of_several_edits_and_deletes_a_letter_takes_the_one_shown_or_else_the_latest() -> None:
    writes = [write(1, False), write(2, True), write(3, True, won=True), write(4, False)]
    keys = keys_of(conflict(1, "_alive", writes))
    assert (keys["k"], keys["d"]) == (3, 1)


NOTHING = {
    "Enter at once": (birth_date, ["v", ""]),
    "a point instead of a value": (birth_date, ["v", "."]),
    "a point in the middle of a group": (address, ["v", "5 Lê Lợi", "."]),
    "a group with nothing typed": (address, ["v", "", "", ""]),
    "a point instead of an id": (twins, ["n", "."]),
    "a number that no write has": (birth_date, ["3"]),
    "a number of two people under one id": (twins, ["1"]),
    "another value for a delete": (delete_beside_edit, ["v"]),
    "another value for an element of a set": (language, ["v"]),
    "n where nobody waits for an id": (birth_date, ["n"]),
    "an arrow": (birth_date, ["\x1b[A"]),
    "help": (birth_date, ["?"]),
    "back from the first": (birth_date, ["b"]),
    "skip": (birth_date, ["s"]),
    "the space bar": (birth_date, [" "]),
    "quit": (birth_date, ["q", "1"]),
    "Ctrl-D": (birth_date, ["\x04", "1"]),
    "Ctrl-C": (birth_date, []),
    "Ctrl-C while typing": (birth_date, ["v"]),
    "Ctrl-C in the middle of a group": (address, ["v", "5 Lê Lợi"]),
}


@pytest.mark.parametrize(("kind", "steps"), NOTHING.values(), ids=NOTHING)
def test_nothing_is_decided_by(kind: Callable[[int], dict[str, Any]], steps: list[Step]) -> None:
    node = FakeNode([kind(7)])
    said = go(node, *steps)
    assert node.decisions == []
    assert "Settled: 0." in said


def test_a_wrong_value_is_refused_with_the_reason_and_asked_again_until_one_is_taken() -> None:
    node = FakeNode([birth_date()], refuses={"31/02/1962": "Ngày sinh: no day", "1": "Ngày sinh: no year"})
    said = go(node, "v", "31/02/1962", "1", "14/03/1962")
    assert "Not taken: Ngày sinh: no day." in said
    assert "write dd/mm/yyyy" in said
    assert [each["value"] for each in node.decisions] == ["31/02/1962", "1", "14/03/1962"]
    assert "Settled: 1." in said


def test_after_a_wrong_value_an_empty_line_leads_back_to_the_keys_and_says_so() -> None:
    node = FakeNode([birth_date()], refuses={"31/02/1962": "no day"})
    said = go(node, "v", "31/02/1962", "", "2")
    assert "Nothing was changed. Back to the keys." in said
    assert [each.get("keep") for each in node.decisions] == [None, 2]


def test_of_a_group_that_was_not_taken_what_was_typed_stands_beside_the_fields() -> None:
    node = FakeNode([address()], refuses={"Hue": "no such province"})
    script = Script("v", "5 Lê Lợi", "-", "Hue", "", "", "Thành phố Huế")
    Review(node.ask, script, Console(file=io.StringIO()), filters=EVERYTHING).run()
    assert [prompt.partition(" [")[2] for prompt in script.prompts[3:]] == ["5 Lê Lợi]: ", "-]: ", "Hue]: "]
    typed = {"address_line": "5 Lê Lợi", "address_commune": "", "address_province": "Thành phố Huế"}
    assert node.decisions[-1]["value"] == typed


def test_an_id_that_is_not_taken_is_asked_again() -> None:
    node = FakeNode([twins()], refuses={"1": "that id is another record's"})
    go(node, "n", "1", "2")
    assert [each["new_id"] for each in node.decisions] == ["1", "2"]


def test_the_fields_of_a_group_are_asked_by_label_with_what_is_shown() -> None:
    script = Script("v", "", "", "Huế")
    Review(FakeNode([address()]).ask, script, Console(file=io.StringIO()), filters=EVERYTHING).run()
    assert script.prompts == [
        "Nơi thường trú [12 Phạm Văn Đồng]: ",
        "Nơi thường trú: xã, phường [Phường Vỹ Dạ]: ",
        "Nơi thường trú: tỉnh, thành phố [Thành phố Huế]: ",
    ]


def test_nothing_open_is_said_and_no_key_is_asked() -> None:
    node = FakeNode([birth_date(1, state="settled"), birth_date(2, may_settle=False)])
    assert go(node).strip() == "Nothing waits for a decision here."


def test_what_belongs_to_one_record_comes_together_oldest_first() -> None:
    found = [
        birth_date(4, key="17", noted_ms=NOON + 4),
        birth_date(3, key="9", noted_ms=NOON + 2),
        address(2, key="17", noted_ms=NOON + 1),
        birth_date(1, key="9", unit=PROVINCE, noted_ms=NOON + 3),
    ]
    assert [each["id"] for each in in_order(found)] == [2, 4, 3, 1]


def test_whether_a_record_stands_is_asked_before_its_fields() -> None:
    found = [birth_date(1, noted_ms=NOON), delete_beside_edit(2, noted_ms=NOON + 1)]
    assert [each["id"] for each in in_order(found)] == [2, 1]


# --- back and forth ---


def test_going_back_decides_anew_and_says_so() -> None:
    node = FakeNode([birth_date(1), address(2)])
    said = go(node, "1", "b", "2", "1")
    assert [(each["number"], each["keep"]) for each in node.decisions] == [(1, 1), (1, 2), (2, 1)]
    assert "You have decided this already" in said
    assert "It replaces what had been decided; both stay in the journal." in said
    assert "Settled: 2. Skipped: 0. Not looked at: 0." in said


def test_going_back_and_on_leaves_a_decision_as_it_is() -> None:
    node = FakeNode([birth_date(1), address(2)])
    said = go(node, "1", "b", "s", "s")
    assert [each["number"] for each in node.decisions] == [1]
    assert "Settled: 1. Skipped: 1. Not looked at: 0." in said


def test_quitting_tells_what_is_left() -> None:
    said = go(FakeNode([birth_date(1), birth_date(2), birth_date(3), birth_date(4)]), "2", "s", "q")
    assert "Settled: 1. Skipped: 1. Not looked at: 2." in said
    assert "'dongbo conflicts review' goes on with what is left." in said


# --- what others do meanwhile ---


def test_what_another_unit_settled_before_it_is_reached_is_said_and_passed_over() -> None:
    node = FakeNode([birth_date(1), address(2), birth_date(3, key="90")])
    said = go(node, lambda: node.settle(2), "1", "1")
    assert "2 of 3: settled meanwhile by Trần Văn Minh, hue.vn. Nothing to do." in said
    assert [each["number"] for each in node.decisions] == [1, 3]
    assert "Settled meanwhile by others: 1." in said


def test_what_was_settled_while_it_was_on_the_screen_is_not_overturned() -> None:
    node = FakeNode([birth_date(1)])
    said = go(node, lambda: node.settle(1, person=None), "2")
    assert node.decisions == []
    assert "Settled by hue.vn while you looked at it: your key was not used." in said


def test_what_a_newer_change_has_replaced_comes_again_at_the_end() -> None:
    node = FakeNode([birth_date(1), birth_date(2)])

    def another_change() -> None:
        node.journal[1]["state"] = "superseded"
        node.journal.append(birth_date(9))

    said = go(node, another_change, "1", "2")
    assert "2 of 2: no longer waits; something newer has taken its place." in said
    assert "Meanwhile more have come: 1." in said
    assert [(each["number"], each["keep"]) for each in node.decisions] == [(1, 1), (9, 2)]


def test_going_back_passes_over_what_others_settled() -> None:
    node = FakeNode([birth_date(1), birth_date(2), birth_date(3)])
    said = go(node, lambda: node.settle(2), "s", "b", "q")
    assert said.count("1 of 3   conflict 1") == 2


def test_only_what_is_looked_at_is_asked_anew() -> None:
    node = FakeNode([birth_date(1), birth_date(2)])
    go(node, "1", "1")
    asked = [each.get("number") for name, each in node.asked if name == "conflicts"]
    assert asked == [None, 1, 1, 2, 2, None]


# --- the screen ---

KINDS = [birth_date(1), delete_beside_edit(2), address(3), twins(4), language(5)]
LONG = "Trưởng ban Chỉ đạo chương trình nâng cao chất lượng sinh hoạt chi bộ khu dân cư số 12"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    many = conflict(6, "position", [write(n, LONG, won=n == 1) for n in range(1, 6)])
    said = go(FakeNode([*KINDS, many]), "?", *"ssssss", width=width)
    assert max(cell_len(line.rstrip()) for line in said.splitlines()) <= width
    words = {word for text in (LONG, "Nguyễn Thị Hồng Phượng") for word in text.split()}
    assert words <= set(said.split())


def test_on_eighty_columns_two_writes_stand_side_by_side_with_who_and_when() -> None:
    said = go(FakeNode([birth_date(219043332105)]), "q")
    place, *rest = said.split("\n\n", 1)[1].splitlines()
    assert place.startswith("1 of 1   conflict 219043332105 ")
    assert rest[:2] == ["Nguyễn Thị Hồng Phượng, 12/03/1962, nữ  (member 17 of phu-vang.hue.vn)", "Ngày sinh"]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in rest if "│" in line]
    assert cells[:3] == [
        ["", "1  shown now", "2  waits"],
        ["value", "12/03/1962", "13/02/1962"],
        ["unit", "phu-vang.hue.vn", "hue.vn"],
    ]
    assert cells[4] == ["by", "Lê Thị Lan", "Trần Văn Minh"]


def test_a_record_as_a_whole_stands_beside_the_other_field_by_field() -> None:
    (table,) = side_by_side(twins(), 80)
    screen = Console(file=io.StringIO(), width=80)
    screen.print(table)
    assert isinstance(screen.file, io.StringIO)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in screen.file.getvalue().splitlines()]
    assert ["Họ và tên khai sinh", "Nguyễn Thị Hồng Phượng", "Trương Đình Quốc"] in lines
    assert ["Điện thoại", "0912000111", "-"] in lines
    assert not any("Ghi chú" in cells for cells in lines), "what neither has is not shown"


def test_a_value_cannot_steer_the_terminal() -> None:
    said = go(
        FakeNode(
            [conflict(1, "note", [write(1, "\x1b[2J[red]đỏ", won=True), write(2, "x\r\x07y", person="\x1b]0;z")])]
        ),
        "v",
        "\x1b[31m",
    )
    assert not {"\x1b", "\r", "\x07"} & set(said)
    assert "[red]đỏ" in said


# --- the keyboard ---


def test_what_came_ahead_ends_a_line_and_is_no_answer_to_a_menu(monkeypatch: pytest.MonkeyPatch) -> None:
    came = iter(["v14/03/1962\r2s", "\x1b[B", "q1", "s"])
    monkeypatch.setattr(review.click, "getchar", lambda: next(came))
    keyboard = Keyboard()
    assert keyboard.key() == "v"
    assert keyboard.line("Ngày sinh: ") == "14/03/1962"
    assert [keyboard.key() for _ in range(3)] == ["\x1b[B", "q", "s"]


def test_what_came_ahead_of_a_question_asked_again_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review.click, "getchar", lambda: "v31/02/1962\r1\r")
    monkeypatch.setattr("builtins.input", lambda _prompt: "14/03/1962")
    keyboard = Keyboard()
    node = FakeNode([birth_date()], refuses={"31/02/1962": "no day"})
    Review(node.ask, keyboard, Console(file=io.StringIO()), filters=EVERYTHING).run()
    assert [each["value"] for each in node.decisions] == ["31/02/1962", "14/03/1962"]


def test_a_line_that_was_begun_is_ended_by_what_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    came = iter(["v14/"])
    monkeypatch.setattr(review.click, "getchar", lambda: next(came))
    monkeypatch.setattr("builtins.input", lambda prompt: "03/1962" if prompt == "Ngày sinh: 14/" else "")
    keyboard = Keyboard()
    keyboard.key()
    assert keyboard.line("Ngày sinh: ") == "14/03/1962"
