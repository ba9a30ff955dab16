"""Tasks and their executions in the words of a task scheduler's guide."""

from __future__ import annotations

from typing import Any

import pytest
from tests.helpers.fleet import HELLO, Fleet, Row

LATER = "2999-01-01T00:00:00Z"


@pytest.fixture
def other(fleet: Fleet) -> Fleet:
    """Give another owner in the same database."""
    return Fleet(fleet.conn)


def daily(fleet: Fleet, **spec: Any) -> Row:
    return fleet.create(
        **{
            "recurrence_type": "daily",
            "recurrence_config": {"time": "06:30"},
            "start_time": LATER,
            "timezone": "Europe/Berlin",
            "device_ids": [fleet.device()],
            **spec,
        }
    )


def test_tasks_and_executions_are_shown_in_the_words_of_the_guide(
    fleet: Fleet, other: Fleet
) -> None:
    device = fleet.device()
    cron = fleet.create(
        task_type="command",
        action_type=None,
        payload=None,
        command_payload={"command": "systeminfo"},
        recurrence_type="custom",
        recurrence_config={"cron_expression": "0 6 * * *"},
        start_time=LATER,
        device_ids=[device],
    )
    past = fleet.create(start_time="2025-10-26T15:00:00", device_ids=[device])
    paused = daily(fleet)
    fleet.run("select pause_schedule(%s, 'holidays')", paused["id"])
    ran = fleet.create(device_ids=[device], payload=HELLO)
    daily(other)

    with fleet.acting(fleet.owner_id):
        tasks = {row["id"]: row for row in fleet.rows("select * from scheduled_tasks")}
        executions = fleet.rows("select * from scheduled_task_executions order by id")
    assert set(tasks) == {cron["id"], past["id"], paused["id"], ran["id"]}
    assert (tasks[cron["id"]]["task_type"], tasks[cron["id"]]["recurrence_type"]) == (
        "command",
        "custom",
    )
    assert tasks[cron["id"]]["device_ids"] == [device]
    states = {made["id"]: tasks[made["id"]]["status"] for made in (cron, past, paused, ran)}
    assert list(states.values()) == ["pending", "skipped", "paused", "running"]
    assert tasks[paused["id"]]["error_message"] == "holidays"
    assert tasks[past["id"]]["error_message"] == "outside the catch-up window"
    by_task = {row["task_id"]: row for row in executions}
    assert by_task[past["id"]]["status"] == "skipped"
    assert by_task[ran["id"]]["status"] == "running"
    assert {row["deployment_id"] for row in executions} == {None}

    with fleet.as_device(device):
        assert fleet.rows("select * from scheduled_tasks") == []


def test_what_went_well_has_no_error(fleet: Fleet) -> None:
    device = fleet.device()
    once = fleet.create(device_ids=[device])
    counted = fleet.create(
        device_ids=[device],
        recurrence_type="interval",
        recurrence_config={"minutes": 1},
        policies={"max_runs": 1},
    )
    for made in (once, counted):
        for command in fleet.claim(device):
            fleet.finish(device, command, "completed")
        fleet.tick()
        task = fleet.row("select * from scheduled_tasks where id = %s", made["id"])
        assert fleet.schedule(made["id"])["status_reason"] or task["status"] != "completed"
        assert task["error_message"] is None


def test_what_failed_says_why_and_a_task_that_never_had_an_instant_too(fleet: Fleet) -> None:
    device = fleet.device()
    failed = fleet.create(device_ids=[device])
    (command,) = fleet.claim(device)
    fleet.finish(device, command, "failed", error="no screen", reason="unsupported")
    fleet.tick()
    never = fleet.create(
        device_ids=[device],
        recurrence_type="daily",
        recurrence_config={"time": "06:30"},
        start_time="2020-01-01T00:00:00Z",
        end_time="2020-02-01T00:00:00Z",
    )
    tasks = {row["id"]: row for row in fleet.rows("select * from scheduled_tasks")}
    assert tasks[failed["id"]]["status"] == "failed"
    assert tasks[failed["id"]]["error_message"]
    assert tasks[never["id"]]["status"] == "skipped"
    assert tasks[never["id"]]["error_message"] == "no due instant is left"
