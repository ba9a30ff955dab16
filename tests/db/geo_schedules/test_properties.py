"""What holds for the actions of every geo schedule, in every zone, around every clock change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Database
from tests.db.geo_schedules import walls

# One geo schedule for each zone, told apart by its number.
ASK = """
    with configs as (
      select array_agg(jsonb_populate_record(
        null::fleet.geo_times,
        jsonb_build_object(
          'id', z.number, 'timezone', z.name, 'days', to_jsonb(%(days)s::int[]),
          'start_minute', %(start)s::int, 'end_minute', %(end)s::int,
          'recurrence', case when %(days)s::int[] = '{}' then 'daily' else 'weekly' end,
          'effective_from', %(effective)s::timestamptz, 'delay_ends_at', %(ends)s::timestamptz
        )
      )) as rows
      from unnest(%(zones)s::text[]) with ordinality as z(name, number)
    )
    select a.geo_schedule_id, a.from_date, a.starts_at, a.ends_at, a.length_minutes
    from configs as c
    cross join lateral fleet.actions_of_geo_times(c.rows, %(from)s, %(to)s) as a
    order by a.geo_schedule_id, a.from_date
"""

Action = tuple[date, datetime, datetime, int]


@pytest.fixture(scope="module")
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect(autocommit=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def zones(conn: psycopg.Connection[Any]) -> list[str]:
    """Give every zone that both sides know."""
    known = conn.execute("select name from fleet.time_zones order by name").fetchall()
    usable = []
    for (name,) in known:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            continue
        usable.append(name)
    assert len(usable) > 300
    return usable


def actions(
    conn: psycopg.Connection[Any], zones: list[str], now: datetime, **values: Any
) -> dict[str, list[Action]]:
    """Give the actions of one geo schedule as it would be in each zone, in the window of a time."""
    known = {"days": [], "effective": None, "ends": None, "zones": zones}
    window = {"from": now - WEEK, "to": now + 2 * WEEK}
    found: dict[str, list[Action]] = {zone: [] for zone in zones}
    for number, *action in conn.execute(ASK, known | window | values):
        found[zones[number - 1]].append(tuple(action))
    return found


WEEK = timedelta(days=7)
MINUTES = st.one_of(st.sampled_from([0, 30, 60, 119, 120, 150, 180, 1439]), st.integers(0, 1439))
DAYS: st.SearchStrategy[list[int]] = st.one_of(
    st.just([]), st.lists(st.integers(0, 6), min_size=1, unique=True)
)
# Years in which some zone or other did every odd thing that zones do: days left out, half hours.
MOMENTS = st.one_of(
    st.datetimes(datetime(2011, 12, 20), datetime(2012, 1, 10)),
    st.datetimes(datetime(2024, 3, 1), datetime(2024, 4, 15)),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31)),
).map(lambda at: at.replace(tzinfo=UTC))
# Each for every zone there is, some six hundred: thousands of cases for each property.
EVERYWHERE = settings(max_examples=4, deadline=None)


def wall_of(zone: str, first: datetime, stop: datetime) -> str:
    """Tell zones apart whose clocks differ then: those that stay alike all along are one wall."""
    samples = range(-3 * 24, (stop - first).days * 24 + 4 * 24, 12)
    offsets = {ZoneInfo(zone).utcoffset(_local(first, hours, zone)) for hours in samples}
    return str(offsets.pop()) if len(offsets) == 1 else zone


def _local(first: datetime, hours: int, zone: str) -> datetime:
    return (first + timedelta(hours=hours)).astimezone(ZoneInfo(zone))


@EVERYWHERE
@given(start=MINUTES, end=MINUTES, days=DAYS, now=MOMENTS)
def test_actions_are_those_of_an_independent_wall(
    conn: psycopg.Connection[Any],
    zones: list[str],
    start: int,
    end: int,
    days: list[int],
    now: datetime,
) -> None:
    asked = {"start": start, "end": end, "days": days}
    found = actions(conn, zones, now, **asked)
    assert found == actions(conn, zones, now, **asked), "the same arguments give the same actions"

    first, stop = now - WEEK, now + 2 * WEEK
    dates = [first.date() + timedelta(days=offset) for offset in range(-2, 24)]
    expected: dict[str, list[Action]] = {}
    for zone in zones:
        wall = wall_of(zone, first, stop)
        if wall not in expected:
            made = (
                (day, *walls.action(day, start, end, ZoneInfo(zone)))
                for day in dates
                if not days or day.weekday() in days
            )
            expected[wall] = [
                (day, starts, ends, round((ends - starts).total_seconds() / 60))
                for day, starts, ends in made
                if first <= starts < stop
            ]
        assert found[zone] == expected[wall], zone


@EVERYWHERE
@given(start=MINUTES, end=MINUTES, days=DAYS, now=MOMENTS, cut=st.integers(0, 21 * 24 * 3600))
def test_windows_compose(
    conn: psycopg.Connection[Any],
    zones: list[str],
    start: int,
    end: int,
    days: list[int],
    now: datetime,
    cut: int,
) -> None:
    zones = [*zones, "device"]
    middle = now - WEEK + timedelta(seconds=cut)
    asked = {"start": start, "end": end, "days": days}
    whole = actions(conn, zones, now, **asked)
    before = actions(conn, zones, now, **asked, to=middle)
    after = actions(conn, zones, now, **asked, **{"from": middle})
    for zone, found in whole.items():
        assert found == before[zone] + after[zone], zone
        assert len({day for day, *_ in found}) == len(found), "one action a date"
        assert all(now - WEEK <= starts < now + 2 * WEEK for _, starts, *_ in found)


@EVERYWHERE
@given(start=MINUTES, end=MINUTES, now=MOMENTS, later=st.integers(0, 30 * 24 * 60))
def test_cleanup_never_removes_what_creation_would_make_again(
    conn: psycopg.Connection[Any],
    zones: list[str],
    start: int,
    end: int,
    now: datetime,
    later: int,
) -> None:
    zones = [*zones, "device"]
    cleaned_at = now + timedelta(minutes=later)
    made = actions(conn, zones, now, start=start, end=end)
    again = actions(conn, zones, cleaned_at, start=start, end=end)
    for zone, found in made.items():
        removed = {day for day, starts, *_ in found if starts < cleaned_at - 2 * WEEK}
        assert removed.isdisjoint(day for day, *_ in again[zone]), zone


@EVERYWHERE
@given(
    start=MINUTES,
    end=MINUTES,
    now=MOMENTS,
    effective=st.integers(-7 * 24, 14 * 24),
    ends=st.integers(-7 * 24, 14 * 24),
)
def test_no_action_starts_before_a_commitment_or_after_its_end(
    conn: psycopg.Connection[Any],
    zones: list[str],
    start: int,
    end: int,
    now: datetime,
    effective: int,
    ends: int,
) -> None:
    first, last = now + timedelta(hours=effective), now + timedelta(hours=ends)
    bounded = actions(conn, zones, now, start=start, end=end, effective=first, ends=last)
    for zone, found in actions(conn, zones, now, start=start, end=end).items():
        owed = [one for one in found if first <= one[1] < last and one[2] > first]
        assert bounded[zone] == owed, zone
