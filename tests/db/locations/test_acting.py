"""Policies act on many events together, and each device gets what it would have got alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Town

SCHOOL, LIBRARY, AWAY = (0, 0), (600, 0), (-500, 0)
Connect = Callable[..., Fleet]


def act(fleet: Fleet, limit: int | None = None) -> int:
    """Let policies act on one batch."""
    count: int = fleet.value("select fleet.act_on_places(clock_timestamp(), %s)", limit)
    return count


def steps(town: Town, device: int) -> list[tuple[str, Any]]:
    """Give what a device got, in order."""
    return [
        (row["command_type"], row["payload"].get("profile_id")) for row in town.commands(device)
    ]


def messages(town: Town, device: int) -> list[str]:
    """Give the texts that a device got, in order."""
    return [row["payload"]["message"] for row in town.commands(device)]


def test_devices_that_do_the_same_share_one_schedule(town: Town) -> None:
    devices = town.fleet.devices(5)
    policy = town.policy("enter", town.school, name="Welcome", priority=7)
    for device in devices:
        town.report(device, 0, SCHOOL)
        town.report(device, 60, SCHOOL)
    town.act()

    (schedule,) = town.schedules()
    assert schedule["name"] == "Welcome: 5 devices entered School"
    assert f"Location policy {policy}, 5 events, at " in schedule["description"]
    assert (schedule["device_ids"], schedule["device_id"]) == (devices, None)
    assert (schedule["recurrence_type"], schedule["priority"]) == ("once", 7)
    commands = town.fleet.commands(schedule["id"])
    assert sorted(command["device_id"] for command in commands) == devices
    actions = town.fleet.rows("select * from location_actions order by event_id")
    assert [(a["policy_id"], a["schedule_id"], a["error_message"]) for a in actions] == [
        (policy, schedule["id"], None)
    ] * 5


def test_many_devices_outside_of_all_are_told_so_in_words(town: Town) -> None:
    devices = town.fleet.devices(2)
    town.policy("outside_all", name="Default")
    town.policy("inside_any", name="No default")
    town.happened(devices, "outside_all")
    town.happened(devices, "inside_any", second=60)
    town.act()
    assert [schedule["name"] for schedule in town.schedules()] == [
        "Default: 2 devices are outside of all locations",
        "No default: 2 devices are inside a location again",
    ]


def test_devices_that_cross_in_opposite_orders_each_end_with_the_profile(town: Town) -> None:
    profile = {"profile_id": "12345"}
    for place in (town.school, town.library):
        town.policy("enter", place, action_type="push_profile", payload=profile)
        town.policy("leave", place, action_type="remove_profile", payload=profile)
    there, back = town.fleet.device("there"), town.fleet.device("back")
    for device, here in ((there, SCHOOL), (back, LIBRARY)):
        town.report(device, 0, here)
        town.report(device, 60, here)
    town.act()
    for device, here in ((there, LIBRARY), (back, SCHOOL)):
        town.report(device, 120, here)
        town.report(device, 180, here)
    town.act()

    push, remove = ("push_profile", "12345"), ("remove_profile", "12345")
    assert town.crossings(there)[1:] == [("left", "School"), ("entered", "Library")]
    assert town.crossings(back)[1:] == [("left", "Library"), ("entered", "School")]
    assert steps(town, there) == [push, remove, push]
    assert steps(town, back) == [push, remove, push]


def test_each_wave_holds_the_next_event_of_each_device(town: Town) -> None:
    restless, calm = town.fleet.device("restless"), town.fleet.device("calm")
    town.policy("enter", town.school, name="in", payload={"message": "in"})
    town.policy("leave", town.school, name="out", payload={"message": "out"})
    for second in range(0, 240, 120):
        town.happened([restless], "entered", town.school, second)
        town.happened([restless], "left", town.school, second + 60)
    town.happened([calm], "entered", town.school)
    town.act()
    assert [schedule["name"] for schedule in town.schedules()] == [
        "in: 2 devices entered School",
        "out: restless left School",
        "in: restless entered School",
        "out: restless left School",
    ]
    assert messages(town, restless) == ["in", "out", "in", "out"]
    assert messages(town, calm) == ["in"]


def test_the_most_urgent_policy_acts_first_on_an_event(town: Town) -> None:
    devices = town.fleet.devices(3)
    for name, priority in (("second", 0), ("third", 0), ("first", 5)):
        town.policy("enter", town.school, payload={"message": name}, priority=priority)
    town.happened(devices, "entered", town.school)
    town.act()
    assert len(town.schedules()) == 3
    for device in devices:
        assert messages(town, device) == ["first", "second", "third"]


def test_policies_for_events_that_never_were_can_be_previewed(town: Town) -> None:
    devices = town.fleet.devices(2)
    policies = [town.policy(event, town.school) for event in ("enter", "leave")]
    rows = town.fleet.rows(
        """
        select q.* from fleet.policies_for_events(array(
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
        town.fleet.owner_id,
        town.school,
        devices,
    )
    assert [(row["wave"], row["policy_id"]) for row in rows] == [
        (1, policies[0]),
        (1, policies[0]),
        (2, policies[1]),
        (2, policies[1]),
    ]
    assert town.schedules() == []


def test_a_group_that_fails_says_so_for_each_event_and_stops_no_other(town: Town) -> None:
    fleet = town.fleet
    fleet.run("insert into command_types (name) values ('old_type')")
    devices = fleet.devices(3)
    bad = town.policy("enter", town.school, action_type="old_type", payload={}, priority=9)
    good = town.policy("enter", town.school)
    fleet.run("delete from command_types where name = 'old_type'")
    town.happened(devices, "entered", town.school)
    town.act()
    rows = fleet.rows("select * from location_actions order by policy_id, event_id")
    assert [row["policy_id"] for row in rows] == [bad] * 3 + [good] * 3
    assert all("old_type" in row["error_message"] for row in rows[:3])
    assert [row["schedule_id"] is None for row in rows] == [True] * 3 + [False] * 3
    assert all(messages(town, device) == ["enter"] for device in devices)
    assert town.waiting() == 0


def test_a_device_that_is_retired_or_deleted_is_left_out_of_its_group(town: Town) -> None:
    kept, retired, deleted = town.fleet.devices(3)
    town.policy("enter", town.school)
    town.happened([kept, retired, deleted], "entered", town.school)
    town.fleet.run("update devices set status = 'retired' where id = %s", retired)
    town.fleet.run("delete from devices where id = %s", deleted)
    town.act()
    (schedule,) = town.schedules()
    assert schedule["device_ids"] == [kept]
    assert town.waiting() == 0


def test_a_device_that_is_just_being_deleted_holds_nobody_up(connect: Connect) -> None:
    town = Town(connect())
    kept, going = town.fleet.devices(2)
    town.policy("enter", town.school)
    town.happened([kept, going], "entered", town.school)
    other = connect(owner=town.fleet)
    town.fleet.run("set lock_timeout = '5s'")
    with other.conn.transaction():
        other.run("delete from devices where id = %s", going)
        assert act(town.fleet) == 1
    assert messages(town, kept) == ["enter"]
    assert town.waiting() == 0
    assert act(town.fleet) == 0


def test_a_device_that_is_deleted_while_policies_act_takes_its_commands_along(
    connect: Connect,
) -> None:
    town = Town(connect())
    kept, going = town.fleet.devices(2)
    town.policy("enter", town.school)
    town.happened([kept, going], "entered", town.school)
    other = connect(owner=town.fleet)
    with ThreadPoolExecutor(1) as pool:
        with town.fleet.conn.transaction():
            assert act(town.fleet) == 2
            gone = pool.submit(other.run, "delete from devices where id = %s", going)
            while not town.fleet.value(
                "select exists (select 1 from pg_locks where not granted and pid = %s)",
                other.conn.info.backend_pid,
            ):
                assert not gone.done()
        gone.result(10)
    assert messages(town, kept) == ["enter"]
    assert messages(town, going) == []


def test_a_policy_that_is_just_being_deleted_is_waited_for_by_its_events_alone(
    connect: Connect,
) -> None:
    town = Town(connect())
    pupil, guest = town.fleet.devices(2)
    town.policy("enter", town.school, payload={"message": "first"}, priority=1)
    doubtful = town.policy("enter", town.school, payload={"message": "second"})
    town.policy("leave", town.school, payload={"message": "last"})
    town.policy("enter", town.library, payload={"message": "library"})
    town.happened([pupil], "entered", town.school)
    town.happened([pupil], "left", town.school, 60)
    town.happened([guest], "entered", town.library)
    other = connect(owner=town.fleet)
    town.fleet.run("set lock_timeout = '5s'")
    with other.conn.transaction(force_rollback=True):
        other.run("delete from location_policies where id = %s", doubtful)
        assert act(town.fleet) == 1
        assert (messages(town, pupil), messages(town, guest)) == (["first"], ["library"])
    assert act(town.fleet) == 2
    assert messages(town, pupil) == ["first", "second", "last"]


def test_what_another_session_has_not_done_yet_comes_first(connect: Connect) -> None:
    town = Town(connect())
    held, free = town.fleet.devices(2)
    town.policy("enter", town.school)
    town.policy("leave", town.school)
    town.happened([held], "entered", town.school)
    other = connect(owner=town.fleet)
    with other.conn.transaction():
        assert act(other) == 1
        town.happened([free], "entered", town.school, 5)
        town.happened([held, free], "left", town.school, 60)
        assert act(town.fleet) == 2
        assert messages(town, free) == ["enter", "leave"]
    assert act(town.fleet) == 1
    assert messages(town, held) == ["enter", "leave"]


def test_sessions_that_act_at_once_share_the_work_and_keep_the_order(connect: Connect) -> None:
    town = Town(connect())
    devices = town.fleet.devices(60)
    town.policy("enter", town.school)
    town.policy("leave", town.school)
    for second in range(0, 240, 120):
        town.happened(devices, "entered", town.school, second)
        town.happened(devices, "left", town.school, second + 60)
    sessions = [connect(owner=town.fleet) for _ in range(4)]

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
        assert messages(town, device) == ["enter", "leave"] * 2
    assert town.fleet.value("select count(*) from location_actions") == 240


def test_the_thousands_of_one_owner_do_not_delay_the_one_of_another(town: Town) -> None:
    crowd = town.fleet.devices(3000)
    town.policy("enter", town.school)
    town.happened(crowd, "entered", town.school)
    others = [Town(Fleet(town.fleet.conn)) for _ in range(3)]
    for other in others:
        other.policy("enter", other.school)
        other.happened(other.fleet.devices(1), "entered", other.school)
    act(town.fleet, 100)
    assert [len(other.schedules()) for other in others] == [1, 1, 1]
    (first,) = town.schedules()
    assert len(first["device_ids"]) == 25
    # Alone again, it gets the whole of it.
    act(town.fleet, 100)
    assert len(town.schedules()[1]["device_ids"]) == 100


def test_a_restless_device_of_one_owner_does_not_delay_another_owner(town: Town) -> None:
    restless = town.fleet.device()
    town.policy("enter", town.school)
    town.policy("leave", town.school)
    for second in range(0, 12000, 120):
        town.happened([restless], "entered", town.school, second)
        town.happened([restless], "left", town.school, second + 60)
    other = Town(Fleet(town.fleet.conn))
    other.policy("enter", other.school)
    other.happened(other.fleet.devices(1), "entered", other.school)
    # A batch makes no more schedules than fit into a part of a second; the tick says so.
    assert town.fleet.tick()["more"]
    assert len(other.schedules()) == 1
    assert 0 < len(town.schedules()) < 30
    town.fleet.tick_until_idle()
    assert messages(town, restless) == ["enter", "leave"] * 100


def test_an_event_of_many_policies_is_done_whole_however_small_the_batch(town: Town) -> None:
    devices = town.fleet.devices(3)
    names = [f"{n:02}" for n in range(60)]
    for name in names:
        town.policy("enter", town.school, payload={"message": name})
    town.happened(devices, "entered", town.school)
    assert act(town.fleet, 1) == 1
    assert act(town.fleet, 10) == 1
    assert act(town.fleet, 500) == 1
    assert all(messages(town, device) == names for device in devices)


@pytest.mark.parametrize("published", [True, False])
def test_thousands_of_devices_get_one_command_each_from_a_few_schedules(
    town: Town, published: bool
) -> None:
    town.fleet.run("select fleet.set_setting('publish_device_commands', to_jsonb(%s))", published)
    devices = town.fleet.devices(4100)
    town.policy("enter", town.school)
    town.happened(devices, "entered", town.school)
    town.fleet.tick_until_idle()
    made = town.schedules()
    assert len(made) == (9 if published else 3)
    assert sorted(d for schedule in made for d in schedule["device_ids"]) == devices
    reached = town.fleet.rows(
        "select device_id from device_commands where device_id = any (%s) order by device_id",
        devices,
    )
    assert [row["device_id"] for row in reached] == devices


def test_a_large_group_has_all_its_commands_before_the_next_one_has_any(town: Town) -> None:
    devices = town.fleet.devices(700)
    town.policy("enter", town.school)
    town.policy("leave", town.school)
    town.happened(devices, "entered", town.school)
    town.happened(devices, "left", town.school, 60)
    act(town.fleet, 2000)
    first, second = town.schedules()
    entering = [command["id"] for command in town.fleet.commands(first["id"])]
    leaving = [command["id"] for command in town.fleet.commands(second["id"])]
    assert (len(entering), len(leaving)) == (700, 700)
    assert max(entering) < min(leaving)


def test_a_policy_never_acts_on_an_event_twice(town: Town) -> None:
    (device,) = town.fleet.devices(1)
    policy = town.policy("enter", town.school)
    town.happened([device], "entered", town.school)
    act(town.fleet)
    town.fleet.run("update location_events set acted_at = null where device_id = %s", device)
    act(town.fleet)
    assert messages(town, device) == ["enter"]
    assert town.waiting() == 0
    with pytest.raises(psycopg.errors.UniqueViolation), town.fleet.conn.transaction():
        town.fleet.run(
            "select fleet.act_for_policy(p, array(select e from location_events as e), now())"
            " from location_policies as p where p.id = %s",
            policy,
        )
    assert messages(town, device) == ["enter"]
