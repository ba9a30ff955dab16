"""A look costs what changed: at 100,000 devices in 20 groups, and at 1,000 owners at once."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles
from typing import Any

import psycopg
from measure import row, value

FEW = 2_000
MANY = 100_000
OWNERS = 1_000
LOOKS = 60
GROUPS = [{"percent": 5} for _ in range(20)]
RULES = [{"failure": "any", "percent": 20, "min_count": 50}, {"failure": "timeout", "percent": 10}]


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure looks at one rollout of few and of many devices, then ticks among many rollouts."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    few = looks_at(connection, FEW)
    many = looks_at(connection, MANY)
    worst_tick, worst_gap = owners_at_once(connection)
    return [
        row(
            f"a look at {MANY:,} devices in 20 groups, 1,000 a minute: median",
            *(round(median(many), 1), "ms", round(median(few), 1), "ratio ≤ 1.5"),
        ),
        row("the same, 95th percentile", round(p95(many), 1), "ms", goal="≤ 50 ms"),
        row(f"a tick with rollouts of {OWNERS:,} owners: worst", worst_tick, "ms", goal="≤ 500 ms"),
        row("a rollout among them is looked at after: worst", worst_gap, "s", goal="≤ 5 s"),
    ]


def p95(found: list[float]) -> float:
    """Give the 95th percentile."""
    return quantiles(found, n=20)[-1]


def looks_at(connection: psycopg.Connection[Any], devices: int) -> list[float]:
    """Roll out to so many devices; between two looks some of them come to an end."""
    owner = value(connection, "insert into owners (name) values ('one') returning id")
    connection.execute(
        "insert into devices (owner_id, hostname, tags)"
        " select %s, 'pc-' || n, '{all}' from generate_series(1, %s) as n",
        (owner, devices),
    )
    run = roll_out(connection, owner, {"groups": GROUPS, "rate": {"per_minute": 1000}})
    while value(connection, "select fleet.expand_next(now()) -> 'more'"):
        pass
    connection.execute("vacuum analyze device_commands, rollouts, run_waves")
    connection.execute("vacuum analyze fleet.rollout_queue")
    at, taken = datetime.now(UTC), []
    for n in range(LOOKS + 10):
        at += timedelta(seconds=1)
        started = time.monotonic()
        connection.execute("select fleet.tend_rollouts(%s)", (at,))
        if n >= 10:
            taken.append((time.monotonic() - started) * 1000)
        connection.execute(
            "update device_commands set status = 'completed' where run_id = %s and"
            " status = 'pending' and not_before < fleet.held_until()",
            (run,),
        )
    assert value(connection, "select released from rollouts where run_id = %s", run) > LOOKS
    value(connection, "select abort_rollout(%s)::text", run)
    while value(
        connection, "select completed_at is null from rollouts where run_id = %s", run
    ) and value(connection, "select fleet.tend_rollouts(clock_timestamp()) is not null"):
        pass
    return taken


def roll_out(connection: psycopg.Connection[Any], owner: Any, plan: dict[str, Any]) -> int:
    """Create a schedule with a plan and run it."""
    spec = {
        **{"owner_id": str(owner), "name": "x", "action_type": "lock", "recurrence_type": "daily"},
        **{"selector": {"tags": ["all"]}, "recurrence_config": {"time": "03:00"}},
        "policies": {"rollout": {"abort": RULES, **plan}},
    }
    made = value(connection, "select create_schedule(%s) ->> 'id'", json.dumps(spec))
    return int(value(connection, "select id from run_schedule(%s::bigint)", made))


def owners_at_once(connection: psycopg.Connection[Any]) -> tuple[float, float]:
    """Let each owner roll out in five groups; tick every second, and tell the worst of both."""
    connection.execute(
        "insert into owners (name) select 'owner ' || n from generate_series(1, %s) as n", (OWNERS,)
    )
    connection.execute(
        "insert into devices (owner_id, hostname, tags) select o.id, 'pc-' || n, '{all}'"
        " from owners as o cross join generate_series(1, 20) as n where o.name like 'owner %%'"
    )
    owners = connection.execute("select id from owners where name like 'owner %%'").fetchall()
    groups = [{"percent": 20} for _ in range(5)]
    for (owner,) in owners:
        roll_out(connection, owner, {"groups": groups, "rate": {"per_minute": 60}})
    while value(connection, "select fleet.expand_next(clock_timestamp()) -> 'more'"):
        pass
    connection.execute("vacuum analyze device_commands, rollouts, run_waves, schedule_runs")
    connection.execute("vacuum analyze fleet.rollout_queue")
    at = begun = value(connection, "select clock_timestamp()")
    ticks, gap = [], 0.0
    for _ in range(25):
        at += timedelta(seconds=1)
        started = time.monotonic()
        connection.execute("select fleet.tick(%s)", (at,))
        ticks.append((time.monotonic() - started) * 1000)
        connection.execute(
            "update device_commands set status = 'completed' where"
            " status = 'pending' and not_before < fleet.held_until() and wave is not null"
        )
        # Only who has news or whose time has come needs a look.
        waited = value(
            connection,
            "select max(extract(epoch from %s - greatest(looked_at, next_look_at, %s)))::float8"
            " from rollouts where completed_at is null and next_look_at <= %s",
            *(at, begun, at),
        )
        gap = max(gap, waited or 0.0)
    assert value(connection, "select min(released) from rollouts where completed_at is null") > 0
    return round(max(ticks[1:])), round(gap, 1)
