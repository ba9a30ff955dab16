"""A thousand devices on one machine: how long a command takes, and what a gateway that dies does.

What happened is counted by the file that the handlers themselves write, not by the database. How
long it took is only told, and bounded, here: benchmarks measure it beside a baseline.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pgfleet.demo.platform import Platform, running_devices, running_platform
from pgfleet.demo.report import Entered, percentiles

DEVICES = 1000
RATE = 100
MINUTES = float(os.environ.get("PGFLEET_SOAK_MINUTES", "10"))
PATIENCE_SECONDS = 300.0
OPEN = "select count(*) from device_commands where status in ('pending', 'running')"
TIMES = "select id, extract(epoch from created_at)::float8 from device_commands where id > %s"

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running_platform() as platform, database(platform) as db:
        owner = value(db, "insert into owners (name) values ('soak') returning id")
        db.execute("select fleet.set_setting('default_owner', to_jsonb(%s::text))", (owner,))
        code = value(db, "select create_enrollment_code(p_max_uses => %s)", DEVICES)["code"]
        options = ("--duration", "0", "--poll-seconds", "300")
        with running_devices(platform, str(code), DEVICES, *options):
            seen = "select count(*) from devices where last_seen is not null"
            wait_until(lambda: value(db, seen) >= DEVICES)
            db.execute("select send_command(id, 'lock') from devices")
            wait_until(lambda: value(db, OPEN) == 0)
            yield platform


def test_a_hundred_commands_a_second_are_with_their_devices_at_once(platform: Platform) -> None:
    late = worked(platform, MINUTES * 60)

    assert late["p95"] < 250


def test_a_gateway_that_dies_each_minute_loses_and_repeats_nothing(platform: Platform) -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.wait(60):
            platform.kill_gateway()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        late = worked(platform, MINUTES * 60)
    finally:
        over.set()
        killer.join()

    assert late["p99"] < 15_000


def worked(platform: Platform, seconds: float) -> dict[str, Any]:
    """Send at an even pace, account for every command, and give how late they were, in ms."""
    chance = random.Random(7)
    with database(platform) as db:
        ids = [one for (one,) in db.execute("select id from devices").fetchall()]
        first = value(db, "select max(id) from device_commands")
        began = time.monotonic()
        for number in range(int(RATE * seconds)):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            db.execute("select send_command(%s, 'clear_cache')", (chance.choice(ids),))
        wait_until(lambda: value(db, OPEN) == 0)
        created = dict(db.execute(TIMES, (first,)).fetchall())
        done = value(
            db, "select count(*) from device_commands where status = 'completed' and id > %s", first
        )
    entered = Entered(platform.events).look()
    late = percentiles([(entered[one][0] - at) * 1000 for one, at in created.items()])
    print(f"\n{len(created)} commands to {DEVICES} devices: {late}")
    assert len(created) == int(RATE * seconds)
    assert done == len(created)
    assert [one for one in created if len(entered[one]) != 1] == []
    return late


def value(db: psycopg.Connection[Any], statement: str, *values: Any) -> Any:
    row = db.execute(statement, values).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def database(platform: Platform) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(platform.db_url, autocommit=True) as connection:
        yield connection


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.2)
