"""What is wrong with a schedule is said at once, field by field, and nothing is written."""

from __future__ import annotations

from typing import Any

import pytest
from tests.helpers.fleet import Fleet, Row

WRONG: list[tuple[Row, list[str]]] = [
    ({"timezone": "Nonsense5"}, ["timezone"]),
    ({"timezone": "europe/berlin"}, ["timezone"]),
    (
        {"recurrence_type": "cron", "recurrence_config": {"cron_expression": "99 * * * *"}},
        ["recurrence_config"],
    ),
    ({"recurrence_type": "cron"}, ["recurrence_config"]),
    ({"recurrence_type": "hourly"}, ["recurrence_type"]),
    ({"recurrence_config": [1]}, ["recurrence_config"]),
    ({"action_type": "no_such_thing"}, ["action_type"]),
    ({"action_type": None}, ["action_type: is missing"]),
    ({"payload": {}}, ["payload.message"]),
    ({"payload": {"message": None}}, ["payload.message"]),
    ({"payload": {"message": 5}}, ["payload.message"]),
    ({"payload": "text"}, ["payload"]),
    ({"start_time": "2999-01-02", "end_time": "2999-01-01"}, ["start_time", "end_time"]),
    (
        {
            "start_time": "2999-01-02",
            "recurrence_type": "daily",
            "recurrence_config": {"time": "01:00", "end_date": "2998-01-01"},
        },
        ["recurrence_config.end_date"],
    ),
    ({"start_time": "tomorrow"}, ["start_time"]),
    ({"start_time": "2030-02-30"}, ["start_time"]),
    ({"start_time": "2030-02-03T25:00"}, ["start_time"]),
    ({"start_time": 1893456000}, ["start_time"]),
    ({"start_time": "2030-02-03 10:00 Europe/Berlin"}, ["start_time"]),
    ({"device_ids": "all"}, ["device_ids"]),
    ({"device_ids": [1.5]}, ["device_ids"]),
    ({"device_ids": ["1"]}, ["device_ids"]),
    ({"device_ids": [10**30]}, ["device_ids"]),
    ({"device_ids": []}, ["device_ids"]),
    ({"device_id": "one"}, ["device_id"]),
    ({"group_ids": {"a": 1}}, ["group_ids"]),
    ({"selector": {"tag": ["x"]}}, ["selector.tag"]),
    ({"priority": "high"}, ["priority"]),
    ({"priority": 101}, ["priority"]),
    ({"priority": 0.5}, ["priority"]),
    ({"ui_initiated": "yes"}, ["ui_initiated"]),
    ({"name": 7}, ["name"]),
    ({"name": "  ", "device_ids": []}, ["device_ids"]),
    ({"policies": {"overlap": "maybe"}}, ["policies.overlap"]),
    ({"policies": {"catchup_window": "soon"}}, ["policies.catchup_window"]),
    ({"policies": {"catchup_window": None}}, ["policies.catchup_window"]),
    ({"policies": {"expires_after": "-1 hour"}}, ["policies.expires_after"]),
    ({"policies": {"max_concurrent": "3"}}, ["policies.max_concurrent"]),
    ({"policies": {"overlap": None}}, ["policies.overlap"]),
    ({"policies": {"retry": 3}}, ["policies.retry"]),
    ({"policies": {"retry": {"attempts": 0}}}, ["policies.retry.attempts"]),
    ({"policies": {"retry": {"atempts": 3}}}, ["policies.retry.atempts"]),
    ({"policies": {"nonsense": 1}}, ["policies.nonsense"]),
    ({"policies": []}, ["policies"]),
    ({"colour": "red"}, ["colour"]),
    (
        {
            "timezone": "Mars/Base",
            "priority": "high",
            "payload": {},
            "recurrence_type": "cron",
            "recurrence_config": {"cron_expression": "x"},
            "policies": {"catchup": "some"},
            "device_ids": [],
        },
        [
            "timezone",
            "priority",
            "payload.message",
            "recurrence_config",
            "policies.catchup",
            "device_ids",
        ],
    ),
]


@pytest.mark.parametrize(("change", "fields"), WRONG, ids=lambda value: str(value)[:60])
def test_every_wrong_field_is_named_and_nothing_is_written(
    fleet: Fleet, change: Row, fields: list[str]
) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "schedule_invalid", *fields):
        fleet.create(**{"device_ids": [device], **change})
    assert fleet.value("select count(*) from schedules") == 0
    assert fleet.value("select count(*) from device_commands") == 0


@pytest.mark.parametrize("spec", ["{}", "[]", "null", '"text"', "5"])
def test_what_is_no_schedule_at_all_is_refused(fleet: Fleet, spec: str) -> None:
    with fleet.refused("PT422", "schedule_invalid"), fleet.acting(fleet.owner_id):
        fleet.run("select create_schedule(%s::jsonb)", spec)


def test_devices_and_groups_of_others_are_not_found(fleet: Fleet) -> None:
    others = Fleet(fleet.conn)
    device = others.device()
    group = others.insert("device_groups", owner_id=others.owner_id, name="g")["id"]
    columns = {"owner_id": fleet.owner_id, "name": "s", "action_type": "lock"}
    named = (f"device {device}", f"group {group}")
    with fleet.refused("PT404", "schedule_invalid", *named), fleet.acting(fleet.owner_id):
        fleet.create(device_ids=[device], group_ids=[group])
    with fleet.refused("PT404", "schedule_invalid", named[0]), fleet.acting(fleet.owner_id):
        fleet.insert("schedules", **columns, device_ids=[device])
    # Whoever sees both is told whose they are.
    with fleet.refused("PT422", "schedule_invalid", *named, "belongs to another owner"):
        fleet.create(device_ids=[device], group_ids=[group])


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        ({"timezone": "Nowhere"}, ["timezone"]),
        ({"action_type": "no_such_thing"}, ["action_type"]),
        ({"recurrence_type": "cron"}, ["recurrence_config"]),
        ({"device_ids": []}, ["device_ids"]),
        ({"policies": {"overlap": "x"}, "action_type": "x"}, ["policies.overlap", "action_type"]),
    ],
)
def test_a_wrong_row_is_refused_like_wrong_json(
    fleet: Fleet, columns: Row, fields: list[str]
) -> None:
    row: dict[str, Any] = {"name": "s", "action_type": "lock", "device_ids": [fleet.device()]}
    with fleet.refused("PT422", "schedule_invalid", *fields):
        fleet.insert("schedules", owner_id=fleet.owner_id, **{**row, **columns})
