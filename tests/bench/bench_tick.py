"""Ticks cost what is due, not what exists: 1,000 due among ten thousand, and among a million."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import psycopg
from measure import make_owner

FEW = 10_000
MANY = 1_000_000
DUE = 1_000
ROUNDS = 5


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure ticks with the same number of due schedules among few and among many."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    make_owner(connection)
    connection.execute(
        "insert into devices (hostname) select 'pc-' || i from generate_series(1, 1000) as i"
    )
    _fill(connection, FEW)
    among_few = _tick_seconds(connection)
    _fill(connection, MANY)
    among_many = _tick_seconds(connection)
    return [
        {
            "what": f"ticks until {DUE} due have run, among {MANY} schedules",
            "value": round(among_many * 1000),
            "unit": "ms",
            "baseline": f"{round(among_few * 1000)} (among {FEW})",
            "ratio": round(among_many / among_few, 2),
            "goal": "ratio ≤ 1.5",
        }
    ]


def _fill(connection: psycopg.Connection[Any], total: int) -> None:
    """Copy one valid schedule, compiled as every other, until there are so many.

    Through the trigger a million of them would take the better part of an hour; the copies are
    what it would have written.
    """
    connection.execute(
        'select create_schedule(\'{"name": "daily", "action_type": "lock", "device_ids": [1],'
        ' "recurrence_type": "daily", "recurrence_config": {"time": "03:00"}}\')'
    )
    with connection.transaction():
        connection.execute("alter table schedules disable trigger user")
        connection.execute(
            "insert into schedules (owner_id, name, action_type, payload, recurrence_type,"
            " recurrence_config, recurrence, start_time, timezone, device_ids, device_id, status,"
            " next_run_at)"
            " select owner_id, name, action_type, payload, recurrence_type, recurrence_config,"
            " recurrence, start_time, timezone, array[1 + i %% 1000], 1 + i %% 1000, 'active',"
            " now() + interval '1 year'"
            " from (select * from schedules order by id limit 1) as one,"
            " generate_series(1, %s - (select count(*) from schedules)::integer) as i",
            (total,),
        )
        connection.execute("alter table schedules enable trigger user")
    connection.execute("vacuum analyze schedules")


def _tick_seconds(connection: psycopg.Connection[Any]) -> float:
    """Give the median of some rounds: until all that were due have run, each time others."""
    taken = []
    for _ in range(ROUNDS):
        with connection.transaction():
            connection.execute(
                "update schedules set next_run_at = now() - interval '1 second' where id in"
                " (select id from schedules where execution_count = 0 and status = 'active'"
                " and next_run_at > now() + interval '1 month' limit %s)",
                (DUE,),
            )
        started = time.monotonic()
        runs, more = 0, True
        while more:
            row = connection.execute("select fleet.tick(clock_timestamp())").fetchone()
            assert row is not None
            runs, more = runs + row[0]["runs"], row[0]["more"]
        taken.append(time.monotonic() - started)
        assert runs == DUE, runs
    return median(taken)
