"""Rules of calendars: they run when dateutil says, or are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from dateutil.rrule import rrulestr

ZONE = ZoneInfo("America/New_York")
START = datetime(2026, 2, 3, 2, 30, tzinfo=ZONE)
YEARS = timedelta(days=365 * 9)


def spec_of(steady: psycopg.Connection[Any], rule: str, start: datetime = START) -> dict[str, Any]:
    """Convert a rule."""
    row = steady.execute(
        "select fleet.recurrence_from_rrule(%s, %s, %s)", (rule, start, ZONE.key)
    ).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def by_standard(rule: str, start: datetime, until: datetime) -> list[datetime]:
    """List local times by dateutil and read them by RFC 5545: first of two, later by the gap."""
    local = start.replace(tzinfo=None)
    # dateutil wants UNTIL in local time when the start is.
    text = rule.replace("20271231T045959Z", "20271230T235959")
    found = []
    for at in rrulestr(text, dtstart=local):
        instant = at.replace(tzinfo=ZONE, fold=0).astimezone(UTC)
        if instant >= until:
            break
        found.append(instant)
    return found


RULES = [
    "FREQ=DAILY",
    "RRULE:FREQ=DAILY;INTERVAL=3",
    "FREQ=DAILY;COUNT=10",
    "FREQ=DAILY;UNTIL=20271231T045959Z",
    "FREQ=DAILY;BYDAY=MO,WE,FR",
    "FREQ=DAILY;BYMONTH=1,3",
    "FREQ=DAILY;BYMONTHDAY=1,-1,-3",
    "FREQ=DAILY;BYHOUR=2,14;BYMINUTE=0,30",
    "FREQ=WEEKLY",
    "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU",
    "FREQ=WEEKLY;BYDAY=SU;BYMONTH=3,11",
    "FREQ=WEEKLY;BYMONTH=3",
    "FREQ=WEEKLY;INTERVAL=2;WKST=SU",
    "FREQ=WEEKLY;COUNT=7;BYDAY=SU,MO",
    "FREQ=MONTHLY",
    "FREQ=MONTHLY;INTERVAL=2;BYMONTHDAY=31",
    "FREQ=MONTHLY;BYMONTHDAY=-1",
    "FREQ=MONTHLY;BYMONTHDAY=1,15,-2",
    "FREQ=MONTHLY;BYDAY=2SU",
    "FREQ=MONTHLY;INTERVAL=3;BYDAY=-1FR",
    "FREQ=MONTHLY;BYDAY=1MO,+3WE,-1SU",
    "FREQ=MONTHLY;BYDAY=SU",
    "FREQ=MONTHLY;BYDAY=SU;BYSETPOS=2",
    "FREQ=MONTHLY;BYDAY=FR;BYSETPOS=-1;INTERVAL=2",
    "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
    "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=1",
    "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS=-3",
    "FREQ=MONTHLY;BYMONTHDAY=28,29,30,31;BYSETPOS=-1",
    "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=29",
    "FREQ=MONTHLY;COUNT=5;BYMONTHDAY=31",
    "FREQ=YEARLY",
    "FREQ=YEARLY;INTERVAL=2",
    "FREQ=YEARLY;BYMONTH=3;BYDAY=2SU",
    "FREQ=YEARLY;BYMONTH=3,11;BYMONTHDAY=8,1",
    "FREQ=YEARLY;BYMONTHDAY=13",
    "FREQ=YEARLY;BYDAY=SU",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;INTERVAL=2",
    "FREQ=YEARLY;BYMONTH=11;BYDAY=TH;BYSETPOS=4",
]


@pytest.mark.parametrize("rule", RULES)
def test_what_is_taken_over_runs_as_the_standard_says(
    steady: psycopg.Connection[Any],
    compile_one: Callable[..., Any],
    occurrences: Callable[..., list[datetime]],
    rule: str,
) -> None:
    """Local 02:30 in New York: skipped each March."""
    spec = spec_of(steady, rule)
    end = spec.get("end_time")
    plan = compile_one(
        spec["recurrence_type"], spec["recurrence_config"], spec["timezone"],
        datetime.fromisoformat(spec["start_time"]),
        None if end is None else datetime.fromisoformat(end),
        **spec["policies"],
    )  # fmt: skip

    until = START.astimezone(UTC) + YEARS
    assert occurrences(plan, START, until) == by_standard(rule, START, until)


def test_what_becomes_of_a_rule_reads_like_one_of_ours(steady: psycopg.Connection[Any]) -> None:
    assert spec_of(steady, "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR;UNTIL=20271231") == {
        "recurrence_type": "weekly",
        "recurrence_config": {"days_of_week": [0, 4], "every": 2, "time": "02:30:00"},
        "start_time": "2026-02-03T07:30:00.000000+00:00",
        "end_time": "2028-01-01T04:59:59.999999+00:00",
        "timezone": "America/New_York",
        "policies": {"gap": "shift", "fold": "first"},
    }
    assert spec_of(steady, "freq=minutely;interval=15")["recurrence_config"] == {"seconds": 900}


@pytest.mark.parametrize(
    ("rule", "reason", "message"),
    [
        ("", "rrule_invalid", "RRULE: is empty"),
        ("INTERVAL=2", "rrule_invalid", "RRULE: FREQ is missing"),
        ("FREQ=OFTEN", "rrule_invalid", "RRULE: FREQ=OFTEN is not valid"),
        ("FREQ=DAILY;INTERVAL=0", "rrule_invalid", "RRULE: INTERVAL=0 is not valid"),
        ("FREQ=DAILY;FREQ=DAILY", "rrule_invalid", "RRULE: FREQ (twice) is not supported"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "rrule_invalid",
         "RRULE: COUNT and UNTIL exclude each other"),
        ("FREQ=YEARLY;BYWEEKNO=20", "rrule_invalid", "RRULE: BYWEEKNO is not supported"),
        ("FREQ=DAILY;INTERVAL=2;BYDAY=MO", "rrule_unsupported",
         "RRULE: DAILY with INTERVAL and BY rules"),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "rrule_unsupported",
         "RRULE: BYMONTHDAY together with BYDAY"),
        ("FREQ=MONTHLY;BYDAY=-2FR", "rrule_unsupported",
         "RRULE: weekdays counted from the end, other than the last"),
        ("FREQ=MONTHLY;BYDAY=SA,SU;BYSETPOS=1", "rrule_unsupported",
         "RRULE: BYSETPOS in this set"),
        ("FREQ=YEARLY;BYDAY=5MO", "rrule_unsupported",
         "RRULE: YEARLY with days numbered within the year"),
        ("FREQ=WEEKLY;INTERVAL=2;WKST=SU;BYDAY=SU,MO", "rrule_unsupported",
         "RRULE: WKST: our weeks begin on Monday"),
        ("FREQ=HOURLY;INTERVAL=5;BYDAY=MO", "rrule_unsupported",
         "RRULE: HOURLY with BY rules and an INTERVAL that does not fit into hour and day"),
        ("FREQ=MINUTELY;INTERVAL=90;BYHOUR=3", "rrule_unsupported",
         "RRULE: MINUTELY with BY rules and an INTERVAL that does not fit into hour and day"),
        ("FREQ=HOURLY;INTERVAL=2;BYHOUR=3", "rrule_unsupported",
         "RRULE: HOURLY with BY rules that leave nothing"),
        ("FREQ=HOURLY;BYHOUR=3;BYSETPOS=1", "rrule_unsupported",
         "RRULE: HOURLY with BYSETPOS or numbered days"),
        ("FREQ=MONTHLY;BYDAY=MO;BYHOUR=9,17;BYSETPOS=1,4", "rrule_unsupported",
         "RRULE: BYSETPOS that picks other times on other days"),
        ("FREQ=WEEKLY;BYDAY=MO,TU;BYSETPOS=1", "rrule_unsupported",
         "RRULE: WEEKLY with BYSETPOS over several days"),
        ("FREQ=MONTHLY;BYDAY=MO,1TU", "rrule_unsupported",
         "RRULE: BYDAY with numbered days beside others"),
        ("FREQ=DAILY;UNTIL=20270231", "rrule_invalid", "RRULE: UNTIL=20270231 is not valid"),
        ("FREQ=DAILY;UNTIL=20270228T256000", "rrule_invalid",
         "RRULE: UNTIL=20270228T256000 is not valid"),
        ("FREQ=MONTHLY;INTERVAL=12;BYMONTHDAY=30;COUNT=3", "rrule_unsupported",
         "RRULE: COUNT that is not reached within a thousand years"),
        ("FREQ=YEARLY;COUNT=99999", "rrule_unsupported",
         "RRULE: COUNT that is not reached within a thousand years"),
        ("FREQ=DAILY;BYSECOND=60", "rrule_invalid", "RRULE: BYSECOND=60 is not valid"),
        ("FREQ=DAILY;INTERVAL=12345", "rrule_unsupported", "RRULE: INTERVAL beyond 9999"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_with_the_reason(
    db: psycopg.Connection[Any], rule: str, reason: str, message: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        spec_of(db, rule)

    assert caught.value.sqlstate == "PT422"
    assert caught.value.diag.message_detail == reason
    assert caught.value.diag.message_primary == message
    assert caught.value.diag.message_hint
