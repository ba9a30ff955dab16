"""Quotas: what one owner may have and do, who is refused beyond, and what is told of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet
from tests.helpers.members import invite, join, members, school

NOW = datetime(2031, 1, 1, tzinfo=UTC)


def allow(fleet: Fleet, **quotas: int | None) -> None:
    for name, value in quotas.items():
        fleet.run("select fleet.set_quota(%s, %s, %s)", fleet.owner_id, name, value)


def usage(fleet: Fleet, name: str) -> tuple[int, int]:
    row = fleet.row(
        "select used, allowed from owner_usage(%s) where name = %s", fleet.owner_id, name
    )
    return row["used"], row["allowed"]


# How a person makes one more of each.
MAKE: dict[str, str] = {
    "devices": "insert into devices (owner_id, hostname) values ('{o}', 'd-{n}')",
    "groups": "insert into device_groups (owner_id, name) values ('{o}', 'g-{n}')",
    "schedules": "insert into schedules (owner_id, name, action_type, selector, recurrence_type,"
    " recurrence_config) values ('{o}', 's-{n}', 'lock', '{{}}', 'interval', '{{\"hours\": 7}}')",
    "locations": "insert into locations (owner_id, name, latitude, longitude, radius_m)"
    " values ('{o}', 'l-{n}', 1, 1, 50)",
    "integrations": 'select create_integration(\'{{"owner_id": "{o}", "name": "i-{n}",'
    ' "integration_type": "nanomdm", "settings": {{"base_url": "https://mdm.example.com"}}}}\')',
    "endpoints": 'select create_webhook_endpoint(\'{{"owner_id": "{o}",'
    ' "url": "https://hooks.example.com/{n}"}}\')',
    "feeds": "select create_calendar_feed(p_owner_id => '{o}')",
}


@pytest.mark.parametrize("name", MAKE)
def test_one_more_than_the_quota_is_refused_and_told(fleet: Fleet, name: str) -> None:
    allow(fleet, **{name: 2})
    for n in range(2):
        with fleet.acting(fleet.owner_id):
            fleet.run(MAKE[name].format(o=fleet.owner_id, n=n))
    with (
        fleet.refused("PT429", "quota_exceeded", "2 of 2") as refusal,
        fleet.acting(fleet.owner_id),
    ):
        fleet.run(MAKE[name].format(o=fleet.owner_id, n=2))
    assert name in refusal.hint
    assert usage(fleet, name) == (2, 2)
    # Another owner has a quota of its own, and this one may be allowed more.
    allow(fleet, **{name: None})
    with fleet.acting(fleet.owner_id):
        fleet.run(MAKE[name].format(o=fleet.owner_id, n=3))
    assert usage(fleet, name)[0] == 3


def test_who_joins_is_counted(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    fleet.run("select fleet.set_quota(%s, 'members', 3)", owner)
    join(fleet, owner, admin)
    leaver = join(fleet, owner, admin)
    code = invite(fleet, owner, admin)["code"]
    accept = "select accept_invitation(%s)"
    with fleet.refused("PT429", "quota_exceeded", "3 of 3"), fleet.acting(uuid4()):
        fleet.value(accept, code)
    with fleet.acting(leaver):
        fleet.run("select leave_owner(%s)", owner)
    with fleet.acting(uuid4()):
        fleet.value(accept, code)
    assert len(members(fleet, owner)) == 3


def test_what_comes_back_counts_again(fleet: Fleet) -> None:
    allow(fleet, devices=1, schedules=1)
    old = fleet.device("old")
    with fleet.acting(fleet.owner_id):
        fleet.run("select retire_device(%s)", old)
        fleet.run(MAKE["devices"].format(o=fleet.owner_id, n=1))
        code = fleet.value("select rekey_device(%s)", old)["code"]
    enrol = "select fleet.worker_enroll_device(%s, 'old', '{}')"
    with fleet.refused("PT429", "quota_exceeded", "1 of 1"):
        fleet.run(enrol, code)
    allow(fleet, devices=2)
    fleet.run(enrol, code)

    with fleet.acting(fleet.owner_id):
        done = fleet.create(device_ids=[old])["id"]
        assert fleet.schedule(done)["status"] == "completed"
        fleet.run(MAKE["schedules"].format(o=fleet.owner_id, n=1))
    back = Jsonb({"recurrence_type": "daily", "recurrence_config": {"time": "05:10"}})
    with fleet.refused("PT429", "quota_exceeded", "1 of 1"), fleet.acting(fleet.owner_id):
        fleet.run("select update_schedule(%s, %s)", done, back)
    allow(fleet, schedules=2)
    with fleet.acting(fleet.owner_id):
        fleet.run("select update_schedule(%s, %s)", done, back)
        assert fleet.schedule(done)["status"] == "active"


def test_every_table_with_a_quota_is_held_to_it(fleet: Fleet) -> None:
    free = fleet.rows(
        "select q.name from fleet.quotas() as q where q.over is not null and not exists ("
        " select from pg_trigger as t where t.tgrelid = q.over::regclass and t.tgenabled = 'O'"
        " and t.tgname like '%%_keep_quota' and encode(t.tgargs, 'escape') = q.name || '\\000')"
    )
    # Of commands those are counted that are sent, and runs wait for them.
    assert [row["name"] for row in free] == ["commands_waiting"]


def test_what_every_owner_may_have_is_a_setting(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('quota_groups', '1')")
    other = Fleet(fleet.conn)
    for one in (fleet, other):
        with one.acting(one.owner_id):
            one.run(MAKE["groups"].format(o=one.owner_id, n=0))
        with one.refused("PT429", "quota_exceeded"), one.acting(one.owner_id):
            one.run(MAKE["groups"].format(o=one.owner_id, n=1))


def test_devices_that_enrol_are_counted(fleet: Fleet) -> None:
    allow(fleet, devices=1)
    with fleet.acting(fleet.owner_id):
        code = fleet.value("select create_enrollment_code(p_max_uses => 9)")["code"]
    fleet.run("select fleet.worker_enroll_device(%s, 'one', '{}')", code)
    with fleet.refused("PT429", "quota_exceeded"):
        fleet.run("select fleet.worker_enroll_device(%s, 'two', '{}')", code)


def test_commands_are_counted_by_the_minute_and_by_what_waits(fleet: Fleet) -> None:
    device = fleet.device()
    send = "select send_command(%s, 'broadcast_message', %s)"
    allow(fleet, commands_waiting=3)
    with fleet.acting(fleet.owner_id):
        for _ in range(3):
            fleet.run(send, device, Jsonb(HELLO))
    with fleet.refused("PT429", "quota_exceeded", "that wait"), fleet.acting(fleet.owner_id):
        fleet.run(send, device, Jsonb(HELLO))
    allow(fleet, commands_waiting=100, commands_a_minute=4)
    with fleet.acting(fleet.owner_id):
        fleet.run(send, device, Jsonb(HELLO))
    with fleet.refused("PT429", "quota_exceeded", "a minute"), fleet.acting(fleet.owner_id):
        for _ in range(5):
            fleet.run(send, device, Jsonb(HELLO))


def test_runs_wait_for_the_quota_and_those_of_others_do_not(fleet: Fleet) -> None:
    other = Fleet(fleet.conn)
    allow(fleet, commands_a_minute=10)
    many = fleet.create(device_ids=fleet.devices(10), **later())["id"]
    again = fleet.create(device_ids=fleet.devices(10), **later())["id"]
    one = other.create(device_ids=other.devices(1), **later())["id"]
    fleet.tick(NOW)
    # What was begun is not cut in the middle; what comes after it waits.
    assert len(fleet.commands(many)) + len(fleet.commands(again)) in (10, 20)
    more = fleet.create(device_ids=fleet.devices(10), **later())["id"]
    fleet.tick(NOW)
    assert len(other.commands(one)) == 1
    assert fleet.commands(more) == []
    fleet.run("update fleet.quota_use set filled_at = filled_at - interval '3 minutes'")
    fleet.tick(NOW)
    assert len(fleet.commands(more)) == 10


def later(**spec: Any) -> dict[str, Any]:
    return {
        "recurrence_type": "interval",
        "recurrence_config": {"hours": 24},
        "start_time": (NOW - timedelta(seconds=1)).isoformat(),
        **spec,
    }


def test_members_see_what_is_used_and_strangers_do_not(fleet: Fleet) -> None:
    with fleet.acting(fleet.owner_id):
        names = {
            row["name"] for row in fleet.rows("select name from owner_usage(%s)", fleet.owner_id)
        }
    assert names == {row["name"] for row in fleet.rows("select name from fleet.quotas()")}
    stranger = Fleet(fleet.conn)
    with fleet.refused("PT404", "owner_not_found"), fleet.acting(stranger.owner_id):
        fleet.run("select owner_usage(%s)", fleet.owner_id)


def test_runs_wait_where_too_many_commands_wait(fleet: Fleet) -> None:
    allow(fleet, commands_waiting=15)
    many = fleet.create(device_ids=fleet.devices(20), **later())["id"]
    fleet.tick(NOW)
    assert len(fleet.commands(many)) == 20
    more = fleet.create(device_ids=fleet.devices(10), **later())["id"]
    fleet.tick(NOW)
    assert fleet.commands(more) == []
    # As devices that took them.
    fleet.run("update device_commands set status = 'cancelled' where schedule_id = %s", many)
    fleet.run("update fleet.quota_use set blocked_until = null")
    fleet.tick(NOW)
    assert len(fleet.commands(more)) == 10
