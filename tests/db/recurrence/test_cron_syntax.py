"""What counts as a cron expression, and what the marks beyond plain numbers mean."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given, settings
from hypothesis import strategies as st

SINCE = datetime(2027, 1, 1, tzinfo=UTC)
UNTIL = datetime(2031, 1, 1, tzinfo=UTC)

ATOMS = ["*", "0", "1", "5", "7", "07", "31", "59", "60", "L", "LW", "jan", "sun", "MON-FRI", "1-5",
         "5-1", "1-", "-", "/", "*/2", "*/0", "1/3", "2-9/4", "5#2", "5#6", "mon#1", "5L", "L5",
         "8", "a", "1,", ",", "1,2", "*,3", "?", "99999999999", "*/99999999999", "L/2", "5L/2",
         "1-3#1", "1/2/3", "0-6", "feb-jun/2", "1.5", "+1", "W"]  # fmt: skip
EXTENSIONS = ("L-", "W")


def accepts(text: str) -> bool:
    """Ask cronsim whether this is an expression that can ever run."""
    try:
        return next(CronSim(text, SINCE), None) is not None
    except CronSimError:
        return False


def is_ours(text: str) -> bool:
    """Say whether the weekdays are written as cronsim does not know them: sat-mon, friL."""
    return re.search(r"(5-1|[A-Z]{3}L)", text.upper().split()[-1]) is not None


def problems(steady: psycopg.Connection[Any], text: str) -> list[str]:
    """Give what is wrong with an expression."""
    rows = steady.execute(
        """
        select problem
        from fleet.recurrence_problems(
          'cron', jsonb_build_object('cron_expression', %s::text), 'UTC'
        )
        """,
        (text,),
    )
    return [problem for (problem,) in rows]


def days() -> Iterator[date]:
    """Walk through every day of the four years under test."""
    day = SINCE.date()
    while day < UNTIL.date():
        yield day
        day += timedelta(days=1)


def length(day: date) -> int:
    """Give the number of days of a month."""
    return calendar.monthrange(day.year, day.month)[1]


def nearest_working_day(day: date) -> date:
    """Find the nearest Monday to Friday in the same month by trying them by distance."""
    candidates = sorted(
        (abs(n - day.day), n) for n in range(1, length(day) + 1)
        if day.replace(day=n).weekday() < 5
    )  # fmt: skip
    return day.replace(day=candidates[0][1])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(ATOMS), min_size=1, max_size=2).map("".join),
        min_size=4,
        max_size=7,
    ).map(" ".join)
)
def test_any_text_is_refused_exactly_when_cronsim_refuses_it(
    steady: psycopg.Connection[Any], text: str
) -> None:
    if any(mark in text.upper().replace("LW", "") for mark in EXTENSIONS) or is_ours(text):
        return
    assert (problems(steady, text) == []) == accepts(text)


@pytest.mark.parametrize("field", range(5))
@pytest.mark.parametrize("atom", ATOMS)
def test_every_atom_in_every_field_is_taken_as_cronsim_takes_it(
    steady: psycopg.Connection[Any], atom: str, field: int
) -> None:
    if atom == "W" or (field == 4 and is_ours(atom)):
        return
    fields = ["0", "0", "*", "*", "*"]
    fields[field] = atom
    text = " ".join(fields)

    assert (problems(steady, text) == []) == accepts(text)


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" @Annually ", "0 0 1 1 *"),
    ],
)
def test_a_nickname_is_its_five_fields(
    compile_one: Callable[..., Any], text: str, same_as: str
) -> None:
    nickname = compile_one("cron", {"cron_expression": text})
    fields = compile_one("cron", {"cron_expression": same_as})

    assert nickname | {"config": None} == fields | {"config": None}


@pytest.mark.parametrize("before_last", [1, 2, 3, 27, 28, 30])
def test_days_before_the_last_are_counted_from_the_end(
    compile_one: Callable[..., Any], occurrences: Callable[..., list[datetime]], before_last: int
) -> None:
    plan = compile_one("cron", {"cron_expression": f"15 6 L-{before_last} * *"})

    assert [at.date() for at in occurrences(plan, SINCE, UNTIL)] == [
        day for day in days() if day.day == length(day) - before_last
    ]


@pytest.mark.parametrize("wanted", [1, 2, 15, 28, 29, 30, 31])
def test_the_nearest_working_day_stays_in_its_month(
    compile_one: Callable[..., Any], occurrences: Callable[..., list[datetime]], wanted: int
) -> None:
    plan = compile_one("cron", {"cron_expression": f"15 6 {wanted}W * *"})

    expected = [nearest_working_day(day) for day in days() if day.day == wanted]
    assert [at.date() for at in occurrences(plan, SINCE, UNTIL)] == expected


def test_special_days_mix_with_plain_ones_and_with_weekdays(
    compile_one: Callable[..., Any], occurrences: Callable[..., list[datetime]]
) -> None:
    plan = compile_one("cron", {"cron_expression": "0 0 10W,L-2,5 * fri#1"})

    expected = [
        day
        for day in days()
        if day.day in (5, length(day) - 2)
        or day == nearest_working_day(day.replace(day=10))
        or (day.weekday() == 4 and day.day <= 7)
    ]
    assert [at.date() for at in occurrences(plan, SINCE, UNTIL)] == expected


@pytest.mark.parametrize("text", ["*/7 * * * * *", "5,50 */20 3 * * *", "0-10/5 59 23 31 12 *"])
def test_seconds_are_every_second_that_matches(
    compile_one: Callable[..., Any], occurrences: Callable[..., list[datetime]], text: str
) -> None:
    seconds, minutes, hours, _, _, _ = text.split()
    since = datetime(2027, 12, 31, 2, 58, 30, tzinfo=UTC)
    until = since + timedelta(hours=3 if seconds == "*/7" else 48)
    plan = compile_one("cron", {"cron_expression": text})

    def allowed(field: str, size: int) -> set[int]:
        base, _, step = field.partition("/")
        if base == "*":
            return set(range(0, size, int(step or 1)))
        if "-" in base:
            low, high = base.split("-")
            return set(range(int(low), int(high) + 1, int(step)))
        return {int(value) for value in base.split(",")}

    fields = [(allowed(seconds, 60), "second"), (allowed(minutes, 60), "minute"),
              (allowed(hours, 24), "hour")]  # fmt: skip
    expected = []
    at = since
    while at < until:
        year_end = (at.month, at.day) == (12, 31) or "12" not in text.split()
        if year_end and all(getattr(at, name) in values for values, name in fields):
            expected.append(at)
        at += timedelta(seconds=1)

    assert occurrences(plan, since, until) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("61 * * * *", "the minute field '61' is not valid"),
        ("0 24 * * *", "the hour field '24' is not valid"),
        ("0 0 32 * *", "the day-of-month field '32' is not valid"),
        ("0 0 * 13 *", "the month field '13' is not valid"),
        ("0 0 * * 8", "the day-of-week field '8' is not valid"),
        ("60 0 0 * * *", "the second field '60' is not valid"),
        ("0 0 * *", "a cron expression has five fields, or six with seconds; this one has 4"),
        ("", "a cron expression has five fields, or six with seconds; this one has 0"),
        ("@reboot", "'@reboot' is not a nickname of cron"),
        ("0 0 30 2 *", "no day ever matches the day-of-month, month and day-of-week fields"),
        ("0 0 31W 2,4 *", "no day ever matches the day-of-month, month and day-of-week fields"),
        ("0 0 L-30 2 *", "no day ever matches the day-of-month, month and day-of-week fields"),
        ("0 0 0W * *", "the day-of-month field '0w' is not valid"),
        ("0 0 L-31 * *", "the day-of-month field 'l-31' is not valid"),
        ("0 22-6 * * *", "the hour field '22-6' is not valid"),
        ("0 0 * * frL", "the day-of-week field 'frl' is not valid"),
        ("0 0 * * fri-L", "the day-of-week field 'fri-l' is not valid"),
        ("0 0 * * 6-8", "the day-of-week field '6-8' is not valid"),
        ("CRON_TZ=Europe/Berlin 0 6 * * *", "a time zone stands in the expression"),
        ("  TZ='Asia/Tokyo' 0 6 * * *", "a time zone stands in the expression"),
        ("cron_tz=UTC @daily", "a time zone stands in the expression"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    steady: psycopg.Connection[Any], text: str, says: str
) -> None:
    assert problems(steady, text) == [says]


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("CRON_TZ=Europe/Berlin 0 6 * * *", "Europe/Berlin"),
        ('TZ="Asia/Tokyo" 0 6 * * *', "Asia/Tokyo"),
        ("TZ= 0 6 * * *", "Europe/Berlin"),
    ],
)
def test_a_zone_in_the_expression_is_told_where_it_belongs(
    steady: psycopg.Connection[Any], text: str, zone: str
) -> None:
    row = steady.execute("select hint from fleet.parse_cron(%s)", (text,)).fetchone()
    assert row is not None
    assert f'"timezone": "{zone}"' in row[0]


@pytest.mark.parametrize(
    ("field", "weekdays"),
    [
        ("sat-sun", {6, 0}), ("sat-mon", {6, 0, 1}), ("5-1", {5, 6, 0, 1}),
        ("FRI-TUE", {5, 6, 0, 1, 2}),
        ("mon-sun", set(range(7))), ("7-2", {0, 1, 2}), ("tue-mon", set(range(7))), ("6-0", {6, 0}),
        ("fri-tue/2", {5, 0, 2}), ("sat-sun,wed", {6, 0, 3}), ("sun-sat", set(range(7))),
    ],
)  # fmt: skip
def test_a_range_of_weekdays_goes_over_the_end_of_the_week(
    compile_one: Callable[..., Any],
    occurrences: Callable[..., list[datetime]],
    field: str,
    weekdays: set[int],
) -> None:
    plan = compile_one("cron", {"cron_expression": f"0 0 * * {field}"})

    expected = [day for day in days() if day.isoweekday() % 7 in weekdays]
    assert [at.date() for at in occurrences(plan, SINCE, UNTIL)] == expected


@pytest.mark.parametrize(("field", "weekday"), [("friL", 4), ("SUNL", 6), ("5L", 4), ("0l", 6)])
def test_the_last_weekday_of_a_month_may_be_named(
    compile_one: Callable[..., Any],
    occurrences: Callable[..., list[datetime]],
    field: str,
    weekday: int,
) -> None:
    plan = compile_one("cron", {"cron_expression": f"0 0 * * {field}"})

    expected = [d for d in days() if d.weekday() == weekday and d.day + 7 > length(d)]
    assert [at.date() for at in occurrences(plan, SINCE, UNTIL)] == expected


def test_a_leap_day_on_one_weekday_is_found_decades_ahead(
    steady: psycopg.Connection[Any], compile_one: Callable[..., Any]
) -> None:
    plan = compile_one("cron", {"cron_expression": "0 0 29 2 */8"})
    row = steady.execute(
        "select fleet.next_occurrence(%s, '2072-03-01 00:00Z')",
        (psycopg.types.json.Jsonb(plan),),
    ).fetchone()

    assert row is not None
    # The first Sunday, 29 February after 2072; 2100 is no leap year.
    assert row[0].astimezone(UTC).date() == date(2088, 2, 29)
