"""Device time: one schedule that is due in each device's own local time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.helpers.fleet import Fleet, Row

# Berlin springs forward on 30 March 2031, New York on the 9th.
START = datetime(2031, 3, 28, tzinfo=UTC)
HOUR = timedelta(hours=1)


def daily(fleet: Fleet, *devices: int, **spec: Any) -> Row:
    return fleet.create(
        **{
            "recurrence_type": "daily",
            "recurrence_config": {"time": "06:30"},
            "start_time": START.isoformat(),
            "timezone": "device",
            "device_ids": list(devices),
            **spec,
        }
    )


def pass_hours(fleet: Fleet, start: datetime, hours: int) -> None:
    """Tick at each half hour, as the clock goes by."""
    for number in range(hours):
        fleet.tick_until_idle(start + number * HOUR)
        fleet.tick_until_idle(start + number * HOUR + HOUR / 2)


def local_times(fleet: Fleet, schedule_id: int, device: int, zone: str) -> list[str]:
    """Give when a device was reached, by its own clock."""
    return [
        row["not_before"].astimezone(ZoneInfo(zone)).strftime("%d %H:%M")
        for row in fleet.rows(
            "select not_before from device_commands"
            " where schedule_id = %s and device_id = %s order by not_before",
            schedule_id,
            device,
        )
    ]


def test_each_device_is_reached_at_its_own_time_across_changes_of_the_clock(fleet: Fleet) -> None:
    zones = ("Europe/Berlin", "America/New_York", "Asia/Kolkata")
    devices = {zone: fleet.device(timezone=zone) for zone in zones}
    made = daily(fleet, *devices.values())
    pass_hours(fleet, START, 4 * 24)
    for zone, device in devices.items():
        times = local_times(fleet, made["id"], device, zone)
        assert times == [f"{day} 06:30" for day in (28, 29, 30, 31)], zone
    # A day is one row, whatever the zones.
    runs = fleet.runs(made["id"])
    assert [(run["scheduled_local"].strftime("%d %H:%M"), run["targeted"]) for run in runs] == [
        (f"{day} 06:30", 3) for day in (28, 29, 30, 31)
    ]


def zones_of(fleet: Fleet, run_id: int) -> list[tuple[str, str, str | None]]:
    """Give the zones of a run in the order of their instants, with what became of them."""
    return [
        (", ".join(row["zones"]), row["status"], row["reason"])
        for row in fleet.rows(
            "select zones, status, reason from fleet.run_zones where run_id = %s"
            " order by due_at, id",
            run_id,
        )
    ]


def test_zones_that_share_an_instant_are_expanded_together(fleet: Fleet) -> None:
    devices = [fleet.device(timezone=zone) for zone in ("Europe/Berlin", "Europe/Paris")]
    made = daily(fleet, *devices)
    pass_hours(fleet, START, 24)
    (run,) = fleet.runs(made["id"])
    assert zones_of(fleet, run["id"]) == [("Europe/Berlin, Europe/Paris", "done", None)]
    assert run["targeted"] == 2


def test_a_time_that_the_clocks_of_one_zone_skip_is_moved_for_that_zone(fleet: Fleet) -> None:
    berlin, tokyo = fleet.device(timezone="Europe/Berlin"), fleet.device(timezone="Asia/Tokyo")
    made = daily(fleet, berlin, tokyo, recurrence_config={"time": "02:30"})
    pass_hours(fleet, START, 3 * 24)
    assert local_times(fleet, made["id"], berlin, "Europe/Berlin")[-1] == "30 03:00"
    assert {t[3:] for t in local_times(fleet, made["id"], tokyo, "Asia/Tokyo")} == {"02:30"}
    rules = [run["dst_rule"] for run in fleet.runs(made["id"])]
    assert rules == [None, None, "Europe/Berlin gap:first_instant", None]


def test_a_device_without_a_zone_counts_as_utc(fleet: Fleet) -> None:
    nowhere = fleet.device()
    made = daily(fleet, nowhere, fleet.device(timezone="Asia/Tokyo"))
    pass_hours(fleet, START, 24)
    assert local_times(fleet, made["id"], nowhere, "UTC") == ["28 06:30"]


def test_once_in_device_time_is_the_same_hands_of_the_clock_everywhere(fleet: Fleet) -> None:
    zones = ("Pacific/Auckland", "Europe/Berlin", "America/Los_Angeles")
    devices = {zone: fleet.device(timezone=zone) for zone in zones}
    made = fleet.create(
        start_time="2031-03-29T06:30:00", timezone="device", device_ids=list(devices.values())
    )
    pass_hours(fleet, START, 2 * 24)
    for zone, device in devices.items():
        assert local_times(fleet, made["id"], device, zone) == ["29 06:30"]
    assert fleet.schedule(made["id"])["status"] == "completed"


def test_a_command_lives_until_the_device_is_due_again_not_the_next_zone(fleet: Fleet) -> None:
    berlin, london = fleet.device(timezone="Europe/Berlin"), fleet.device(timezone="Europe/London")
    made = daily(fleet, berlin, london)
    pass_hours(fleet, START, 8)
    lives = [c["expires_at"] - c["not_before"] for c in fleet.commands(made["id"])]
    assert lives == [timedelta(hours=24)] * 2


def test_of_what_was_missed_each_zone_catches_up_its_latest(fleet: Fleet) -> None:
    zones = ("Europe/Athens", "Europe/Berlin", "Europe/London")
    devices = {zone: fleet.device(timezone=zone) for zone in zones}
    made = daily(fleet, *devices.values(), policies={"catchup_window": "12 hours"})
    # Athens is due at 4:30, Berlin at 5:30 and London at 6:30; then nothing ticks for a day.
    fleet.tick(START + 4.5 * HOUR)
    fleet.tick_until_idle(START + (24 + 6) * HOUR)
    ran = {
        zone: [
            row["scheduled_local"].strftime("%d %H:%M")
            for row in fleet.rows(
                "select r.scheduled_local from device_commands as c"
                " join schedule_runs as r on r.id = c.run_id"
                " where c.schedule_id = %s and c.device_id = %s order by 1",
                made["id"],
                device,
            )
        ]
        for zone, device in devices.items()
    }
    assert ran == {
        "Europe/Athens": ["28 06:30", "29 06:30"],
        "Europe/Berlin": ["29 06:30"],
        # What London missed was outside of the window.
        "Europe/London": [],
    }


@pytest.mark.parametrize("catchup", ["none", "latest", "all"])
def test_the_ledger_has_each_local_occurrence_once(fleet: Fleet, catchup: str) -> None:
    zones = ("Asia/Kolkata", "Europe/Berlin", "America/New_York", "Pacific/Chatham")
    made = daily(
        fleet,
        *(fleet.device(timezone=zone) for zone in zones),
        recurrence_type="cron",
        recurrence_config={"cron_expression": "0,15 9-11 * * *"},
        policies={"catchup": catchup, "catchup_window": "20 hours", "catchup_limit": 3},
    )
    now = START
    for hours in (5, 0.2, 30, 0.2, 9, 0):
        now += hours * HOUR
        fleet.tick(now)

    due = fleet.rows(
        "select o.local from schedules as s cross join lateral fleet.local_occurrences("
        " s.recurrence, fleet.schedule_zones(s), %s, %s) as o where s.id = %s",
        START,
        now + timedelta(microseconds=1),
        made["id"],
    )
    held: list[datetime] = []
    for run in fleet.runs(made["id"]):
        within = [
            row["local"]
            for row in due
            if run["scheduled_local"]
            <= row["local"]
            <= (run["missed_to_local"] or run["scheduled_local"])
        ]
        assert len(within) == (run["missed_count"] or 1)
        held += within
    assert sorted(held) == sorted(row["local"] for row in due)


def test_a_device_in_a_new_zone_is_reached_at_its_local_time(fleet: Fleet) -> None:
    made = daily(
        fleet, recurrence_config={"time": "06:30"}, device_ids=[], selector={"tags": ["lab"]}
    )
    fleet.device(timezone="Europe/Berlin", tags=["lab"])
    assert fleet.schedule(made["id"])["next_run_at"] == START + 5.5 * HOUR
    tokyo = fleet.device(timezone="Asia/Tokyo", tags=["lab"])
    pass_hours(fleet, START, 24)
    assert local_times(fleet, made["id"], tokyo, "Asia/Tokyo") == ["29 06:30"]


@pytest.mark.parametrize("how", ["moves", "tag", "member", "selector", "target"])
def test_a_zone_becomes_known_however_its_device_comes_in(fleet: Fleet, how: str) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="lab")["id"]
    berlin, new = fleet.device(timezone="Europe/Berlin"), fleet.device(timezone="Asia/Tokyo")
    if how == "moves":
        fleet.run("update devices set timezone = 'Europe/Berlin' where id = %s", new)
    made = daily(
        fleet,
        *([berlin, new] if how == "moves" else [berlin]),
        group_ids=[group],
        selector={"tags": ["late"]},
    )
    if how == "moves":
        fleet.run("update devices set timezone = 'Asia/Tokyo' where id = %s", new)
    elif how == "tag":
        fleet.run("update devices set tags = '{late}' where id = %s", new)
    elif how == "member":
        fleet.insert("device_group_members", owner_id=fleet.owner_id, group_id=group, device_id=new)
    elif how == "selector":
        fleet.run("update devices set platform = 'plan9' where id = %s", new)
        fleet.run(
            'update device_groups set selector = \'{"platform": "plan9"}\' where id = %s', group
        )
    else:
        fleet.run("update schedules set device_ids = %s where id = %s", [berlin, new], made["id"])
    pass_hours(fleet, START, 24)
    assert local_times(fleet, made["id"], new, "Asia/Tokyo") == ["29 06:30"]


def test_a_device_that_is_only_seen_costs_no_schedule_a_look(fleet: Fleet) -> None:
    made = daily(fleet, fleet.device(timezone="Europe/Berlin"))
    other = fleet.device(timezone="Asia/Tokyo")
    before = fleet.value("select xmin::text from schedules where id = %s", made["id"])
    fleet.run("update devices set last_seen = now() where id = %s", other)
    assert fleet.value("select xmin::text from schedules where id = %s", made["id"]) == before


def test_a_device_that_left_a_zone_is_not_reached_at_its_time(fleet: Fleet) -> None:
    device = fleet.device(timezone="Asia/Tokyo")
    made = daily(fleet, device)
    fleet.tick(START)
    fleet.run("update devices set timezone = 'Europe/Berlin' where id = %s", device)
    pass_hours(fleet, START, 2 * 24)
    assert local_times(fleet, made["id"], device, "Europe/Berlin") == ["28 06:30", "29 06:30"]
    assert {run["reason"] for run in fleet.runs(made["id"])} <= {
        None,
        "no targets",
        "1 of 1 commands did not complete",
    }


def test_a_zone_that_came_during_a_pause_is_known_when_it_ends(fleet: Fleet) -> None:
    berlin = fleet.device(timezone="Europe/Berlin")
    made = daily(fleet, berlin, device_ids=[], selector={})
    fleet.run("select pause_schedule(%s)", made["id"])
    tokyo = fleet.device(timezone="Asia/Tokyo")
    fleet.run("select resume_schedule(%s)", made["id"])
    pass_hours(fleet, START, 24)
    assert local_times(fleet, made["id"], tokyo, "Asia/Tokyo") == ["29 06:30"]


def test_the_pause_of_a_schedule_in_device_time_is_told_in_one_row(fleet: Fleet) -> None:
    devices = [fleet.device(timezone=zone) for zone in ("Asia/Tokyo", "Europe/Berlin")]
    made = daily(fleet, *devices, start_time="2020-01-01T00:00:00Z")
    fleet.run("select pause_schedule(%s)", made["id"])
    fleet.run("update schedules set next_run_at = next_run_at - interval '3 days'")
    fleet.run("select resume_schedule(%s)", made["id"])
    paused, *rest = fleet.runs(made["id"])
    # Three days, whatever the hour; past the time in Tokyo and not yet in Berlin a fourth goes on.
    assert (paused["reason"], paused["missed_count"]) == ("paused", 3)
    assert [run["status"] for run in rest] in ([], ["pending"])


def test_an_error_of_a_schedule_in_device_time_does_not_end_it(fleet: Fleet) -> None:
    made = daily(fleet, fleet.device(timezone="Asia/Tokyo"))
    fleet.run("alter table schedules disable trigger user")
    fleet.run('update schedules set policies = \'{"catchup_window": "?"}\'')
    fleet.run("alter table schedules enable trigger user")
    fleet.tick(START + 21.5 * HOUR)
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["reason"]) == ("failed", "error")
    row = fleet.schedule(made["id"])
    assert (row["status"], row["next_run_at"]) == ("active", START + 45.5 * HOUR)
