"""When a node may call its parent by itself: time windows and blackout days.

Role: read them as an operator writes them, and name the open spans around a moment.
Reach: the standard library; time is an argument. Invariant: a moment is open if it lies in a window (or there are
none) and its local day is no blackout day; spans that touch are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_DAY = frozenset(range(7))
DAY_S = 24 * 3600

HORIZON = timedelta(days=400)
"""How far ahead an opening is looked for: a year and whatever holidays stand at its end."""

WINDOW_LIKE = 'write "22:00-05:00", or with days before it: "sat,sun 08:00-17:00", "mon-fri 12:00-13:00"'
BLACKOUT_LIKE = 'write "2027-02-05" or "05/02/2027", a range "2027-02-05..2027-02-12", or a day of every year "30/04"'

_WINDOW = re.compile(
    r"(?:(?P<days>[a-z,\- ]*[a-z])\s+)?(?P<begins>\d{1,2}:\d\d(?::\d\d)?)\s*-\s*(?P<ends>\d{1,2}:\d\d(?::\d\d)?)"
)
_ISO = re.compile(r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})")
_VIETNAMESE = re.compile(r"(?P<day>\d{1,2})/(?P<month>\d{1,2})(?:/(?P<year>\d{4}))?")
_LEAP_YEAR = 2000
"""A day of every year may be 29 February."""


@dataclass(frozen=True, slots=True)
class Window:
    """Local wall time in seconds of the day; one that ends at or before its beginning reaches into the next day.
    ``weekdays`` (0: Monday) are the days on which it begins."""

    begins_s: int
    ends_s: int
    weekdays: frozenset[int] = EVERY_DAY


@dataclass(frozen=True, slots=True)
class Blackout:
    """Days from ``first`` to ``last``, both included; ``yearly`` counts month and day alone and may cross New Year."""

    first: date
    last: date
    yearly: bool

    def holds(self, day: date) -> bool:
        if not self.yearly:
            return self.first <= day <= self.last
        first, last, here = ((each.month, each.day) for each in (self.first, self.last, day))
        return first <= here <= last if first <= last else here >= first or here <= last


@dataclass(frozen=True, slots=True)
class Span:
    """Open from ``begins`` to before ``ends`` (None: for ever)."""

    begins: datetime
    ends: datetime | None


def parse_window(text: str) -> Window:
    """Raises ValueError, which says what would be right."""
    found = _WINDOW.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(WINDOW_LIKE)
    begins_s, ends_s = _seconds(found["begins"]), _seconds(found["ends"])
    if begins_s in (ends_s, DAY_S):
        raise ValueError("a window begins and ends at two times of day; without any, calls are allowed at all times")
    return Window(begins_s, ends_s, _weekdays(found["days"]) if found["days"] else EVERY_DAY)


def _seconds(text: str) -> int:
    hours, minutes, *rest = map(int, text.split(":"))
    seconds = hours * 3600 + minutes * 60 + sum(rest)
    if minutes > 59 or sum(rest) > 59 or seconds > DAY_S:
        raise ValueError("times of day are between 00:00 and 24:00")
    return seconds


def _weekdays(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in WEEKDAYS or (last or first) not in WEEKDAYS:
            raise ValueError(f"days are {', '.join(WEEKDAYS)}")
        begin = WEEKDAYS.index(first)
        days |= {(begin + step) % 7 for step in range((WEEKDAYS.index(last or first) - begin) % 7 + 1)}
    return frozenset(days)


def parse_blackout(text: str) -> Blackout:
    """Raises ValueError, which says what would be right."""
    parts = [part.strip() for part in text.split("..")]
    if len(parts) > 2:
        raise ValueError(BLACKOUT_LIKE)
    days = [_day(part) for part in parts]
    (first, yearly), (last, last_yearly) = days[0], days[-1]
    if yearly != last_yearly:
        raise ValueError("a range has a year at both ends or at none")
    if not yearly and last < first:
        raise ValueError("a range ends on the day it begins or later")
    return Blackout(first, last, yearly)


def _day(text: str) -> tuple[date, bool]:
    found = _ISO.fullmatch(text) or _VIETNAMESE.fullmatch(text)
    if found is None:
        raise ValueError(BLACKOUT_LIKE)
    try:
        return date(int(found["year"] or _LEAP_YEAR), int(found["month"]), int(found["day"])), not found["year"]
    except ValueError:
        raise ValueError("that is no day of the calendar") from None


class Opening:
    """The open spans of one schedule. Moments are aware datetimes; spans come in UTC, because the difference of two
    local times is wrong where clocks are put forward or back."""

    def __init__(self, windows: Sequence[str], blackout: Sequence[str], zone: ZoneInfo) -> None:
        self.windows = [parse_window(text) for text in windows]
        self.blackout = [parse_blackout(text) for text in blackout]
        self._zone = zone

    def span_from(self, moment: datetime) -> Span | None:
        """The open span that holds ``moment``, else the first after it; None if there is none within the horizon."""
        return next(self.spans_from(moment), None)

    def is_open(self, moment: datetime) -> bool:
        span = self.span_from(moment)
        return span is not None and span.begins <= moment

    def spans_from(self, moment: datetime) -> Iterator[Span]:
        """Those that end after ``moment``, in order, up to the horizon."""
        moment = moment.astimezone(UTC)
        if not self.windows and not self.blackout:
            yield Span(moment, None)
            return
        yesterday = moment.astimezone(self._zone).date() - timedelta(days=1)  # its windows may reach into today
        for span in _joined(self._pieces(yesterday)):
            if span.ends is None or moment < span.ends:
                yield span

    def _pieces(self, first: date) -> Iterator[tuple[datetime, datetime]]:
        """What is open on each day, sorted, the days one after another."""
        for number in range(HORIZON.days):
            day = first + timedelta(days=number)
            if any(each.holds(day) for each in self.blackout):
                continue
            for begins_s, ends_s in sorted(self._of_day(day)):
                begins, ends = self._moment(day, begins_s), self._moment(day, ends_s)
                if begins < ends:  # not one that lies in the hour which a change of clocks leaves out
                    yield begins, ends

    def _of_day(self, day: date) -> Iterator[tuple[int, int]]:
        if not self.windows:
            yield 0, DAY_S
        for window in self.windows:
            crosses = window.ends_s <= window.begins_s
            if day.weekday() in window.weekdays:
                yield window.begins_s, DAY_S if crosses else window.ends_s
            if crosses and (day.weekday() - 1) % 7 in window.weekdays and window.ends_s:
                yield 0, window.ends_s

    def _moment(self, day: date, seconds: int) -> datetime:
        return (datetime.combine(day, time(), self._zone) + timedelta(seconds=seconds)).astimezone(UTC)


def _joined(pieces: Iterator[tuple[datetime, datetime]]) -> Iterator[Span]:
    """Pieces that touch or overlap as one; they come sorted by when they begin."""
    begins, ends = next(pieces, (None, None))
    for next_begins, next_ends in pieces:
        if ends is not None and next_begins <= ends:
            ends = max(ends, next_ends)
            continue
        if begins is not None:
            yield Span(begins, ends)
        begins, ends = next_begins, next_ends
    if begins is not None:
        yield Span(begins, ends)
