"""What counts and bounds a schedule by device time: local occurrences, by rule."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.three_walls import (
    AT_EAST,
    AT_MIDDLE,
    AT_WEST,
    DAY,
    EAST,
    HOUR,
    MIDDLE,
    WEST,
    daily,
    pass_time,
    reached,
    three,
    zones,
)

__all__ = ["three"]


@pytest.mark.parametrize("how", ["max_runs", "COUNT"])
def test_what_is_counted_runs_as_often_on_every_wall(
    fleet: Fleet, three: dict[str, int], how: str
) -> None:
    if how == "COUNT":
        made = fleet.create(
            rrule="FREQ=DAILY;COUNT=2",
            start_time="2031-01-11T06:30:00",
            timezone="device",
            selector={},
            policies={"overlap": "allow"},
        )
    else:
        made = daily(fleet, policies={"max_runs": 2, "overlap": "allow"})
    pass_time(fleet, AT_EAST + DAY)
    # Nothing more is booked; what is under way goes on.
    row = fleet.schedule(made["id"])
    assert (row["status"], row["status_reason"]) == ("completed", "max_runs reached")
    pass_time(fleet, AT_WEST + 4 * DAY)
    assert reached(fleet, made) == {zone.lower(): ["11 06:30", "12 06:30"] for zone in three}


def test_a_run_that_reaches_nobody_is_given_back(fleet: Fleet) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="later")["id"]
    for zone in (EAST, WEST):
        fleet.device(timezone=zone)
    made = daily(fleet, selector=None, group_ids=[group], policies={"max_runs": 1})
    pass_time(fleet, AT_EAST + HOUR)
    assert fleet.schedule(made["id"])["status"] == "completed"
    fleet.device("new", timezone=EAST)
    fleet.run(
        "insert into device_group_members select %s, id from devices where hostname = 'new'", group
    )
    pass_time(fleet, AT_WEST)
    row = fleet.schedule(made["id"])
    # On the wall of the east the next day has gone by already: it begins where all are ahead.
    assert (row["status"], row["next_run_at"]) == ("active", AT_EAST + 2 * DAY)
    pass_time(fleet, AT_WEST + 3 * DAY)
    assert reached(fleet, made) == {"new": ["13 06:30"]}
    assert fleet.runs(made["id"])[0]["reason"] == "no targets"


def test_bounds_without_an_offset_are_read_on_each_wall(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(
        fleet,
        start_time="2031-01-11T06:30:00",
        end_time="2031-01-12T06:30:00",
        policies={"overlap": "allow"},
    )
    pass_time(fleet, AT_WEST + 3 * DAY)
    assert reached(fleet, made) == {zone.lower(): ["11 06:30", "12 06:30"] for zone in three}


def test_bounds_with_an_offset_are_one_instant_for_everybody(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(
        fleet,
        start_time="2031-01-11T00:00:00Z",
        end_time="2031-01-12T00:00:00Z",
        policies={"overlap": "allow"},
    )
    pass_time(fleet, AT_WEST + 3 * DAY)
    assert reached(fleet, made) == {
        EAST.lower(): ["12 06:30"],
        MIDDLE.lower(): ["11 06:30"],
        WEST.lower(): ["11 06:30"],
    }


def test_days_are_counted_on_the_wall_and_hours_by_the_clock(
    fleet: Fleet, three: dict[str, int]
) -> None:
    start = "2031-01-11T06:30:00"
    days = fleet.create(
        recurrence_type="interval",
        recurrence_config={"days": 2},
        start_time=start,
        timezone="device",
        selector={},
        policies={"overlap": "allow"},
    )
    pass_time(fleet, AT_WEST + 2 * DAY)
    assert set(map(tuple, reached(fleet, days).values())) == {("11 06:30", "13 06:30")}


def test_after_an_outage_each_zone_catches_up_its_own_latest(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(fleet, policies={"overlap": "allow", "catchup_window": "12 hours"})
    # Two days without a tick, up to just before the 13th comes to the west.
    fleet.tick_until_idle(AT_WEST + 2 * DAY - HOUR)
    ran = fleet.rows(
        "select r.scheduled_local::date::text as day, d.timezone, r.trigger"
        " from device_commands as c join schedule_runs as r on r.id = c.run_id"
        " join devices as d on d.id = c.device_id where c.schedule_id = %s order by 1, 2",
        made["id"],
    )
    assert [(row["day"][-2:], row["timezone"]) for row in ran] == [("13", MIDDLE)]
    missed, *_ = fleet.runs(made["id"])
    assert (missed["scheduled_local"].day, missed["missed_to_local"].day) == (11, 12)
    assert missed["missed_count"] == 2


def test_a_follower_starts_once_when_all_zones_are_through(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(fleet)
    follower = fleet.create(after={"schedule_id": made["id"]}, selector={})
    for zone, at in ((EAST, AT_EAST), (MIDDLE, AT_MIDDLE), (WEST, AT_WEST)):
        pass_time(fleet, at)
        assert fleet.runs(follower["id"]) == []
        (command,) = fleet.claim(three[zone], now=at + HOUR / 6)
        fleet.finish(three[zone], command, now=at + HOUR / 3)
    fleet.tick_until_idle(AT_WEST + HOUR)
    fleet.tick_until_idle(AT_WEST + HOUR)
    assert [run["targeted"] for run in fleet.runs(follower["id"])] == [3]


def test_a_morning_that_fails_everywhere_is_one_failure(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(fleet, policies={"pause_on_failure": 2, "retry": {"attempts": 1}})
    for day in (0, 1):
        for zone, at in ((EAST, AT_EAST), (MIDDLE, AT_MIDDLE), (WEST, AT_WEST)):
            pass_time(fleet, at + day * DAY)
            (command,) = fleet.claim(three[zone], now=at + day * DAY + HOUR / 6)
            fleet.finish(three[zone], command, "failed", now=at + day * DAY + HOUR / 3)
        pass_time(fleet, AT_WEST + day * DAY + HOUR)
        status = fleet.schedule(made["id"])["status"]
        assert status == ("active" if day == 0 else "paused")


def test_what_is_too_dense_is_refused_with_another_way(fleet: Fleet) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "schedule_invalid", "device_time_too_dense"):
        fleet.create(
            recurrence_type="cron",
            recurrence_config={"cron_expression": "*/4 * * * *"},
            timezone="device",
            device_ids=[device],
        )
    fleet.create(
        recurrence_type="cron",
        recurrence_config={"cron_expression": "*/5 * * * *"},
        timezone="device",
        device_ids=[device],
    )


@pytest.mark.parametrize(
    ("policy", "expected"), [("utc", 6.5), ("owner", 5.5), ("skip", None), (None, 5.5)]
)
def test_devices_without_a_zone_go_by_what_is_said_of_them(
    fleet: Fleet, policy: str | None, expected: float | None
) -> None:
    fleet.run("update owners set timezone = 'Europe/Berlin' where id = %s", fleet.owner_id)
    fleet.device("nowhere")
    made = daily(fleet, policies={"unknown_zone": policy} if policy else {})
    assert any(warning.startswith("nowhere has no time zone") for warning in made["warnings"])
    pass_time(fleet, datetime(2031, 1, 11, 12, tzinfo=UTC))
    at = [command["not_before"] for command in fleet.commands(made["id"])]
    day = datetime(2031, 1, 11, tzinfo=UTC)
    assert at == ([] if expected is None else [day + expected * HOUR])


def test_a_run_by_hand_is_one_instant_for_everybody(fleet: Fleet, three: dict[str, int]) -> None:
    made = daily(fleet)
    run = fleet.row("select * from run_schedule(%s)", made["id"])
    assert (run["scheduled_local"], run["targeted"]) == (None, 3)


def test_where_nobody_is_meant_the_time_is_that_of_the_owner(fleet: Fleet) -> None:
    fleet.run("update owners set timezone = 'Europe/Berlin' where id = %s", fleet.owner_id)
    made = daily(fleet)
    pass_time(fleet, AT_MIDDLE)
    (run,) = fleet.runs(made["id"])
    assert (run["scheduled_for"], run["status"], run["reason"]) == (
        AT_MIDDLE,
        "skipped",
        "no targets",
    )


def test_who_made_it_in_the_middle_of_a_day_hears_which_zones_missed_it(fleet: Fleet) -> None:
    now = datetime.now(UTC)
    for zone in (EAST, "Etc/GMT+12"):
        fleet.device(timezone=zone)
    # Later than now on the last wall of the earth, earlier on the first.
    wall = (now - 12 * HOUR + HOUR).replace(second=0, microsecond=0)
    made = daily(
        fleet, start_time="2020-01-01T00:00:00", recurrence_config={"time": f"{wall:%H:%M}"}
    )
    assert any(f"has passed in {EAST}" in warning for warning in made["warnings"])
    pass_time(fleet, now + 2 * HOUR)
    (run, *_) = fleet.runs(made["id"])
    assert zones(fleet, made, run["scheduled_local"].day)["Etc/GMT+12"][0] == "done"


@pytest.mark.parametrize(
    ("start", "time"),
    [
        ("2031-05-05T06:30:00+02:00", "13:30"),
        ("2031-05-05T04:45:00Z", "13:45"),
        ("2031-05-05T06:30:00", "06:30"),
    ],
)
def test_a_rule_takes_its_time_of_day_from_the_owners_wall_where_its_start_is_an_instant(
    fleet: Fleet, start: str, time: str
) -> None:
    fleet.run("update owners set timezone = 'Asia/Tokyo' where id = %s", fleet.owner_id)
    made = fleet.create(
        rrule="FREQ=DAILY",
        start_time=start,
        timezone="device",
        device_ids=[fleet.device(timezone="Europe/Berlin")],
    )
    assert made["recurrence_config"]["time"].startswith(time)
