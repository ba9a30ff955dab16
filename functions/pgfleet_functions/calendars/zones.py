"""Time zones as calendars name them: by IANA, by Windows in any spelling, by an offset."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from dateutil import tz
from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

_WINTER, _SUMMER = datetime(2026, 1, 1), datetime(2026, 7, 1)
_OFFSET = re.compile(
    r"(?:UTC|GMT|Z)?\s*([+-]|\u2212)\s*(\d{1,2})(?::?(\d{2}))?(?::?(\d{2}))?", re.I
)
_SHOWN = re.compile(r"\((?:UTC|GMT)\s*(?:([+-]|\u2212)\s*(\d{1,2}):?(\d{2}))?\)\s*(.+)", re.I)
# What Windows shows without naming a city that IANA knows.
_SHOWN_NAMES = {
    "coordinated universal time": "UTC",
    "atlantic time (canada)": "America/Halifax",
    "eastern time (us & canada)": "America/New_York",
    "central time (us & canada)": "America/Chicago",
    "mountain time (us & canada)": "America/Denver",
    "pacific time (us & canada)": "America/Los_Angeles",
    "indiana (east)": "America/Indiana/Indianapolis",
    "international date line west": "Etc/GMT+12",
    "central america": "America/Guatemala",
    "abu dhabi": "Asia/Dubai",
    "islamabad": "Asia/Karachi",
    "new delhi": "Asia/Kolkata",
    "beijing": "Asia/Shanghai",
    "osaka": "Asia/Tokyo",
    "canberra": "Australia/Sydney",
    "wellington": "Pacific/Auckland",
    "west central africa": "Africa/Lagos",
    "hawaii": "Pacific/Honolulu",
    "alaska": "America/Anchorage",
    "arizona": "America/Phoenix",
}
_DEFINING = re.compile(
    r"(BEGIN|END|TZID|DTSTART|RRULE|RDATE|TZNAME|TZOFFSETFROM|TZOFFSETTO)[:;]", re.I
)
_YEARLY = re.compile(r"FREQ=YEARLY(?!.*BY(HOUR|MINUTE|SECOND|YEARDAY|WEEKNO|SETPOS)=)", re.I)
_UTC_NAMES = frozenset({"z", "utc", "gmt", "etc/utc", "etc/gmt", "zulu", "universal"})


def zone_of(name: str) -> tzinfo | None:
    """Find the zone that a name means; None where nothing is known by it."""
    text = " ".join(name.strip().strip("\"'").split())
    if text.lower() in _UTC_NAMES:
        return UTC
    return _by_iana(text) or _by_windows(text) or _as_shown(text) or _by_offset(text)


def defined_zone(lines: list[str]) -> tzinfo:
    """Read a VTIMEZONE. Raises ValueError for one that is none, or changes more than yearly."""
    kept = [line for line in lines if _DEFINING.match(line)]
    for line in kept:
        if line.upper().startswith("RRULE") and not _YEARLY.search(line):
            # Each look at such a clock would walk through all of its changes.
            raise ValueError(f"its clocks change too often: {line[:80]}")
    found = tz.tzical(io.StringIO("\r\n".join([*kept, ""]))).get()
    if found is None:
        raise ValueError("the zone has no name")
    return found


@cache
def _names() -> dict[str, str]:
    return {name.lower(): name for name in available_timezones()}


@cache
def _windows() -> dict[str, str]:
    return {name.lower(): zone for name, zone in WINDOWS_TO_OLSON.items()}


def _iana(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _by_iana(text: str) -> ZoneInfo | None:
    # Some programs put a name of their own in front: /example.org/20260101_1/Europe/Berlin.
    parts = text.strip("/").split("/")
    for length in (len(parts), 3, 2):
        found = _names().get("/".join(parts[-length:]).lower().replace(" ", "_"))
        if found and (length == len(parts) or text.startswith("/")):
            return _iana(found)
    return None


def _by_windows(text: str) -> ZoneInfo | None:
    for name in _windows_spellings(text.lower()):
        if found := _windows().get(name):
            return _iana(found)
    return None


def _windows_spellings(text: str) -> Iterator[str]:
    yield text
    # In summer some programs write the name of that half of the year.
    yield re.sub(r"\b(daylight|summer) time\b", "standard time", text)
    yield f"{text} standard time"
    yield f"{text.removesuffix(' time')} standard time"


def _as_shown(text: str) -> tzinfo | None:
    """Read what Windows shows in its list: (UTC+01:00) Amsterdam, Berlin, Bern."""
    shown = _SHOWN.fullmatch(text)
    if not shown:
        return None
    offset = _delta(shown[1], shown[2] or "0", shown[3])
    if windows := _by_windows(shown[4]):
        return windows
    for city in [shown[4], *shown[4].split(",")]:
        for found in _in_city(city.strip().lower()):
            if offset in (found.utcoffset(_WINTER), found.utcoffset(_SUMMER)):
                return found
    return None


def _in_city(city: str) -> Iterator[ZoneInfo]:
    if (name := _SHOWN_NAMES.get(city)) and (known := _iana(name)):
        yield known
    ending = "/" + city.replace(" ", "_").replace(".", "")
    for lower, name in sorted(_names().items()):
        if lower.endswith(ending) and (found := _iana(name)):
            yield found


def _by_offset(text: str) -> tzinfo | None:
    found = _OFFSET.fullmatch(text)
    if not found:
        return None
    offset = _delta(found[1], found[2], found[3], found[4])
    return timezone(offset) if abs(offset) <= timedelta(hours=15) else None


def _delta(
    sign: str | None, hours: str, minutes: str | None, seconds: str | None = None
) -> timedelta:
    length = timedelta(hours=int(hours), minutes=int(minutes or 0), seconds=int(seconds or 0))
    return length if sign in (None, "+") else -length
