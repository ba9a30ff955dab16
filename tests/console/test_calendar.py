"""The calendar: days in any zone, blackouts, and moving a schedule."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from pgfleet.errors import InvalidInput
from pgfleet_console.pages.calendar.days import (
    blackouts_of,
    counted,
    day_of,
    listed,
    span_of,
    zone_of,
)
from pgfleet_console.pages.calendar.moved import changes_of

BERLIN = zone_of("Europe/Berlin")


@pytest.mark.parametrize(
    ("view", "first", "end", "before", "after"),
    [
        ("month", date(2027, 2, 1), date(2027, 3, 1), date(2027, 1, 1), date(2027, 3, 1)),
        ("week", date(2027, 2, 15), date(2027, 2, 22), date(2027, 2, 10), date(2027, 2, 24)),
        ("day", date(2027, 2, 17), date(2027, 2, 18), date(2027, 2, 16), date(2027, 2, 18)),
        ("agenda", date(2027, 2, 17), date(2027, 3, 3), date(2027, 2, 3), date(2027, 3, 3)),
    ],
)
def test_a_view_has_days(view: str, first: date, end: date, before: date, after: date) -> None:
    span = span_of(view, date(2027, 2, 17), BERLIN)

    assert (span.first, span.end, span.beside(-1), span.beside(1)) == (first, end, before, after)
    january = span_of("month", date(2027, 1, 31), BERLIN)
    assert (january.first, january.end) == (date(2026, 12, 28), date(2027, 2, 1))


def test_days_are_those_of_the_zone() -> None:
    span = span_of("week", date(2027, 3, 28), BERLIN)
    at = datetime(2027, 3, 27, 23, 30, tzinfo=UTC)
    run = {"schedule_id": 1, "schedule": "x", "scheduled_for": at, "status": "failed"}

    days = listed(span, [run | {"reason": "unsupported"}], [], [])

    assert span.ends_at - span.starts_at == timedelta(hours=167), "the clocks went forward"
    (entry,) = days[6].entries
    assert (entry["clock"], entry["said"]) == ("00:30", "failed: unsupported")


def test_blackouts_shade_the_days_that_they_touch() -> None:
    span = span_of("week", date(2027, 2, 17), BERLIN)
    day = {"starts_on": date(2027, 2, 17), "ends_on": date(2027, 2, 19), "summary": "Fair"}
    hours = {"starts_on": None, "ends_on": None, "summary": None, "calendar": "Exams"}
    night = {
        "starts_at": datetime(2027, 2, 20, 23, 0, tzinfo=UTC),
        "ends_at": datetime(2027, 2, 21, 23, 0, tzinfo=UTC),
    }

    days = counted(span, [], blackouts_of(span, [day, hours | night]))

    assert [one.blackouts for one in days] == [[], [], ["Fair"], ["Fair"], [], [], ["Exams"]]


def test_a_schedule_is_moved_by_its_kind() -> None:
    row: dict[str, Any] = {"timezone": "Europe/Berlin", "start_is_local": False}
    at, to = datetime(2027, 1, 4, 17, 30, tzinfo=UTC), date(2027, 1, 6)

    def moved(kind: str, **config: Any) -> Any:
        given = row | {"recurrence_type": kind, "recurrence_config": config}
        return changes_of(given, at, to, "20:15")

    assert moved("once") == {"start_time": "2027-01-06T20:15:00+01:00"}
    assert moved("daily", time="18:30") == {"recurrence_config": {"time": "20:15"}}
    assert moved("weekly", time="18:30", days_of_week=[0, "friday"]) == {
        "recurrence_config": {"time": "20:15", "days_of_week": ["wed", "fri"]}
    }
    assert moved("monthly", time="18:30", day_of_month=4) == {
        "recurrence_config": {"time": "20:15", "day_of_month": 6}
    }
    for kind in ("cron", "interval"):
        with pytest.raises(InvalidInput, match="is not moved"):
            moved(kind)
    with pytest.raises(InvalidInput, match="no day"):
        day_of("0001-13-01")
    with pytest.raises(InvalidInput, match="no time of the day"):
        changes_of(row, at, to, "25:00")


@pytest.fixture(scope="module")
def weekly(a_school: Any) -> int:
    """Make a schedule that is due at half past nine on each day of the week but Sunday."""
    with a_school.fleet() as fleet:
        return int(
            fleet.create(
                name="Morning <bell>",
                action_type="lock",
                payload={},
                device_ids=a_school.devices,
                timezone="Europe/Berlin",
                recurrence_type="weekly",
                recurrence_config={"time": "09:30", "days_of_week": [0, 1, 2, 3, 4, 5]},
            )["id"]
        )


@pytest.mark.parametrize("view", ["month", "week", "day", "agenda"])
def test_what_is_to_come_is_shown(console: Any, weekly: int, view: str) -> None:
    day = (datetime.now(UTC) + timedelta(days=30)).date()
    monday = day - timedelta(days=day.weekday())
    asked = {"view": view, "day": monday.isoformat(), "zone": "Europe/London"}
    viewer = console("viewer")

    shown = viewer.http.get("/calendar", params=asked).text.split('id="live"')[1]

    assert "<b>08:30</b> Morning &lt;bell&gt;" in shown
    assert "/calendar/move/" not in shown, "whoever only looks moves nothing"
    moved = console("admin").http.get("/calendar", params=asked).text
    assert f"/calendar/move/{weekly}?at=" in moved
    assert f"/schedules/{weekly}/explain?at={monday.isoformat()}" in shown
    nothing = console("stranger").http.get("/calendar", params=asked).text
    assert "Morning" not in nothing


def test_what_was_is_shown_and_blackouts_are_shaded(console: Any, a_school: Any) -> None:
    with a_school.fleet() as fleet:
        calendar = fleet.insert("blackout_calendars", owner_id=a_school.owner, name="Holidays")
        today = datetime.now(UTC).date()
        fleet.insert(
            "blackout_periods",
            calendar_id=calendar["id"],
            owner_id=a_school.owner,
            starts_on=today - timedelta(days=1),
            ends_on=today + timedelta(days=3),
            summary="Snow days",
        )
    viewer = console("viewer")

    for view in ("month", "day", "agenda"):
        text = viewer.get(f"/calendar?view={view}&day={today}&zone=UTC")
        assert "Snow days" in text and "Evening lock" in text, view
    assert viewer.get("/calendar?zone=Mars/Base", 422).count("Europe/Berlin")
    assert "is no day" in viewer.get("/calendar?day=yesterday", 422)


def test_a_schedule_is_moved_after_the_difference_was_shown(
    console: Any, a_school: Any, weekly: int
) -> None:
    admin, path = console("admin"), f"/calendar/move/{weekly}"
    day = (datetime.now(UTC) + timedelta(days=30)).date()
    monday = day - timedelta(days=day.weekday())
    at = datetime.combine(monday, datetime.min.time(), BERLIN).replace(hour=9, minute=30)
    asked = {"at": at.isoformat(), "day": monday.isoformat(), "clock": "10:45"}

    # Dropped in a calendar of another zone, the form says the time in the schedule's own.
    london = asked | {"zone": "Europe/London"}
    form = admin.http.get(path, params=london).text
    assert 'value="11:45"' in form and f'value="{monday}"' in form
    shown = admin.post(f"{path}/preview", 200, **asked).text
    assert 'class="added"' in shown and 'class="removed"' in shown
    with a_school.fleet() as fleet:
        config = "select recurrence_config ->> 'time' from schedules where id = %s"
        assert fleet.value(config, weekly) == "09:30"
        assert "Moved." in admin.do(path, **asked)
        assert fleet.value(config, weekly) == "10:45"

    assert "no time of the day" in admin.post(path, 422, **(asked | {"clock": "x"})).text
    console("viewer").post(path, 403, **asked)
    console("stranger").post(path, 404, **asked)
    assert "the permission manage" in console("viewer").http.get(path, params=asked).text
    cron = f"/calendar/move/{a_school.schedule}"
    assert f"/schedules/{a_school.schedule}/edit" in admin.http.get(cron, params=asked).text
