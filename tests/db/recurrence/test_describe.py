"""Recurrences in plain English."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.types.json import Jsonb

ZONE = ZoneInfo("America/New_York")
START = datetime(2026, 2, 3, 2, 30, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("kind", "config", "text"),
    [
        ("cron", {"cron_expression": "*/5 * * * *"}, "every 5 minutes"),
        ("cron", {"cron_expression": "0 9 * * 1-5"}, "at 09:00 on Monday to Friday"),
        ("cron", {"cron_expression": "@hourly"}, "every hour"),
        ("cron", {"cron_expression": "*/10 9-17 * * sun"},
         "every 10 minutes of hours 9 to 17 on Sunday"),
        ("cron", {"cron_expression": "0 0 13 * 5"},
         "at 00:00 on the 13th of the month and on Friday"),
        ("cron", {"cron_expression": "0 0 */8 6 1"},
         "at 00:00 on the 1st, 9th, 17th and 25th of the month if that is Monday in June"),
        ("cron", {"cron_expression": "0 8 LW,L-2 * *"},
         "at 08:00 on the 2 days before the last day and last working day of the month"),
        ("cron", {"cron_expression": "0 8 * * 2#1,5L"},
         "at 08:00 on the 1st Tuesday and the last Friday"),
        ("cron", {"cron_expression": "*/5 * * * * *"}, "every 5 seconds"),
        ("interval", {"every": "90 minutes"},
         "every 90 minutes, counted from 2026-02-03 at 07:30"),
        ("once", {}, "once, on 2026-02-03 at 07:30"),
        ("daily", {"times": ["20:15:30", "07:00"]}, "every day at 07:00 and 20:15:30"),
        ("weekly", {"every": 2}, "every 2 weeks on Tuesday at 07:30"),
        ("monthly", {"day_of_month": [1, -1], "time": "06:00"},
         "every month on the 1st and last day at 06:00"),
        ("monthly", {"week": -1, "day_of_week": 4, "every": 3},
         "every 3 months on the last Friday at 07:30"),
    ],
)  # fmt: skip
def test_a_recurrence_is_described_in_words(
    steady: psycopg.Connection[Any],
    compile_one: Callable[..., Any],
    kind: str,
    config: dict[str, Any],
    text: str,
) -> None:
    plan = compile_one(kind, config, "UTC", START)
    row = steady.execute("select fleet.describe_recurrence(%s)", (Jsonb(plan),)).fetchone()

    assert row == (f"{text} (UTC)",)


def test_bounds_and_unusual_rules_are_described(
    steady: psycopg.Connection[Any], compile_one: Callable[..., Any]
) -> None:
    plan = compile_one("daily", {"time": "02:30"}, ZONE.key, None, START, gap="shift", fold="both")
    row = steady.execute("select fleet.describe_recurrence(%s)", (Jsonb(plan),)).fetchone()

    assert row == (
        "every day at 02:30, until 2026-02-03 at 02:30 (America/New_York); "
        "a time that the clocks skip runs as much later as they jump; "
        "a time that comes twice runs both times",
    )
