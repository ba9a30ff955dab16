"""How often a schedule runs: max_runs counts alike, whatever starts the runs, and only what ran."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
DAY = timedelta(days=1)
USED_UP = ("completed", "max_runs reached")
NOBODY = {"selector": {"tags": ["nobody"]}}


def daily(fleet: Fleet, most: int, **spec: Any) -> int:
    policies = {"max_runs": most, "overlap": "allow", **spec.pop("policies", {})}
    if "selector" not in spec and "device_ids" not in spec:
        spec["device_ids"] = [fleet.device()]
    made = fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "06:30"},
        policies=policies,
        **{"start_time": BASE.isoformat(), **spec},
    )
    schedule_id: int = made["id"]
    return schedule_id


def state(fleet: Fleet, schedule_id: int) -> tuple[str, str | None]:
    row = fleet.schedule(schedule_id)
    return row["status"], row["status_reason"]


def counted(fleet: Fleet, schedule_id: int) -> int:
    row = fleet.schedule(schedule_id)
    count: int = row["execution_count"] - row["idle_count"]
    return count


def by_clock(fleet: Fleet, count: int, **spec: Any) -> int:
    schedule = daily(fleet, 2, **spec)
    for day in range(count):
        fleet.tick_until_idle(BASE + day * DAY)
    return schedule


def by_hand(fleet: Fleet, count: int, **spec: Any) -> int:
    schedule = daily(fleet, 2, **spec)
    for _ in range(count):
        fleet.run("select run_schedule(%s)", schedule)
    return schedule


def by_chain(fleet: Fleet, count: int, **spec: Any) -> int:
    device = fleet.device()
    parent = daily(fleet, 100, device_ids=[device])
    schedule = daily(fleet, 2, after={"schedule_id": parent}, **{"start_time": None, **spec})
    for day in range(count):
        now = BASE + day * DAY
        fleet.tick_until_idle(now)
        for command in fleet.claim(device, now=now):
            fleet.finish(device, command, now=now)
        fleet.tick_until_idle(now)
        fleet.tick_until_idle(now)
    return schedule


def caught_up(fleet: Fleet, count: int, **spec: Any) -> int:
    policies = {"catchup": "all", "catchup_window": "90 days", **spec.pop("policies", {})}
    schedule = daily(fleet, 2, policies=policies, **spec)
    fleet.tick_until_idle(BASE + (count - 1) * DAY + timedelta(hours=2))
    return schedule


def the_latest(fleet: Fleet, count: int, **spec: Any) -> int:
    policies = {"catchup": "latest", "catchup_window": "90 days", **spec.pop("policies", {})}
    schedule = daily(fleet, 2, policies=policies, **spec)
    for day in range(count):
        fleet.tick_until_idle(BASE + 2 * day * DAY + timedelta(hours=2))
    return schedule


WAYS = [by_clock, by_hand, by_chain, caught_up, the_latest]
Way = Callable[..., int]


def started(fleet: Fleet, schedule_id: int) -> list[Row]:
    return [run for run in fleet.runs(schedule_id) if run["status"] != "skipped"]


@pytest.mark.parametrize("way", WAYS)
def test_so_many_runs_complete_a_schedule(fleet: Fleet, way: Way) -> None:
    one = way(fleet, 1)
    assert state(fleet, one) == ("active", None)
    two = way(fleet, 2)
    assert state(fleet, two) == USED_UP
    row = fleet.schedule(two)
    assert (row["execution_count"], row["idle_count"], row["next_run_at"]) == (2, 0, None)
    assert len(started(fleet, two)) == 2


@pytest.mark.parametrize("way", WAYS)
def test_no_way_goes_beyond(fleet: Fleet, way: Way) -> None:
    schedule = way(fleet, 4)
    assert len(started(fleet, schedule)) == 2
    assert len(fleet.commands(schedule)) == 2
    assert {r["reason"] for r in fleet.runs(schedule) if r["status"] == "skipped"} <= {
        "max_runs reached",
        "superseded by a later instant",
    }
    assert state(fleet, schedule) == USED_UP


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_reached_nobody_does_not_count(fleet: Fleet, way: Way) -> None:
    schedule = way(fleet, 3, **NOBODY)
    runs = fleet.runs(schedule)
    assert {run["status"] for run in runs} == {"skipped"}
    assert "no targets" in {run["reason"] for run in runs}
    assert state(fleet, schedule) == ("active", None)
    assert counted(fleet, schedule) == 0


def test_the_ways_are_counted_together(fleet: Fleet) -> None:
    schedule = daily(fleet, 3)
    fleet.tick_until_idle(BASE)
    fleet.run("select run_schedule(%s)", schedule)
    assert state(fleet, schedule) == ("active", None)
    fleet.tick_until_idle(BASE + DAY)
    assert state(fleet, schedule) == USED_UP
    assert {run["trigger"] for run in fleet.runs(schedule)} == {"schedule", "manual"}


def test_by_hand_beyond_the_limit_is_told_in_the_ledger(fleet: Fleet) -> None:
    schedule = by_hand(fleet, 2)
    run = fleet.row("select * from run_schedule(%s, 'again')", schedule)
    assert (run["status"], run["reason"], run["trigger"]) == (
        "skipped",
        "max_runs reached",
        "manual",
    )
    assert fleet.row("select * from run_schedule(%s, 'again')", schedule)["id"] == run["id"]
    assert counted(fleet, schedule) == 2


def test_the_same_key_counts_once(fleet: Fleet) -> None:
    schedule = daily(fleet, 2)
    for _ in range(3):
        fleet.run("select run_schedule(%s, 'one')", schedule)
    assert counted(fleet, schedule) == 1
    assert state(fleet, schedule) == ("active", None)


# What is caught up waits for each other, and leaves nobody out.
@pytest.mark.parametrize("way", [way for way in WAYS if way is not caught_up])
def test_an_overlap_that_leaves_everybody_out_does_not_count(fleet: Fleet, way: Way) -> None:
    device = fleet.device()
    schedule = way(
        fleet, 3, device_ids=[device], policies={"overlap": "skip", "expires_after": "90 days"}
    )
    runs = fleet.runs(schedule)
    assert len([run for run in runs if run["status"] == "running"]) == 1
    assert {run["reason"] for run in runs if run["status"] == "skipped"} <= {
        "overlap",
        "superseded by a later instant",
    }
    assert counted(fleet, schedule) == 1
    assert state(fleet, schedule) == ("active", None)


def test_a_blackout_does_not_count(fleet: Fleet) -> None:
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Fair")
    fleet.insert(
        "blackout_periods",
        owner_id=fleet.owner_id,
        calendar_id=calendar["id"],
        starts_on=BASE.date(),
        ends_on=(BASE + 2 * DAY).date(),
    )
    schedule = daily(fleet, 1, policies={"blackouts": ["Fair"]})
    for day in range(4):
        fleet.tick_until_idle(BASE + day * DAY)
    runs = fleet.runs(schedule)
    assert [run["reason"] for run in runs[:2]] == ["blackout", "blackout"]
    assert [run["targeted"] for run in runs] == [0, 0, 1]
    assert state(fleet, schedule) == USED_UP


def test_a_device_outside_of_its_window_does_not_count(fleet: Fleet) -> None:
    window = {"from": "22:00", "to": "23:00", "in": "device"}
    schedule = daily(fleet, 1, policies={"execution_window": window})
    fleet.tick_until_idle(BASE)
    (run,) = fleet.runs(schedule)
    assert (run["status"], run["reason"]) == ("skipped", "outside the execution window")
    assert counted(fleet, schedule) == 0
    assert state(fleet, schedule) == ("active", None)


def test_a_range_that_was_missed_does_not_count(fleet: Fleet) -> None:
    schedule = daily(fleet, 1, policies={"catchup": "none"})
    fleet.tick_until_idle(BASE + 3 * DAY + timedelta(hours=1))
    (run,) = fleet.runs(schedule)
    assert (run["status"], run["missed_count"]) == ("skipped", 4)
    assert state(fleet, schedule) == ("active", None)
    fleet.tick_until_idle(BASE + 4 * DAY)
    assert state(fleet, schedule) == USED_UP


@pytest.mark.parametrize("fault", ["expansion", "decision"])
def test_what_failed_counts_as_a_run(fleet: Fleet, fault: str) -> None:
    kind = fleet.insert("command_types", name="brew_tea")["name"]
    schedule = daily(fleet, 2, action_type=kind, payload={})
    if fault == "expansion":
        fleet.run("delete from command_types where name = %s", kind)
    else:
        fleet.run("alter table schedules disable trigger user")
        fleet.run(
            'update schedules set policies = policies || \'{"catchup_window": "?"}\' where id = %s',
            schedule,
        )
        fleet.run("alter table schedules enable trigger user")
    for day in range(3):
        fleet.tick_until_idle(BASE + day * DAY)
    assert [run["status"] for run in fleet.runs(schedule)] == ["failed", "failed"]
    assert counted(fleet, schedule) == 2
    assert state(fleet, schedule) == USED_UP


def change(fleet: Fleet, schedule_id: int, **changes: Any) -> None:
    fleet.value("select update_schedule(%s, %s)", schedule_id, Jsonb(changes))


@pytest.mark.parametrize("way", WAYS)
def test_a_limit_that_is_raised_lets_it_go_on(fleet: Fleet, way: Way) -> None:
    schedule = way(fleet, 2)
    assert state(fleet, schedule) == USED_UP
    change(fleet, schedule, description="still over")
    assert state(fleet, schedule) == USED_UP
    change(fleet, schedule, policies={"max_runs": 3, "overlap": "allow"})
    assert state(fleet, schedule) == ("active", None)
    fleet.run("select run_schedule(%s)", schedule)
    assert state(fleet, schedule) == USED_UP
    change(fleet, schedule, policies={"overlap": "allow"})
    assert state(fleet, schedule) == ("active", None)


@pytest.mark.parametrize("most", [1, 2])
def test_a_limit_that_is_lowered_ends_it_at_once(fleet: Fleet, most: int) -> None:
    schedule = daily(fleet, 5)
    for day in range(2):
        fleet.tick_until_idle(BASE + day * DAY)
    change(fleet, schedule, policies={"max_runs": most})
    assert state(fleet, schedule) == USED_UP
    fleet.tick_until_idle(BASE + 2 * DAY)
    assert len(fleet.runs(schedule)) == 2


def test_what_is_due_when_the_limit_is_lowered_is_told(fleet: Fleet) -> None:
    schedule = daily(fleet, 5)
    fleet.run("select run_schedule(%s)", schedule)
    fleet.run(
        "update schedules set next_run_at = now() - interval '1 minute' where id = %s", schedule
    )
    change(fleet, schedule, policies={"max_runs": 1})
    assert state(fleet, schedule) == USED_UP
    (told,) = [run for run in fleet.runs(schedule) if run["trigger"] == "schedule"]
    assert (told["status"], told["reason"]) == ("skipped", "max_runs reached")


def test_new_times_do_not_bring_back_what_is_used_up(fleet: Fleet) -> None:
    schedule = by_clock(fleet, 2)
    change(fleet, schedule, recurrence_config={"time": "08:00"})
    assert state(fleet, schedule) == USED_UP
    assert fleet.schedule(schedule)["next_run_at"] is None
    fleet.run("update schedules set status = 'active' where id = %s", schedule)
    assert state(fleet, schedule) == USED_UP


def test_a_paused_schedule_that_is_used_up_by_hand_ends_when_it_is_resumed(fleet: Fleet) -> None:
    schedule = daily(fleet, 1)
    fleet.run("select pause_schedule(%s)", schedule)
    fleet.run("select run_schedule(%s)", schedule)
    assert state(fleet, schedule)[0] == "paused"
    fleet.run("select resume_schedule(%s)", schedule)
    assert state(fleet, schedule) == USED_UP


def test_a_run_that_waits_is_given_back_when_it_is_paused_away(fleet: Fleet) -> None:
    window = {"from": "22:00", "to": "23:00", "outside": "wait"}
    schedule = daily(fleet, 1, policies={"execution_window": window})
    fleet.tick_until_idle(BASE)
    # Whether it reaches somebody is not known before the window opens.
    assert state(fleet, schedule) == ("active", None)
    assert counted(fleet, schedule) == 1
    fleet.run("select pause_schedule(%s)", schedule)
    fleet.run("select resume_schedule(%s)", schedule)
    assert counted(fleet, schedule) == 0
    assert state(fleet, schedule) == ("active", None)


def test_a_run_that_waits_ends_it_when_it_starts(fleet: Fleet) -> None:
    window = {"from": "22:00", "to": "23:00", "outside": "wait"}
    schedule = daily(fleet, 1, policies={"execution_window": window})
    fleet.tick_until_idle(BASE)
    fleet.tick_until_idle(BASE.replace(hour=22))
    assert state(fleet, schedule) == USED_UP
    assert len(fleet.commands(schedule)) == 1


def test_the_last_due_instant_ends_it_before_the_limit_does(fleet: Fleet) -> None:
    schedule = daily(fleet, 5, end_time=(BASE + timedelta(hours=1)).isoformat())
    fleet.tick_until_idle(BASE)
    assert state(fleet, schedule) == ("completed", "no due instant is left")


def test_nothing_else_writes_into_the_ledger(fleet: Fleet) -> None:
    writers = fleet.rows(
        "select p.oid::regproc::text as name from pg_proc as p"
        " where p.pronamespace in ('fleet'::regnamespace, 'public'::regnamespace)"
        r" and p.prosrc ~* 'insert\s+into\s+(public\.)?schedule_runs\M'"
    )
    assert [row["name"] for row in writers] == ["fleet.book_runs"]
