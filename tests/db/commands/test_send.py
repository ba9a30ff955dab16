"""Sending, inserting and cancelling single commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet


def test_a_command_expires_after_a_day_unless_it_says_otherwise(fleet: Fleet) -> None:
    device = fleet.device("pc-1")
    plain = fleet.send(device)
    assert plain["expires_at"] - plain["not_before"] == timedelta(days=1)
    assert (plain["status"], plain["device_hostname"], plain["max_attempts"]) == (
        "pending",
        "pc-1",
        3,
    )
    short = fleet.send(device, p_expires_after="5 minutes", p_max_attempts=1)
    assert short["expires_at"] - short["not_before"] == timedelta(minutes=5)
    assert short["max_attempts"] == 1


def test_the_same_key_gives_the_same_command(fleet: Fleet) -> None:
    device, other = fleet.devices(2)
    first = fleet.send(device, p_idempotency_key="k")
    again = fleet.send(device, p_idempotency_key="k", p_priority=3)
    assert again == first
    assert fleet.send(other, p_idempotency_key="k")["id"] != first["id"]
    assert fleet.send(device, p_idempotency_key="l")["id"] != first["id"]
    assert fleet.send(device)["id"] != fleet.send(device)["id"]


def test_strangers_and_viewers_send_nothing(fleet: Fleet) -> None:
    device = fleet.device()
    viewer = uuid4()
    fleet.insert("owner_members", owner_id=fleet.owner_id, user_id=viewer, permissions=["view"])
    with fleet.refused("PT404", "device_not_found"), fleet.acting(uuid4()):
        fleet.send(device)
    with fleet.refused("PT403", "permission_missing"), fleet.acting(viewer):
        fleet.send(device)
    with fleet.refused("PT404", "device_not_found"), fleet.as_device(device):
        fleet.send(device)


def test_an_insert_that_names_only_the_host_finds_its_device(fleet: Fleet) -> None:
    device = fleet.device("Lab-PC-7")
    # A namesake in another fleet is not meant, and not seen.
    Fleet(fleet.conn).device("lab-pc-7")
    with fleet.acting(fleet.owner_id):
        row = fleet.row(
            "insert into device_commands (device_hostname, command_type, payload)"
            " values ('lab-pc-7', 'broadcast_message', %s) returning *",
            Jsonb(HELLO),
        )
    assert (row["device_id"], row["device_hostname"]) == (device, "Lab-PC-7")
    assert (row["owner_id"], row["channel"]) == (fleet.owner_id, "agent")
    assert row["expires_at"] - row["not_before"] == timedelta(days=1)

    with fleet.refused("PT409", "device_ambiguous", "lab-pc-7"):
        fleet.run(
            "insert into device_commands (device_hostname, command_type)"
            " values ('lab-pc-7', 'lock')"
        )
    with fleet.refused("PT404", "device_not_found", "nowhere"), fleet.acting(fleet.owner_id):
        fleet.run(
            "insert into device_commands (device_hostname, command_type) values ('nowhere', 'lock')"
        )


def test_a_new_command_cannot_begin_as_anything_but_pending(fleet: Fleet) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "command_invalid", "status"):
        fleet.insert("device_commands", device_id=device, command_type="lock", status="completed")


def test_cancelling_is_final_and_may_be_repeated(fleet: Fleet) -> None:
    device = fleet.device()
    command = fleet.send(device)
    with fleet.acting(fleet.owner_id):
        row = fleet.row("select * from cancel_command(%s, 'a mistake')", command["id"])
        again = fleet.row("select * from cancel_command(%s)", command["id"])
    assert (row["status"], row["reason"]) == ("cancelled", "a mistake")
    assert again == row
    assert fleet.claim(device) == []

    done = fleet.send(device)
    fleet.finish(device, fleet.claim(device)[0])
    with fleet.refused("PT409", "command_final"), fleet.acting(fleet.owner_id):
        fleet.run("select cancel_command(%s)", done["id"])
    for call in (done["id"], 10**12):
        with fleet.refused("PT404", "command_not_found"), fleet.acting(uuid4()):
            fleet.run("select cancel_command(%s)", call)


def test_a_device_hears_of_a_cancelled_command_when_it_extends_or_finishes(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.send(device)
    (claimed,) = fleet.claim(device)
    fleet.run("select cancel_command(%s)", claimed["command_id"])
    with fleet.as_device(device):
        extended = fleet.value(
            "select extend_command(%s, %s)", claimed["command_id"], claimed["attempt"]
        )
    refused = {"accepted": False, "reason": "cancelled"}
    assert extended == refused
    assert fleet.finish(device, claimed) == refused


def test_what_is_due_later_is_not_offered_before(fleet: Fleet) -> None:
    device = fleet.device()
    later = datetime.now(UTC) + timedelta(hours=1)
    command = fleet.send(device, p_not_before=later)
    assert fleet.claim(device) == []
    assert fleet.claim(device, now=later)[0]["command_id"] == command["id"]


def test_a_person_may_not_write_a_run(fleet: Fleet) -> None:
    device = fleet.device()
    with pytest.raises(psycopg.errors.InsufficientPrivilege), fleet.conn.transaction():
        with fleet.acting(fleet.owner_id):
            fleet.run(
                "insert into device_commands (device_id, command_type, run_id)"
                " values (%s, 'lock', 1)",
                device,
            )


def test_a_command_of_a_run_belongs_to_a_device_of_its_owner(fleet: Fleet) -> None:
    made = fleet.create(device_ids=[fleet.device()])
    (run,) = fleet.runs(made["id"])
    columns = {
        "owner_id": fleet.owner_id,
        "run_id": run["id"],
        "device_hostname": "x",
        "command_type": "lock",
        "expires_at": "2999-01-01",
    }
    foreign = Fleet(fleet.conn).device()
    with fleet.refused("PT404", "device_not_found"):
        fleet.insert("device_commands", device_id=foreign, **columns)
    # One that is deleted while the run expands gets none, and the run still ends.
    gone = fleet.insert("device_commands", device_id=10**12, **columns)
    assert fleet.rows("select * from device_commands where id = %s", gone["id"]) == []


SEND_MANY = """
    insert into device_commands (device_id, command_type, payload, priority)
    select r.device_id, r.command_type, coalesce(r.payload, '{}'), coalesce(r.priority, 0)
    from jsonb_to_recordset(%s) as r(
      device_id bigint, command_type text, payload jsonb, priority smallint)
    returning *
    """


def test_of_many_in_one_insert_each_is_looked_at(fleet: Fleet) -> None:
    given = [
        {"command_type": "lock"},
        {"command_type": "lock", "payload": {"note": "plain"}},
        {"command_type": "broadcast_message", "payload": HELLO},
        {"command_type": "broadcast_message", "payload": {**HELLO, "password": "of-the-wall"}},
        {"command_type": "mdm_refresh"},
        {"command_type": "lock", "priority": 100},
    ]
    devices = fleet.devices(len(given))
    rows = [{"device_id": one, **row} for one, row in zip(devices, given, strict=True)]
    made = fleet.rows(SEND_MANY, Jsonb(rows))
    assert [row["device_id"] for row in made] == devices
    names = fleet.rows("select hostname from devices where id = any (%s) order by id", devices)
    assert [row["device_hostname"] for row in made] == [row["hostname"] for row in names]
    assert {row["owner_id"] for row in made} == {fleet.owner_id}
    assert [row["channel"] for row in made] == ["agent"] * 4 + ["mdm", "agent"]
    assert {row["expires_at"] - row["not_before"] for row in made} == {timedelta(days=1)}
    assert str(made[3]["payload"]["password"]).startswith("sealed:")

    # Whatever the row before it was.
    with fleet.refused("PT422", "command_invalid", "priority"):
        fleet.rows(SEND_MANY, Jsonb([rows[0], {**rows[1], "priority": 101}]))
    fleet.run("select retire_device(%s)", devices[1])
    with fleet.refused("PT409", "device_retired"):
        fleet.rows(SEND_MANY, Jsonb(rows[:2]))
    # What was found out in one statement holds for none after it.
    fleet.rows(SEND_MANY, Jsonb(rows[:1]))
    with fleet.refused("PT404", "device_not_found"), fleet.acting(uuid4()):
        fleet.run(
            "insert into device_commands (device_id, command_type) values (%s, 'lock')", devices[0]
        )
