"""One way to write a schedule: whatever takes its keys, takes and refuses the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet, Row

SPEC: Row = {
    "name": "Nightly",
    "action_type": "broadcast_message",
    "payload": HELLO,
    "recurrence_type": "daily",
    "recurrence_config": {"time": "03:00"},
    "start_time": "2031-01-01T00:00:00Z",
    "selector": {"tags": ["all"]},
}


@dataclass
class World:
    """What a specification may name: things of this fleet, and things of another one."""

    fleet: Fleet
    ids: dict[str, Any]

    def filled(self, value: Any) -> Any:
        """Give a value with $names replaced by ids."""
        if isinstance(value, dict):
            return {key: self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        return self.ids.get(value, value) if isinstance(value, str) else value


def things(fleet: Fleet, sign: str) -> dict[str, Any]:
    """Make one of everything that a schedule may name."""
    names = {"devices": f"pc-{sign}", "groups": f"Lab {sign}", "schedules": f"First {sign}"}
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name=names["groups"])
    parent = fleet.create(**{**SPEC, "name": names["schedules"]})
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name=f"Fair {sign}")
    return {
        f"${sign}.device": fleet.device(names["devices"]),
        f"${sign}.group": group["id"],
        f"${sign}.schedule": parent["id"],
        f"${sign}.calendar": calendar["id"],
        f"${sign}.owner": str(fleet.owner_id),
    }


@pytest.fixture
def world(fleet: Fleet) -> World:
    return World(fleet, {**things(fleet, "mine"), **things(Fleet(fleet.conn), "theirs")})


ALIASES = {"task_name": "name", "task_type": "action_type", "scheduled_time": "start_time"}


def whole(given: Row) -> Row:
    """Give a specification that says the same; of two words for one thing only the given one."""
    meant = {ALIASES.get(key, key) for key in given}
    return {**{key: value for key, value in SPEC.items() if key not in meant}, **given}


def preview(world: World, given: Row) -> None:
    world.fleet.rows(
        "select * from preview_schedule(%s)",
        Jsonb({"owner_id": str(world.fleet.owner_id), **whole(given)}),
    )


def create(world: World, given: Row) -> Row:
    answer: Row = world.fleet.value(
        "select create_schedule(%s)",
        Jsonb({"owner_id": str(world.fleet.owner_id), **whole(given)}),
    )
    return answer


def create_many(world: World, given: Row) -> Row:
    owner = {"owner_id": str(world.fleet.owner_id)}
    first, made = world.fleet.value(
        "select create_schedules(%s::jsonb[])",
        [Jsonb({**owner, **SPEC, "name": "First of two"}), Jsonb({**owner, **whole(given)})],
    )
    assert first["name"] == "First of two"
    return dict(made)


def update(world: World, given: Row) -> Row:
    made = world.fleet.create(**SPEC)
    answer: Row = world.fleet.value(
        "select update_schedule(%s, %s)", made["id"], Jsonb(world.filled(given))
    )
    return answer


def duplicate(world: World, given: Row) -> Row:
    made = world.fleet.create(**SPEC)
    answer: Row = world.fleet.value("select duplicate_schedule(%s, %s)", made["id"], Jsonb(given))
    return answer


def template(world: World, given: Row) -> Row:
    saved = {"name": "T", "spec": whole(given), "owner_id": str(world.fleet.owner_id)}
    world.fleet.value("select create_template(%s)", Jsonb(saved))
    answer: Row = world.fleet.value("select instantiate_template('T')")
    return answer


def document(world: World, given: Row) -> Row:
    spec = whole(given)
    if "task_name" in spec:
        spec["name"] = spec.pop("task_name")
    world.fleet.value(
        "select apply_document(%s, p_owner_id => %s)",
        Jsonb({"version": 1, "schedules": [spec]}),
        world.fleet.owner_id,
    )
    made: Row = world.fleet.row(
        "select to_jsonb(s) as row from schedules as s where owner_id = %s"
        " order by id desc limit 1",
        world.fleet.owner_id,
    )["row"]
    return made


def reapplied(world: World, given: Row) -> Row:
    document(world, {})
    return document(world, given)


Way = Callable[[World, Row], Row | None]
WAYS: list[Way] = [preview, create, create_many, update, duplicate, template, document, reapplied]

ACCEPTED: list[tuple[Row, Row]] = [
    ({"devices": ["pc-mine"]}, {"device_ids": ["$mine.device"]}),
    ({"devices": ["PC-MINE", "pc-mine"]}, {"device_ids": ["$mine.device"]}),
    ({"devices": []}, {"device_ids": []}),
    ({"devices": None}, {"device_ids": []}),
    ({"groups": ["lab MINE"]}, {"group_ids": ["$mine.group"]}),
    ({"groups": ["Lab mine"], "devices": ["pc-mine"]}, {"group_ids": ["$mine.group"]}),
    ({"devices": ["pc-mine"], "device_ids": ["$mine.device"]}, {"device_ids": ["$mine.device"]}),
    ({"device_ids": ["$mine.device", "$mine.device"]}, {"device_ids": ["$mine.device"]}),
    ({"device_ids": None, "group_ids": None}, {"device_ids": [], "group_ids": []}),
    ({"device_id": "$mine.device"}, {"device_ids": ["$mine.device"]}),
    ({"group_ids": ["$mine.group"]}, {"group_ids": ["$mine.group"]}),
    (
        {"after": {"schedule": "first MINE"}},
        {"after_schedule_id": "$mine.schedule", "after_on": "completed"},
    ),
    (
        {"after": {"schedule": "First mine", "on": "failed"}},
        {"after_schedule_id": "$mine.schedule", "after_on": "failed"},
    ),
    (
        {"after": {"schedule_id": "$mine.schedule", "on": "either"}},
        {"after_schedule_id": "$mine.schedule", "after_on": "either"},
    ),
    (
        {"after_schedule_id": "$mine.schedule", "after_on": "failed"},
        {"after_schedule_id": "$mine.schedule", "after_on": "failed"},
    ),
    ({"after": None}, {"after_schedule_id": None, "after_on": None}),
    ({"policies": {"blackouts": ["fair MINE"]}}, {"policies": {"blackouts": ["$mine.calendar"]}}),
    (
        {"policies": {"blackouts": ["$mine.calendar"]}},
        {"policies": {"blackouts": ["$mine.calendar"]}},
    ),
    ({"task_name": "Other"}, {"name": "Other"}),
    ({"task_type": "lock", "payload": {}}, {"action_type": "lock"}),
    ({"scheduled_time": "2032-01-01T00:00:00"}, {"start_time": "2032-01-01T00:00:00+00:00"}),
    ({"command_payload": {"message": "x"}, "payload": None}, {"payload": {"message": "x"}}),
    ({"profile_id": "p1"}, {"profile_id": "p1", "payload": {**HELLO, "profile_id": "p1"}}),
    ({"payload": {**HELLO, "profile_id": "p2"}}, {"profile_id": "p2"}),
    ({"priority": 5}, {"priority": 5}),
    ({"priority": 5.0}, {"priority": 5}),
    ({"priority": None}, {"priority": 0}),
    ({"ui_initiated": True}, {"ui_initiated": True}),
    ({"description": "why"}, {"description": "why"}),
    ({"selector": {"platform": "ios"}}, {"selector": {"platform": "ios"}}),
    ({"timezone": "Europe/Berlin"}, {"timezone": "Europe/Berlin"}),
    (
        {"timezone": "Asia/Tokyo", "end_time": "2032-01-01T09:00:00"},
        {"end_time": "2032-01-01T00:00:00+00:00"},
    ),
    ({"end_time": None}, {"end_time": None}),
    (
        {"recurrence_type": "interval", "recurrence_config": {"hours": 1}},
        {"recurrence_type": "interval"},
    ),
    (
        {"recurrence_type": "custom", "recurrence_config": {"cron_expression": "0 3 * * *"}},
        {"recurrence_type": "cron"},
    ),
    ({"owner_id": "$mine.owner"}, {"owner_id": "$mine.owner"}),
]

REFUSED: list[tuple[Row, str]] = [
    ({"nmae": "x"}, "nmae: is not a key of a schedule"),
    ({"device": "pc-mine"}, "device: is not a key of a schedule"),
    ({"devices": "pc-mine"}, "devices: must be a list of names"),
    ({"devices": [7]}, "devices: must be a list of names"),
    ({"devices": {"a": 1}}, "devices: must be a list of names"),
    ({"devices": ["pc-none"]}, 'devices: device "pc-none" was not found'),
    ({"devices": ["pc-theirs"]}, 'devices: device "pc-theirs" was not found'),
    ({"groups": ["none"]}, 'groups: group "none" was not found'),
    ({"groups": ["Lab theirs"]}, 'groups: group "Lab theirs" was not found'),
    ({"groups": [["Lab mine"]]}, "groups: must be a list of names"),
    ({"device_ids": ["pc-mine"]}, 'device_ids: ["pc-mine"] is not a list of ids'),
    ({"device_ids": 7}, "device_ids: 7 is not a list of ids"),
    ({"device_ids": [1.5]}, "device_ids: [1.5] is not a list of ids"),
    ({"device_ids": [10**15]}, "device_ids: device 1000000000000000 was not found"),
    ({"device_ids": ["$theirs.device"]}, "was not found"),
    ({"group_ids": ["$theirs.group"]}, "was not found"),
    ({"device_id": "$theirs.device"}, "was not found"),
    ({"device_id": "x"}, 'device_id: "x" is not a whole number'),
    ({"after": "First mine"}, 'after: must be an object, not "First mine"'),
    ({"after": {"schedule": "none"}}, 'after.schedule: schedule "none" was not found'),
    (
        {"after": {"schedule": "First theirs"}},
        'after.schedule: schedule "First theirs" was not found',
    ),
    ({"after": {"schedule": 7}}, "after.schedule: must be a name"),
    ({"after": {"schedule_id": "$theirs.schedule"}}, "was not found"),
    ({"after": {"schedule_id": "x"}}, 'after.schedule_id: "x" is not a whole number'),
    ({"after": {"on": "failed"}}, "after.schedule_id: is missing"),
    ({"after": {"schedule": "First mine", "on": "ended"}}, 'after.on: "ended" is not one of'),
    ({"after": {"schedule": "First mine", "delay": 5}}, "after.delay: is not a key of after"),
    ({"after_schedule_id": "$theirs.schedule"}, "was not found"),
    ({"policies": {"blackouts": ["none"]}}, 'policies.blackouts: calendar "none" was not found'),
    ({"policies": {"blackouts": ["Fair theirs"]}}, "was not found"),
    ({"policies": {"overlpa": "skip"}}, "policies.overlpa: is not a policy"),
    ({"policies": []}, "policies: must be an object, not []"),
    ({"name": 7}, "name: must be a string, not 7"),
    ({"description": {}}, "description: must be a string, not {}"),
    ({"action_type": "brew_tea"}, 'action_type: "brew_tea" is not a known command type'),
    ({"task_type": 7}, "task_type: must be a string, not 7"),
    ({"payload": "x"}, 'payload: must be an object, not "x"'),
    ({"payload": {}}, "payload.message: is missing"),
    ({"recurrence_type": "yearly"}, "recurrence_type: "),
    ({"recurrence_type": 1}, "recurrence_type: must be a string, not 1"),
    ({"recurrence_config": {"tmie": "03:00"}}, "recurrence_config.tmie: is not known"),
    ({"recurrence_config": "03:00"}, 'recurrence_config: must be an object, not "03:00"'),
    ({"start_time": "soon"}, 'start_time: "soon" is not a time'),
    ({"scheduled_time": 7}, "scheduled_time: 7 is not a time"),
    ({"end_time": "2030-01-01T00:00:00Z"}, "start_time: is after end_time"),
    ({"timezone": "Mars/Base"}, 'timezone: "Mars/Base" is not a known time zone'),
    ({"selector": []}, "selector: must be an object, not []"),
    ({"selector": {"tag": "x"}}, "selector.tag: is not a key of a selector"),
    ({"priority": "high"}, 'priority: "high" is not a whole number from -100 to 100'),
    ({"priority": 101}, "priority: 101 is not a whole number from -100 to 100"),
    ({"ui_initiated": "yes"}, 'ui_initiated: must be a boolean, not "yes"'),
    ({"owner_id": "me"}, 'owner_id: "me" is not a uuid'),
    ({"rrule": "FREQ=DAILY"}, "rrule: and recurrence_type exclude each other"),
    ({"rrule": 7}, "rrule: must be a string, not 7"),
    ({"id": 7}, "id: is not a key of a schedule"),
    ({"next_run_at": None}, "next_run_at: is not a key of a schedule"),
    ({"execution_count": 0}, "execution_count: is not a key of a schedule"),
]


@pytest.mark.parametrize(("given", "columns"), ACCEPTED, ids=lambda v: str(v)[:60])
def test_every_way_takes_the_same_keys(world: World, given: Row, columns: Row) -> None:
    given, columns = world.filled(given), world.filled(columns)
    for way in WAYS:
        with (
            world.fleet.conn.transaction(force_rollback=True),
            world.fleet.acting(world.fleet.owner_id),
        ):
            made = way(world, given)
        if made is not None:
            assert {key: made[key] for key in columns} == columns, way.__name__


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=lambda v: str(v)[:60])
def test_every_way_refuses_the_same_keys_in_the_same_words(
    world: World, given: Row, words: str
) -> None:
    given = world.filled(given)
    for way in WAYS:
        if way in (update, duplicate) and "rrule: and" in words:
            # They have a recurrence already, which the rule takes the place of.
            continue
        if way in (document, reapplied) and "name" in given:
            # Things of a document are told apart by their names, which come first.
            continue
        with (
            pytest.raises(psycopg.Error) as caught,
            world.fleet.conn.transaction(),
            world.fleet.acting(world.fleet.owner_id),
        ):
            way(world, given)
        diag = caught.value.diag
        assert words in (diag.message_primary or ""), way.__name__
        assert diag.sqlstate == ("PT404" if "was not found" in words else "PT422") or (
            # A document and a template say which of them it is about.
            way in (document, reapplied, template) and diag.sqlstate in ("PT404", "PT422")
        ), way.__name__
        assert diag.message_hint, way.__name__


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_all_that_is_wrong_is_in_one_error(world: World, way: Way) -> None:
    given = {
        "devices": ["pc-none"],
        "priority": "high",
        "start_time": "soon",
        "policies": {"overlpa": 1},
        "payload": {},
        "timezone": "Mars/Base",
    }
    with pytest.raises(psycopg.Error) as caught, world.fleet.conn.transaction():
        way(world, given)
    message = caught.value.diag.message_primary or ""
    for field in (
        "devices",
        "priority",
        "start_time",
        "policies.overlpa",
        "payload.message",
        "timezone",
    ):
        assert f"{field}: " in message, message
    assert "names nobody" not in message


@pytest.mark.parametrize("way", [update, duplicate, create], ids=lambda way: way.__name__)
def test_a_rule_takes_the_place_of_a_recurrence(world: World, way: Way) -> None:
    given: Row = {"rrule": "FREQ=WEEKLY;BYDAY=MO"}
    if way is create:
        given |= {"recurrence_type": None, "recurrence_config": None}
    made = way(world, given)
    assert made is not None and made["recurrence_type"] == "weekly"


def test_a_column_by_plain_sql_is_checked_as_well(world: World) -> None:
    fleet = world.fleet
    made = fleet.create(**SPEC)
    for column, value, words in (
        ("device_ids", [world.ids["$theirs.device"]], "belongs to another owner"),
        ("after_schedule_id", world.ids["$theirs.schedule"], "was not found"),
        ("timezone", "Mars/Base", "is not a known time zone"),
        ("name", "", "name: must not be blank"),
        ("priority", 101, "priority: 101"),
        ("policies", Jsonb({"overlpa": 1}), "is not a policy"),
        ("payload", Jsonb({}), "payload.message: is missing"),
        ("action_type", "brew_tea", "is not a known command type"),
        ("recurrence_config", Jsonb({"tmie": 1}), "is not known"),
        ("selector", Jsonb({"tag": 1}), "is not a key of a selector"),
    ):
        if column == "name":
            # A name is made up where none is given.
            continue
        with pytest.raises(psycopg.Error) as caught, fleet.conn.transaction():
            fleet.run(f"update schedules set {column} = %s where id = %s", value, made["id"])
        assert words in (caught.value.diag.message_primary or ""), column
        columns = {**{key: SPEC[key] for key in SPEC}, "owner_id": fleet.owner_id, column: value}
        with pytest.raises(psycopg.Error) as caught, fleet.conn.transaction():
            fleet.insert("schedules", **columns)
        assert words in (caught.value.diag.message_primary or ""), column
