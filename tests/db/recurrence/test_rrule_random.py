"""A thousand random rules of calendars: each runs when dateutil says, or is refused by name."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from dateutil.rrule import rrulestr
from psycopg.types.json import Jsonb

RULES = 1000
FIRST = 10
ZONES = ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Cairo", "UTC"]
DAYS = "MO TU WE TH FR SA SU".split()


def number(dice: random.Random, value: int) -> str:
    """Write a number as one of the libraries does."""
    return dice.choice([str(value), str(value), f"{value:02}" if value > 0 else str(value)])


def some(dice: random.Random, low: int, high: int, most: int) -> str:
    """Write a list of numbers."""
    chosen = dice.sample(range(low, high + 1), dice.randint(1, most))
    return ",".join(number(dice, value) for value in chosen)


def weekdays(dice: random.Random, numbered: bool) -> str:
    """Write BYDAY."""
    chosen = dice.choice([DAYS[:5], DAYS, DAYS[5:], dice.sample(DAYS, dice.randint(1, 3))])
    if numbered:
        return ",".join(
            f"{dice.choice(['1', '+2', '3', '4', '5', '-1', '-2'])}{day}"
            for day in dice.sample(DAYS, dice.randint(1, 2))
        )
    return ",".join(chosen)


def a_rule(dice: random.Random) -> str:
    """Write one rule."""
    freq = dice.choice("DAILY WEEKLY WEEKLY MONTHLY MONTHLY YEARLY YEARLY HOURLY MINUTELY".split())
    often = freq in {"HOURLY", "MINUTELY"}
    parts = [f"FREQ={freq}"]
    if dice.random() < 0.4:
        every = dice.choice([5, 15, 20, 30, 60, 120]) if freq == "MINUTELY" else dice.randint(1, 6)
        parts.append(f"INTERVAL={number(dice, every)}")
    if dice.random() < 0.4:
        numbered = freq in {"MONTHLY", "YEARLY"} and dice.random() < 0.5
        parts.append(f"BYDAY={weekdays(dice, numbered)}")
    elif freq != "WEEKLY" and dice.random() < 0.4:
        days = [some(dice, 1, 31, 3), some(dice, 1, 28, 4), "28,29,30,31", "-1", "-3,-1"]
        parts.append(f"BYMONTHDAY={dice.choice(days)}")
    if dice.random() < (0.5 if freq == "YEARLY" else 0.2):
        parts.append(f"BYMONTH={some(dice, 1, 12, 3)}")
    if dice.random() < 0.35:
        parts.append(f"BYHOUR={some(dice, 0, 23, 3)}")
    if dice.random() < 0.3:
        parts.append(f"BYMINUTE={some(dice, 0, 59, 2)}")
    if dice.random() < 0.2:
        parts.append(f"BYSECOND={dice.choice(['0', '00', '0,30'])}")
    if not often and dice.random() < 0.3:
        parts.append(f"BYSETPOS={dice.choice(['1', '-1', '2', '3', '-2', '1,-1', '1,2', '4'])}")
    if dice.random() < 0.2:
        parts.append(f"COUNT={dice.randint(1, 12)}")
    if dice.random() < 0.1:
        parts.append("WKST=MO")
    dice.shuffle(parts)
    return dice.choice(["", "RRULE:"]) + ";".join(parts)


def by_the_standard(rule: str, local: datetime, zone: ZoneInfo, is_elapsed: bool) -> list[datetime]:
    """Read dateutil's local times as RFC 5545 does: first of two, skipped ones as much later."""
    found = set()
    for at in islice(rrulestr(rule, dtstart=local), FIRST):
        if not is_elapsed:
            found.add(at.replace(tzinfo=zone, fold=0).astimezone(UTC))
            continue
        # What goes on by elapsed time is every real moment at which the clock reads so.
        for fold in (0, 1):
            moment = at.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            if moment.astimezone(zone).replace(tzinfo=None) == at:
                found.add(moment)
    return sorted(found)


def test_a_thousand_random_rules_run_as_dateutil_says_or_are_refused_by_name(
    steady: psycopg.Connection[Any],
) -> None:
    dice = random.Random(20261130)
    taken, refused = 0, Counter[str]()
    while taken < RULES:
        rule = a_rule(dice)
        zone = ZoneInfo(dice.choice(ZONES))
        # Half of them at the hours at which clocks change.
        local = datetime(
            dice.randint(2025, 2028), dice.randint(1, 12), dice.randint(1, 31 - 3),
            dice.choice([0, 1, 2, 2, dice.randint(0, 23)]), dice.choice([0, 30, 45]),
            dice.choice([0, 0, 0, 15]),
        )  # fmt: skip
        start = local.replace(tzinfo=zone)
        if start.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
            continue
        try:
            with steady.transaction():
                row = steady.execute(
                    "select s, fleet.compile_recurrence(s ->> 'recurrence_type',"
                    " s -> 'recurrence_config', s ->> 'timezone',"
                    " (s ->> 'start_time')::timestamptz,"
                    " (s ->> 'end_time')::timestamptz, s #>> '{policies,gap}',"
                    " s #>> '{policies,fold}') from fleet.recurrence_from_rrule(%s, %s, %s) as s",
                    (rule, start, zone.key),
                ).fetchone()
        except psycopg.Error as error:
            never = "no day ever matches" in str(error)
            assert never or error.diag.message_detail == "rrule_unsupported", (rule, str(error))
            refused[str(error.diag.message_primary)] += 1
            continue
        assert row is not None
        spec, plan = row

        if spec["recurrence_type"] == "interval":
            utc = ZoneInfo("UTC")
            naive = start.astimezone(UTC).replace(tzinfo=None)
            expected = by_the_standard(rule, naive, utc, False)
        else:
            expected = by_the_standard(rule, local, zone, plan.get("is_elapsed", False))
        until = expected[-1] + timedelta(microseconds=1)
        if "COUNT" in rule and len(expected) < FIRST:
            until += timedelta(days=900)
        found = steady.execute(
            "select array(select o from fleet.occurrences(%s, %s, %s) as o)",
            (Jsonb(plan), start, until),
        ).fetchone()
        assert found is not None
        got = [at.astimezone(UTC) for at in found[0]]
        assert got == expected, (rule, local, zone.key, spec)
        taken += 1

    # Most of what is drawn can be said, and what cannot has one of few reasons.
    assert sum(refused.values()) < RULES, refused
    assert len(refused) < 40, refused
