"""Cron's five fields, as operators know them.

Role: read them into a trigger that names the next moment.
Reach: apscheduler, loaded late: that takes longer than most commands run.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NUMBERS = re.compile(r"(?<![/\w])(?P<first>\d+)(?:-(?P<last>\d+)(?:/(?P<step>[1-9]\d*))?)?")
CHECKED_FROM = datetime(2000, 1, 1, tzinfo=UTC)


def parse_cron(text: str, zone: ZoneInfo) -> Any:
    """A trigger of APScheduler. Weekdays may be numbers, as cron has them (0 and 7 are Sunday): the library counts
    from Monday. Raises ValueError for what is not cron or never comes."""
    from apscheduler.triggers.cron import CronTrigger

    fields = text.split()
    if len(fields) != 5:
        raise ValueError('five fields are needed, such as "0 1,13 * * *"')
    fields[4] = _NUMBERS.sub(_weekdays, fields[4])
    trigger = CronTrigger.from_crontab(" ".join(fields), timezone=zone)
    if trigger.get_next_fire_time(None, CHECKED_FROM) is None:
        raise ValueError("that day never comes")
    return trigger


def _weekdays(found: re.Match[str]) -> str:
    first = int(found["first"])
    numbers = range(first, int(found["last"] or first) + 1, int(found["step"] or 1))
    if not numbers or numbers[-1] > 7:
        raise ValueError("weekdays are 0 to 7, or sun, mon, tue, wed, thu, fri, sat")
    return ",".join(WEEKDAYS[number] for number in numbers)
