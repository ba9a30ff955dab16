"""A day of 20,000 devices with a command an hour: what it leaves on disk, and how long ticks take.

The clock of the day is that of the ticks, so that it passes in minutes; autovacuum looks as much
more often. For one of its hours a transaction keeps every old version of a row from being cleaned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from measure import make_owner, row, value

from pgfleet_local.settings import StackSettings

DEVICES = 20_000
HOURS = 24
HELD_HOUR = 12
TICK_SECONDS = 0.25
SESSIONS = 2
BASE = datetime(2031, 1, 1, tzinfo=UTC)

# Each device claims and finishes in transactions of its own, as it would over the API.
WORK = """
    create procedure bench_work(p_first bigint, p_last bigint, p_now timestamptz) language plpgsql
    as $$
    declare
      v_command record;
    begin
      for i in p_first..p_last loop
        perform set_config('request.jwt.claims', json_build_object(
          'role', 'authenticated', 'sub', '00000000-0000-4000-8000-' || lpad(i::text, 12, '0')
        )::text, false);
        select c.command_id, c.attempt into v_command
        from fleet.claim_commands(10, null, p_now) as c;
        commit;
        perform fleet.finish_command(
          v_command.command_id, v_command.attempt, 'completed', '{"seconds": 3}', null, null, p_now
        );
        commit;
      end loop;
    end $$
"""


def run(connection: psycopg.Connection[Any], settings: StackSettings) -> list[dict[str, Any]]:
    """Let the day pass, and compare its end with its beginning and with a copy without holes."""
    with psycopg.connect(settings.admin_url, autocommit=True) as admin:
        admin.execute("alter system set autovacuum_naptime = '2s'")
        admin.execute("select pg_reload_conf()")
    _make_fleet(connection)
    hours = []
    with ThreadPoolExecutor(SESSIONS) as pool:
        for hour in range(HOURS):
            with _old_snapshot(settings, hour == HELD_HOUR):
                hours.append(_hour(connection, settings, pool, BASE + timedelta(hours=hour)))
    done = value(connection, "select count(*) from device_commands where status = 'completed'")
    assert done == DEVICES * HOURS, done
    # The first hour of each half compiles what its session calls.
    early, late = (_p99(hours[begin + 1 : begin + HOURS // 2]) for begin in (0, HOURS // 2))
    size, fresh = _sizes(connection)
    return [
        row("p99 of the ticks in the second half of a day", late, "ms", early, "ratio ≤ 1.5"),
        row(
            "disk a command, its indexes too, at the end of the day",
            *(round(size / done), "bytes", round(fresh / done), "ratio ≤ 2"),
        ),
    ]


def _make_fleet(connection: psycopg.Connection[Any]) -> None:
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    connection.execute("select fleet.set_setting('publish_device_commands', 'false')")
    make_owner(connection)
    connection.execute(
        "insert into devices (id, hostname, auth_id) select i, 'pc-' || i,"
        " ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid"
        " from generate_series(1, %s) as i",
        (DEVICES,),
    )
    connection.execute("vacuum analyze devices")
    connection.execute(WORK)
    connection.execute(
        "select create_schedule(jsonb_build_object('name', 'hourly', 'action_type', 'lock',"
        " 'selector', '{}'::jsonb, 'start_time', %s::text, 'recurrence_type', 'interval',"
        " 'recurrence_config', '{\"every\": \"1 hour\"}'::jsonb))",
        (BASE.isoformat(),),
    )


@contextmanager
def _old_snapshot(settings: StackSettings, is_held: bool) -> Iterator[None]:
    """Hold a transaction open that could still look at every version of a row."""
    if not is_held:
        yield
        return
    with psycopg.connect(settings.db_url) as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from devices")
        yield
        holder.rollback()


def _hour(
    connection: psycopg.Connection[Any],
    settings: StackSettings,
    pool: ThreadPoolExecutor,
    begin: datetime,
) -> list[float]:
    """Tick until all is expanded, and on while the devices work; give what each took, in ms."""
    taken: list[float] = []
    while _tick(connection, begin, taken)["more"]:
        pass
    share = DEVICES // SESSIONS
    parts = [(share * n + 1, share * (n + 1)) for n in range(SESSIONS)]
    working = [pool.submit(_work, settings, first, last, begin) for first, last in parts]
    now = begin
    while wait(working, TICK_SECONDS).not_done:
        now += timedelta(seconds=TICK_SECONDS)
        _tick(connection, now, taken)
    for one in working:
        one.result()
    return taken


def _tick(connection: psycopg.Connection[Any], now: datetime, taken: list[float]) -> dict[str, Any]:
    started = time.monotonic()
    answer: dict[str, Any] = value(connection, "select fleet.tick(%s)", now)
    taken.append((time.monotonic() - started) * 1000)
    return answer


def _work(settings: StackSettings, first: int, last: int, now: datetime) -> None:
    with psycopg.connect(settings.db_url, autocommit=True) as session:
        session.execute("set statement_timeout = 0")
        # Whether each commit waits for the disk is not what is measured.
        session.execute("set synchronous_commit = off")
        session.execute("call bench_work(%s, %s, %s)", (first, last, now + timedelta(seconds=1)))


def _p99(hours: list[list[float]]) -> float:
    found = sorted(one for hour in hours for one in hour)
    return round(found[int(len(found) * 0.99)], 1)


def _sizes(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Give the bytes of the table, and of a copy of it that was written in one go."""
    connection.execute("create table copied (like device_commands including all)")
    connection.execute("insert into copied select * from device_commands")
    size = "select pg_total_relation_size(%s::regclass)"
    return value(connection, size, "device_commands"), value(connection, size, "copied")
