"""Execution windows: at which local times a schedule may act."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from tests.helpers.fleet import Fleet, Row

BERLIN = ZoneInfo("Europe/Berlin")
# A Monday.
TUESDAY = datetime(2031, 1, 7, 9, tzinfo=UTC)
BASE = datetime(2031, 5, 5, tzinfo=BERLIN)
NIGHT = {"from": "22:00", "to": "05:00"}
WORKDAYS = [0, 1, 2, 3, 4]
LASTING = {"expires_after": "1 day"}


def hourly(fleet: Fleet, start: datetime, window: Row | list[Row], **spec: object) -> int:
    """Create a schedule in Berlin that is due each hour and runs only within its window."""
    made = fleet.create(
        recurrence_type="interval",
        recurrence_config={"hours": 1},
        start_time=start.isoformat(),
        timezone="Europe/Berlin",
        policies={"execution_window": window, "overlap": "allow", "max_concurrent": 1000},
        **{"device_ids": [fleet.device()], **spec},
    )
    schedule_id: int = made["id"]
    return schedule_id


def hours_that_ran(fleet: Fleet, schedule_id: int) -> list[int]:
    return [
        run["scheduled_for"].astimezone(BERLIN).hour
        for run in fleet.runs(schedule_id)
        if run["status"] != "skipped"
    ]


def once(fleet: Fleet, at: datetime, window: Row | list[Row], **spec: object) -> int:
    """Create a schedule in Berlin that is due once."""
    made = fleet.create(
        start_time=at.isoformat(),
        timezone="Europe/Berlin",
        policies={"execution_window": window, "expires_after": "2 hours"},
        **{"device_ids": [fleet.device()], **spec},
    )
    schedule_id: int = made["id"]
    return schedule_id


def reasons(fleet: Fleet, made: Row) -> list[str | None]:
    return [run["reason"] for run in fleet.runs(made["id"])]


def statuses(fleet: Fleet, made: Row) -> list[str]:
    return [command["status"] for command in fleet.commands(made["id"])]


def test_a_window_across_midnight_belongs_to_both_days(fleet: Fleet) -> None:
    schedule = hourly(fleet, BASE, NIGHT)
    for hour in range(24):
        fleet.tick(BASE + timedelta(hours=hour))
    assert hours_that_ran(fleet, schedule) == [0, 1, 2, 3, 4, 22, 23]


def test_the_end_of_a_window_is_outside(fleet: Fleet) -> None:
    schedule = hourly(fleet, BASE.replace(hour=8), {"from": "09:00", "to": "11:00"})
    for hour in (8, 9, 10, 11):
        fleet.tick(BASE + timedelta(hours=hour))
    assert hours_that_ran(fleet, schedule) == [9, 10]
    outside = [run for run in fleet.runs(schedule) if run["status"] == "skipped"]
    assert {run["reason"] for run in outside} == {"outside the execution window"}


def test_a_night_belongs_to_the_day_on_which_it_begins(fleet: Fleet) -> None:
    friday = BASE + timedelta(days=4)
    schedule = hourly(fleet, friday, {**NIGHT, "days_of_week": WORKDAYS})
    for hour in (0, 23, 24 + 2, 24 + 23, 48 + 2, 72 + 2, 72 + 23):
        fleet.tick(friday + timedelta(hours=hour))
    kept = [
        run["scheduled_for"].astimezone(BERLIN)
        for run in fleet.runs(schedule)
        if run["status"] != "skipped"
    ]
    # Thursday's and Friday's nights, not Saturday's and Sunday's, then Monday's.
    assert [(at.strftime("%a"), at.hour) for at in kept] == [
        ("Fri", 0),
        ("Fri", 23),
        ("Sat", 2),
        ("Mon", 23),
    ]


def test_a_list_of_windows_is_open_when_one_of_them_is(fleet: Fleet) -> None:
    schedule = hourly(
        fleet,
        BASE,
        [{"from": "06:00", "to": "07:00"}, {"from": "12:00", "to": "13:00", "days_of_week": [0]}],
    )
    for hour in range(24):
        fleet.tick(BASE + timedelta(hours=hour))
    assert hours_that_ran(fleet, schedule) == [6, 12]


@pytest.mark.parametrize(
    ("due", "window", "opening"),
    [
        ("2031-05-05T20:00", NIGHT, "2031-05-05T22:00"),
        ("2031-05-05T12:00", {"from": "08:00", "to": "9:30"}, "2031-05-06T08:00"),
        # Friday at noon, and the weekend is not for work.
        ("2031-05-09T12:00", {"from": "08:00", "to": "09:00", "days_of_week": WORKDAYS},
         "2031-05-12T08:00"),
        # The hour from two to three does not exist on the last Sunday of March.
        ("2031-03-30T00:30", {"from": "01:30", "to": "04:00"}, "2031-03-30T01:30"),
        ("2031-03-29T12:00", {"from": "03:00", "to": "04:00"}, "2031-03-30T03:00"),
        ("2031-03-29T12:00", {"from": "02:30", "to": "04:00"}, "2031-03-30T03:00"),
        ("2031-03-29T12:00", {"from": "02:00", "to": "03:00"}, "2031-03-31T02:00"),
        ("2031-03-29T12:00", {"from": "02:00", "to": "03:00", "days_of_week": [6]},
         "2031-04-06T02:00"),
        # It comes twice on the last Sunday of October: the first of both.
        ("2031-10-25T12:00", {"from": "02:30", "to": "04:00"}, "2031-10-26T02:30"),
    ],
)  # fmt: skip
def test_what_waits_begins_when_the_window_opens(
    fleet: Fleet, due: str, window: Row, opening: str
) -> None:
    at = datetime.fromisoformat(due).replace(tzinfo=BERLIN)
    opens = datetime.fromisoformat(opening).replace(tzinfo=BERLIN).astimezone(UTC)
    schedule = once(fleet, at, {**window, "outside": "wait"})
    fleet.tick(at)
    (run,) = fleet.runs(schedule)
    assert (run["status"], run["not_before"]) == ("pending", opens)
    assert run["expires_at"] == opens + timedelta(hours=2)

    fleet.tick_until_idle(opens - timedelta(seconds=1))
    assert fleet.commands(schedule) == []
    fleet.tick_until_idle(opens)
    (command,) = fleet.commands(schedule)
    assert command["not_before"] == opens
    assert len(fleet.claim(command["device_id"], now=opens)) == 1


def test_of_several_windows_what_waits_takes_the_next(fleet: Fleet) -> None:
    at = BASE.replace(hour=12)
    schedule = once(
        fleet,
        at,
        [
            {"from": "22:00", "to": "23:00", "outside": "wait"},
            {"from": "18:00", "to": "19:00", "days_of_week": [0, 1]},
        ],
    )
    fleet.tick(at)
    (run,) = fleet.runs(schedule)
    assert run["not_before"] == BASE.replace(hour=18)


def test_what_waits_is_given_to_the_devices_that_are_there_then(fleet: Fleet) -> None:
    at = BASE.replace(hour=20)
    first = fleet.device(tags=["lab"])
    schedule = once(
        fleet, at, {**NIGHT, "outside": "wait"}, device_ids=[], selector={"tags": ["lab"]}
    )
    fleet.tick(at)
    second = fleet.device(tags=["lab"])
    fleet.run("select retire_device(%s)", first)
    fleet.tick(BASE.replace(hour=22))
    assert [command["device_id"] for command in fleet.commands(schedule)] == [second]


def test_a_window_in_device_time_opens_for_each_device_by_itself(fleet: Fleet) -> None:
    zones = {"Europe/Berlin": 0, "Asia/Tokyo": 0, "America/New_York": 0}
    devices = {zone: fleet.device(timezone=zone) for zone in zones}
    nowhere = fleet.device()
    at = datetime(2031, 5, 5, 22, 0, tzinfo=BERLIN)
    for outside in ("skip", "wait"):
        schedule = once(
            fleet,
            at,
            {**NIGHT, "in": "device", "outside": outside},
            device_ids=[*devices.values(), nowhere],
        )
        fleet.tick(at)
        starts = {c["device_id"]: c["not_before"] for c in fleet.commands(schedule)}
        (run,) = fleet.runs(schedule)
        assert starts[devices["Europe/Berlin"]] == at
        if outside == "skip":
            # It is 05:00 in Tokyo, 16:00 in New York, and 20:00 where no zone is known.
            assert set(starts) == {devices["Europe/Berlin"]}
            assert (run["targeted"], run["skipped"]) == (1, 3)
        else:
            assert starts[devices["Asia/Tokyo"]] == datetime(2031, 5, 6, 13, tzinfo=UTC)
            assert starts[devices["America/New_York"]] == datetime(2031, 5, 6, 2, tzinfo=UTC)
            assert starts[nowhere] == datetime(2031, 5, 5, 22, tzinfo=UTC)


def test_a_run_that_is_outside_of_every_devices_window_is_skipped(fleet: Fleet) -> None:
    at = BASE.replace(hour=12)
    schedule = once(
        fleet, at, {**NIGHT, "in": "device"}, device_ids=[fleet.device(timezone="Europe/Berlin")]
    )
    fleet.tick(at)
    (run,) = fleet.runs(schedule)
    assert (run["status"], run["reason"]) == ("skipped", "outside the execution window")


def test_waiting_for_the_device_moves_its_expiry_along(fleet: Fleet) -> None:
    at = BASE.replace(hour=20)
    schedule = once(
        fleet,
        at,
        {**NIGHT, "in": "device", "outside": "wait"},
        device_ids=[fleet.device(timezone="Europe/Berlin")],
    )
    fleet.tick(at)
    (command,) = fleet.commands(schedule)
    assert command["expires_at"] == BASE.replace(hour=22) + timedelta(hours=2)


def test_both_kinds_of_windows_hold_together(fleet: Fleet) -> None:
    device = fleet.device(timezone="Asia/Tokyo")
    schedule = once(
        fleet,
        BASE.replace(hour=12),
        [
            {"from": "14:00", "to": "18:00", "outside": "wait"},
            {**NIGHT, "in": "device", "outside": "wait"},
        ],
        device_ids=[device],
    )
    fleet.tick(BASE.replace(hour=12))
    (run,) = fleet.runs(schedule)
    assert run["not_before"] == BASE.replace(hour=14)
    fleet.tick(BASE.replace(hour=14))
    (command,) = fleet.commands(schedule)
    # 14:00 in Berlin is 21:00 in Tokyo.
    assert command["not_before"] == BASE.replace(hour=15)


def test_in_device_time_every_window_is_the_devices(fleet: Fleet) -> None:
    made = fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "06:30"},
        start_time=BASE.isoformat(),
        timezone="device",
        device_ids=[fleet.device(timezone=zone) for zone in ("Asia/Tokyo", "America/New_York")],
        policies={"execution_window": {"from": "06:00", "to": "07:00"}},
    )
    assert made["policies"]["execution_window"]["in"] == "device"
    for hour in range(-6, 30):
        fleet.tick(BASE.astimezone(UTC) + timedelta(hours=hour, minutes=30))
    assert {run["reason"] for run in fleet.runs(made["id"])} == {None}
    assert len(fleet.commands(made["id"])) >= 2


def test_a_blackout_at_the_opening_forbids_what_waits_for_it(fleet: Fleet) -> None:
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Backup")
    fleet.insert(
        "blackout_periods",
        owner_id=fleet.owner_id,
        calendar_id=calendar["id"],
        starts_at=BASE.replace(hour=21),
        ends_at=BASE.replace(hour=23),
    )
    at = BASE.replace(hour=20)
    made = fleet.create(
        start_time=at.isoformat(),
        timezone="Europe/Berlin",
        device_ids=[fleet.device()],
        policies={"execution_window": {**NIGHT, "outside": "wait"}, "blackouts": ["Backup"]},
    )
    fleet.tick(at)
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["reason"]) == ("skipped", "blackout")


@pytest.mark.parametrize(
    ("window", "fields"),
    [
        ("22:00-05:00", ["policies.execution_window: must be an object"]),
        ([NIGHT, 5], ["policies.execution_window: must be an object"]),
        ({"from": "22:00"}, ["policies.execution_window.to: is not a time of day"]),
        ({"from": 22, "to": "25:00"}, ["execution_window.from:", "execution_window.to:"]),
        ({**NIGHT, "in": "moon"}, ['policies.execution_window.in: "moon" is not one of']),
        ({**NIGHT, "outside": "panic"}, ["policies.execution_window.outside:"]),
        ({**NIGHT, "days_of_week": []}, ["policies.execution_window.days_of_week:"]),
        ({**NIGHT, "days_of_week": [7]}, ["policies.execution_window.days_of_week:"]),
        ({**NIGHT, "days_of_week": ["monday"]}, ["policies.execution_window.days_of_week:"]),
        (
            {**NIGHT, "until": "05:00"},
            ["policies.execution_window.until: is not a key of a window"],
        ),
    ],
)
def test_a_window_that_is_none_is_refused_by_its_field(
    fleet: Fleet, window: object, fields: list[str]
) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "schedule_invalid", *fields):
        fleet.create(device_ids=[device], policies={"execution_window": window})
    with fleet.refused("PT422", "schedule_invalid", *fields):
        fleet.create(device_ids=[device], timezone="device", policies={"execution_window": window})


def test_the_jitter_stays_within_the_window(fleet: Fleet) -> None:
    at = BASE.replace(hour=21, minute=30)
    made = fleet.create(
        start_time=at.isoformat(),
        timezone="Europe/Berlin",
        device_ids=fleet.devices(20),
        policies={"execution_window": {"from": "21:00", "to": "22:00"}, "jitter": "4 hours"},
    )
    fleet.tick_until_idle(at)
    starts = [command["not_before"] for command in fleet.commands(made["id"])]
    assert len(set(starts)) == 20
    assert at <= min(starts) and max(starts) < BASE.replace(hour=22)


@pytest.mark.parametrize(
    ("verb", "outcome"),
    [("pause", ("skipped", "paused")), ("cancel", ("cancelled", "the schedule was cancelled"))],
)
def test_what_waits_does_not_begin_when_its_schedule_rests(
    fleet: Fleet, verb: str, outcome: tuple[str, str]
) -> None:
    at = BASE.replace(hour=20)
    made = fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "20:00"},
        start_time=at.isoformat(),
        timezone="Europe/Berlin",
        device_ids=[fleet.device()],
        policies={"execution_window": {**NIGHT, "outside": "wait"}},
    )
    fleet.tick(at)
    assert fleet.schedule(made["id"])["execution_count"] == 1
    fleet.run(f"select {verb}_schedule(%s)", made["id"])
    fleet.tick(BASE.replace(hour=22))
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["reason"]) == outcome
    assert fleet.commands(made["id"]) == []
    if verb == "pause":
        assert fleet.schedule(made["id"])["execution_count"] == 0


@pytest.mark.parametrize("place", ["schedule", "device"])
@pytest.mark.parametrize("outside", ["skip", "wait"])
def test_an_execution_window_skips_or_waits(fleet: Fleet, place: str, outside: str) -> None:
    device = fleet.device(timezone="UTC")
    window = {"from": "22:00", "to": "05:00", "in": place, "outside": outside}
    made = fleet.create(
        device_ids=[device],
        start_time=TUESDAY.isoformat(),
        policies={"execution_window": window, **LASTING},
    )
    fleet.tick(TUESDAY)
    if outside == "skip":
        assert reasons(fleet, made) == ["outside the execution window"]
        assert fleet.commands(made["id"]) == []
        return
    fleet.tick_until_idle(TUESDAY + timedelta(hours=13))
    (command,) = fleet.commands(made["id"])
    assert command["not_before"] == TUESDAY + timedelta(hours=13)
    assert command["expires_at"] == TUESDAY + timedelta(hours=13 + 24)
    assert fleet.claim(device, now=TUESDAY) == []
    assert len(fleet.claim(device, now=TUESDAY + timedelta(hours=13))) == 1


def test_within_its_window_a_schedule_runs_at_once(fleet: Fleet) -> None:
    made = fleet.create(
        device_ids=[fleet.device()],
        start_time=TUESDAY.isoformat(),
        policies={"execution_window": {"from": "08:00", "to": "17:00", "days_of_week": [1]}},
    )
    fleet.tick(TUESDAY)
    assert statuses(fleet, made) == ["pending"]
