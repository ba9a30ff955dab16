"""What holds for every recurrence: windows add up, bounds hold, next and list agree."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from tests.db.recurrence.conftest import Change

TIMES = st.sampled_from(["00:00", "00:30", "01:30", "02:00", "02:30", "03:00", "12:34:56", "23:59"])
ZONES = st.sampled_from(
    ["UTC", "America/New_York", "Europe/Dublin", "Australia/Lord_Howe", "America/Sao_Paulo",
     "Africa/Casablanca", "Asia/Tehran", "Pacific/Apia", "Antarctica/Troll", "CET", "Asia/Gaza"]
)  # fmt: skip
CALM = ("America/New_York", "Europe/Dublin")
WILD = (
    "Africa/Monrovia", "America/Caracas", "Antarctica/Casey", "Antarctica/Troll", "Asia/Kathmandu",
    "Asia/Pyongyang", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kiritimati",
    "Pacific/Kwajalein",
)  # fmt: skip
CONFIGS = st.one_of(
    st.tuples(st.just("interval"), st.fixed_dictionaries({"seconds": st.integers(600, 500_000)})),
    st.tuples(
        st.just("daily"),
        st.fixed_dictionaries({"times": st.lists(TIMES, min_size=1), "every": st.integers(1, 5)}),
    ),
    st.tuples(
        st.just("weekly"),
        st.fixed_dictionaries(
            {
                "days_of_week": st.lists(st.integers(0, 6), min_size=1),
                "time": TIMES,
                "every": st.integers(1, 4),
            }
        ),
    ),
    st.tuples(
        st.just("monthly"),
        st.fixed_dictionaries(
            {
                "day_of_month": st.lists(
                    st.one_of(st.integers(1, 31), st.just("last")), min_size=1
                ),
                "time": TIMES,
                "every": st.integers(1, 14),
            }
        ),
    ),
    st.tuples(
        st.just("monthly"),
        st.fixed_dictionaries(
            {"week": st.sampled_from([1, 2, 3, 4, 5, -1]), "day_of_week": st.integers(0, 6)}
        ),
    ),
    st.tuples(
        st.just("cron"),
        st.fixed_dictionaries(
            {
                "cron_expression": st.sampled_from(
                    ["*/25 * * * *", "30 2 * * *", "0,30 0-3 * * sun", "15 */6 1W,L-1 * *",
                     "0 0 * * 7#1,5L", "59 1 28-31 3,10 *", "30 */40 2 * * *", "@hourly"]
                )
            }
        ),
    ),
)  # fmt: skip


@st.composite
def recurrences(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw everything that a recurrence is compiled from."""
    kind, config = draw(CONFIGS)
    start = draw(st.datetimes(datetime(2005, 1, 1), datetime(2030, 1, 1))).replace(tzinfo=UTC)
    end = draw(st.one_of(st.none(), st.timedeltas(timedelta(0), timedelta(days=900))))
    gap = draw(st.sampled_from(["first_instant", "shift", "skip"]))
    fold = draw(st.sampled_from(["first", "second", "both"]))
    finish = None if end is None else start + end
    return kind, Jsonb(config), draw(ZONES), start, finish, gap, fold


def listed(
    steady: psycopg.Connection[Any], plan: Any, since: datetime, until: datetime
) -> list[datetime]:
    """List the occurrences in a window."""
    rows = steady.execute("select fleet.occurrences(%s, %s, %s)", (plan, since, until))
    return [at for (at,) in rows]


@settings(max_examples=250, deadline=None)
@given(
    recurrences(),
    st.timedeltas(timedelta(days=-40), timedelta(days=700)),
    st.timedeltas(timedelta(0), timedelta(days=120)),
    st.floats(0, 1),
)
def test_windows_add_up_and_next_walks_through_them(
    steady: psycopg.Connection[Any],
    recurrence: tuple[Any, ...],
    away: timedelta,
    width: timedelta,
    cut: float,
) -> None:
    row = steady.execute(
        "select fleet.compile_recurrence(%s, %s, %s, %s, %s, %s, %s)", recurrence
    ).fetchone()
    assert row is not None
    plan = Jsonb(row[0])
    _, _, _, start, end, _, _ = recurrence
    since, until = start + away, start + away + width
    middle = since + width * cut

    whole = listed(steady, plan, since, until)
    assert whole == listed(steady, plan, since, middle) + listed(steady, plan, middle, until)
    assert whole == sorted(set(whole))
    assert all(since <= at < until for at in whole)
    assert all(at >= start and (end is None or at <= end) for at in whole)

    counted = steady.execute(
        "select fleet.count_occurrences(%s, %s, %s), fleet.count_occurrences(%s, %s, %s, 3)",
        (plan, since, until, plan, since, until),
    ).fetchone()
    assert counted == (len(whole), min(len(whole), 3))

    # One step before the window, so that its very first moment counts as next.
    befores = [since - timedelta(microseconds=1), *whole[:40]]
    steps = steady.execute(
        "select fleet.next_occurrence(%s, a.at) "
        "from unnest(%s::timestamptz[]) with ordinality as a (at, n) order by a.n",
        (plan, befores),
    ).fetchall()
    expected: list[datetime | None] = list(whole[: len(steps)])
    for (step,), at in zip(steps, expected, strict=False):
        assert step == at
    if len(expected) < len(steps):
        assert steps[-1][0] is None or steps[-1][0] >= until


def test_the_zone_of_the_session_changes_nothing(database: Any) -> None:
    answers = set()
    for zone in ("UTC", "America/New_York", "Asia/Kathmandu"):
        with database.connect() as connection:
            connection.execute("select set_config('timezone', %s, false)", (zone,))
            connection.execute("set datestyle to 'German'")
            row = connection.execute(
                """
                select p::text, extract(epoch from fleet.next_occurrence(p, '2026-10-25 00:10Z')),
                  array(
                    select extract(epoch from o)
                    from fleet.occurrences(p, '2026-10-20Z', '2026-10-30Z') as o
                  )::text
                from fleet.compile_recurrence(
                  'daily', '{"time": "02:30", "end_date": "2026-10-28"}', 'Europe/Berlin',
                  '2026-01-01 00:00Z', null
                ) as p
                """
            ).fetchone()
            answers.add(row)
    assert len(answers) == 1


def test_what_was_written_by_hand_is_compiled_when_read(steady: psycopg.Connection[Any]) -> None:
    row = steady.execute(
        """
        select
          fleet.next_occurrence(r, '2026-01-01Z'),
          array(select fleet.occurrences(r, '2026-01-01Z', '2026-01-02Z'))
        from (
          select '{"type": "daily", "config": {"time": "05:00"}, "timezone": "UTC"}'::jsonb as r
        ) as v
        """
    ).fetchone()
    five = datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert row == (five, [five])


@pytest.mark.parametrize("kind", ["once", "interval", "daily"])
def test_nothing_comes_after_the_end_of_time(steady: psycopg.Connection[Any], kind: str) -> None:
    row = steady.execute(
        """
        select fleet.next_occurrence(p, 'infinity'), fleet.next_occurrence(p, '-infinity')
        from fleet.compile_recurrence(
          %s, case %s when 'interval' then '{"every": "1 day"}' else '{}' end::jsonb,
          'UTC', '2026-01-01Z', null
        ) as p
        """,
        (kind, kind),
    ).fetchone()
    assert row == (None, datetime(2026, 1, 1, tzinfo=UTC))


def test_an_endless_list_is_refused(steady: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.Error) as caught:
        steady.execute(
            """
            select fleet.occurrences(
              fleet.compile_recurrence('daily', '{"time": "05:00"}', 'UTC', null, null),
              '2026-01-01Z', 'infinity'
            )
            """
        )
    steady.rollback()
    assert caught.value.sqlstate == "PT422"
    assert caught.value.diag.message_detail == "window_unbounded"


def test_single_times_beside_a_change_are_listed_as_they_are_found_one_by_one(
    steady: psycopg.Connection[Any],
    changes_of: Callable[[str], list[Change]],
) -> None:
    # One change of each width and of each second of the minute: days are skipped and repeated, too.
    kinds = {
        (zone in CALM, one.after - one.before, one.at % 60, one.before % 60): one
        for zone in (*CALM, *WILD)
        for one in changes_of(zone)
    }
    asked = []
    for change in kinds.values():
        jump = change.after - change.before
        walls = {0, -1, 1, 30, 59, 61, jump, jump - 1, jump + 1, jump + 59, jump // 2}
        for seconds in sorted(walls):
            wall = datetime(1970, 1, 1) + timedelta(seconds=change.at + change.before + seconds)
            asked.append((change.zone, change.at, wall.day, f"{wall:%H:%M:%S}"))
    rows = steady.execute(
        """
        with asked as (
          select a.*, r.*, to_timestamp(a.at) - interval '3 days' as since,
            to_timestamp(a.at) + interval '3 days' as until,
            fleet.compile_recurrence(
              'monthly', jsonb_build_object('day_of_month', a.day, 'time', a.time), a.zone,
              null, null, r.gap, r.fold
            ) as plan
          from unnest(%s::text[], %s::bigint[], %s::int[], %s::text[]) as a (zone, at, day, time)
          cross join (
            select g.gap, f.fold
            from unnest('{first_instant,shift,skip}'::text[]) as g (gap)
            cross join unnest('{first,second,both}'::text[]) as f (fold)
          ) as r
        )
        select a.zone, a.at, a.time, a.gap, a.fold, l.listed, s.stepped
        from asked as a
        cross join lateral (
          select array(select fleet.occurrences(a.plan, a.since, a.until)) as listed
        ) as l
        cross join lateral (
          with recursive step (at) as (
            select fleet.next_occurrence(a.plan, a.since - interval '1 microsecond')
            union all
            select fleet.next_occurrence(a.plan, step.at) from step where step.at < a.until
          )
          select array(select step.at from step where step.at < a.until) as stepped
        ) as s
        """,
        [list(column) for column in zip(*asked, strict=True)],
    ).fetchall()
    assert len(rows) == 9 * len(asked) > 1_000
    assert any(len(listed) == 2 for *_, listed, _ in rows)
    assert [row for row in rows if row[-1] != row[-2]] == []
