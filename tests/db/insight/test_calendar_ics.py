"""Coming runs as iCalendar, read back by the icalendar package."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import icalendar
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row
from tests.helpers.insight import DAY, MINUTE, NOON, daily, rows


def read(fleet: Fleet, start: datetime, end: datetime, **wanted: Any) -> tuple[str, Any]:
    with fleet.acting(fleet.owner_id):
        text: str = fleet.value("select calendar_ics(%s, %s, %s)", Jsonb(wanted), start, end)
    return text, icalendar.Calendar.from_ical(text)


def instants(calendar: Any) -> list[datetime]:
    return [event.decoded("dtstart") for event in calendar.walk("VEVENT")]


def schedules(fleet: Fleet) -> list[Row]:
    fleet.device("lab-01", timezone="Europe/Berlin")
    fleet.device("lab-02", timezone="Asia/Tokyo")
    return [
        daily(fleet, [], selector={}, name="first", timezone="Europe/Berlin"),
        daily(fleet, [], selector={}, name="in device time", timezone="device"),
        daily(
            fleet,
            [],
            selector={},
            name="waits",
            policies={"execution_window": {"from": "20:00", "to": "21:00", "outside": "wait"}},
        ),
        daily(
            fleet,
            [],
            selector={},
            name="never",
            policies={"execution_window": {"from": "20:00", "to": "21:00"}},
        ),
    ]


def test_the_instants_are_those_of_the_preview(fleet: Fleet) -> None:
    all_made = schedules(fleet)
    _, calendar = read(fleet, NOON, NOON + 14 * DAY)
    coming = [
        (made["timezone"], row)
        for made in all_made
        for row in rows(fleet, "upcoming_runs(%s, 100, %s)", made["id"], NOON)
        if row["would"] == "run" and row["due_at"] < NOON + 14 * DAY
    ]
    expected = sorted(row["starts_at"] for zone, row in coming if zone != "device")
    begins = [event.decoded("dtstart") for event in calendar.walk("VEVENT")]

    assert len(expected) > 20
    assert sorted(at for at in begins if at.tzinfo is not None) == expected
    # In device time an event has no zone: it is then on every wall.
    walls = sorted(f"{at:%a %Y-%m-%d %H:%M}" for at in begins if at.tzinfo is None)
    assert walls == sorted(row["local_time"] for zone, row in coming if zone == "device")
    assert len(walls) > 10


def test_what_calendars_need_to_import_it(fleet: Fleet) -> None:
    made = daily(
        fleet,
        [fleet.device("lab-01")],
        name="Lock; unlock, then \\ rest: " + "every day " * 5 + "教室 " * 9 + "2100",
        description="line one\nline two",
    )
    text, calendar = read(fleet, NOON, NOON + 2 * DAY, name="School 7, labs")
    event, again = calendar.walk("VEVENT")

    assert text.startswith("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n")
    assert text.endswith("END:VCALENDAR\r\n")
    assert "\n" not in text.replace("\r\n", "")
    assert max(len(line.encode()) for line in text.split("\r\n")) <= 75
    assert calendar["X-WR-CALNAME"].to_ical() == b"School 7\\, labs"
    assert calendar["METHOD"] == "PUBLISH"
    assert calendar["REFRESH-INTERVAL"].to_ical() == b"PT1H"
    assert event["SUMMARY"] == made["name"]
    assert "every day at 12:00 (UTC)" in event["DESCRIPTION"]
    assert event["DESCRIPTION"].endswith("\nline one\nline two")
    assert event.decoded("dtend") > event.decoded("dtstart") == NOON
    assert event.decoded("dtstamp") == made_at(fleet, made)
    assert event["UID"] != again["UID"]


def made_at(fleet: Fleet, made: Row) -> datetime:
    at: datetime = fleet.schedule(made["id"])["updated_at"]
    return at.replace(microsecond=0)


def test_the_same_run_has_the_same_uid_whenever_it_is_asked_for(fleet: Fleet) -> None:
    daily(fleet, [fleet.device()])
    _, early = read(fleet, NOON, NOON + 5 * DAY)
    _, late = read(fleet, NOON + DAY, NOON + 5 * DAY)

    assert [e["UID"] for e in early.walk("VEVENT")][1:] == [e["UID"] for e in late.walk("VEVENT")]


def test_it_is_bounded_and_says_so(fleet: Fleet) -> None:
    daily(fleet, [fleet.device()])
    _, calendar = read(fleet, NOON, NOON + 30 * DAY, limit=10)
    _, whole = read(fleet, NOON, NOON + 10 * DAY, limit=10)

    note = str(calendar["X-WR-CALDESC"].to_ical(), "utf-8")
    assert "Only the first 10 runs are shown" in note
    assert "until Mon 2100-01-11 12:00 UTC" in note
    assert len(instants(calendar)) == 10
    assert len(instants(whole)) == 10
    assert "X-WR-CALDESC" not in whole


def test_the_filter_chooses(fleet: Fleet) -> None:
    first, second = fleet.device(), fleet.device()
    one = daily(fleet, [first], name="Morning lock")
    daily(fleet, [second], name="Evening")

    def names(**wanted: Any) -> set[str]:
        _, calendar = read(fleet, NOON, NOON + DAY, **wanted)
        return {str(event["SUMMARY"]) for event in calendar.walk("VEVENT")}

    assert names() == {"Morning lock", "Evening"}
    assert names(schedule_ids=[one["id"]]) == {"Morning lock"}
    assert names(device_id=second) == {"Evening"}
    assert names(search="LOCK") == {"Morning lock"}
    assert names(action_type="lock") == set()


def test_what_is_paused_or_over_is_not_in_it(fleet: Fleet) -> None:
    made = daily(fleet, [fleet.device()])
    fleet.run("select pause_schedule(%s)", made["id"])
    text, calendar = read(fleet, NOON, NOON + DAY)

    assert calendar.walk("VEVENT") == []
    assert "\r\n\r\n" not in text


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ({"colour": "red"}, "colour"),
        ({"limit": 100_000}, "limit"),
        ({"schedule_ids": "1"}, "schedule_ids"),
        ({"name": 7}, "name"),
    ],
)
def test_a_wrong_filter_is_named(fleet: Fleet, wanted: dict[str, Any], word: str) -> None:
    with fleet.refused("PT422", "filter_invalid", word):
        read(fleet, NOON, NOON + DAY, **wanted)


def test_the_calendar_of_an_owner_for_a_feed(fleet: Fleet) -> None:
    daily(fleet, [fleet.device()])
    text = fleet.value(
        "select fleet.calendar_ics(%s, '{}', %s, %s)", fleet.owner_id, NOON, NOON + DAY
    )

    assert instants(icalendar.Calendar.from_ical(text)) == [NOON]


def summaries(calendar: Any, name: str) -> list[str]:
    said = [str(event["summary"]) for event in calendar.walk("VEVENT")]
    return [text for text in said if text.startswith(name)]


def test_what_is_due_often_is_one_entry_a_day_with_a_count(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.minutely([device], NOON, name="often")
    daily(fleet, [device], name="rare")
    text, calendar = read(fleet, NOON, NOON + 60 * DAY)
    assert summaries(calendar, "rare") == ["rare"] * 60
    often = summaries(calendar, "often")
    # The first day begins at noon; the last one is told as a whole.
    assert often == ["often (720 runs)", *["often (1440 runs)"] * 60]
    days = [e for e in calendar.walk("VEVENT") if str(e["summary"]).startswith("often")]
    assert [e.decoded("dtstart") for e in days[:2]] == [NOON.date(), (NOON + DAY).date()]
    assert all(e.decoded("dtend") - e.decoded("dtstart") == DAY for e in days)
    assert len({str(e["uid"]) for e in days}) == len(days)
    assert "one entry a day" in text.replace("\r\n ", "")


def test_days_of_what_is_due_often_are_days_of_its_zone_and_without_what_is_skipped(
    fleet: Fleet,
) -> None:
    fleet.minutely(
        [fleet.device()],
        NOON,
        name="often",
        timezone="Pacific/Auckland",
        policies={"execution_window": {"from": "09:00", "to": "17:00"}},
    )
    _, calendar = read(fleet, NOON, NOON + 2 * DAY)
    days = [e for e in calendar.walk("VEVENT") if "runs)" in str(e["summary"])]
    first = days[0]
    assert str(first["summary"]) == "often (480 runs)"
    assert first.decoded("dtstart") == (NOON + DAY).date()


def test_it_is_shared_however_many_are_due_often(fleet: Fleet) -> None:
    device = fleet.device()
    for n in range(3):
        fleet.minutely([device], NOON, name=f"often {n}")
    daily(fleet, [device], name="rare")
    text, calendar = read(fleet, NOON, NOON + 20 * DAY, limit=100)
    assert len(summaries(calendar, "rare")) == 20
    assert len(calendar.walk("VEVENT")) == 3 * 21 + 20
    assert "Only the first" not in text


def test_few_runs_keep_their_times(fleet: Fleet) -> None:
    made = fleet.create(
        device_ids=[fleet.device()],
        name="hourly",
        recurrence_type="interval",
        recurrence_config={"hours": 1},
        start_time=NOON.isoformat(),
    )
    _, calendar = read(fleet, NOON, NOON + 3 * DAY, schedule_ids=[made["id"]])
    assert len(instants(calendar)) == 72
    assert instants(calendar)[1] == NOON + 60 * MINUTE


def test_no_zone_is_given_to_what_has_none(fleet: Fleet) -> None:
    schedules(fleet)
    text, calendar = read(fleet, NOON, NOON + 2 * DAY)
    assert "X-WR-TIMEZONE" not in text
    floating = [at for at in instants(calendar) if at.tzinfo is None]
    assert floating


@pytest.mark.parametrize("text", ["a" * 500, "é" * 300, "日本語" * 90, "🙂x" * 120, "x" * 75, ""])
def test_a_line_is_folded_between_characters(fleet: Fleet, text: str) -> None:
    folded: str = fleet.value("select fleet.ics_line(%s)", text)
    lines = folded.encode().split(b"\r\n")
    assert lines.pop() == b""
    assert all(len(line) <= 75 for line in lines)
    # Read back each by itself: no character is cut in two.
    first, *others = [line.decode() for line in lines] or [""]
    assert first + "".join(line.removeprefix(" ") for line in others) == text


def test_folding_costs_by_the_length(fleet: Fleet) -> None:
    def cost(length: int) -> float:
        begun = time.perf_counter()
        fleet.value("select length(fleet.ics_line(repeat('日本', %s)))", length)
        return time.perf_counter() - begun

    # A text eight times as long: 8 where each octet is read once, 64 where all before it are.
    short, long = (min(cost(length) for _ in range(3)) for length in (50_000, 400_000))
    assert long < 24 * max(0.01, short)
