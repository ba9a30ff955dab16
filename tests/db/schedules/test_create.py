"""Creating schedules: from JSON, from SQL, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet, Row

# As it stands in the guide of the task scheduler whose clients are to work unchanged.
ONE_TIME_BODY = """{
    "task_name": "System Info Check",
    "task_type": "command",
    "scheduled_time": "2025-10-26T15:00:00",
    "recurrence_type": "once",
    "device_ids": [1, 2],
    "command_payload": {
      "command": "systeminfo",
      "shell": "cmd"
    }
  }"""

ALL_PROFILES = """
SELECT 
  id,
  profile_id,
  device_id,
  action_type,
  start_time,
  created_at,
  last_executed_at,
  ui_initiated,
  CASE 
    WHEN last_executed_at IS NULL AND start_time > NOW() THEN 'Pending'
    WHEN last_executed_at IS NULL AND start_time <= NOW() THEN 'Due for execution'
    WHEN last_executed_at IS NOT NULL THEN 'Executed'
    ELSE 'Unknown'
  END as status
FROM 
  schedules
WHERE 
  action_type IN ('push_profile', 'remove_profile')
ORDER BY 
  created_at DESC
LIMIT 50;
"""

PAIRED_PROFILES = """
SELECT 
  s1.id as install_id,
  s2.id as remove_id,
  s1.profile_id,
  s1.device_id,
  s1.start_time as install_time,
  s1.last_executed_at as installed_at,
  s2.start_time as scheduled_removal_time,
  s2.last_executed_at as removed_at,
  EXTRACT(EPOCH FROM (s2.start_time - s1.start_time))/60 as duration_minutes
FROM 
  schedules s1
JOIN 
  schedules s2 ON s1.profile_id = s2.profile_id AND s1.device_id = s2.device_id AND s2.id > s1.id
WHERE 
  s1.action_type = 'push_profile' 
  AND s2.action_type = 'remove_profile'
  AND s1.start_time < s2.start_time
ORDER BY 
  s1.created_at DESC
LIMIT 20;
"""


def as_given(fleet: Fleet, body: str) -> Row:
    """Create a schedule from the text of a request, as the signed-in owner."""
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value("select create_schedule(%s::jsonb)", body)
    return answer


def profile_types(fleet: Fleet) -> None:
    fleet.run(
        "insert into command_types (name, channel, payload_keys)"
        ' select n, \'mdm\', \'{"profile_id": {"type": "string", "required": true}}\''
        " from unnest(array['push_profile', 'remove_profile']) as n on conflict do nothing"
    )


def test_the_one_time_body_of_the_guide_works_byte_for_byte(fleet: Fleet) -> None:
    for device_id in (1, 2):
        fleet.device(id=device_id)
    made = as_given(fleet, ONE_TIME_BODY)

    assert made["name"] == "System Info Check"
    assert made["action_type"] == "run_command"
    assert made["payload"] == {"command": "systeminfo", "shell": "cmd"}
    assert made["device_ids"] == [1, 2]
    assert any("past" in warning for warning in made["warnings"])
    assert made["status"] == "completed"
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["reason"]) == ("skipped", "outside the catch-up window")
    assert run["scheduled_for"] == datetime(2025, 10, 26, 15, tzinfo=UTC)
    assert fleet.commands(made["id"]) == []


def test_the_weekly_body_of_the_guide_means_mondays_at_two(fleet: Fleet) -> None:
    fleet.run("insert into command_types (name) values ('deploy_software') on conflict do nothing")
    fleet.insert("device_groups", id=1, owner_id=fleet.owner_id, name="all", selector={})
    body = """{
    "task_name": "Weekly Security Updates",
    "task_type": "software_deployment",
    "scheduled_time": "2025-10-28T02:00:00",
    "recurrence_type": "weekly",
    "recurrence_config": {
      "type": "weekly",
      "days_of_week": [0],
      "time": "02:00"
    },
    "group_ids": [1],
    "software_payload": {
      "software_ids": [5, 8],
      "deployment_name": "Weekly Updates"
    }
  }"""
    try:
        made = as_given(fleet, body)
    except psycopg.Error as error:
        # Where deployments check their software, that is all that may be wrong with it.
        assert "software" in str(error) and "recurrence" not in str(error)
        return
    due = datetime.fromisoformat(made["next_run_at"])
    assert (due.weekday(), due.hour, due.minute) == (0, 2, 0)


def test_a_client_that_sends_every_key_of_its_model_is_understood(fleet: Fleet) -> None:
    device = fleet.device()
    made = as_given(
        fleet,
        json.dumps(
            {
                "task_name": "Check",
                "task_type": "command",
                "scheduled_time": "2999-01-01T00:00:00",
                "recurrence_type": "once",
                "recurrence_config": None,
                "device_ids": [device],
                "group_ids": None,
                "command_payload": {"command": "systeminfo"},
                "software_payload": None,
                "file_payload": None,
            }
        ),
    )
    assert made["payload"] == {"command": "systeminfo"}


def test_custom_means_cron_from_json_and_from_sql(fleet: Fleet) -> None:
    device = fleet.device()
    spec = {"recurrence_type": "custom", "recurrence_config": {"cron_expression": "*/5 * * * *"}}
    assert fleet.create(device_ids=[device], **spec)["recurrence_type"] == "cron"
    row = fleet.insert(
        "schedules",
        owner_id=fleet.owner_id,
        name="s",
        action_type="lock",
        device_ids=[device],
        **spec,
    )
    assert row["recurrence_type"] == "cron"


def test_a_schedule_that_is_due_runs_in_the_same_transaction(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.create(device_ids=[device], payload={"message": "now"})
    assert made["execution_count"] == 1
    assert made["last_executed_at"] is not None
    (command,) = fleet.commands(made["id"])
    assert command["payload"] == {"message": "now"}
    assert command["device_hostname"] is not None
    (run,) = fleet.runs(made["id"])
    assert (run["trigger"], run["status"], run["targeted"]) == ("schedule", "running", 1)


def test_a_start_a_few_minutes_ago_is_caught_up_with(fleet: Fleet) -> None:
    start = datetime.now(UTC) - timedelta(minutes=5)
    made = fleet.create(device_ids=[fleet.device()], start_time=start.isoformat())
    (run,) = fleet.runs(made["id"])
    assert (run["trigger"], run["targeted"]) == ("catchup", 1)
    assert made["warnings"] == []


def test_a_recurring_schedule_owes_nothing_for_the_time_before_it_existed(fleet: Fleet) -> None:
    made = fleet.minutely([fleet.device()], datetime(2020, 1, 1, tzinfo=UTC))
    assert datetime.fromisoformat(made["next_run_at"]) > datetime.now(UTC)
    assert fleet.runs(made["id"]) == []


def test_postgres_and_a_signed_in_person_insert_directly(fleet: Fleet) -> None:
    device = fleet.device()
    query = (
        "insert into schedules (name, action_type, payload, start_time, device_ids{0})"
        " values ('s', 'broadcast_message', %s, '2999-01-01', array[%s]::bigint[]{1}) returning *"
    )
    by_postgres = fleet.row(
        query.format(", owner_id", ", %s"), Jsonb(HELLO), device, fleet.owner_id
    )
    with fleet.acting(fleet.owner_id):
        by_person = fleet.row(query.format("", ""), Jsonb(HELLO), device)
    for row in (by_postgres, by_person):
        assert row["next_run_at"] == datetime(2999, 1, 1, tzinfo=UTC)
        assert row["device_id"] == device
    assert by_postgres["created_by"] is None
    assert by_person["created_by"] == by_person["owner_id"] == fleet.owner_id


def test_nobody_else_may_schedule_for_an_owner(fleet: Fleet) -> None:
    device = fleet.device()
    spec = {
        "name": "s",
        "action_type": "lock",
        "device_ids": [device],
        "owner_id": str(fleet.owner_id),
    }
    with fleet.refused("PT404", "owner_not_found"), fleet.acting(uuid4()):
        fleet.run("select create_schedule(%s)", Jsonb(spec))
    with fleet.refused("PT403", "not_a_person"), fleet.as_device(device):
        fleet.run("select create_schedule(%s)", Jsonb({**spec, "owner_id": None}))


@pytest.mark.parametrize(
    ("zone", "local", "instant"),
    [
        ("Europe/Berlin", "2030-03-31T01:59:00", "2030-03-31T00:59:00+00:00"),
        ("Europe/Berlin", "2030-03-31T02:30:00", "2030-03-31T01:00:00+00:00"),
        ("Europe/Berlin", "2030-03-31 03:00", "2030-03-31T01:00:00+00:00"),
        ("Europe/Berlin", "2030-10-27T02:30:00", "2030-10-27T00:30:00+00:00"),
        ("Europe/Berlin", "2030-10-27T03:00:00", "2030-10-27T02:00:00+00:00"),
        ("America/New_York", "2030-07-04T00:00:00", "2030-07-04T04:00:00+00:00"),
        ("America/New_York", "2030-07-04", "2030-07-04T04:00:00+00:00"),
        ("America/New_York", "2030-07-04T00:00:00Z", "2030-07-04T00:00:00+00:00"),
        ("America/New_York", "2030-07-04T00:00:00.5+05:30", "2030-07-03T18:30:00.5+00:00"),
        ("Asia/Kolkata", "2030-07-04 00:00:00-04", "2030-07-04T04:00:00+00:00"),
    ],
)
def test_a_time_without_an_offset_is_local_to_the_zone(
    fleet: Fleet, zone: str, local: str, instant: str
) -> None:
    made = fleet.create(device_ids=[fleet.device()], timezone=zone, start_time=local)
    assert datetime.fromisoformat(made["next_run_at"]) == datetime.fromisoformat(instant)


def test_a_schedule_that_reaches_nobody_or_never_runs_is_warned_of(fleet: Fleet) -> None:
    nobody = fleet.create(selector={"tags": ["nobody"]}, start_time="2999-01-01")
    assert any("no device" in warning for warning in nobody["warnings"])
    never = fleet.create(
        device_ids=[fleet.device()],
        recurrence_type="daily",
        recurrence_config={"time": "01:00"},
        start_time="2020-01-01",
        end_time="2020-01-02",
    )
    assert any("no due instant" in warning for warning in never["warnings"])
    assert never["status"] == "completed"


def test_both_monitoring_queries_show_a_temporary_profile(fleet: Fleet) -> None:
    profile_types(fleet)
    device = fleet.device()
    install = fleet.create(
        action_type="push_profile",
        payload={},
        profile_id="42",
        device_id=device,
        start_time=(datetime.now(UTC) - timedelta(seconds=20)).isoformat(),
    )
    remove = fleet.create(
        action_type="remove_profile",
        payload={"profile_id": "42"},
        device_ids=[device],
        start_time=(datetime.now(UTC) + timedelta(minutes=30)).isoformat(),
        ui_initiated=True,
    )

    listed = {row["id"]: row for row in fleet.rows(ALL_PROFILES)}
    assert listed[install["id"]]["status"] == "Due for execution"
    # The provider accepts it.
    fleet.run(
        "update schedules set last_executed_at = clock_timestamp() where id = %s", install["id"]
    )
    listed = {row["id"]: row for row in fleet.rows(ALL_PROFILES)}
    assert listed[install["id"]]["status"] == "Executed"
    assert listed[remove["id"]]["status"] == "Pending"
    assert {row["profile_id"] for row in listed.values()} == {"42"}
    assert listed[remove["id"]]["ui_initiated"] is True
    (pair,) = fleet.rows(PAIRED_PROFILES)
    assert (pair["install_id"], pair["remove_id"]) == (install["id"], remove["id"])
    assert (pair["profile_id"], pair["device_id"]) == ("42", device)
    assert pair["installed_at"] is not None and pair["removed_at"] is None
    assert round(pair["duration_minutes"]) == 30
