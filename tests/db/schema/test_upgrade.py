"""A database of an older release, with what was under way in it, goes on in today's."""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.rows import dict_row

from pgfleet.schema.migrate import migrate, status
from pgfleet_local.bootstrap import prepare_database

# A dump of the last release whose device time went by instants, each of which was a run of its
# own: ten devices in as many zones, on 11 January 2031 at 05:30 UTC. Where it is half past six or
# later, the day has begun; in the west it has not.
OLDER_DAY = Path(__file__).parent / "older" / "in_the_middle_of_a_day.sql.xz"
BEGAN = datetime(2031, 1, 10, tzinfo=UTC)
UPGRADED = datetime(2031, 1, 11, 5, 30, tzinfo=UTC)
NEXT_NOON = datetime(2031, 1, 12, 12, tzinfo=UTC)

Clone = Callable[[str | None], AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def upgraded(clone: Clone) -> Iterator[psycopg.Connection[Any]]:
    """Restore it, migrate it, and let it go on until the noon after."""
    with clone(None) as made:
        prepare_database(made.url("supabase_admin"), cron=False, net=True)
        with psycopg.connect(made.url()) as older:
            older.execute(lzma.decompress(OLDER_DAY.read_bytes()))
        migrate(made.url())
        found = status(made.url())
        assert (bool(found.pending), found.edited, found.leftovers) == (False, [], [])
        with psycopg.connect(made.url(), autocommit=True, row_factory=dict_row) as connection:
            _go_on(connection, NEXT_NOON)
            yield connection


def _go_on(connection: psycopg.Connection[Any], until: datetime) -> None:
    while True:
        row = connection.execute(
            "select least((select min(next_run_at) from schedules where status = 'active'),"
            " (select min(starts_at) from fleet.run_zones where expanded_at is null), %s) as now",
            (until,),
        ).fetchone()
        assert row is not None
        more = True
        while more:
            tick = connection.execute("select fleet.tick(%s) as did", (row["now"],)).fetchone()
            assert tick is not None and tick["did"]["errors"] == [], tick
            more = tick["did"]["more"]
        if row["now"] == until:
            return


def _walls(connection: psycopg.Connection[Any], schedule: str) -> dict[str, list[datetime]]:
    """Give what each device's wall showed whenever the schedule reached it."""
    found: dict[str, list[datetime]] = {}
    for row in connection.execute(
        "select coalesce(d.timezone, 'UTC') as zone, c.not_before from device_commands as c"
        " join schedules as s on s.id = c.schedule_id join devices as d on d.id = c.device_id"
        " where s.name = %s order by c.not_before",
        (schedule,),
    ):
        local = row["not_before"].astimezone(ZoneInfo(row["zone"])).replace(tzinfo=None)
        found.setdefault(row["zone"], []).append(local)
    return found


@pytest.mark.parametrize(
    ("schedule", "days", "devices"),
    [
        ("daily", (9, 10, 11, 12), 10),
        ("rule", (9, 10, 11, 12), 10),
        ("counted", (9, 10, 11, 12), 10),
        ("named", (9, 10, 11, 12), 7),
        ("grouped", (9, 10, 11, 12), 8),
        ("weekly", (11, 12), 10),
        ("once", (11,), 10),
    ],
)
def test_a_day_that_has_begun_comes_once_to_every_wall(
    upgraded: psycopg.Connection[Any], schedule: str, days: tuple[int, ...], devices: int
) -> None:
    walls = _walls(upgraded, schedule)

    assert len(walls) == devices
    for zone, shown in walls.items():
        due = [datetime(2031, 1, day, 6, 30, tzinfo=ZoneInfo(zone)) for day in days]
        assert shown == [
            instant.replace(tzinfo=None) for instant in due if BEGAN <= instant <= NEXT_NOON
        ], zone


def test_elapsed_time_goes_on_at_the_same_instants(upgraded: psycopg.Connection[Any]) -> None:
    for zone, shown in _walls(upgraded, "hours").items():
        instants = [local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for local in shown]
        assert instants == [BEGAN + step * timedelta(hours=6) for step in range(11)], zone


def test_what_is_due_too_often_is_paused_with_the_reason(
    upgraded: psycopg.Connection[Any],
) -> None:
    row = upgraded.execute("select * from schedules where name = 'dense'").fetchone()

    assert row is not None and row["status"] == "paused"
    assert row["status_reason"].startswith("device_time_too_dense")
    ran = [local.minute for shown in _walls(upgraded, "dense").values() for local in shown]
    assert ran and max(ran) <= UPGRADED.minute + 15


def test_a_paused_schedule_stays_paused(upgraded: psycopg.Connection[Any]) -> None:
    row = upgraded.execute("select status from schedules where name = 'paused'").fetchone()

    assert row == {"status": "paused"}
    assert _walls(upgraded, "paused") == {}
