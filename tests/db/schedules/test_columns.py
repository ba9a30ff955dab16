"""Columns that say the same thing are kept equal, whichever side was written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

LATER = "2999-01-01T00:00:00Z"


@pytest.fixture
def made(fleet: Fleet) -> Row:
    """Give a schedule of the far future with one device and a profile."""
    return fleet.create(
        action_type="lock", payload={}, profile_id="7", device_id=fleet.device(), start_time=LATER
    )


def update(fleet: Fleet, made: Row, assignments: str, *values: object) -> Row:
    return fleet.row(
        f"update schedules set {assignments} where id = %s returning *", *values, made["id"]
    )


def test_each_side_fills_the_other_on_insert(fleet: Fleet, made: Row) -> None:
    assert made["payload"] == {"profile_id": "7"}
    assert made["device_ids"] == [made["device_id"]]
    other = fleet.create(
        action_type="lock",
        payload={"profile_id": "8"},
        device_ids=[made["device_id"]],
        start_time=LATER,
    )
    assert (other["profile_id"], other["device_id"]) == ("8", made["device_id"])


def test_each_side_fills_the_other_on_update(fleet: Fleet, made: Row) -> None:
    assert update(fleet, made, "profile_id = '8'")["payload"] == {"profile_id": "8"}
    assert update(fleet, made, "payload = %s", Jsonb({"profile_id": "9"}))["profile_id"] == "9"
    assert update(fleet, made, "payload = '{}'")["profile_id"] is None
    assert update(fleet, made, "profile_id = '1'")["payload"] == {"profile_id": "1"}
    assert update(fleet, made, "profile_id = null")["payload"] == {}

    second, third = fleet.devices(2)
    assert update(fleet, made, "device_id = %s", second)["device_ids"] == [second]
    row = update(fleet, made, "device_ids = array[%s]::bigint[]", third)
    assert row["device_id"] == third
    row = update(fleet, made, "device_ids = array[%s, %s]::bigint[]", second, third)
    assert row["device_id"] is None
    assert update(fleet, made, "device_id = %s", second)["device_ids"] == [second]


def test_a_profile_that_is_a_number_stays_one(fleet: Fleet) -> None:
    made = fleet.create(
        action_type="lock",
        payload={"profile_id": 42},
        device_ids=[fleet.device()],
        start_time=LATER,
    )
    assert made["profile_id"] == "42"
    row = update(fleet, made, "name = 'renamed'")
    assert (row["payload"], row["profile_id"]) == ({"profile_id": 42}, "42")


def test_a_device_named_beside_others_is_not_dropped(fleet: Fleet) -> None:
    first, second = fleet.devices(2)
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="g")["id"]
    both = fleet.create(device_id=first, device_ids=[second], start_time=LATER)
    assert (sorted(both["device_ids"]), both["device_id"]) == ([first, second], None)
    with_group = fleet.create(device_id=first, group_ids=[group], start_time=LATER)
    assert (with_group["device_ids"], with_group["device_id"]) == ([first], None)


def test_a_single_device_takes_the_place_of_groups(fleet: Fleet) -> None:
    device = fleet.device()
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="g")["id"]
    made = fleet.create(group_ids=[group], start_time=LATER)
    row = update(fleet, made, "device_id = %s", device)
    assert (row["device_id"], row["device_ids"], row["group_ids"]) == (device, [device], [])
    row = update(fleet, made, "device_ids = '{}', group_ids = array[%s]::bigint[]", group)
    assert (row["device_id"], row["device_ids"], row["group_ids"]) == (None, [], [group])


def test_a_schedule_never_loses_its_last_target(fleet: Fleet, made: Row) -> None:
    for assignment in ("device_ids = '{}'", "device_id = null"):
        with fleet.refused("PT422", "schedule_invalid", "device_ids"):
            update(fleet, made, assignment)


def test_a_device_named_twice_counts_once(fleet: Fleet) -> None:
    device = fleet.device()
    row = fleet.insert(
        "schedules",
        owner_id=fleet.owner_id,
        action_type="lock",
        device_ids=[device, device],
        name="s",
        start_time=LATER,
    )
    assert (row["device_ids"], row["device_id"]) == ([device], device)


def test_a_schedule_without_a_name_is_named_after_what_it_does(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.create(name=None, action_type="lock", payload={}, device_id=device)
    assert made["name"] == f"lock on {device}"


def test_new_times_give_a_new_instant_and_keep_the_history(fleet: Fleet) -> None:
    made = fleet.create(device_ids=[fleet.device()])
    assert len(fleet.runs(made["id"])) == 1
    row = update(fleet, made, "start_time = '2999-01-01'")
    assert (row["status"], row["next_run_at"]) == ("active", datetime(2999, 1, 1, tzinfo=UTC))
    assert len(fleet.runs(made["id"])) == 1

    row = update(
        fleet, made, "recurrence_type = 'daily', recurrence_config = '{\"time\": \"06:30\"}'"
    )
    assert row["next_run_at"] == datetime(2999, 1, 1, 6, 30, tzinfo=UTC)
    row = update(fleet, made, "timezone = 'Europe/Berlin'")
    assert row["next_run_at"] == datetime(2999, 1, 1, 5, 30, tzinfo=UTC)
    with fleet.refused("PT422", "schedule_invalid", "timezone"):
        update(fleet, made, "timezone = 'Berlin'")


def test_changing_a_single_schedule_that_ran_does_not_run_it_again(fleet: Fleet) -> None:
    made = fleet.create(device_ids=[fleet.device()])
    update(fleet, made, "end_time = '2999-01-01'")
    fleet.tick()
    row = fleet.schedule(made["id"])
    assert (row["status"], row["execution_count"]) == ("completed", 1)
    assert len(fleet.runs(made["id"])) == len(fleet.commands(made["id"])) == 1


def test_what_was_missed_before_a_change_of_times_is_accounted_for(fleet: Fleet) -> None:
    start = datetime(2999, 1, 1, tzinfo=UTC)
    made = fleet.minutely([fleet.device()], start)
    fleet.run(
        "update schedules set next_run_at = now() - interval '3 hours' where id = %s", made["id"]
    )
    old = fleet.schedule(made["id"])["next_run_at"]
    update(fleet, made, "start_time = '2999-06-01'")
    (run,) = fleet.runs(made["id"])
    assert (run["scheduled_for"], run["status"]) == (old, "skipped")
