"""Schedules and commands that are made: one at a time, and a fleet at once, beside bare inserts."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

import psycopg
from measure import bare_insert_seconds, make_owner, row, value

DEVICES = 100_000
TAGGED = 50  # one device in so many
TIMES = 60
MANY = 700
TURNS = 3  # of each insert and the bare one, of which the best counts
DAILY = {"recurrence_type": "daily", "start_time": "2031-01-01T09:00", "action_type": "lock"}
SELECTORS = (
    {"tags": ["few"]},
    {"tags": ["none"]},
    {"platform": ["none"]},
    {"attributes": {"a": 1}},
)


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure schedules of an owner of a large fleet, then its commands."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    connection.execute("select fleet.set_setting('publish_device_commands', 'false')")
    make_owner(connection)
    connection.execute(
        "insert into devices (hostname, tags) select 'pc-' || i,"
        " case when i %% %s = 0 then '{few}'::text[] else '{}' end"
        " from generate_series(1, %s) as i",
        (TAGGED, DEVICES),
    )
    connection.execute("vacuum analyze devices")
    return [*_schedules(connection), *_commands(connection)]


def _schedules(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    device = value(connection, "select min(id) from devices")
    plain = _create_ms(connection, {"device_ids": [device]})
    worst = max(_create_ms(connection, {"selector": selector}) for selector in SELECTORS)
    started = time.monotonic()
    value(
        connection,
        "select count(fleet.compiled_recurrence('daily', '{}', 'Europe/Berlin',"
        " timestamptz '2031-01-01 09:00+00' + i * interval '1 minute', null, null, null))"
        " from generate_series(1, 1000) as i",
    )
    compiling = time.monotonic() - started
    return [
        row("create_schedule with device_ids", round(plain, 2), "ms", goal="≤ 4"),
        row(
            f"create_schedule, worst of {len(SELECTORS)} selectors over {DEVICES} devices",
            *(round(worst, 2), "ms", round(plain, 2), "ratio ≤ 2"),
        ),
        row(
            f"create_schedules, {MANY} daily ones at once",
            *(round(_many_a_second(connection, device)), "a second"),
            goal="≥ 700",
        ),
        row("compiling a recurrence", round(compiling, 2), "ms", goal="≤ 0.6"),
    ]


def _create_ms(connection: psycopg.Connection[Any], targets: dict[str, Any]) -> float:
    """Give how long one takes, of many."""
    taken = []
    for number in range(TIMES):
        spec = json.dumps({"name": f"{targets} {number}", **DAILY, **targets})
        started = time.monotonic()
        connection.execute("select create_schedule(%s)", (spec,), prepare=True)
        taken.append(time.monotonic() - started)
    return median(taken) * 1000


def _many_a_second(connection: psycopg.Connection[Any], device: int) -> float:
    """Give how many are made a second, on one connection, of so many at once."""
    specs = [
        json.dumps({"name": f"one of many {number}", **DAILY, "device_ids": [device + number]})
        for number in range(MANY)
    ]
    taken = []
    for _ in range(3):
        started = time.monotonic()
        connection.execute("select create_schedules(%s::jsonb[])", (specs,))
        taken.append(time.monotonic() - started)
    return MANY / median(taken)


def _commands(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    found = []
    for what, statement, goal in (
        (
            "commands by send_commands to a selector",
            "select send_commands('{\"selector\": {}}', 'lock')",
            "ratio ≥ 0.6",
        ),
        (
            "commands by insert … select",
            "insert into device_commands (device_id, command_type, payload)"
            " select id, 'broadcast_message', jsonb_build_object('message', 'Hello ' || id)"
            " from devices",
            "ratio ≥ 0.4",
        ),
    ):
        taken, bare = [], []
        for _ in range(TURNS):
            taken.append(_seconds(connection, statement))
            bare.append(bare_insert_seconds(connection))
        found.append(
            row(
                f"{DEVICES} {what}",
                *(round(DEVICES / min(taken)), "rows/s", round(DEVICES / min(bare)), goal),
            )
        )
    return found


def _seconds(connection: psycopg.Connection[Any], statement: str) -> float:
    """Tell how long a command for each device takes, where there are no others."""
    connection.execute("truncate device_commands, fleet.doorbells, fleet.doorbell_stretches")
    started = time.monotonic()
    connection.execute(statement)
    taken = time.monotonic() - started
    assert value(connection, "select count(*) from device_commands") == DEVICES
    return taken
