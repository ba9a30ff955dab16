"""What one permission is not a way to another, and what one code or key is not good for twice."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from tests.helpers.fleet import Fleet


def member(fleet: Fleet, *permissions: str) -> UUID:
    user = uuid4()
    fleet.run(
        "insert into owner_members values (%s, %s, %s)", fleet.owner_id, user, list(permissions)
    )
    return user


def daily(fleet: Fleet, **spec: Any) -> int:
    made: int = fleet.create(recurrence_type="daily", recurrence_config={"time": "03:00"}, **spec)[
        "id"
    ]
    return made


def test_no_chain_is_so_long_that_its_first_link_is_harmless(fleet: Fleet) -> None:
    fleet.run("insert into command_types (name, destructive) values ('shred', true)")
    device = fleet.device()
    first = daily(fleet, device_ids=[device])
    last = first
    for _ in range(4):
        last = fleet.create(device_ids=[device], after={"schedule_id": last})["id"]
    fleet.create(device_ids=[device], after={"schedule_id": last}, action_type="shred", payload={})
    operator = member(fleet, "operate", "manage")
    for statement in (
        "select run_schedule(%s)",
        "select update_schedule(%s, '{\"priority\": 3}')",
        "update schedules set device_ids = '{}', selector = '{}' where id = %s",
    ):
        with fleet.refused("PT403", "permission_missing"), fleet.acting(operator):
            fleet.run(statement, first)
    # Who may wipe may, and cancelling is for everybody who manages.
    with fleet.acting(member(fleet, "operate", "destructive")):
        fleet.run("select run_schedule(%s)", first)
    with fleet.acting(operator):
        fleet.run("select cancel_schedule(%s)", first)


def test_nothing_follows_a_schedule_that_was_cancelled(fleet: Fleet) -> None:
    device = fleet.device()
    first = daily(fleet, device_ids=[device])
    second = fleet.create(device_ids=[device], after={"schedule_id": first, "on": "either"})["id"]
    fleet.run("select run_schedule(%s)", first)
    fleet.run("select cancel_schedule(%s)", first)
    fleet.tick_until_idle()
    assert fleet.runs(first)[-1]["status"] == "failed"
    assert fleet.runs(second) == []


def test_a_person_who_cancels_is_on_record_and_writes_nothing_else(fleet: Fleet) -> None:
    device = fleet.device()
    command = fleet.send(device)["id"]
    person = member(fleet, "operate")
    for change in (
        "status = 'completed', result = '{\"ok\": true}'",
        "status = 'failed', error_message = 'it burnt'",
        "status = 'running'",
        "result = '{}'",
        "status = 'cancelled', result = '{\"ok\": true}'",
    ):
        with fleet.refused("PT403", "only_cancel"), fleet.acting(person):
            fleet.run(f"update device_commands set {change} where id = %s", command)
    with fleet.acting(person):
        fleet.run("update device_commands set status = 'cancelled' where id = %s", command)
    (note,) = fleet.rows("select * from audit_log where table_name = 'device_commands'")
    assert (note["actor"], note["row_id"]) == (person, str(command))
    assert note["new"]["status"] == "cancelled"


def test_a_device_still_answers_by_a_plain_update(fleet: Fleet) -> None:
    device = fleet.device()
    command = fleet.send(device)["id"]
    with fleet.as_device(device):
        fleet.run("update device_commands set status = 'running' where id = %s", command)
        fleet.run(
            "update device_commands set status = 'completed', result = '{\"n\": 1}',"
            " executed_at = now() where id = %s",
            command,
        )
    assert fleet.command(command)["result"] == {"n": 1}
    assert not fleet.rows("select from audit_log where table_name = 'device_commands'")


def test_a_revoked_code_stays_revoked(fleet: Fleet) -> None:
    with fleet.acting(fleet.owner_id):
        made = fleet.value("select create_enrollment_code(p_max_uses => 5)")
        fleet.run("select revoke_enrollment_code(%s)", made["id"])
    for later in (None, "2200-01-01"):
        with fleet.refused("PT409", "enrollment_code_revoked"), fleet.acting(fleet.owner_id):
            fleet.run(
                "update enrollment_codes set revoked_at = %s where id = %s", later, made["id"]
            )


def test_a_key_of_one_command_is_no_key_of_another(fleet: Fleet) -> None:
    device = fleet.device()
    first = fleet.send(device, p_idempotency_key="monday")
    assert fleet.send(device, p_idempotency_key="monday")["id"] == first["id"]
    with fleet.refused("PT409", "idempotency_conflict", "broadcast_message"):
        fleet.send(device, "lock", p_idempotency_key="monday")


def test_a_code_for_many_takes_over_only_what_somebody_prepared(fleet: Fleet) -> None:
    fleet.device("desk-9")
    fleet.device("brought-by-an-mdm", prepared=False)
    with fleet.acting(fleet.owner_id):
        code = fleet.value("select create_enrollment_code(p_max_uses => 9)")["code"]
    enrol = "select fleet.worker_enroll_device(%s, %s, '{}')"
    assert fleet.value(enrol, code, "desk-9")["hostname"] == "desk-9"
    for spelling in ("brought-by-an-mdm", "Brought-By-An-MDM", " brought-by-an-mdm "):
        with fleet.refused("PT409", "device_not_prepared"):
            fleet.run(enrol, code, spelling)
    device = fleet.value("select id from devices where hostname = 'brought-by-an-mdm'")
    with fleet.acting(fleet.owner_id):
        own = fleet.value("select rekey_device(%s)", device)["code"]
    assert fleet.value(enrol, own, "brought-by-an-mdm")["device_id"] == device


def test_a_code_with_the_tags_of_a_wipe_needs_the_permission(fleet: Fleet) -> None:
    fleet.run("insert into command_types (name, destructive) values ('shred', true)")
    daily(fleet, action_type="shred", payload={}, selector={"any_tags": ["old", "broken"]})
    # Everybody is admin of a personal owner; here she is not.
    fleet.run("delete from owner_members where owner_id = %s", fleet.owner_id)
    manager = member(fleet, "manage")
    device = fleet.device("one")
    with fleet.refused("PT403", "permission_missing"), fleet.acting(manager):
        fleet.run("select tag_device(%s, '{broken}')", device)
    with fleet.acting(manager):
        fleet.run("select tag_device(%s, '{new}')", device)
    assert fleet.value("select tags from devices where id = %s", device) == ["new"]
