"""The ticker, and the jobs that keep it going."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.helpers.fleet import Fleet

from pgfleet.schema.migrate import migrate
from pgfleet_local.bootstrap import prepare_database
from pgfleet_local.server.cluster import Cluster

JOBS = {
    ("pgfleet-tick", "* * * * *", "call fleet.tick_minute()"),
    ("pgfleet-tick-boot", "@reboot", "call fleet.tick_minute()"),
    ("pgfleet-watch", "* * * * *", "call fleet.watch_tick()"),
}


def ticks_of(fleet: Fleet, seconds: float) -> list[Any]:
    """Watch the heartbeat for a while and give the instants of the ticks."""
    seen: list[Any] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        last = fleet.value("select last_tick_at from fleet.heartbeat")
        if last is not None and last not in seen:
            seen.append(last)
        time.sleep(0.02)
    return seen


@pytest.fixture
def ticker(connect: Callable[..., Fleet]) -> Iterator[Callable[[], Fleet]]:
    """Give a function that starts a ticker in a session of its own."""
    watcher = connect()
    threads: list[threading.Thread] = []

    def start() -> Fleet:
        session = connect(owner=watcher)

        def run() -> None:
            try:
                session.conn.execute("call fleet.tick_minute()")
            except psycopg.OperationalError:
                # Its server process was ended by the test.
                pass

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return session

    yield start
    watcher.run("select fleet.set_setting('ticker_enabled', 'false')")
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "the setting did not stop the ticker"


def test_ticks_come_on_whole_seconds_and_a_second_ticker_takes_over(
    connect: Callable[..., Fleet], ticker: Callable[[], Fleet]
) -> None:
    watcher = connect()
    first = ticker()
    before = ticks_of(watcher, 2.5)
    second = ticker()
    time.sleep(0.3)
    # As a restart of the job's connection would.
    watcher.run("select pg_terminate_backend(%s)", first.conn.info.backend_pid)
    after = ticks_of(watcher, 2.5)

    assert second.conn.info.backend_pid != first.conn.info.backend_pid
    ticks = sorted({*before, *after})
    gaps = [(late - early).total_seconds() for early, late in pairwise(ticks)]
    assert len(ticks) >= 4
    assert max(gaps) < 2, ticks
    # All but those that a take-over made come with the second, a busy machine allowed for.
    on_time = [tick for tick in ticks if tick.microsecond < 300_000]
    assert len(on_time) >= len(ticks) - 3


def test_a_second_ticker_waits_for_the_first(
    connect: Callable[..., Fleet], ticker: Callable[[], Fleet]
) -> None:
    watcher = connect()
    ticker()
    while watcher.value("select last_tick_at is null from fleet.heartbeat"):
        time.sleep(0.02)
    # Far less than the five seconds that it would wait by itself.
    watcher.run("set statement_timeout = '700ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        watcher.run("call fleet.tick_minute()")
    watcher.run("reset statement_timeout")


def test_a_ticker_survives_a_fault_and_tells_it(
    connect: Callable[..., Fleet], own_database: Database, ticker: Callable[[], Fleet]
) -> None:
    watcher = connect()
    with own_database.connect("supabase_admin", autocommit=True) as admin:
        admin.execute("alter function fleet.settle_runs rename to unsettle_runs")
        ticker()
        deadline = time.monotonic() + 10
        while not (error := watcher.value("select last_error from fleet.heartbeat")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        admin.execute("alter function fleet.unsettle_runs rename to settle_runs")
    assert error.startswith("settle: ")
    assert "fleet.settle_runs" in error


@pytest.fixture(scope="module")
def cron_database(cluster: Cluster) -> Iterator[Database]:
    """Give the one database that pg_cron serves, migrated."""
    settings = cluster.settings
    prepare_database(settings.admin_url, cron=True, net=True)
    migrate(settings.db_url)
    yield Database("postgres", settings)
    with psycopg.connect(settings.db_url, autocommit=True) as conn:
        conn.execute("select fleet.set_setting('ticker_enabled', 'false')")
        conn.execute("select cron.unschedule(jobid) from cron.job")


def jobs(conn: psycopg.Connection[Any]) -> set[tuple[str, str, str]]:
    return set(conn.execute("select jobname, schedule, command from cron.job").fetchall())


@pytest.mark.pg_cron
def test_a_migrate_schedules_the_jobs_once(cron_database: Database) -> None:
    with cron_database.connect() as conn:
        found = jobs(conn)
        assert found >= JOBS
        assert {name for name, _, _ in found} == {
            row[0] for row in conn.execute("select name from fleet.jobs()").fetchall()
        }
        conn.execute("select fleet.sync_jobs()")
        assert jobs(conn) == found
        names = conn.execute("select jobname, username, active from cron.job").fetchall()
        assert all(row[1:] == ("postgres", True) for row in names)


@pytest.mark.pg_cron
def test_jobs_are_brought_back_and_leftovers_removed(cron_database: Database) -> None:
    with cron_database.connect() as conn:
        found = jobs(conn)
        conn.execute("select cron.schedule('pgfleet-tick', '5 5 * * *', 'select 1')")
        conn.execute("select cron.schedule('pgfleet-of-old', '5 5 * * *', 'select 1')")
        conn.execute("select cron.schedule('mine', '5 5 * * *', 'select 1')")
        conn.execute("select fleet.sync_jobs()")
        assert jobs(conn) == found | {("mine", "5 5 * * *", "select 1")}
        conn.rollback()


@pytest.mark.pg_cron
def test_jobs_of_a_clone_come_to_where_it_is(cron_database: Database) -> None:
    where = "select distinct nodename, nodeport from cron.job where jobname like 'pgfleet-%'"
    with cron_database.connect("supabase_admin", autocommit=True) as admin:
        with cron_database.connect() as conn:
            before = conn.execute(where).fetchall()
        admin.execute("update cron.job set nodename = '10.9.8.7', nodeport = 6000")
    with cron_database.connect() as conn:
        conn.execute("select fleet.sync_jobs()")
        assert conn.execute(where).fetchall() == before
        assert {row[0] for row in jobs(conn)} >= {name for name, _, _ in JOBS}


@pytest.mark.pg_cron
def test_the_status_tells_of_the_jobs(cron_database: Database) -> None:
    with cron_database.connect() as conn:
        row = conn.execute("select fleet_status() -> 'engine'").fetchone()
    assert row is not None
    assert row[0]["pg_cron"] is True
    assert set(row[0]["jobs"]) >= {name for name, _, _ in JOBS}


@pytest.mark.pg_cron
def test_old_run_details_are_pruned(cron_database: Database) -> None:
    with cron_database.connect("supabase_admin", autocommit=True) as admin:
        admin.execute(
            "insert into cron.job_run_details (jobid, runid, database, username, command, status,"
            " start_time, end_time)"
            " select 1, -n, 'postgres', 'postgres', 'x', s, now() - n * '1 day'::interval,"
            " now() - n * '1 day'::interval"
            " from unnest(array[1, 3, 20], array['succeeded', 'succeeded', 'failed']) as u(n, s)"
        )
    with cron_database.connect(autocommit=True) as conn:
        conn.execute("call fleet.prune_history()")
        left = conn.execute("select runid from cron.job_run_details where runid < 0").fetchall()
    assert left == [(-1,)]
