"""Priorities: what is more urgent is expanded, rung and claimed first."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.helpers.fleet import Fleet

BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
PRIORITIES = (-5, 0, 7, 100)


def due(fleet: Fleet, priority: int, devices: list[int]) -> int:
    made = fleet.create(device_ids=devices, start_time=BASE.isoformat(), priority=priority)
    schedule_id: int = made["id"]
    return schedule_id


def test_the_most_urgent_is_claimed_first_and_then_the_oldest(fleet: Fleet) -> None:
    device = fleet.device()
    for priority in (*PRIORITIES, *PRIORITIES):
        due(fleet, priority, [device])
    fleet.tick_until_idle(BASE)
    claimed = [fleet.claim(device, 1, now=BASE)[0] for _ in range(8)]
    assert [c["priority"] for c in claimed] == [100, 100, 7, 7, 0, 0, -5, -5]
    ids = [c["command_id"] for c in claimed]
    assert all(first < second for first, second in zip(ids[::2], ids[1::2], strict=True))


def test_the_most_urgent_run_is_expanded_first(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('expand_chunk_size_published', '20')")
    low, high, middle = (due(fleet, p, fleet.devices(30)) for p in (-1, 50, 0))
    fleet.tick(BASE)
    made = {s: len(fleet.commands(s)) for s in (low, high, middle)}
    assert made[high] == 30
    assert made[low] == made[middle] == 0
    fleet.tick(BASE)
    assert len(fleet.commands(middle)) == 30
    assert fleet.commands(low) == []


def test_the_most_urgent_device_is_rung_first(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('doorbell_inline_limit', '0')")
    fleet.run("select fleet.set_setting('doorbell_rate', '1')")
    fleet.run("delete from fleet.doorbells")
    devices = {priority: fleet.device() for priority in PRIORITIES}
    for priority, device in devices.items():
        due(fleet, priority, [device])
    fleet.run("select fleet.start_due_runs(%s)", BASE)
    fleet.run("select fleet.expand_next(%s)", BASE)

    order: list[int] = []
    waiting = set(devices.values())
    for _ in devices:
        fleet.run("update fleet.heartbeat set last_rang_at = null")
        assert fleet.value("select fleet.ring_doorbells(%s)", BASE) == 1
        left = {row["device_id"] for row in fleet.rows("select device_id from fleet.doorbells")}
        order += waiting - left
        waiting = left
    assert order == [devices[priority] for priority in sorted(PRIORITIES, reverse=True)]


@pytest.mark.parametrize("priority", [-101, 101, "high", 1.5])
def test_a_priority_out_of_bounds_is_refused(fleet: Fleet, priority: object) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "schedule_invalid", "priority: "):
        fleet.create(device_ids=[device], priority=priority)
