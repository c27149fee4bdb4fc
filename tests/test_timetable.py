"""When a node calls by itself: windows, blackout days, cron and interval, jitter, what was missed, what is late."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest

from node.config import Schedule
from node.cron import parse_cron
from node.opening import Opening, parse_blackout, parse_window
from node.timetable import Calls, NextCall, Timetable, Why

HUE = ZoneInfo("Asia/Ho_Chi_Minh")
NIGHT = ("22:00-05:00",)


def at(text: str, zone: ZoneInfo = HUE) -> datetime:
    """A local moment, such as ``2027-03-01 22:00``."""
    return datetime.fromisoformat(text).replace(tzinfo=zone)


# --- windows and blackout days ---------------------------------------------------------------------------------------

# windows, blackout, the moment asked about, the open span that holds it or follows it
SPANS = {
    "without windows calls are allowed for ever": ((), (), "2027-03-01 12:00", ("2027-03-01 12:00", None)),
    "in a window": (("08:00-17:00",), (), "2027-03-01 12:00", ("2027-03-01 08:00", "2027-03-01 17:00")),
    "before it": (("08:00-17:00",), (), "2027-03-01 07:59", ("2027-03-01 08:00", "2027-03-01 17:00")),
    "a window is over at its end": (("08:00-17:00",), (), "2027-03-01 17:00", ("2027-03-02 08:00", "2027-03-02 17:00")),
    "a window that crosses midnight, before": (NIGHT, (), "2027-03-01 23:00", ("2027-03-01 22:00", "2027-03-02 05:00")),
    "and after midnight": (NIGHT, (), "2027-03-02 04:59:59", ("2027-03-01 22:00", "2027-03-02 05:00")),
    "a window up to midnight": (("20:00-24:00",), (), "2027-03-01 21:00", ("2027-03-01 20:00", "2027-03-02 00:00")),
    "the second of two windows a day": (
        ("12:00-13:00", "22:00-05:00"), (), "2027-03-01 13:00", ("2027-03-01 22:00", "2027-03-02 05:00"),
    ),
    "windows that touch are one": (
        ("20:00-22:00", "22:00-23:30"), (), "2027-03-01 21:00", ("2027-03-01 20:00", "2027-03-01 23:30"),
    ),
    "windows that overlap are one": (
        ("08:00-12:00", "09:00-10:00", "11:00-14:00"), (), "2027-03-01 09:30", ("2027-03-01 08:00", "2027-03-01 14:00"),
    ),
    "with seconds": (
        ("22:00:10-22:00:20",), (), "2027-03-01 22:00:15", ("2027-03-01 22:00:10", "2027-03-01 22:00:20"),
    ),
    "only at weekends": (  # 1 March 2027 is a Monday
        ("sat,sun 08:00-17:00",), (), "2027-03-01 12:00", ("2027-03-06 08:00", "2027-03-06 17:00"),
    ),
    "a weekday is the one on which the window begins": (
        ("fri 22:00-05:00",), (), "2027-03-06 04:00", ("2027-03-05 22:00", "2027-03-06 05:00"),
    ),
    "from Friday to Monday": (
        ("fri-mon 10:00-11:00",), (), "2027-03-01 12:00", ("2027-03-05 10:00", "2027-03-05 11:00"),
    ),
    "blackout days, without windows": (
        (), ("2027-04-30", "2027-05-03"), "2027-04-30 12:00", ("2027-05-01 00:00", "2027-05-03 00:00"),
    ),
    "a window that reaches into a blackout day closes at midnight": (
        NIGHT, ("02/03/2027",), "2027-03-01 23:00", ("2027-03-01 22:00", "2027-03-02 00:00"),
    ),
    "and one that begins on it opens at midnight": (
        NIGHT, ("02/03/2027",), "2027-03-02 23:00", ("2027-03-03 00:00", "2027-03-03 05:00"),
    ),
    "a week of them, the Lunar New Year": (
        NIGHT, ("2027-02-05..2027-02-12",), "2027-02-05 00:00", ("2027-02-13 00:00", "2027-02-13 05:00"),
    ),
    "a day of every year": (
        ("08:00-17:00",), ("30/04", "1/5"), "2031-04-30 09:00", ("2031-05-02 08:00", "2031-05-02 17:00"),
    ),
    "days of every year that cross New Year": (
        ("08:00-17:00",), ("31/12..02/01",), "2027-12-31 09:00", ("2028-01-03 08:00", "2028-01-03 17:00"),
    ),
    "29 February": (
        ("08:00-17:00",), ("29/02",), "2028-02-29 09:00", ("2028-03-01 08:00", "2028-03-01 17:00"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("windows", "blackout", "moment", "span"), SPANS.values(), ids=SPANS)
def test_the_open_span_that_holds_a_moment_or_follows_it(
    windows: tuple[str, ...], blackout: tuple[str, ...], moment: str, span: tuple[str, str | None]
) -> None:
    found = Opening(windows, blackout, HUE).span_from(at(moment))
    assert found is not None
    assert found.begins == at(span[0])
    assert found.ends == (None if span[1] is None else at(span[1]))


def test_where_every_day_is_a_blackout_day_nothing_is_open() -> None:
    assert Opening((), ("01/01..31/12",), HUE).span_from(at("2027-03-01 12:00")) is None


def test_an_hour_that_a_change_of_clocks_leaves_out_or_repeats_harms_no_window() -> None:
    berlin = ZoneInfo("Europe/Berlin")  # 2 to 3 o'clock is left out on 28 March 2027, and comes twice on 31 October
    spring = Opening(("02:15-02:45",), (), berlin).span_from(at("2027-03-28 00:00", berlin))
    assert spring is not None
    assert spring.ends is not None
    assert spring.ends - spring.begins == timedelta(minutes=30)
    night = Opening(("22:00-05:00",), (), berlin)
    for day, hours in (("2027-03-27", 6), ("2027-10-30", 8), ("2027-11-05", 7)):
        span = night.span_from(at(f"{day} 23:00", berlin))
        assert span is not None
        assert span.ends is not None
        assert span.ends - span.begins == timedelta(hours=hours)


def test_spans_agree_with_a_simple_look_at_the_wall_clock() -> None:
    rng = Random(1)
    windows, blackout = (
        ("22:00-05:00", "mon-wed,sat 11:30-13:00", "sun 00:00-24:00"),
        ("2027-03-10..2027-03-12", "20/03"),
    )
    opening = Opening(windows, blackout, HUE)
    for _ in range(300):
        moment = at("2027-03-01 00:00") + timedelta(minutes=rng.randrange(40 * 24 * 60))
        clock, day = moment.strftime("%H:%M"), moment.date()
        before = day - timedelta(days=1)
        free = not (date(2027, 3, 10) <= day <= date(2027, 3, 12) or (day.month, day.day) == (3, 20))
        wanted = clock >= "22:00" or clock < "05:00" or day.weekday() == 6
        wanted = wanted or ("11:30" <= clock < "13:00" and day.weekday() in (0, 1, 2, 5))
        assert opening.is_open(moment) == (free and wanted), (moment, before)


BAD_WINDOWS = {
    "no times": "at night",
    "one time": "22:00",
    "an hour too many": "22:00-24:30",
    "a minute too many": "22:60-23:00",
    "no time at all": "22:00-22:00",
    "from the end of a day": "24:00-05:00",
    "a day that is none": "son 08:00-09:00",
    "no day after the comma": "sat, 08:00-09:00",
    "more behind it": "22:00-05:00 daily",
}


@pytest.mark.parametrize("text", BAD_WINDOWS.values(), ids=BAD_WINDOWS)
def test_a_window_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_window(text)


BAD_DAYS = {
    "no day": "Tết",
    "a day that never is": "30/02",
    "a month too many": "2027-13-01",
    "no leap year": "29/02/2027",
    "a range that goes back": "2027-02-12..2027-02-05",
    "a year at one end": "2027-02-05..12/02",
    "two ranges": "01/01..02/01..03/01",
    "half a range": "2027-02-05..",
}


@pytest.mark.parametrize("text", BAD_DAYS.values(), ids=BAD_DAYS)
def test_a_blackout_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_blackout(text)


# --- cron ------------------------------------------------------------------------------------------------------------

# Monday 1 March 2027, noon
CRONS = {
    "twice a day": ("0 1,13 * * *", "2027-03-01 13:00"),
    "weekdays by name": ("0 8 * * tue-fri", "2027-03-02 08:00"),
    "weekday 1 is Monday": ("0 13 * * 1", "2027-03-01 13:00"),
    "weekday 0 is Sunday": ("0 8 * * 0", "2027-03-07 08:00"),
    "and so is 7": ("0 8 * * 7", "2027-03-07 08:00"),
    "a range from Sunday": ("0 8 * * 0-2", "2027-03-02 08:00"),
    "every second weekday": ("0 8 * * 2-6/2", "2027-03-02 08:00"),
    "a list of them": ("0 8 * * 4,6", "2027-03-04 08:00"),
    "every ten minutes": ("*/10 * * * *", "2027-03-01 12:10"),
}


@pytest.mark.parametrize(("text", "fires"), CRONS.values(), ids=CRONS)
def test_cron_means_what_it_means_elsewhere(text: str, fires: str) -> None:
    assert Timetable(Schedule(cron=(text,))).due_after(at("2027-03-01 12:00")) == at(fires)


@pytest.mark.parametrize("text", ["0 1 * *", "0 25 * * *", "0 1 * * 8", "0 1 * * xyz", "0 0 30 2 *", "hourly"])
def test_cron_that_is_none_or_never_comes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_cron(text, HUE)


# --- the next call ---------------------------------------------------------------------------------------------------

HOURLY = Schedule(every_s=3600, jitter_s=0)
NIGHTLY = Schedule(every_s=3600, jitter_s=0, windows=NIGHT)
BY_CRON = Schedule(cron=("0 1 * * *", "0 13 * * *"), jitter_s=0)
BY_HAND = Schedule(every_s=0, jitter_s=0)
START, NOON = "2027-03-01 08:00", "2027-03-01 12:00"


def calls(**moments: str | bool) -> Calls:
    """What has been by noon; the service runs since 8."""
    told = {key: each if isinstance(each, bool) else at(each) for key, each in moments.items()}
    return Calls(**{"since": at(START), **told})  # type: ignore[arg-type]


NEXT: dict[str, tuple[Schedule, Calls, tuple[str, str] | None]] = {
    "an interval after the last call": (HOURLY, calls(last="2027-03-01 11:30"), ("2027-03-01 12:30", "timetable")),
    "the first call ever, at once": (HOURLY, calls(), (NOON, "catch-up")),
    "one missed while the service was off": (HOURLY, calls(last="2027-02-27 11:30"), (NOON, "catch-up")),
    "one that was not due then waits": (HOURLY, calls(last="2027-03-01 07:30", since=NOON), (NOON, "catch-up")),
    "the earliest of several crons": (BY_CRON, calls(last="2027-03-01 11:30"), ("2027-03-01 13:00", "timetable")),
    "a cron missed while the service was off": (BY_CRON, calls(last="2027-02-28 20:00"), (NOON, "catch-up")),
    "no cron was missed": (BY_CRON, calls(last="2027-03-01 01:00"), ("2027-03-01 13:00", "timetable")),
    "edits go up at once": (
        HOURLY, calls(last="2027-03-01 11:30", wanted="2027-03-01 11:59:59"), (NOON, "edits"),
    ),
    "edits wait for a retry, not for themselves": (
        HOURLY, calls(last="2027-03-01 11:30", wanted="2027-03-01 11:59", retry="2027-03-01 12:04"),
        ("2027-03-01 12:04", "retry"),
    ),
    "the timetable comes before a late retry": (
        HOURLY, calls(last="2027-03-01 11:30", retry="2027-03-01 12:44"), ("2027-03-01 12:30", "timetable"),
    ),
    "by hand alone": (BY_HAND, calls(last="2027-02-01 11:30"), None),
    "by hand alone, but edits of an earlier run have not gone up": (
        BY_HAND, calls(last="2027-02-01 11:30", unsent=True), (NOON, "catch-up"),
    ),
    "due while shut: when the window opens": (NIGHTLY, calls(last="2027-03-01 04:30"), ("2027-03-01 22:00", "window")),
    "missed and shut: when the window opens": (NIGHTLY, calls(), ("2027-03-01 22:00", "window")),
    "edits while shut": (
        replace(NIGHTLY, every_s=0), calls(wanted="2027-03-01 11:59"), ("2027-03-01 22:00", "window"),
    ),
    "a retry while shut": (
        replace(NIGHTLY, every_s=0), calls(retry="2027-03-01 12:04"), ("2027-03-01 22:00", "window"),
    ),
    "a call that the window's end has cut off": (
        replace(NIGHTLY, every_s=0), calls(cut_off="2027-03-01 05:00"), ("2027-03-01 22:00", "window"),
    ),
    "a cron that never falls into the window": (
        replace(BY_CRON, windows=("20:00-21:00",)), calls(last="2027-03-01 11:30"), ("2027-03-01 20:00", "window"),
    ),
    "due while the machine slept through the window": (
        replace(NIGHTLY, windows=("09:00-10:00",)), calls(last="2027-03-01 08:30"), ("2027-03-02 09:00", "window"),
    ),
    "due while the machine slept, and still open": (
        replace(NIGHTLY, windows=("09:00-13:00",)), calls(last="2027-03-01 08:30"), (NOON, "timetable"),
    ),
    "a blackout day": (
        replace(HOURLY, blackout=("2027-03-01",)), calls(last="2027-02-28 23:30"), ("2027-03-02 00:00", "window"),
    ),
    "nothing will ever be open": (replace(HOURLY, blackout=("01/01..31/12",)), calls(), None),
}  # fmt: skip


@pytest.mark.parametrize(("schedule", "been", "call"), NEXT.values(), ids=NEXT)
def test_the_next_call(schedule: Schedule, been: Calls, call: tuple[str, str] | None) -> None:
    wanted = None if call is None else NextCall(at(call[0]), Why(call[1]))
    assert Timetable(schedule).next_call(been, at(NOON), 0.5) == wanted


JITTER = {
    "an interval": (replace(HOURLY, jitter_s=600), calls(last=NOON), "2027-03-01 13:00", 600),
    "by half the interval at most": (Schedule(every_s=100, jitter_s=600), calls(last=NOON), "2027-03-01 12:01:40", 50),
    "cron": (replace(BY_CRON, jitter_s=600), calls(last=NOON), "2027-03-01 13:00", 600),
    "by half the time to cron's next at most": (
        Schedule(cron=("0,10 * * * *",), jitter_s=6000), calls(last=NOON), "2027-03-01 12:10", 1500,
    ),
    "what was missed": (replace(HOURLY, jitter_s=600), calls(since=NOON), NOON, 600),
    "an opening": (replace(NIGHTLY, jitter_s=600), calls(last=NOON), "2027-03-01 22:00", 600),
    "an opening for edits": (
        replace(NIGHTLY, every_s=0, jitter_s=600), calls(wanted=NOON), "2027-03-01 22:00", 600,
    ),
    "a short window by its half at most": (
        replace(NIGHTLY, jitter_s=600, windows=("22:00-22:10",)), calls(last=NOON), "2027-03-01 22:00", 300,
    ),
    "not beyond the window that is open": (
        Schedule(cron=("59 12 * * *",), jitter_s=600, windows=("12:00-13:00",)), calls(last=NOON),
        "2027-03-01 12:59", 30,
    ),
    "edits not at all": (replace(BY_HAND, jitter_s=600), calls(wanted=NOON), NOON, 0),
}  # fmt: skip
CHILDREN = 173


@pytest.mark.parametrize(("schedule", "been", "begins", "over_s"), JITTER.values(), ids=JITTER)
def test_children_that_share_a_timetable_are_spread(schedule: Schedule, been: Calls, begins: str, over_s: int) -> None:
    rng, timetable = Random(3), Timetable(schedule)
    found = [timetable.next_call(been, at(NOON), rng.random()) for _ in range(CHILDREN)]
    after = sorted((call.at - at(begins)).total_seconds() for call in found if call is not None)
    assert len(after) == CHILDREN
    assert after[0] >= 0
    assert after[-1] <= over_s
    tenths = [sum(low <= each < low + over_s / 10 for each in after) for low in (over_s * n / 10 for n in range(10))]
    assert over_s == 0 or (min(tenths) > 5 and max(tenths) < 35), tenths


def test_a_plan_made_anew_is_the_same_plan() -> None:
    timetable, been = Timetable(replace(NIGHTLY, jitter_s=600)), calls(last="2027-03-01 04:30")
    first = timetable.next_call(been, at(NOON), 0.7)
    for hour in range(13, 22):
        assert timetable.next_call(been, at(f"2027-03-01 {hour}:00"), 0.7) == first


def test_nothing_is_later_than_now_where_the_clock_was_put_back() -> None:
    been = calls(last="2035-01-01 00:00", wanted="2035-01-01 00:00", retry="2035-01-02 00:00").not_after(at(NOON))
    assert been == calls(last=NOON, wanted=NOON, retry=NOON)


# --- late ------------------------------------------------------------------------------------------------------------

LATE = {
    "an interval's grace is three of them": (HOURLY, "2027-03-01 09:01", NOON, False),
    "after which it is late": (HOURLY, "2027-03-01 08:59", NOON, True),
    "shut windows make nobody late": (NIGHTLY, "2027-03-01 04:59", "2027-03-01 21:59", False),
    "nor does the beginning of the next one": (NIGHTLY, "2027-03-01 04:59", "2027-03-02 00:30", False),
    "three intervals of open time do": (NIGHTLY, "2027-03-01 04:59", "2027-03-02 01:30", True),
    "nor do blackout days": (
        replace(HOURLY, blackout=("2027-02-05..2027-02-12",)),
        "2027-02-04 23:30",
        "2027-02-13 01:00",
        False,
    ),
    "by cron nothing is late before it is due": (BY_CRON, "2027-02-28 13:01", "2027-03-01 00:59", False),
    "nor just after": (BY_CRON, "2027-02-28 13:01", "2027-03-01 01:04", False),
    "but then": (BY_CRON, "2027-02-28 13:01", "2027-03-01 01:06", True),
    "by cron outside its window: when that opens": (
        replace(BY_CRON, windows=NIGHT),
        "2027-03-01 01:01",
        "2027-03-01 21:00",
        False,
    ),
    "and not before": (replace(BY_CRON, windows=NIGHT), "2027-03-01 01:01", "2027-03-01 22:06", True),
    "once a week": (Schedule(cron=("0 1 * * sun",)), "2027-02-28 01:01", "2027-03-06 23:00", False),
    "by hand alone nothing is ever late": (BY_HAND, "2026-03-01 09:00", NOON, False),
    "years of silence are late": (HOURLY, "2017-03-01 09:00", NOON, True),
    "a success in the future is not": (HOURLY, "2035-03-01 09:00", NOON, False),
}


@pytest.mark.parametrize(("schedule", "last", "now", "late"), LATE.values(), ids=LATE)
def test_late_is_what_was_due_and_allowed_and_did_not_come(schedule: Schedule, last: str, now: str, late: bool) -> None:
    assert Timetable(schedule).is_late(at(last), at(now)) is late


def test_what_is_shut_says_until_when() -> None:
    timetable = Timetable(NIGHTLY)
    assert timetable.paused_until(at(NOON)) == at("2027-03-01 22:00")
    assert timetable.paused_until(at("2027-03-01 23:00")) is None
    assert timetable.open_until(at(NOON)) is None
    assert timetable.open_until(at("2027-03-01 23:00").astimezone(UTC)) is not None
