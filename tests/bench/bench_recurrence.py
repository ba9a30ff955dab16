"""Next occurrences and lists of them, against the plain SQL that knows nothing of clock changes."""

from __future__ import annotations

import time
from typing import Any

import psycopg

CALLS = 20_000
MIX = {
    "daily": "30 2 * * *",
    "weekday": "0 9 * * mon-fri",
    "every 5 minutes": "*/5 * * * *",
    "monthly": "0 4 1 * *",
    "yearly": "0 0 29 2 *",
}
ZONES = "{America/New_York,Europe/Berlin,Asia/Kolkata,Australia/Lord_Howe,UTC}"

# One expression a row, right on every day but two a year.
PLAIN_NEXT = """
select count((
  date_trunc('day', at at time zone zone) + interval '1 day' + interval '9 hours'
) at time zone zone)
from generate_series(1, %(calls)s) as n
cross join lateral (select (%(zones)s::text[])[n %% 5 + 1] as zone) as z
cross join lateral (select timestamptz '2026-01-01Z' + n * interval '26 minutes' as at) as a
"""
PLAIN_LIST = """
select count((d + interval '2 hours 30 minutes') at time zone 'America/New_York')
from generate_series(timestamp '2000-01-01', timestamp '2099-12-31', interval '1 day') as d
"""


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure calls and rows a second on one connection, best of three."""
    connection.execute(
        """
        create temp table plans as
        select m.name, m.place, z.zone, z.turn, fleet.compile_recurrence(
          'cron', jsonb_build_object('cron_expression', m.text), z.zone, '2000-01-01Z', null
        ) as plan
        from unnest(%s::text[], %s::text[]) with ordinality as m (name, text, place)
        cross join unnest(%s::text[]) with ordinality as z (zone, turn)
        """,
        (list(MIX), list(MIX.values()), ZONES),
    )
    return [*_next(connection), *_lists(connection), _compiling(connection)]


def _next(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    plain = CALLS / _best(connection, PLAIN_NEXT, {"calls": CALLS, "zones": ZONES})
    rows = []
    for name in ["even mix", *MIX]:
        seconds = _best(
            connection,
            """
            select count(fleet.next_occurrence(
              p.plan, timestamptz '2026-01-01Z' + n * interval '26 minutes'
            ))
            from generate_series(1, %(calls)s) as n
            join plans as p
              on p.turn = n %% 5 + 1
              and p.place = case when %(name)s = 'even mix' then n / 5 %% 5 + 1 else p.place end
              and %(name)s in ('even mix', p.name)
            """,
            {"calls": CALLS, "name": name},
        )
        goal = 30_000 if name == "even mix" else None
        rows.append(_row(f"next occurrence, {name}", CALLS / seconds, "calls/s", plain, goal))
    return rows


def _lists(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    plain = 36_525 / _best(connection, PLAIN_LIST, {})
    rows = []
    for name, years in [("daily", 100), ("weekday", 100), ("every 5 minutes", 2), ("monthly", 100)]:
        arguments = {"name": name, "years": years}
        query = """
            select count(*)
            from plans as p
            cross join lateral fleet.occurrences(
              p.plan, '2000-01-01Z', timestamptz '2000-01-01Z' + make_interval(years => %(years)s)
            )
            where p.name = %(name)s
              and p.turn = 1
            """
        counted = connection.execute(query, arguments).fetchone()
        assert counted is not None
        rate = counted[0] / _best(connection, query, arguments)
        goal = 500_000 if name == "monthly" else 300_000
        rows.append(_row(f"list of occurrences, {name}", rate, "rows/s", plain, goal))
    return rows


def _compiling(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    query = """
        select count(fleet.compile_recurrence(
          'cron', jsonb_build_object('cron_expression', n %% 60 || ' 2 * * mon-fri'),
          'UTC', null, null
        ))
        from generate_series(1, 500) as n
        """
    plain = 500 / _best(
        connection,
        "select count(regexp_split_to_array(n %% 60 || ' 2 * * mon-fri', ' '))"
        " from generate_series(1, 500) as n",
        {},
    )
    return _row(
        "compiling a recurrence", 500 / _best(connection, query, {}), "calls/s", plain, None
    )


def _best(connection: psycopg.Connection[Any], query: str, arguments: dict[str, Any]) -> float:
    """Give the shortest of three runs in seconds."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        connection.execute(query, arguments).fetchall()
        taken.append(time.perf_counter() - started)
    return min(taken)


def _row(what: str, value: float, unit: str, plain: float, goal: int | None) -> dict[str, Any]:
    return {
        "what": what,
        "value": round(value),
        "unit": unit,
        "baseline": round(plain),
        "ratio": f"{value / plain:.3f}",
        "goal": f"≥ {goal}" if goal else "",
    }
