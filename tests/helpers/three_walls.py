"""One day on three walls of the earth: a schedule by device time, and what became of it where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.helpers.fleet import Fleet, Row

EAST, MIDDLE, WEST = "Pacific/Kiritimati", "Europe/Berlin", "Pacific/Honolulu"
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# Half past six on 11 January 2031, on each wall.
AT_EAST = datetime(2031, 1, 10, 16, 30, tzinfo=UTC)
AT_MIDDLE = datetime(2031, 1, 11, 5, 30, tzinfo=UTC)
AT_WEST = datetime(2031, 1, 11, 16, 30, tzinfo=UTC)


@pytest.fixture
def three(fleet: Fleet) -> dict[str, int]:
    return {zone: fleet.device(zone.lower(), timezone=zone) for zone in (EAST, MIDDLE, WEST)}


def daily(fleet: Fleet, **spec: Any) -> Row:
    return fleet.create(
        **{
            "recurrence_type": "daily",
            "recurrence_config": {"time": "06:30"},
            "start_time": "2031-01-11T00:00:00",
            "timezone": "device",
            "selector": {},
            **spec,
        }
    )


def pass_time(fleet: Fleet, until: datetime) -> None:
    """Tick whenever something is due, up to an instant."""
    while True:
        now = fleet.value(
            "select least((select min(next_run_at) from schedules where status = 'active'),"
            " (select min(starts_at) from fleet.run_zones where expanded_at is null))"
        )
        if now is None or now > until:
            fleet.tick_until_idle(until)
            return
        fleet.tick_until_idle(now)


def reached(fleet: Fleet, made: Row) -> dict[str, list[str]]:
    """Give what the walls showed when each device was reached."""
    found: dict[str, list[str]] = {}
    for row in fleet.rows(
        "select c.device_hostname, c.not_before, d.timezone from device_commands as c"
        " join devices as d on d.id = c.device_id where c.schedule_id = %s order by c.not_before",
        made["id"],
    ):
        zone = ZoneInfo(row["timezone"] or "UTC")
        found.setdefault(row["device_hostname"], []).append(
            row["not_before"].astimezone(zone).strftime("%d %H:%M")
        )
    return found


def zones(fleet: Fleet, made: Row, day: int) -> dict[str, tuple[str, str | None]]:
    """Give what became of each zone of a day's run."""
    return {
        zone: (row["status"], row["reason"])
        for row in fleet.rows(
            "select z.zones, z.status, z.reason from fleet.run_zones as z"
            " join schedule_runs as r on r.id = z.run_id"
            " where r.schedule_id = %s and extract(day from r.scheduled_local) = %s order by z.id",
            made["id"],
            day,
        )
        for zone in row["zones"]
    }
