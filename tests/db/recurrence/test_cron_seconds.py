"""Cron with seconds at every change of every clock, against a walk through all readings."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from tests.helpers.clocks import EPOCH, real_moments, resolve

GAPS = ["first_instant", "shift", "skip"]
FOLDS = ["first", "second", "both"]
REACH = 15_000


def seconds_field(dice: random.Random) -> str:
    """Write the field of seconds."""
    return dice.choice(["0", "0,30", "*/15", "7", "59", "10-50/20", "5/27"])


def values(field: str, size: int) -> list[int]:
    """Read a field: a star, numbers, ranges and steps."""
    found: set[int] = set()
    for term in field.split(","):
        base, _, step = term.partition("/")
        first, _, last = ("0-" + str(size - 1) if base == "*" else base).partition("-")
        end = int(last) if last else size - 1 if step else int(first)
        found.update(range(int(first), end + 1, int(step or 1)))
    return sorted(found)


def expression(dice: random.Random, wall: datetime) -> str:
    """Write an expression with a time near a reading of the clock that is skipped or repeated."""
    near = wall + timedelta(minutes=dice.randrange(-30, 90, 10))
    minute, hour = str(near.minute), str(near.hour)
    kind = dice.random()
    if kind < 0.2:
        minute = dice.choice(["*/20", "*"])
    elif kind < 0.35:
        hour = dice.choice(["*", "*/2"])
    elif kind < 0.5:
        hour = f"{near.hour},{(near.hour + 1) % 24}"
    elif kind < 0.6:
        minute = "0-59/10"
    second = dice.choice(["0", "30"]) if minute == "*" else seconds_field(dice)
    return f"{second} {minute} {hour} * * *"


def expected_at(text: str, change: Any, gap: str, fold: str) -> list[int]:
    """Walk through every reading of a week that the fields name."""
    second, minute, hour = text.split()[:3]
    is_elapsed = minute.startswith("*") or hour.startswith("*")
    readings = [
        timedelta(hours=h, minutes=m, seconds=s)
        for h in values(hour, 24) for m in values(minute, 60) for s in values(second, 60)
    ]  # fmt: skip
    middle = EPOCH + timedelta(seconds=change.at)
    today = datetime.combine(middle.date(), datetime.min.time())
    low = middle + timedelta(seconds=min(change.before, change.after) - REACH - 100)
    high = middle + timedelta(seconds=max(change.before, change.after) + REACH + 100)
    found: set[int] = set()
    for day in range(-3, 4):
        for reading in readings:
            local = today + timedelta(days=day) + reading
            if low <= local <= high or abs(change.after - change.before) > 20_000:
                found.update(
                    real_moments(local, change) if is_elapsed
                    else resolve(local, change, gap, fold)
                )  # fmt: skip
    return [at for at in sorted(found) if -REACH <= at - change.at < REACH]


def test_seconds_follow_gap_and_fold_at_every_change_of_every_clock(
    steady: psycopg.Connection[Any],
    zones: list[str],
    changes_of: Callable[[str], Any],
) -> None:
    dice = random.Random(1130)
    cases = []
    # Many zones are names for one clock: each change of a clock once.
    for change in {
        (c.at, c.before, c.after): c for zone in zones for c in changes_of(zone)
    }.values():
        low = EPOCH + timedelta(seconds=change.at + min(change.before, change.after))
        cases.append((change, dice.choice(GAPS), dice.choice(FOLDS), expression(dice, low)))
    assert len(cases) > 4_000

    with steady.cursor() as cursor:
        cursor.execute(
            "create temp table seconds"
            " (n int, zone text, gap text, fold text, text text, at bigint)"
        )
        with cursor.copy("copy seconds from stdin") as copy:
            for n, (change, gap, fold, text) in enumerate(cases):
                copy.write_row((n, change.zone, gap, fold, text, change.at))
    rows = steady.execute(
        """
        with plans as materialized (
          select d.*, fleet.compile_recurrence(
            'cron', jsonb_build_object('cron_expression', d.text), 'UTC', null, null, d.gap, d.fold
          ) as plan
          from (select distinct text, 'shift' as gap, 'both' as fold from seconds) as d
        ),
        clocks as materialized (
          select z.zone, fleet.zone_clock(z.zone) as clock
          from (select distinct zone from seconds) as z
        )
        select c.n, array(
          select extract(epoch from o)::bigint
          from fleet.occurrences(
            p.plan || jsonb_build_object('timezone', c.zone, 'clock', k.clock)
              || case
                when p.plan @> '{"is_elapsed": true}' then '{}'
                else jsonb_build_object('resolve_gap', c.gap, 'resolve_fold', c.fold)
              end,
            to_timestamp(c.at - 15000), to_timestamp(c.at + 15000)
          ) as o
        )
        from seconds as c
        join plans as p using (text)
        join clocks as k using (zone)
        """
    ).fetchall()  # fmt: skip

    assert len(rows) == len(cases)
    for n, answer in rows:
        change, gap, fold, text = cases[n]
        assert answer == expected_at(text, change, gap, fold), (change, gap, fold, text)


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("text", ["30 2 * * *", "0,30 1-3 * * *", "*/20 2 * * sun", "45 * * * *"])
def test_a_field_of_no_seconds_changes_nothing(
    compile_one: Callable[..., Any],
    occurrences: Callable[..., list[datetime]],
    text: str,
    gap: str,
    fold: str,
) -> None:
    since, until = datetime(2027, 2, 1, tzinfo=UTC), datetime(2027, 12, 1, tzinfo=UTC)
    five, six = (
        compile_one("cron", {"cron_expression": t}, "America/New_York", gap=gap, fold=fold)
        for t in (text, "0 " + text)
    )
    assert occurrences(five, since, until) == occurrences(six, since, until)


def test_seconds_in_a_minute_that_is_skipped_run_once_at_the_first_instant(
    compile_one: Callable[..., Any], occurrences: Callable[..., list[datetime]]
) -> None:
    zone = ZoneInfo("America/New_York")
    plan = compile_one("cron", {"cron_expression": "*/20 30 2 * * *"}, zone.key)
    found = occurrences(
        plan, datetime(2027, 3, 14, 5, tzinfo=UTC), datetime(2027, 3, 15, 7, tzinfo=UTC)
    )
    assert [at.astimezone(zone).strftime("%d %H:%M:%S") for at in found] == [
        "14 03:00:00", "15 02:30:00", "15 02:30:20", "15 02:30:40"
    ]  # fmt: skip
