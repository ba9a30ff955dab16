"""A schedule on every device's own wall against one in a fixed zone: the whole expansion."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from measure import make_owner, row, value

DEVICES = 100_000
ZONES = 300
PAIRS = 3
NOON = datetime(2099, 1, 1, 12, tzinfo=UTC)


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Expand both, in turns, and compare the medians."""
    make_fleet(connection, DEVICES)
    return compare(connection, DEVICES)


def make_fleet(connection: psycopg.Connection[Any], devices: int) -> None:
    """Make devices in as many time zones as there are people to live in them."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    make_owner(connection)
    connection.execute(
        "select fleet.set_quota(o.id, q.name, 100000000) from owners as o,"
        " unnest('{commands_a_minute,commands_waiting}'::text[]) as q(name)"
    )
    connection.execute(
        "insert into devices (hostname, timezone)"
        " select 'pc-' || i, z.names[1 + i %% cardinality(z.names)]"
        " from generate_series(1, %s) as i,"
        " (select array_agg(name) as names from (select name from fleet.time_zones"
        " where name like '%%/%%' and name not like 'Etc/%%' order by md5(name) limit %s) as t)"
        " as z",
        (devices, ZONES),
    )
    connection.execute("vacuum analyze devices")


def compare(connection: psycopg.Connection[Any], devices: int) -> list[dict[str, Any]]:
    """Give the seconds of both, and their ratio."""
    seconds: dict[str, list[float]] = {"UTC": [], "device": []}
    for pair in range(PAIRS):
        for zone, found in seconds.items():
            found.append(expansion_seconds(connection, zone, pair, devices))
    fixed, own = (statistics.median(found) for found in seconds.values())
    return [
        row(
            f"{devices} devices in {ZONES} zones, each at its own noon, beside one noon for all",
            round(own, 2),
            "s",
            round(fixed, 2),
            goal="ratio ≤ 1.3",
        )
    ]


def expansion_seconds(
    connection: psycopg.Connection[Any], zone: str, pair: int, devices: int
) -> float:
    """Let a schedule be due everywhere, and give how long its engine worked for that."""
    due = NOON + pair * timedelta(days=7)
    made = value(
        connection,
        "select create_schedule(jsonb_build_object('name', %s::text, 'action_type', 'lock',"
        " 'selector', '{}'::jsonb, 'timezone', %s::text, 'start_time', %s::text)) -> 'id'",
        zone,
        zone,
        due.replace(tzinfo=None).isoformat(),
    )
    spent = 0.0
    now = due - timedelta(hours=15)
    while now <= due + timedelta(hours=15):
        began = time.monotonic()
        connection.execute("select fleet.start_due_runs(%s, array[%s::bigint])", (now, made))
        while (
            value(
                connection, "select fleet.expand_next(%s, array[%s::bigint]) ->> 'more'", now, made
            )
            == "true"
        ):
            pass
        spent += time.monotonic() - began
        now = next_instant(connection, made, now)
    reached = value(connection, "select count(*) from device_commands where schedule_id = %s", made)
    assert reached == devices, (zone, reached)
    connection.execute("delete from schedules where id = %s", (made,))
    return spent


def next_instant(connection: psycopg.Connection[Any], schedule: int, now: datetime) -> datetime:
    """Give when something is due next, or a time after everything."""
    found: datetime = value(
        connection,
        "select coalesce(least((select min(z.starts_at) from fleet.run_zones as z"
        " join schedule_runs as r on r.id = z.run_id"
        " where r.schedule_id = %s and z.expanded_at is null and z.starts_at > %s),"
        " (select case when next_run_at > %s then next_run_at end from schedules where id = %s"
        " and not exists (select 1 from schedule_runs where schedule_id = %s))),"
        " 'epoch'::timestamptz + interval '200 years')",
        schedule,
        now,
        now,
        schedule,
        schedule,
    )
    return found
