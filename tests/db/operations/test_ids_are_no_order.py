"""What an owner brought from another database is older than what it makes here by any id."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.helpers.fleet import Fleet

FROM_THERE, HERE = 9 * 2**44, 2 * 2**44


@pytest.fixture
def fleet(connect: Callable[..., Fleet]) -> Fleet:
    return connect()


def ids_from(fleet: Fleet, first: int) -> None:
    """Let the next rows get ids of another database."""
    for table in ("device_commands", "schedule_runs", "profile_installs", "schedules"):
        fleet.run("select setval(pg_get_serial_sequence(%s, 'id'), %s)", f"public.{table}", first)


def claimed(fleet: Fleet, device: int) -> list[int]:
    with fleet.conn.transaction():
        fleet.run("select set_config('request.jwt.claims', %s, true)",
                  f'{{"role": "authenticated", "sub": "{fleet.auth_id(device)}"}}')  # fmt: skip
        return [row["command_id"] for row in fleet.rows("select command_id from claim_commands(9)")]


def test_a_device_claims_the_older_of_two_first(fleet: Fleet) -> None:
    device = fleet.device()
    made = []
    for first in (FROM_THERE, HERE):
        ids_from(fleet, first)
        made.append(fleet.value("select id from send_command(%s, 'lock')", device))
    assert made[0] > made[1]
    assert claimed(fleet, device) == made


@pytest.mark.parametrize(
    ("overlap", "ends"),
    [("replace", ["cancelled", "pending"]), ("buffer_one", ["pending", "pending"])],
)
def test_overlap_takes_the_run_that_came_with_the_owner_for_the_older(
    fleet: Fleet, overlap: str, ends: list[str]
) -> None:
    device = fleet.device()
    begun = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    made = fleet.minutely([device], begun, policies={"overlap": overlap, "expires_after": "1 hour"})
    fleet.run("update schedules set next_run_at = %s where id = %s", begun, made["id"])
    for minute, first in ((0, FROM_THERE), (1, HERE)):
        ids_from(fleet, first)
        fleet.tick(begun + timedelta(minutes=minute, seconds=1))
        time.sleep(0.002)
    found = fleet.rows(
        "select c.id, c.status, c.waits_for from device_commands as c"
        " where c.schedule_id = %s order by c.created_at",
        made["id"],
    )
    assert [row["status"] for row in found] == ends
    assert found[0]["id"] > found[1]["id"]
    if overlap == "buffer_one":
        assert found[1]["waits_for"] == found[0]["id"]


def test_of_two_runs_that_wait_the_older_is_expanded_first(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.create(recurrence_type="daily", recurrence_config={"time": "03:00"},
                        device_ids=[device], policies={"overlap": "allow"})  # fmt: skip
    runs: list[Any] = []
    for first in (FROM_THERE, HERE):
        ids_from(fleet, first)
        runs.append(
            fleet.value(
                "insert into schedule_runs (schedule_id, owner_id, scheduled_for, trigger, status,"
                " action_type, payload) values (%s, %s, clock_timestamp(), 'manual', 'pending',"
                " 'lock', '{}') returning id",
                made["id"],
                fleet.owner_id,
            )
        )
    assert fleet.value("select fleet.lock_runs(%s, clock_timestamp())", runs) == runs[:1]


def test_a_name_means_the_schedule_that_was_made_last(fleet: Fleet) -> None:
    device = fleet.device()
    made = []
    for first in (FROM_THERE, HERE):
        ids_from(fleet, first)
        made.append(
            fleet.create(
                name="nightly",
                device_ids=[device],
                recurrence_type="once",
                start_time="2020-01-01T00:00:00Z",
            )["id"]
        )
        fleet.run("update schedules set status = 'completed' where id = %s", made[-1])
    found = fleet.value("select (fleet.schedule_by_name(%s, 'nightly')).id", fleet.owner_id)
    assert found == made[1]
