"""The end of a run: when every command of it is final."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
JOURNAL = UUID(int=7)


def started(fleet: Fleet, at: datetime = BASE, **policies: object) -> tuple[int, Row]:
    """Run a schedule on one device and let it claim the command."""
    device = fleet.device()
    made = fleet.create(
        device_ids=[device],
        start_time=at.isoformat(),
        policies={"expires_after": "10 days", **policies},
    )
    fleet.tick(at)
    (command,) = fleet.claim(device, journal=JOURNAL, now=at)
    assert command["run_id"] == fleet.runs(made["id"])[0]["id"]
    return device, command


def test_a_run_is_complete_when_every_command_is(fleet: Fleet) -> None:
    devices = fleet.devices(3)
    made = fleet.create(device_ids=devices)
    for device in devices[:2]:
        fleet.finish(device, fleet.claim(device)[0])
    assert fleet.tick()["settled"] == 0
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["completed"], run["failed"]) == ("running", 2, 0)
    assert run["finished_at"] is None

    fleet.finish(devices[2], fleet.claim(devices[2])[0])
    assert fleet.tick()["settled"] == 1
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["completed"], run["failed"]) == ("completed", 3, 0)
    assert run["finished_at"] is not None and run["reason"] is None
    assert fleet.tick()["settled"] == 0


def test_what_fails_expires_or_is_cancelled_counts_as_failed(fleet: Fleet) -> None:
    devices = fleet.devices(4)
    made = fleet.create(device_ids=devices, policies={"expires_after": "1 hour"})
    fleet.finish(devices[0], fleet.claim(devices[0])[0])
    fleet.finish(devices[1], fleet.claim(devices[1])[0], "failed", reason="unsupported")
    cancelled = next(c for c in fleet.commands(made["id"]) if c["device_id"] == devices[2])
    fleet.run("select cancel_command(%s)", cancelled["id"])
    fleet.tick(datetime.now(UTC) + timedelta(hours=2))

    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["completed"], run["failed"]) == ("failed", 1, 3)
    assert run["reason"] == "3 of 4 commands did not complete"
    statuses = [command["status"] for command in fleet.commands(made["id"])]
    assert statuses == ["completed", "failed", "cancelled", "expired"]


def test_a_run_whose_commands_end_before_it_is_whole_ends_too(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('inline_expand_limit', '1')")
    devices = fleet.devices(2)
    made = fleet.create(device_ids=devices)
    fleet.finish(devices[0], fleet.claim(devices[0])[0])
    # The first is counted before the second exists.
    fleet.run("select fleet.settle_runs(now())")
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["targeted"], run["completed"]) == ("running", 1, 1)

    fleet.tick()
    fleet.finish(devices[1], fleet.claim(devices[1])[0])
    fleet.tick()
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["completed"]) == ("completed", 2)


def test_a_run_whose_last_chunk_is_empty_ends(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('inline_expand_limit', '1')")
    devices = fleet.devices(2)
    made = fleet.create(device_ids=devices)
    fleet.finish(devices[0], fleet.claim(devices[0])[0])
    fleet.run("select fleet.settle_runs(now())")
    fleet.run("select retire_device(%s)", devices[1])
    fleet.tick()
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["targeted"], run["completed"]) == ("completed", 1, 1)


def test_a_run_without_anybody_is_skipped(fleet: Fleet) -> None:
    made = fleet.create(selector={"tags": ["nobody"]})
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["reason"], run["targeted"]) == ("skipped", "no targets", 0)
    assert run["finished_at"] is not None


def test_a_run_is_final_when_its_failure_is(fleet: Fleet) -> None:
    device, command = started(fleet)
    fleet.finish(device, command, "failed", reason="forbidden", now=BASE)
    fleet.tick(BASE)
    (run,) = fleet.rows("select * from schedule_runs where id = %s", command["run_id"])
    assert (run["status"], run["failed"]) == ("failed", 1)
