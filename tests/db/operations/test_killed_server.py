"""A schedule that takes the whole server down with it, twice: kill -9 in the middle of a tick."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.db.operations.test_stopped_ticks import POISON, POISONED

from pgfleet_local.server.cluster import Cluster
from pgfleet_local.settings import StackSettings

BUSY = """
    select a.pid
    from pg_stat_activity as a, fleet.tick_work as w
    where a.query like 'call fleet.tick_minute%%' and a.wait_event = 'PgSleep'
      and w.step = %s and w.begun_at is not null and %s = any (w.schedule_ids)
"""


@pytest.fixture
def server(prepared_settings: Callable[[], StackSettings]) -> Iterator[Cluster]:
    """Run a cluster whose commits outlive a crash, ticking by its own pg_cron."""
    cluster = Cluster(replace(prepared_settings(), durable=True))
    if not cluster.binaries.has_library("pg_cron"):
        pytest.skip("pg_cron is not installed")
    cluster.start()
    try:
        ask(cluster, "select fleet.set_setting('tick_step_seconds', '60')")
        # A copy of another: its jobs come to where it is now.
        ask(cluster, "select fleet.sync_jobs()")
        yield cluster
    finally:
        cluster.stop("immediate")


def ask(server: Cluster, query: str, *values: Any, admin: bool = False) -> Any:
    url = server.settings.admin_url if admin else server.settings.db_url
    with psycopg.connect(url, autocommit=True) as conn:
        found = conn.execute(query, values)
        row = found.fetchone() if found.description else None
    return row[0] if row else None


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something that a server says, which may be on its knees meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(psycopg.OperationalError):
            if found := condition():
                return found
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def every_second(server: Cluster, owner: str, name: str, **spec: Any) -> int:
    device = ask(
        server,
        "insert into devices (owner_id, hostname) values (%s, %s) returning id",
        owner,
        f"{name}-pc",
    )
    whole = {
        "owner_id": str(owner), "name": name, "action_type": "broadcast_message",
        "payload": {"message": name}, "recurrence_type": "interval",
        "recurrence_config": {"seconds": 1}, "device_ids": [device],
        "policies": {"overlap": "allow"}, **spec,
    }  # fmt: skip
    return int(ask(server, "select create_schedule(%s) ->> 'id'", Jsonb(whole)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", ["start", "expand"])
def test_a_schedule_that_kills_the_server_twice_is_paused_and_the_rest_goes_on_between(
    server: Cluster, step: str
) -> None:
    hostile, good = (
        ask(server, "insert into owners (name) values (%s) returning id", name)
        for name in ("hostile", "good")
    )
    ask(server, "insert into webhook_endpoints (owner_id, url) values (%s, %s)",
        hostile, "https://hooks.example.com/x")  # fmt: skip
    served = [every_second(server, good, f"good {n}") for n in range(3)]
    ask(server, POISONED[step], admin=True)
    # The ticker begins with the server, and knows the poison from its first plan on.
    server.stop("immediate")
    server.start()
    culprit = every_second(server, hostile, "culprit", payload=POISON)
    rows = "select count(*) from device_commands where schedule_id = any (%s)"

    for _ in range(2):
        victim = until(lambda: ask(server, BUSY, step, culprit))
        more = f"{rows} having count(*) > {ask(server, rows, served)}"
        # No farewell: every session ends, and what was not committed is gone.
        os.kill(victim, signal.SIGKILL)
        until(partial(ask, server, more, served))

    ticks = "select tick_count from fleet.heartbeat"
    first = until(lambda: ask(server, ticks))
    until(lambda: ask(server, ticks) >= first + 2)
    found = "select status || ': ' || status_reason from schedules where id = %s"
    assert ask(server, found, culprit).startswith("paused: it stopped the scheduler twice")
    told = "select payload::text from webhook_deliveries where owner_id = %s and event = %s"
    assert "stopped the scheduler" in ask(server, told, hostile, "schedule.paused")
    stop = ask(server, "select last_stop from fleet.heartbeat")
    assert (stop["step"], stop["schedule_id"], stop["owner_id"]) == (step, culprit, str(hostile))
    paused = "select count(*) from schedules where id = any (%s) and status = 'active'"
    assert ask(server, paused, served) == len(served)
