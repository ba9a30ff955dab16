"""A thousand owners whose schedules are all due at the same second: who waits for whom."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from measure import row, value

OWNERS = 1000
SCHEDULES = 100


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Let the real ticker work through them, and tell when each owner had rows."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    connection.execute(
        "insert into owners (name) select 'owner ' || n from generate_series(1, %s) as n", (OWNERS,)
    )
    connection.execute(
        "insert into devices (owner_id, hostname) select o.id, 'pc' from owners as o"
    )
    template = value(
        connection,
        "select create_schedule(jsonb_build_object('owner_id', d.owner_id, 'name', 'x',"
        " 'action_type', 'lock', 'device_ids', jsonb_build_array(d.id),"
        " 'recurrence_type', 'interval', 'recurrence_config', '{\"hours\": 24}'::jsonb)) ->> 'id'"
        " from devices as d limit 1",
    )
    # As if each had been made by itself, which would take minutes.
    connection.execute("alter table schedules disable trigger user")
    connection.execute(
        "insert into schedules (owner_id, name, action_type, payload, recurrence_type,"
        " recurrence_config, recurrence, start_time, timezone, device_ids, device_id, policies,"
        " next_run_at)"
        " select d.owner_id, 'x', s.action_type, s.payload, s.recurrence_type, s.recurrence_config,"
        " s.recurrence, s.start_time, s.timezone, array[d.id], d.id, s.policies, 'infinity'"
        " from schedules as s cross join devices as d cross join generate_series(1, %s)"
        " where s.id = %s",
        (SCHEDULES, template),
    )
    connection.execute("alter table schedules enable trigger user")
    connection.execute("delete from schedules where id = %s", (template,))
    connection.execute("vacuum analyze schedules, devices")
    connection.execute("update schedules set next_run_at = date_trunc('second', now())")
    connection.execute("vacuum analyze schedules")
    due = value(connection, "update fleet.heartbeat set created_at = now() returning now()")
    connection.execute("update fleet.settings set value = 'true' where name = 'ticker_enabled'")
    made, deadline = OWNERS * SCHEDULES, time.monotonic() + 900
    # To count them again and again would take as much from the ticker as a third of its work.
    while value(connection, "select coalesce(max(id), 0) from device_commands") < made:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    while value(connection, "select count(*) from device_commands") < made:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    began = value(connection, "select min(created_at) from device_commands")
    assert began >= due
    first, best, worst = connection.execute(
        "select max(o.first), min(o.last), max(o.last) from ("
        " select extract(epoch from min(c.created_at) - %s)::float8 as first,"
        " extract(epoch from max(c.created_at) - %s)::float8 as last"
        " from device_commands as c group by c.owner_id) as o",
        (began, began),
    ).fetchone() or (0, 0, 0)
    seconds = value(
        connection,
        "select extract(epoch from max(created_at) - min(created_at))::float8 from device_commands",
    )
    name = f"{OWNERS} owners of {SCHEDULES} schedules, all due at once"
    return [
        row(f"{name}: everybody's first row", round(first, 2), "s", goal="≤ 2 s"),
        row("an owner's last row, worst", round(worst, 1), "s", round(best, 1), goal="ratio ≤ 3"),
        row("runs that are booked and expanded", round(made / seconds), "runs/s"),
    ]
