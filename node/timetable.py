"""When a node calls its parent next, and why.

Role: from a schedule and what has been, name the next call, the end of the open window, and whether one was missed.
Reach: node.opening, node.cron, node.config. Pure: the clock and chance are arguments.
Invariant: no call is named for a moment that is not open; the same arguments always name the same call, so a plan may
be made anew at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from node.config import Schedule
from node.cron import parse_cron
from node.opening import Opening, Span

LATE_FACTOR = 3
"""Late: nothing came for three times the interval, counting only the time in which calls are allowed ..."""

GRACE = timedelta(minutes=5)
"""... or, by cron, this long after a call was due: a session takes its time."""

LOOK_BACK = timedelta(days=366)
"""Silence is not counted further back than this."""


class Why(StrEnum):
    """Why a call is made when it is; the words of ``status --json``."""

    TIMETABLE = "timetable"
    RETRY = "retry"
    WINDOW = "window"
    CATCH_UP = "catch-up"
    EDITS = "edits"


@dataclass(frozen=True, slots=True)
class NextCall:
    at: datetime
    why: Why


@dataclass(frozen=True, slots=True)
class Calls:
    """What has been, as far as the next call depends on it. ``since``: the service runs; ``last``: the last call that
    counts began; ``unsent``: edits of an earlier run have not been carried up; ``wanted``: edits or a child's news have
    waited; ``retry``: a failed call is to be made again; ``cut_off``: a window closed on a call."""

    since: datetime
    last: datetime | None = None
    unsent: bool = False
    wanted: datetime | None = None
    retry: datetime | None = None
    cut_off: datetime | None = None

    def not_after(self, now: datetime) -> Calls:
        """The same, where the clock was put back: nothing has been later than now, nor is waited for until then."""
        moments = {key: getattr(self, key) for key in ("since", "last", "wanted", "retry", "cut_off")}
        return replace(self, **{key: min(each, now) for key, each in moments.items() if each is not None})


@dataclass(frozen=True, slots=True)
class _Due:
    """Something that asks for a call from ``at`` on; ``jitter`` (None: no more than a push to an opening takes)."""

    at: datetime
    why: Why
    spreads: bool = False


class Timetable:
    """One schedule, read. Raises ValueError for one that ``config`` would have refused."""

    def __init__(self, schedule: Schedule) -> None:
        self._zone = ZoneInfo(schedule.time_zone)
        self.opening = Opening(schedule.windows, schedule.blackout, self._zone)
        self._every = timedelta(seconds=schedule.every_s)
        self._jitter = timedelta(seconds=schedule.jitter_s)
        self._crons = [parse_cron(text, self._zone) for text in schedule.cron]

    @property
    def is_empty(self) -> bool:
        """Whether calls are made by hand and for edits alone."""
        return not self._crons and not self._every

    def next_call(self, calls: Calls, now: datetime, spread: float) -> NextCall | None:
        """The next one; ``spread`` in [0, 1) is this node's place among all that share its timetable."""
        found = [self._allowed(due, now, spread) for due in self._dues(calls)]
        return min((each for each in found if each is not None), key=lambda each: each.at, default=None)

    def open_until(self, now: datetime) -> Span | None:
        """The open span that holds ``now``; None while calls are not allowed."""
        span = self.opening.span_from(now)
        return span if span is not None and span.begins <= now else None

    def paused_until(self, now: datetime) -> datetime | None:
        """The next opening, while calls are not allowed."""
        span = self.opening.span_from(now)
        return None if span is None or span.begins <= now else span.begins

    def is_late(self, last: datetime, now: datetime) -> bool:
        """Whether calls that were due and allowed have not brought anything since ``last``."""
        last = max(last, now - LOOK_BACK)
        if self._crons:
            due = self.due_after(last)
            call = None if due is None else self._allowed(_Due(due, Why.TIMETABLE, spreads=True), due, 1.0)
            return call is not None and now > call.at + GRACE
        if not self._every:
            return False
        allowed = timedelta()
        for span in self.opening.spans_from(last):
            if span.begins >= now:
                break
            allowed += min(span.ends or now, now) - max(span.begins, last)
        return allowed > LATE_FACTOR * self._every

    def due_after(self, moment: datetime) -> datetime | None:
        """When cron or the interval asks for a call after one at ``moment``, windows and jitter aside."""
        if not self._crons:
            return moment + self._every if self._every else None
        later = moment + timedelta(microseconds=1)  # cron answers with the moment itself where it fits
        fires = (cron.get_next_fire_time(None, later.astimezone(self._zone)) for cron in self._crons)
        return min((fire.astimezone(UTC) for fire in fires if fire is not None), default=None)

    def _dues(self, calls: Calls) -> Iterator[_Due]:
        """All that asks for a call."""
        due = None if self.is_empty else self.due_after(calls.last) if calls.last else calls.since
        if calls.unsent or (due is not None and due <= calls.since):
            yield _Due(calls.since, Why.CATCH_UP, spreads=True)
        elif due is not None:
            yield _Due(due, Why.TIMETABLE, spreads=True)
        if calls.cut_off is not None:
            yield _Due(calls.cut_off, Why.WINDOW)
        if calls.retry is not None:
            yield _Due(calls.retry, Why.RETRY)
        elif calls.wanted is not None:
            yield _Due(calls.wanted, Why.EDITS)

    def _allowed(self, due: _Due, now: datetime, spread: float) -> NextCall | None:
        """When what is due may be done: at once, or when the next window opens."""
        span = self.opening.span_from(due.at)
        if span is None:
            return None
        begins = max(due.at, span.begins)
        why = Why.WINDOW if begins > due.at else due.why
        at = begins + spread * self._room(begins, span) if due.spreads or begins > due.at else begins
        if at >= now:
            return NextCall(at, why)
        span = self.opening.span_from(now)  # it was due before: while the machine slept, or its clock was wrong
        if span is None:
            return None
        if span.begins <= now:
            return NextCall(now, why)
        return NextCall(span.begins + spread * self._room(span.begins, span), Why.WINDOW)

    def _room(self, begins: datetime, span: Span) -> timedelta:
        """Over how long calls due at one moment are spread: not into the next one, nor beyond the window."""
        room = self._jitter
        following = None if self.is_empty else self.due_after(begins)
        if following is not None:
            room = min(room, (following - begins) / 2)
        if span.ends is not None:
            room = min(room, (span.ends - begins) / 2)
        return room
