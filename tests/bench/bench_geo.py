"""Geo actions: made for many geo schedules at once, made again, and cleaned up beside claims."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from measure import make_owner, row, value
from psycopg.types.json import Jsonb

SCHEDULES = 10_000
OLD_ACTIONS = 5_000_000
NOISE_BYTES = 64 * 1024


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure creation against a bare insert of the same rows, then what a second call writes."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    # What they do is measured here, at its own time.
    connection.execute("select cron.unschedule(jobid) from cron.job where jobname like '%-geo'")
    make_owner(connection)
    connection.execute(
        "insert into devices (hostname, timezone)"
        " select 'tablet-' || i, 'Europe/Berlin' from generate_series(1, 100) as i"
    )
    connection.execute(
        "insert into geo_schedules (name, device_id, apps, start_minute, end_minute, timezone)"
        " select 'block ' || i, d.id, array['chat'], i %% 1440, (i * 7) %% 1440, 'Europe/Berlin'"
        " from generate_series(1, %s) as i"
        " join devices as d on d.hostname = 'tablet-' || (1 + i %% 100)",
        (SCHEDULES,),
    )
    return [*_creation(connection), *_cleanup(connection)]


def _creation(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    connection.execute("truncate geo_actions cascade")
    connection.execute("vacuum analyze geo_actions")
    everything = "select fleet.create_geo_actions(array(select id from geo_schedules), now())"
    seconds = _timed(connection, everything)
    count = value(connection, "select count(*) from geo_actions")
    before = value(connection, "select pg_current_wal_insert_lsn()")
    again = value(connection, everything)
    written = value(connection, "select pg_current_wal_insert_lsn() - %s::pg_lsn", before)
    connection.execute("create table bare (like geo_actions including all)")
    bare = _timed(connection, "insert into bare overriding system value select * from geo_actions")
    return [
        row(
            f"geo actions of {SCHEDULES} geo schedules made",
            round(count / seconds),
            "rows/s",
            round(count / bare),
            goal="≥ 50,000 rows/s",
        ),
        row("rows written by a second call", again, "rows", goal="0"),
        row("log written by a second call", int(written), "bytes", goal=f"≤ {NOISE_BYTES}"),
    ]


def _cleanup(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Clean up in batches while a device claims, and tell how long its longest claim took."""
    columns = "geo_schedule_id, owner_id, side, apps, unknown_location, max_location_age, timezone"
    fill = (
        f"insert into geo_actions ({columns}, from_date, starts_at, ends_at, length_minutes,"
        " update_delay_type, update_delay_seconds)"
        " select s.id, s.owner_id, 'anywhere', array['chat'], 'keep_last', interval '1 hour',"
        " 'UTC', date '2020-01-01' + i, timestamptz '2020-01-01' + i * interval '1 day',"
        " timestamptz '2020-01-01 01:00' + i * interval '1 day', 60, 'none', 0"
        f" from generate_series(1, {OLD_ACTIONS // SCHEDULES}) as i cross join geo_schedules as s"
    )
    with _bare(connection, "geo_actions"):
        connection.execute(fill)
    connection.execute("vacuum analyze geo_actions")
    quiet, busy, blocked = _longest_claim(connection), 0.0, 0
    # A claim that is slow may have had no processor; one that is refused has waited for a lock.
    connection.execute("set lock_timeout = '100ms'")
    over = threading.Event()

    def clean() -> None:
        with psycopg.connect(connection.info.dsn, autocommit=True, **_secret(connection)) as own:
            while value(own, "select fleet.clean_geo_actions(now())"):
                pass
        over.set()

    cleaning = threading.Thread(target=clean)
    started = time.monotonic()
    cleaning.start()
    while not over.is_set():
        try:
            busy = max(busy, _longest_claim(connection, 5))
        except psycopg.errors.LockNotAvailable:
            blocked += 1
    cleaning.join()
    rate = OLD_ACTIONS / (time.monotonic() - started)
    return [
        row(f"{OLD_ACTIONS:,} old geo actions cleaned up", round(rate), "rows/s"),
        row(
            "longest claim meanwhile",
            round(busy * 1000),
            "ms",
            round(quiet * 1000, 1),
            goal="≤ 100 ms more",
        ),
        row("claims that a lock kept waiting for 100 ms", blocked, "claims", goal="0"),
    ]


@contextmanager
def _bare(connection: psycopg.Connection[Any], table: str) -> Iterator[None]:
    """Take a table's indexes and keys away while it is filled, and make them again."""
    made = value(
        connection,
        "select array_agg(array[conname::text, pg_get_constraintdef(oid)])"
        " from pg_constraint where contype in ('f', 'u') and conrelid = %s::regclass",
        table,
    )
    pointing = value(
        connection,
        "select array_agg("
        " array[conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)])"
        " from pg_constraint where contype = 'f' and confrelid = %s::regclass",
        table,
    )
    indexes = value(
        connection,
        "select array_agg(array[i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)])"
        " from pg_index as i where i.indrelid = %s::regclass and not exists"
        " (select from pg_constraint as c where c.conindid = i.indexrelid)",
        table,
    )
    for other, name, _ in pointing:
        connection.execute(f"alter table {other} drop constraint {name}")
    for name, _ in made:
        connection.execute(f"alter table {table} drop constraint {name}")
    for name, _ in indexes:
        connection.execute(f"drop index {name}")
    yield
    for _, definition in indexes:
        connection.execute(definition)
    # Keys that others point to come first.
    for name, definition in sorted(made, key=lambda one: one[1].startswith("FOREIGN")):
        connection.execute(f"alter table {table} add constraint {name} {definition}")
    for other, name, definition in pointing:
        connection.execute(f"alter table {other} add constraint {name} {definition}")


def _longest_claim(connection: psycopg.Connection[Any], times: int = 200) -> float:
    claims = value(connection, "select jsonb_build_object('sub', min(auth_id::text)) from devices")
    connection.execute(
        "select set_config('request.jwt.claims', (%s || '{\"role\": \"authenticated\"}')::text,"
        " false)",
        (Jsonb(claims),),
    )
    longest = max(_timed(connection, "select claim_commands(1)") for _ in range(times))
    connection.execute("select set_config('request.jwt.claims', '', false)")
    return longest


def _secret(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    return {"password": connection.info.password}


def _timed(connection: psycopg.Connection[Any], statement: str) -> float:
    started = time.monotonic()
    connection.execute(statement)
    return time.monotonic() - started
