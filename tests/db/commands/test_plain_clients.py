"""Clients that read with GET and answer with PATCH on the table itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row


@pytest.fixture
def device(fleet: Fleet) -> int:
    """Give one device."""
    return fleet.device("LAB-1")


def patch(fleet: Fleet, device: int, command: Row, **columns: object) -> list[Row]:
    names = ", ".join(f"{name} = %s" for name in columns)
    values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
    with fleet.as_device(device):
        return fleet.rows(
            f"update device_commands set {names} where id = %s returning *", *values, command["id"]
        )


def test_a_device_reads_its_pending_commands_by_host_name(fleet: Fleet, device: int) -> None:
    sent = fleet.send(device, "lock")
    fleet.send(fleet.device("LAB-2"), "lock")
    with fleet.as_device(device):
        rows = fleet.rows(
            "select * from device_commands where device_hostname = 'LAB-1' and status = 'pending'"
        )
        everything = fleet.rows("select * from device_commands")
    assert [row["id"] for row in rows] == [row["id"] for row in everything] == [sent["id"]]


def test_running_is_a_claim_and_completed_a_finish(fleet: Fleet, device: int) -> None:
    sent = fleet.send(device, "lock")
    (row,) = patch(fleet, device, sent, status="running")
    assert (row["status"], row["attempt"]) == ("running", 1)
    assert row["claimed_at"] is not None
    # Such a client does not extend: its lease covers the time that a handler may take.
    assert row["lease_expires_at"] > datetime.now(UTC) + timedelta(seconds=80)
    assert fleet.claim(device) == []

    (row,) = patch(fleet, device, sent, status="completed", result={"locked": True})
    assert (row["status"], row["result"], row["lease_expires_at"]) == (
        "completed",
        {"locked": True},
        None,
    )
    assert row["executed_at"] is not None


def test_completed_at_once_is_a_finish_too(fleet: Fleet, device: int) -> None:
    made = fleet.create(device_ids=[device], action_type="lock", payload={})
    (command,) = fleet.commands(made["id"])
    patch(fleet, device, command, status="completed")
    fleet.tick()
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["completed"]) == ("completed", 1)


def test_failed_stays_failed_with_its_message(fleet: Fleet, device: int) -> None:
    sent = fleet.send(device, "lock")
    (row,) = patch(fleet, device, sent, status="failed", error_message="no screen")
    assert (row["status"], row["reason"], row["error_message"]) == ("failed", "error", "no screen")
    assert fleet.claim(device) == []


def test_final_stays_final(fleet: Fleet, device: int) -> None:
    sent = fleet.send(device, "lock")
    patch(fleet, device, sent, status="completed", result={"n": 1})
    for change in ({"status": "running"}, {"status": "failed"}, {"result": {"n": 2}}):
        with fleet.refused("PT409", "command_final"):
            patch(fleet, device, sent, **change)
    # The same answer again, because the first response got lost, is none of these.
    (row,) = patch(fleet, device, sent, status="completed", result={"n": 1})
    assert row["result"] == {"n": 1}


@pytest.mark.parametrize("status", ["done", "COMPLETED", "", "success", "completed ", None])
def test_an_unknown_status_is_refused_by_name(
    fleet: Fleet, device: int, status: str | None
) -> None:
    sent = fleet.send(device, "lock")
    with fleet.refused("PT422", "status_invalid", "status"):
        patch(fleet, device, sent, status=status)
    assert fleet.command(sent["id"])["status"] == "pending"


def test_who_claims_what_is_pending_gets_a_row_and_nobody_else(fleet: Fleet, device: int) -> None:
    sent = fleet.send(device, "lock")
    claim = (
        "update device_commands set status = 'running'"
        " where id = %s and status = 'pending' returning id"
    )
    with fleet.as_device(device):
        got = [fleet.rows(claim, sent["id"]) for _ in range(4)]
    assert [len(rows) for rows in got] == [1, 0, 0, 0]


def test_a_device_cannot_write_into_the_commands_of_another(fleet: Fleet, device: int) -> None:
    foreign = fleet.send(fleet.device(), "lock")
    assert patch(fleet, device, foreign, status="completed") == []
    assert fleet.command(foreign["id"])["status"] == "pending"


@pytest.mark.parametrize(("kind", "status"), [("lock", "running"), ("broadcast_message", "failed")])
def test_what_is_unsafe_to_repeat_is_not_taken_twice(
    fleet: Fleet, device: int, kind: str, status: str
) -> None:
    sent = fleet.send(device, kind)
    patch(fleet, device, sent, status="running")
    fleet.tick(datetime.now(UTC) + timedelta(minutes=5))
    assert fleet.command(sent["id"])["status"] == "pending"
    (row,) = patch(fleet, device, sent, status="running")
    assert row["status"] == status
    assert row["reason"] == ("interrupted" if status == "failed" else "lease_expired")


def test_a_finish_after_a_lapsed_lease_counts(fleet: Fleet, device: int) -> None:
    sent = fleet.send(device)
    patch(fleet, device, sent, status="running")
    fleet.tick(datetime.now(UTC) + timedelta(minutes=5))
    (row,) = patch(fleet, device, sent, status="completed")
    assert (row["status"], row["reason"]) == ("completed", None)
