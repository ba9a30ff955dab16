"""Jitter: each device has a slot of its own within the time that the policy gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 0, tzinfo=UTC)
JITTER = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
LASTING = {"expires_after": "1 day"}


def daily(fleet: Fleet, devices: list[int], **policies: object) -> int:
    made = fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "06:00"},
        start_time=BASE.isoformat(),
        device_ids=devices,
        policies={"jitter": "1 hour", "overlap": "allow", **policies},
    )
    schedule_id: int = made["id"]
    return schedule_id


def slots(fleet: Fleet, schedule_id: int, day: int) -> dict[int, timedelta]:
    """Run one day and give how much later than due each device may start."""
    due = BASE + timedelta(days=day)
    # The tick comes a little late, as ticks do.
    fleet.tick_until_idle(due + timedelta(milliseconds=700))
    run = fleet.runs(schedule_id)[-1]
    assert run["scheduled_for"] == due
    commands = [c for c in fleet.commands(schedule_id) if c["run_id"] == run["id"]]
    return {c["device_id"]: c["not_before"] - due for c in commands}


def test_a_device_keeps_its_slot_from_run_to_run(fleet: Fleet) -> None:
    schedule = daily(fleet, fleet.devices(25))
    first = slots(fleet, schedule, 0)
    assert len(first) == 25
    assert slots(fleet, schedule, 1) == first == slots(fleet, schedule, 2)


def test_the_slots_of_another_schedule_are_others(fleet: Fleet) -> None:
    devices = fleet.devices(5)
    first = slots(fleet, daily(fleet, devices), 0)
    second = slots(fleet, daily(fleet, devices), 0)
    assert all(first[device] != second[device] for device in devices)


def test_the_fleet_is_spread_evenly_within_bounds(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('expand_chunk_size_published', '5000')")
    schedule = daily(fleet, fleet.devices(1000))
    found = slots(fleet, schedule, 0)
    assert len(found) == 1000
    assert min(found.values()) >= timedelta(0)
    assert max(found.values()) < JITTER
    tenths = [int(slot / JITTER * 10) for slot in found.values()]
    # A fair spread puts 100 into each tenth; beyond 60 or 140 is four deviations away.
    assert all(60 < tenths.count(tenth) < 140 for tenth in range(10))


def test_a_slot_moves_the_expiry_along(fleet: Fleet) -> None:
    schedule = daily(fleet, fleet.devices(10), expires_after="2 hours")
    found = slots(fleet, schedule, 0)
    (run,) = fleet.runs(schedule)
    for command in fleet.commands(schedule):
        assert command["expires_at"] - run["expires_at"] == found[command["device_id"]]


def test_nothing_is_handed_out_before_its_slot(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(fleet, [device])
    slot = slots(fleet, schedule, 0)[device]
    assert fleet.claim(device, now=BASE + slot - timedelta(seconds=1)) == []
    assert len(fleet.claim(device, now=BASE + slot)) == 1


def test_jitter_gives_each_device_a_slot_that_stays(fleet: Fleet) -> None:
    devices = fleet.devices(20)
    made = fleet.minutely(
        devices, BASE, policies={"overlap": "allow", "jitter": "30 seconds", **LASTING}
    )
    slots: list[dict[int, timedelta]] = []
    for minute in range(2):
        now = BASE + minute * MINUTE
        fleet.tick_until_idle(now)
        run = fleet.runs(made["id"])[minute]
        slots.append(
            {
                command["device_id"]: command["not_before"] - now
                for command in fleet.commands(made["id"])
                if command["run_id"] == run["id"]
            }
        )
    assert slots[0] == slots[1]
    assert all(timedelta(0) <= slot <= timedelta(seconds=30) for slot in slots[0].values())
    assert len(set(slots[0].values())) > 15


def every(minutes: int) -> Row:
    return {"recurrence_type": "interval", "recurrence_config": {"minutes": minutes}}


def cron(text: str) -> Row:
    return {"recurrence_type": "cron", "recurrence_config": {"cron_expression": text}}


@pytest.mark.parametrize(
    ("recurrence", "policies", "words"),
    [
        (every(20), {}, "misses 2 of 3"),
        (every(60), {}, None),
        (every(61), {}, None),
        (cron("0,5 6 * * *"), {}, "misses 1 of 2"),
        (cron("*/30 * * * * *"), {}, "misses 119 of 120"),
        (every(20), {"overlap": "allow", "expires_after": "1 hour"}, None),
        (every(20), {"overlap": "allow"}, "misses 2 of 3"),
        ({"recurrence_type": "once"}, {}, None),
    ],
)
def test_a_jitter_over_the_next_due_instant_says_what_it_costs(
    fleet: Fleet, recurrence: Row, policies: Row, words: str | None
) -> None:
    made = fleet.create(
        start_time=BASE.isoformat(), device_ids=[fleet.device()],
        policies={"jitter": "1 hour", **policies}, **recurrence,
    )  # fmt: skip
    found = [text for text in made["warnings"] if "jitter" in text]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
