"""Times for people: how long ago, in the zone of whoever looks, or exact in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from pgfleet import options

_EXACT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_FAR = timedelta(days=7)
_LONG = timedelta(days=180)


def now() -> datetime:
    """Give this moment; the one clock of what is printed."""
    return datetime.now(UTC)


def parsed(value: object) -> datetime | None:
    """Give the instant that a value is, be it as text in a document."""
    if isinstance(value, datetime):
        # What a wall shows has no distance from now.
        return value if value.tzinfo is not None else None
    if isinstance(value, str) and _EXACT.fullmatch(value):
        return datetime.fromisoformat(value)
    return None


def short(at: datetime) -> str:
    """Say when in a table: near times relative, far ones as a date."""
    if options.current().utc:
        return exact(at)
    distance = at - now()
    return relative(distance) if abs(distance) < _FAR else _local(at, distance)


def full(at: datetime) -> str:
    """Say when, alone on its line: the date, the zone, and how far that is."""
    if options.current().utc:
        return exact(at)
    here = at.astimezone()
    return f"{here:%a %d %b %Y %H:%M:%S} {here.tzname()} ({relative(at - now())})"


def soon(text: str) -> str:
    """Say when of an instant that came as text."""
    at = parsed(text)
    return text if at is None else short(at)


def exact(at: datetime) -> str:
    """Give the instant in UTC, to the second."""
    return at.astimezone(UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")


def written(at: datetime) -> str:
    """Give the instant for a pipe: local with its offset, or in UTC where that was asked for."""
    if at.tzinfo is None:
        return at.isoformat(sep=" ", timespec="minutes")
    if options.current().utc:
        return exact(at)
    return at.astimezone().isoformat(sep=" ", timespec="seconds")


def in_json(at: datetime) -> str:
    """Give the instant for a program, to the microsecond."""
    return (at.astimezone(UTC) if options.current().utc else at).isoformat()


def relative(distance: timedelta) -> str:
    """Say how far from now: `3 min ago`, `in 2 h`."""
    seconds = round(abs(distance.total_seconds()))
    if seconds < 5:
        return "now"
    if seconds < _MINUTE:
        text = f"{seconds} s"
    elif seconds < _HOUR:
        text = f"{seconds // _MINUTE} min"
    elif seconds < _DAY:
        text = f"{seconds // _HOUR} h"
    else:
        days = seconds // _DAY
        word = next(w for least, w in ((730, "year"), (60, "month"), (0, "day")) if days >= least)
        count = days // {"year": 365, "month": 30, "day": 1}[word]
        text = f"{count} {word}{'' if count == 1 else 's'}"
    return f"in {text}" if distance > timedelta() else f"{text} ago"


def _local(at: datetime, distance: timedelta) -> str:
    here = at.astimezone()
    return f"{here:%d %b %Y}" if abs(distance) > _LONG else f"{here:%d %b %H:%M}"
