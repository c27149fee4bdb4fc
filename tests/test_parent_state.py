"""What ``status`` says of the parent: its state, the next call and why, the last failure."""

from __future__ import annotations

from typing import Any

import pytest

from node.cli.views import _next_call, _parent, moment
from node.commands.state import _parents_state
from node.config import Schedule
from node.storage.peers import Peer
from node.timetable import NextCall, Timetable, Why
from tests.test_timetable import at

NOW = "2027-03-01 12:00"
ALWAYS = Schedule(every_s=300)
BY_NIGHT = Schedule(every_s=300, windows=("22:00-05:00",))
BY_HAND = Schedule(every_s=0)
UNDER_WAY = NextCall(at("2027-03-01 11:00"), Why.TIMETABLE)


def ms(text: str) -> int:
    return round(at(text).timestamp() * 1000)


# the schedule, the last success, the last error, the next call, the state
STATES = {
    "never met": (ALWAYS, None, None, None, "never"),
    "in step": (ALWAYS, "2027-03-01 11:56", None, None, "ok"),
    "late after three intervals": (ALWAYS, "2027-03-01 11:40", None, None, "late"),
    "stale after a day": (ALWAYS, "2027-02-28 11:40", None, None, "stale"),
    "failing": (ALWAYS, "2027-03-01 11:56", "no answer", None, "failing"),
    "failing from the first": (ALWAYS, None, "no answer", None, "failing"),
    "shut windows make nobody late": (BY_NIGHT, "2027-03-01 04:58", None, None, "ok"),
    "nor stale": (Schedule(windows=("sat 08:00-09:00",)), "2027-02-27 08:59", None, None, "ok"),
    "a night in which nothing came does": (BY_NIGHT, "2027-02-28 12:00", None, None, "late"),
    "a long call under way is not late": (ALWAYS, "2027-03-01 10:00", None, UNDER_WAY, "ok"),
    "nor stale, but one that failed before still is": (ALWAYS, "2027-03-01 10:00", "no answer", UNDER_WAY, "failing"),
    "by hand, a day without any": (BY_HAND, "2027-02-28 11:40", None, None, "stale"),
    "by hand": (BY_HAND, "2027-03-01 08:00", None, None, "ok"),
}


@pytest.mark.parametrize(("schedule", "last", "error", "call", "state"), STATES.values(), ids=STATES)
def test_the_parents_state(
    schedule: Schedule,
    last: str | None,
    error: str | None,
    call: NextCall | None,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.commands.state.now_ms", lambda: ms(NOW))
    peer = Peer("vn", None if last is None else ms(last), error, error and ms(NOW), None)
    assert _parents_state(peer, Timetable(schedule), at(NOW), call) == state


def parent(**told: Any) -> dict[str, Any]:
    nothing = ("last_sync_at", "last_error", "last_error_at", "next_sync_at", "next_sync_why", "paused_until")
    told = {"by_hand": {"lives_by_stick": False}} | told
    return dict.fromkeys(nothing) | {"unit": "vn", "address": "vn.example:7470", "state": "ok"} | told


def planned(after_s: float, why: str, **told: Any) -> dict[str, Any]:
    return parent(next_sync_at=ms(NOW) + round(after_s * 1000), next_sync_why=why, **told)


WORDS = {
    "by timetable": (planned(3600, "timetable"), f"next call at {moment(ms('2027-03-01 13:00'))}"),
    "when a window opens": (
        planned(36_000, "window"),
        f"next call at {moment(ms('2027-03-01 22:00'))}, when its window opens",
    ),
    "after a failure": (planned(240, "retry"), "next try in 4 minutes"),
    "soon after": (planned(8.2, "retry"), "next try in 9 seconds"),
    "in one of them": (planned(1, "retry"), "next try in 1 second"),
    "in one minute": (planned(62, "retry"), "next try in 1 minute"),
    "for what was missed": (planned(120, "catch-up"), "next call in 2 minutes, for what was missed"),
    "with edits": (planned(0.1, "edits"), "next call in 1 second, with new edits"),
    "under way": (planned(-5, "timetable"), "calling now"),
    "none planned": (parent(), ""),
    "none planned, and shut": (
        parent(paused_until=ms("2027-03-01 22:00")),
        f"no calls until {moment(ms('2027-03-01 22:00'))}: its windows are shut",
    ),
}


@pytest.mark.parametrize(("told", "words"), WORDS.values(), ids=WORDS)
def test_the_next_call_in_words(told: dict[str, Any], words: str) -> None:
    assert _next_call(told, ms(NOW)) == words


def test_the_last_failure_stands_with_its_time() -> None:
    told = parent(state="failing", last_error="vn.example:7470: no answer", last_error_at=ms(NOW))
    assert f"last failed at {moment(ms(NOW))}: vn.example:7470: no answer" in _parent(told).plain
