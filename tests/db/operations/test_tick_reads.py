"""A tick reads what is due: not all that waits, and not what is over, whatever is planned of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet

BASE = datetime(2031, 1, 1, tzinfo=UTC)
MANY = 5000
# So often a plan is made for the instant that is asked about; after that it is one for any.
TIMES = 8
NEXT_YEAR = "2033-01-01T00:00:00Z"
READ = "select coalesce(seq_tup_read, 0) from pg_stat_xact_all_tables where relname = %s"


@pytest.fixture
def fleet(connect: Callable[..., Fleet]) -> Fleet:
    return connect()


def many_schedules(fleet: Fleet) -> None:
    """Make many that are for next year, as copies of what was checked."""
    made = fleet.create(device_ids=[fleet.device()], start_time=NEXT_YEAR)["id"]
    fleet.run("alter table schedules disable trigger user")
    fleet.run(
        "insert into schedules (owner_id, name, action_type, payload, recurrence, start_time,"
        " device_ids, device_id, policies, status, next_run_at)"
        " select s.owner_id, 'x' || i, s.action_type, s.payload, s.recurrence, s.start_time,"
        " s.device_ids, s.device_id, s.policies, 'active', s.start_time"
        " from schedules as s, generate_series(1, %s) as i where s.id = %s",
        MANY,
        made,
    )
    fleet.run("alter table schedules enable trigger user")


def one_is_due(fleet: Fleet, now: datetime) -> None:
    fleet.run(
        "update schedules set next_run_at = %s"
        " where id = (select max(id) from schedules where next_run_at > %s)",
        now,
        now + timedelta(days=300),
    )


def many_messages(fleet: Fleet) -> None:
    """Make many that were delivered, and some that wait for a receiver who is away."""
    endpoint = fleet.value(
        "select create_webhook_endpoint(%s) -> 'id'",
        Jsonb({"owner_id": str(fleet.owner_id), "url": "https://a.example.com/", "events": ["*"]}),
    )
    fleet.run(
        "insert into webhook_deliveries (owner_id, endpoint_id, event_id, event, payload, status,"
        " next_attempt_at, finished_at)"
        " select %s, %s, 'evt_' || i, 'run.failed', '{}', case when i %% 2 = 0 then 'delivered'"
        " else 'pending' end, case when i %% 2 = 1 then '2033-01-01Z'::timestamptz end,"
        " case when i %% 2 = 0 then %s end from generate_series(1, %s) as i",
        fleet.owner_id,
        endpoint,
        BASE,
        MANY,
    )


def many_calendars(fleet: Fleet) -> None:
    """Make many that are looked at now and then, none of them soon."""
    fleet.run(
        "insert into blackout_calendars (owner_id, name, url, look_next_at)"
        " select %s, 'holidays ' || i, 'https://calendars.example.com/in', '2033-01-01Z'"
        " from generate_series(1, %s) as i",
        fleet.owner_id,
        MANY,
    )


def nothing_more(_fleet: Fleet, _now: datetime) -> None:
    """Leave all as it is."""


@pytest.mark.parametrize(
    ("step", "table", "fill", "let"),
    [
        ("start", "schedules", many_schedules, one_is_due),
        ("start", "schedules", many_schedules, nothing_more),
        ("mdm", "schedules", many_schedules, nothing_more),
        ("notify", "webhook_deliveries", many_messages, nothing_more),
        ("calendars", "blackout_calendars", many_calendars, nothing_more),
    ],
)
def test_a_step_does_not_read_all_that_waits(
    fleet: Fleet,
    step: str,
    table: str,
    fill: Callable[[Fleet], None],
    let: Callable[[Fleet, datetime], Any],
) -> None:
    fill(fleet)
    fleet.run(f"analyze {table}")
    for turn in range(TIMES):
        now = BASE + timedelta(minutes=turn)
        let(fleet, now)
        with fleet.conn.transaction():
            before = fleet.value(READ, table)
            answer = fleet.value("select fleet.attempt_step(%s, null, %s)", step, now)
            assert answer["error"] is None
            assert fleet.value(READ, table) == before
