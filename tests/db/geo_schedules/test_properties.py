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
from psycopg.rows import dict_row
from tests.conftest import Database
from tests.db.geo_schedules import walls

ASK = """
    with config as (
      select jsonb_populate_record(
        fleet.empty_geo_schedule(gen_random_uuid()),
        jsonb_build_object(
          'id', 1, 'timezone', %(zone)s::text, 'days', to_jsonb(%(days)s::int[]),
          'start_minute', %(start)s::int, 'end_minute', %(end)s::int,
          'recurrence', case when %(days)s::int[] = '{}' then 'daily' else 'weekly' end,
          'effective_from', %(effective)s::timestamptz, 'delay_ends_at', %(ends)s::timestamptz
        )
      ) as row
    )
    select a.*
    from config as c
    cross join lateral fleet.create_actions_from_geo_schedule_config(c.row, %(from)s, %(to)s) as a
    order by a.from_date
"""


@pytest.fixture(scope="module")
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect(autocommit=True, row_factory=dict_row) as opened:
        yield opened


@pytest.fixture(scope="module")
def zones(conn: psycopg.Connection[Any]) -> list[str]:
    """Give every zone that both sides know."""
    known = conn.execute("select name from fleet.time_zones order by name").fetchall()
    usable = []
    for row in known:
        try:
            ZoneInfo(row["name"])
        except (KeyError, ValueError, OSError):
            continue
        usable.append(row["name"])
    return usable


def actions(conn: psycopg.Connection[Any], **values: Any) -> list[dict[str, Any]]:
    known = {"days": [], "effective": None, "ends": None}
    return conn.execute(ASK, known | values).fetchall()


MINUTES = st.one_of(st.sampled_from([0, 30, 60, 119, 120, 150, 180, 1439]), st.integers(0, 1439))
DAYS = st.one_of(st.just([]), st.lists(st.integers(0, 6), min_size=1, unique=True))
# Years in which some zone or other did every odd thing that zones do: days left out, half hours.
MOMENTS = st.one_of(
    st.datetimes(datetime(2011, 12, 20), datetime(2012, 1, 10)),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31)),
).map(lambda at: at.replace(tzinfo=UTC))


@settings(max_examples=250, deadline=None)
@given(data=st.data(), start=MINUTES, end=MINUTES, days=DAYS, now=MOMENTS)
def test_actions_are_those_of_an_independent_wall(
    conn: psycopg.Connection[Any],
    zones: list[str],
    data: st.DataObject,
    start: int,
    end: int,
    days: list[int],
    now: datetime,
) -> None:
    zone = data.draw(st.sampled_from(zones))
    begin, stop = now - timedelta(days=7), now + timedelta(days=14)
    asked = {"zone": zone, "start": start, "end": end, "days": days, "from": begin, "to": stop}
    found = actions(conn, **asked)
    assert found == actions(conn, **asked), "the same arguments give the same actions"

    expected = []
    for offset in range(-2, 24):
        day: date = begin.date() + timedelta(days=offset)
        if days and day.weekday() not in days:
            continue
        starts, ends = walls.action(day, start, end, ZoneInfo(zone))
        if begin <= starts < stop:
            expected.append((day, starts, ends, round((ends - starts).total_seconds() / 60)))
    assert [
        (row["from_date"], row["starts_at"], row["ends_at"], row["length_minutes"]) for row in found
    ] == expected


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    start=MINUTES,
    end=MINUTES,
    days=DAYS,
    now=MOMENTS,
    cut=st.integers(0, 21 * 24 * 3600),
)
def test_windows_compose(
    conn: psycopg.Connection[Any],
    zones: list[str],
    data: st.DataObject,
    start: int,
    end: int,
    days: list[int],
    now: datetime,
    cut: int,
) -> None:
    zone = data.draw(st.sampled_from([*zones, "device"]))
    begin, stop = now - timedelta(days=7), now + timedelta(days=14)
    middle = begin + timedelta(seconds=cut)
    asked = {"zone": zone, "start": start, "end": end, "days": days}
    whole = actions(conn, **asked, **{"from": begin, "to": stop})
    assert whole == [
        *actions(conn, **asked, **{"from": begin, "to": middle}),
        *actions(conn, **asked, **{"from": middle, "to": stop}),
    ]
    assert len({row["from_date"] for row in whole}) == len(whole), "one action a date"
    assert all(begin <= row["starts_at"] < stop for row in whole)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), start=MINUTES, end=MINUTES, now=MOMENTS, later=st.integers(0, 30 * 24 * 60))
def test_cleanup_never_removes_what_creation_would_make_again(
    conn: psycopg.Connection[Any],
    zones: list[str],
    data: st.DataObject,
    start: int,
    end: int,
    now: datetime,
    later: int,
) -> None:
    zone = data.draw(st.sampled_from([*zones, "device"]))
    cleaned_at = now + timedelta(minutes=later)
    made = actions(
        conn,
        zone=zone,
        start=start,
        end=end,
        **{"from": now - timedelta(days=7), "to": now + timedelta(days=14)},
    )
    again = actions(
        conn,
        zone=zone,
        start=start,
        end=end,
        **{"from": cleaned_at - timedelta(days=7), "to": cleaned_at + timedelta(days=14)},
    )
    removed = {
        row["from_date"] for row in made if row["starts_at"] < cleaned_at - timedelta(days=14)
    }
    assert removed.isdisjoint(row["from_date"] for row in again)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    start=MINUTES,
    end=MINUTES,
    now=MOMENTS,
    effective=st.integers(-7 * 24, 14 * 24),
    ends=st.integers(-7 * 24, 14 * 24),
)
def test_no_action_starts_before_a_commitment_or_after_its_end(
    conn: psycopg.Connection[Any],
    zones: list[str],
    data: st.DataObject,
    start: int,
    end: int,
    now: datetime,
    effective: int,
    ends: int,
) -> None:
    zone = data.draw(st.sampled_from(zones))
    asked = {
        "zone": zone,
        "start": start,
        "end": end,
        "from": now - timedelta(days=7),
        "to": now + timedelta(days=14),
    }
    first, last = now + timedelta(hours=effective), now + timedelta(hours=ends)
    bounded = actions(conn, **asked, effective=first, ends=last)
    assert bounded == [
        row
        for row in actions(conn, **asked)
        if first <= row["starts_at"] < last and row["ends_at"] > first
    ]
