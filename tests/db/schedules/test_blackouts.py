"""Blackout calendars: named times in which schedules that name them do not run."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.helpers.fleet import Fleet, Row

AUCKLAND = ZoneInfo("Pacific/Auckland")
HOLIDAY = date(2031, 6, 3)
BASE = datetime(2031, 1, 7, 9, tzinfo=UTC)


def calendar(fleet: Fleet, name: str = "School holidays", **period: Any) -> int:
    """Make a calendar with one period, the holiday where nothing else is said."""
    made = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name=name)
    days = {"starts_on": HOLIDAY, "ends_on": HOLIDAY + timedelta(days=1)}
    fleet.insert(
        "blackout_periods",
        owner_id=fleet.owner_id,
        calendar_id=made["id"],
        **(period or days),
    )
    calendar_id: int = made["id"]
    return calendar_id


def daily(fleet: Fleet, blackouts: list[Any], **spec: Any) -> Row:
    return fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "06:30"},
        start_time="2031-06-01T00:00:00",
        **{"timezone": "Pacific/Auckland", "device_ids": [fleet.device()], **spec},
        policies={"blackouts": blackouts, **spec.get("policies", {})},
    )


def ticks(fleet: Fleet, *days: int, zone: ZoneInfo = AUCKLAND) -> None:
    for day in days:
        fleet.tick(datetime(2031, 6, day, 6, 30, tzinfo=zone))


def outcome(fleet: Fleet, schedule_id: int) -> dict[int, str | None]:
    """Give the reason for each local day that did not run."""
    return {
        run["scheduled_for"].astimezone(AUCKLAND).day: run["reason"]
        for run in fleet.runs(schedule_id)
        if run["status"] == "skipped"
    }


def reasons(fleet: Fleet, made: Row) -> list[str | None]:
    return [run["reason"] for run in fleet.runs(made["id"])]


def test_a_whole_day_is_a_day_where_the_schedule_is(fleet: Fleet) -> None:
    calendar(fleet)
    made = daily(fleet, ["School holidays"])
    # 06:30 in Auckland is still the evening before in UTC.
    ticks(fleet, 1, 2, 3, 4)
    assert outcome(fleet, made["id"]) == {3: "blackout"}


def test_a_period_with_times_is_the_same_everywhere(fleet: Fleet) -> None:
    at = datetime(2031, 6, 3, 6, 30, tzinfo=AUCKLAND)
    calendar(fleet, starts_at=at - timedelta(hours=1), ends_at=at)
    open_again = daily(fleet, ["school HOLIDAYS"])
    calendar(fleet, "Exam", starts_at=at, ends_at=at + timedelta(seconds=1))
    closed = daily(fleet, ["Exam"])
    ticks(fleet, 1, 2, 3)
    assert outcome(fleet, open_again["id"]) == {}
    assert outcome(fleet, closed["id"]) == {3: "blackout"}


def test_a_calendar_goes_by_its_name_or_its_id_and_keeps_its_id(fleet: Fleet) -> None:
    calendar_id = calendar(fleet)
    for named in ("School holidays", "SCHOOL holidays", calendar_id):
        assert daily(fleet, [named])["policies"]["blackouts"] == [calendar_id]

    made = daily(fleet, [calendar_id])
    fleet.run("update blackout_calendars set name = 'Ferien' where id = %s", calendar_id)
    ticks(fleet, 1, 2, 3)
    assert outcome(fleet, made["id"]) == {3: "blackout"}


def test_a_calendar_is_shared_and_a_later_change_of_it_holds_for_all(fleet: Fleet) -> None:
    calendar_id = calendar(fleet)
    both = [daily(fleet, [calendar_id]), daily(fleet, [calendar_id])]
    fleet.insert(
        "blackout_periods",
        owner_id=fleet.owner_id,
        calendar_id=calendar_id,
        starts_on=date(2031, 6, 5),
        ends_on=date(2031, 6, 7),
    )
    ticks(fleet, *range(1, 8))
    for made in both:
        assert outcome(fleet, made["id"]) == {3: "blackout", 5: "blackout", 6: "blackout"}


def test_any_of_several_calendars_forbids(fleet: Fleet) -> None:
    other = calendar(fleet, "Fair", starts_on=date(2031, 6, 2), ends_on=date(2031, 6, 3))
    made = daily(fleet, ["School holidays", other] if calendar(fleet) else [])
    ticks(fleet, 1, 2, 3, 4)
    assert outcome(fleet, made["id"]) == {2: "blackout", 3: "blackout"}


@pytest.mark.parametrize("how", ["name", "id"])
def test_the_calendar_of_another_owner_is_not_found(fleet: Fleet, how: str) -> None:
    calendar_id = calendar(fleet)
    stranger = Fleet(fleet.conn)
    with fleet.refused("PT404", "schedule_invalid", "policies.blackouts", "was not found"):
        daily(stranger, ["School holidays" if how == "name" else calendar_id])


def test_a_row_that_names_a_strangers_calendar_past_all_checks_is_not_forbidden(
    fleet: Fleet,
) -> None:
    calendar_id = calendar(fleet)
    stranger = Fleet(fleet.conn)
    made = daily(stranger, [])
    fleet.run("alter table schedules disable trigger user")
    fleet.run(
        "update schedules set policies = jsonb_build_object('blackouts', array[%s]) where id = %s",
        calendar_id,
        made["id"],
    )
    fleet.run("alter table schedules enable trigger user")
    ticks(fleet, 1, 2, 3)
    assert outcome(fleet, made["id"]) == {}


@pytest.mark.parametrize(
    ("given", "sqlstate"),
    [("School holidays", "PT422"), ({"id": 3}, "PT422"), ([None], "PT404"), ([{}], "PT404")],
)
def test_what_is_no_list_of_calendars_is_refused(
    fleet: Fleet, given: object, sqlstate: str
) -> None:
    device = fleet.device()
    with fleet.refused(sqlstate, "schedule_invalid", "policies.blackouts"):
        fleet.create(device_ids=[device], policies={"blackouts": given})


def test_in_device_time_a_holiday_is_each_devices_own_day(fleet: Fleet) -> None:
    calendar(fleet)
    zones = ("Pacific/Auckland", "Europe/Berlin", "America/Los_Angeles")
    devices = {fleet.device(timezone=zone): zone for zone in zones}
    made = daily(fleet, ["School holidays"], timezone="device", device_ids=list(devices))
    for hour in range(4 * 24):
        fleet.tick_until_idle(datetime(2031, 6, 1, 0, 30, tzinfo=UTC) + timedelta(hours=hour))

    for device, zone in devices.items():
        ran = {
            command["not_before"].astimezone(ZoneInfo(zone)).strftime("%d %H:%M")
            for command in fleet.commands(made["id"])
            if command["device_id"] == device
        }
        # The tick came half past each hour.
        assert ran <= {f"0{day} 06:30" for day in (1, 2, 4, 5)}, zone
        assert {"02 06:30", "04 06:30"} <= ran, zone
    (skipped,) = (run for run in fleet.runs(made["id"]) if run["status"] == "skipped")
    assert (skipped["reason"], skipped["scheduled_local"]) == (
        "blackout",
        datetime(2031, 6, 3, 6, 30),
    )
    assert {
        row["reason"]
        for row in fleet.rows("select reason from fleet.run_zones where run_id = %s", skipped["id"])
    } == {"blackout"}


def test_an_instant_of_several_zones_runs_where_it_is_no_holiday(fleet: Fleet) -> None:
    calendar(fleet)
    home, away = fleet.device(timezone="Pacific/Auckland"), fleet.device(timezone="Etc/GMT+12")
    # Noon in Auckland is noon of the day before on the other side of the date line.
    made = fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "12:00"},
        start_time="2031-06-02T13:00:00Z",
        timezone="device",
        device_ids=[home, away],
        policies={"blackouts": ["School holidays"]},
    )
    noon = datetime(2031, 6, 3, 12, tzinfo=AUCKLAND)
    fleet.tick_until_idle(noon)
    # The run of the day before is there by now; the one of the holiday has nobody else.
    runs = {run["scheduled_local"].day: run for run in fleet.runs(made["id"])}
    assert (runs[2]["status"], runs[2]["targeted"]) == ("running", 1)
    assert (runs[3]["status"], runs[3]["targeted"]) == ("pending", 0)
    assert [command["device_id"] for command in fleet.commands(made["id"])] == [away]


def test_nothing_runs_in_a_blackout(fleet: Fleet) -> None:
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Holidays")["id"]
    fleet.run(
        "insert into blackout_periods (calendar_id, owner_id, starts_on, ends_on)"
        " values (%s, %s, '2031-01-07', '2031-01-08')",
        calendar,
        fleet.owner_id,
    )
    made = fleet.create(
        device_ids=[fleet.device()],
        recurrence_type="daily",
        recurrence_config={"time": "09:00"},
        start_time=BASE.isoformat(),
        policies={"blackouts": ["holidays"]},
    )
    fleet.tick(BASE)
    fleet.tick(BASE + timedelta(days=1))
    assert reasons(fleet, made) == ["blackout", None]
    assert fleet.schedule(made["id"])["execution_count"] == 1
