"""Every due instant is accounted for exactly once, however the ticks come."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers.fleet import Fleet, Row

# The night before the clocks of Berlin go forward.
BASE = datetime(2031, 3, 29, 12, tzinfo=UTC)
DAY = 24 * 3600
OCCURRENCES = """
select o from fleet.occurrences((select recurrence from schedules where id = %s), %s, %s) as o
"""

RECURRENCES: list[tuple[Row, int]] = [
    ({"recurrence_type": "interval", "recurrence_config": {"minutes": 7}}, 4 * DAY),
    (
        {"recurrence_type": "cron", "recurrence_config": {"cron_expression": "*/10 * * * *"}},
        3 * DAY,
    ),
    ({"recurrence_type": "cron", "recurrence_config": {"cron_expression": "*/20 * * * * *"}}, 7200),
    ({"recurrence_type": "daily", "recurrence_config": {"time": "02:30"}}, 40 * DAY),
    ({"recurrence_type": "weekly", "recurrence_config": {"time": "02:30"}}, 200 * DAY),
    ({"recurrence_type": "once"}, 2 * DAY),
]


def accounted(fleet: Fleet, made: Row, runs: list[Row]) -> Counter[datetime]:
    """Spread the ledger out: each instant as often as a row or a range holds it."""
    instants: Counter[datetime] = Counter()
    for run in runs:
        if run["missed_count"] is None:
            instants[run["scheduled_for"]] += 1
            continue
        held = fleet.rows(
            OCCURRENCES,
            made["id"],
            run["missed_from"],
            run["missed_to"] + timedelta(microseconds=1),
        )
        assert len(held) == run["missed_count"]
        assert held[0]["o"] == run["scheduled_for"] == run["missed_from"]
        assert held[-1]["o"] == run["missed_to"]
        instants.update(row["o"] for row in held)
    return instants


def due(fleet: Fleet, made: Row, until: datetime) -> Counter[datetime]:
    return Counter(
        row["o"]
        for row in fleet.rows(
            OCCURRENCES,
            made["id"],
            BASE - timedelta(days=1),
            until + timedelta(microseconds=1),
        )
    )


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    which=st.integers(0, len(RECURRENCES) - 1),
    catchup=st.sampled_from(["none", "latest", "all"]),
    window=st.sampled_from(["1 minute", "1 hour", "2 days"]),
    # Back and forth as a clock that is set; the same instant twice; long stops.
    moments=st.lists(st.integers(-60, 1000), min_size=1, max_size=6).map(lambda m: [*m, m[-1]]),
)
def test_random_ticks_account_for_every_instant_once(
    database: Any, which: int, catchup: str, window: str, moments: list[int]
) -> None:
    recurrence, span = RECURRENCES[which]
    with database.connect() as conn, conn.transaction(force_rollback=True):
        fleet = Fleet(conn)
        made = fleet.create(
            selector={"tags": ["nobody"]},
            start_time=BASE.isoformat(),
            timezone="Europe/Berlin",
            policies={"catchup": catchup, "catchup_window": window, "catchup_limit": 3},
            **recurrence,
        )
        ticks = [BASE + timedelta(seconds=moment * span / 1000) for moment in moments]
        for now in ticks:
            fleet.tick(now)

        runs = fleet.runs(made["id"])
        assert accounted(fleet, made, runs) == due(fleet, made, max(ticks))
        reasons = {run["reason"] for run in runs if run["missed_count"] is not None}
        assert (
            reasons
            <= {
                "none": {"catch-up is off"},
                "latest": {"superseded by a later instant", "outside the catch-up window"},
                "all": {"beyond the catch-up limit", "outside the catch-up window"},
            }[catchup]
        )
        row = fleet.schedule(made["id"])
        assert row["next_run_at"] is None or row["next_run_at"] > max(ticks)
        assert row["execution_count"] == sum(run["started_at"] is not None for run in runs)


@pytest.mark.parametrize("catchup", ["none", "latest", "all"])
def test_a_stop_of_three_days_is_one_row(fleet: Fleet, catchup: str) -> None:
    made = fleet.minutely([fleet.device()], BASE, policies={"catchup": catchup, "overlap": "allow"})
    fleet.tick(BASE)
    fleet.tick(BASE + timedelta(days=3))

    ranges = [run for run in fleet.runs(made["id"]) if run["missed_count"] is not None]
    (gap,) = ranges
    assert gap["missed_from"] == BASE + timedelta(minutes=1)
    assert gap["status"] == "skipped"
    ran = [run for run in fleet.runs(made["id"]) if run["missed_count"] is None][1:]
    assert len(ran) == {"none": 1, "latest": 1, "all": 10}[catchup]
    assert gap["missed_count"] == 3 * 24 * 60 - len(ran)
    assert fleet.schedule(made["id"])["next_run_at"] == BASE + timedelta(days=3, minutes=1)


def test_a_tick_in_time_runs_each_instant(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE)
    for minute in range(3):
        fleet.tick(BASE + timedelta(minutes=minute))
        (command,) = fleet.claim(device, now=BASE + timedelta(minutes=minute))
        fleet.finish(device, command, now=BASE + timedelta(minutes=minute))
    fleet.tick(BASE + timedelta(minutes=2, seconds=1))
    runs = fleet.runs(made["id"])
    assert [run["scheduled_for"] for run in runs] == [BASE + timedelta(minutes=m) for m in range(3)]
    assert {run["trigger"] for run in runs} == {"schedule"}
    assert {run["status"] for run in runs} == {"completed"}
    assert runs[0]["expires_at"] == BASE + timedelta(minutes=1)
    assert fleet.schedule(made["id"])["execution_count"] == 3


def test_the_rule_that_moved_an_instant_is_on_its_run(fleet: Fleet) -> None:
    made = fleet.create(
        device_ids=[fleet.device()],
        recurrence_type="daily",
        recurrence_config={"time": "02:30"},
        timezone="Europe/Berlin",
        start_time=BASE.isoformat(),
    )
    fleet.tick(datetime(2031, 3, 30, 1, tzinfo=UTC))
    (run,) = fleet.runs(made["id"])
    assert run["scheduled_for"] == datetime(2031, 3, 30, 1, tzinfo=UTC)
    assert run["dst_rule"] == "gap:first_instant"


def test_runs_of_one_schedule_that_are_caught_up_wait_for_each_other(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely(
        [device], BASE, policies={"catchup": "all", "catchup_limit": 5, "expires_after": "1 day"}
    )
    fleet.tick_until_idle(BASE + timedelta(minutes=30))
    commands = fleet.commands(made["id"])
    assert [c["waits_for"] for c in commands] == [None, *(c["id"] for c in commands[:-1])]
    reasons = [run["reason"] for run in fleet.runs(made["id"]) if run["missed_count"] is None]
    assert reasons == [None] * 5
    assert len(commands) == 5


def test_a_run_by_two_ticks_in_one_transaction_is_one(fleet: Fleet) -> None:
    made = fleet.create(device_ids=fleet.devices(3), start_time=BASE.isoformat())
    assert fleet.tick(BASE)["runs"] == 1
    assert fleet.tick(BASE)["runs"] == 0
    assert len(fleet.runs(made["id"])) == 1
    assert len(fleet.commands(made["id"])) == 3


def test_a_broken_rule_of_the_ledger_is_refused_by_the_table(fleet: Fleet) -> None:
    made = fleet.create(device_ids=[fleet.device()], start_time=BASE.isoformat())
    fleet.tick(BASE)
    with pytest.raises(psycopg.errors.UniqueViolation), fleet.conn.transaction():
        fleet.run(
            "insert into schedule_runs (schedule_id, owner_id, scheduled_for) values (%s, %s, %s)",
            made["id"],
            fleet.owner_id,
            BASE,
        )
