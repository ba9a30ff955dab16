"""Policies act on many events together, and each device gets what it would have got alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Area

SCHOOL, LIBRARY, AWAY = (0, 0), (600, 0), (-500, 0)
Connect = Callable[..., Fleet]


def act(fleet: Fleet, limit: int | None = None) -> int:
    """Let policies act on one batch."""
    count: int = fleet.value("select fleet.act_on_location_events(clock_timestamp(), %s)", limit)
    return count


def steps(area: Area, device: int) -> list[tuple[str, Any]]:
    """Give what a device got, in order."""
    return [
        (row["command_type"], row["payload"].get("profile_id")) for row in area.commands(device)
    ]


def messages(area: Area, device: int) -> list[str]:
    """Give the texts that a device got, in order."""
    return [row["payload"]["message"] for row in area.commands(device)]


def test_devices_that_do_the_same_share_one_schedule(area: Area) -> None:
    devices = area.fleet.devices(5)
    policy = area.policy("enter", area.school, name="Welcome", priority=7)
    for device in devices:
        area.report(device, 0, SCHOOL)
        area.report(device, 60, SCHOOL)
    area.act()

    (schedule,) = area.schedules()
    assert schedule["name"] == "Welcome: 5 devices entered School"
    assert f"Location policy {policy}, 5 events, at " in schedule["description"]
    assert (schedule["device_ids"], schedule["device_id"]) == (devices, None)
    assert (schedule["recurrence_type"], schedule["priority"]) == ("once", 7)
    commands = area.fleet.commands(schedule["id"])
    assert sorted(command["device_id"] for command in commands) == devices
    actions = area.fleet.rows("select * from location_actions order by event_id")
    assert [(a["policy_id"], a["schedule_id"], a["error_message"]) for a in actions] == [
        (policy, schedule["id"], None)
    ] * 5


def test_many_devices_outside_of_all_are_told_so_in_words(area: Area) -> None:
    devices = area.fleet.devices(2)
    area.policy("outside_all", name="Default")
    area.policy("inside_any", name="No default")
    area.happened(devices, "outside_all")
    area.happened(devices, "inside_any", second=60)
    area.act()
    assert [schedule["name"] for schedule in area.schedules()] == [
        "Default: 2 devices are outside of all locations",
        "No default: 2 devices are inside a location again",
    ]


def test_devices_that_cross_in_opposite_orders_each_end_with_the_profile(
    area: Area,
) -> None:
    profile = {"profile_id": "12345"}
    for place in (area.school, area.library):
        area.policy("enter", place, action_type="push_profile", payload=profile)
        area.policy("leave", place, action_type="remove_profile", payload=profile)
    there, back = area.fleet.device("there"), area.fleet.device("back")
    for device, here in ((there, SCHOOL), (back, LIBRARY)):
        area.report(device, 0, here)
        area.report(device, 60, here)
    area.act()
    for device, here in ((there, LIBRARY), (back, SCHOOL)):
        area.report(device, 120, here)
        area.report(device, 180, here)
    area.act()

    push, remove = ("push_profile", "12345"), ("remove_profile", "12345")
    assert area.crossings(there)[1:] == [("left", "School"), ("entered", "Library")]
    assert area.crossings(back)[1:] == [("left", "Library"), ("entered", "School")]
    assert steps(area, there) == [push, remove, push]
    assert steps(area, back) == [push, remove, push]


def test_each_wave_holds_the_next_event_of_each_device(area: Area) -> None:
    restless, calm = area.fleet.device("restless"), area.fleet.device("calm")
    area.policy("enter", area.school, name="in", payload={"message": "in"})
    area.policy("leave", area.school, name="out", payload={"message": "out"})
    for second in range(0, 240, 120):
        area.happened([restless], "entered", area.school, second)
        area.happened([restless], "left", area.school, second + 60)
    area.happened([calm], "entered", area.school)
    area.act()
    assert [schedule["name"] for schedule in area.schedules()] == [
        "in: 2 devices entered School",
        "out: restless left School",
        "in: restless entered School",
        "out: restless left School",
    ]
    assert messages(area, restless) == ["in", "out", "in", "out"]
    assert messages(area, calm) == ["in"]


def test_the_most_urgent_policy_acts_first_on_an_event(area: Area) -> None:
    devices = area.fleet.devices(3)
    for name, priority in (("second", 0), ("third", 0), ("first", 5)):
        area.policy("enter", area.school, payload={"message": name}, priority=priority)
    area.happened(devices, "entered", area.school)
    area.act()
    assert len(area.schedules()) == 3
    for device in devices:
        assert messages(area, device) == ["first", "second", "third"]


def test_policies_for_events_that_never_were_can_be_previewed(area: Area) -> None:
    devices = area.fleet.devices(2)
    policies = [area.policy(event, area.school) for event in ("enter", "leave")]
    rows = area.fleet.rows(
        """
        select q.* from fleet.location_policies_for(array(
          select jsonb_populate_record(null::location_events, to_jsonb(e))
          from (
            select d.n + d.id * 2 as id, %s::uuid as owner_id, d.id as device_id, %s as location_id,
              d.event, now() as created_at
            from (
              select u.id, v.n, v.event
              from unnest(%s::bigint[]) as u(id),
                (values (0, 'entered'), (1, 'left')) as v(n, event)
            ) as d
          ) as e
        )) as q
        """,
        area.fleet.owner_id,
        area.school,
        devices,
    )
    assert [(row["wave"], row["policy_id"]) for row in rows] == [
        (1, policies[0]),
        (1, policies[0]),
        (2, policies[1]),
        (2, policies[1]),
    ]
    assert area.schedules() == []


def test_a_group_that_fails_says_so_for_each_event_and_stops_no_other(
    area: Area,
) -> None:
    fleet = area.fleet
    fleet.run("insert into command_types (name) values ('old_type')")
    devices = fleet.devices(3)
    bad = area.policy("enter", area.school, action_type="old_type", payload={}, priority=9)
    good = area.policy("enter", area.school)
    fleet.run("delete from command_types where name = 'old_type'")
    area.happened(devices, "entered", area.school)
    area.act()
    rows = fleet.rows("select * from location_actions order by policy_id, event_id")
    assert [row["policy_id"] for row in rows] == [bad] * 3 + [good] * 3
    assert all("old_type" in row["error_message"] for row in rows[:3])
    assert [row["schedule_id"] is None for row in rows] == [True] * 3 + [False] * 3
    assert all(messages(area, device) == ["enter"] for device in devices)
    assert area.waiting() == 0


def test_a_device_that_is_retired_or_deleted_is_left_out_of_its_group(
    area: Area,
) -> None:
    kept, retired, deleted = area.fleet.devices(3)
    area.policy("enter", area.school)
    area.happened([kept, retired, deleted], "entered", area.school)
    area.fleet.run("update devices set status = 'retired' where id = %s", retired)
    area.fleet.run("delete from devices where id = %s", deleted)
    area.act()
    (schedule,) = area.schedules()
    assert schedule["device_ids"] == [kept]
    assert area.waiting() == 0


def test_a_device_that_is_just_being_deleted_holds_nobody_up(connect: Connect) -> None:
    area = Area(connect())
    kept, going = area.fleet.devices(2)
    area.policy("enter", area.school)
    area.happened([kept, going], "entered", area.school)
    other = connect(owner=area.fleet)
    area.fleet.run("set lock_timeout = '5s'")
    with other.conn.transaction():
        other.run("delete from devices where id = %s", going)
        assert act(area.fleet) == 1
    assert messages(area, kept) == ["enter"]
    assert area.waiting() == 0
    assert act(area.fleet) == 0


def test_a_device_that_is_deleted_while_policies_act_takes_its_commands_along(
    connect: Connect,
) -> None:
    area = Area(connect())
    kept, going = area.fleet.devices(2)
    area.policy("enter", area.school)
    area.happened([kept, going], "entered", area.school)
    other = connect(owner=area.fleet)
    with ThreadPoolExecutor(1) as pool:
        with area.fleet.conn.transaction():
            assert act(area.fleet) == 2
            gone = pool.submit(other.run, "delete from devices where id = %s", going)
            while not area.fleet.value(
                "select exists (select 1 from pg_locks where not granted and pid = %s)",
                other.conn.info.backend_pid,
            ):
                assert not gone.done()
        gone.result(10)
    assert messages(area, kept) == ["enter"]
    assert messages(area, going) == []


def test_a_policy_that_is_just_being_deleted_is_waited_for_by_its_events_alone(
    connect: Connect,
) -> None:
    area = Area(connect())
    pupil, guest = area.fleet.devices(2)
    area.policy("enter", area.school, payload={"message": "first"}, priority=1)
    doubtful = area.policy("enter", area.school, payload={"message": "second"})
    area.policy("leave", area.school, payload={"message": "last"})
    area.policy("enter", area.library, payload={"message": "library"})
    area.happened([pupil], "entered", area.school)
    area.happened([pupil], "left", area.school, 60)
    area.happened([guest], "entered", area.library)
    other = connect(owner=area.fleet)
    area.fleet.run("set lock_timeout = '5s'")
    with other.conn.transaction(force_rollback=True):
        other.run("delete from location_policies where id = %s", doubtful)
        assert act(area.fleet) == 1
        assert (messages(area, pupil), messages(area, guest)) == (["first"], ["library"])
    assert act(area.fleet) == 2
    assert messages(area, pupil) == ["first", "second", "last"]


def test_what_another_session_has_not_done_yet_comes_first(connect: Connect) -> None:
    area = Area(connect())
    held, free = area.fleet.devices(2)
    area.policy("enter", area.school)
    area.policy("leave", area.school)
    area.happened([held], "entered", area.school)
    other = connect(owner=area.fleet)
    with other.conn.transaction():
        assert act(other) == 1
        area.happened([free], "entered", area.school, 5)
        area.happened([held, free], "left", area.school, 60)
        assert act(area.fleet) == 2
        assert messages(area, free) == ["enter", "leave"]
    assert act(area.fleet) == 1
    assert messages(area, held) == ["enter", "leave"]


def test_sessions_that_act_at_once_share_the_work_and_keep_the_order(connect: Connect) -> None:
    area = Area(connect())
    devices = area.fleet.devices(60)
    area.policy("enter", area.school)
    area.policy("leave", area.school)
    for second in range(0, 240, 120):
        area.happened(devices, "entered", area.school, second)
        area.happened(devices, "left", area.school, second + 60)
    sessions = [connect(owner=area.fleet) for _ in range(4)]

    def work(session: Fleet) -> None:
        while town_is_busy(session):
            act(session, 25)

    def town_is_busy(session: Fleet) -> bool:
        found: bool = session.value(
            "select exists (select 1 from location_events where acted_at is null)"
        )
        return found

    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(work, sessions))
    for device in devices:
        assert messages(area, device) == ["enter", "leave"] * 2
    assert area.fleet.value("select count(*) from location_actions") == 240


def test_the_thousands_of_one_owner_do_not_delay_the_one_of_another(area: Area) -> None:
    crowd = area.fleet.devices(3000)
    area.policy("enter", area.school)
    area.happened(crowd, "entered", area.school)
    others = [Area(Fleet(area.fleet.conn)) for _ in range(3)]
    for other in others:
        other.policy("enter", other.school)
        other.happened(other.fleet.devices(1), "entered", other.school)
    act(area.fleet, 100)
    assert [len(other.schedules()) for other in others] == [1, 1, 1]
    (first,) = area.schedules()
    assert len(first["device_ids"]) == 25
    # Alone again, it gets the whole of it.
    act(area.fleet, 100)
    assert len(area.schedules()[1]["device_ids"]) == 100


def test_a_restless_device_of_one_owner_does_not_delay_another_owner(area: Area) -> None:
    restless = area.fleet.device()
    area.policy("enter", area.school)
    area.policy("leave", area.school)
    for second in range(0, 12000, 120):
        area.happened([restless], "entered", area.school, second)
        area.happened([restless], "left", area.school, second + 60)
    other = Area(Fleet(area.fleet.conn))
    other.policy("enter", other.school)
    other.happened(other.fleet.devices(1), "entered", other.school)
    # A batch makes no more schedules than fit into a part of a second; the tick says so.
    assert area.fleet.tick()["more"]
    assert len(other.schedules()) == 1
    assert 0 < len(area.schedules()) < 30
    area.fleet.tick_until_idle()
    assert messages(area, restless) == ["enter", "leave"] * 100


def test_an_event_of_many_policies_is_done_whole_however_small_the_batch(
    area: Area,
) -> None:
    devices = area.fleet.devices(3)
    names = [f"{n:02}" for n in range(60)]
    for name in names:
        area.policy("enter", area.school, payload={"message": name})
    area.happened(devices, "entered", area.school)
    assert act(area.fleet, 1) == 1
    assert act(area.fleet, 10) == 1
    assert act(area.fleet, 500) == 1
    assert all(messages(area, device) == names for device in devices)


@pytest.mark.parametrize("published", [True, False])
def test_thousands_of_devices_get_one_command_each_from_a_few_schedules(
    area: Area, published: bool
) -> None:
    area.fleet.run("select fleet.set_setting('publish_device_commands', to_jsonb(%s))", published)
    devices = area.fleet.devices(4100)
    area.policy("enter", area.school)
    area.happened(devices, "entered", area.school)
    area.fleet.tick_until_idle()
    made = area.schedules()
    assert len(made) == (9 if published else 3)
    assert sorted(d for schedule in made for d in schedule["device_ids"]) == devices
    reached = area.fleet.rows(
        "select device_id from device_commands where device_id = any (%s) order by device_id",
        devices,
    )
    assert [row["device_id"] for row in reached] == devices


def test_a_large_group_has_all_its_commands_before_the_next_one_has_any(
    area: Area,
) -> None:
    devices = area.fleet.devices(700)
    area.policy("enter", area.school)
    area.policy("leave", area.school)
    area.happened(devices, "entered", area.school)
    area.happened(devices, "left", area.school, 60)
    act(area.fleet, 2000)
    first, second = area.schedules()
    entering = [command["id"] for command in area.fleet.commands(first["id"])]
    leaving = [command["id"] for command in area.fleet.commands(second["id"])]
    assert (len(entering), len(leaving)) == (700, 700)
    assert max(entering) < min(leaving)


def test_a_policy_never_acts_on_an_event_twice(area: Area) -> None:
    (device,) = area.fleet.devices(1)
    policy = area.policy("enter", area.school)
    area.happened([device], "entered", area.school)
    act(area.fleet)
    area.fleet.run("update location_events set acted_at = null where device_id = %s", device)
    act(area.fleet)
    assert messages(area, device) == ["enter"]
    assert area.waiting() == 0
    with pytest.raises(psycopg.errors.UniqueViolation), area.fleet.conn.transaction():
        area.fleet.run(
            "select fleet.act_for_location_policy("
            "  p, array(select e from location_events as e), now()"
            " ) from location_policies as p where p.id = %s",
            policy,
        )
    assert messages(area, device) == ["enter"]
