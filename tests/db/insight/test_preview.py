"""What a schedule will do: before it is saved, and before and after an edit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet, Row
from tests.helpers.insight import DAY, HOUR, NOON, daily, rows

SPRING = datetime(2027, 3, 27, tzinfo=UTC)


def preview(fleet: Fleet, start: datetime, count: int = 5, **spec: Any) -> list[Row]:
    whole = {
        "name": "a draft",
        "action_type": "broadcast_message",
        "payload": HELLO,
        "selector": {},
        **spec,
    }
    return rows(fleet, "preview_schedule(%s, %s, %s)", Jsonb(whole), count, start)


def test_local_time_utc_and_the_change_of_the_clock(fleet: Fleet) -> None:
    fleet.devices(3)
    found = preview(
        fleet,
        SPRING,
        3,
        recurrence_type="daily",
        recurrence_config={"time": "02:30"},
        timezone="Europe/Berlin",
    )

    assert [row["due_at"] for row in found] == [
        datetime(2027, 3, 27, 1, 30, tzinfo=UTC),
        datetime(2027, 3, 28, 1, 0, tzinfo=UTC),
        datetime(2027, 3, 29, 0, 30, tzinfo=UTC),
    ]
    assert [row["local_time"] for row in found] == [
        "Sat 2027-03-27 02:30",
        "Sun 2027-03-28 03:00",
        "Mon 2027-03-29 02:30",
    ]
    assert [bool(row["dst_note"]) for row in found] == [False, True, False]
    assert "first instant after" in found[1]["dst_note"]
    assert {(row["would"], row["devices"]) for row in found} == {("run", 3)}


def test_each_zone_of_the_devices(fleet: Fleet) -> None:
    fleet.device(timezone="Europe/Berlin")
    fleet.device(timezone="Europe/Paris")
    fleet.device(timezone="America/New_York")
    found = preview(
        fleet,
        SPRING + DAY,
        2,
        recurrence_type="daily",
        recurrence_config={"time": "02:30"},
        timezone="device",
    )

    # Each time on the walls is one row, with the zones in the order in which it comes there.
    assert [row["zones"] for row in found] == [
        ["Europe/Berlin", "Europe/Paris", "America/New_York"]
    ] * 2
    assert [row["devices"] for row in found] == [3, 3]
    assert [row["local_time"][4:] for row in found] == ["2027-03-28 02:30", "2027-03-29 02:30"]
    assert found[0]["dst_note"].startswith("Europe/Berlin: the clocks skip")


def test_what_would_be_skipped_and_why(fleet: Fleet) -> None:
    fleet.device()
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Holidays")
    fleet.insert(
        "blackout_periods",
        calendar_id=calendar["id"],
        owner_id=fleet.owner_id,
        starts_on="2027-03-28",
        ends_on="2027-03-29",
        summary="Easter",
    )
    found = preview(
        fleet,
        SPRING,
        4,
        recurrence_type="daily",
        recurrence_config={"time": "12:00"},
        policies={
            "blackouts": ["Holidays"],
            "execution_window": {"from": "11:00", "to": "13:00", "days_of_week": [0, 5, 6]},
            "max_runs": 2,
        },
    )

    assert [(row["would"], row["reason"], row["detail"]) for row in found] == [
        ("run", None, None),
        ("skip", "blackout", "Easter"),
        ("run", None, None),
    ]


def test_a_single_run_in_the_past_is_told_as_missed(fleet: Fleet) -> None:
    (row,) = preview(fleet, SPRING, start_time="2027-01-01T08:00:00")

    assert (row["would"], row["reason"]) == ("skip", "outside the catch-up window")


def test_every_wrong_field_at_once_and_nothing_written(fleet: Fleet) -> None:
    with (
        fleet.refused(
            "PT422", "schedule_invalid", "recurrence_config.time", "timezone", "payload.message"
        ),
    ):
        preview(
            fleet,
            SPRING,
            recurrence_type="daily",
            recurrence_config={"time": "25:00"},
            timezone="Mars/Olympus",
            payload={},
        )
    preview(fleet, SPRING, recurrence_type="daily", recurrence_config={"time": "12:00"})
    assert fleet.value("select count(*) from schedules") == 0


@pytest.mark.parametrize("count", [0, 1001])
def test_the_count_has_bounds(fleet: Fleet, count: int) -> None:
    with fleet.refused("PT422", "argument_invalid", "p_count"):
        preview(fleet, SPRING, count)


def test_the_preview_is_what_the_engine_then_does(fleet: Fleet) -> None:
    device = fleet.device()
    spec = {
        "recurrence_type": "cron",
        "recurrence_config": {"cron_expression": "*/20 * * * *"},
        "start_time": NOON.isoformat(),
        "policies": {
            "execution_window": {"from": "12:30", "to": "14:00"},
            "max_runs": 4,
            "overlap": "allow",
            "max_concurrent": 100,
        },
    }
    expected = preview(fleet, NOON, 20, **spec)
    made = fleet.create(device_ids=[device], **spec)
    for minutes in range(0, 200, 20):
        fleet.tick(NOON + timedelta(minutes=minutes))
    told = [
        (r["scheduled_for"], "skip", r["reason"])
        if r["status"] == "skipped"
        else (r["scheduled_for"], "run", None)
        for r in fleet.runs(made["id"])
    ]

    assert told == [(row["due_at"], row["would"], row["reason"]) for row in expected]


def test_upcoming_runs_of_a_saved_schedule(fleet: Fleet) -> None:
    made = daily(fleet, [fleet.device()])
    found = rows(fleet, "upcoming_runs(%s, 2, %s)", made["id"], NOON - HOUR)

    assert [row["due_at"] for row in found] == [NOON, NOON + DAY]


def diff(fleet: Fleet, made: Row, changes: Row, count: int = 10) -> list[Row]:
    return rows(
        fleet, "diff_schedule(%s, %s, %s, %s)", made["id"], Jsonb(changes), count, NOON - HOUR
    )


def test_an_edit_adds_removes_and_keeps(fleet: Fleet) -> None:
    made = daily(fleet, [fleet.device()])
    change = {"recurrence_type": "weekly", "recurrence_config": {"days_of_week": [4, 5]}}
    found = diff(fleet, made, change, 3)

    assert [(row["change"], row["due_at"]) for row in found] == [
        ("kept", NOON),
        ("kept", NOON + DAY),
        ("removed", NOON + 2 * DAY),
    ]
    earlier = diff(fleet, made, {"recurrence_config": {"times": ["12:00", "18:00"]}}, 3)
    assert [row["change"] for row in earlier] == ["kept", "added", "kept"]


def test_an_edit_of_targets_and_policies_shows(fleet: Fleet) -> None:
    first, second = fleet.device(), fleet.device()
    made = daily(fleet, [first])
    window = {"execution_window": {"from": "22:00", "to": "23:00"}}
    (row,) = diff(fleet, made, {"device_ids": [first, second], "policies": window}, 1)

    assert (row["change"], row["would_before"], row["devices_before"]) == ("kept", "run", 1)
    assert row["would_after"] == "skip: outside the execution window"
    assert row["devices_after"] == 2


def test_a_wrong_edit_is_named_and_nothing_changes(fleet: Fleet) -> None:
    made = daily(fleet, [fleet.device()])
    with fleet.refused("PT422", "schedule_invalid", "timezone"):
        diff(fleet, made, {"timezone": "Mars/Olympus"})
    diff(fleet, made, {"recurrence_config": {"time": "18:00"}})

    assert fleet.schedule(made["id"])["recurrence_config"] == {"time": "12:00"}


def test_what_is_cancelled_cannot_be_edited(fleet: Fleet) -> None:
    made = daily(fleet, [fleet.device()])
    fleet.run("select cancel_schedule(%s)", made["id"])

    with fleet.refused("PT409", "schedule_cancelled"):
        diff(fleet, made, {"priority": 1})


def test_the_short_way_says_what_the_engine_says(fleet: Fleet) -> None:
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Holidays")
    fleet.insert(
        "blackout_periods",
        calendar_id=calendar["id"],
        owner_id=fleet.owner_id,
        starts_on="2100-01-03",
        ends_on="2100-01-04",
    )
    windows: list[Any] = [
        None,
        {"from": "22:00", "to": "05:00", "days_of_week": [4, 5]},
        [{"from": "12:00", "to": "13:00"}, {"from": "17:00", "to": "24:00", "in": "device"}],
        {"from": "09:00", "to": "09:00"},
    ]
    for window in windows:
        for blackouts in ([], ["Holidays"]):
            fleet.create(
                recurrence_type="interval",
                recurrence_config={"minutes": 30},
                start_time=NOON.isoformat(),
                timezone="Europe/Berlin",
                selector={},
                policies={"execution_window": window, "blackouts": blackouts},
            )
    told = fleet.row(
        "select count(*) as instants, count(*) filter (where fleet.plain_refusal(s, i)"
        "   is distinct from fleet.zones_refusal(s, null, i)) as different,"
        " count(distinct fleet.plain_refusal(s, i)) as reasons"
        " from schedules as s"
        " cross join generate_series(%s::timestamptz, %s, '30 minutes') as i",
        NOON,
        NOON + 4 * DAY,
    )

    assert told == {"instants": 8 * 193, "different": 0, "reasons": 2}


def test_a_look_at_a_time_to_come_shows_no_instant_as_missed(fleet: Fleet) -> None:
    made = fleet.create(
        selector={},
        recurrence_type="daily",
        recurrence_config={"time": "07:45"},
        timezone="Asia/Kolkata",
    )
    fleet.devices(2)
    ahead = datetime.now(UTC) + 3 * 7 * DAY
    found = rows(fleet, "upcoming_runs(%s, 4, %s)", made["id"], ahead)
    assert {(row["would"], row["reason"], row["devices"]) for row in found} == {("run", None, 2)}
    assert [row["due_at"] for row in found] == [found[0]["due_at"] + n * DAY for n in range(4)]
    assert ahead <= found[0]["due_at"] < ahead + DAY


def test_a_look_at_the_present_shows_what_is_overdue(fleet: Fleet) -> None:
    fleet.devices(1)
    made = fleet.create(selector={}, recurrence_type="interval", recurrence_config={"hours": 6})
    fleet.run(
        "update schedules set next_run_at = next_run_at - interval '3 days' where id = %s",
        made["id"],
    )
    found = rows(fleet, "upcoming_runs(%s, 4)", made["id"])
    assert found[0]["would"] == "skip"
    assert found[0]["reason"] in {"superseded by a later instant", "outside the catch-up window"}


SIX_TO_EIGHT = {"from": "06:00", "to": "08:00", "in": "device"}


def in_three_zones(fleet: Fleet) -> None:
    for zone in ("Europe/Athens", "Asia/Tokyo", "Asia/Tokyo", "America/Lima"):
        fleet.device(timezone=zone)


@pytest.mark.parametrize(
    ("hour", "devices"), [("04:30", 1), ("22:00", 2), ("11:15", 1), ("17:00", None)]
)
def test_a_window_in_device_time_lets_in_who_the_run_lets_in(
    fleet: Fleet, hour: str, devices: int | None
) -> None:
    in_three_zones(fleet)
    made = daily(
        fleet,
        [],
        selector={},
        recurrence_config={"time": hour},
        policies={"execution_window": SIX_TO_EIGHT},
    )
    due = datetime.fromisoformat(made["next_run_at"])
    foreseen = [
        rows(fleet, "upcoming_runs(%s, 1, %s)", made["id"], due)[0],
        rows(fleet, "simulate_fleet(%s, %s)", due, due + HOUR)[0],
    ]
    day = rows(fleet, "schedule_calendar(%s, %s)", due.date(), due.date() + DAY)[0]
    fleet.tick_until_idle(due)
    (run,) = fleet.runs(made["id"])
    for row in foreseen:
        assert row["would"] == ("run" if devices else "skip")
        assert row["devices"] == (devices or (4 if row is foreseen[0] else row["devices"]))
        assert (
            row["reason"] == run["reason"] == (None if devices else "outside the execution window")
        )
    assert run["targeted"] == (devices or 0)
    assert (day["coming"], day["skipping"]) == ((1, 0) if devices else (0, 1))


def test_devices_that_wait_for_their_window_are_counted_and_the_first_start_told(
    fleet: Fleet,
) -> None:
    in_three_zones(fleet)
    made = daily(
        fleet,
        [],
        selector={},
        recurrence_config={"time": "20:00"},
        policies={
            "execution_window": {**SIX_TO_EIGHT, "outside": "wait"},
            "expires_after": "1 day",
        },
    )
    due = datetime.fromisoformat(made["next_run_at"])
    (row,) = rows(fleet, "upcoming_runs(%s, 1, %s)", made["id"], due)
    fleet.tick_until_idle(due)
    starts = [command["not_before"] for command in fleet.commands(made["id"])]
    assert (row["would"], row["devices"], row["starts_at"]) == ("run", len(starts), min(starts))


def test_runs_outside_of_every_window_do_not_count_for_max_runs(fleet: Fleet) -> None:
    fleet.device(timezone="Asia/Tokyo")
    made = fleet.create(
        selector={},
        recurrence_type="interval",
        recurrence_config={"hours": 6},
        start_time=datetime(2101, 1, 1, 4, tzinfo=UTC).isoformat(),
        policies={"execution_window": SIX_TO_EIGHT, "max_runs": 2},
    )
    found = rows(fleet, "upcoming_runs(%s, 9, %s)", made["id"], made["next_run_at"])
    assert [row["would"] for row in found] == [*["skip"] * 3, "run", *["skip"] * 3, "run"]


@pytest.mark.parametrize("time", ["06:59", "12:00"])
def test_windows_hold_on_every_wall_of_device_time(fleet: Fleet, time: str) -> None:
    in_three_zones(fleet)
    made = daily(
        fleet,
        [],
        selector={},
        timezone="device",
        recurrence_config={"time": time},
        policies={"execution_window": SIX_TO_EIGHT},
    )
    (row,) = rows(fleet, "upcoming_runs(%s, 1, %s)", made["id"], made["next_run_at"])
    for hours in range(27):
        fleet.tick_until_idle(datetime.fromisoformat(made["next_run_at"]) + hours * HOUR)
    run = fleet.runs(made["id"])[0]
    expected = "run" if time == "06:59" else "skip"
    assert (row["would"], run["status"]) == (
        expected,
        "running" if expected == "run" else "skipped",
    )
    assert row["reason"] == run["reason"]
