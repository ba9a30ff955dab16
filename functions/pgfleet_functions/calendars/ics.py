"""The events of an iCalendar file as periods: what can be read is taken, the rest is named."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import icalendar
import recurring_ical_events  # type: ignore[import-untyped]

from pgfleet_functions.calendars.lines import Block, calendars_of, made_plain, name_of, read_lines
from pgfleet_functions.calendars.zones import defined_zone, zone_of

# What repeats for ever is taken this far; reading it again later goes on from there.
YEARS_AHEAD = 5
# A calendar that repeats every minute is none of holidays.
MOST_PERIODS = 10_000
MOST_EVENTS = 20_000
# How many instants the rules of one file may be walked through, with those before the window.
MOST_STEPS = 1_000_000

_STEPS = {
    "SECONDLY": timedelta(seconds=1),
    "MINUTELY": timedelta(minutes=1),
    "HOURLY": timedelta(hours=1),
    "DAILY": timedelta(days=1),
    "WEEKLY": timedelta(days=1),
    "MONTHLY": timedelta(days=1),
    "YEARLY": timedelta(days=1),
}
_TIMES = ("DTSTART", "DTEND", "RECURRENCE-ID", "EXDATE", "RDATE")


# Of its properties nothing is known before it is looked at.
_Event = Any


class CalendarUnreadable(Exception):
    """A file is no calendar, or says something that cannot be left out."""

    def __init__(self, message: str, *, reason: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.reason, self.hint = message, reason, hint


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An event that could not be read, and why."""

    event: str
    problem: str


@dataclass(slots=True)
class Reading:
    """What a file holds: periods, and what was left out of them."""

    periods: list[dict[str, str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    # How many could be read, whenever they are.
    events: int = 0
    cancelled: int = 0
    transparent: int = 0


def read_calendar(
    data: bytes, *, timezone: str | None, today: date, skip_transparent: bool = False
) -> Reading:
    """Give the periods of all events from a year ago to five years ahead.

    `timezone` is for times that belong to none. Events that cannot be read are named in the
    answer. Raises CalendarUnreadable for what is no calendar, repeats too often, or names a zone
    that nobody knows.
    """
    given = _given_zone(timezone)
    reading = Reading()
    blocks = list(calendars_of(read_lines(data)))
    if not blocks:
        raise CalendarUnreadable(
            "the file is no calendar that can be read: it has no BEGIN:VCALENDAR",
            reason="ics_invalid",
            hint="Export it again as iCalendar (.ics)",
        )
    if sum(len(block.events) for block in blocks) > MOST_EVENTS:
        raise _too_large(f"the calendar has more than {MOST_EVENTS} events")
    window = (today - timedelta(days=366), today + timedelta(days=366 * YEARS_AHEAD))
    steps = 0
    for block in blocks:
        reader = _Reader(block, given, reading)
        for group in reader.groups():
            reading.events += len(group)
            steps += sum(_steps(event, window[1]) for event in group)
            if steps > MOST_STEPS:
                raise _too_large(f'event "{_name(group[0])}" repeats too often')
            for event in _occurrences(group, window, reading):
                _take(event, reader.is_cancelled, skip_transparent, reading)
            if len(reading.periods) > MOST_PERIODS:
                raise _too_large(
                    f"the calendar has more than {MOST_PERIODS} events within {YEARS_AHEAD} years"
                )
    if reading.left_out and not reading.events:
        first = reading.left_out[0]
        raise CalendarUnreadable(
            f'no event of the calendar can be read; "{first.event}": {first.problem}',
            reason="ics_invalid",
            hint="Export it again as iCalendar (.ics)",
        )
    reading.periods.sort(key=lambda period: period.get("starts_on") or period["starts_at"])
    return reading


class _Reader:
    """Reads the events of one VCALENDAR with the zones that it defines."""

    def __init__(self, block: Block, given: tzinfo | None, reading: Reading) -> None:
        self._block = block
        self._reading = reading
        own = dict(line.upper().split(":", 1) for line in block.own if ":" in line)
        self.is_cancelled = own.get("METHOD", "").strip() == "CANCEL"
        named = next(
            (
                line.split(":", 1)[1]
                for line in block.own
                if line.upper().startswith("X-WR-TIMEZONE")
            ),
            "",
        )
        self._floating = given or (zone_of(named) if named.strip() else None)
        self._defined = dict(self._definitions())

    def groups(self) -> Iterable[list[_Event]]:
        """Give what belongs together: an event with the instances that differ from it."""
        found: dict[str, list[_Event]] = {}
        for number, lines in enumerate(self._block.events):
            event = self._event(lines)
            if event is not None:
                found.setdefault(str(event.get("UID") or f" {number}"), []).append(event)
        return found.values()

    def _event(self, lines: list[str]) -> _Event | None:
        event: _Event
        try:
            with warnings.catch_warnings():
                # The zones of the file are ours to find, whatever the parser thinks of them.
                warnings.simplefilter("ignore")
                event = icalendar.Event.from_ical("\r\n".join([*map(made_plain, lines), ""]))
        except Exception as error:
            # Whatever a stranger's file makes of a parser costs it this event.
            self._leave_out(name_of(lines), error)
            return None
        for name, problem in event.errors:
            if name is None or str(name).upper() in (*_TIMES, "RRULE", "DURATION"):
                self._leave_out(_name(event), ValueError(f"{name or 'line'}: {problem}"))
                return None
        if "DTSTART" not in event:
            self._leave_out(_name(event), ValueError("it has no DTSTART"))
            return None
        for name in _TIMES:
            for value in _values(event.get(name)):
                self._place(event, value)
        end: Any = getattr(event.get("DTEND"), "dt", None)
        if type(end) is type(event["DTSTART"].dt) and end < event["DTSTART"].dt:
            self._leave_out(_name(event), ValueError("it ends before it starts"))
            return None
        _bring_until_to_utc(event)
        return event

    def _place(self, event: _Event, value: Any) -> None:
        """Give a time the zone that its file means."""
        if isinstance(value.dt, tuple):
            start, end = value.dt
            value.dt = (
                self._placed(event, value, start),
                end if isinstance(end, timedelta) else self._placed(event, value, end),
            )
        else:
            value.dt = self._placed(event, value, value.dt)

    def _placed(self, event: _Event, value: Any, at: Any) -> Any:
        if not isinstance(at, datetime):
            return at
        name = value.params.get("TZID")
        if name is None:
            if at.tzinfo is not None:
                return at
            if self._floating is None:
                raise CalendarUnreadable(
                    f'event "{_name(event)}" at {at.isoformat(sep=" ")} belongs to no time zone',
                    reason="ics_without_timezone",
                    hint="Say which is meant: --timezone Europe/Berlin",
                )
            return at.replace(tzinfo=self._floating)
        zone = self._zone(str(name))
        if zone is None:
            raise CalendarUnreadable(
                f'event "{_name(event)}": the time zone "{str(name)[:80]}" is not known,'
                " and the file does not define it",
                reason="ics_timezone_unknown",
                hint="Name an IANA zone such as Europe/Berlin in the file, or define it there",
            )
        return at.replace(tzinfo=zone)

    def _zone(self, name: str) -> tzinfo | None:
        by_name = zone_of(name)
        # What a program calls by an offset or a list of cities, its definition knows better.
        if by_name is UTC or (isinstance(by_name, ZoneInfo) and not name.strip().startswith("(")):
            return by_name
        return self._defined.get(name) or by_name

    def _definitions(self) -> Iterator[tuple[str, tzinfo]]:
        for lines in self._block.zones:
            name = name_of(lines, "TZID")
            place = name_of(lines, "X-LIC-LOCATION")
            try:
                yield name, zone_of(place) or defined_zone(lines)
            except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        self._reading.left_out.append(LeftOut(name, " ".join(str(error).split())[:200]))


def _given_zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    found = zone_of(name)
    if found is None:
        raise CalendarUnreadable(
            f'"{name}" is not a known time zone',
            reason="timezone_unknown",
            hint="Use an IANA name such as Europe/Berlin",
        )
    return found


def _values(found: Any) -> Iterator[Any]:
    """Give the single values of a property that may stand several times, as lists."""
    for one in found if isinstance(found, list) else [] if found is None else [found]:
        yield from getattr(one, "dts", [one])


def _bring_until_to_utc(event: _Event) -> None:
    """Let UNTIL be what the standard asks for: a date beside dates, UTC beside times."""
    start = event["DTSTART"].dt
    rules = event.get("RRULE")
    for rule in rules if isinstance(rules, list) else [] if rules is None else [rules]:
        until = next(iter(rule.get("UNTIL", [])), None)
        if until is None:
            continue
        if not isinstance(start, datetime):
            rule["UNTIL"] = [until.date() if isinstance(until, datetime) else until]
            continue
        if not isinstance(until, datetime):
            # All of that day.
            until = datetime.combine(until, time(23, 59, 59))
        if until.tzinfo is None:
            until = until.replace(tzinfo=start.tzinfo)
        rule["UNTIL"] = [until.astimezone(UTC)]


def _steps(event: _Event, until: date) -> int:
    """Tell how many instants a rule is walked through up to the end of the window."""
    rules = event.get("RRULE")
    start = event["DTSTART"].dt
    begins = start.date() if isinstance(start, datetime) else start
    total = 1 + sum(1 for _ in _values(event.get("RDATE")))
    for rule in rules if isinstance(rules, list) else [] if rules is None else [rules]:
        freq = str(next(iter(rule.get("FREQ", ["DAILY"]))))
        step = _STEPS.get(freq.upper(), timedelta(days=1))
        if freq.upper() in ("SECONDLY", "MINUTELY", "HOURLY", "DAILY"):
            step *= max(1, int(next(iter(rule.get("INTERVAL", [1])))))
        often = max(timedelta(0), until - begins) // step + 1
        for name in ("BYHOUR", "BYMINUTE", "BYSECOND"):
            often *= max(1, len(set(rule.get(name, []))))
        total += often
    return total


def _occurrences(group: list[_Event], window: tuple[date, date], reading: Reading) -> list[_Event]:
    calendar = icalendar.Calendar()
    for event in group:
        calendar.add_component(event)
    try:
        found = recurring_ical_events.of(calendar).between(*window)
        # What has no length, or one that is none, is told by these too.
        return [event for event in found if event.start is not None and event.end is not None]
    except Exception as error:
        problem = " ".join(str(error).split())[:200]
        reading.left_out.append(LeftOut(_name(group[0]), problem or type(error).__name__))
        return []


def _take(event: _Event, is_cancelled: bool, skip_transparent: bool, reading: Reading) -> None:
    if is_cancelled or str(event.get("STATUS", "")).strip().upper() == "CANCELLED":
        reading.cancelled += 1
    elif skip_transparent and _is_transparent(event):
        reading.transparent += 1
    else:
        reading.periods.append(_period(event))


def _is_transparent(event: _Event) -> bool:
    busy = str(event.get("X-MICROSOFT-CDO-BUSYSTATUS", "")).strip().upper()
    return str(event.get("TRANSP", "")).strip().upper() == "TRANSPARENT" or busy == "FREE"


def _period(event: _Event) -> dict[str, str]:
    title = str(event.get("SUMMARY") or "").strip()
    summary = {"summary": title[:4000]} if title else {}
    start, end = event.start, event.end
    if not isinstance(start, datetime):
        last = end.date() if isinstance(end, datetime) else end
        last = max(last, start + timedelta(days=1))
        return {"starts_on": start.isoformat(), "ends_on": last.isoformat(), **summary}
    begins, ends = start.astimezone(UTC), end.astimezone(UTC)
    if ends <= begins:
        # Where the clocks skip the start, its end on the wall may lie before it.
        length = end.replace(tzinfo=None) - start.replace(tzinfo=None)
        ends = begins + max(length, timedelta(minutes=1))
    return {"starts_at": _text(begins), "ends_at": _text(ends), **summary}


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _name(event: _Event) -> str:
    return str(event.get("SUMMARY") or event.get("UID") or "without a name").strip()[:100]


def _too_large(message: str) -> CalendarUnreadable:
    return CalendarUnreadable(
        message, reason="ics_too_large", hint="Use execution windows for what repeats daily"
    )
