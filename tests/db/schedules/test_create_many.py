"""Many schedules at once: all of them, or none and what is wrong with each."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet, Row


def spec(fleet: Fleet, name: str, **more: Any) -> Row:
    return {
        "owner_id": str(fleet.owner_id),
        "name": name,
        "action_type": "broadcast_message",
        "payload": HELLO,
        "recurrence_type": "daily",
        "recurrence_config": {"time": "03:00"},
        "start_time": "2031-01-01T00:00:00Z",
        "selector": {},
        **more,
    }


def create_many(fleet: Fleet, *specs: Any) -> list[Row]:
    made: list[Row] = fleet.value(
        "select create_schedules(%s::jsonb[])", [Jsonb(item) for item in specs]
    )
    return made


def names(fleet: Fleet) -> list[str]:
    return [
        row["name"]
        for row in fleet.rows(
            "select name from schedules where owner_id = %s order by id", fleet.owner_id
        )
    ]


def test_answers_are_those_of_one_by_one_in_the_same_order(fleet: Fleet) -> None:
    fleet.run("update owners set timezone = 'Asia/Tokyo' where id = %s", fleet.owner_id)
    device = fleet.device("pc-1")
    specs = [
        spec(fleet, "b", timezone="Europe/Berlin"),
        spec(fleet, "a", devices=["PC-1"], selector=None),
        spec(fleet, "c", recurrence_type="once", selector={"tags": ["none"]}),
    ]
    many = create_many(fleet, *specs)
    single = [fleet.value("select create_schedule(%s)", Jsonb(item)) for item in specs]

    own = {"id", "created_at", "updated_at"}
    assert [{k: v for k, v in row.items() if k not in own} for row in many] == [
        {k: v for k, v in row.items() if k not in own} for row in single
    ]
    assert many[1]["device_ids"] == [device]
    assert sorted(row["id"] for row in many) == [row["id"] for row in many]
    noted = fleet.rows(
        "select row_id from audit_log where owner_id = %s and table_name = 'schedules'"
        " and action = 'insert' order by id limit 3",
        fleet.owner_id,
    )
    assert [row["row_id"] for row in noted] == [str(row["id"]) for row in many]


def test_one_that_is_wrong_leaves_none_and_each_is_named_by_place_and_field(fleet: Fleet) -> None:
    with fleet.refused(
        "PT422",
        "schedule_invalid",
        'schedules[1].timezone: "Mars/Base" is not a known time zone',
        "schedules[1].priority: 101",
        "schedules[2].task_name: must be a string",
        'schedules[2].devices: device "pc-none" was not found',
        "schedules[4]: a schedule must be a JSON object",
    ) as refusal:
        create_many(
            fleet,
            spec(fleet, "good"),
            spec(fleet, "bad", timezone="Mars/Base", priority=101),
            {**spec(fleet, "bad"), "name": None, "task_name": 7, "devices": ["pc-none"]},
            spec(fleet, "also good"),
            "nothing",
        )
    assert "schedules[0]" not in refusal.message and "schedules[3]" not in refusal.message
    assert names(fleet) == []


def test_what_was_not_found_alone_is_not_found(fleet: Fleet) -> None:
    with fleet.refused("PT404", "schedule_invalid", "schedules[1].devices"):
        create_many(fleet, spec(fleet, "a"), spec(fleet, "b", devices=["pc-none"]))


def test_what_is_due_runs_at_once(fleet: Fleet) -> None:
    device = fleet.device()
    due = {"recurrence_type": "once", "recurrence_config": {}, "device_ids": [device]}
    made = create_many(fleet, *(spec(fleet, name, **due, start_time=None) for name in "ab"))

    assert [row["execution_count"] for row in made] == [1, 1]
    assert len(fleet.rows("select from device_commands where device_id = %s", device)) == 2


def test_schedules_of_others_are_not_made_among_ones_own(fleet: Fleet) -> None:
    other = Fleet(fleet.conn)
    with fleet.refused("PT404", "owner_not_found", str(other.owner_id)):
        with fleet.acting(fleet.owner_id):
            create_many(fleet, spec(fleet, "mine"), spec(other, "theirs"))
    assert names(fleet) == names(other) == []


def test_a_quota_counts_all_of_them(fleet: Fleet) -> None:
    fleet.run("select fleet.set_quota(%s, 'schedules', 2)", fleet.owner_id)
    with fleet.refused("PT429", "quota_exceeded", "2 of 2"), fleet.acting(fleet.owner_id):
        create_many(fleet, *(spec(fleet, name) for name in "abc"))
    assert len(create_many(fleet, spec(fleet, "a"), spec(fleet, "b"))) == 2


def test_none_are_none(fleet: Fleet) -> None:
    assert create_many(fleet) == []
    assert fleet.value("select create_schedules(null)") == []
