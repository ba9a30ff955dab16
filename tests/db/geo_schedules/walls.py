"""An independent view of walls: when a zone's clocks show a time, by zoneinfo alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


def instants(local: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Give the first and the last instant of a local time; of a skipped one the change itself."""
    found = sorted(
        {
            candidate
            for fold in (0, 1)
            if (candidate := local.replace(tzinfo=zone, fold=fold).astimezone(UTC))
            .astimezone(zone)
            .replace(tzinfo=None, fold=0)
            == local
        }
    )
    if found:
        return found[0], found[-1]
    # Skipped: walk from a day before to the first instant whose wall is past it.
    low = datetime(local.year, local.month, local.day, tzinfo=UTC) - timedelta(days=2)
    high = low + timedelta(days=5)
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(zone).replace(tzinfo=None, fold=0) > local:
            high = middle
        else:
            low = middle
    return high, high


def action(day: date, start: int, end: int, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Give start and end of the action of a date."""
    midnight = datetime(day.year, day.month, day.day)
    last = midnight + timedelta(days=0 if end > start else 1, minutes=end)
    return instants(midnight + start * MINUTE, zone)[0], instants(last, zone)[1]
