"""One bad schedule pays for itself, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 1, 1, tzinfo=UTC)
NO_RECURRENCE = """recurrence = recurrence || '{"start": "nonsense"}'"""
NO_DURATION = """policies = '{"catchup_window": "soon"}'"""
NO_ATTEMPTS = """policies = '{"retry": {"attempts": 0}}'"""


@pytest.fixture
def admin(own_database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the superuser of the platform, who alone can write past triggers."""
    with own_database.connect("supabase_admin") as conn:
        yield conn


@pytest.fixture
def fleet(connect: Callable[..., Fleet]) -> Fleet:
    """Give a fleet in a database of the test's own."""
    return connect()


def damage(fleet: Fleet, admin: psycopg.Connection[Any], made: Row, assignment: str) -> None:
    fleet.break_rows(admin, f"update schedules set {assignment} where id = %s", made["id"])


def test_a_broken_recurrence_pauses_its_schedule_alone(
    fleet: Fleet, admin: psycopg.Connection[Any]
) -> None:
    bad, good, late = (fleet.minutely([fleet.device()], BASE) for _ in range(3))
    damage(fleet, admin, bad, NO_RECURRENCE)
    fleet.tick(BASE)

    (run,) = fleet.runs(bad["id"])
    assert (run["status"], run["reason"]) == ("failed", "error")
    assert run["error_message"]
    row = fleet.schedule(bad["id"])
    assert row["status"] == "paused"
    assert "cannot be computed" in row["status_reason"]
    for other in (good, late):
        assert len(fleet.commands(other["id"])) == 1
        assert fleet.schedule(other["id"])["next_run_at"] == BASE + timedelta(minutes=1)
    # And it is not tried again every second.
    fleet.tick(BASE + timedelta(seconds=1))
    assert len(fleet.runs(bad["id"])) == 1


def test_a_broken_policy_fails_the_run_and_the_schedule_goes_on(
    fleet: Fleet, admin: psycopg.Connection[Any]
) -> None:
    bad, good = (fleet.minutely([fleet.device()], BASE) for _ in range(2))
    damage(fleet, admin, bad, NO_DURATION)
    fleet.tick(BASE + timedelta(minutes=5))

    (run,) = fleet.runs(bad["id"])
    assert (run["status"], run["reason"]) == ("failed", "error")
    assert (run["missed_from"], run["missed_count"]) == (BASE, 6)
    row = fleet.schedule(bad["id"])
    assert (row["status"], row["next_run_at"]) == ("active", BASE + timedelta(minutes=6))
    assert len(fleet.commands(good["id"])) == 1


def test_a_failing_expansion_is_a_reason_on_its_run_alone(
    fleet: Fleet, admin: psycopg.Connection[Any]
) -> None:
    bad, good = (fleet.minutely([fleet.device()], BASE) for _ in range(2))
    damage(fleet, admin, bad, NO_ATTEMPTS)
    fleet.tick(BASE)
    (run,) = fleet.runs(bad["id"])
    assert (run["status"], run["reason"]) == ("failed", "error")
    assert "attempts" in run["error_message"]
    assert len(fleet.commands(good["id"])) == 1
    assert fleet.schedule(bad["id"])["next_run_at"] == BASE + timedelta(minutes=1)


def test_a_command_type_that_is_gone_is_named(fleet: Fleet) -> None:
    fleet.run("insert into command_types (name) values ('short_lived')")
    bad = fleet.minutely([fleet.device()], BASE, action_type="short_lived", payload={})
    good = fleet.minutely([fleet.device()], BASE)
    fleet.run("delete from command_types where name = 'short_lived'")
    fleet.tick(BASE)
    (run,) = fleet.runs(bad["id"])
    assert (run["status"], run["error_message"]) == ("failed", 'command type "short_lived" is gone')
    assert len(fleet.commands(good["id"])) == 1


def test_a_failing_expansion_never_fails_the_insert(
    fleet: Fleet, admin: psycopg.Connection[Any]
) -> None:
    admin.execute(
        "alter table device_commands add constraint never check (command_type <> 'lock') not valid"
    )
    admin.commit()
    made = fleet.create(device_ids=fleet.devices(2), action_type="lock", payload={})
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["reason"]) == ("failed", "error")
    assert "never" in run["error_message"]
    assert fleet.commands(made["id"]) == []
    assert fleet.schedule(made["id"])["status"] == "completed"


def test_a_tick_survives_a_step_that_fails_and_says_so(
    fleet: Fleet, admin: psycopg.Connection[Any]
) -> None:
    made = fleet.minutely([fleet.device()], BASE)
    admin.execute(
        "create or replace function fleet.sweep_commands("
        " p_now timestamptz, p_limit integer default 5000"
        ") returns integer language plpgsql as $$ begin raise 'the broom is broken'; end $$"
    )
    admin.commit()
    answer = fleet.value("select fleet.tick(%s)", BASE)
    assert answer["errors"] == ["sweep: the broom is broken"]
    assert len(fleet.commands(made["id"])) == 1
    beat = fleet.row("select * from fleet.heartbeat")
    assert (beat["last_error"], beat["last_error_at"]) == ("sweep: the broom is broken", BASE)
    assert beat["last_tick_at"] == BASE
    status = fleet.value("select fleet_status(%s) -> 'engine' -> 'steps'", BASE)
    assert [step["name"] for step in status] == [
        row["name"] for row in fleet.rows("select name from fleet.tick_steps()")
    ]
    assert all(step["ms"] >= 0 for step in status)
    assert {step["name"]: step["error"] for step in status if step["error"]} == {
        "sweep": "the broom is broken"
    }


def test_whose_schedules_are_costly_waits_by_itself(
    fleet: Fleet, admin: psycopg.Connection[Any]
) -> None:
    other = Fleet(fleet.conn)
    costly = [fleet.minutely([fleet.device()], BASE)["id"] for _ in range(14)]
    last = other.minutely([other.device()], BASE)["id"]
    admin.execute("alter function fleet.decide_due(schedules, timestamptz) rename to decided")
    admin.execute(
        "create function fleet.decide_due(p_schedule public.schedules, p_now timestamptz)"
        " returns setof fleet.run_booking language plpgsql as $$ begin"
        " perform pg_sleep(case when p_schedule.id = any (current_setting('app.costly')::bigint[])"
        " then 0.08 else 0 end);"
        " return query select * from fleet.decided(p_schedule, p_now); end $$"
    )
    admin.commit()
    fleet.run("select set_config('app.costly', %s::bigint[]::text, false)", costly)
    fleet.run("select fleet.start_due_runs(%s, %s)", BASE, [*costly, last])
    assert len(fleet.runs(last)) == 1
    assert sum(len(fleet.runs(one)) for one in costly) <= 2
