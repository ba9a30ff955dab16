"""Many owners at once: each gets on, whatever Postgres knows of the ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from tests.helpers.fleet import Fleet

BASE = datetime(2031, 1, 1, tzinfo=UTC)
OWNERS = 620
READ = (
    "select coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0)"
    " from pg_stat_xact_all_tables where relname = 'schedule_runs'"
)


@pytest.fixture
def crowd(connect: Callable[..., Fleet]) -> Fleet:
    """Give many owners, each with one run that waits for its commands."""
    fleet = connect()
    made = fleet.create(device_ids=[fleet.device()], start_time=BASE.isoformat())["id"]
    fleet.run(
        "with o as (insert into owners (name) select 'one of many' from generate_series(1, %s)"
        " returning id) insert into devices (owner_id, hostname) select o.id, 'pc' from o",
        OWNERS,
    )
    fleet.run("alter table schedules disable trigger user")
    fleet.run(
        "insert into schedules (owner_id, name, action_type, payload, recurrence, start_time,"
        " device_ids, device_id, policies, next_run_at)"
        " select d.owner_id, 'x', s.action_type, s.payload, s.recurrence, s.start_time,"
        " array[d.id], d.id, s.policies, s.next_run_at"
        " from schedules as s join devices as d on d.hostname = 'pc' where s.id = %s",
        made,
    )
    fleet.run("alter table schedules enable trigger user")
    while fleet.value("select cardinality(fleet.start_due_runs(%s))", BASE):
        pass
    return fleet


def read_by(fleet: Fleet, call: str, *values: Any) -> tuple[Any, int]:
    """Call in a transaction of its own; tell how many rows of the ledger that read."""
    with fleet.conn.transaction():
        before = fleet.value(READ)
        answer = fleet.value(f"select {call}", *values)
        return answer, fleet.value(READ) - before


def test_a_step_reads_of_the_ledger_what_it_begins_and_not_all_that_waits(crowd: Fleet) -> None:
    waiting = crowd.value("select array_agg(id order by id) from schedule_runs")
    assert len(waiting) == OWNERS + 1
    made, read = read_by(crowd, "fleet.expand_runs(%s, %s, 20)", waiting[:25], BASE)
    assert made == 25
    # A small table may be read as a whole now and then; never once for each of its rows.
    assert read <= OWNERS * 6
    turn, read = read_by(crowd, "fleet.schedules_to_expand(%s)", BASE)
    assert len(set(turn)) == 500
    assert read <= OWNERS * 6
    told, read = read_by(crowd, "fleet.expand_next(%s, %s)", BASE, turn)
    assert told["commands"] > 0
    assert read <= OWNERS * 6 * (1 + told["commands"] // 20)


def test_what_one_session_expands_keeps_no_other_schedule_from_another(
    connect: Callable[..., Fleet],
) -> None:
    one = connect()
    other = connect(owner=one)
    for _ in range(3):
        one.create(device_ids=[one.device()], start_time=BASE.isoformat())
    runs = one.value("select fleet.start_due_runs(%s)", BASE)
    call = "select fleet.expand_runs(%s, %s, 20)"
    with one.conn.transaction():
        assert one.value(call, runs[:1], BASE) == 1
        assert other.value(call, runs[1:], BASE) == 2


def test_the_turn_goes_on_from_whom_there_was_time_for(crowd: Fleet) -> None:
    crowd.run("update schedules set status = 'active', next_run_at = %s", BASE)
    ids = crowd.value("select array_agg(id order by owner_id) from schedules")
    crowd.run(
        "insert into fleet.tick_work (step, next_owner) values ('start', gen_random_uuid())"
        " on conflict (step) do update set next_owner = excluded.next_owner"
    )
    # As if half a second had been enough for these alone: of the others none is due any more.
    crowd.run("update schedules set next_run_at = 'infinity' where id <> all (%s)", ids[:50])
    crowd.value("select fleet.start_due_runs(%s, %s)", BASE, ids)
    assert crowd.value("select next_owner from fleet.tick_work where step = 'start'") == (
        crowd.value("select owner_id from schedules where id = %s", ids[49])
    )


def test_owners_take_turns_with_what_is_large(fleet: Fleet) -> None:
    for name in ("expand_chunk_size", "expand_chunk_size_published", "inline_expand_limit"):
        fleet.run("select fleet.set_setting(%s, '7')", name)
    # Wherever their ids stand.
    modest = [Fleet(fleet.conn, UUID(int=1)), Fleet(fleet.conn, UUID(int=2**128 - 1))]
    started = BASE.isoformat()
    for _ in range(3):
        fleet.create(device_ids=fleet.devices(90), start_time=started, priority=60)
    few = [
        one.create(device_ids=one.devices(35), start_time=started, priority=-60)["id"]
        for one in modest
    ]
    # Five chunks for each of them, whatever another has: fifteen turns, and some to begin all.
    for _ in range(24):
        fleet.tick(BASE)
    assert [len(fleet.commands(schedule)) for schedule in few] == [35, 35]
    made = "select count(*) from device_commands where owner_id = %s"
    assert fleet.value(made, fleet.owner_id) < 270
