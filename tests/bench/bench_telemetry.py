"""Telemetry: points that are stored in a second, and what a year of a thousand devices costs."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from measure import row, value
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from pgfleet_functions.telemetry import Point, Telemetry, canonical, digest_of

POINTS = 100_000
BATCH = 20_000
DEVICES = 1_000
# A tenth of a year at a point in five minutes, or less: PGFLEET_BENCH_DAYS=37 is what is told.
DAYS = int(os.environ.get("PGFLEET_BENCH_DAYS", "37"))
OWNER = "00000000-0000-4000-8000-000000000001"

Conn = psycopg.Connection[Any]


def run(connection: Conn) -> list[dict[str, Any]]:
    """Measure ingest, size, retention, the latest points and the roll-up of an hour."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    for job in ("roll-up-telemetry", "tend-telemetry"):
        connection.execute("select cron.unschedule(%s)", (f"pgfleet-{job}",))
    ingest = _ingest(connection)
    connection.execute("truncate telemetry.points, telemetry.latest, telemetry.dirty_hours")
    return [ingest, *_year(connection)]


def _ingest(connection: Conn) -> dict[str, Any]:
    """Store points as the pull does, from what the API gives on, in batches of one transaction."""
    now = datetime.now(UTC)
    records = [
        (n % DEVICES, now - timedelta(seconds=n), {"t": 20 + n % 100 / 10, "battery": n % 100})
        for n in range(POINTS)
    ]
    # The partitions of the two days are there, as they are for a pull that runs every few minutes.
    connection.execute("select telemetry.worker_tend(90)")
    connection.execute("select telemetry.make_partition(current_date - 1)")
    connection.execute("select telemetry.make_partition(current_date - 2)")
    started = time.monotonic()
    asyncio.run(_store(connection.info.dsn, connection.info.password, records))
    seconds = time.monotonic() - started
    assert value(connection, "select count(*) from telemetry.points") == POINTS
    bare = _bare_copy(connection)
    rate, baseline = round(POINTS / seconds), round(POINTS / bare)
    goal = "≥ 20000"
    return row(f"points stored of {POINTS:,} in batches", rate, "points/s", baseline, goal)


async def _store(dsn: str, password: str, records: list[Any]) -> None:
    async def nothing(_: AsyncConnection[Any], result: dict[str, Any]) -> None:
        assert result["outside"] == 0

    pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
        f"{dsn} password={password}",
        min_size=1,
        max_size=2,
        open=False,
        kwargs={"autocommit": True},
    )
    async with pool:
        telemetry = Telemetry(pool)
        for first in range(0, len(records), BATCH):
            points = []
            for device, at, data in records[first : first + BATCH]:
                text = canonical(data)
                points.append(Point(device, at, digest_of(text), text))
            await telemetry.store(points, owner_id=OWNER, source="pull", keep_days=90, then=nothing)


def _bare_copy(connection: Conn) -> float:
    """Tell how long a COPY of the same rows into a table of the same columns and key takes."""
    connection.execute("drop table if exists bare")
    connection.execute("create table bare (like telemetry.points including all)")
    rows = connection.execute("select * from telemetry.points").fetchall()
    types = ["int8", "text", "timestamptz", "uuid", "uuid", "timestamptz", "text", "bool", "text"]
    started = time.monotonic()
    with connection.cursor() as cursor, cursor.copy("copy bare from stdin (format binary)") as copy:
        copy.set_types([*types, "jsonb"])
        for one in rows:
            copy.write_row((*one[:9], psycopg.types.json.Jsonb(one[9])))
    return time.monotonic() - started


def _year(connection: Conn) -> list[dict[str, Any]]:
    """Fill so many days, and measure what is done with them."""
    for day in range(DAYS):
        connection.execute("select telemetry.make_partition(current_date - %s)", (day,))
        connection.execute(
            "insert into telemetry.points (device_id, stream, at, digest, owner_id, received_at,"
            " source, data) select d, '/', at, md5(d || ' ' || at)::uuid, %s, at, 'pull',"
            " jsonb_build_object('t', d %% 30, 'battery', d %% 100)"
            " from generate_series(current_date - %s + time '00:00', current_date - %s + time"
            " '23:55', '5 minutes') as at, generate_series(1, %s) as d",
            (OWNER, day, day, DEVICES),
        )
    connection.execute(
        "insert into telemetry.latest select distinct on (device_id) device_id, stream, at, digest,"
        " owner_id, received_at, source, data from telemetry.points where at >= current_date"
        " order by device_id, at desc"
    )
    connection.execute("vacuum analyze telemetry.points")
    size = value(connection, "select telemetry.size()")
    points = value(connection, "select count(*) from telemetry.points")
    return [
        row("size of a million points", round(size["bytes"] / points), "MB", goal="≤ 200"),
        _latest(connection),
        _rolled_up(connection),
        _dropped(connection, points),
    ]


def _latest(connection: Conn) -> dict[str, Any]:
    query = "select count(*) from (select * from device_telemetry_latest offset 0) as l"
    kept = _seconds(connection, query)
    searched = _seconds(
        connection,
        "select count(*) from (select distinct on (device_id) device_id, data"
        " from telemetry.points where at >= current_date order by device_id, at desc) as l",
    )
    what = f"latest point of each of {DEVICES:,} devices"
    return row(what, round(kept * 1000, 1), "ms", round(searched * 1000, 1), "≤ 50 ms", 3)


def _rolled_up(connection: Conn) -> dict[str, Any]:
    connection.execute(
        "insert into telemetry.dirty_hours select d, '/', date_trunc('hour', now(), 'UTC')"
        " - interval '2 hours' from generate_series(1, %s) as d",
        (DEVICES,),
    )
    started = time.monotonic()
    done = value(connection, "select telemetry.worker_roll_up()")
    seconds = time.monotonic() - started
    assert done == DEVICES
    return row(
        f"an hour of {DEVICES:,} devices rolled up", round(seconds * 1000), "ms", goal="≤ 1000 ms"
    )


def _dropped(connection: Conn, points: int) -> dict[str, Any]:
    started = time.monotonic()
    made = value(connection, "select telemetry.worker_tend(%s)", DAYS - 2)
    seconds = time.monotonic() - started
    assert made["dropped"] >= 1
    what = f"retention drops {made['dropped']} day of {points:,} points"
    return row(what, round(seconds * 1000), "ms", goal="≤ 1000 ms")


def _seconds(connection: Conn, query: str) -> float:
    connection.execute(query)
    started = time.monotonic()
    connection.execute(query)
    return time.monotonic() - started
