"""Doorbells: rung at once for a few, at a pace for many, and needed by nobody."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.conftest import Database
from tests.helpers.fleet import Fleet, Row

NOW = datetime(2031, 1, 1, tzinfo=UTC)
BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
PRIORITIES = (-5, 0, 7, 100)


def rings(fleet: Fleet) -> list[Row]:
    """Read what went to Realtime, in order."""
    return fleet.rows("select * from realtime.messages order by inserted_at, id")


def rung(fleet: Fleet) -> list[str]:
    return [row["topic"].removeprefix("device:") for row in rings(fleet)]


def setting(fleet: Fleet, name: str, value: int) -> None:
    fleet.run("select fleet.set_setting(%s, to_jsonb(%s))", name, value)


def due(fleet: Fleet, priority: int, devices: list[int]) -> int:
    made = fleet.create(device_ids=devices, start_time=BASE.isoformat(), priority=priority)
    schedule_id: int = made["id"]
    return schedule_id


def test_a_command_rings_in_its_own_transaction(fleet: Fleet) -> None:
    device = fleet.device()
    sent = fleet.send(device, "lock")
    (ring,) = rings(fleet)
    assert ring["topic"] == f"device:{fleet.auth_id(device)}"
    assert (ring["event"], ring["private"], ring["extension"]) == ("command", True, "broadcast")
    content = {key: ring["payload"][key] for key in ("command_id", "command_type")}
    assert content == {"command_id": sent["id"], "command_type": "lock"}
    fleet.tick()
    assert len(rings(fleet)) == 1


def test_a_due_schedule_rings_in_the_transaction_of_its_insert(fleet: Fleet) -> None:
    devices = fleet.devices(3)
    fleet.create(device_ids=devices)
    assert sorted(rung(fleet)) == sorted(str(fleet.auth_id(device)) for device in devices)


def test_many_are_rung_at_a_pace(fleet: Fleet) -> None:
    setting(fleet, "doorbell_inline_limit", 5)
    setting(fleet, "doorbell_rate", 10)
    devices = fleet.devices(25)
    fleet.create(selector={})
    assert rung(fleet) == []
    counts = []
    now = datetime.now(UTC)
    for second in range(4):
        fleet.tick(now + timedelta(seconds=second))
        counts.append(len(rings(fleet)))
    assert counts == [10, 20, 25, 25]
    assert len(set(rung(fleet))) == len(devices)


def test_many_small_runs_are_paced_as_well(fleet: Fleet) -> None:
    setting(fleet, "doorbell_rate", 10)
    for device in fleet.devices(15):
        fleet.create(device_ids=[device], start_time=NOW.isoformat())
    fleet.tick(NOW)
    assert len(rung(fleet)) == 10
    fleet.tick(NOW + timedelta(milliseconds=200))
    assert len(rung(fleet)) == 12
    fleet.tick(NOW + timedelta(seconds=5))
    assert len(rung(fleet)) == 15


def test_the_pace_may_be_less_than_one_a_second(fleet: Fleet) -> None:
    setting(fleet, "doorbell_inline_limit", 0)
    fleet.run("select fleet.set_setting('doorbell_rate', '0.5')")
    fleet.create(device_ids=fleet.devices(2))
    now = datetime.now(UTC)
    counts = []
    for second in range(6):
        fleet.tick(now + timedelta(seconds=second))
        counts.append(len(rung(fleet)))
    assert counts == [1, 1, 2, 2, 2, 2]


def test_a_clock_that_was_set_back_stops_no_doorbell(fleet: Fleet) -> None:
    setting(fleet, "doorbell_inline_limit", 0)
    first, second = fleet.devices(2)
    fleet.send(first)
    fleet.tick(NOW)
    fleet.send(second)
    fleet.tick(datetime.now(UTC))
    assert len(rung(fleet)) == 2


def test_a_device_is_rung_once_however_many_commands_wait(fleet: Fleet) -> None:
    setting(fleet, "doorbell_inline_limit", 0)
    device = fleet.device()
    for priority in (0, 7, 3):
        fleet.send(device, p_priority=priority)
    fleet.tick()
    (ring,) = rings(fleet)
    urgent = fleet.value("select id from device_commands where priority = 7")
    assert ring["payload"]["command_id"] == urgent
    fleet.tick(datetime.now(UTC) + timedelta(seconds=5))
    assert len(rings(fleet)) == 1


def test_the_most_urgent_are_rung_first(fleet: Fleet) -> None:
    setting(fleet, "doorbell_inline_limit", 0)
    setting(fleet, "doorbell_rate", 1)
    low, high, middle = fleet.devices(3)
    for device, priority in ((low, -1), (high, 50), (middle, 2)):
        fleet.send(device, p_priority=priority)
    now = datetime.now(UTC)
    for second, device in enumerate((high, middle, low)):
        before = set(rung(fleet))
        fleet.tick(now + timedelta(seconds=second))
        assert set(rung(fleet)) - before == {str(fleet.auth_id(device))}


def test_what_is_due_later_rings_later(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.send(device, p_not_before=NOW)
    fleet.tick()
    assert rings(fleet) == []
    fleet.tick(NOW)
    assert len(rings(fleet)) == 1


def test_a_retry_rings_when_its_time_has_come(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.send(device)
    now = datetime.now(UTC)
    (claimed,) = fleet.claim(device)
    fleet.finish(device, claimed, "failed", now=now)
    fleet.tick(now + timedelta(seconds=20))
    assert len(rings(fleet)) == 1
    fleet.tick(now + timedelta(seconds=40))
    assert len(rings(fleet)) == 2


def test_a_lapsed_lease_rings_again(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.send(device)
    fleet.claim(device)
    fleet.tick(datetime.now(UTC) + timedelta(minutes=2))
    assert len(rings(fleet)) == 2


def test_a_large_fan_out_is_one_row_and_each_of_its_devices_is_rung_once(fleet: Fleet) -> None:
    setting(fleet, "doorbell_rate", 100)
    devices = fleet.devices(250)
    fleet.create(selector={})
    assert fleet.value("select count(*) from fleet.doorbells") == 0
    assert fleet.value("select count(*) from fleet.doorbell_stretches") == 1
    assert fleet.value("select fleet.doorbells_waiting(clock_timestamp())") == 250
    now = datetime.now(UTC)
    fleet.tick(now)
    assert len(rung(fleet)) == 100
    # Whoever comes by itself is not rung.
    assert len(fleet.claim(devices[-1])) == 1
    for second in range(1, 4):
        fleet.tick(now + timedelta(seconds=second))
    assert sorted(rung(fleet).count(str(fleet.auth_id(d))) for d in devices) == [0] + [1] * 249
    assert fleet.value("select count(*) from fleet.doorbell_stretches") == 0


def send_some_later(fleet: Fleet, now: list[int], later: list[int]) -> None:
    fleet.run(
        "insert into device_commands (device_id, command_type, not_before)"
        " select d, 'lock', %s from unnest(%s::bigint[]) as d"
        " union all select d, 'lock', %s from unnest(%s::bigint[]) as d",
        datetime.now(UTC) - timedelta(seconds=1),
        now,
        datetime.now(UTC) + timedelta(minutes=1),
        later,
    )


def test_many_that_are_for_later_are_one_row_whoever_sends_them(fleet: Fleet) -> None:
    setting(fleet, "doorbell_rate", 1000)
    devices = fleet.devices(250)
    send_some_later(fleet, [], devices)
    assert fleet.value("select count(*) from fleet.doorbells") == 0
    assert fleet.value("select count(*) from fleet.doorbell_stretches") == 1
    fleet.tick(datetime.now(UTC))
    assert rung(fleet) == []
    fleet.tick(datetime.now(UTC) + timedelta(seconds=61))
    assert sorted(rung(fleet)) == sorted(str(fleet.auth_id(d)) for d in devices)
    fleet.tick(datetime.now(UTC) + timedelta(seconds=62))
    assert len(rung(fleet)) == 250


@pytest.mark.parametrize("share", [50, 150], ids=["few-now", "many-now"])
def test_what_is_for_now_and_what_is_for_later_ring_once_each(fleet: Fleet, share: int) -> None:
    setting(fleet, "doorbell_rate", 1000)
    devices = fleet.devices(400)
    send_some_later(fleet, devices[:share], devices[share:])
    fleet.tick(datetime.now(UTC))
    assert sorted(rung(fleet)) == sorted(str(fleet.auth_id(d)) for d in devices[:share])
    fleet.tick(datetime.now(UTC) + timedelta(seconds=61))
    assert sorted(rung(fleet)) == sorted(str(fleet.auth_id(d)) for d in devices)


def test_owners_take_turns_with_their_fan_outs_too(fleet: Fleet) -> None:
    setting(fleet, "doorbell_rate", 100)
    fleet.devices(400)
    fleet.create(selector={})
    other = fleet.insert("owners", name="other")["id"]
    fleet.run(
        "insert into devices (owner_id, hostname) select %s, 'o-' || i"
        " from generate_series(1, 200) as i",
        other,
    )
    fleet.create(owner_id=str(other), selector={})
    fleet.tick(datetime.now(UTC))
    theirs = fleet.value(
        "select count(*) from realtime.messages as m"
        " join devices as d on m.topic = 'device:' || d.auth_id where d.owner_id = %s",
        other,
    )
    assert (theirs, len(rung(fleet))) == (50, 100)


def test_without_realtime_everything_works_but_the_ring(
    own_database: Database, connect: Callable[..., Fleet]
) -> None:
    with own_database.connect("supabase_admin", autocommit=True) as admin:
        for trigger in admin.execute(
            "select evtname from pg_event_trigger where evtname like 'pgfleet%'"
        ).fetchall():
            admin.execute(f"drop event trigger {trigger[0]}")
        admin.execute("drop schema realtime cascade")
    fleet = connect()
    setting(fleet, "doorbell_inline_limit", 1)
    devices = fleet.devices(3)
    fleet.send(devices[0])
    made = fleet.create(device_ids=devices)
    answer: dict[str, Any] = fleet.tick()
    assert answer["errors"] == []
    assert len(fleet.commands(made["id"])) == 3
    with fleet.conn.transaction():
        assert len(fleet.claim(devices[0])) == 2


def test_the_most_urgent_device_is_rung_first(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('doorbell_inline_limit', '0')")
    fleet.run("select fleet.set_setting('doorbell_rate', '1')")
    fleet.run("delete from fleet.doorbells")
    devices = {priority: fleet.device() for priority in PRIORITIES}
    for priority, device in devices.items():
        due(fleet, priority, [device])
    fleet.run("select fleet.start_due_runs(%s)", BASE)
    fleet.run("select fleet.expand_next(%s)", BASE)

    order: list[int] = []
    waiting = set(devices.values())
    for _ in devices:
        fleet.run("update fleet.heartbeat set last_rang_at = null")
        assert fleet.value("select fleet.ring_doorbells(%s)", BASE) == 1
        left = {row["device_id"] for row in fleet.rows("select device_id from fleet.doorbells")}
        order += waiting - left
        waiting = left
    assert order == [devices[priority] for priority in sorted(PRIORITIES, reverse=True)]
