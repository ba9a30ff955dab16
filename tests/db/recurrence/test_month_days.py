"""Lists of single times on days of the month, which look at each time, not at spans of clocks."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

# By the spans of clocks, which serve all other recurrences.
BY_SPANS = """
select fleet.instant_of(o.epoch)
from fleet.calendar_occurrences(
  a.plan, fleet.epoch_from(a.since), fleet.epoch_from(a.until)
) as o (epoch)
order by 1
"""
RULES = [
    "30 2 1 * *",
    "0 0 28 * *",
    "59 23 29 * *",
    "0 4 31 * *",
    "15 1 L * *",
    "30 0 1-7 * *",
    "0 3 * * sun#1",
    "30 1 * * sunL",
    "0 12 15W * *",
    "0 0 29 2 *",
    "45 2 3 3,10,11 *",
]


def test_they_are_in_every_zone_those_that_the_spans_of_clocks_give(
    steady: psycopg.Connection[Any], zones: list[str]
) -> None:
    rows = steady.execute(
        f"""
        with asked as (
          select x.*, x.since + interval '9 years 5 days 3 hours' as until,
            fleet.compile_recurrence(
              'cron', jsonb_build_object('cron_expression', x.rule), x.zone, null, null,
              x.gap, x.fold
            ) as plan
          from (
            select z.zone, (%s::text[])[z.place %% %s + 1] as rule,
              timestamptz '1905-03-01Z' + z.place %% 14 * interval '10 years' as since,
              ('{{first_instant,shift,skip}}'::text[])[z.place %% 3 + 1] as gap,
              ('{{first,second,both}}'::text[])[z.place / 3 %% 3 + 1] as fold
            from unnest(%s::text[]) with ordinality as z (zone, place)
          ) as x
        )
        select a.zone, a.rule, a.since, l.listed, s.by_spans,
          fleet.names_one_time_of_month_days(a.plan, a.until)
        from asked as a
        cross join lateral (
          select array(select fleet.occurrences(a.plan, a.since, a.until)) as listed
        ) as l
        cross join lateral (select array({BY_SPANS}) as by_spans) as s
        """,
        (RULES, len(RULES), zones),
    ).fetchall()
    assert [row for row in rows if row[3] != row[4]] == []
    assert sum(len(listed) for *_, listed, _, is_short in rows if is_short) > 30_000
    assert {zone for zone, *_, is_short in rows if not is_short} <= {"EST", "HST", "MST"}


def test_the_clock_of_the_session_is_what_it_was(steady: psycopg.Connection[Any]) -> None:
    listed = """
        select count(*), max(current_setting('timezone'))
        from fleet.occurrences(
          fleet.compile_recurrence(
            'monthly', '{"day_of_month": 1, "time": "04:00"}', 'America/New_York', null, null
          ) || %s::jsonb,
          '2026-01-01Z', '2027-01-01Z'
        )
        """
    assert steady.execute(listed, ("{}",)).fetchone() == (12, "Asia/Kathmandu")
    with pytest.raises(psycopg.errors.InvalidParameterValue), steady.transaction():
        steady.execute(listed, ('{"clock": "Mars/Olympus"}',))
    row = steady.execute("show timezone").fetchone()
    assert row == ("Asia/Kathmandu",)
    steady.rollback()
