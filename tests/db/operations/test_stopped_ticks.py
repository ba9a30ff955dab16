"""What stops a tick is found, told and paused; all else goes on, and nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.helpers.fleet import Fleet, Row

POISON = {"message": "poison"}
# A schedule that is decided about, or expanded, for ever.
POISONED = {
    "start": """
        alter function fleet.decide_due(public.schedules, timestamptz) rename to decided_plainly;
        create function fleet.decide_due(p_schedule public.schedules, p_now timestamptz)
        returns setof fleet.run_booking language plpgsql as $$
        begin
          if p_schedule.payload ->> 'message' = 'poison' then
            perform pg_sleep(600);
          end if;
          return query select * from fleet.decided_plainly(p_schedule, p_now);
        end $$;
    """,
    "expand": """
        create function public.tg_dawdle() returns trigger language plpgsql as $$
        begin
          perform pg_sleep(600);
          return new;
        end $$;
        create trigger a_dawdle before insert on device_commands for each row
          when (new.payload ->> 'message' = 'poison') execute function tg_dawdle();
    """,
}
TICK = "call fleet.take_tick(clock_timestamp(), false, null)"


@pytest.fixture
def poison(own_database: Database) -> Callable[[str], None]:
    """Give a function that lets schedules with the message poison stop a step."""

    def make(step: str) -> None:
        with own_database.connect("supabase_admin", autocommit=True) as admin:
            admin.execute(POISONED[step])

    return make


def every_second(fleet: Fleet, count: int, **spec: Any) -> list[Row]:
    """Make schedules that are due from the next second on; what is inserted is not due yet."""
    return [
        fleet.create(
            recurrence_type="interval",
            recurrence_config={"seconds": 1},
            device_ids=[fleet.device()],
            **spec,
        )
        for _ in range(count)
    ]


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return found


def all_due(fleet: Fleet, made: list[Row]) -> None:
    until(
        lambda: fleet.value(
            "select bool_and(next_run_at <= clock_timestamp()) from schedules where id = any (%s)",
            [row["id"] for row in made],
        )
    )


@contextmanager
def ticking(
    session: Fleet, statement: str = TICK, *, again: bool = False
) -> Iterator[threading.Thread]:
    """Tick in a thread until the block ends, which ends the tick as well.

    With again it begins anew whenever it is over, as pg_cron does at every minute.
    """
    is_over = threading.Event()

    def run() -> None:
        try:
            session.conn.execute(statement)
            while again and not is_over.is_set():
                session.conn.execute(statement)
        except psycopg.Error:
            # Ended by the test.
            pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        is_over.set()
        deadline = time.monotonic() + 30
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(2)
            if thread.is_alive():
                session.conn.cancel()
        assert not thread.is_alive()


def kill(watcher: Fleet, session: Fleet, step: str) -> None:
    """End a ticker in the middle of a step."""
    until(
        lambda: watcher.rows(
            "select from pg_stat_activity where pid = %s and wait_event = 'PgSleep'",
            session.conn.info.backend_pid,
        )
    )
    assert watcher.value("select begun_at from fleet.tick_work where step = %s", step)
    watcher.run("select pg_terminate_backend(%s)", session.conn.info.backend_pid)


@pytest.mark.parametrize("step", ["start", "expand"])
def test_what_killed_two_ticks_is_paused_and_the_rest_goes_on(
    connect: Callable[..., Fleet], poison: Callable[[str], None], step: str
) -> None:
    fleet = connect()
    fleet.run("insert into webhook_endpoints (owner_id, url) values (%s, %s)",
              fleet.owner_id, "https://hooks.example.com/x")  # fmt: skip
    poison(step)
    (bad,) = every_second(fleet, 1, payload=POISON)
    stranger = connect()
    good = every_second(stranger, 3)
    all_due(fleet, [bad, *good])
    for _ in range(2):
        ticker = connect(owner=fleet)
        with ticking(ticker):
            kill(fleet, ticker, step)

    fleet.run(TICK)
    fleet.run(TICK)
    row = fleet.schedule(bad["id"])
    assert row["status"] == "paused"
    assert f"stopped the scheduler twice (step {step})" in row["status_reason"]
    for one in good:
        assert fleet.commands(one["id"])
        assert fleet.schedule(one["id"])["status"] == "active"
    stop = fleet.value("select last_stop from fleet.heartbeat")
    assert (stop["step"], stop["schedule_id"]) == (step, bad["id"])
    assert stop["owner_id"] == str(fleet.owner_id)
    # Its owner is told, as of any pause; and no work is left over.
    (told,) = fleet.rows("select payload from webhook_deliveries where event = 'schedule.paused'")
    assert "stopped the scheduler" in str(told)
    assert not fleet.rows("select from fleet.tick_work where begun_at is not null")
    assert not fleet.value("select array_agg(suspects) && array[%s::bigint] from fleet.tick_work"
                           " where suspects <> '{}'", bad["id"])  # fmt: skip


def test_a_tick_that_ran_out_of_time_takes_the_rest_at_once(
    connect: Callable[..., Fleet], poison: Callable[[str], None]
) -> None:
    fleet = connect()
    poison("start")
    made = every_second(fleet, 2) + every_second(fleet, 1, payload=POISON) + every_second(fleet, 2)
    all_due(fleet, made)
    fleet.run("set statement_timeout = '1s'")
    fleet.run(TICK)
    fleet.run("reset statement_timeout")
    status = [fleet.schedule(row["id"])["status"] for row in made]
    # Not even one of the others is suspected for long: each has passed by itself.
    deadline = time.monotonic() + 60
    while status != ["active", "active", "paused", "active", "active"]:
        assert time.monotonic() < deadline, status
        fleet.run("set statement_timeout = '1s'")
        fleet.run(TICK)
        fleet.run("reset statement_timeout")
        status = [fleet.schedule(row["id"])["status"] for row in made]
    fleet.run(TICK)
    assert all(fleet.runs(row["id"]) for row in made if row is not made[2])
    assert fleet.value("select suspects from fleet.tick_work where step = 'start'") == []


def test_an_innocent_batch_that_was_killed_goes_on_whole(connect: Callable[..., Fleet]) -> None:
    fleet = connect()
    made = every_second(fleet, 3)
    all_due(fleet, made)
    ids = [row["id"] for row in made]
    # As a server that was stopped in the middle leaves it.
    fleet.run("select fleet.begin_work('start', %s, false, clock_timestamp())", ids)
    fleet.run(TICK)
    assert all(fleet.commands(schedule_id) for schedule_id in ids)
    assert {fleet.schedule(schedule_id)["status"] for schedule_id in ids} == {"active"}


def test_a_watcher_ends_what_takes_too_long_and_takes_over_when_the_ticker_dies(
    connect: Callable[..., Fleet], poison: Callable[[str], None]
) -> None:
    fleet = connect()
    fleet.run("select fleet.set_setting('tick_step_seconds', '2')")
    poison("start")
    (bad,) = every_second(fleet, 1, payload=POISON)
    (good,) = every_second(fleet, 1)
    first, second = connect(owner=fleet), connect(owner=fleet)
    with (
        ticking(first, "call fleet.tick_minute()", again=True),
        ticking(second, "call fleet.watch_tick()", again=True),
    ):
        try:
            until(lambda: fleet.schedule(bad["id"])["status"] == "paused")
            until(lambda: fleet.commands(good["id"]))
            before = len(fleet.runs(good["id"]))
            fleet.run("select pg_terminate_backend(%s)", first.conn.info.backend_pid)
            until(lambda: len(fleet.runs(good["id"])) > before + 1)
        finally:
            fleet.run("select fleet.set_setting('ticker_enabled', 'false')")
    # On a slow machine the last error is one of another tick by now.
    assert "it stopped the scheduler twice" in fleet.schedule(bad["id"])["status_reason"]


def test_a_step_that_no_schedule_is_to_blame_for_rests_and_the_others_go_on(
    connect: Callable[..., Fleet], own_database: Database
) -> None:
    fleet = connect()
    made = every_second(fleet, 1)
    with own_database.connect("supabase_admin", autocommit=True) as admin:
        admin.execute(
            "create or replace function fleet.sweep_commands("
            " p_now timestamptz, p_limit integer default 5000) returns integer"
            " language plpgsql as $$ begin perform pg_sleep(600); return 1; end $$"
        )
    all_due(fleet, made)
    fleet.run("set statement_timeout = '500ms'")
    for _ in range(3):
        fleet.run(TICK)
    fleet.run("reset statement_timeout")
    assert fleet.commands(made[0]["id"])
    work = fleet.row("select * from fleet.tick_work where step = 'sweep'")
    assert work["stops"] >= 1
    assert work["rests_until"] is not None
    assert fleet.value("select last_stop ->> 'step' from fleet.heartbeat") == "sweep"


@pytest.mark.parametrize("step", ["start", "expand"])
def test_cancelling_waits_for_no_tick(
    connect: Callable[..., Fleet], poison: Callable[[str], None], step: str
) -> None:
    fleet = connect()
    poison(step)
    (bad,) = every_second(fleet, 1, payload=POISON)
    all_due(fleet, [bad])
    ticker = connect(owner=fleet)
    with ticking(ticker):
        until(
            lambda: fleet.rows(
                "select from pg_stat_activity where pid = %s and wait_event = 'PgSleep'",
                ticker.conn.info.backend_pid,
            )
        )
        begun = time.monotonic()
        fleet.run("set lock_timeout = '500ms'")
        fleet.run("select cancel_schedule(%s)", bad["id"])
        assert time.monotonic() - begun < 3
        fleet.run("select pg_cancel_backend(%s)", ticker.conn.info.backend_pid)
    fleet.run("select fleet.settle_runs(clock_timestamp())")
    assert fleet.schedule(bad["id"])["status"] == "cancelled"
    assert {run["status"] for run in fleet.runs(bad["id"])} <= {"cancelled", "skipped"}


def test_what_a_tick_made_while_its_schedule_was_cancelled_is_cancelled_too(
    connect: Callable[..., Fleet],
) -> None:
    fleet = connect()
    (made,) = every_second(fleet, 1)
    all_due(fleet, [made])
    fleet.run("select fleet.start_next(clock_timestamp())")
    ticker = connect(owner=fleet)
    with ticker.conn.transaction():
        ticker.run("select fleet.expand_next(clock_timestamp())")
        assert len(ticker.commands(made["id"])) == 1
        fleet.run("set lock_timeout = '500ms'")
        fleet.run("select cancel_schedule(%s)", made["id"])
    assert fleet.commands(made["id"])[0]["status"] == "pending"
    fleet.run(TICK)
    assert fleet.commands(made["id"])[0]["status"] == "cancelled"
    fleet.run(TICK)
    assert fleet.runs(made["id"])[-1]["status"] not in ("pending", "running")
