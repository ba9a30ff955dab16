"""What is to come on one device, read from the calendar that the database writes for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

HOURS = 24
_FOLDED = re.compile(r"\r?\n[ \t]")
_EVENT = re.compile(r"BEGIN:VEVENT\r?\n(.*?)END:VEVENT", re.DOTALL)
_UID = re.compile(r"schedule-(\d+)-")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def coming_of(calendar: str, timezone: str | None) -> list[dict[str, Any]]:
    """Give the runs of a calendar; a time without a zone is one on the wall of the device."""
    return [_event(text, timezone) for text in _EVENT.findall(_FOLDED.sub("", calendar))]


def _event(text: str, timezone: str | None) -> dict[str, Any]:
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    uid = _UID.match(lines["UID"])
    is_whole_day = "DTSTART;VALUE=DATE" in lines
    start = lines["DTSTART;VALUE=DATE"] if is_whole_day else lines["DTSTART"]
    return {
        "schedule_id": int(uid[1]) if uid else None,
        "name": _ESCAPED.sub(lambda m: "\n" if m[1] == "n" else m[1], lines["SUMMARY"]),
        "is_whole_day": is_whole_day,
        "day": f"{start[:4]}-{start[4:6]}-{start[6:8]}",
        "at": None if is_whole_day else _instant(start, timezone),
    }


def _instant(text: str, timezone: str | None) -> datetime:
    local = datetime.strptime(text.removesuffix("Z"), "%Y%m%dT%H%M%S")
    zone = UTC if text.endswith("Z") else _zone(timezone)
    return local.replace(tzinfo=zone).astimezone(UTC)


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def by_hour(coming: Sequence[dict[str, Any]], now: datetime) -> list[tuple[str, int]]:
    """Count the runs of each of the coming hours."""
    first = now.replace(minute=0, second=0, microsecond=0)
    starts = [first + timedelta(hours=hour) for hour in range(HOURS)]
    times = [one["at"] for one in coming if one["at"] is not None]
    return [
        (f"{at:%H:%M} UTC", sum(1 for time in times if at <= time < at + timedelta(hours=1)))
        for at in starts
    ]
