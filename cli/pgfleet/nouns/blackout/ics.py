"""Reading calendars of others: the events of an ICS file as periods of a blackout calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pgfleet.errors import InvalidInput, MissingExtra

# What repeats for ever is imported this far; importing again later goes on from there.
YEARS_AHEAD = 5
# A file that repeats every minute is no calendar of holidays.
MOST_PERIODS = 10_000


def periods_of(text: str, *, timezone: str | None, today: date) -> list[dict[str, Any]]:
    """Give the periods of all events from a year ago to five years ahead.

    Raises InvalidInput for what is no calendar, and for times that belong to no time zone while
    none was named.
    """
    try:
        import icalendar
        import recurring_ical_events  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise MissingExtra("admin", "Reading ICS files") from error

    zone = _zone(timezone)
    try:
        calendar = icalendar.Calendar.from_ical(text)
        events = recurring_ical_events.of(calendar).between(
            today - timedelta(days=366), today + timedelta(days=366 * YEARS_AHEAD)
        )
        found = [_period(event, zone) for event in events]
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise InvalidInput(
            f"the file is no calendar that can be read: {error}",
            reason="ics_invalid",
            hint="Export it again as iCalendar (.ics)",
        ) from error
    if len(found) > MOST_PERIODS:
        raise InvalidInput(
            f"the calendar has {len(found)} events within {YEARS_AHEAD} years",
            reason="ics_too_large",
            hint="Use execution windows for what repeats daily",
        )
    return sorted(found, key=lambda period: period.get("starts_on") or period["starts_at"])


def _period(event: Any, zone: ZoneInfo | None) -> dict[str, Any]:
    summary = {"summary": str(event["SUMMARY"])} if event.get("SUMMARY") else {}
    if not isinstance(event.start, datetime):
        end = max(event.end, event.start + timedelta(days=1))
        return {"starts_on": event.start.isoformat(), "ends_on": end.isoformat(), **summary}

    start, end = (_instant(at, zone, summary.get("summary", "")) for at in (event.start, event.end))
    if end <= start:
        end = start + timedelta(minutes=1)
    return {"starts_at": _text(start), "ends_at": _text(end), **summary}


def _instant(at: datetime, zone: ZoneInfo | None, summary: str) -> datetime:
    if at.tzinfo is not None:
        return at.astimezone(UTC)
    if zone is None:
        raise InvalidInput(
            f'event "{summary}" at {at.isoformat(sep=" ")} belongs to no time zone',
            reason="ics_without_timezone",
            hint="Say which is meant: --timezone Europe/Berlin",
        )
    return at.replace(tzinfo=zone).astimezone(UTC)


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidInput(
            f'--timezone: "{name}" is not a known time zone',
            reason="timezone_unknown",
            hint="Use an IANA name such as Europe/Berlin",
        ) from error
