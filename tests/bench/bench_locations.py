"""Thousands of devices enter one location: from their events to commands, against a bare insert."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from measure import bare_insert_seconds, make_owner, row, value

DEVICES = 20_000
CROSSINGS = 200


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure how one policy acts on the events of all devices, step by step as ticks would."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    time.sleep(2.5)  # The ticker looks at its flag every second.
    _make_school(connection)
    return [
        *_entering(connection, is_published=True),
        *_entering(connection, is_published=False),
        _restless(connection),
        _nothing_waiting(connection),
    ]


def _make_school(connection: psycopg.Connection[Any]) -> None:
    make_owner(connection)
    connection.execute(
        "insert into devices (hostname) select 'ipad-' || i from generate_series(1, %s) as i",
        (DEVICES,),
    )
    connection.execute(
        "insert into locations (name, latitude, longitude, radius_m)"
        " values ('School', 52.52, 13.405, 150)"
    )
    connection.execute(
        "insert into location_policies (location_id, event, action_type, payload)"
        " select id, 'enter', 'broadcast_message', '{\"message\": \"hello\"}' from locations"
    )
    connection.execute("vacuum analyze devices")


def _entering(connection: psycopg.Connection[Any], is_published: bool) -> list[dict[str, Any]]:
    connection.execute(
        "select fleet.set_setting('publish_device_commands', to_jsonb(%s))", (is_published,)
    )
    connection.execute("truncate device_commands, fleet.run_progress, fleet.doorbells")
    connection.execute(
        "insert into location_events (owner_id, device_id, location_id, location_name, event, at)"
        " select d.owner_id, d.id, l.id, l.name, 'entered', now() from devices as d, locations as l"
    )
    taken = _act(connection)
    count = value(connection, "select count(*) from device_commands")
    assert count == DEVICES, count
    bare = bare_insert_seconds(connection)
    how = "published" if is_published else "not published"
    return [
        row(
            f"{DEVICES} entering devices to commands ({how})",
            round(DEVICES / sum(taken)),
            "rows/s",
            round(DEVICES / bare),
            goal="ratio ≥ 0.03",
        ),
        row(f"its transactions ({how})", len(taken), ""),
        row(f"the longest of them ({how})", round(max(taken) * 1000), "ms", goal="≤ 500 ms"),
    ]


def _restless(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Let one device enter again and again, which makes as many schedules."""
    connection.execute(
        "insert into location_events (owner_id, device_id, location_id, location_name, event, at)"
        " select d.owner_id, d.id, l.id, l.name, 'entered', now() + i * interval '1 minute'"
        " from (select * from devices order by id limit 1) as d, locations as l,"
        " generate_series(1, %s) as i",
        (CROSSINGS,),
    )
    longest = max(_act(connection))
    return row(
        f"the longest with {CROSSINGS} events of one device",
        round(longest * 1000),
        "ms",
        goal="≤ 500 ms",
    )


def _act(connection: psycopg.Connection[Any]) -> list[float]:
    """Act on all that waits, and give the seconds of each transaction."""
    taken = []
    while value(connection, "select exists (select 1 from location_events where acted_at is null)"):
        started = time.monotonic()
        connection.execute("select fleet.act_on_location_events(clock_timestamp())")
        taken.append(time.monotonic() - started)
    return taken


def _nothing_waiting(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    connection.execute("vacuum analyze location_events")
    taken = []
    for _ in range(100):
        started = time.monotonic()
        connection.execute("select fleet.act_on_location_events(clock_timestamp())")
        taken.append(time.monotonic() - started)
    return row("acting with nothing waiting", round(min(taken) * 1000, 2), "ms", goal="≤ 1 ms")
