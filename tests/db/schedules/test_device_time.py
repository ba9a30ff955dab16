"""One schedule that is due in each device's own local time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.helpers.fleet import Fleet

BASE = datetime(2031, 1, 1, tzinfo=UTC)


def test_each_device_is_reached_at_its_own_hour(fleet: Fleet) -> None:
    kolkata = fleet.device(timezone="Asia/Kolkata")
    berlin = fleet.device(timezone="Europe/Berlin")
    nowhere = fleet.device()
    made = fleet.create(
        selector={},
        timezone="device",
        recurrence_type="daily",
        recurrence_config={"time": "09:00"},
        start_time=BASE.isoformat(),
    )
    reached = {}
    for hour in range(0, 24):
        for minute in (0, 30):
            now = BASE + timedelta(hours=hour, minutes=minute)
            before = {command["id"] for command in fleet.commands(made["id"])}
            fleet.tick(now)
            for command in fleet.commands(made["id"]):
                if command["id"] not in before:
                    reached[command["device_id"]] = now
    assert reached == {
        kolkata: BASE + timedelta(hours=3, minutes=30),
        berlin: BASE + timedelta(hours=8),
        nowhere: BASE + timedelta(hours=9),
    }


def test_a_stop_over_several_zones_loses_none_of_them(fleet: Fleet) -> None:
    devices = [fleet.device(timezone=zone) for zone in ("Asia/Kolkata", "Asia/Kathmandu")]
    made = fleet.create(
        selector={},
        timezone="device",
        recurrence_type="daily",
        recurrence_config={"time": "09:00"},
        start_time=BASE.isoformat(),
        policies={"catchup_window": "2 hours"},
    )
    # Kathmandu is due at 3:15, Kolkata at 3:30; the first tick comes at four.
    fleet.tick_until_idle(BASE + timedelta(hours=4))
    assert sorted(command["device_id"] for command in fleet.commands(made["id"])) == devices
