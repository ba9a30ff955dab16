"""What is done for each command, look and due schedule, and each second, is planned once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Database
from tests.helpers.fleet import Fleet

BASE = datetime(2031, 1, 1, tzinfo=UTC)
# So often Postgres makes a plan for the values that are given; after that it keeps one for any.
TIMES = 8
# What an update of a command reads anew, as Postgres keeps it: a character takes some nanoseconds.
READ_ANEW = """
select coalesce(sum(length(t.text)), 0)
from (
  select conbin::text as text from pg_constraint
  where conrelid = 'device_commands'::regclass and contype = 'c'
  union all
  select tgqual::text from pg_trigger
  where tgrelid = 'device_commands'::regclass and tgtype & 17 = 17
) as t
"""
MOST_READ_ANEW = 12_000
# A function in SQL is planned anew in each statement that calls it, unless Postgres puts its body
# in place; one that is put in place is not counted as called.
CALLED = """
select f.funcname, f.calls
from pg_stat_xact_user_functions as f
join pg_proc as p on p.oid = f.funcid
join pg_language as l on l.oid = p.prolang
where l.lanname = 'sql'
"""


@pytest.fixture
def fleet(database: Database) -> Iterator[Fleet]:
    # Only the superuser may count calls.
    with database.connect("supabase_admin") as conn:
        conn.execute("set track_functions = 'all'")
        yield Fleet(conn)
        conn.rollback()


def send(fleet: Fleet, device: int) -> None:
    fleet.send(device, "lock")


def claim_and_finish(fleet: Fleet, device: int) -> None:
    fleet.send(device, "lock")
    (command,) = fleet.claim(device)
    fleet.finish(device, command)


def look(fleet: Fleet, device: int) -> None:
    assert fleet.claim(device) == []


def work(fleet: Fleet, device: int) -> None:
    fleet.send(device, "lock")
    (command,) = fleet.claim(device)
    fleet.send(device, "lock")
    with fleet.as_device(device):
        fleet.run(
            "select work(jsonb_build_array(jsonb_build_object("
            "'command_id', %s::bigint, 'attempt', 1, 'status', 'completed', 'result',"
            " jsonb_build_object('said', repeat('x', 200)))), 10)",
            command["command_id"],
        )


def check_in(fleet: Fleet, device: int) -> None:
    facts = {"platform": "linux", "timezone": "Europe/Berlin", "attributes": {"os": "Linux"}}
    with fleet.as_device(device):
        assert fleet.value("select device_checkin(%s)", Jsonb(facts))["device_id"] == device


def report(fleet: Fleet, device: int) -> None:
    with fleet.as_device(device):
        told = fleet.value(
            "select report_location(%s, 13.4, 5, clock_timestamp())", random.uniform(52, 53)
        )
    assert told == {"accepted": True, "places": []}


def ask_for_geo_actions(fleet: Fleet, device: int) -> None:
    with fleet.as_device(device):
        assert fleet.value("select geo_actions_due() -> 'actions'") == []


def run_what_is_due(fleet: Fleet, device: int) -> None:
    made = fleet.create(
        device_ids=[device],
        recurrence_type="daily",
        recurrence_config={"time": "04:00"},
        start_time=BASE.isoformat(),
    )
    due = fleet.value("select next_run_at from schedules where id = %s", made["id"])
    assert fleet.value("select fleet.start_next(%s) ->> 'runs'", due) == "1"
    fleet.run("select fleet.expand_next(%s)", due)
    assert len(fleet.commands(made["id"])) == 1


def tick(fleet: Fleet, device: int) -> None:
    done = fleet.rows(
        "select fleet.attempt_step(s.name, null, %s) ->> 'error' as error"
        " from fleet.tick_steps() as s where %s is not null",
        BASE,
        device,
    )
    assert {row["error"] for row in done} == {None}


@pytest.mark.parametrize(
    "doing",
    [
        send,
        claim_and_finish,
        look,
        work,
        check_in,
        report,
        ask_for_geo_actions,
        run_what_is_due,
        tick,
    ],
)
def test_nothing_is_planned_anew(fleet: Fleet, doing: Callable[[Fleet, int], Any]) -> None:
    device = fleet.device()
    for _ in range(TIMES):
        doing(fleet, device)
    before = dict(fleet.conn.execute(CALLED).fetchall())
    doing(fleet, device)
    after = dict(fleet.conn.execute(CALLED).fetchall())
    assert {name for name, calls in after.items() if calls > before.get(name, 0)} == set()


@pytest.mark.parametrize(
    "doing", [send, claim_and_finish, look, work, check_in, report, ask_for_geo_actions]
)
def test_no_statement_within_is_planned_for_its_values(
    fleet: Fleet, doing: Callable[[Fleet, int], Any]
) -> None:
    """Postgres says when it plans, and for whom: lists and limits make it plan at each call."""
    device = fleet.device()
    for _ in range(TIMES):
        doing(fleet, device)
    planned: list[str] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        if "PLANNER STATISTICS" in str(notice.message_primary):
            planned.append(str(notice.context))

    fleet.conn.add_notice_handler(listen)
    fleet.run("set log_planner_stats = on; set client_min_messages = log")
    doing(fleet, device)
    fleet.run("reset log_planner_stats; reset client_min_messages")
    # What the test itself sends is among it.
    assert "None" in planned
    assert [one for one in planned if one.startswith("SQL statement")] == []


def test_checks_and_conditions_of_a_command_are_short(fleet: Fleet) -> None:
    assert 0 < fleet.value(READ_ANEW) < MOST_READ_ANEW
