"""From a backup to another server: devices go on with their secrets, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg.rows import dict_row
from tests.agent.conftest import wait_for
from tests.helpers.dumping import dump, restore
from tests.helpers.running_stack import RunningStack

from pgfleet.demo.platform import Platform, running_devices
from pgfleet.demo.report import Entered
from pgfleet_local.bootstrap import prepare_cluster, prepare_database
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.settings import StackSettings

DEVICES = 3
PATIENCE_SECONDS = 90
SEND = "select (send_command(id, 'buzz', p_not_before => now() + %s::interval)).id from devices"


def ask(platform: RunningStack, query: str, *values: Any) -> list[dict[str, Any]]:
    with platform.connect(autocommit=True, row_factory=dict_row) as conn:
        return conn.execute(query, values).fetchall()


def send(platform: RunningStack, delay: str = "0") -> set[int]:
    """Send a command that is not safe to repeat to every device."""
    return {row["id"] for row in ask(platform, SEND, delay)}


def let_go(platform: RunningStack, commands: set[int]) -> None:
    """Let commands that were to wait be taken now."""
    query = "update device_commands set not_before = now() where id = any (%s)"
    with platform.connect(autocommit=True) as conn:
        conn.execute(query, (list(commands),))


def wait_done(platform: RunningStack, commands: set[int]) -> None:
    def states() -> set[str]:
        query = "select status from device_commands where id = any (%s)"
        return {row["status"] for row in ask(platform, query, list(commands))}

    wait_for(lambda: states() == {"completed"}, "completed", PATIENCE_SECONDS)


def empty_copy(settings: StackSettings, folder: Path, dumped: bytes) -> StackSettings:
    """Make a server of the same address and keys on another disk, and restore the dump there."""
    settings = replace(settings, data_dir=folder)
    folder.mkdir()
    folder.chmod(0o711)
    server = Cluster(settings)
    server.create()
    server.start()
    try:
        prepare_cluster(settings.admin_url)
        server.set_passwords()
        prepare_database(settings.admin_url, cron=server.has_cron)
        restore(dumped, settings.db_url)
    finally:
        server.stop()
    return settings


@pytest.fixture
def first(prepared_settings: Callable[[], StackSettings]) -> Iterator[RunningStack]:
    running = RunningStack(prepared_settings())
    try:
        yield running.wait_ready()
    finally:
        if running.process.poll() is None:
            running.end()


@pytest.mark.timeout(300)
def test_devices_go_on_after_a_restore_and_do_nothing_twice(
    first: RunningStack, fast_folder: Path, tmp_path: Path
) -> None:
    ask(first, "insert into owners (name) values ('School') returning id")
    ask(
        first,
        "select fleet.set_setting('default_owner', to_jsonb(id::text)) from owners"
        " where name = 'School'",
    )
    (code,) = ask(first, f"select create_enrollment_code(p_max_uses => {DEVICES}) ->> 'code' as it")
    place = Platform(tmp_path, first.settings.api_url, "", first.settings.anon_key, "", "")
    pace = ("--duration", "0.5", "--poll-seconds", "1", "--probe-seconds", "2")
    with running_devices(place, code["it"], DEVICES, *pace):
        wait_for(
            lambda: ask(first, "select count(*) as n from devices")[0]["n"] == DEVICES,
            "all are enrolled",
            PATIENCE_SECONDS,
        )
        before = send(first)
        wait_done(first, before)
        waiting = send(first, "1 hour")
        running = send(first)
        dumped = dump(first.url())
        # All that follows is lost: the restored server learns of it from nobody but the devices.
        let_go(first, waiting)
        lost = send(first)
        wait_done(first, waiting | running | lost)
        first.end()

        settings = empty_copy(first.settings, fast_folder / f"{tmp_path.name}-copy", dumped)
        second = RunningStack(settings)
        try:
            second.wait_ready()
            let_go(second, waiting)
            wait_done(second, waiting | running | before)
            later = send(second)
            wait_done(second, later)
            results = ask(second, "select id from device_commands where id = any (%s)", list(lost))
        finally:
            second.end()

    assert results == [] and not later & lost
    entered = Entered(place.events).look()
    assert set(entered) == before | waiting | running | lost | later
    assert {len(times) for times in entered.values()} == {1}
