"""Changing, deleting, duplicating schedules, one and many, and what they have done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

LATER = "2999-01-01T00:00:00Z"


@pytest.fixture
def other(fleet: Fleet) -> Fleet:
    """Give another owner in the same database."""
    return Fleet(fleet.conn)


def update(fleet: Fleet, made: Row, **changes: Any) -> Row:
    answer: Row = fleet.value("select update_schedule(%s, %s)", made["id"], Jsonb(changes))
    return answer


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


def test_an_update_changes_what_it_names_and_nothing_else(fleet: Fleet) -> None:
    made = daily(fleet, name="before", description="kept", priority=3)
    with fleet.acting(fleet.owner_id):
        answer = update(fleet, made, task_name="after", policies={"overlap": "allow"})

    assert (answer["name"], answer["policies"]) == ("after", {"overlap": "allow"})
    same = ("description", "priority", "recurrence_config", "next_run_at", "payload", "device_ids")
    assert [answer[key] for key in same] == [made[key] for key in same]
    assert answer["warnings"] == []


def test_new_times_move_the_next_run_and_history_stays(fleet: Fleet) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = fleet.minutely([fleet.device()], start)
    fleet.value("select id from run_schedule(%s)", made["id"])
    before = len(fleet.runs(made["id"]))
    answer = update(
        fleet, made, recurrence_type="daily", recurrence_config={"time": "06:30"}, start_time=LATER
    )

    assert datetime.fromisoformat(answer["next_run_at"]) == datetime(2999, 1, 1, 6, 30, tzinfo=UTC)
    assert len(fleet.runs(made["id"])) == before


def test_times_of_an_update_are_local_to_the_zone_it_brings(fleet: Fleet) -> None:
    made = daily(fleet, timezone="UTC")
    answer = update(fleet, made, timezone="Asia/Tokyo", start_time="2999-01-02T00:00:00")

    assert datetime.fromisoformat(answer["start_time"]) == datetime(2999, 1, 1, 15, tzinfo=UTC)


def test_settings_of_the_old_kind_of_recurrence_are_dropped(fleet: Fleet) -> None:
    made = daily(fleet)
    answer = update(fleet, made, recurrence_type="once", start_time=LATER)

    assert answer["recurrence_config"] == {}
    assert answer["next_run_at"] is not None


def test_null_empties_what_may_be_empty_and_says_nothing_elsewhere(fleet: Fleet) -> None:
    made = daily(fleet, end_time="2999-02-01T00:00:00Z", selector={}, priority=7)
    answer = update(
        fleet, made, end_time=None, selector=None, priority=None, name=None, recurrence_config=None
    )

    assert (answer["end_time"], answer["selector"]) == (None, None)
    assert (answer["priority"], answer["name"]) == (7, made["name"])
    assert answer["recurrence_config"] == made["recurrence_config"]


def test_an_unknown_device_is_named_together_with_everything_else(fleet: Fleet) -> None:
    made = daily(fleet)
    with fleet.refused("PT422", "schedule_invalid", "device_ids", "987654321", "timezone"):
        update(fleet, made, device_ids=[987654321], timezone="Mars/Olympus")


def test_targets_are_changed_by_each_of_their_names(fleet: Fleet) -> None:
    first, second = fleet.devices(2)
    made = daily(fleet, device_ids=[first])
    assert update(fleet, made, device_id=second)["device_ids"] == [second]
    assert update(fleet, made, device_ids=[first])["device_id"] == first
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="g")["id"]
    answer = update(fleet, made, group_ids=[group])
    assert (answer["device_ids"], answer["device_id"]) == ([first], None)


def test_targets_of_an_update_go_by_name_as_well(fleet: Fleet) -> None:
    device = fleet.device("Lab-07")
    made = daily(fleet)
    assert update(fleet, made, devices=["lab-07"])["device_ids"] == [device]
    with fleet.refused("PT404", "schedule_invalid", "lab-99", "rooms"):
        update(fleet, made, devices=["lab-99"], groups=["rooms"])


def test_a_chain_is_made_and_ended_by_an_update(fleet: Fleet) -> None:
    first, second = daily(fleet, name="first"), daily(fleet, name="second")
    answer = update(fleet, second, after={"schedule_id": first["id"], "on": "either"})
    assert (answer["after_schedule_id"], answer["next_run_at"]) == (first["id"], None)
    with fleet.refused("PT422", "schedule_invalid", "for ever"):
        update(fleet, first, after={"schedule_id": second["id"]})
    answer = update(fleet, second, after=None)
    assert answer["after_schedule_id"] is None
    assert answer["next_run_at"] is not None


def test_every_wrong_field_of_an_update_is_in_one_error(fleet: Fleet) -> None:
    made = daily(fleet)
    foreign = Fleet(fleet.conn).device()
    with fleet.refused(
        "PT422",
        "schedule_invalid",
        "nmae",
        "timezone",
        "priority",
        "device_ids",
        "owner_id",
        "end_time",
    ) as refusal:
        update(
            fleet,
            made,
            nmae="x",
            timezone="Nonsense5",
            priority=1000,
            device_ids=[foreign],
            owner_id=str(uuid4()),
            end_time="soon",
        )
    assert "cannot be changed" in refusal.message
    assert fleet.schedule(made["id"])["timezone"] == "Europe/Berlin"


def test_changes_must_be_an_object(fleet: Fleet) -> None:
    made = daily(fleet)
    with fleet.refused("PT422", "schedule_invalid"):
        fleet.value("select update_schedule(%s, '[1]')", made["id"])


def test_what_is_cancelled_is_duplicated_not_changed(fleet: Fleet) -> None:
    made = daily(fleet)
    fleet.run("select cancel_schedule(%s)", made["id"])
    with fleet.refused("PT409", "schedule_cancelled") as refusal:
        update(fleet, made, name="again")
    assert "duplicate" in refusal.hint
    copy = fleet.value("select duplicate_schedule(%s)", made["id"])
    assert copy["status"] == "paused"


def test_a_completed_schedule_lives_again_with_new_times(fleet: Fleet) -> None:
    made = fleet.create(device_ids=[fleet.device()])
    assert fleet.schedule(made["id"])["status"] == "completed"
    answer = update(fleet, made, start_time=LATER)
    assert (answer["status"], answer["status_reason"]) == ("active", None)


def test_delete_takes_runs_and_waiting_commands_along(fleet: Fleet) -> None:
    made = fleet.create(device_ids=[fleet.device()])
    assert len(fleet.commands(made["id"])) == 1
    with fleet.acting(fleet.owner_id):
        gone = fleet.row("select * from delete_schedule(%s)", made["id"])
    assert gone["id"] == made["id"]
    assert fleet.runs(made["id"]) == fleet.commands(made["id"]) == []


def test_a_copy_is_paused_named_after_its_model_and_runs_nothing(fleet: Fleet) -> None:
    made = fleet.create(name="now", device_ids=[fleet.device()])
    first = fleet.value("select duplicate_schedule(%s)", made["id"])
    second = fleet.value("select duplicate_schedule(%s)", made["id"])

    assert (first["name"], second["name"]) == ("now (copy)", "now (copy 2)")
    assert first["status"] == "paused"
    assert first["device_ids"] == made["device_ids"]
    assert fleet.runs(first["id"]) == []


def test_a_copy_takes_changes_and_may_start_at_once(fleet: Fleet) -> None:
    made = daily(fleet)
    device = fleet.device()
    copy = fleet.value(
        "select duplicate_schedule(%s, %s)",
        made["id"],
        Jsonb({"name": "other", "status": "active", "device_ids": [device]}),
    )
    assert (copy["name"], copy["status"], copy["device_ids"]) == ("other", "active", [device])
    assert copy["next_run_at"] is not None
    with fleet.refused("PT422", "schedule_invalid", "status"):
        fleet.value('select duplicate_schedule(%s, \'{"status": "done"}\')', made["id"])


@pytest.mark.parametrize(
    "call",
    [
        "select update_schedule(%s, '{}')",
        "select delete_schedule(%s)",
        "select duplicate_schedule(%s)",
        "select * from schedule_history(%s)",
    ],
)
def test_schedules_of_others_are_not_found(fleet: Fleet, other: Fleet, call: str) -> None:
    made = daily(fleet)
    for missing in (made["id"], 10**12):
        with (
            fleet.refused("PT404", "schedule_not_found"),
            fleet.acting(other.owner_id),
        ):
            fleet.rows(call, missing)


def test_who_may_only_look_changes_nothing(fleet: Fleet) -> None:
    made = daily(fleet)
    viewer = uuid4()
    fleet.run(
        "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, '{view}')",
        fleet.owner_id,
        viewer,
    )
    for call in (
        "select update_schedule(%s, '{}')",
        "select delete_schedule(%s)",
        "select duplicate_schedule(%s)",
    ):
        with fleet.refused("PT403", "permission_missing"), fleet.acting(viewer):
            fleet.rows(call, made["id"])
    with fleet.acting(viewer):
        assert fleet.rows("select * from schedule_history(%s)", made["id"]) == []
