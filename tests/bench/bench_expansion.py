"""One schedule for a large fleet: rows, doorbells, and what it does to the schedules of others."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg
from measure import bare_insert_seconds, make_owner, row, value

LARGE = 20_000
WHOLE = 100_000
TURNS = 3  # of the expansion and the bare insert, of which the best counts
DOORBELL_RATE = 500


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure the ticking of a real pg_cron, then expansion alone against a bare insert."""
    _make_fleet(connection)
    return [*_large_schedule_among_small_ones(connection), *_rows_against_bare_insert(connection)]


def _make_fleet(connection: psycopg.Connection[Any]) -> None:
    make_owner(connection)
    connection.execute(
        "insert into devices (hostname, tags) select 'pc-' || i,"
        " case when i <= %s then '{large}'::text[] else '{}' end"
        " from generate_series(1, %s) as i",
        (LARGE, WHOLE),
    )
    connection.execute("select fleet.set_setting('doorbell_rate', to_jsonb(%s))", (DOORBELL_RATE,))
    connection.execute("vacuum analyze devices")


def _large_schedule_among_small_ones(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Let a large run expand by the real ticker while a small schedule is due every second."""
    connection.execute(
        "select create_schedule(jsonb_build_object('name', 'small', 'action_type', 'lock',"
        " 'device_ids', jsonb_build_array((select max(id) from devices)),"
        " 'recurrence_type', 'interval', 'recurrence_config', '{\"every\": \"1 second\"}'::jsonb,"
        ' \'policies\', \'{"overlap": "allow", "max_concurrent": 1000}\'::jsonb))'
    )
    started = time.monotonic()
    connection.execute(
        'select create_schedule(\'{"name": "large", "action_type": "lock",'
        ' "selector": {"tags": ["large"]}}\')'
    )
    while (
        value(
            connection,
            "select count(*) from device_commands where command_type = 'lock'"
            " and schedule_id = (select max(id) from schedules)",
        )
        < LARGE
    ):
        time.sleep(0.05)
    rows_seconds = time.monotonic() - started
    while value(connection, "select fleet.doorbells_waiting(clock_timestamp())"):
        time.sleep(0.2)
    rung_seconds = time.monotonic() - started
    worst = value(
        connection,
        "select max(extract(epoch from c.created_at - r.scheduled_for)) from device_commands as c"
        " join schedule_runs as r on r.id = c.run_id"
        " where r.schedule_id = (select min(id) from schedules)",
    )
    busiest = value(
        connection,
        "select max(n) from (select count(*) as n from realtime.messages"
        " group by date_trunc('second', inserted_at)) as per_second",
    )
    connection.execute("select cancel_schedule(id) from schedules where status = 'active'")
    return [
        row(f"{LARGE} commands of one schedule, real ticker", round(rows_seconds, 1), "s"),
        row("doorbells rung for them", round(rung_seconds, 1), "s", LARGE / DOORBELL_RATE),
        row("most doorbells in one second", busiest, "rings", DOORBELL_RATE, goal="at most twice"),
        row("worst delay of another schedule meanwhile", round(worst, 2), "s", goal="≤ 2 s"),
    ]


def _rows_against_bare_insert(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Compare expansion, chunk by chunk, with one plain statement that writes the same rows."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    connection.execute("select fleet.set_setting('publish_device_commands', 'false')")
    time.sleep(2.5)  # The ticker looks at its flag every second.
    # More in a minute than an owner may have.
    connection.execute("select fleet.set_setting('quota_commands_a_minute', '1000000')")
    taken, bare = [], []
    for turn in range(TURNS):
        taken.append(_expansion_seconds(connection, f"all {turn}"))
        bare.append(bare_insert_seconds(connection))
    return [
        row(
            f"{WHOLE} command rows by expansion",
            round(WHOLE / min(taken)),
            "rows/s",
            round(WHOLE / min(bare)),
            goal="ratio ≥ 0.55",
        )
    ]


def _expansion_seconds(connection: psycopg.Connection[Any], name: str) -> float:
    """Tell how long a run for every device takes, where there are no commands but its own."""
    connection.execute(
        "truncate device_commands, fleet.run_progress, fleet.doorbells, fleet.doorbell_stretches"
    )
    spec = {"name": name, "action_type": "lock", "selector": {}}
    connection.execute("select create_schedule(%s)", (json.dumps(spec),))
    started = time.monotonic()
    while value(connection, "select (fleet.expand_next(clock_timestamp()) ->> 'more')::boolean"):
        pass
    taken = time.monotonic() - started
    count = value(connection, "select count(*) from device_commands")
    assert count == WHOLE, count
    return taken
