"""What the fleet says of itself, and how long it remembers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from tests.conftest import Database
from tests.helpers.fleet import Fleet

NOW = datetime.now(UTC)


def test_the_numbers_are_those_of_the_caller(fleet: Fleet) -> None:
    devices = fleet.devices(4)
    other = Fleet(fleet.conn)
    other.send(other.device())
    fleet.run("update devices set enrolled_at = now() where id = %s", devices[0])
    fleet.run("update devices set last_seen = now() where id = %s", devices[1])
    fleet.run("select retire_device(%s)", devices[3])
    fleet.create(device_ids=devices[:2])
    done, failed = (fleet.claim(device)[0] for device in devices[:2])
    fleet.finish(devices[0], done)
    fleet.finish(devices[1], failed, "failed", reason="unsupported")
    fleet.send(devices[2])
    paused = fleet.minutely(devices[:1], NOW + timedelta(days=1))
    fleet.run("select pause_schedule(%s)", paused["id"])
    active = fleet.minutely(devices[:1], NOW + timedelta(days=2))
    fleet.tick()

    with fleet.acting(fleet.owner_id):
        status = fleet.value("select fleet_status(clock_timestamp())")
    assert status["devices"]["active"] == 3
    assert (status["devices"]["enrolled"], status["devices"]["retired"]) == (1, 1)
    assert status["devices"]["seen_last_hour"] == 2
    assert (status["schedules"]["active"], status["schedules"]["paused"]) == (1, 1)
    assert status["schedules"]["due"] == 0
    assert status["schedules"]["next_run_at"] == active["next_run_at"]
    assert status["runs_last_day"]["failed"] == 1
    assert status["commands"]["pending"] == 1
    assert status["commands"]["completed_last_day"] == 1
    assert status["commands"]["failed_last_day"] == 1
    engine = status["engine"]
    assert engine["is_ticking"] is True
    assert engine["last_error"] is None
    assert engine["pg_cron"] is False

    # Inside of the database there is no caller whose rows alone would count.
    assert fleet.value("select fleet_status()")["devices"]["active"] == 4


def test_a_device_is_told_nothing(fleet: Fleet) -> None:
    with fleet.refused("PT403", "not_a_person"), fleet.as_device(fleet.device()):
        fleet.run("select fleet_status()")


def test_health_goes_by_the_last_tick(fleet: Fleet) -> None:
    fleet.tick(NOW)
    healthy = fleet.value("select fleet.worker_health(%s)", NOW + timedelta(seconds=30))
    assert (healthy["ok"], healthy["tick_age_seconds"]) == (True, 30)
    assert fleet.value("select fleet.worker_health(%s)", NOW + timedelta(minutes=2))["ok"] is False


def test_history_is_bounded(connect: Callable[..., Fleet]) -> None:
    fleet = connect()
    devices = fleet.devices(3)
    old = fleet.create(device_ids=devices)
    fleet.send(devices[0])
    for device in devices:
        with fleet.conn.transaction():
            for command in fleet.claim(device):
                fleet.finish(device, command)
    fleet.tick()
    fleet.run("update schedule_runs set finished_at = finished_at - interval '31 days'")
    fleet.conn.execute("alter table device_commands disable trigger user")
    fleet.run("update device_commands set executed_at = executed_at - interval '31 days'")
    fleet.conn.execute("alter table device_commands enable trigger user")
    kept = fleet.create(device_ids=devices)
    waiting = fleet.send(devices[0])

    fleet.run("call fleet.prune_history()")

    assert fleet.runs(old["id"]) == []
    left = fleet.rows("select id, run_id from device_commands order by id")
    (run,) = fleet.runs(kept["id"])
    assert [row["run_id"] for row in left] == [run["id"]] * 3 + [None]
    assert left[-1]["id"] == waiting["id"]
    fleet.tick()
    assert fleet.value("select count(*) from fleet.run_progress") == 0


def test_pruning_goes_by_batches(fleet: Fleet) -> None:
    device = fleet.device()
    for _ in range(5):
        fleet.run("select cancel_command(%s)", fleet.send(device)["id"])
    later = NOW + timedelta(days=31)
    prune = "select fleet.prune_batch('public.device_commands', %s, 2)"
    removed = [fleet.value(prune, later) for _ in range(4)]
    assert removed == [2, 2, 1, 0]


def test_every_rule_of_pruning_is_of_a_table_that_is_there(fleet: Fleet) -> None:
    names = [row["name"] for row in fleet.rows("select name from fleet.pruned_tables()")]
    assert len(names) >= 7
    for name in names:
        assert fleet.value("select fleet.prune_batch(%s, '2000-01-01')", name) == 0


def test_a_table_that_cannot_be_pruned_keeps_no_other_from_it(
    connect: Callable[..., Fleet], own_database: Database
) -> None:
    fleet = connect()
    done = fleet.send(fleet.device())
    fleet.run("select cancel_command(%s)", done["id"])
    fleet.conn.execute("alter table device_commands disable trigger user")
    fleet.run("update device_commands set executed_at = executed_at - interval '31 days'")
    fleet.conn.execute("alter table device_commands enable trigger user")
    with own_database.connect("supabase_admin", autocommit=True) as admin:
        admin.execute("alter table public.schedule_runs rename column finished_at to ended_at")
        with pytest.raises(psycopg.Error, match=r"public\.schedule_runs: column"):
            fleet.run("call fleet.prune_history()")
    assert fleet.value("select count(*) from device_commands") == 0


def test_the_tick_prunes_a_little_in_passing_where_no_job_does(
    connect: Callable[..., Fleet],
) -> None:
    fleet = connect()
    fleet.run("select cancel_command(%s)", fleet.send(fleet.device())["id"])
    fleet.conn.execute("alter table device_commands disable trigger user")
    fleet.run("update device_commands set executed_at = executed_at - interval '31 days'")
    fleet.conn.execute("alter table device_commands enable trigger user")
    pruned = [
        fleet.tick(NOW + timedelta(seconds=seconds))["pruned"] for seconds in (0, 1, 299, 300)
    ]
    assert pruned == [1, 0, 0, 0]
    assert fleet.value("select count(*) from device_commands") == 0


def test_a_tick_costs_what_is_due_not_what_exists(connect: Callable[..., Fleet]) -> None:
    fleet = connect()
    device = fleet.device()
    fleet.run(
        "insert into schedules (owner_id, name, action_type, selector, start_time)"
        " select %s, 's' || n, 'lock', '{}', '2999-01-01' from generate_series(1, 100) as n",
        fleet.owner_id,
    )
    for status in ("completed", "running"):
        fleet.run(
            "insert into schedule_runs (schedule_id, owner_id, scheduled_for, status, targeted,"
            " action_type, expanded_at)"
            " select s.id, s.owner_id, now() - n * '1 minute'::interval - %s::interval, %s, 2,"
            " 'lock', now()"
            " from schedules as s cross join generate_series(1, 250) as n",
            "0" if status == "completed" else "1 year",
            status,
        )
        fleet.run(
            "insert into device_commands (run_id, owner_id, device_id, device_hostname,"
            " command_type, status, expires_at)"
            " select id, owner_id, %s, 'x', 'lock', %s, now() + '1 day' from schedule_runs"
            " where status = %s and id %% 5 = 0",
            device,
            "completed" if status == "completed" else "pending",
            status,
        )
    fleet.run("delete from fleet.doorbells")
    fleet.run("vacuum analyze schedule_runs, device_commands, fleet.doorbells")
    fleet.minutely([device], NOW + timedelta(minutes=1))
    # What the session read before, for an index say, is still counted with it.
    reads = (
        "select coalesce(sum(seq_tup_read), 0) from pg_stat_xact_user_tables"
        " where relname in ('schedule_runs', 'device_commands')"
    )
    with fleet.conn.transaction():
        before = fleet.value(reads)
        fleet.tick(NOW + timedelta(minutes=1))
        assert fleet.value(reads) - before <= 100
