"""Which profile should be where: drift is told, and only what is missing is done."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb


def assign(mdm: Any, profile: str = "7", **targets: Any) -> int:
    found: int = mdm.fleet.value(
        "select a.id from assign_profile(%s, %s, p_owner_id => %s) as a",
        profile,
        Jsonb(targets),
        mdm.fleet.owner_id,
    )
    return found


def drift(mdm: Any) -> list[tuple[Any, ...]]:
    rows = mdm.fleet.rows("select * from profile_drift(%s)", mdm.fleet.owner_id)
    return sorted((row["device_id"], row["action_type"], row["state"]) for row in rows)


def reconcile(mdm: Any) -> Any:
    return mdm.fleet.value("select reconcile_profiles(%s)", mdm.fleet.owner_id)


def pass_time(mdm: Any, now: datetime) -> None:
    """Let the tick reconcile, and the next one run what came of it."""
    for second in range(2):
        mdm.tick(now + timedelta(seconds=second))


def take_all(mdm: Any, now: datetime | None = None) -> list[tuple[int, str]]:
    jobs = mdm.claim(100, now and now + timedelta(seconds=2))
    for job in jobs:
        mdm.finish(job, "completed")
    return sorted((job["device_id"], job["command_type"]) for job in jobs)


def test_what_is_assigned_is_pushed_once_in_one_schedule(mdm: Any) -> None:
    devices = [mdm.device() for _ in range(3)]
    assign(mdm, device_ids=devices)

    assert mdm.fleet.value("select count(*) from schedules") == 1
    assert drift(mdm) == [(device, "push_profile", "under way") for device in devices]
    assert reconcile(mdm) == {"pushes": 0, "removals": 0}
    assert take_all(mdm) == [(device, "push_profile") for device in devices]
    assert drift(mdm) == []
    assert reconcile(mdm) == {"pushes": 0, "removals": 0}


def test_more_devices_than_one_list_takes_get_it_in_several_schedules(mdm: Any) -> None:
    fleet, many = mdm.fleet, 10_003
    devices = fleet.devices(many)
    fleet.run(
        "insert into device_links (device_id, integration_id, owner_id, external_id)"
        " select u.id, %s, %s, u.id::text from unnest(%s::bigint[]) as u(id)",
        mdm.id,
        fleet.owner_id,
        devices,
    )
    assign(mdm, selector={})
    sizes = fleet.rows("select cardinality(device_ids) as n from schedules order by 1")
    assert [row["n"] for row in sizes] == [3, 10_000]
    assert reconcile(mdm) == {"pushes": 0, "removals": 0}


def test_a_device_that_joins_later_gets_it_and_one_that_leaves_loses_it(mdm: Any) -> None:
    early, late = mdm.device(), mdm.device()
    group = mdm.fleet.insert("device_groups", owner_id=mdm.fleet.owner_id, name="g")["id"]
    member = "insert into device_group_members (group_id, device_id) values (%s, %s)"
    mdm.fleet.run(member, group, early)
    assign(mdm, group_ids=[group])
    take_all(mdm)

    mdm.fleet.run(member, group, late)
    mdm.fleet.run("delete from device_group_members where device_id = %s", early)
    pass_time(mdm, mdm.now(120))

    assert sorted(take_all(mdm, mdm.now(120))) == [
        (early, "remove_profile"),
        (late, "push_profile"),
    ]
    assert drift(mdm) == []


def test_what_a_person_installed_is_left_alone(mdm: Any) -> None:
    device = mdm.device()
    mdm.install(device)
    take_all(mdm)
    made = assign(mdm, "8", device_ids=[device])
    take_all(mdm)

    mdm.fleet.run("select unassign_profile(%s)", made)

    assert [job["payload"]["profile_id"] for job in mdm.claim()] == ["8"]


def test_a_profile_that_two_assignments_want_stays_when_one_goes(mdm: Any) -> None:
    device = mdm.device()
    first = assign(mdm, device_ids=[device])
    assign(mdm, selector={})
    take_all(mdm)

    mdm.fleet.run("select unassign_profile(%s)", first)

    assert drift(mdm) == []


def test_what_failed_is_tried_again_after_an_hour(mdm: Any) -> None:
    device = mdm.device()
    assign(mdm, device_ids=[device])
    (job,) = mdm.claim()
    mdm.finish(job, "failed", reason="invalid_payload", error="object not found")

    assert drift(mdm) == [(device, "push_profile", "failed lately")]
    pass_time(mdm, mdm.now(120))
    assert mdm.claim(now=mdm.now(120)) == []
    pass_time(mdm, mdm.now(3700))
    assert len(mdm.claim(now=mdm.now(3702))) == 1


def test_a_device_that_was_off_for_a_month_converges(mdm: Any) -> None:
    device = mdm.device()
    assign(mdm, device_ids=[device])
    (job,) = mdm.claim()
    mdm.finish(job, "accepted")
    month = mdm.now() + timedelta(days=30)

    mdm.tick(month)
    assert drift(mdm) == [(device, "push_profile", "failed lately")]
    pass_time(mdm, month + timedelta(hours=2))

    (again,) = mdm.claim(now=month + timedelta(hours=2, seconds=2))
    mdm.finish(again, "completed")
    assert drift(mdm) == []


def test_what_the_inventory_misses_is_drift(mdm: Any) -> None:
    device = mdm.device()
    assign(mdm, device_ids=[device])
    take_all(mdm)
    found = {"external_id": str(100_000 + device), "name": "x", "profiles": ["99"]}

    mdm.fleet.run("select fleet.worker_sync_inventory(%s, %s)", mdm.id, Jsonb([found]))

    assert drift(mdm) == [(device, "push_profile", "missing")]
    assert reconcile(mdm) == {"pushes": 1, "removals": 0}


def test_a_device_in_no_mdm_is_told_and_left(mdm: Any) -> None:
    device = mdm.fleet.device()
    assign(mdm, device_ids=[device])

    assert drift(mdm) == [(device, "push_profile", "in no MDM")]
    assert mdm.fleet.value("select count(*) from device_commands") == 0


def test_wrong_targets_are_named(mdm: Any) -> None:
    call = "select assign_profile('7', %s::jsonb, p_owner_id => %s)"
    owner = mdm.fleet.owner_id
    for targets in ({"device_ids": "all"}, {"group_ids": [1.5]}, []):
        with mdm.fleet.refused("PT422", "targets_invalid"):
            mdm.fleet.run(call, json.dumps(targets), owner)
    with mdm.fleet.refused("PT404", "assignment_invalid", "device 999999"):
        mdm.fleet.run(call, json.dumps({"device_ids": [999_999]}), owner)
    with mdm.fleet.refused("PT422", "assignment_invalid", "names nobody"):
        mdm.fleet.run(call, "{}", owner)
    with mdm.fleet.refused("PT404", "profile_assignment_not_found"):
        mdm.fleet.run("select unassign_profile(999999)")


def test_a_device_that_left_the_mdm_is_left_alone_and_gets_all_when_it_is_back(mdm: Any) -> None:
    device = mdm.device()
    assign(mdm, device_ids=[device])
    take_all(mdm)
    assert drift(mdm) == []

    # Whoever leaves an MDM loses what came from it.
    mdm.fleet.run("update device_links set left_at = now()")
    assert drift(mdm) == [(device, "push_profile", "in no MDM")]
    assert reconcile(mdm) == {"pushes": 0, "removals": 0}

    mdm.fleet.run("update device_links set left_at = null")
    assert reconcile(mdm) == {"pushes": 1, "removals": 0}
    assert take_all(mdm) == [(device, "push_profile")]
    assert drift(mdm) == []
