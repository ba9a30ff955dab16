"""What the engine does is told to whoever asked to hear of it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]


@pytest.fixture
def listening(db: Connection) -> Connection:
    """Give a database with two devices and an endpoint that wants everything."""
    db.execute(
        "with o as (insert into owners (name) values ('School') returning id)"
        " select fleet.set_setting('default_owner', to_jsonb(id)) from o"
    )
    db.execute("insert into devices (id, hostname) values (1, 'pc-1'), (2, 'pc-2')")
    db.execute(
        'select create_webhook_endpoint(\'{"url": "https://hooks.example.com/in",'
        ' "events": ["*"]}\')'
    )
    return db


def told(db: Connection) -> list[tuple[str, dict[str, Any]]]:
    rows = db.execute("select event, payload -> 'data' from webhook_deliveries order by id")
    return [(event, data) for event, data in rows]


def test_a_run_that_failed_is_told_with_its_failed_command(listening: Connection) -> None:
    listening.execute(
        'select create_schedule(\'{"name": "Lock", "action_type": "lock", "device_ids": [1, 2]}\')'
    )
    listening.execute("update device_commands set status = 'failed' where device_id = 1")
    listening.execute("update device_commands set status = 'completed' where device_id = 2")
    listening.execute("select fleet.tick(now())")

    events = dict(told(listening))

    assert events["command.failed"]["device_hostname"] == "pc-1"
    run = events["run.failed"]
    assert (run["schedule_name"], run["completed"], run["failed"]) == ("Lock", 1, 1)
    assert "run.completed" not in events


def test_a_run_that_completed_is_told_once(listening: Connection) -> None:
    listening.execute(
        'select create_schedule(\'{"name": "Lock", "action_type": "lock", "device_ids": [1]}\')'
    )
    listening.execute("update device_commands set status = 'completed'")
    listening.execute("select fleet.tick(now())")
    listening.execute("select fleet.tick(now())")

    assert [event for event, _ in told(listening)].count("run.completed") == 1


def test_a_missed_instant_is_told_with_its_reason(listening: Connection) -> None:
    listening.execute(
        'select create_schedule(\'{"name": "Late", "action_type": "lock",'
        ' "device_ids": [1], "start_time": "2025-01-01T00:00:00Z"}\')'
    )

    events = dict(told(listening))

    assert events["run.skipped"]["reason"] == "outside the catch-up window"


def test_a_paused_schedule_is_told_with_its_reason(listening: Connection) -> None:
    listening.execute(
        'select create_schedule(\'{"name": "Daily", "action_type": "lock",'
        ' "device_ids": [1], "recurrence_type": "daily"}\')'
    )
    listening.execute("select pause_schedule(max(id), 'holidays') from schedules")

    events = dict(told(listening))

    assert events["schedule.paused"]["reason"] == "holidays"


def test_nobody_else_is_told(listening: Connection) -> None:
    listening.execute(
        "with o as (insert into owners (name) values ('Other') returning id)"
        " insert into devices (id, owner_id, hostname) select 9, id, 'theirs' from o"
    )
    listening.execute("select send_command(9, 'lock')")
    listening.execute("update device_commands set status = 'failed' where device_id = 9")

    assert told(listening) == []
