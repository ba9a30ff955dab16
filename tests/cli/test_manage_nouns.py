"""Templates, blackout calendars and the audit log from the command line."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

Pgfleet = Any

TEMPLATE = """
description: Locks up
parameters:
  school: {type: string}
  days: {type: array, default: [0, 1, 2, 3, 4]}
  code: {type: string, default: "7"}
spec:
  name: Lock {{school}}
  action_type: lock
  payload: {code: "{{code}}"}
  recurrence_type: weekly
  recurrence_config: {days_of_week: "{{days}}", time: 06:30}
  start_time: 2040-01-01T00:00:00
  selector: {tags: ["{{school}}"]}
"""

THIS_YEAR = datetime.now(tz=UTC).year
ICS = f"""BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Test//EN
BEGIN:VEVENT
UID:1
SUMMARY:Christmas
DTSTART;VALUE=DATE:20101225
RRULE:FREQ=YEARLY
END:VEVENT
BEGIN:VEVENT
UID:2
SUMMARY:Winter
DTSTART;VALUE=DATE:{THIS_YEAR}1221
DTEND;VALUE=DATE:{THIS_YEAR + 1}0104
END:VEVENT
BEGIN:VEVENT
UID:3
SUMMARY:Maintenance
DTSTART;TZID=Europe/Berlin:{THIS_YEAR}0701T100000
DURATION:PT2H
END:VEVENT
BEGIN:VEVENT
UID:4
SUMMARY:Exam
DTSTART:{THIS_YEAR}0702T100000Z
DTEND:{THIS_YEAR}0702T113000Z
RRULE:FREQ=WEEKLY;COUNT=3
EXDATE:{THIS_YEAR}0709T100000Z
END:VEVENT
END:VCALENDAR
"""


@pytest.fixture
def lab(pgfleet: Pgfleet, fleet: Any) -> str:
    """Give a device name and leave nothing of other tests."""
    with psycopg.connect(fleet.url()) as conn:
        conn.execute("delete from public.schedules")
        conn.execute("delete from public.schedule_templates")
        conn.execute("delete from public.blackout_calendars")
        conn.execute(
            "insert into public.devices (hostname) values ('lab-01') on conflict do nothing"
        )
    return "lab-01"


def test_a_template_is_saved_shown_used_and_deleted(pgfleet: Pgfleet, lab: str) -> None:
    words = ("template", "save", "lock up", "--file", "-")
    assert pgfleet(*words, stdin=TEMPLATE).code == 0
    assert pgfleet(*words, "--description", "Better", "--json", stdin=TEMPLATE).data["version"] == 2

    listed = pgfleet("template", "list", "--json").data
    assert [(row["version"], row["description"]) for row in listed] == [(2, "Better")]
    assert listed[0]["parameters"] == ["code", "days", "school"]
    assert len(pgfleet("template", "list", "--versions", "--json").data) == 2
    shown = pgfleet("template", "show", "lock up", "--version", "1", "--json").data
    assert shown["description"] == "Locks up"

    made = pgfleet(
        *("template", "use", "Lock up", "--param", "school=7", "--param", "days=[0]", "--json"),
        *("--param", "code=123"),
    )
    assert made.code == 0, made.err
    assert made.data["name"] == "Lock 7"
    assert made.data["payload"] == {"code": "123"}
    assert made.data["recurrence_config"] == {"days_of_week": [0], "time": "06:30"}
    assert "no device matches" in made.err

    wrong = pgfleet("template", "use", "lock up", "--param", "colour=red")
    assert wrong.code == 1
    assert "school" in wrong.err
    assert "colour" in wrong.err

    assert pgfleet("template", "delete", "lock up", "--dry-run").code == 0
    assert pgfleet("template", "delete", "lock up", "--yes").code == 0
    assert pgfleet("template", "show", "lock up").code == 1


def test_events_of_an_ics_file_that_cannot_be_read_are_named(pgfleet: Pgfleet, lab: str) -> None:
    text = "\n".join(
        [
            *("BEGIN:VCALENDAR", "BEGIN:VEVENT", "SUMMARY:Odd", "DTSTART;VALUE=DATE:20400231"),
            *("END:VEVENT", "BEGIN:VEVENT", "SUMMARY:Free", "DTSTART;VALUE=DATE:20260101"),
            *("RRULE:FREQ=YEARLY", "TRANSP:TRANSPARENT", "END:VEVENT", "BEGIN:VEVENT"),
            *("SUMMARY:Christmas", "DTSTART;VALUE=DATE:20261225", "RRULE:FREQ=YEARLY"),
            *("END:VEVENT", "END:VCALENDAR"),
        ]
    )
    words = ("blackout", "import", "holidays", "-")
    refused = pgfleet(*words, "--strict", stdin=text)
    assert refused.code == 1
    assert 'event "Odd": ' in refused.err
    assert pgfleet("blackout", "list", "--json").data == []

    taken = pgfleet(*words, "--skip-transparent", stdin=text)
    assert taken.code == 0, taken.err
    assert 'Left out: event "Odd": ' in taken.err
    assert "that leave people free." in taken.err
    rows = pgfleet("blackout", "show", "holidays", "--json").data
    assert {row["summary"] for row in rows} == {"Christmas"}


def test_an_ics_file_fills_a_calendar(pgfleet: Pgfleet, lab: str, tmp_path: Path) -> None:
    file = tmp_path / "school.ics"
    file.write_text(ICS)
    answer = pgfleet("blackout", "import", "holidays", str(file), "--json")
    assert answer.code == 0, answer.err
    rows = pgfleet("blackout", "show", "holidays", "--json").data

    by_name: dict[str, list[Any]] = {}
    for row in rows:
        by_name.setdefault(row["summary"], []).append(row)
    christmas = [row["starts_on"] for row in by_name["Christmas"]]
    assert f"{THIS_YEAR + 4}-12-25" in christmas
    assert "2010-12-25" not in christmas
    assert by_name["Winter"][0]["ends_on"] == f"{THIS_YEAR + 1}-01-04"
    assert by_name["Maintenance"][0]["starts_at"].startswith(f"{THIS_YEAR}-07-01T08:00:00")
    assert [row["starts_at"][:10] for row in by_name["Exam"]] == [
        f"{THIS_YEAR}-07-02",
        f"{THIS_YEAR}-07-16",
    ]
    # Once more replaces what is there.
    again = pgfleet("blackout", "import", "holidays", str(file), "--json").data
    assert again["periods"] == len(rows)


def test_an_event_of_no_zone_needs_one(pgfleet: Pgfleet, lab: str) -> None:
    floating = ICS.replace("00Z\n", "00\n")
    refused = pgfleet("blackout", "import", "x", "-", stdin=floating)
    assert refused.code == 1
    assert "ics_without_timezone" in refused.err
    words = ("blackout", "import", "x", "-", "--timezone", "Asia/Tokyo")
    assert pgfleet(*words, stdin=floating).code == 0
    exam = [r for r in pgfleet("blackout", "show", "x", "--json").data if r["summary"] == "Exam"]
    assert exam[0]["starts_at"].startswith(f"{THIS_YEAR}-07-02T01:00:00")


@pytest.mark.parametrize("text", ["hello", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR\n", ""])
def test_what_is_no_calendar_is_refused(pgfleet: Pgfleet, lab: str, text: str) -> None:
    answer = pgfleet("blackout", "import", "x", "-", stdin=text)
    assert answer.code == 1
    assert "ics_invalid" in answer.err


def test_a_calendar_is_made_of_days_and_kept_while_it_is_used(pgfleet: Pgfleet, lab: str) -> None:
    made = pgfleet(
        *("blackout", "create", "holidays", "--day", "2040-12-25=Christmas"),
        *(
            "--day",
            "2040-12-28..2041-01-03",
            "--periods",
            '[{"starts_on": "2040-05-01"}]',
            "--json",
        ),
    )
    assert made.code == 0, made.err
    rows = pgfleet("blackout", "show", "holidays", "--json").data
    assert [(row["starts_on"], row["ends_on"]) for row in rows] == [
        ("2040-05-01", "2040-05-02"),
        ("2040-12-25", "2040-12-26"),
        ("2040-12-28", "2041-01-04"),
    ]
    assert pgfleet("blackout", "create", "other", "--day", "soon").code == 1
    pgfleet(
        *("schedule", "create", "nightly", "--action", "lock", "--device", lab),
        *("--daily", "02:30", "--policies", '{"blackouts": ["holidays"]}'),
    )
    kept = pgfleet("blackout", "delete", "holidays", "--yes")
    assert (kept.code, "calendar_in_use" in kept.err) == (1, True)
    pgfleet("schedule", "delete", "nightly", "--yes")
    assert pgfleet("blackout", "delete", "holidays", "--yes").code == 0
    assert pgfleet("blackout", "list", "--json").data == []


def test_the_log_tells_who_changed_what(pgfleet: Pgfleet, lab: str) -> None:
    pgfleet(
        "schedule", "create", "nightly", "--action", "lock", "--device", lab, "--daily", "02:30"
    )
    pgfleet("schedule", "update", "nightly", "--priority", "5")
    answer = pgfleet("audit", "list", "--schedule", "nightly", "--json")
    assert answer.code == 0, answer.err
    rows = answer.data
    assert [row["action"] for row in rows] == ["update", "insert"]
    assert (rows[0]["old"], rows[0]["new"]) == ({"priority": 0}, {"priority": 5})
    assert rows[0]["who"] == "pgfleet"
    assert pgfleet("audit", "show", str(rows[0]["id"]), "--json").data == rows[0]
    tomorrow = (date.today() + timedelta(days=2)).isoformat()
    assert pgfleet("audit", "list", "--since", tomorrow, "--json").data == []
    assert pgfleet("audit", "list", "--actor", "nobody", "--json").data == []
