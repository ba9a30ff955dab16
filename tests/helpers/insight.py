"""Short ways to ask what a schedule will do and why it did what it did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.helpers.fleet import Fleet, Row

NOON = datetime(2100, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def explain(
    fleet: Fleet, schedule: Row, at: datetime, now: datetime, device: int | None = None
) -> Row:
    """Ask as the owner why a schedule did what it did."""
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value(
            "select public.explain_schedule(%s, %s, %s, %s)", schedule["id"], at, device, now
        )
    return answer


def verdict(
    fleet: Fleet, schedule: Row, at: datetime, now: datetime, device: int | None = None
) -> tuple[str, str]:
    """Give the verdict and the reason alone."""
    answer = explain(fleet, schedule, at, now, device)
    return answer["verdict"], answer["reason"]


def rows(fleet: Fleet, call: str, *values: Any) -> list[Row]:
    """Ask as the owner for the rows of a function."""
    with fleet.acting(fleet.owner_id):
        return fleet.rows(f"select * from public.{call}", *values)


def daily(fleet: Fleet, devices: list[int], **spec: Any) -> Row:
    """Create a schedule that is due each day at noon, from NOON on."""
    return fleet.create(
        **{
            "recurrence_type": "daily",
            "recurrence_config": {"time": "12:00"},
            "start_time": NOON.isoformat(),
            "device_ids": devices,
            **spec,
        }
    )


def finish_all(fleet: Fleet, device: int, now: datetime, status: str = "completed") -> None:
    """Let a device claim all it has and finish it."""
    for command in fleet.claim(device, 100, now=now):
        fleet.finish(
            device, command, status, now=now, reason=None if status == "completed" else "forbidden"
        )
