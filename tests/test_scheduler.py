"""Nights, blackout days, missed runs, failures and calls by hand, with a clock that the test turns."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from node import scheduler as module
from node.config import Schedule
from node.timetable import Why
from sync_engine.errors import DiskFull, LinkFault, TooOften
from tests.stations import Station, World, at_work
from tests.test_timetable import at

HOUR_S = 3600.0
NIGHTLY = Schedule(every_s=HOUR_S, jitter_s=0, windows=("22:00-05:00",), on_change=False)
BY_EDITS = Schedule(every_s=0, jitter_s=0)


@pytest.fixture(autouse=True)
def looks_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day has 172,800 half seconds."""
    monkeypatch.setattr(module, "WATCH_S", 60.0)
    monkeypatch.setattr(module, "TICK_S", 1800.0)


@pytest.fixture
def half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a service sleeps at most."""
    monkeypatch.setattr(module, "TICK_S", 30.0)


# --- windows ---------------------------------------------------------------------------------------------------------


async def test_a_node_calls_through_the_night_and_is_silent_by_day() -> None:
    async with at_work(Station(World("2027-03-01 12:00"), NIGHTLY, last="2027-03-01 04:59")) as station:
        assert station.planned is None
        await station.world.until("2027-03-01 12:01")
        assert station.planned == ("01 22:00:00", "window")
        await station.world.until("2027-03-02 21:59")
        assert station.called == [f"01 {hour}:00:00" for hour in (22, 23)] + [f"02 0{hour}:00:00" for hour in range(5)]
        assert station.planned == ("02 22:00:00", "window")


async def test_on_a_blackout_day_no_call_is_made_and_the_night_ends_at_midnight() -> None:
    schedule = replace(NIGHTLY, blackout=("02/03/2027",))
    async with at_work(Station(World("2027-03-01 21:00"), schedule, last="2027-03-01 20:59")) as station:
        await station.world.until("2027-03-03 00:30")
    assert station.called == ["01 22:00:00", "01 23:00:00", "03 00:00:00"]


async def test_edits_while_shut_are_sealed_and_go_up_once_when_the_window_opens() -> None:
    station = Station(World("2027-03-01 12:00"), replace(BY_EDITS, windows=("22:00-05:00",)), last="2027-03-01 04:00")
    async with at_work(station):
        for moment in ("13:00", "15:00", "21:00"):
            station.pending = True
            await station.world.until(f"2027-03-01 {moment}")
        assert (station.sealed, station.called) == (3, [])
        assert station.planned == ("01 22:00:00", "window")
        await station.world.until("2027-03-02 12:00")
    assert station.called == ["01 22:00:00"]


async def test_a_childs_news_while_shut_waits_for_the_window_and_goes_on_at_once_when_it_is_open() -> None:
    station = Station(World("2027-03-01 12:00"), replace(BY_EDITS, windows=("22:00-05:00",)), last="2027-03-01 04:00")
    async with at_work(station):
        station.scheduler.on_news()
        await station.world.until("2027-03-01 23:00")
        assert station.called == ["01 22:00:00"]
        station.scheduler.on_news()
        assert station.planned is None
        await station.world.passes(2)
        assert station.called == ["01 22:00:00", "01 23:00:00"]


async def test_a_session_is_ended_when_its_window_closes_and_goes_on_at_the_next_opening() -> None:
    station = Station(World("2027-03-02 04:00"), replace(NIGHTLY, every_s=0, on_change=True), last="2027-03-01 04:00")
    station.call_s, station.pending = 2 * HOUR_S, True
    async with at_work(station):
        await station.world.until("2027-03-02 04:59:59")
        assert (station.called, station.ended) == (["02 04:01:00"], [])
        await station.world.until("2027-03-02 12:00")
        assert station.ended == [(at("2027-03-02 05:00"), "CancelledError")]
        assert station.planned == ("02 22:00:00", "window")
        assert station.scheduler.failures == 0, "a window that closes is not a failure"
        await station.world.until("2027-03-03 01:00")
        assert station.called == ["02 04:01:00", "02 22:00:00"]
        assert station.ended[1:] == [(at("2027-03-03 00:00"), "well")]
        assert station.planned is None


# --- what was missed -------------------------------------------------------------------------------------------------

BY_CRON = Schedule(cron=("0 1 * * *",), jitter_s=600, on_change=False)


async def test_a_run_missed_while_the_node_was_off_is_made_once_soon_after_the_start() -> None:
    async with at_work(Station(World("2027-03-05 08:00"), BY_CRON, last="2027-03-01 01:02")) as station:
        await station.world.until("2027-03-05 08:01")
        assert station.planned == ("05 08:05:00", "catch-up")
        await station.world.until("2027-03-06 00:59")
        assert station.called == ["05 08:05:00"]
        assert station.planned == ("06 01:05:00", "timetable")


async def test_a_run_missed_while_shut_as_well_is_made_once_when_the_window_opens() -> None:
    schedule = replace(BY_CRON, windows=("22:00-05:00",))
    async with at_work(Station(World("2027-03-05 08:00"), schedule, last="2027-03-01 01:02")) as station:
        await station.world.until("2027-03-06 00:59")
    assert station.called == ["05 22:05:00"]


async def test_without_a_missed_run_a_start_calls_nobody() -> None:
    async with at_work(Station(World("2027-03-05 08:00"), BY_CRON, last="2027-03-05 01:02")) as station:
        await station.world.until("2027-03-06 01:06")
    assert station.called == ["06 01:05:00"]


async def test_what_an_earlier_run_has_sealed_and_not_sent_goes_up_after_a_start() -> None:
    async with at_work(Station(World("2027-03-05 08:00"), BY_EDITS, last="2027-03-05 07:59", behind=3)) as station:
        await station.world.until("2027-03-05 09:00")
    assert station.called == ["05 08:00:00"]


async def test_no_child_is_the_last_one_every_night() -> None:
    draws = iter([0.9, 0.1, 0.5, 0.3])
    schedule = replace(BY_CRON, jitter_s=1000)
    station = Station(World("2027-03-05 00:30"), schedule, last="2027-03-04 01:02", chance=lambda: next(draws))
    async with at_work(station):
        await station.world.until("2027-03-07 02:00")
    assert station.called == ["05 01:15:00", "06 01:01:40", "07 01:08:20"]


async def test_children_that_all_start_at_once_do_not_call_at_once() -> None:
    world, rng = World("2027-03-05 21:58"), Random(5)
    schedule = replace(BY_CRON, windows=("22:00-05:00",), jitter_s=900)
    stations = [Station(world, schedule, last="2027-03-01 01:02", chance=rng.random) for _ in range(173)]
    for station in stations:
        await station.scheduler.start()
    await world.until("2027-03-05 22:20")
    for station in stations:
        await station.scheduler.stop()
    after = sorted((call - at("2027-03-05 22:00")).total_seconds() for station in stations for call in station.calls)
    assert len(after) == 173
    assert 0 <= after[0] < after[-1] < 900
    busiest = max(sum(start <= each < start + 30 for each in after) for start in range(900))
    assert busiest < 173 / 8, "in no half minute more than an eighth"


# --- failures and calls by hand --------------------------------------------------------------------------------------


async def test_after_failures_the_wait_doubles_up_to_its_cap_and_begins_anew_after_a_success() -> None:
    station = Station(World("2027-03-01 08:00"), replace(BY_EDITS, backoff_max_s=60), last=None, behind=1)
    station.fault = LinkFault("no answer")
    async with at_work(station):
        await station.world.until("2027-03-01 08:06")
        waits = [
            (after - before).total_seconds() for before, after in zip(station.calls, station.calls[1:], strict=False)
        ]
        assert waits[:8] == [2, 4, 8, 16, 32, 60, 60, 60]
        assert station.planned is not None
        assert station.planned[1] == "retry"
        station.fault = None
        await station.world.until("2027-03-01 08:08")
        assert (station.scheduler.failures, station.planned) == (0, None)
        station.pending, station.fault = True, LinkFault("no answer")
        await station.world.until("2027-03-01 08:09:10")
    assert (station.calls[-1] - station.calls[-2]).total_seconds() in (2, 4), "it begins with two seconds again"


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 1.5), (0.999999, 2.5)], ids=["shortest", "longest"])
async def test_waits_differ_by_a_quarter_so_that_children_of_one_parent_do_not_come_back_at_once(
    chance: float, wait_s: float
) -> None:
    station = Station(World("2027-03-01 08:00"), BY_EDITS, last=None, behind=1, chance=lambda: chance)
    station.fault = LinkFault("no answer")
    async with at_work(station):
        await station.world.passes(0)
        assert station.planned is not None
        assert station.next_call is not None
        assert (station.next_call.at - station.calls[0]).total_seconds() == pytest.approx(wait_s, abs=1e-3)


async def test_while_the_parent_is_out_of_reach_edits_are_sealed_and_the_wait_goes_on() -> None:
    station = Station(World("2027-03-01 08:00"), replace(BY_EDITS, backoff_max_s=900), last=None, behind=1)
    station.fault = LinkFault("no answer")
    async with at_work(station):
        await station.world.until("2027-03-01 08:10")
        made = len(station.calls)
        station.pending = True
        station.scheduler.on_news()
        await station.world.until("2027-03-01 08:12")
    assert (station.sealed, len(station.calls)) == (1, made)


async def test_a_parent_that_asks_for_patience_is_given_it() -> None:
    schedule = Schedule(every_s=HOUR_S, jitter_s=0)
    station = Station(World("2027-03-01 08:00"), schedule, fault=TooOften("calls too often", retry_s=240))
    async with at_work(station):
        await station.world.passes(1)
        assert len(station.calls) == 1
        await station.world.passes(200)
        assert len(station.calls) == 1
        await station.world.passes(45)
        assert len(station.calls) == 2


async def test_a_call_by_hand_that_ends_well_ends_the_waiting() -> None:
    schedule = Schedule(every_s=HOUR_S, jitter_s=0)
    station = Station(World("2027-03-01 08:00"), schedule, fault=LinkFault("no answer"))
    async with at_work(station):
        await station.world.until("2027-03-01 08:20")
        assert station.scheduler.failures > 5
        station.fault = None
        station.sync_by_hand()
        await station.world.settle()
        assert (station.scheduler.failures, station.planned) == (0, ("01 09:20:00", "timetable"))
        station.pending = True
        made = len(station.calls)
        await station.world.passes(61)
        assert len(station.calls) == made + 1, "edits go up at once again"


async def test_a_call_by_hand_while_shut_leaves_nothing_owed() -> None:
    station = Station(World("2027-03-02 04:59"), replace(NIGHTLY, every_s=0), last=None, call_s=HOUR_S, behind=1)
    station = replace(station, schedule=replace(station.schedule, on_change=True))
    async with at_work(station):
        station.scheduler.on_news()
        await station.world.until("2027-03-02 12:00")
        assert station.planned == ("02 22:00:00", "window")
        station.sync_by_hand()
        await station.world.settle()
        assert station.planned is None


FAULTS: dict[str, BaseException] = {
    "the disk is full": DiskFull("there is no space left"),
    "something nobody foresaw": ZeroDivisionError(),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_calls_go_on_whatever_one_of_them_fails_with(name: str) -> None:
    station = Station(World("2027-03-01 08:00"), Schedule(every_s=HOUR_S, jitter_s=0, on_change=False))
    station.fault = FAULTS[name]
    async with at_work(station):
        await station.world.until("2027-03-01 08:00:05")
        assert station.called == ["01 08:00:00", "01 08:00:02"]
        station.fault = None
        await station.world.until("2027-03-01 10:30")
    assert len(station.called) == 3 + 2


# --- clocks ----------------------------------------------------------------------------------------------------------

CLOCKS = {
    "ten years ahead": ("2037-03-01 08:10", "2037-03-01 08:10:30"),
    "and back again": ("2027-03-01 08:15", "2027-03-01 09:15:30"),
    "at 1970": ("1970-01-01 08:00", "1970-01-01 09:00:30"),
    "to the end of a night's sleep": ("2027-03-02 07:00", "2027-03-02 07:00:30"),
}


@pytest.mark.usefixtures("half_a_minute")
async def test_however_the_clock_is_set_the_next_call_is_no_more_than_an_interval_away() -> None:
    station = Station(World("2027-03-01 08:00"), Schedule(every_s=HOUR_S, jitter_s=0, on_change=False))
    async with at_work(station):
        await station.world.passes(60)
        for name, (moment, latest) in CLOCKS.items():
            made = len(station.calls)
            station.world.set_clock(moment)
            await station.world.until(latest)
            assert len(station.calls) == made + 1, name


@pytest.mark.usefixtures("half_a_minute")
async def test_a_retry_does_not_wait_for_a_year_in_which_the_clock_once_was() -> None:
    station = Station(World("2035-03-01 08:00"), BY_EDITS, behind=1, fault=LinkFault("no answer"))
    async with at_work(station):
        await station.world.passes(100)
        station.world.set_clock("2027-03-01 08:00")
        made = len(station.calls)
        await station.world.passes(31)
        assert len(station.calls) > made


async def test_a_last_success_in_the_future_is_as_none() -> None:
    schedule = Schedule(every_s=HOUR_S, jitter_s=0, on_change=False)
    async with at_work(Station(World("2027-03-01 08:00"), schedule, last="2035-03-01 08:00")) as station:
        await station.world.passes(1)
    assert station.called == ["01 08:00:00"]


# --- the rest --------------------------------------------------------------------------------------------------------


async def test_the_root_seals_and_calls_nobody() -> None:
    async with at_work(Station(World("2027-03-01 08:00"), Schedule(), unit="vn", pending=True)) as station:
        station.scheduler.on_news()
        await station.world.passes(HOUR_S)
    assert (station.sealed, station.calls, station.next_call) == (1, [], None)


async def test_without_on_change_only_the_timetable_counts() -> None:
    station = Station(World("2027-03-01 08:00"), NIGHTLY, last="2027-03-01 04:30", pending=True, behind=3)
    async with at_work(station):
        station.scheduler.on_news()
        await station.world.until("2027-03-01 21:59")
    assert (station.sealed, station.calls) == (0, [])


async def test_edits_made_during_a_call_go_up_after_it() -> None:
    station = Station(World("2027-03-01 08:00"), BY_EDITS, last="2027-03-01 07:00", call_s=600, pending=True)
    async with at_work(station):
        await station.world.until("2027-03-01 08:05")
        station.pending = True
        await station.world.until("2027-03-01 09:00")
    assert station.called == ["01 08:01:00", "01 08:11:00"]


async def test_what_a_command_has_sealed_and_what_a_person_has_released_goes_up_as_edits_do() -> None:
    station = Station(World("2027-03-01 08:00"), BY_EDITS, last="2027-03-01 07:00", sealed=4, braked=1)
    async with at_work(station):
        await station.world.until("2027-03-01 08:10:30")
        station.sealed, station.behind = 5, 1
        await station.world.until("2027-03-01 08:20:30")
        assert station.called == ["01 08:11:00"], "once, although the parent has refused it"
        station.braked = 0
        await station.world.until("2027-03-01 08:30:30")
        assert station.called == ["01 08:11:00", "01 08:21:00"]
        station.sealed, station.behind = 6, 0
        await station.world.until("2027-03-01 08:40:30")
    assert len(station.called) == 2, "the parent has it"


async def test_a_stop_ends_the_call_that_is_under_way() -> None:
    station = Station(World("2027-03-01 08:00"), BY_EDITS, behind=1, call_s=600)
    async with at_work(station):
        await station.world.until("2027-03-01 08:05")
    assert station.ended == [(at("2027-03-01 08:05"), "CancelledError")]
    assert station.next_call is None


def test_why_a_call_is_made_is_a_word_for_programs() -> None:
    assert [str(each) for each in Why] == ["timetable", "retry", "window", "catch-up", "edits"]
