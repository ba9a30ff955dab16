"""Calendars of others, file by file: what each is read as, and what is left out by name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pgfleet_functions.calendars.ics import CalendarUnreadable, Reading, read_calendar
from pgfleet_functions.calendars.zones import zone_of

FILES = Path(__file__).parent / "files"
TODAY = date(2026, 6, 15)
XMAS = "2026-12-25..2026-12-26 Christmas"
WINTER, SUMMER = "2026-01-15T09:00Z/10:00Z Winter", "2026-07-15T08:00Z/09:00Z Summer"


def read(name: str, timezone: str | None = None, *, skip_transparent: bool = False) -> Reading:
    """Read a file of the folder."""
    data = (FILES / f"{name}.ics").read_bytes()
    return read_calendar(data, timezone=timezone, today=TODAY, skip_transparent=skip_transparent)


def short(reading: Reading) -> list[str]:
    """Write periods so that they can be compared at a glance."""
    found = []
    for period in reading.periods:
        if "starts_on" in period:
            span = f"{period['starts_on']}..{period['ends_on']}"
        else:
            starts, ends = (period[key].replace(":00Z", "Z") for key in ("starts_at", "ends_at"))
            same_day = starts[:10] == ends[:10]
            span = f"{starts}/{ends[11:] if same_day else ends}"
        found.append(f"{span} {period.get('summary', '')}".strip())
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("01_all_day", ["2026-12-25..2026-12-27 Christmas"]),
        ("02_all_day_without_end", [XMAS]),
        ("03_utc", ["2026-05-01T08:00Z/10:00Z Exam"]),
        ("04_iana_zone", ["2026-05-01T08:00Z/10:00Z Exam"]),
        ("05_bom", ["2026-12-25..2026-12-26 Weihnachten"]),
        ("06_latin1", ["2026-12-25..2026-12-26 Fête de Noël"]),
        ("07_lf_only", [XMAS]),
        ("08_cr_only", [XMAS]),
        ("09_several_calendars",
         ["2026-12-25..2026-12-26 One", "2027-01-01..2027-01-02 Two"]),
        ("10_cancelled_event", [XMAS]),
        ("11_cancelled_instance",
         ["2026-06-01T08:00Z/09:00Z Daily", "2026-06-03T08:00Z/09:00Z Daily"]),
        ("12_moved_instance",
         ["2026-06-01T08:00Z/09:00Z Daily", "2026-06-02T15:00Z/16:00Z Moved"]),
        ("13_method_cancel", []),
        ("18_event_without_end_line",
         ["2026-12-25..2026-12-26 Open", "2027-01-01..2027-01-02 Next"]),
        ("20_vtimezone", [WINTER, SUMMER]),
        ("21_windows_name", [WINTER, SUMMER]),
        ("22_windows_name_in_summer_and_quotes", [WINTER, SUMMER]),
        ("23_windows_name_as_shown", [WINTER, SUMMER]),
        ("24_windows_name_in_lower_case", [WINTER, SUMMER]),
        ("25_offset_text", ["2026-01-15T04:30Z/05:30Z Winter", "2026-07-15T04:30Z/05:30Z Summer"]),
        ("26_zone_with_a_prefix", [WINTER, SUMMER]),
        ("29_floating_with_calendar_zone", ["2026-05-01T14:00Z/16:00Z Exam"]),
        ("30_until_without_z",
         [f"2026-06-0{day}T08:00Z/09:00Z Lesson" for day in (1, 2, 3)]),
        ("31_until_with_a_date",
         [f"2026-06-0{day}T08:00Z/09:00Z Lesson" for day in (1, 2)]),
        ("32_days_until_a_time",
         ["2026-06-01..2026-06-02 Day", "2026-06-02..2026-06-03 Day"]),
        ("33_exdate_and_rdate",
         [f"2026-06-{day}T10:00Z/11:00Z Lesson" for day in ("01", "03", "10")]),
        ("36_transparent",
         [XMAS, "2026-12-26..2026-12-27 Opaque", "2026-12-27..2026-12-28 Free"]),
        ("37_duration", ["2026-05-01T08:00Z/2026-05-02T10:00Z Long"]),
        ("39_folded_and_escaped", ["2026-12-25..2026-12-26 Long, very long; name"]),
        ("40_alarms_and_todos", [XMAS]),
        ("42_yearly_for_ever",
         [f"{year}-01-01..{year}-01-02 New Year" for year in range(2026, 2032)]),
        ("43_shift_over_the_change",
         ["2026-03-06T07:30Z/08:00Z Night", "2026-03-07T07:30Z/08:00Z Night",
          "2026-03-08T07:30Z/08:00Z Night", "2026-03-09T06:30Z/07:00Z Night"]),
        ("44_empty", []),
        ("45_utf16", [XMAS]),
        ("46_no_uid", ["2026-12-25..2026-12-26 A", "2026-12-26..2026-12-27 B"]),
    ],
)  # fmt: skip
def test_a_file_is_read_as_it_is_meant(name: str, expected: list[str]) -> None:
    reading = read(name)
    assert short(reading) == expected
    assert reading.left_out == []


@pytest.mark.parametrize(
    ("name", "event", "problem", "rest"),
    [
        ("14_without_start", "No start", "no DTSTART", [XMAS]),
        ("15_impossible_date", "Odd", "20260231", [XMAS]),
        ("16_impossible_time", "Odd", "20260501T250000Z", [XMAS]),
        ("17_rule_nobody_reads", "Odd", "", [XMAS]),
        ("19_cut_off", "Half", "", ["2026-12-25..2026-12-26 Whole"]),
        ("38_ends_before_it_starts", "Odd", "", [XMAS]),
        ("47_a_line_that_is_none", "Christmas", "", ["2027-01-01..2027-01-02 Next"]),
    ],
)
def test_what_cannot_be_read_is_named_and_the_rest_is_taken(
    name: str, event: str, problem: str, rest: list[str]
) -> None:
    reading = read(name)
    assert short(reading) == rest
    (left,) = reading.left_out
    assert left.event == event
    assert problem in left.problem


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("27_unknown_zone", "ics_timezone_unknown", 'the time zone "Mars/Olympus" is not known'),
        ("28_floating", "ics_without_timezone", 'event "Exam" at 2026-05-01 10:00:00 belongs'),
        ("34_every_second_for_ever", "ics_too_large", 'event "Busy" repeats too often'),
        ("35_hourly_since_the_year_1", "ics_too_large", 'event "Old" repeats too often'),
        ("41_no_calendar", "ics_invalid", "has no BEGIN:VCALENDAR"),
    ],
)
def test_what_cannot_be_left_out_is_an_error_that_says_so(
    name: str, reason: str, words: str
) -> None:
    began = datetime.now(tz=UTC)
    with pytest.raises(CalendarUnreadable) as caught:
        read(name)
    assert (caught.value.reason, words in caught.value.message) == (reason, True)
    # Bounded before it is expanded.
    assert datetime.now(tz=UTC) - began < timedelta(seconds=20)


def test_a_zone_that_is_given_is_for_times_that_have_none() -> None:
    assert short(read("28_floating", "Europe/Berlin")) == ["2026-05-01T08:00Z/10:00Z Exam"]
    assert short(read("04_iana_zone", "Asia/Tokyo")) == ["2026-05-01T08:00Z/10:00Z Exam"]
    assert short(read("29_floating_with_calendar_zone", "UTC")) == ["2026-05-01T10:00Z/12:00Z Exam"]
    with pytest.raises(CalendarUnreadable, match="not a known time zone"):
        read("28_floating", "Mars/Olympus")


def test_what_was_cancelled_or_leaves_people_free_is_counted() -> None:
    assert read("11_cancelled_instance").cancelled == 1
    assert read("13_method_cancel").cancelled == 1
    assert read("36_transparent").transparent == 0
    reading = read("36_transparent", skip_transparent=True)
    assert short(reading) == ["2026-12-26..2026-12-27 Opaque"]
    assert reading.transparent == 2


@pytest.mark.parametrize(
    ("name", "winter", "summer"),
    [
        ("Europe/Berlin", 1, 2), ("europe/berlin", 1, 2), ("US/Eastern", -5, -4), ("utc", 0, 0),
        ("Eastern Standard Time", -5, -4), ("Eastern Daylight Time", -5, -4),
        ("(UTC-05:00) Eastern Time (US & Canada)", -5, -4), ("Etc/GMT-3", 3, 3),
        ("(UTC) Coordinated Universal Time", 0, 0), ("(UTC-10:00) Hawaii", -10, -10),
        ("(GMT-08:00) Pacific Time (US & Canada)", -8, -7), ("UTC+2", 2, 2), ("Z", 0, 0),
        ("(UTC+09:00) Osaka, Sapporo, Tokyo", 9, 9), ("Romance Standard Time", 1, 2),
        ("(UTC+05:30) Chennai, Kolkata, Mumbai, New Delhi", 5.5, 5.5),
        ("(UTC+10:00) Canberra, Melbourne, Sydney", 11, 10), ("GMT Standard Time", 0, 1),
        ("+01:00", 1, 1), ("UTC-03:30", -3.5, -3.5), ("GMT+0545", 5.75, 5.75),
        ('"Tokyo Standard Time"', 9, 9),
        ("/mozilla.org/20050126_1/America/Argentina/Buenos_Aires", -3, -3),
    ],
)  # fmt: skip
def test_a_zone_is_known_by_each_of_its_names(name: str, winter: float, summer: float) -> None:
    zone = zone_of(name)
    for month, hours in ((1, winter), (7, summer)):
        at = datetime(2026, month, 15, 12, tzinfo=zone)
        assert at.utcoffset() == timedelta(hours=hours)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "Nonsense5", "UTC+99", "(UTC+01:00) Atlantis"]
)
def test_what_is_no_zone_is_none(name: str) -> None:
    assert zone_of(name) is None
