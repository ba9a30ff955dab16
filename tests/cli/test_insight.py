"""Seeing what schedules will do, from the command line."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import icalendar
import psycopg
import pytest
from psycopg.types.json import Jsonb

Pgfleet = Any


@pytest.fixture(scope="module")
def nightly(fleet: Any) -> str:
    """Give the name of a schedule that is due at night from 2040 on."""
    spec = {
        "name": "nightly",
        "action_type": "lock",
        "recurrence_type": "daily",
        "recurrence_config": {"time": "02:30"},
        "timezone": "Europe/Berlin",
        "start_time": "2040-01-01T00:00:00",
        "selector": {},
    }
    with psycopg.connect(fleet.url()) as conn:
        conn.execute(
            "insert into public.devices (hostname, timezone) values ('lab-01', 'Asia/Tokyo')"
        )
        conn.execute("select public.create_schedule(%s)", (Jsonb(spec),))
        conn.execute("select public.create_schedule(%s)", (Jsonb(spec | {"name": "also"}),))
    return "nightly"


def on_terminal(fleet: Any, *words: str, **environment: str) -> str:
    """Run the program on a terminal, and give what appears there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pgfleet", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "COLUMNS": "160",
            "PGFLEET_DATABASE_URL": fleet.url(),
            **environment,
        },
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:
        # A terminal whose other side is closed gives an error, not an end.
        pass
    finally:
        os.close(ours)
        process.wait()
    return seen.decode()


def test_preview_takes_the_options_of_create(pgfleet: Pgfleet, nightly: str) -> None:
    rows = pgfleet(
        *("schedule", "preview", "--action", "lock", "--device", "lab-01", "--daily", "02:30"),
        *("--timezone", "Europe/Berlin", "--from", "2040-03-24T12:00Z", "--count", "2", "--json"),
    ).data

    assert [row["local_time"] for row in rows] == ["Sun 2040-03-25 03:00", "Mon 2040-03-26 02:30"]
    assert "the clocks skip" in rows[0]["dst_note"]
    names = {row["name"] for row in pgfleet("schedule", "list", "--json").data}
    assert names == {"nightly", "also"}


def test_preview_names_every_wrong_field(pgfleet: Pgfleet, nightly: str) -> None:
    answer = pgfleet(
        *("schedule", "preview", "--action", "nonsense", "--device", "lab-01"),
        *("--daily", "25:00", "--timezone", "Mars/Olympus"),
    )

    assert answer.code == 1
    for field in ("action_type", "recurrence_config.time", "timezone"):
        assert field in answer.err


def test_preview_of_what_follows_says_that_it_has_no_times(pgfleet: Pgfleet, nightly: str) -> None:
    answer = pgfleet(
        *("schedule", "preview", "--action", "lock", "--device", "lab-01"),
        *("--after", nightly, "--after-on", "failed"),
    )

    assert (answer.code, answer.out) == (0, "")
    assert "no due instants of its own" in answer.err


def test_diff_of_an_edit(pgfleet: Pgfleet, nightly: str) -> None:
    rows = pgfleet("schedule", "diff", nightly, "--daily", "03:30", "--count", "4", "--json").data

    assert [row["change"] for row in rows] == ["removed", "added", "removed", "added"]
    assert rows[1]["local_time"] == "Sun 2040-01-01 03:30"


@pytest.mark.parametrize(
    ("at", "verdict"),
    [
        ("2040-01-05T02:30", "not yet due"),
        ("2040-01-05T01:30Z", "not yet due"),
        ("2040-01-05T03:00", "not due"),
        ("2039-12-31T02:30", "before start"),
    ],
)
def test_explain_reads_times_as_the_schedule_does(
    pgfleet: Pgfleet, nightly: str, at: str, verdict: str
) -> None:
    answer = pgfleet("schedule", "explain", nightly, at, "--device", "lab-01", "--json").data

    assert answer["verdict"] == verdict
    assert answer["hostname"] == "lab-01"


def test_explain_wants_a_time(pgfleet: Pgfleet, nightly: str) -> None:
    answer = pgfleet("schedule", "explain", nightly, "yesterdya")

    assert answer.code == 1
    assert "Reason: time_invalid" in answer.err


def test_describe_is_a_sentence_or_json(pgfleet: Pgfleet, nightly: str) -> None:
    text = pgfleet("schedule", "describe", nightly).out
    data = pgfleet("schedule", "describe", nightly, "--json").data

    assert "every day at 02:30 (Europe/Berlin)" in text
    assert data["description"] == text.strip()


def test_conflicts_of_one_and_of_all(pgfleet: Pgfleet, nightly: str) -> None:
    span = ("--from", "2040-01-01T00:00Z", "--to", "2040-01-04T00:00Z", "--json")
    (one,) = pgfleet("schedule", "conflicts", nightly, *span).data
    (of_all,) = pgfleet("schedule", "conflicts", *span).data

    assert (one["other_schedule"], one["times"], one["devices"]) == ("also", 3, 1)
    assert of_all["example_hostnames"] == ["lab-01"]


def test_simulate_says_what_cannot_be_known(pgfleet: Pgfleet, nightly: str) -> None:
    span = ("--from", "2040-01-01T00:00Z", "--to", "2040-01-02T00:00Z")
    answer = pgfleet("schedule", "simulate", *span, "--limit", "1", "--json")

    assert [(row["name"], row["would"]) for row in answer.data] == [("nightly", "run")]
    assert "Overlap cannot be known" in answer.err
    assert "first 1" in answer.err


def test_calendar_of_a_month_as_data(pgfleet: Pgfleet, nightly: str) -> None:
    words = ("schedule", "calendar", "--month", "2040-02", "--timezone", "Europe/Berlin")
    rows = pgfleet(*words, "--json").data

    assert len(rows) == 2 * 29
    assert {row["coming"] for row in rows} == {1}
    assert rows[0]["day"] == "2040-02-01"
    assert pgfleet(*words).out.startswith("day\tfirst_local\tname\tcoming")


def test_calendar_is_drawn_on_a_terminal(fleet: Any, nightly: str) -> None:
    words = ("schedule", "calendar", "--month", "2040-02", "--timezone", "Europe/Berlin")
    coloured = on_terminal(fleet, *words)
    plain = on_terminal(fleet, *words, NO_COLOR="1")
    week = on_terminal(fleet, "schedule", "calendar", "--day", "2040-02-08", NO_COLOR="1")

    assert "\x1b[34m02:30 nightly" in coloured
    assert "\x1b[3" not in plain
    assert "February 2040 (Europe/Berlin)" in plain
    assert "Mon" in plain
    assert plain.count("02:30 nightly") == 29
    assert plain.count("2 runs") == 29
    assert week.count("nightly") == 7


def test_calendar_without_a_day_is_that_of_today(pgfleet: Pgfleet, nightly: str) -> None:
    assert pgfleet("schedule", "calendar", "--week", "--json").data == []
    assert pgfleet("schedule", "calendar", "--json").code == 0


@pytest.mark.parametrize(("option", "text"), [("--month", "2040-13"), ("--day", "tomorrow")])
def test_calendar_names_a_wrong_time(pgfleet: Pgfleet, option: str, text: str) -> None:
    answer = pgfleet("schedule", "calendar", option, text)

    assert answer.code == 1
    assert text in answer.err


def test_icalendar_goes_to_a_file_or_to_stdout(
    pgfleet: Pgfleet, nightly: str, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.ics"
    words = ("schedule", "calendar", "--ics", "--month", "2040-02", "--timezone", "Europe/Berlin")
    written = pgfleet(*words, "-o", str(file), "--schedule", nightly, "--name", "Nights")
    printed = pgfleet(*words, "--device", "lab-01")
    calendar = icalendar.Calendar.from_ical(file.read_bytes())

    assert "Wrote 29 runs" in written.err
    assert b"\r\n" in file.read_bytes()
    assert calendar["X-WR-CALNAME"].to_ical() == b"Nights"
    days = [event.decoded("dtstart").date() for event in calendar.walk("VEVENT")]
    assert days == [date(2040, 2, n) for n in range(1, 30)]
    assert printed.out.count("BEGIN:VEVENT") == 58


def test_icalendar_that_cannot_be_written_is_told(pgfleet: Pgfleet, nightly: str) -> None:
    answer = pgfleet("schedule", "calendar", "--ics", "-o", "/no/such/folder/x.ics")

    assert answer.code == 1
    assert "Reason: file_unwritable" in answer.err
