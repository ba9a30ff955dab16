"""Time zones that a server loses, has under another name, or goes by new rules for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

LOST = "Mars/Olympus"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def daily(fleet: Fleet, **spec: Any) -> Row:
    return fleet.create(
        **{"recurrence_type": "daily", "recurrence_config": {"time": "06:30"}, **spec}
    )


def lose_zone(fleet: Fleet, table: str, row_id: int) -> None:
    """Let a row name a zone that the server had when it was written."""
    fleet.run("insert into fleet.time_zones (name) values (%s) on conflict do nothing", LOST)
    fleet.run(f"alter table {table} disable trigger user")
    fleet.run(f"update {table} set timezone = %s where id = %s", LOST, row_id)
    if table == "schedules":
        fleet.run(
            "update schedules set recurrence = recurrence || %s where id = %s",
            Jsonb({"clock": LOST, "timezone": LOST}),
            row_id,
        )
    fleet.run(f"alter table {table} enable trigger user")


def test_one_device_in_a_lost_zone_stops_no_other(fleet: Fleet) -> None:
    lost, here = fleet.device(timezone="Asia/Tokyo"), fleet.device(timezone="Europe/Berlin")
    lose_zone(fleet, "devices", lost)
    fleet.run("update fleet.owner_zones set zone = %s where zone = 'Asia/Tokyo'", LOST)
    made = daily(fleet, timezone="device", selector={}, start_time="2031-01-01T00:00:00Z")
    assert made["next_run_at"].startswith("2031-01-01T05:30")
    fleet.tick_until_idle(datetime(2031, 1, 1, 5, 30, tzinfo=UTC))
    assert [command["device_id"] for command in fleet.commands(made["id"])] == [here]
    answer = fleet.value(
        "select explain_schedule(%s, '2031-01-01T05:30:00Z', %s)", made["id"], lost
    )
    assert (answer["reason"], answer["detail"]) == (
        "the server does not have the time zone of the device",
        LOST,
    )
    assert fleet.value("select fleet_status()")["zones"]["lost"] == [
        {"zone": LOST, "devices": 1, "schedules": []}
    ]


@pytest.mark.parametrize("zone", ["device", "Europe/Berlin"])
def test_one_schedule_in_a_lost_zone_breaks_no_look_at_all_of_them(fleet: Fleet, zone: str) -> None:
    device = fleet.device(timezone="Europe/Berlin")
    lost = daily(fleet, name="lost", timezone="Asia/Tokyo", device_ids=[device])
    daily(fleet, name="here", timezone=zone, device_ids=[device])
    lose_zone(fleet, "schedules", lost["id"])

    simulated = fleet.rows("select * from simulate_fleet(%s, %s)", NOW, NOW + 2 * DAY)
    reasons = {row["name"]: row["reason"] for row in simulated}
    assert reasons == {"here": None, "lost": f"the server does not have the time zone {LOST}"}
    days = fleet.rows("select * from schedule_calendar(%s, %s)", NOW.date(), (NOW + 3 * DAY).date())
    assert {row["name"] for row in days} == {"here", "lost"}
    text = fleet.value("select calendar_ics('{}', %s, %s)", NOW, NOW + 2 * DAY)
    assert "SUMMARY:here" in text
    assert "the server does not have their time zones: lost." in text.replace("\r\n ", "")
    exported = fleet.value("select export_schedules('{}', %s)", fleet.owner_id)
    assert "lost" in str(exported)
    assert fleet.value("select fleet_status()")["zones"]["lost"] == [
        {"zone": LOST, "devices": 0, "schedules": ["lost"]}
    ]
    # Its turn comes: it is paused with the reason, the other one runs.
    fleet.tick_until_idle(NOW + 1.5 * DAY)
    row = fleet.schedule(lost["id"])
    assert row["status"] == "paused"
    assert LOST in row["status_reason"]


@pytest.mark.parametrize(
    ("old", "new"), [("US/Pacific", "America/Los_Angeles"), ("Asia/Calcutta", "Asia/Kolkata")]
)
def test_an_old_name_has_the_clock_of_the_new_one(fleet: Fleet, old: str, new: str) -> None:
    assert fleet.value("select fleet.zone_aliases() ->> %s", old) == new
    at = "2031-07-01 06:30"
    assert fleet.value("select fleet.local_to_instant(%s, %s)", at, old) == fleet.value(
        "select fleet.local_to_instant(%s, %s)", at, new
    )


def test_a_schedule_whose_zone_has_another_name_now_goes_on(fleet: Fleet) -> None:
    made = daily(fleet, timezone="Asia/Tokyo", device_ids=[fleet.device()])
    # Compiled when the server had it under a name that is gone.
    fleet.run("alter table schedules disable trigger user")
    fleet.run("update schedules set recurrence = recurrence || %s", Jsonb({"clock": LOST}))
    fleet.run("alter table schedules enable trigger user")
    due = fleet.schedule(made["id"])["next_run_at"]
    fleet.tick_until_idle(due)
    fleet.tick_until_idle(due)
    row = fleet.schedule(made["id"])
    assert (row["status"], row["recurrence"]["clock"]) == ("active", "Asia/Tokyo")
    assert [run["status"] for run in fleet.runs(made["id"])] == ["running"]


def test_new_rules_of_a_zone_are_noticed_once_and_what_is_stored_computed_anew(
    fleet: Fleet,
) -> None:
    devices = [fleet.device(timezone=zone) for zone in ("Europe/Berlin", "America/New_York")]
    fixed = daily(fleet, timezone="America/New_York", device_ids=devices)
    by_device = daily(fleet, timezone="device", device_ids=devices)
    first = fleet.schedule(by_device["id"])["next_run_at"]
    fleet.tick_until_idle(first)
    fleet.value("select fleet.check_zones(%s, 1000)", first)
    waiting = fleet.rows("select due_at, zones from fleet.run_zones where status = 'waiting'")

    # As if all of it had been computed by rules that are an hour off.
    fleet.run("update schedules set next_run_at = next_run_at + interval '1 hour'")
    fleet.run(
        "update fleet.run_zones set due_at = due_at + interval '1 hour',"
        " starts_at = starts_at + interval '1 hour' where status = 'waiting'"
    )
    fleet.run(
        "update fleet.time_zones set rules = left(rules, 5) || 'other', checked_at = null"
        " where name = 'America/New_York'"
    )
    assert fleet.tick(first + timedelta(seconds=1))["zones_changed"] == 1
    assert fleet.tick(first + timedelta(seconds=2))["zones_changed"] == 0
    assert (
        fleet.rows("select due_at, zones from fleet.run_zones where status = 'waiting'") == waiting
    )
    local = fleet.value(
        "select next_run_at at time zone 'America/New_York' from schedules where id = %s",
        fixed["id"],
    )
    assert (local.hour, local.minute) == (6, 30)
    noted = fleet.value("select fleet_status()")["zones"]["changed_last_month"]
    assert [row["zone"] for row in noted] == ["America/New_York"]
