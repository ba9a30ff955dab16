"""Instants to the microsecond, over all of the time that Postgres knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

STARTS = [
    "2026-03-01 06:30:00+00", "2026-03-01 06:30:00.000001+00", "2255-06-06 06:30:00.999999+00",
    "2300-01-01 06:30:00+00", "2300-01-01 06:30:00.123457+00", "9999-12-30 23:59:59.999999+00",
    "12026-03-01 06:30:00.5+00", "99999-03-01 06:30:00.000001+00", "294270-01-01 06:30:00.25+00",
    "0002-01-01 06:30:00.75+00",
]  # fmt: skip

RECURRENCES = [
    ("once", {}),
    ("interval", {"seconds": 7}),
    ("interval", {"weeks": 3}),
    ("daily", {}),
    ("weekly", {}),
    ("monthly", {}),
]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("kind", "config"), RECURRENCES)
def test_the_first_occurrence_is_the_start_itself(
    steady: psycopg.Connection[Any], kind: str, config: dict[str, int], start: str
) -> None:
    row = steady.execute(
        """
        with plan as materialized (
          select fleet.compile_recurrence(%(kind)s, %(config)s, 'UTC', %(start)s, null) as p
        )
        select fleet.next_occurrence(p, '-infinity') = at,
          fleet.next_occurrence(p, at - interval '1 microsecond') = at,
          coalesce(fleet.next_occurrence(p, at) > at, %(kind)s = 'once'),
          (select min(o) from fleet.occurrences(p, at, at + interval '90 days') as o) = at,
          not exists (select from fleet.occurrences(p, at - interval '1 day', at)),
          fleet.count_occurrences(p, at, at + interval '1 microsecond')
        from plan, (select %(start)s::timestamptz as at) as s
        """,
        {"kind": kind, "config": Jsonb(config), "start": start},
    ).fetchone()
    assert row == (True, True, True, True, True, 1)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("kind", "config", "step"), [
    ("interval", {"seconds": 7}, "7 seconds"), ("daily", {}, "1 day"), ("weekly", {}, "7 days"),
    ("interval", {"days": 400}, "400 days"),
])  # fmt: skip
def test_every_later_one_keeps_the_microsecond(
    steady: psycopg.Connection[Any], kind: str, config: dict[str, int], step: str, start: str
) -> None:
    row = steady.execute(
        """
        with plan as materialized (
          select fleet.compile_recurrence(%(kind)s, %(config)s, 'UTC', %(start)s, null) as p
        )
        select array(select o from fleet.occurrences(p, s.at, s.at + 3 * %(step)s::interval) as o)
            = array[s.at, s.at + %(step)s::interval, s.at + 2 * %(step)s::interval],
          fleet.next_occurrence(p, s.at + %(step)s::interval)
            = s.at + 2 * %(step)s::interval
        from plan, (select %(start)s::timestamptz as at) as s
        """,
        {"kind": kind, "config": Jsonb(config), "step": step, "start": start},
    ).fetchone()
    assert row == (True, True)


@pytest.mark.parametrize(("kind", "config"), [
    ("interval", {"seconds": 7}), ("interval", {"days": 400}), ("daily", {"time": "23:59:59"}),
    ("cron", {"cron_expression": "*/5 * * * *"}),
    ("monthly", {"day_of_month": -1, "time": "00:00"}),
])  # fmt: skip
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_at_the_end_of_time_nothing_raises(
    steady: psycopg.Connection[Any],
    compile_one: Callable[..., Any],
    kind: str,
    config: dict[str, Any],
    zone: str,
) -> None:
    plan = compile_one(kind, config, zone, None if kind != "interval" else "2026-01-01Z")
    row = steady.execute(
        """
        select fleet.next_occurrence(%(plan)s, '294276-12-31 23:59:59.999999+00'),
          (select count(*) >= 0 from fleet.occurrences(%(plan)s, '294276-12-20Z', '294276-12-31Z'))
        """,
        {"plan": Jsonb(plan)},
    ).fetchone()
    assert row == (None, True)


def test_a_start_before_the_year_1_is_refused(compile_one: Callable[..., Any]) -> None:
    with pytest.raises(psycopg.Error, match="lies before the year 1"):
        compile_one("daily", {}, "UTC", "0044-03-15 12:00:00+00 BC")
