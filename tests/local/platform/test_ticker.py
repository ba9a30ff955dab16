"""The platform on a Postgres without pg_cron: it ticks by a loop of its own, and says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.helpers.running_stack import RunningStack

from pgfleet_local.server.binaries import find_binaries
from pgfleet_local.server.ticker import DUE, Ticker
from pgfleet_local.settings import StackSettings

TICKED = "select last_tick_at > now() - interval '2 seconds' from fleet.heartbeat"


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def watching(own_database: Database) -> Iterator[psycopg.Connection[Any]]:
    with closing(own_database.connect(autocommit=True)) as conn:
        yield conn


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def ticker(own_database: Database, said: list[str]) -> Iterator[Ticker]:
    made = Ticker(own_database.url(), said.append)
    yield made
    made.stop()


def ticks(conn: psycopg.Connection[Any]) -> bool:
    return conn.execute(TICKED).fetchone() == (True,)


def test_it_ticks_at_once_and_ends_at_once(ticker: Ticker, watching: Any, said: list[str]) -> None:
    assert not ticker.is_running()
    ticker.start()
    wait_for(lambda: ticks(watching), 5)
    assert ticker.is_running()

    began = time.monotonic()
    ticker.stop()
    assert time.monotonic() - began < 3
    assert not ticker.is_running()
    wait_for(lambda: not ticks(watching), 5)
    assert said == []


def test_a_connection_that_is_cut_is_made_again(ticker: Ticker, watching: Any) -> None:
    ticker.start()
    wait_for(lambda: ticks(watching), 5)
    watching.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and query ~ 'tick_minute' and pid <> pg_backend_pid()"
    )
    watching.execute("update fleet.heartbeat set last_tick_at = '-infinity'")

    wait_for(lambda: ticks(watching), 10)


def test_a_job_that_fails_says_so_and_stops_no_other(
    ticker: Ticker, own_database: Database, watching: Any, said: list[str]
) -> None:
    jobs = watching.execute("select pg_get_functiondef('fleet.jobs'::regproc)").fetchone()[0]
    with own_database.connect("supabase_admin", autocommit=True) as admin:
        admin.execute(jobs.replace("values", "values ('broken', '@reboot', 'select 1 / 0'),", 1))

    ticker.start()

    wait_for(lambda: said == ["job broken: division by zero"], 5)
    wait_for(lambda: ticks(watching), 5)


@pytest.mark.parametrize(
    ("minute", "missing", "there"),
    [
        (0, {"pgfleet-prune-history", "pgfleet-reconcile-geo"}, {"pgfleet-tick"}),
        (23 * 60, {"pgfleet-prune-history"}, {"pgfleet-reconcile-geo", "pgfleet-watch"}),
        (3 * 3600 + 17 * 60, {"pgfleet-reconcile-geo"}, {"pgfleet-prune-history"}),
    ],
)
def test_jobs_are_due_when_their_fields_say(
    watching: Any, minute: int, missing: set[str], there: set[str]
) -> None:
    rows = watching.execute(DUE, {"minute": 1_800_000_000 // 86_400 * 86_400 + minute}).fetchall()
    due = {name for (name,) in rows}

    assert there <= due
    assert not missing & due
    assert "pgfleet-tick-boot" not in due


def test_a_platform_without_pg_cron_ticks_and_says_by_what(
    stack_settings: Callable[[], StackSettings], fast_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = find_binaries()
    bundle = fast_folder / "bundle"
    (bundle / "bin").mkdir(parents=True)
    for program in ("postgres", "initdb"):
        (bundle / "bin" / program).symlink_to(here.program(program))
    monkeypatch.setenv("PGFLEET_LOCAL_PG_BIN", str(bundle / "bin"))
    running = RunningStack(stack_settings())
    try:
        running.wait_ready()
        running.wait_well()
        with running.connect() as conn:
            engine = conn.execute("select fleet_status() -> 'engine'").fetchone()
    finally:
        code = running.end()

    assert engine is not None
    assert (engine[0]["pg_cron"], engine[0]["is_ticking"]) == (False, True)
    assert f"Postgres {here.version} has no pg_cron here" in running.said()
    assert "ticks by a loop of its own" in running.said()
    assert "job pgfleet" not in running.said()
    assert code == 0
