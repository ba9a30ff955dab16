"""Skipped and repeated local times: every change of every zone, under every rule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from itertools import cycle
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.clocks import EPOCH, resolve

GAPS = ["first_instant", "shift", "skip"]
FOLDS = ["first", "second", "both"]
NEW_YORK = ZoneInfo("America/New_York")


def reading(epoch: int) -> str:
    """Write a local second of the day as HH:MM:SS."""
    return (EPOCH + timedelta(seconds=epoch)).strftime("%H:%M:%S")


def test_every_change_of_every_zone_follows_the_declared_rule(
    steady: psycopg.Connection[Any],
    zones: list[str],
    changes_of: Callable[[str], Any],
) -> None:
    """Four daily times around each change, with the rules dealt out in turn."""
    rules = cycle([(gap, fold) for gap in GAPS for fold in FOLDS])
    cases = []
    for zone in zones:
        for change, (gap, fold) in zip(changes_of(zone), rules, strict=False):
            low = change.at + min(change.before, change.after)
            width = abs(change.after - change.before)
            readings = [low - 60, low, low + width // 2 // 60 * 60, low + width, low + width + 600]
            cases.append((change, gap, fold, sorted({reading(at) for at in readings})))
    assert len(cases) > 25_000

    with steady.cursor() as cursor:
        cursor.execute(
            "create temp table cases (n int, zone text, gap text, fold text, times text, at bigint)"
        )
        with cursor.copy("copy cases from stdin") as copy:
            for n, (change, gap, fold, times) in enumerate(cases):
                copy.write_row((n, change.zone, gap, fold, ",".join(times), change.at))
    rows = steady.execute(
        """
        with plans as materialized (
          select d.*, fleet.compile_recurrence(
            'daily', jsonb_build_object('times', string_to_array(d.times, ',')),
            'UTC', null, null, d.gap, d.fold
          ) as plan
          from (select distinct gap, fold, times from cases) as d
        ),
        clocks as materialized (
          select z.zone, fleet.zone_clock(z.zone) as clock
          from (select distinct zone from cases) as z
        )
        select c.n, array(
          select extract(epoch from o)::bigint
          from fleet.occurrences(
            p.plan || jsonb_build_object('timezone', c.zone, 'clock', k.clock),
            to_timestamp(c.at - 40000), to_timestamp(c.at + 40000)
          ) as o
        )
        from cases as c
        join plans as p using (gap, fold, times)
        join clocks as k using (zone)
        """
    ).fetchall()  # fmt: skip

    assert len(rows) == len(cases)
    for n, answer in rows:
        change, gap, fold, times = cases[n]
        expected = set()
        middle = EPOCH + timedelta(seconds=change.at)
        for day in range(-3, 4):
            for time in times:
                date = (middle + timedelta(days=day)).date()
                local = datetime.combine(date, clock.fromisoformat(time))
                expected.update(resolve(local, change, gap, fold))
        window = [at for at in sorted(expected) if -40000 <= at - change.at < 40000]
        assert answer == window, (change, gap, fold, times)


def utc(text: str) -> datetime:
    """Read an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "text", "gap", "since", "expected"),
    [
        (NEW_YORK.key, "30 2 * * *", "first_instant", "2026-03-08", "2026-03-08 07:00"),
        (NEW_YORK.key, "30 2 * * *", "shift", "2026-03-08", "2026-03-08 07:30"),
        (NEW_YORK.key, "30 2 * * *", "skip", "2026-03-08", "2026-03-09 06:30"),
        (NEW_YORK.key, "0,30 2 * * *", "first_instant", "2026-03-08", "2026-03-08 07:00"),
        ("Australia/Lord_Howe", "15 2 * * *", "first_instant", "2026-10-03", "2026-10-03 15:30"),
        ("America/Sao_Paulo", "0 0 * * *", "first_instant", "2018-11-03 12:00", "2018-11-04 03:00"),
        ("Africa/Cairo", "0 0 * * *", "first_instant", "2026-04-23 12:00", "2026-04-23 22:00"),
        ("Pacific/Apia", "0 12 30 12 *", "first_instant", "2011-12-30", "2011-12-30 10:00"),
        ("Africa/Monrovia", "10 0 * * *", "first_instant", "1972-01-06 12:00", "1972-01-07 00:45"),
    ],
)
def test_a_skipped_time_follows_the_gap_rule(
    steady: psycopg.Connection[Any],
    compile_one: Callable[..., Any],
    zone: str,
    text: str,
    gap: str,
    since: str,
    expected: str,
) -> None:
    plan = compile_one("cron", {"cron_expression": text}, zone, gap=gap)
    row = steady.execute(
        "select n, fleet.applied_rule(%(plan)s, n) "
        "from fleet.next_occurrence(%(plan)s, %(at)s) as n",
        {"plan": Jsonb(plan), "at": utc(since)},
    ).fetchone()

    assert row == (utc(expected), None if gap == "skip" else f"gap:{gap}")


@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        ("first", ["2026-11-01 05:30"]),
        ("second", ["2026-11-01 06:30"]),
        ("both", ["2026-11-01 05:30", "2026-11-01 06:30"]),
    ],
)
def test_a_repeated_time_follows_the_fold_rule(
    steady: psycopg.Connection[Any],
    compile_one: Callable[..., Any],
    occurrences: Callable[..., list[datetime]],
    fold: str,
    expected: list[str],
) -> None:
    plan = compile_one("daily", {"time": "01:30"}, NEW_YORK.key, fold=fold)
    found = occurrences(plan, utc("2026-11-01 04:00"), utc("2026-11-02 04:00"))

    assert found == [utc(at) for at in expected]
    for at in found:
        row = steady.execute("select fleet.applied_rule(%s, %s)", (Jsonb(plan), at)).fetchone()
        assert row == (f"fold:{fold}",)


def test_wildcard_jobs_know_neither_gap_nor_fold(
    steady: psycopg.Connection[Any],
    compile_one: Callable[..., Any],
    occurrences: Callable[..., list[datetime]],
) -> None:
    plan = compile_one("cron", {"cron_expression": "30 * * * *"}, NEW_YORK.key)
    found = occurrences(plan, utc("2026-11-01 03:00"), utc("2026-11-01 09:00"))

    assert found == [utc(f"2026-11-01 0{hour}:30") for hour in range(3, 9)]
    row = steady.execute("select fleet.applied_rule(%s, %s)", (Jsonb(plan), found[2])).fetchone()
    assert row == (None,)


def test_the_day_after_a_gap_is_back_at_its_own_time(
    compile_one: Callable[..., Any], occurrences: Callable[..., list[datetime]]
) -> None:
    plan = compile_one("daily", {"time": "02:30"}, NEW_YORK.key)
    found = occurrences(plan, utc("2026-03-07 05:00"), utc("2026-03-11 05:00"))

    assert [at.astimezone(NEW_YORK).strftime("%d %H:%M") for at in found] == [
        "07 02:30", "08 03:00", "09 02:30", "10 02:30"
    ]  # fmt: skip


def test_a_local_time_is_its_first_instant(steady: psycopg.Connection[Any]) -> None:
    rows = steady.execute(
        """
        select fleet.local_to_instant(t::timestamp, z)
        from (values
          ('2026-11-01 01:30', 'America/New_York'),
          ('2026-03-08 02:30', 'America/New_York'),
          ('2026-07-01 12:00', 'America/New_York'),
          ('1990-07-01 12:00', 'EET'),
          ('2018-11-04 00:10', 'America/Sao_Paulo'),
          ('2026-04-05 01:45', 'Australia/Lord_Howe')
        ) as v (t, z)
        """
    ).fetchall()

    assert [at for (at,) in rows] == [
        utc("2026-11-01 05:30"), utc("2026-03-08 07:00"), utc("2026-07-01 16:00"),
        utc("1990-07-01 09:00"), utc("2018-11-04 03:00"), utc("2026-04-04 14:45"),
    ]  # fmt: skip
