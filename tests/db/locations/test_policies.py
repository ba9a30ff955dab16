"""What entering and leaving bring about: schedules like all others, once for each event."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Area, point

AWAY, IN = (-500, 0), (0, 0)


def visit(area: Area, device: int, second: float = 0) -> None:
    """Go into the school and out again."""
    for after, place in ((0, IN), (60, IN), (120, AWAY), (180, AWAY)):
        area.report(device, second + after, place)


def test_an_event_makes_a_schedule_for_the_device_due_at_once(area: Area) -> None:
    device = area.fleet.device("lab-01")
    policy = area.policy("enter", area.school, name="Welcome", priority=7)
    visit(area, device)
    area.act()

    (schedule,) = area.schedules()
    assert schedule["name"] == "Welcome: lab-01 entered School"
    assert f"Location policy {policy}" in schedule["description"]
    assert (schedule["device_id"], schedule["recurrence_type"]) == (device, "once")
    assert (schedule["ui_initiated"], schedule["priority"]) == (False, 7)
    (command,) = area.fleet.commands(schedule["id"])
    assert (command["device_id"], command["payload"]) == (device, {"message": "enter"})
    action = area.fleet.row("select * from location_actions")
    assert (action["policy_id"], action["schedule_id"]) == (policy, schedule["id"])
    # The device hears of it as of anything else.
    assert [c["command_id"] for c in area.fleet.claim(device)] == [command["id"]]


def test_a_default_outside_of_all_locations_comes_and_goes(area: Area) -> None:
    device = area.fleet.device()
    area.policy("outside_all", name="Default")
    area.policy("inside_any", name="No default")
    for second in (0, 60, 120):
        area.report(device, second, AWAY)
    visit(area, device, 200)
    area.act()
    assert [s["name"].split(":")[0] for s in area.schedules()] == [
        "Default",
        "No default",
        "Default",
    ]


def test_policies_act_once_however_often_they_are_asked(area: Area) -> None:
    device = area.fleet.device()
    area.policy("enter", area.school)
    visit(area, device)
    for _ in range(3):
        area.act()
        area.report(device, 180, AWAY)
    assert len(area.schedules()) == 1


def test_only_the_devices_that_are_meant_are_reached(area: Area) -> None:
    fleet = area.fleet
    tagged = fleet.device("tagged", tags=["phone"])
    member = fleet.device("member")
    neither = fleet.device("neither")
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="Static")["id"]
    fleet.run(
        "insert into device_group_members (group_id, device_id) values (%s, %s)", group, member
    )
    dynamic = fleet.insert(
        "device_groups", owner_id=fleet.owner_id, name="Phones", selector={"tags": ["phone"]}
    )["id"]
    area.policy("enter", area.school, name="S", selector={"tags": ["phone"]})
    area.policy("enter", area.school, name="G", group_id=group)
    area.policy("enter", area.school, name="D", group_id=dynamic)
    area.policy("enter", area.school, name="B", group_id=group, selector={"tags": ["phone"]})
    area.policy("enter", area.school, name="off", is_enabled=False)
    area.policy("enter", area.library, name="elsewhere")
    for device in (tagged, member, neither):
        visit(area, device)
    area.act()
    made = sorted(s["name"] for s in area.schedules())
    assert made == [
        "D: tagged entered School",
        "G: member entered School",
        "S: tagged entered School",
    ]


def test_a_profile_comes_with_a_place_and_goes_with_it(area: Area) -> None:
    device = area.fleet.device("ipad")
    profile = {"profile_id": "12345"}
    area.policy("enter", area.school, action_type="push_profile", payload=profile)
    area.policy("leave", area.school, action_type="remove_profile", payload=profile)
    visit(area, device)
    area.act()
    assert [(s["name"], s["profile_id"], s["device_id"]) for s in area.schedules()] == [
        ("push_profile 12345: ipad entered School", "12345", device),
        ("remove_profile 12345: ipad left School", "12345", device),
    ]


def test_a_policy_that_fails_stops_no_other_and_says_why(area: Area) -> None:
    fleet = area.fleet
    fleet.run("insert into command_types (name) values ('old_type')")
    device = fleet.device()
    bad = area.policy("enter", area.school, action_type="old_type", payload={})
    good = area.policy("enter", area.school)
    fleet.run("delete from command_types where name = 'old_type'")
    visit(area, device)
    area.act()
    rows = fleet.rows("select * from location_actions order by policy_id")
    assert [row["policy_id"] for row in rows] == [bad, good]
    assert "old_type" in rows[0]["error_message"]
    assert [row["schedule_id"] is None for row in rows] == [True, False]


def test_a_sync_acts_at_once(area: Area) -> None:
    device = area.fleet.device()
    area.policy("enter", area.school)
    fixes = [
        {
            "device_id": device,
            "latitude": point(*IN)[0],
            "longitude": point(*IN)[1],
            "located_at": area.at(second).isoformat(),
        }
        for second in (0, 60)
    ]
    area.fleet.run("select fleet.take_fixes(%s, now())", Jsonb(fixes))
    assert len(area.schedules()) == 1


def test_sessions_that_act_at_once_do_not_act_twice(connect: Any) -> None:
    area = Area(connect())
    devices = area.fleet.devices(20)
    area.policy("enter", area.school)
    fixes = [
        {
            "device_id": device,
            "latitude": point(*IN)[0],
            "longitude": point(*IN)[1],
            "accuracy_m": 5,
            "located_at": area.at(second).isoformat(),
        }
        for device in devices
        for second in (0, 60)
    ]
    sessions = [connect(owner=area.fleet) for _ in range(4)]

    def take(session: Fleet) -> None:
        session.run("select fleet.take_fixes(%s, now())", Jsonb(fixes))
        session.run("select fleet.tick()")

    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(take, sessions))
    area.fleet.tick()
    reached = [
        command["device_id"] for s in area.schedules() for command in area.fleet.commands(s["id"])
    ]
    assert sorted(reached) == devices
    assert area.fleet.value("select count(*) from location_actions") == len(devices)


def test_a_sync_and_a_report_of_the_same_device_do_not_block_each_other(connect: Any) -> None:
    area = Area(connect())
    device = area.fleet.device()
    sync, reporter = connect(owner=area.fleet), connect(owner=area.fleet)
    fix = {"device_id": device, "latitude": 52.52, "longitude": 13.405}

    def report() -> None:
        reporter.run(
            "select fleet.take_fixes(%s, now())",
            Jsonb([{**fix, "located_at": area.at(60).isoformat()}]),
        )

    with ThreadPoolExecutor(1) as pool:
        with sync.conn.transaction():
            # As a sync does, which writes what it knows of the device before its position.
            sync.run("update devices set platform = 'ios' where id = %s", device)
            reported = pool.submit(report)
            while not area.fleet.value(
                "select exists (select 1 from pg_locks where not granted and pid = %s)",
                reporter.conn.info.backend_pid,
            ):
                assert not reported.done()
            sync.run(
                "select fleet.take_fixes(%s, now())",
                Jsonb([{**fix, "located_at": area.at(0).isoformat()}]),
            )
        reported.result(10)
    assert area.crossings(device) == [("entered", "School")]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"name": " "}, ["name: must not be blank"]),
        ({"kind": "square"}, ['kind: "square" is not one of']),
        ({"latitude": None}, ["latitude: is missing"]),
        ({"latitude": 91, "longitude": -181}, ["latitude: 91", "longitude: -181"]),
        ({"radius_m": None}, ["radius_m: is missing"]),
        ({"radius_m": 0}, ["radius_m: 0 is not within"]),
        ({"hysteresis_m": -1}, ["hysteresis_m: -1"]),
        ({"min_dwell": "-1 minute"}, ["min_dwell: -00:01:00"]),
        ({"min_dwell": "8 days", "radius_m": "NaN"}, ["min_dwell", "radius_m: NaN"]),
        ({"polygon": Jsonb([[0, 0], [0, 1], [1, 1]])}, ["polygon: is not for a circle"]),
    ],
)
def test_a_circle_that_cannot_be_is_refused(
    fleet: Fleet, columns: dict[str, Any], words: list[str]
) -> None:
    whole = {"name": "x", "latitude": 0, "longitude": 0, "radius_m": 100, **columns}
    with fleet.refused("PT422", "location_invalid", *words):
        fleet.insert("locations", owner_id=fleet.owner_id, **whole)


@pytest.mark.parametrize(
    ("polygon", "words"),
    [
        (None, ["polygon: must be a list of corners"]),
        ({"a": 1}, ["polygon: must be a list of corners"]),
        ([[0, 0], [0, 1]], ["polygon: has 2 corners"]),
        ([[0, 0], [0, 1], 5], ["polygon[2]: is not a pair of numbers"]),
        ([[0, 0], [0, 1], [1, "1"]], ["polygon[2]: is not a pair of numbers"]),
        ([[0, 0], [0, 1, 2], [1, 1]], ["polygon[1]: is not a pair of numbers"]),
        ([[0, 0], [0, 200], [89, 1]], ["polygon[1]: longitude 200", "polygon[2]: latitude 89"]),
        ([[0, 0], [0, 0.1], [0, 0.2]], ["polygon: encloses no area"]),
        ([[0, 0], [0, 20], [20, 20]], ["polygon: reaches"]),
        ([[1e-300, 0], [0, 1e-300], [0, 0]], ["polygon: encloses no area"]),
    ],
)
def test_a_polygon_that_cannot_be_is_refused(fleet: Fleet, polygon: Any, words: list[str]) -> None:
    with fleet.refused("PT422", "location_invalid", *words):
        fleet.insert(
            "locations", owner_id=fleet.owner_id, name="x", kind="polygon", polygon=Jsonb(polygon)
        )


def test_a_ring_may_be_closed_by_its_first_corner(fleet: Fleet) -> None:
    ring = [[0, 0], [0, 0.01], [0.01, 0.01], [0, 0]]
    row = fleet.insert(
        "locations", owner_id=fleet.owner_id, name="x", kind="polygon", polygon=Jsonb(ring)
    )
    assert row["polygon"] == ring[:-1]
    assert (row["latitude"], row["longitude"]) == (0.005, 0.005)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"event": "arrive"}, ["event: "]),
        ({"event": "enter"}, ["location_id: is missing"]),
        ({"action_type": "explode"}, ["action_type: "]),
        ({"payload": {}}, ["payload.message: is missing"]),
        ({"selector": {"colour": "red"}}, ["selector.colour"]),
        ({"priority": 101}, ["priority: 101"]),
        ({"event": "leave", "payload": {"message": 5}}, ["location_id", "payload.message"]),
    ],
)
def test_a_policy_that_cannot_be_is_refused(
    area: Area, columns: dict[str, Any], words: list[str]
) -> None:
    with area.fleet.refused("PT422", "location_policy_invalid", *words):
        area.policy(**{"event": "outside_all", **columns})


def test_a_policy_about_all_locations_names_none(area: Area) -> None:
    with area.fleet.refused("PT422", "location_policy_invalid", "location_id: is not for"):
        area.policy("outside_all", area.school)


def test_what_another_owner_has_is_not_found(area: Area) -> None:
    other = Fleet(area.fleet.conn)
    group = other.insert("device_groups", owner_id=other.owner_id, name="x")["id"]
    with area.fleet.refused("PT404", "location_policy_invalid", f"group {group} was not found"):
        area.policy("outside_all", group_id=group)
    with area.fleet.refused("PT404", "location_policy_invalid", "was not found"):
        area.policy("enter", area.school, owner_id=other.owner_id)


def test_who_made_a_location_and_changed_it_is_logged(area: Area) -> None:
    policy = area.policy("enter", area.school)
    area.fleet.run("update locations set radius_m = 200 where id = %s", area.school)
    area.fleet.run("delete from location_policies where id = %s", policy)
    rows = area.fleet.rows(
        "select table_name, action, new from audit_log where owner_id = %s"
        " and (table_name, row_id) in (('locations', %s), ('location_policies', %s)) order by id",
        area.fleet.owner_id,
        str(area.school),
        str(policy),
    )
    assert [(row["table_name"], row["action"]) for row in rows] == [
        ("locations", "insert"),
        ("location_policies", "insert"),
        ("locations", "update"),
        ("location_policies", "delete"),
    ]
    assert rows[2]["new"]["radius_m"] == 200


def test_old_events_go_with_the_rest_of_the_history(area: Area) -> None:
    device = area.fleet.device()
    visit(area, device)
    area.act()
    prune = "select fleet.prune_batch('public.location_events', now() + %s::interval)"
    for age, is_left in (("29 days", True), ("31 days", False)):
        area.fleet.run(prune, age)
        assert bool(area.crossings(device)) is is_left
