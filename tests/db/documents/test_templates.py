"""Templates: schedules with parameters."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

LOCK_UP: Row = {
    "name": "Lock up",
    "description": "Locks what is not locked.",
    "spec": {
        "name": "Lock up {{school}} at {{ time }}",
        "action_type": "broadcast_message",
        "payload": {"message": "{{greeting}}, {{school}}!", "title": "{{title}}"},
        "recurrence_type": "weekly",
        "recurrence_config": {"days_of_week": "{{days}}", "time": "{{time}}"},
        "start_time": "2999-01-01T00:00:00Z",
        "selector": {"tags": ["{{school}}"]},
        "priority": "{{priority}}",
        "policies": {"overlap": "allow"},
    },
    "parameters": {
        "school": {"type": "string", "description": "Tag of the school."},
        "time": {"type": "string", "default": "06:30"},
        "days": {"type": "array", "default": [0, 1, 2, 3, 4]},
        "priority": {"type": "number", "required": True, "choices": [0, 5]},
        "greeting": {"type": "string", "default": "Hello"},
        "title": {"type": "string", "required": False},
    },
}


def save(fleet: Fleet, **changes: Any) -> Row:
    whole = {**LOCK_UP, "owner_id": str(fleet.owner_id), **changes}
    answer: Row = fleet.value("select create_template(%s)", Jsonb(whole))
    return answer


def use(fleet: Fleet, name: str = "Lock up", version: int | None = None, **values: Any) -> Row:
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value(
            "select instantiate_template(%s, %s, %s)", name, Jsonb(values), version
        )
    return answer


def test_a_template_becomes_a_schedule_with_values_of_their_own_type(fleet: Fleet) -> None:
    save(fleet)
    made = use(fleet, school="north", priority=5)

    assert made["owner_id"] == str(fleet.owner_id)
    assert made["name"] == "Lock up north at 06:30"
    assert made["payload"] == {"message": "Hello, north!"}
    assert made["recurrence_config"] == {"days_of_week": [0, 1, 2, 3, 4], "time": "06:30"}
    assert made["selector"] == {"tags": ["north"]}
    assert made["priority"] == 5
    assert made["policies"] == {"overlap": "allow"}


def test_a_value_that_looks_like_a_placeholder_stays_as_it_is(fleet: Fleet) -> None:
    save(fleet)
    made = use(fleet, school="{{greeting}}", priority=0, title="{{school}}")

    assert made["payload"] == {"message": "Hello, {{greeting}}!", "title": "{{school}}"}


def test_each_save_is_a_version_and_old_ones_stay(fleet: Fleet) -> None:
    first = save(fleet)
    second = save(fleet, name="LOCK UP", description="Better.")
    assert (first["version"], second["version"]) == (1, 2)

    spec = {**LOCK_UP["spec"], "name": "Third {{school}}"}
    save(fleet, spec=spec)
    assert use(fleet, school="a", priority=0)["name"] == "Third a"
    assert use(fleet, "lock up", 1, school="a", priority=0)["name"] == "Lock up a at 06:30"
    with fleet.refused("PT404", "template_not_found", "version 9"):
        use(fleet, version=9)


def test_all_that_is_wrong_with_parameters_is_in_one_error(fleet: Fleet) -> None:
    save(fleet)
    with fleet.refused(
        "PT422",
        "parameters_invalid",
        "parameters.school: is missing",
        "parameters.priority: 7 is not one of [0, 5]",
        "parameters.days: must be an array",
        "parameters.colour: is not a parameter",
    ):
        use(fleet, priority=7, days="mon", colour="red")


def test_what_create_schedule_refuses_is_told_in_its_words(fleet: Fleet) -> None:
    save(fleet)
    with fleet.refused("PT422", "schedule_invalid", "recurrence_config"):
        use(fleet, school="a", priority=0, time="half past six")


def test_all_that_is_wrong_with_a_template_is_in_one_error(fleet: Fleet) -> None:
    with fleet.refused(
        "PT422",
        "template_invalid",
        "name: must be text",
        "spec.nmae: is not a key",
        "{{school}} is not among the parameters",
        "parameters.Time: is not a name",
        "parameters.day.type: is not one of",
        "parameters.hour.default: must be a number",
        'parameters.room.default: "c" is not one of',
        "parameters.room.chioces: is not a key",
        "version: is not a key",
    ):
        save(
            fleet,
            name=" ",
            version=7,
            spec={"nmae": "{{school}}"},
            parameters={
                "Time": {"type": "string"},
                "day": {"type": "weekday"},
                "hour": {"type": "number", "default": "6"},
                "room": {"type": "string", "default": "c", "choices": ["a", "b"], "chioces": []},
            },
        )


def test_devices_and_groups_go_by_name(fleet: Fleet) -> None:
    device = fleet.device("Lab-01")
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="Labs")["id"]
    spec = {
        "name": "x",
        "action_type": "lock",
        "start_time": "2999-01-01T00:00:00Z",
        "devices": ["{{host}}"],
        "groups": ["labs"],
    }
    save(fleet, spec=spec, parameters={"host": {"type": "string"}})
    made = use(fleet, host="lab-01")
    assert (made["device_ids"], made["group_ids"]) == ([device], [group])
    with fleet.refused("PT404", "schedule_invalid", "lab-99"):
        use(fleet, host="lab-99")


def test_templates_of_others_are_neither_seen_used_nor_deleted(fleet: Fleet) -> None:
    save(fleet)
    stranger = Fleet(fleet.conn)
    with stranger.acting(stranger.owner_id):
        assert stranger.rows("select * from schedule_templates") == []
    for call in ("select instantiate_template('Lock up')", "select delete_template('Lock up')"):
        with fleet.refused("PT404", "template_not_found"), fleet.acting(stranger.owner_id):
            fleet.rows(call)
    with fleet.refused("PT404", "owner_not_found"), fleet.acting(stranger.owner_id):
        save(fleet)
    # The same name in two fleets is no matter: each finds its own.
    save(stranger, description="theirs")
    assert use(fleet, school="a", priority=0)["owner_id"] == str(fleet.owner_id)


def test_who_may_only_look_neither_saves_nor_uses(fleet: Fleet) -> None:
    save(fleet)
    viewer = uuid4()
    fleet.run(
        "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, '{view}')",
        fleet.owner_id,
        viewer,
    )
    with fleet.acting(viewer):
        assert len(fleet.rows("select * from schedule_templates")) == 1
    for call in ("select instantiate_template('Lock up')", "select delete_template('Lock up')"):
        with fleet.refused("PT403", "permission_missing"), fleet.acting(viewer):
            fleet.rows(call)
    with fleet.refused("PT403", "permission_missing"), fleet.acting(viewer):
        save(fleet)


def test_a_version_never_changes(fleet: Fleet) -> None:
    import psycopg

    save(fleet)
    for who in ("authenticated", "service_role"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), fleet.conn.transaction():
            with fleet.acting(fleet.owner_id, who):
                fleet.run("update schedule_templates set spec = '{}'")
        fleet.conn.execute("reset role")


def test_a_deleted_template_leaves_its_schedules(fleet: Fleet) -> None:
    save(fleet)
    save(fleet)
    made = use(fleet, school="a", priority=0)
    with fleet.acting(fleet.owner_id):
        assert fleet.value("select delete_template('lock UP')") == 2
    assert fleet.schedule(made["id"])["status"] == "active"


def test_two_that_save_one_name_at_once_get_a_version_each(
    connect: Callable[..., Fleet],
) -> None:
    first = connect()
    second = connect(owner=first)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(save, [first, second] * 5))
    assert sorted(row["version"] for row in made) == list(range(1, 11))
