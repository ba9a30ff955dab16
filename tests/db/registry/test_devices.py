"""The life of a device: check-ins, names, facts and retiring."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row


def test_a_host_name_is_unique_within_its_owner_without_case(fleet: Fleet) -> None:
    fleet.device("PC-1")
    with pytest.raises(psycopg.errors.UniqueViolation), fleet.conn.transaction():
        fleet.device("pc-1")
    Fleet(fleet.conn).device("pc-1")


def test_an_unknown_time_zone_is_refused(fleet: Fleet) -> None:
    for zone in ("Nonsense5", "europe/berlin", ""):
        with fleet.refused("PT422", "timezone_unknown"):
            fleet.device(timezone=zone)


def test_a_check_in_stores_facts_and_tells_what_waits(fleet: Fleet) -> None:
    device = fleet.device("pc-1", attributes={"room": 7})
    fleet.send(device)
    facts = {
        "platform": "linux",
        "timezone": "Asia/Kolkata",
        "agent_version": "1.2",
        "attributes": {"ram_gb": 16},
    }
    with fleet.as_device(device):
        answer = fleet.value("select device_checkin(%s)", Jsonb(facts))

    assert answer["device_id"] == device
    assert answer["hostname"] == "pc-1"
    assert answer["pending"] == 1
    assert answer["poll_seconds"] == 300
    assert answer["topic"] == f"device:{fleet.auth_id(device)}"
    row = fleet.row("select * from devices where id = %s", device)
    # What it says of itself stands apart from what people say of it.
    assert (row["platform"], row["timezone"]) == (None, "Asia/Kolkata")
    assert row["attributes"] == {"room": 7}
    assert row["reported"] == {"platform": "linux", "ram_gb": 16, "agent_version": "1.2"}
    assert fleet.value("select platform from device_list where id = %s", device) == "linux"
    assert row["last_seen"] is not None


@pytest.mark.parametrize("facts", [None, [], "text", {"timezone": 5}, {"attributes": "none"}])
def test_a_check_in_never_fails_for_its_facts(fleet: Fleet, facts: object) -> None:
    device = fleet.device(platform="linux")
    with fleet.as_device(device):
        assert fleet.value("select device_checkin(%s)", Jsonb(facts))["device_id"] == device
    assert fleet.value("select platform from devices where id = %s", device) == "linux"


def test_retiring_takes_secret_topic_and_work_away(fleet: Fleet) -> None:
    with fleet.acting(fleet.owner_id):
        code = fleet.value("select create_enrollment_code()")["code"]
    enrolled = fleet.value("select fleet.worker_enroll_device(%s, 'pc-1', '{}')", code)
    device, secret = enrolled["device_id"], enrolled["device_secret"]
    former = fleet.auth_id(device)
    pending, running = fleet.send(device, "lock"), fleet.send(device, "lock", p_priority=9)
    later = fleet.send(
        device, "lock", p_not_before=fleet.value("select now() + interval '9 years'")
    )
    assert [c["command_id"] for c in fleet.claim(device, 1)] == [running["id"]]

    with fleet.acting(fleet.owner_id):
        retired = fleet.row("select * from retire_device(%s)", device)

    assert retired["status"] == "retired"
    assert retired["auth_id"] != former
    with fleet.refused("PT401", "device_secret_unknown"):
        fleet.run("select fleet.worker_device_token(%s)", secret)
    with fleet.refused("PT403", "not_a_device"), fleet.acting(former):
        fleet.run("select * from claim_commands()")
    for command in (pending, running, later):
        row = fleet.command(command["id"])
        assert (row["status"], row["reason"]) == ("cancelled", "device_retired")
        assert row["executed_at"] is not None
    waiting = fleet.value("select count(*) from fleet.doorbells where device_id = %s", device)
    assert waiting == 0


def test_a_retired_device_gets_nothing_and_comes_back_by_a_new_code(fleet: Fleet) -> None:
    device = fleet.device()
    with fleet.acting(fleet.owner_id):
        fleet.run("select retire_device(%s)", device)
        fleet.run("select retire_device(%s)", device)
    with fleet.refused("PT409", "device_retired"):
        fleet.send(device)

    with fleet.acting(fleet.owner_id):
        code = fleet.value("select rekey_device(%s)", device)
    fleet.run("select fleet.worker_enroll_device(%s, 'pc', '{}')", code["code"])
    assert fleet.send(device)["status"] == "pending"


def test_a_foreign_device_is_not_found_as_one_that_does_not_exist(fleet: Fleet) -> None:
    device = fleet.device()
    stranger = uuid4()
    calls = (
        "select retire_device(%s)",
        "select rekey_device(%s)",
        "select send_command(%s, 'lock')",
    )
    for call in calls:
        with fleet.refused("PT404", "device_not_found") as foreign, fleet.acting(stranger):
            fleet.run(call, device)
        with fleet.refused("PT404", "device_not_found") as missing, fleet.acting(stranger):
            fleet.run(call, 10**12)
        assert foreign.message.replace(str(device), "X") == missing.message.replace(
            str(10**12), "X"
        )
        assert foreign.hint == missing.hint


def test_deleting_a_device_lets_its_runs_end(fleet: Fleet) -> None:
    gone, kept = fleet.device(), fleet.device()
    made = fleet.create(device_ids=[gone, kept])
    fleet.run("delete from devices where id = %s", gone)
    (command,) = fleet.claim(kept)
    fleet.finish(kept, command)
    fleet.tick()

    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["completed"], run["failed"]) == ("failed", 1, 1)


def test_a_device_sees_its_own_row_only(fleet: Fleet) -> None:
    mine, _ = fleet.device(), fleet.device()
    with fleet.as_device(mine):
        assert [row["id"] for row in fleet.rows("select id from devices")] == [mine]
        assert fleet.rows("select * from owners") == []


def test_a_sub_that_is_no_uuid_is_nobody(fleet: Fleet) -> None:
    fleet.device()
    for sub in ("", "not-a-uuid", "00000000"):
        with fleet.acting(sub or "x"):
            assert fleet.rows("select * from devices") == []
            assert fleet.value("select fleet.current_user_id()") is None


def test_facts_of_a_device_stay_its_own(fleet: Fleet) -> None:
    device, other = fleet.device(), fleet.device()
    with fleet.as_device(device):
        changed: list[Row] = fleet.rows(
            "update devices set platform = 'x' where id in (%s, %s) returning id", device, other
        )
    assert changed == []
