"""A fleet at work while its database is migrated: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.agent.conftest import wait_for
from tests.helpers.running_stack import RunningStack

from pgfleet.demo.platform import Platform, running_devices
from pgfleet.demo.report import Entered
from pgfleet_local.settings import StackSettings

DEVICES = 25
MIGRATIONS = 2
SENDS = 10
PATIENCE_SECONDS = 240
SECONDLY = """
select create_schedule(jsonb_build_object(
  'name', 'beat', 'action_type', 'buzz', 'recurrence_type', 'interval',
  'recurrence_config', '{"seconds": 5}'::jsonb, 'selector', '{}'::jsonb,
  'policies', '{"overlap": "allow", "max_concurrent": 1000, "expires_after": "1 hour",
    "catchup": "all", "catchup_limit": 1000}'::jsonb))
"""
RUNS = "select count(*) from schedule_runs where schedule_id = %s"
UNFINISHED = "select count(*) from device_commands where status in ('pending', 'running')"


@pytest.fixture
def platform(prepared_settings: Callable[[], StackSettings]) -> Iterator[RunningStack]:
    running = RunningStack(prepared_settings())
    try:
        yield running.wait_ready()
    finally:
        running.end()


def migrate_all(platform: RunningStack, conn: psycopg.Connection[Any]) -> subprocess.Popen[bytes]:
    """Begin to re-apply all that is not a table, as an upgrade does."""
    conn.execute("update fleet_ledger.sources set digest = 'of the version before'")
    return subprocess.Popen(
        [sys.executable, "-m", "pgfleet", "db", "migrate"],
        env={**os.environ, "PGFLEET_DATABASE_URL": platform.url()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.timeout(900)
def test_a_fleet_works_on_through_a_migrate(platform: RunningStack, tmp_path: Path) -> None:
    with platform.connect(autocommit=True, row_factory=dict_row) as conn:

        def value(query: str, *values: Any) -> Any:
            row = conn.execute(query, values).fetchone()
            assert row is not None
            return next(iter(row.values()))

        owner = value("insert into owners (name) values ('School') returning id::text")
        value("select fleet.set_setting('default_owner', to_jsonb(%s::text))", owner)
        code = value("select create_enrollment_code(p_max_uses => %s) ->> 'code'", DEVICES)
        place = Platform(
            tmp_path, platform.settings.api_url, "", platform.settings.anon_key, "", ""
        )
        with running_devices(place, code, DEVICES, "--duration", "0.2", "--poll-seconds", "2"):
            wait_for(
                lambda: value("select count(*) from devices") == DEVICES,
                "all are enrolled",
                PATIENCE_SECONDS,
            )
            beat = value(SECONDLY)["id"]
            sent = 0
            for _ in range(MIGRATIONS):
                migrating = migrate_all(platform, conn)
                for _ in range(SENDS):
                    # Sent while functions, views and policies are replaced.
                    sent += value("select count(send_command(id, 'buzz')) from devices")
                    with suppress(subprocess.TimeoutExpired):
                        migrating.wait(1)
                said = migrating.communicate()[0].decode()
                assert migrating.returncode == 0, said
            # Where a migrate takes no longer than a beat, there was but one.
            wait_for(lambda: value(RUNS, beat) > 1, "it has run again", PATIENCE_SECONDS)
            value("select pause_schedule(%s)", beat)
            wait_for(lambda: value(UNFINISHED) == 0, "all have ended", PATIENCE_SECONDS)
        runs = conn.execute(
            "select scheduled_for, targeted from schedule_runs where schedule_id = %s"
            " order by scheduled_for",
            (beat,),
        ).fetchall()
        commands = conn.execute("select id, status from device_commands").fetchall()

    assert sent == MIGRATIONS * SENDS * DEVICES
    instants = [run["scheduled_for"] for run in runs]
    assert len(instants) > 1
    gaps = {later - one for one, later in pairwise(instants)}
    assert gaps == {timedelta(seconds=5)}
    assert {run["targeted"] for run in runs} == {DEVICES}
    assert Counter(row["status"] for row in commands) == {"completed": sent + len(runs) * DEVICES}
    entered = Entered(place.events).look()
    assert set(entered) == {row["id"] for row in commands}
    assert {len(times) for times in entered.values()} == {1}
