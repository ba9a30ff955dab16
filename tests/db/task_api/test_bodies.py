"""Request bodies of a task scheduler's guide, taken byte for byte, and rules of calendars."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

COMMAND = """{
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
SOFTWARE = """{
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
FILES = r"""{
    "task_name": "Daily Config Sync",
    "task_type": "file_deployment",
    "scheduled_time": "2025-10-26T01:00:00",
    "recurrence_type": "daily",
    "recurrence_config": {
      "type": "daily",
      "time": "01:00"
    },
    "device_ids": [1, 2, 3],
    "file_payload": {
      "file_ids": [10, 11],
      "target_path": "C:\\Config",
      "create_path_if_not_exists": true
    }
  }"""
LATER = "2999-01-01T06:30:00"
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


@pytest.fixture
def guide(fleet: Fleet) -> Fleet:
    """Give a fleet with the ids that the guide uses."""
    for device_id in (1, 2, 3):
        fleet.device(id=device_id)
    fleet.insert("device_groups", id=1, owner_id=fleet.owner_id, name="all", selector={})
    for package_id in (5, 8):
        fleet.insert(
            "software_packages", id=package_id, **_of(fleet, f"package-{package_id}"), version="1.0"
        )
    for file_id in (10, 11):
        fleet.insert(
            "deployment_files",
            id=file_id,
            **_of(fleet, f"file-{file_id}"),
            size_bytes=1,
            sha256="0" * 64,
        )
    return fleet


def _of(fleet: Fleet, name: str) -> Row:
    return {"owner_id": fleet.owner_id, "name": name}


def as_given(fleet: Fleet, body: str) -> Row:
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value("select create_schedule(%s::jsonb)", body)
    return answer


def test_the_three_bodies_are_taken_as_they_stand(guide: Fleet) -> None:
    command, software, files = (as_given(guide, body) for body in (COMMAND, SOFTWARE, FILES))

    assert (command["action_type"], command["status"]) == ("run_command", "completed")
    assert any("past" in warning for warning in command["warnings"])
    assert software["action_type"] == "deploy_software"
    assert software["payload"] == {"software_ids": [5, 8], "deployment_name": "Weekly Updates"}
    due = datetime.fromisoformat(software["next_run_at"])
    assert (due.weekday(), due.hour) == (0, 2)
    assert files["action_type"] == "deploy_files"
    assert files["payload"]["target_path"] == "C:\\Config"
    assert datetime.fromisoformat(files["next_run_at"]).hour == 1


def test_they_come_back_in_the_words_of_the_guide(guide: Fleet) -> None:
    for body in (COMMAND, SOFTWARE, FILES):
        as_given(guide, body)
    with guide.acting(guide.owner_id):
        tasks = guide.rows("select * from scheduled_tasks order by id")
    assert [(row["task_type"], row["status"], row["recurrence_type"]) for row in tasks] == [
        ("command", "skipped", "once"),
        ("software_deployment", "pending", "weekly"),
        ("file_deployment", "pending", "daily"),
    ]
    assert tasks[0]["scheduled_time"] == datetime(2025, 10, 26, 15, tzinfo=UTC)


def test_an_update_takes_them_as_well(guide: Fleet) -> None:
    made = as_given(guide, SOFTWARE)
    answer = guide.value("select update_schedule(%s, %s::jsonb)", made["id"], FILES)
    assert (answer["name"], answer["action_type"]) == ("Daily Config Sync", "deploy_files")
    assert answer["recurrence_type"] == "daily"


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"software_payload": {}}, "software_payload.software_ids: "),
        ({"software_payload": {"software_ids": 5}}, "software_payload.software_ids: "),
        (
            {"task_type": "file_deployment", "file_payload": {"file_ids": [1]}},
            "file_payload.target_path: ",
        ),
    ],
)
def test_what_a_deployment_lacks_is_named(guide: Fleet, payload: Row, field: str) -> None:
    with guide.refused("PT422", "schedule_invalid", field):
        guide.create(
            action_type=None,
            payload=None,
            device_ids=[1],
            **{"task_type": "software_deployment", **payload},
        )


def test_the_rule_of_a_calendar_may_take_the_place_of_a_recurrence(guide: Fleet) -> None:
    made = guide.create(start_time=LATER, device_ids=[1])
    answer = guide.value(
        "select update_schedule(%s, %s)", made["id"], Jsonb({"rrule": "FREQ=WEEKLY;BYDAY=MO,WE"})
    )
    due = datetime.fromisoformat(answer["next_run_at"])
    assert (answer["recurrence_type"], due.weekday() in (0, 2)) == ("weekly", True)
    assert (due.hour, due.minute) == (6, 30)
    with guide.refused("PT422", "schedule_invalid", "rrule", "priority"):
        guide.value(
            "select update_schedule(%s, %s)",
            made["id"],
            Jsonb({"rrule": "FREQ=OFTEN", "priority": 1000, "start_time": LATER}),
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
