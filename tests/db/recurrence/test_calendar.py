"""Once, interval, daily, weekly and monthly, against dateutil and plain arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 10, 21, 9, 15, tzinfo=BERLIN)
UNTIL = datetime(2032, 3, 1, tzinfo=BERLIN)
DAILY: dict[str, Any] = {"freq": rrule.DAILY}
WEEKLY: dict[str, Any] = {"freq": rrule.WEEKLY}
MONTHLY: dict[str, Any] = {"freq": rrule.MONTHLY}
SEVEN_FIVE = {"byhour": 7, "byminute": 5}
EIGHT_PM = {"byhour": 20, "byminute": 0}

Listing = Callable[..., list[datetime]]


def by_dateutil(start: datetime, *rules: dict[str, Any]) -> list[datetime]:
    """List local times by dateutil and read each in Berlin; none of them is skipped there."""
    bounds = {"dtstart": start.replace(tzinfo=None), "until": UNTIL.replace(tzinfo=None)}
    local = {at for rule in rules for at in rrule.rrule(**bounds, **rule)}
    return [at.replace(tzinfo=BERLIN).astimezone(UTC) for at in sorted(local)]


@pytest.mark.parametrize(
    ("kind", "config", "rules"),
    [
        ("daily", {}, [DAILY]),
        ("daily", {"time": "07:05"}, [DAILY | SEVEN_FIVE]),
        ("daily", {"times": ["20:00", "7:05", "07:05"]}, [DAILY | SEVEN_FIVE, DAILY | EIGHT_PM]),
        ("daily", {"every": 3}, [DAILY | {"interval": 3}]),
        ("weekly", {}, [WEEKLY]),
        (
            "weekly",
            {"days_of_week": [0, 4], "time": "20:00:15"},
            [WEEKLY | EIGHT_PM | {"byweekday": [0, 4], "bysecond": 15}],
        ),
        (
            "weekly",
            {"days_of_week": ["mon", "Sunday"], "every": 2},
            [WEEKLY | {"byweekday": [0, 6], "interval": 2}],
        ),
        (
            "weekly",
            {"days_of_week": [1], "every": 5},
            [WEEKLY | {"byweekday": [1], "interval": 5}],
        ),
        ("monthly", {}, [MONTHLY]),
        ("monthly", {"day_of_month": 31}, [MONTHLY | {"bymonthday": 31}]),
        ("monthly", {"day_of_month": "last"}, [MONTHLY | {"bymonthday": -1}]),
        (
            "monthly",
            {"day_of_month": -1, "every": 2},
            [MONTHLY | {"bymonthday": -1, "interval": 2}],
        ),
        ("monthly", {"day_of_month": [1, 15, -1]}, [MONTHLY | {"bymonthday": [1, 15, -1]}]),
        (
            "monthly",
            {"day_of_month": 30, "every": 4},
            [MONTHLY | {"bymonthday": 30, "interval": 4}],
        ),
        ("monthly", {"week": 3, "day_of_week": 0}, [MONTHLY | {"byweekday": rrule.MO(3)}]),
        ("monthly", {"week": 5, "day_of_week": 6}, [MONTHLY | {"byweekday": rrule.SU(5)}]),
        (
            "monthly",
            {"week": -1, "day_of_week": 4, "every": 3},
            [MONTHLY | {"byweekday": rrule.FR(-1), "interval": 3}],
        ),
        (
            "monthly",
            {"day_of_month": 29, "every": 12},
            [MONTHLY | {"bymonthday": 29, "interval": 12}],
        ),
    ],
)
def test_it_runs_when_dateutil_says(
    compile_one: Callable[..., Any],
    occurrences: Listing,
    kind: str,
    config: dict[str, Any],
    rules: list[dict[str, Any]],
) -> None:
    plan = compile_one(kind, config, BERLIN.key, START)

    assert occurrences(plan, START - timedelta(days=900), UNTIL) == by_dateutil(START, *rules)


def test_the_seeds_configuration_runs_as_it_is(
    compile_one: Callable[..., Any], occurrences: Listing
) -> None:
    """Clients that send their whole model send null for what they do not mean."""
    config = {
        "type": "weekly", "days_of_week": [0], "time": "02:00",
        "day_of_month": None, "cron_expression": None, "end_date": None,
    }  # fmt: skip
    start = datetime(2025, 10, 28, 2, tzinfo=UTC)
    plan = compile_one("weekly", config, "UTC", start)

    assert occurrences(plan, start, start + timedelta(days=21)) == [
        datetime(2025, 11, 3, 2, tzinfo=UTC),
        datetime(2025, 11, 10, 2, tzinfo=UTC),
        datetime(2025, 11, 17, 2, tzinfo=UTC),
    ]


def test_custom_is_another_word_for_cron(
    compile_one: Callable[..., Any], occurrences: Listing
) -> None:
    plan = compile_one("custom", {"type": "custom", "cron_expression": "0 12 * * *"})
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)

    assert plan["type"] == "cron"
    assert occurrences(plan, noon, noon + timedelta(days=1)) == [noon]


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({"every": "15 minutes"}, 900),
        ({"every": "PT1H30M"}, 5400),
        ({"every": "1 day"}, 86400),
        ({"seconds": 7}, 7),
        ({"hours": 1, "minutes": 1}, 3660),
        ({"weeks": 1}, 604800),
    ],
)
def test_an_interval_counts_elapsed_time_from_its_start(
    compile_one: Callable[..., Any],
    occurrences: Listing,
    config: dict[str, Any],
    seconds: int,
) -> None:
    """Across a change of the clocks as well."""
    start = datetime(2026, 10, 24, 22, 0, 0, 250_000, tzinfo=UTC)
    plan = compile_one("interval", config, BERLIN.key, start)
    count = min(200, 2_000_000 // seconds)

    found = occurrences(plan, start, start + timedelta(seconds=seconds * count))
    assert found == [start + timedelta(seconds=seconds * n) for n in range(count)]
    later = start + timedelta(seconds=seconds * 3)
    assert occurrences(plan, later, later + timedelta(microseconds=1)) == [later]


def test_once_is_its_start(compile_one: Callable[..., Any], occurrences: Listing) -> None:
    start = datetime(2026, 10, 26, 15, 0, 0, 123, tzinfo=UTC)
    plan = compile_one("once", {}, "UTC", start)

    century = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    assert occurrences(plan, *century) == [start]
    assert occurrences(plan, start + timedelta(microseconds=1), start + timedelta(days=1)) == []


@pytest.mark.parametrize(
    ("end_date", "last"),
    [
        ("2026-10-25", datetime(2026, 10, 25, 22, 59, tzinfo=UTC)),
        ("2026-10-24T23:59", datetime(2026, 10, 24, 21, 59, tzinfo=UTC)),
        ("2026-10-24T23:58:59", datetime(2026, 10, 23, 21, 59, tzinfo=UTC)),
        ("2026-10-25T22:59:00Z", datetime(2026, 10, 25, 22, 59, tzinfo=UTC)),
        ("2026-10-25 23:59:00+01:00", datetime(2026, 10, 25, 22, 59, tzinfo=UTC)),
    ],
)
def test_an_end_date_is_the_last_day_or_the_last_moment(
    compile_one: Callable[..., Any], occurrences: Listing, end_date: str, last: datetime
) -> None:
    plan = compile_one("daily", {"time": "23:59", "end_date": end_date}, BERLIN.key)
    found = occurrences(plan, datetime(2026, 10, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))

    assert found[-1] == last
