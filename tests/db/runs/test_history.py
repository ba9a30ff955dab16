"""What the runs of a schedule were, row by row and in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.helpers.fleet import Fleet, Row

LATER = "2999-01-01T00:00:00Z"


NOW = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture
def other(fleet: Fleet) -> Fleet:
    """Give another owner in the same database."""
    return Fleet(fleet.conn)


@pytest.fixture
def person(fleet: Fleet) -> Iterator[Fleet]:
    """Give the fleet with its owner signed in."""
    with fleet.acting(fleet.owner_id):
        yield fleet


def daily(fleet: Fleet, **spec: Any) -> Row:
    return fleet.create(
        **{
            "recurrence_type": "daily",
            "recurrence_config": {"time": "06:30"},
            "start_time": LATER,
            "timezone": "Europe/Berlin",
            "device_ids": [fleet.device()],
            **spec,
        }
    )


def test_history_tells_each_run_in_local_time_page_by_page(fleet: Fleet) -> None:
    start = datetime(2999, 1, 1, 6, 0, tzinfo=UTC)
    made = fleet.minutely([fleet.device()], start, timezone="Europe/Berlin")
    for minute in range(3):
        fleet.tick(start + timedelta(minutes=minute))
    with fleet.acting(fleet.owner_id):
        page = fleet.rows("select * from schedule_history(%s, 2)", made["id"])
        rest = fleet.rows(
            "select * from schedule_history(%s, 50, %s)", made["id"], page[-1]["scheduled_for"]
        )
    assert [row["scheduled_for"] for row in [*page, *rest]] == [
        start + timedelta(minutes=minute) for minute in (2, 1, 0)
    ]
    assert page[0]["local_time"] == datetime(2999, 1, 1, 7, 2)


def test_history_tells_a_range_of_missed_instants_as_one_row(fleet: Fleet) -> None:
    made = fleet.minutely([fleet.device()], NOW, policies={"catchup": "none"})
    fleet.tick(NOW + timedelta(hours=3))
    rows = fleet.rows("select * from schedule_history(%s)", made["id"])
    (missed,) = [row for row in rows if row["missed_count"]]
    assert (missed["status"], missed["reason"]) == ("skipped", "catch-up is off")
    assert missed["missed_count"] > 100


def test_stats_count_only_ones_own(fleet: Fleet, other: Fleet) -> None:
    daily(fleet)
    ran = fleet.create(name="ran", device_ids=[fleet.device()])
    paused = daily(fleet)
    fleet.run("select pause_schedule(%s)", paused["id"])
    daily(other)
    (command,) = fleet.commands(ran["id"])
    device = command["device_id"]
    (claimed,) = fleet.claim(device)
    fleet.finish(device, claimed)
    fleet.tick()

    with fleet.acting(fleet.owner_id):
        stats = fleet.value("select schedule_stats()")
    assert stats["total"] == 3
    assert stats["by_status"] == {"active": 1, "paused": 1, "completed": 1, "cancelled": 0}
    assert stats["by_type"] == {"broadcast_message": 3}
    assert stats["by_recurrence"] == {"daily": 2, "once": 1}
    assert stats["executions"]["by_status"]["completed"] == 1
    assert stats["executions"]["success_rate"] == 100
    assert stats["executions"]["last_24_hours"]["total"] == 1
    assert [row["name"] for row in stats["next_due"]] == ["a schedule"]
    assert [row["name"] for row in stats["slowest"]] == ["ran"]
    assert sum(row["runs"] for row in stats["busiest_hours"]) == 1

    with fleet.refused("PT403", "not_a_person"), fleet.as_device(device):
        fleet.value("select schedule_stats()")


def test_stats_of_nothing_are_zeros(person: Fleet) -> None:
    stats = person.value("select schedule_stats()")
    assert stats["total"] == stats["executions"]["total"] == 0
    assert stats["executions"]["success_rate"] is None
    assert stats["next_due"] == stats["failing"] == []
