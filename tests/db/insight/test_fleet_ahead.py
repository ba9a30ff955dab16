"""The whole fleet ahead: conflicts, simulation and the days of a calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from tests.helpers.fleet import Fleet, Row
from tests.helpers.insight import DAY, HOUR, MINUTE, NOON, daily, finish_all, rows

WEEK = 7 * DAY


def conflicts(fleet: Fleet, one: Row | None = None, within: str = "0") -> list[Row]:
    return rows(
        fleet,
        "schedule_conflicts(%s, %s, %s, %s::interval)",
        one and one["id"],
        NOON,
        NOON + WEEK,
        within,
    )


def test_schedules_that_meet_on_the_same_devices(fleet: Fleet) -> None:
    shared, mine, other = (fleet.device(name) for name in ("shared", "mine", "other"))
    first = daily(fleet, [shared, mine], name="first")
    second = daily(fleet, [shared, other], name="second")
    daily(fleet, [other], name="third", recurrence_config={"time": "18:00"})
    (found,) = conflicts(fleet)

    assert (found["schedule"], found["other_schedule"]) == ("first", "second")
    assert (found["times"], found["devices"], found["first_at"]) == (7, 1, NOON)
    assert found["example_hostnames"] == ["shared"]
    assert found["example_times"] == [NOON, NOON + DAY, NOON + 2 * DAY]
    assert [row["other_schedule_id"] for row in conflicts(fleet, second)] == [first["id"]]


def test_close_to_each_other_and_never_on_the_same_device(fleet: Fleet) -> None:
    device = fleet.device()
    daily(fleet, [device], name="first")
    daily(fleet, [device], name="near", recurrence_config={"time": "12:04"})
    daily(fleet, [fleet.device()], name="elsewhere")

    assert conflicts(fleet) == []
    (found,) = conflicts(fleet, within="5 minutes")
    assert found["other_first_at"] - found["first_at"] == 4 * MINUTE


def test_device_time_meets_only_in_its_zone(fleet: Fleet) -> None:
    berlin, tokyo = fleet.device(timezone="Europe/Berlin"), fleet.device(timezone="Asia/Tokyo")
    daily(fleet, [berlin, tokyo], name="own", timezone="device")
    daily(fleet, [berlin, tokyo], name="fixed", timezone="Europe/Berlin")
    (found,) = conflicts(fleet)

    assert found["devices"] == 1


def test_what_will_be_skipped_is_no_conflict(fleet: Fleet) -> None:
    device = fleet.device()
    daily(fleet, [device], name="first")
    window = {"execution_window": {"from": "01:00", "to": "02:00"}}
    daily(fleet, [device], name="never", policies=window)

    assert conflicts(fleet) == []


@pytest.mark.parametrize(
    ("to", "within"), [(NOON, "0"), (NOON + 400 * DAY, "0"), (NOON + DAY, "-1 s")]
)
def test_spans_of_conflicts_have_bounds(fleet: Fleet, to: datetime, within: str) -> None:
    with fleet.acting(fleet.owner_id), pytest.raises(Exception, match=r"not a (span|duration)"):
        fleet.rows("select * from schedule_conflicts(null, %s, %s, %s::interval)", NOON, to, within)


def simulate(fleet: Fleet, start: datetime, end: datetime, limit: int = 100) -> list[Row]:
    return rows(fleet, "simulate_fleet(%s, %s, %s)", start, end, limit)


def test_what_the_fleet_would_do_in_the_order_of_time(fleet: Fleet) -> None:
    device = fleet.device()
    first = daily(fleet, [device], name="first")
    hourly = fleet.create(
        name="hourly",
        recurrence_type="interval",
        recurrence_config={"hours": 1},
        start_time=(NOON - HOUR).isoformat(),
        selector={},
        policies={"execution_window": {"from": "12:00", "to": "13:00"}},
    )
    fleet.create(name="then", selector={}, after={"schedule_id": first["id"]})
    paused = daily(fleet, [device], name="paused")
    fleet.run("select pause_schedule(%s, 'exams')", paused["id"])
    before = fleet.value("select count(*) from schedule_runs")
    found = simulate(fleet, NOON - HOUR, NOON + 2 * HOUR)

    assert [(row["due_at"], row["name"], row["would"]) for row in found] == [
        (NOON - HOUR, "hourly", "skip"),
        (NOON, "first", "run"),
        (NOON, "hourly", "run"),
        (NOON, "paused", "skip"),
        (NOON, "then", "follow"),
        (NOON + HOUR, "hourly", "skip"),
    ]
    reasons = {row["name"]: row["reason"] for row in found}
    assert reasons["paused"] == "paused: exams"
    assert reasons["then"] == 'when the run of "first" has completed'
    assert reasons["hourly"] == "outside the execution window"
    assert fleet.value("select count(*) from schedule_runs") == before
    assert [row["schedule_id"] for row in simulate(fleet, NOON, NOON + DAY, 1)] == [first["id"]]
    assert hourly["id"] in {row["schedule_id"] for row in found}


def test_the_simulation_is_what_the_engine_then_does(fleet: Fleet) -> None:
    device = fleet.device()
    shapes: list[dict[str, Any]] = [
        {},
        {"max_runs": 3},
        {"execution_window": {"from": "12:02", "to": "12:04"}},
        {"execution_window": {"from": "12:02", "to": "12:04", "outside": "wait"}},
    ]
    for policies in shapes:
        fleet.minutely(
            [device], NOON, policies=policies | {"overlap": "allow", "max_concurrent": 50}
        )
    expected = simulate(fleet, NOON, NOON + 6 * MINUTE)
    for minutes in range(6):
        fleet.tick(NOON + minutes * MINUTE)
    told = fleet.rows(
        "select scheduled_for, schedule_id, case status when 'skipped' then 'skip' else 'run' end"
        " as would, coalesce(not_before, scheduled_for) as starts_at from schedule_runs"
        " order by scheduled_for, schedule_id"
    )

    assert len(told) == 21
    assert [(r["scheduled_for"], r["schedule_id"], r["would"]) for r in told] == [
        (row["due_at"], row["schedule_id"], row["would"]) for row in expected
    ]
    assert [r["starts_at"] for r in told if r["would"] == "run"] == [
        row["starts_at"] for row in expected if row["would"] == "run"
    ]


def test_what_is_overdue_is_decided_first(fleet: Fleet) -> None:
    made = fleet.minutely([fleet.device()], NOON)
    now = NOON + 10 * MINUTE
    found = rows(fleet, "simulate_fleet(%s, %s, 100, %s)", now, now + 2 * MINUTE, now)

    assert [(row["would"], row["reason"]) for row in found] == [
        ("skip", "superseded by a later instant"),
        ("run", None),
        ("run", None),
    ]
    assert found[1]["due_at"] == now
    assert made["id"] == found[0]["schedule_id"]


def calendar(fleet: Fleet, start: date, end: date, zone: str, now: datetime) -> list[Row]:
    return rows(fleet, "schedule_calendar(%s, %s, %s, %s)", start, end, zone, now)


def test_days_with_what_was_and_what_comes(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.create(
        recurrence_type="interval",
        recurrence_config={"hours": 6},
        start_time=NOON.isoformat(),
        device_ids=[device],
    )
    fleet.tick(NOON)
    finish_all(fleet, device, NOON)
    fleet.tick(NOON + 5 * HOUR)
    first, second = calendar(fleet, date(2100, 1, 1), date(2100, 1, 3), "UTC", NOON + 5 * HOUR)

    assert (first["day"], second["day"]) == (date(2100, 1, 1), date(2100, 1, 2))
    assert (first["completed"], first["coming"], second["coming"]) == (1, 1, 4)
    assert (first["first_local"], first["schedule_id"]) == ("Fri 2100-01-01 12:00", made["id"])


def test_days_are_those_of_the_zone_and_skips_are_told(fleet: Fleet) -> None:
    window = {"execution_window": {"from": "01:00", "to": "02:00"}}
    daily(fleet, [fleet.device()], policies=window, recurrence_config={"time": "22:00"})
    (row,) = calendar(fleet, date(2100, 1, 2), date(2100, 1, 3), "Asia/Tokyo", NOON)

    assert (row["coming"], row["skipping"], row["first_local"]) == (0, 1, "Sat 2100-01-02 07:00")


def test_days_of_what_was_missed_count_each(fleet: Fleet) -> None:
    fleet.minutely([fleet.device()], NOON)
    fleet.tick(NOON + 30 * MINUTE)
    (row,) = calendar(fleet, date(2100, 1, 1), date(2100, 1, 2), "UTC", NOON + DAY)

    assert (row["skipped"], row["running"], row["coming"]) == (30, 1, 0)


def test_a_day_of_23_hours(fleet: Fleet) -> None:
    fleet.create(
        recurrence_type="interval",
        recurrence_config={"hours": 1},
        start_time="2027-03-01T00:00:00Z",
        device_ids=[fleet.device()],
    )
    (row,) = calendar(
        fleet,
        date(2027, 3, 28),
        date(2027, 3, 29),
        "Europe/Berlin",
        datetime(2027, 3, 1, tzinfo=UTC),
    )

    assert row["coming"] == 23


def test_calendars_have_bounds(fleet: Fleet) -> None:
    with fleet.refused("PT422", "span_invalid"), fleet.acting(fleet.owner_id):
        fleet.rows("select * from schedule_calendar('2100-01-01', '2100-01-01')")
    with fleet.refused("PT422", "timezone_invalid"), fleet.acting(fleet.owner_id):
        fleet.rows("select * from schedule_calendar('2100-01-01', '2100-01-02', 'Mars')")


def test_a_thousand_schedules_are_simulated_quickly(fleet: Fleet) -> None:
    fleet.device()
    for _ in range(3):
        fleet.minutely([], NOON, selector={})
    started = datetime.now(UTC)
    found = simulate(fleet, NOON, NOON + 300 * DAY, 2000)

    assert len(found) == 2000
    assert datetime.now(UTC) - started < timedelta(seconds=10)


def test_the_time_of_a_day_is_the_first_that_runs(fleet: Fleet) -> None:
    fleet.create(
        recurrence_type="interval",
        recurrence_config={"hours": 1},
        start_time=NOON.isoformat(),
        device_ids=[fleet.device()],
        policies={"execution_window": {"from": "15:00", "to": "17:00"}},
    )
    (row,) = calendar(fleet, date(2100, 1, 1), date(2100, 1, 2), "UTC", NOON)

    assert (row["coming"], row["skipping"], row["first_local"]) == (2, 10, "Fri 2100-01-01 15:00")
