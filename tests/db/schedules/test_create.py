"""Creating schedules: from JSON, from SQL, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet, Row


# As it stands in the guide of the task scheduler whose clients are to work unchanged.
def as_given(fleet: Fleet, body: str) -> Row:
    """Create a schedule from the text of a request, as the signed-in owner."""
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value("select create_schedule(%s::jsonb)", body)
    return answer


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


@pytest.mark.parametrize(
    ("more", "warns"),
    [
        ({"recurrence_type": "daily", "recurrence_config": {"time": "02:30"}}, True),
        ({"start_time": "2999-01-01T02:30:00"}, True),
        ({"scheduled_time": "2999-01-01T02:30:00"}, True),
        ({"start_time": "2999-01-01T02:30:00+01:00"}, False),
        ({"recurrence_type": "interval", "recurrence_config": {"hours": 1}}, False),
        ({"start_time": "2999-01-01T02:30:00", "timezone": "UTC"}, False),
        ({"start_time": "2999-01-01T02:30:00", "timezone": "Europe/Berlin"}, False),
    ],
)
def test_a_time_without_a_zone_is_in_utc_and_the_answer_says_so(
    fleet: Fleet, more: Row, warns: bool
) -> None:
    """Where the owner's zone is another one, the reader may have meant that."""
    device = fleet.device()
    assert "no timezone" not in str(fleet.create(device_ids=[device], **more)["warnings"])
    fleet.run("update owners set timezone = 'Europe/Berlin' where id = %s", fleet.owner_id)

    made = fleet.create(device_ids=[device], **more)

    assert made["timezone"] == more.get("timezone", "UTC")
    assert any("meant in Europe/Berlin" in one for one in made["warnings"]) == warns
