"""Which days a view of the calendar has, and what is on each; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pgfleet.errors import InvalidInput
from pgfleet.statements import Row

VIEWS = ("month", "week", "day", "agenda")
AGENDA_DAYS = 14
# The first that a day has of a schedule gives it its tone.
_STATES = ("failed", "running", "coming", "completed", "skipped", "skipping")
_SAID = {"coming": "to come", "skipping": "will be skipped"}


@dataclass(frozen=True, slots=True)
class Span:
    """The days that are shown, from the first to the one after the last, in a zone."""

    view: str
    day: date
    zone: ZoneInfo
    first: date
    end: date

    @property
    def starts_at(self) -> datetime:
        """Give the midnight at which it begins."""
        return midnight(self.first, self.zone)

    @property
    def ends_at(self) -> datetime:
        """Give the midnight at which it ends."""
        return midnight(self.end, self.zone)

    def beside(self, direction: int) -> date:
        """Give a day of the span before or after this one."""
        if self.view == "month":
            return (self.day.replace(day=15) + timedelta(days=30 * direction)).replace(day=1)
        return self.day + (self.end - self.first) * direction


@dataclass(slots=True)
class Day:
    """One day: what is on it, and the blackouts that touch it."""

    date: date
    is_beside: bool = False
    entries: list[dict[str, Any]] = field(default_factory=list)
    blackouts: list[str] = field(default_factory=list)


def span_of(view: str, day: date, zone: ZoneInfo) -> Span:
    """Give the days of a view that has a day in it; weeks begin on Mondays."""
    first, end = day, day + timedelta(days=1)
    if view == "week":
        first = day - timedelta(days=day.weekday())
        end = first + timedelta(days=7)
    elif view == "month":
        first = day.replace(day=1)
        last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
        first -= timedelta(days=first.weekday())
        end = last + timedelta(days=7 - last.weekday())
    elif view == "agenda":
        end = day + timedelta(days=AGENDA_DAYS)
    return Span(view, day, zone, first, end)


def zone_of(name: str) -> ZoneInfo:
    """Give a time zone by its name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInput(
            f'"{name[:60]}" is not a known time zone',
            reason="timezone_invalid",
            hint="Use an IANA name such as Europe/Berlin.",
        ) from error


def day_of(text: str) -> date:
    """Read a day within the time that calendars know."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = date.min
    if not 1970 <= found.year <= 9000:
        raise InvalidInput(
            f'"{text[:60]}" is no day', reason="time_invalid", hint="Write it like 2027-01-04."
        )
    return found


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Give the instant at which a day begins; in UTC, so that instants are compared as such."""
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def counted(span: Span, rows: Sequence[Row], blackouts: Sequence[Row]) -> list[Day]:
    """Put what the calendar of the database counts on its days."""
    days = _days(span, blackouts)
    for row in rows:
        day = days.get(row["day"])
        if day is not None:
            day.entries.append(_counted(span, row))
    return list(days.values())


def _counted(span: Span, row: Row) -> dict[str, Any]:
    counts = {state: row[state] for state in _STATES if row[state]}
    state = next(iter(counts), "coming")
    said = ", ".join(f"{count} {_SAID.get(one, one)}" for one, count in counts.items())
    return {
        "schedule_id": row["schedule_id"],
        "name": row["name"],
        "state": _tone(state),
        "said": said,
        "count": sum(counts.values()),
        "at": row["first_at"],
        "clock": f"{row['first_at'].astimezone(span.zone):%H:%M}",
        "is_coming": state in ("coming", "skipping"),
    }


def listed(
    span: Span, runs: Sequence[Row], coming: Sequence[Row], blackouts: Sequence[Row]
) -> list[Day]:
    """Put runs that were and runs that are to come on their days, in the order of time."""
    days = _days(span, blackouts)
    entries = [
        _entry(span, run["scheduled_for"], run["schedule"], run["status"], run["reason"], run)
        for run in runs
    ]
    entries += [
        _entry(span, one["due_at"], one["name"], _would(one["would"]), one["reason"], one)
        for one in coming
    ]
    for entry in sorted(entries, key=lambda one: one["at"]):
        day = days.get(entry["local"].date())
        if day is not None:
            day.entries.append(entry)
    return list(days.values())


def _entry(
    span: Span, at: datetime, name: str, state: str, reason: str | None, row: Row
) -> dict[str, Any]:
    local = at.astimezone(span.zone)
    return {
        "schedule_id": row["schedule_id"],
        "name": name,
        "state": _tone(state),
        "said": f"{_SAID.get(state, state)}{f': {reason}' if reason else ''}",
        "count": 1,
        "at": at,
        "local": local,
        "clock": f"{local:%H:%M}",
        "is_coming": state in ("coming", "skipping"),
    }


def _would(would: str) -> str:
    return "skipping" if would == "skip" else "coming"


def _tone(state: str) -> str:
    return {"coming": "pending", "skipping": "skipped"}.get(state, state)


def _days(span: Span, blackouts: Sequence[Row]) -> dict[date, Day]:
    count = (span.end - span.first).days
    dates = [span.first + timedelta(days=at) for at in range(count)]
    is_month = span.view == "month"
    return {
        one: Day(
            one,
            is_beside=is_month and one.month != span.day.month,
            blackouts=[row["summary"] or row["calendar"] for row in blackouts if _is_on(row, one)],
        )
        for one in dates
    }


def blackouts_of(span: Span, periods: Sequence[Row]) -> list[Row]:
    """Give the periods with their local days; whole days are the same in every zone."""
    found = []
    for row in periods:
        if row["starts_on"] is not None:
            first, last = row["starts_on"], row["ends_on"] - timedelta(days=1)
        else:
            first = row["starts_at"].astimezone(span.zone).date()
            # What ends at midnight does not touch the day that begins there.
            last = (row["ends_at"] - timedelta(microseconds=1)).astimezone(span.zone).date()
        if first < span.end and last >= span.first:
            found.append({**row, "first": first, "last": last})
    return found


def _is_on(row: Row, day: date) -> bool:
    return bool(row["first"] <= day <= row["last"])
