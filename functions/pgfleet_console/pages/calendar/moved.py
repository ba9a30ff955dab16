"""What is changed of a schedule so that it runs at another time; pure."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from pgfleet.errors import InvalidInput
from pgfleet.statements import Row
from pgfleet_console.pages.calendar.days import zone_of

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOVABLE = ("once", "daily", "weekly", "monthly")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


def zone_in(row: Row) -> ZoneInfo:
    """Give the zone in which a schedule's times are; on the walls of devices they have none."""
    return zone_of("UTC" if row["timezone"] == "device" else row["timezone"])


def clock_of(text: str) -> time:
    """Read a time of the day, in minutes."""
    if not _CLOCK.fullmatch(text):
        raise InvalidInput(
            f'"{text[:20]}" is no time of the day',
            reason="time_invalid",
            hint="Write it as 18:30.",
        )
    return time.fromisoformat(text)


def changes_of(row: Row, at: datetime, day: date, clock: str) -> dict[str, Any]:
    """Give what brings the run of an instant to a day and a time in the schedule's zone."""
    time_of_day = clock_of(clock)
    kind, config = row["recurrence_type"], dict(row["recurrence_config"] or {})
    if kind == "once":
        local = datetime.combine(day, time_of_day)
        start = local if row["start_is_local"] else local.replace(tzinfo=zone_in(row))
        return {"start_time": start.isoformat()}
    if kind not in MOVABLE or isinstance(config.get("time"), list):
        raise InvalidInput(
            f"a schedule of the kind {kind} is not moved to a time",
            reason="move_invalid",
            hint="Its form says when it runs: edit it there.",
        )
    before = at.astimezone(zone_in(row)).date()
    config["time"] = clock
    if before != day and kind == "weekly":
        config["days_of_week"] = _days(config.get("days_of_week"), before, day)
    elif before != day and kind == "monthly":
        config["day_of_month"] = _day_of_month(config.get("day_of_month"), before, day)
    return {"recurrence_config": config}


def _days(days: Any, before: date, after: date) -> list[str]:
    items = days if isinstance(days, list) else [days]
    names = [DAYS[one] if isinstance(one, int) else str(one)[:3].lower() for one in items]
    old, new = DAYS[before.weekday()], DAYS[after.weekday()]
    moved = [new if one == old else one for one in names]
    return list(dict.fromkeys(moved))


def _day_of_month(days: Any, before: date, after: date) -> Any:
    if isinstance(days, list):
        return list(dict.fromkeys(after.day if one == before.day else one for one in days))
    return after.day if days in (None, before.day) else days
