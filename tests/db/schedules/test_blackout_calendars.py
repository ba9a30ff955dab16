"""Blackout calendars as people make and change them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

LATER = "2999-01-01T00:00:00Z"


def call(fleet: Fleet, function: str, name: str, *periods: Row) -> Row:
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value(f"select {function}(%s, %s)", name, Jsonb(list(periods)))
    return answer


def periods(fleet: Fleet, calendar_id: int) -> list[Row]:
    with fleet.acting(fleet.owner_id):
        return fleet.rows(
            "select * from blackout_periods where calendar_id = %s order by id", calendar_id
        )


def using(fleet: Fleet, *calendars: Any) -> Row:
    return fleet.create(
        start_time=LATER, device_ids=[fleet.device()], policies={"blackouts": list(calendars)}
    )


def test_days_and_times_make_a_calendar(fleet: Fleet) -> None:
    made = call(
        fleet,
        "create_blackout_calendar",
        "Holidays",
        {"starts_on": "2026-12-25", "summary": "Christmas"},
        {"starts_on": "2026-12-28", "ends_on": "2027-01-02"},
        {"starts_at": "2026-05-01T00:00:00+02:00", "ends_at": "2026-05-01T10:00:00Z"},
    )
    assert (made["name"], made["periods"]) == ("Holidays", 3)
    one, week, times = periods(fleet, made["id"])
    assert (one["starts_on"], one["ends_on"], one["summary"]) == (
        date(2026, 12, 25),
        date(2026, 12, 26),
        "Christmas",
    )
    assert week["ends_on"] == date(2027, 1, 2)
    assert times["starts_at"] == datetime(2026, 4, 30, 22, tzinfo=UTC)


def test_a_name_is_taken_once_and_an_import_replaces_its_periods(fleet: Fleet) -> None:
    made = call(fleet, "create_blackout_calendar", "Holidays", {"starts_on": "2026-12-25"})
    with fleet.refused("PT409", "calendar_exists", "holidays"):
        call(fleet, "create_blackout_calendar", "holidays")
    again = call(fleet, "import_blackouts", "HOLIDAYS", {"starts_on": "2027-12-25"})
    assert (again["id"], again["name"]) == (made["id"], "Holidays")
    assert [row["starts_on"] for row in periods(fleet, made["id"])] == [date(2027, 12, 25)]


def test_every_wrong_period_is_named(fleet: Fleet) -> None:
    with fleet.refused(
        "PT422",
        "calendar_invalid",
        "name: must not be blank",
        "periods[0]: must be an object",
        "periods[1].starts_on",
        "periods[2].ends_at",
        "periods[3]: ends before it starts",
        "periods[4].colour",
        "periods[5].starts_at",
    ):
        call(
            fleet,
            "create_blackout_calendar",
            " ",
            {"summary": "nothing"},
            {"starts_on": "2026-02-30"},
            {"starts_at": "2026-05-01T00:00:00Z"},
            {"starts_on": "2026-12-25", "ends_on": "2026-12-25"},
            {"starts_on": "2026-12-25", "colour": "red"},
            {"starts_at": "2026-05-01T00:00:00", "ends_at": "2026-05-02T00:00:00Z"},
        )


def test_a_calendar_in_use_stays(fleet: Fleet) -> None:
    made = call(fleet, "create_blackout_calendar", "Holidays", {"starts_on": "2026-12-25"})
    schedule = using(fleet, "Holidays")
    assert schedule["policies"]["blackouts"] == [made["id"]]
    with fleet.refused("PT409", "calendar_in_use", "a schedule"), fleet.acting(fleet.owner_id):
        fleet.rows("select * from delete_blackout_calendar(%s)", made["id"])
    fleet.run("select cancel_schedule(%s)", schedule["id"])
    with fleet.acting(fleet.owner_id):
        fleet.rows("select * from delete_blackout_calendar(%s)", made["id"])
    assert periods(fleet, made["id"]) == []


def test_calendars_of_others_are_neither_seen_used_nor_deleted(fleet: Fleet) -> None:
    made = call(fleet, "create_blackout_calendar", "Holidays", {"starts_on": "2026-12-25"})
    stranger = Fleet(fleet.conn)
    with stranger.acting(stranger.owner_id):
        assert stranger.rows("select * from blackout_calendars") == []
        assert stranger.rows("select * from blackout_periods") == []
    with fleet.refused("PT404", "calendar_not_found"), fleet.acting(stranger.owner_id):
        fleet.rows("select * from delete_blackout_calendar(%s)", made["id"])
    for named in ("Holidays", made["id"]):
        with stranger.refused("PT404", "schedule_invalid", "calendar"):
            using(stranger, named)
    call(stranger, "import_blackouts", "Holidays", {"starts_on": "2027-01-01"})
    assert [row["starts_on"] for row in periods(fleet, made["id"])] == [date(2026, 12, 25)]
