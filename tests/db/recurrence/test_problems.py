"""Bad input: every problem at once, each with its field, what is wrong and what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

START = datetime(2026, 1, 1, tzinfo=UTC)


def problems(
    db: psycopg.Connection[Any], kind: str | None, config: Any, zone: str | None = "UTC"
) -> list[tuple[str, str]]:
    """List field and problem."""
    rows = db.execute(
        "select field, problem, hint from fleet.recurrence_problems(%s, %s, %s)",
        (kind, Jsonb(config), zone),
    ).fetchall()
    assert all(hint for _, _, hint in rows)
    return [(field, problem) for field, problem, _ in rows]


def test_every_problem_is_named_at_once(db: psycopg.Connection[Any]) -> None:
    config = {
        "type": "daily", "time": "25:00", "days_of_week": [0, 7, "someday"], "every": 0,
        "end_date": "soon", "dayofweek": 3, "day_of_month": 32, "week": 6,
    }  # fmt: skip

    assert problems(db, "weekly", config, "europe/berlin") == [
        ("timezone", "'europe/berlin' is not a time zone"),
        ("recurrence_config.type", "'daily' is not the recurrence type"),
        ("recurrence_config.dayofweek", "is not known"),
        ("recurrence_config.time", "'25:00' is not a time of day"),
        ("recurrence_config.days_of_week", "'7' is not a weekday"),
        ("recurrence_config.days_of_week", "'someday' is not a weekday"),
        ("recurrence_config.day_of_month", "'32' is not a day of the month"),
        ("recurrence_config.week", "'6' is not a week of the month"),
        ("recurrence_config.day_of_week", "is missing"),
        ("recurrence_config.week", "stands beside day_of_month"),
        ("recurrence_config.every", "'0' is not a whole number from 1 to 9999"),
        ("recurrence_config.end_date", "'soon' is not a date or time"),
    ]


@pytest.mark.parametrize(
    ("kind", "config", "field"),
    [
        ("yearly", {}, "recurrence_type"),
        (None, {}, "recurrence_type"),
        ("daily", [], "recurrence_config"),
        ("daily", "02:00", "recurrence_config"),
        ("daily", {"time": 2}, "recurrence_config.time"),
        ("daily", {"time": ["02:00", None]}, "recurrence_config.time"),
        ("daily", {"times": []}, "recurrence_config.times"),
        ("daily", {"time": "02:00", "times": ["03:00"]}, "recurrence_config.times"),
        ("daily", {"every": "15 minutes"}, "recurrence_config.every"),
        ("daily", {"every": 1.5}, "recurrence_config.every"),
        ("weekly", {"days_of_week": []}, "recurrence_config.days_of_week"),
        ("weekly", {"days_of_week": {"mon": True}}, "recurrence_config.days_of_week"),
        ("monthly", {"day_of_month": 0}, "recurrence_config.day_of_month"),
        ("monthly", {"day_of_month": -2}, "recurrence_config.day_of_month"),
        ("monthly", {"week": 1}, "recurrence_config.day_of_week"),
        ("interval", {}, "recurrence_config.every"),
        ("interval", {"every": "1 month"}, "recurrence_config.every"),
        ("interval", {"every": "nonsense"}, "recurrence_config.every"),
        ("interval", {"every": 15}, "recurrence_config.every"),
        ("interval", {"seconds": 0}, "recurrence_config.seconds"),
        ("interval", {"every": "-5 minutes"}, "recurrence_config.every"),
        ("interval", {"every": "0.5 seconds"}, "recurrence_config.every"),
        ("cron", {}, "recurrence_config.cron_expression"),
        ("cron", {"cron_expression": 5}, "recurrence_config.cron_expression"),
        ("cron", {"cron_expression": "* * *"}, "recurrence_config.cron_expression"),
        ("daily", {"end_date": "2026-02-30"}, "recurrence_config.end_date"),
        ("daily", {"end_date": "tomorrow"}, "recurrence_config.end_date"),
    ],
)
def test_one_problem_names_its_field(
    db: psycopg.Connection[Any], kind: str | None, config: Any, field: str
) -> None:
    assert {name for name, _ in problems(db, kind, config)} == {field}


@pytest.mark.parametrize("zone", [None, "", "Nonsense5", "posix/Europe/Berlin", "EST5", "+02:00"])
def test_only_iana_zones_are_time_zones(db: psycopg.Connection[Any], zone: str | None) -> None:
    assert [field for field, _ in problems(db, "once", {}, zone)] == ["timezone"]


def test_a_zone_in_the_wrong_case_is_corrected(db: psycopg.Connection[Any]) -> None:
    row = db.execute(
        "select hint from fleet.recurrence_problems('once', '{}', 'america/new_york')"
    ).fetchone()
    assert row == ("Did you mean America/New_York?",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "yearly"}, "recurrence_type: 'yearly' is not a recurrence type"),
        ({"timezone": "Mars"}, "timezone: 'Mars' is not a time zone"),
        ({"config": {"time": "x"}}, "recurrence_config.time: 'x' is not a time of day"),
        ({"gap": "jump"}, "gap: 'jump' is not a gap rule"),
        ({"fold": None}, "fold: is missing"),
        ({"start": None, "config": {}}, "start_time: is missing"),
        ({"start": None, "config": {"time": "02:00", "every": 2}}, "start_time: is missing"),
        ({"start": "infinity"}, "start_time: is not a moment in time"),
        ({"end": datetime(2025, 1, 1, tzinfo=UTC)}, "end_time: lies before the start"),
        ({"config": {"end_date": "2025-12-31"}},
         "recurrence_config.end_date: lies before the start"),
    ],
)  # fmt: skip
def test_compiling_raises_the_first_problem(
    db: psycopg.Connection[Any], values: dict[str, Any], message: str
) -> None:
    given = {
        "type": "daily", "config": {"time": "02:00"}, "timezone": "UTC", "start": START,
        "end": None, "gap": "first_instant", "fold": "first",
    } | values  # fmt: skip
    given["config"] = Jsonb(given["config"])

    with pytest.raises(psycopg.Error) as caught:
        db.execute(
            "select fleet.compile_recurrence("
            "%(type)s, %(config)s, %(timezone)s, %(start)s, %(end)s, %(gap)s, %(fold)s)",
            given,
        )

    assert caught.value.sqlstate == "PT422"
    assert caught.value.diag.message_primary == message
    assert caught.value.diag.message_detail == "recurrence_invalid"
    assert caught.value.diag.message_hint


def test_what_is_valid_has_no_problems(db: psycopg.Connection[Any]) -> None:
    for kind, config in [
        ("once", {}),
        ("once", None),
        ("daily", {"time": "7:00"}),
        ("weekly", {"days_of_week": ["Monday", "tue", 6], "time": "23:59:59"}),
        ("monthly", {"week": "last", "day_of_week": "fri"}),
        ("interval", {"every": "90 seconds"}),
        ("cron", {"cron_expression": "@daily", "end_date": "2030-01-01"}),
    ]:
        assert problems(db, kind, config) == []
