"""Overlap: what a device that is not done yet gets of the next run, judged device by device."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LASTING = {"expires_after": "1 day"}


def minutely(fleet: Fleet, devices: list[int], **policies: object) -> int:
    """Create a schedule of one run a minute whose commands live for a day."""
    made = fleet.minutely(devices, BASE, policies={"expires_after": "1 day", **policies})
    schedule_id: int = made["id"]
    return schedule_id


def tick(fleet: Fleet, *minutes: int) -> None:
    for minute in minutes:
        fleet.tick_until_idle(BASE + minute * MINUTE)


def statuses(fleet: Fleet, schedule_id: int, device: int) -> list[str]:
    return [c["status"] for c in fleet.commands(schedule_id) if c["device_id"] == device]


def claim(fleet: Fleet, device: int, minute: int, limit: int = 10) -> list[Row]:
    return fleet.claim(device, limit, now=BASE + minute * MINUTE)


def reasons(fleet: Fleet, made: Row) -> list[str | None]:
    return [run["reason"] for run in fleet.runs(made["id"])]


def test_skip_leaves_out_only_the_device_that_is_busy(fleet: Fleet) -> None:
    drawer, desk = fleet.device(), fleet.device()
    schedule = minutely(fleet, [drawer, desk])
    for minute in range(3):
        tick(fleet, minute)
        (command,) = claim(fleet, desk, minute)
        fleet.finish(desk, command, now=BASE + minute * MINUTE)

    assert statuses(fleet, schedule, desk) == ["completed"] * 3
    assert statuses(fleet, schedule, drawer) == ["pending"]
    runs = fleet.runs(schedule)
    assert [(run["targeted"], run["skipped"]) for run in runs] == [(2, 0), (1, 1), (1, 1)]
    tick(fleet, 3)
    assert [run["status"] for run in fleet.runs(schedule)][:3] == [
        "running",
        "completed",
        "completed",
    ]


def test_a_run_that_finds_every_device_busy_is_skipped_because_of_overlap(fleet: Fleet) -> None:
    schedule = minutely(fleet, fleet.devices(2))
    tick(fleet, 0, 1)
    run = fleet.runs(schedule)[1]
    assert (run["status"], run["reason"], run["skipped"]) == ("skipped", "overlap", 2)


def test_allow_lets_as_many_wait_as_max_concurrent_says(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = minutely(fleet, [device], overlap="allow", max_concurrent=2)
    tick(fleet, 0, 1, 2)
    assert statuses(fleet, schedule, device) == ["pending", "pending"]

    fleet.finish(device, claim(fleet, device, 2, limit=1)[0], now=BASE + 2 * MINUTE)
    tick(fleet, 3)
    assert statuses(fleet, schedule, device) == ["completed", "pending", "pending"]


def test_allow_means_three_where_nothing_else_is_said(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = minutely(fleet, [device], overlap="allow")
    tick(fleet, 0, 1, 2, 3, 4)
    assert len(fleet.commands(schedule)) == 3


def test_buffer_one_keeps_one_waiting_and_leaves_out_the_rest(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = minutely(fleet, [device], overlap="buffer_one")
    tick(fleet, 0, 1, 2, 3)
    first, second = fleet.commands(schedule)
    assert second["waits_for"] == first["id"]
    assert [run["reason"] for run in fleet.runs(schedule)] == [None, None, "overlap", "overlap"]


def test_what_is_buffered_is_handed_out_only_when_the_one_before_is_final(fleet: Fleet) -> None:
    device = fleet.device()
    minutely(fleet, [device], overlap="buffer_one")
    tick(fleet, 0, 1)
    (first,) = claim(fleet, device, 1)
    assert claim(fleet, device, 1) == []

    fleet.finish(device, first, now=BASE + MINUTE)
    (second,) = claim(fleet, device, 1)
    assert second["command_id"] > first["command_id"]


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "lapsed"])
def test_the_device_is_rung_when_what_it_waits_for_ends(fleet: Fleet, end: str) -> None:
    device = fleet.device()
    minutely(fleet, [device], overlap="buffer_one", retry={"attempts": 1})
    tick(fleet, 0, 1)
    (first,) = claim(fleet, device, 1)
    fleet.tick_until_idle(BASE + 1.5 * MINUTE)
    assert fleet.value("select count(*) from fleet.doorbells where device_id = %s", device) == 0

    if end == "cancelled":
        fleet.run("select cancel_command(%s)", first["command_id"])
    elif end != "lapsed":
        fleet.finish(device, first, end, reason="unsupported", now=BASE + MINUTE)
    rung = fleet.tick(BASE + 1.9 * MINUTE) if end != "lapsed" else fleet.tick(BASE + 5 * MINUTE)
    waiting = fleet.value("select count(*) from fleet.doorbells where device_id = %s", device)
    assert (rung["rung"], waiting) in {(1, 0), (0, 1)}


def test_replace_cancels_what_waits_and_gives_the_new_one(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = minutely(fleet, [device], overlap="replace")
    tick(fleet, 0, 1, 2)
    assert statuses(fleet, schedule, device) == ["cancelled", "cancelled", "pending"]
    assert {c["reason"] for c in fleet.commands(schedule)[:2]} == {"replaced"}
    tick(fleet, 3)
    runs = fleet.runs(schedule)[:3]
    assert {(run["status"], run["reason"]) for run in runs} == {("cancelled", "replaced")}
    assert {(run["targeted"], run["replaced"], run["failed"]) for run in runs} == {(1, 1, 0)}


@pytest.mark.parametrize("question", ["extend", "finish"])
def test_a_device_hears_that_what_it_is_at_was_replaced(fleet: Fleet, question: str) -> None:
    device = fleet.device()
    minutely(fleet, [device], overlap="replace")
    tick(fleet, 0)
    (old,) = claim(fleet, device, 0)
    tick(fleet, 1)

    if question == "extend":
        with fleet.as_device(device):
            answer = fleet.value("select extend_command(%s, %s)", old["command_id"], old["attempt"])
    else:
        answer = fleet.finish(device, old, now=BASE + MINUTE)
    assert answer == {"accepted": False, "reason": "cancelled"}
    (new,) = claim(fleet, device, 1)
    assert new["command_id"] != old["command_id"]


def test_replace_leaves_the_commands_of_other_schedules_and_devices_alone(fleet: Fleet) -> None:
    device, other = fleet.device(), fleet.device()
    bystander = minutely(fleet, [device], overlap="allow")
    schedule = minutely(fleet, [device, other], overlap="replace")
    tick(fleet, 0)
    (done,) = claim(fleet, other, 0)
    fleet.finish(other, done, now=BASE)
    tick(fleet, 1)
    assert statuses(fleet, bystander, device) == ["pending", "pending"]
    assert statuses(fleet, schedule, other) == ["completed", "pending"]


def test_an_older_run_that_comes_later_never_replaces_a_newer_one(fleet: Fleet) -> None:
    # Devices come in chunks; the second run overtakes the first.
    fleet.run("select fleet.set_setting('expand_chunk_size_published', '20')")
    devices = fleet.devices(30)
    schedule = minutely(fleet, devices, overlap="replace")
    fleet.tick(BASE)
    fleet.run("select fleet.start_due_runs(%s)", BASE + MINUTE)
    first, second = fleet.runs(schedule)
    fleet.run("select fleet.expand_runs(array[%s::bigint], %s, 100)", second["id"], BASE + MINUTE)
    fleet.run("select fleet.expand_runs(array[%s::bigint], %s, 100)", first["id"], BASE + MINUTE)

    alive = [c for c in fleet.commands(schedule) if c["status"] == "pending"]
    assert {c["run_id"] for c in alive} == {second["id"]}
    assert len(alive) == len(devices)


def test_what_expires_when_the_next_run_is_due_does_not_overlap_it(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = fleet.minutely([device], BASE)["id"]
    tick(fleet, 0, 1, 2)
    assert statuses(fleet, schedule, device) == ["expired", "expired", "pending"]
    assert {run["skipped"] for run in fleet.runs(schedule)} == {0}


def test_one_run_may_wait_behind_another(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"overlap": "buffer_one", **LASTING})
    for minute in range(3):
        fleet.tick(BASE + minute * MINUTE)
    assert reasons(fleet, made) == [None, None, "overlap"]

    now = BASE + 3 * MINUTE - timedelta(seconds=1)
    (first,) = fleet.claim(device, now=now)
    assert fleet.claim(device, now=now) == []
    fleet.finish(device, first, now=now)
    (second,) = fleet.claim(device, now=now)
    assert second["run_id"] == fleet.runs(made["id"])[1]["id"]


def test_a_run_that_waits_begins_even_when_the_one_before_failed(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"overlap": "buffer_one", **LASTING})
    for minute in range(2):
        fleet.tick(BASE + minute * MINUTE)
    first, second = fleet.commands(made["id"])
    fleet.run("select cancel_command(%s)", first["id"])
    (claimed,) = fleet.claim(device, now=BASE + 2 * MINUTE)
    assert claimed["command_id"] == second["id"]


def test_a_new_run_may_replace_the_old_one(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"overlap": "replace", **LASTING})
    fleet.tick(BASE)
    (claimed,) = fleet.claim(device, now=BASE)
    fleet.tick(BASE + MINUTE)
    assert statuses(fleet, made["id"], device) == ["cancelled", "pending"]
    assert fleet.commands(made["id"])[0]["reason"] == "replaced"
    assert fleet.finish(device, claimed)["reason"] == "cancelled"
    fleet.tick(BASE + MINUTE)
    runs = fleet.runs(made["id"])
    assert [run["status"] for run in runs] == ["cancelled", "running"]


def test_what_was_replaced_tells_nobody_and_pauses_nothing(fleet: Fleet) -> None:
    fleet.insert(
        "webhook_endpoints", owner_id=fleet.owner_id, url="https://example.com/x", events=["*"]
    )
    device = fleet.device()
    schedule = minutely(fleet, [device], overlap="replace", pause_on_failure=1)
    tick(fleet, 0, 1, 2, 3)
    assert fleet.schedule(schedule)["status"] == "active"
    told = fleet.rows("select event from webhook_deliveries where owner_id = %s", fleet.owner_id)
    assert told == []
    (last,) = claim(fleet, device, 3)
    fleet.finish(device, last, "failed", reason="unsupported", now=BASE + 3 * MINUTE)
    tick(fleet, 3)
    assert fleet.schedule(schedule)["status"] == "paused"


def test_a_run_that_was_replaced_in_part_came_to_what_the_rest_did(fleet: Fleet) -> None:
    drawer, desk, broken = fleet.devices(3)
    schedule = minutely(fleet, [drawer, desk], overlap="replace")
    other = minutely(fleet, [drawer, broken], overlap="replace", retry={"attempts": 1})
    tick(fleet, 0)
    (done,) = claim(fleet, desk, 0)
    fleet.finish(desk, done, now=BASE)
    (failed,) = claim(fleet, broken, 0)
    fleet.finish(broken, failed, "failed", reason="unsupported", now=BASE)
    tick(fleet, 1, 2)
    first, second = fleet.runs(schedule)[0], fleet.runs(other)[0]
    assert (first["status"], first["reason"]) == (
        "completed",
        "1 of 2 commands were replaced by a later run",
    )
    assert (second["status"], second["failed"], second["replaced"]) == ("failed", 1, 1)
    said = fleet.value("select explain_schedule(%s, %s)", schedule, BASE + MINUTE)
    assert said["verdict"] in {"running", "replaced"}


def test_nothing_follows_what_was_replaced(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = minutely(fleet, [device], overlap="replace")
    follower = fleet.create(device_ids=[device], after={"schedule_id": schedule, "on": "either"})
    tick(fleet, 0, 1, 2)
    assert fleet.runs(follower["id"]) == []


def test_buffer_one_never_puts_an_older_run_behind_a_newer_one(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('expand_chunk_size_published', '20')")
    devices = fleet.devices(30)
    schedule = minutely(fleet, devices, overlap="buffer_one")
    fleet.tick(BASE)
    fleet.run("select fleet.start_due_runs(%s)", BASE + MINUTE)
    first, second = fleet.runs(schedule)
    for run in (second, first):
        fleet.run("select fleet.expand_runs(array[%s::bigint], %s, 100)", run["id"], BASE + MINUTE)
    backwards = fleet.value(
        "select count(*) from device_commands as c join device_commands as w on w.id = c.waits_for"
        " where c.schedule_id = %s and w.run_id > c.run_id",
        schedule,
    )
    assert backwards == 0
    assert len(fleet.commands(schedule)) >= len(devices)
