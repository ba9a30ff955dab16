"""Any schedule by device time, any eight zones, bounds and counts: as each device's wall says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.walls import Plan, expected

# The ends of the earth, odd offsets, and clocks that change on several days.
ZONES = (
    "Pacific/Kiritimati,Pacific/Auckland,Pacific/Chatham,Australia/Lord_Howe,Asia/Tokyo,"
    "Asia/Kathmandu,Asia/Kolkata,Africa/Cairo,Europe/Berlin,Europe/London,Africa/Casablanca,"
    "Antarctica/Troll,Atlantic/Azores,America/St_Johns,America/New_York,America/Los_Angeles,"
    "America/Havana,Pacific/Honolulu,Pacific/Niue,Pacific/Pago_Pago,Etc/GMT+12,America/Santiago"
).split(",")
# About these days clocks change: forwards and backwards, in the north and in the south.
DAYS = ("2031-03-08", "2031-03-29", "2031-04-05", "2031-09-27", "2031-10-25", "2031-11-01")
SPAN = timedelta(days=3)


def any_plan(chance: random.Random) -> Plan:
    """Make up a schedule around a change of the clocks."""
    start = datetime.fromisoformat(chance.choice(DAYS)) + timedelta(
        hours=chance.randrange(48), minutes=chance.choice((0, 0, 17, 30))
    )
    plan = Plan(
        times=[
            time(chance.choice((0, 1, 1, 2, 2, 3, 6, 23)), chance.choice((0, 15, 30)))
            for _ in range(chance.choice((1, 1, 2, 4)))
        ],
        gap=chance.choice(("first_instant", "shift", "skip")),
        fold=chance.choice(("first", "second", "both")),
        start=start if chance.random() < 0.5 else start.replace(tzinfo=UTC),
        most=chance.choice((None, None, 1, 2, 3)),
    )
    kind = chance.random()
    if kind < 0.2:
        plan.every_hours = chance.choice((5, 7, 36))
    elif kind < 0.4:
        plan.weekdays = {chance.randrange(7), (start.weekday() + 1) % 7}
    elif kind < 0.6:
        plan.every_days = 2
    if chance.random() < 0.4:
        end = start + timedelta(hours=chance.randrange(20, 70))
        plan.end = end if chance.random() < 0.5 else end.replace(tzinfo=UTC)
    return plan


def let_time_pass(fleet: Fleet, schedule_id: int, until: datetime) -> None:
    """Tick at each instant at which something is to be done, as a ticker that is always in time."""
    while True:
        now = fleet.value(
            "select least("
            " (select next_run_at from schedules where id = %s),"
            " (select min(starts_at) from fleet.run_zones where expanded_at is null))",
            schedule_id,
        )
        if now is None or now > until:
            return
        fleet.tick_until_idle(now)


def served(fleet: Fleet, schedule_id: int) -> dict[int, list[datetime]]:
    """Give when each device was reached."""
    found: dict[int, list[datetime]] = {}
    for command in fleet.commands(schedule_id):
        found.setdefault(command["device_id"], []).append(command["not_before"])
    return {device: sorted(instants) for device, instants in found.items()}


def differences(
    got: dict[int, list[datetime]], wanted: dict[int, list[datetime]], zones: dict[int, str]
) -> list[Any]:
    """Say on which walls it was otherwise."""
    return [
        (zone, got.get(device, []), wanted[device])
        for device, zone in zones.items()
        if got.get(device, []) != wanted[device]
    ]


@pytest.mark.parametrize("seed", range(24))
def test_each_device_runs_when_its_own_wall_says_so(fleet: Fleet, seed: int) -> None:
    compare(fleet, seed, ZONES, 8)


@pytest.mark.parametrize("seed", (100, 101))
def test_zones_whose_clocks_go_alike_are_served_alike(fleet: Fleet, seed: int) -> None:
    """With so many zones most share theirs with others, whom the same decision reaches."""
    names = [row["name"] for row in fleet.rows("select name from fleet.time_zones order by name")]
    compare(fleet, seed, names, 200)


def compare(fleet: Fleet, seed: int, names: Sequence[str], count: int) -> None:
    chance = random.Random(seed)
    plan = any_plan(chance)
    zones = {fleet.device(timezone=zone): zone for zone in chance.sample(names, count)}
    made = fleet.create(
        **plan.spec(), **({"selector": {}} if seed % 2 else {"device_ids": list(zones)})
    )
    until = plan.start.replace(tzinfo=UTC) + SPAN
    let_time_pass(fleet, made["id"], until)
    wanted = {
        device: [instant for instant in instants if instant <= until]
        for device, instants in expected(
            plan, zones, datetime.now(UTC), until.date() + timedelta(days=2)
        ).items()
    }
    assert differences(served(fleet, made["id"]), wanted, zones) == [], plan
    # One row a local occurrence, however many zones it has.
    runs = fleet.runs(made["id"])
    assert len({(run["scheduled_local"], run["fold"]) for run in runs}) == len(runs)
