"""Where we part from cronsim on purpose: it loses real minutes or answers with the past."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from cronsim import CronSim
from psycopg.types.json import Jsonb


@pytest.mark.parametrize(
    ("why", "text", "zone", "after", "ours", "theirs"),
    [
        (
            "hours are stepped by 60 minutes across a change of 30, so half an hour is lost",
            "*/15 4 * * *",
            "Australia/Lord_Howe",
            "2010-04-04 00:00+11:00",
            "2010-04-04 04:00+10:30",
            "2010-04-04 04:30+10:30",
        ),
        (
            "the day begins at a midnight that was skipped, so its first real hour is lost",
            "*/15 1 * * sun",
            "America/Sao_Paulo",
            "2018-11-03 00:00-03:00",
            "2018-11-04 01:00-02:00",
            "2018-11-11 01:00-02:00",
        ),
        (
            "an hour that never came runs once all the same, though only after a day of rest",
            "*/15 0 * * sun",
            "America/Sao_Paulo",
            "2018-11-03 00:00-03:00",
            "2018-11-11 00:00-02:00",
            "2018-11-04 01:00-02:00",
        ),
        (
            "begun in the second of two equal hours the answer lies in the first",
            "30 1 * * *",
            "America/New_York",
            "2026-11-01 01:10-05:00",
            "2026-11-02 01:30-05:00",
            "2026-11-01 01:30-04:00",
        ),
    ],
)
def test_real_minutes_are_not_lost_and_nothing_is_in_the_past(
    steady: psycopg.Connection[Any],
    compile_one: Callable[..., Any],
    why: str,
    text: str,
    zone: str,
    after: str,
    ours: str,
    theirs: str,
) -> None:
    start = datetime.fromisoformat(after)
    plan = compile_one("cron", {"cron_expression": text}, zone)
    row = steady.execute("select fleet.next_occurrence(%s, %s)", (Jsonb(plan), start)).fetchone()
    local = next(CronSim(text, start.astimezone(ZoneInfo(zone))))

    assert row == (datetime.fromisoformat(ours),)
    assert local.astimezone(UTC) == datetime.fromisoformat(theirs), why


def test_callers_may_compute_but_strangers_may_not(
    db: psycopg.Connection[Any], sign_in: Any
) -> None:
    row = db.execute(
        "select fleet.compile_recurrence('cron', %s, 'UTC', null, null)",
        (Jsonb({"cron_expression": "0 5 L * *"}),),
    ).fetchone()
    assert row is not None
    plan = Jsonb(row[0])
    question = """
        select fleet.next_occurrence(%(plan)s, '2026-01-01Z'),
          fleet.count_occurrences(%(plan)s, '2026-01-01Z', '2027-01-01Z'),
          fleet.describe_recurrence(%(plan)s)
        """

    sign_in(db, None)
    assert db.execute(question, {"plan": plan}).fetchone() == (
        datetime(2026, 1, 31, 5, tzinfo=UTC),
        12,
        "at 05:00 on the last day of the month (UTC)",
    )

    db.execute("set local role anon")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute(question, {"plan": plan})
