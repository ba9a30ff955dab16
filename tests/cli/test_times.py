"""Times as people say them, and as people read them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pgfleet import inputs
from pgfleet.errors import InvalidInput
from pgfleet.options import Options, using
from pgfleet.output import times

Pgfleet = Any
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (-4, "now"),
        (-40, "40 s ago"),
        (40, "in 40 s"),
        (-180, "3 min ago"),
        (7260, "in 2 h"),
        (-86400, "1 day ago"),
        (86400 * 3, "in 3 days"),
        (86400 * 90, "in 3 months"),
        (-86400 * 3650, "10 years ago"),
    ],
)
def test_distances_are_rounded_down_to_one_word(seconds: int, text: str) -> None:
    assert times.relative(timedelta(seconds=seconds)) == text


def test_far_times_are_dates_of_here_and_exact_ones_are_utc() -> None:
    at = datetime(2030, 7, 1, 22, 30, tzinfo=UTC)

    assert times.short(at) == "02 Jul 2030"
    assert times.full(at).startswith("Tue 02 Jul 2030 00:30:00 CEST (in ")
    with using(Options(utc=True)):
        assert times.short(at) == times.full(at) == "2030-07-01 22:30:00Z"


@pytest.mark.parametrize(
    "text",
    [
        *("2027-01-04", "2027-01-04T18:30", "2027-01-04 18:30:00", "2027-01-04T18:30+01:00"),
        "2027-01-04T18:30Z",
    ],
)
def test_what_is_written_exactly_is_passed_on(text: str, capsys: Any) -> None:
    assert inputs.moment(text, "--at") == text
    assert capsys.readouterr().err == ""


def test_a_day_with_an_offset_begins_at_midnight() -> None:
    assert inputs.moment("2027-01-04Z", "--at") == "2027-01-04T00:00Z"


@pytest.mark.parametrize(
    ("said", "hour", "minute", "days"),
    [
        ("tomorrow 9:00", 9, 0, 1),
        ("tomorrow at 6pm", 18, 0, 1),
        ("Tomorrow 18:30", 18, 30, 1),
        ("today 23:59", 23, 59, 0),
        ("yesterday", 0, 0, -1),
    ],
)
def test_words_are_times_of_here(said: str, hour: int, minute: int, days: int, capsys: Any) -> None:
    today = datetime.now(BERLIN).date()

    found = datetime.fromisoformat(inputs.moment(said, "--at") or "")

    assert found.replace(tzinfo=None) == datetime.combine(
        today + timedelta(days=days), datetime.min.time().replace(hour=hour, minute=minute)
    )
    assert found.utcoffset() == found.replace(tzinfo=BERLIN).utcoffset()
    echoed = capsys.readouterr().err
    assert echoed.startswith(f'--at: "{said}" is {found:%Y-%m-%d %H:%M}')


def test_an_hour_is_an_hour() -> None:
    found = datetime.fromisoformat(inputs.moment("in 2 hours", "--at") or "")

    assert abs(found - datetime.now(UTC) - timedelta(hours=2)) < timedelta(seconds=5)


def test_the_zone_of_a_schedule_wins_and_walls_have_none(capsys: Any) -> None:
    there = datetime.fromisoformat(
        inputs.moment("tomorrow 9:00", "--at", zone="America/New_York") or ""
    )
    wall = datetime.fromisoformat(inputs.moment("tomorrow 9:00", "--at", zone="device") or "")

    assert there.utcoffset() in (timedelta(hours=-5), timedelta(hours=-4))
    assert (wall.tzinfo, wall.hour) == (None, 9)
    assert "on the wall of each device" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [
        *(
            "",
            " ",
            "foo",
            "tomorrow foo",
            "foo tomorrow 9:00",
            "tomorow 9:00",
            "25:00",
            "31 february",
        ),
        *("2027-13-01", "2027-02-30", "99:99", "; drop table devices", "9", "lurch"),
    ],
)
def test_what_is_half_understood_is_refused(said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        inputs.moment(said, "--at")

    assert caught.value.reason == "time_invalid"
    assert "tomorrow 9:00" in (caught.value.hint or "")


def test_a_schedule_is_made_for_what_was_said(pgfleet: Pgfleet) -> None:
    assert pgfleet("device", "create", "here").code == 0
    answer = pgfleet(
        *("schedule", "create", "soon", "--action", "lock", "--device", "here"),
        *("--at", "tomorrow 9:00", "--json"),
    )

    assert answer.code == 0, answer.err
    assert '--at: "tomorrow 9:00" is ' in answer.err
    due = datetime.fromisoformat(answer.data["next_run_at"]).astimezone(BERLIN)
    assert (due.hour, due.date()) == (9, datetime.now(BERLIN).date() + timedelta(days=1))
