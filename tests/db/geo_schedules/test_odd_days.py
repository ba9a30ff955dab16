"""Days on which clocks do something odd, by instants that were worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Database
from tests.helpers.fleet import Fleet

# Zone, date, from, to: begins and ends in UTC, real minutes.
ODD = [
    # Midnight itself is skipped, then repeated from 23:00 on.
    ("Asia/Beirut", "2024-03-30", 0, 0, "2024-03-29 22:00", "2024-03-30 22:00", 1440),
    ("Asia/Beirut", "2024-03-31", 0, 0, "2024-03-30 22:00", "2024-03-31 21:00", 1380),
    ("Asia/Beirut", "2024-03-30", 1320, 30, "2024-03-30 20:00", "2024-03-30 22:00", 120),
    ("Asia/Beirut", "2024-10-26", 0, 0, "2024-10-25 21:00", "2024-10-26 22:00", 1500),
    ("Asia/Beirut", "2024-10-26", 1410, 1425, "2024-10-26 20:30", "2024-10-26 21:45", 75),
    ("Africa/Cairo", "2024-04-26", 0, 60, "2024-04-25 22:00", "2024-04-25 22:00", 0),
    ("Africa/Cairo", "2024-10-31", 1380, 0, "2024-10-31 20:00", "2024-10-31 22:00", 120),
    # The hour after midnight is repeated: what ends in it does so in the second.
    ("America/Havana", "2024-11-02", 1320, 30, "2024-11-03 02:00", "2024-11-03 05:30", 210),
    ("America/Havana", "2024-11-03", 0, 60, "2024-11-03 04:00", "2024-11-03 06:00", 120),
    ("America/Havana", "2024-03-10", 15, 45, "2024-03-10 05:00", "2024-03-10 05:00", 0),
    # Half an hour.
    ("Australia/Lord_Howe", "2024-04-07", 60, 105, "2024-04-06 14:00", "2024-04-06 15:15", 75),
    ("Australia/Lord_Howe", "2024-10-06", 130, 160, "2024-10-05 15:30", "2024-10-05 15:40", 10),
    # A day that never was.
    ("Pacific/Apia", "2011-12-29", 1320, 360, "2011-12-30 08:00", "2011-12-30 10:00", 120),
    ("Pacific/Apia", "2011-12-30", 480, 540, "2011-12-30 10:00", "2011-12-30 10:00", 0),
    ("Pacific/Apia", "2011-12-31", 0, 0, "2011-12-30 10:00", "2011-12-31 10:00", 1440),
]


@pytest.fixture(scope="module")
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect(autocommit=True) as opened:
        yield opened


@pytest.mark.parametrize(
    ("zone", "day", "start", "end", "begins", "ends", "minutes"),
    ODD,
    ids=[f"{zone}-{day}-{start}" for zone, day, start, *_ in ODD],
)
def test_an_action_is_where_the_wall_of_its_zone_says(
    conn: psycopg.Connection[Any],
    zone: str,
    day: str,
    start: int,
    end: int,
    begins: str,
    ends: str,
    minutes: int,
) -> None:
    of_day = date.fromisoformat(day)
    weekly = {"recurrence": "weekly", "days": [of_day.weekday()], "timezone": zone}
    at = datetime(of_day.year, of_day.month, of_day.day, tzinfo=UTC)
    found = conn.execute(
        "select a.from_date, a.starts_at, a.ends_at, a.length_minutes"
        " from fleet.create_actions_from_geo_schedule_config(jsonb_populate_record("
        "   fleet.empty_geo_schedule(gen_random_uuid()), %s), %s, %s) as a",
        (
            Jsonb({**weekly, "start_minute": start, "end_minute": end}),
            at - timedelta(days=3),
            at + timedelta(days=3),
        ),
    ).fetchall()
    # One day of the week of six days: no other date, whatever the clocks do.
    assert found == [
        (
            of_day,
            datetime.fromisoformat(begins).replace(tzinfo=UTC),
            datetime.fromisoformat(ends).replace(tzinfo=UTC),
            minutes,
        )
    ]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("-infinity", "infinity"),
        ("infinity", "infinity"),
        ("2031-01-01", "infinity"),
        ("294276-12-01", "294276-12-31"),
        ("4713-12-01 BC", "4713-12-31 BC"),
    ],
)
def test_a_preview_outside_of_all_calendars_is_refused_by_name(
    fleet: Fleet, start: str, end: str
) -> None:
    fleet.device("tablet")
    spec = {
        **{"owner_id": str(fleet.owner_id), "name": "n", "device": "tablet", "apps": ["go"]},
        **{"start_minute": 0, "end_minute": 0},
    }
    with fleet.refused("PT422", "window_invalid"):
        fleet.run("select * from preview_geo_schedule(%s, %s, %s)", Jsonb(spec), start, end)


@pytest.mark.parametrize(
    "at", ["-infinity", "infinity", "294276-12-31 23:59:59", "4713-01-02 BC", "1970-01-01"]
)
def test_nothing_is_blocked_at_an_instant_that_nobody_lives_to_see(fleet: Fleet, at: str) -> None:
    device = fleet.device("tablet")
    fleet.run(
        "select create_geo_schedule(%s)",
        Jsonb(
            {
                **{"owner_id": str(fleet.owner_id), "name": "n", "device": "tablet"},
                **{"apps": ["go"], "start_minute": 0, "end_minute": 0},
            }
        ),
    )
    assert fleet.value("select explain_geo(%s, %s)", device, at)["blocked_apps"] == []


def test_a_device_that_has_no_zone_goes_by_the_wall_of_its_owner(fleet: Fleet) -> None:
    fleet.run("update owners set timezone = 'Asia/Kathmandu' where id = %s", fleet.owner_id)
    device = fleet.device("tablet")
    spec = {
        **{"owner_id": str(fleet.owner_id), "name": "n", "device": "tablet", "apps": ["go"]},
        **{"start_minute": 480, "end_minute": 540, "timezone": "device"},
    }
    fleet.run("select create_geo_schedule(%s)", Jsonb(spec))
    with fleet.as_device(device):
        (*_, last) = fleet.value("select geo_actions_due()")["actions"]
    assert datetime.fromisoformat(last["starts_at"]).astimezone(UTC).strftime("%H:%M") == "02:15"
