"""A PIN in a payload is for the device: nobody else reads it, however the payload travels."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.mdm import Mdm

SECRETS = {
    "pin": "480915",
    "unlock_pin": 7731,
    "adminPassword": "correct horse",
    "nested": [{"wifi": {"passphrase": "battery staple"}}],
    "api_key": "k-90210",
}
HIDDEN = ("480915", "7731", "correct horse", "battery staple", "k-90210")
TABLES = ("schedules", "schedule_runs", "device_commands", "audit_log", "schedule_list", "run_list")


def shown(fleet: Fleet) -> str:
    return "".join(
        str(fleet.value(f"select coalesce(jsonb_agg(to_jsonb(x)), '[]') from {table} as x"))
        for table in TABLES
    )


@pytest.fixture
def noisy(fleet: Fleet) -> Fleet:
    fleet.run("insert into command_types (name) values ('unlock_door')")
    return fleet


def test_a_member_reads_no_secret_and_the_device_gets_them(noisy: Fleet) -> None:
    fleet = noisy
    device = fleet.device()
    payload: dict[str, Any] = {**SECRETS, "message": "spinning", "max": 3}
    made = fleet.create(action_type="unlock_door", payload=payload, device_ids=[device])
    fleet.send(device, "unlock_door", p_payload=payload)
    viewer = uuid4()
    fleet.run("insert into owner_members values (%s, %s, '{view}')", fleet.owner_id, viewer)
    with fleet.acting(viewer):
        seen = shown(fleet)
    assert [secret for secret in HIDDEN if secret in seen] == []
    assert "spinning" in seen
    claimed = fleet.claim(device)
    assert [one["payload"] for one in claimed] == [payload, payload]
    # The same payload again, as an edit of something else sends it, keeps what it means.
    fleet.run("update schedules set priority = 1 where id = %s", made["id"])
    stored = fleet.schedule(made["id"])["payload"]
    fleet.run("update schedules set payload = %s where id = %s", Jsonb(stored), made["id"])
    for one in claimed:
        fleet.finish(device, one)
    fleet.run(
        "update schedules set recurrence_type = 'daily', recurrence_config = %s where id = %s",
        Jsonb({"time": "03:00"}),
        made["id"],
    )
    fleet.run("select run_schedule(%s)", made["id"])
    assert fleet.claim(device)[0]["payload"] == payload


def test_a_seal_is_no_way_to_what_it_hides(noisy: Fleet) -> None:
    fleet = noisy
    device = fleet.device()
    sent = fleet.send(device, "unlock_door", p_payload={"pin": "480915"})["payload"]["pin"]
    operator, manager = uuid4(), uuid4()
    fleet.run("insert into owner_members values (%s, %s, '{operate}')", fleet.owner_id, operator)
    with fleet.refused("PT403", "permission_missing"), fleet.acting(operator):
        fleet.send(device, "unlock_door", p_payload={"pin": sent})
    fleet.run(
        "insert into owner_members values (%s, %s, '{manage,operate}')", fleet.owner_id, manager
    )
    with fleet.acting(manager):
        fleet.send(device, "broadcast_message", p_payload={"message": sent})
    # Another owner has no use for it.
    other = Fleet(fleet.conn)
    foreign = other.device()
    other.send(foreign, "unlock_door", p_payload={"pin": sent})
    payloads = [one["payload"] for one in fleet.claim(device)]
    assert {"message": sent} in payloads
    assert [one["payload"] for one in other.claim(foreign)] == [{"pin": sent}]


def test_an_mdm_gets_the_pin(mdm: Mdm) -> None:
    device = mdm.device()
    command = mdm.fleet.send(device, "mdm_lock", p_payload={"pin": "480915"})
    assert command["payload"]["pin"].startswith("sealed:")
    (job,) = mdm.claim()
    assert job["payload"] == {"pin": "480915"}
