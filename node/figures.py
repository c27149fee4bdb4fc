"""Numbers and times as Vietnamese readers write them: 2.000 members, 4,5 s, 24/11/2026 10:04.

Role: figures to text, nothing else.
Reach: the standard library.
"""

from __future__ import annotations

from datetime import datetime


def number(value: int) -> str:
    """Thousands apart by a point."""
    return f"{value:,}".replace(",", ".")


def decimal(value: float) -> str:
    """One place after a comma; the thousands as in ``number``."""
    return f"{value:,.1f}".translate({ord(","): ".", ord("."): ","})


def size(octets: int) -> str:
    """Bytes in the unit that suits them."""
    if octets < 1000:
        return f"{octets} B"
    return f"{decimal(octets / 1000)} KB" if octets < 1_000_000 else f"{decimal(octets / 1_000_000)} MB"


def clock(milliseconds: int) -> str:
    """The time of day, local."""
    return _local(milliseconds).strftime("%H:%M:%S")


def day_and_time(milliseconds: int) -> str:
    """Date and time of day, local."""
    return _local(milliseconds).strftime("%d/%m/%Y %H:%M:%S")


def day_and_minute(milliseconds: int) -> str:
    """Date and time of day, local, as people tell each other."""
    return _local(milliseconds).strftime("%d/%m/%Y %H:%M")


def is_today(milliseconds: int) -> bool:
    """Whether the local date is today's."""
    return _local(milliseconds).date() == datetime.now().astimezone().date()


def day(iso: str) -> str:
    """A date of a table, which may be partial: 1945-08-19, 1945-08 or 1945."""
    return "/".join(reversed(iso.split("-")))


def _local(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000).astimezone()
