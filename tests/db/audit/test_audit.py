"""Who changed what, from what to what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

LATER = "2999-01-01T00:00:00Z"
NOW = datetime(2999, 1, 1, tzinfo=UTC)


def entries(fleet: Fleet, table: str, row_id: Any = None) -> list[Row]:
    with fleet.acting(fleet.owner_id):
        return fleet.rows(
            "select * from audit_log where table_name = %s and row_id = coalesce(%s, row_id)"
            " order by id",
            table,
            None if row_id is None else str(row_id),
        )


def daily(fleet: Fleet, **spec: Any) -> Row:
    return fleet.create(
        **{
            "recurrence_type": "daily",
            "recurrence_config": {"time": "06:30"},
            "start_time": LATER,
            "device_ids": [fleet.device()],
            **spec,
        }
    )


def test_a_schedule_tells_who_changed_it_from_what_to_what(fleet: Fleet) -> None:
    with fleet.acting(fleet.owner_id, email="ada@example.org"):
        made = daily(fleet)
        fleet.run("select update_schedule(%s, '{\"priority\": 5}')", made["id"])
        fleet.run("select pause_schedule(%s, 'holidays')", made["id"])
        fleet.run("select delete_schedule(%s)", made["id"])
    born, changed, paused, gone = entries(fleet, "schedules", made["id"])

    assert [row["action"] for row in (born, changed, paused, gone)] == [
        "insert",
        "update",
        "update",
        "delete",
    ]
    assert {row["actor"] for row in (born, changed, paused, gone)} == {fleet.owner_id}
    assert (changed["actor_role"], changed["actor_label"]) == ("authenticated", "ada@example.org")
    assert (changed["old"], changed["new"]) == ({"priority": 0}, {"priority": 5})
    assert paused["new"] == {"status": "paused", "status_reason": "holidays"}
    assert born["new"]["name"] == gone["old"]["name"] == "a schedule"
    assert "next_run_at" not in born["new"]


def test_a_change_by_plain_sql_is_told_as_well(fleet: Fleet) -> None:
    made = daily(fleet)
    fleet.run(
        "update schedules set name = 'other', timezone = 'Asia/Tokyo' where id = %s", made["id"]
    )
    changed = entries(fleet, "schedules", made["id"])[-1]
    assert changed["new"] == {"name": "other", "timezone": "Asia/Tokyo"}
    assert (changed["actor"], changed["actor_role"]) == (None, "postgres")


def test_ticks_counters_and_completion_leave_no_trace(fleet: Fleet) -> None:
    made = fleet.minutely([fleet.device()], NOW)
    once = fleet.create(start_time=NOW.isoformat(), device_ids=[fleet.device()])
    for minute in range(3):
        fleet.tick(NOW + timedelta(minutes=minute))
    fleet.value("select id from run_schedule(%s)", made["id"])
    assert fleet.schedule(once["id"])["status"] == "completed"
    for row in (made, once):
        assert [e["action"] for e in entries(fleet, "schedules", row["id"])] == ["insert"]


def test_saving_without_a_change_leaves_no_trace(fleet: Fleet) -> None:
    made = daily(fleet)
    fleet.run("select update_schedule(%s, '{}')", made["id"])
    assert len(entries(fleet, "schedules", made["id"])) == 1


def test_devices_tell_of_changes_but_not_of_being_seen(fleet: Fleet) -> None:
    device = fleet.device("lab-01")
    with fleet.as_device(device):
        fleet.value('select device_checkin(\'{"platform": "linux", "timezone": "Asia/Tokyo"}\')')
    assert entries(fleet, "devices") == []
    fleet.run("update devices set tags = '{red}', platform = 'ios' where id = %s", device)
    fleet.run("select retire_device(%s)", device)
    fleet.run("delete from devices where id = %s", device)
    tagged, retired, gone = entries(fleet, "devices", device)
    assert tagged["new"] == {"tags": ["red"], "platform": "ios"}
    assert retired["new"] == {"status": "retired"}
    assert gone["old"]["hostname"] == "lab-01"
    assert "auth_id" not in gone["old"]


def test_groups_members_calendars_and_templates_are_told_of(fleet: Fleet) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="g")["id"]
    fleet.run("update device_groups set name = 'h' where id = %s", group)
    assert [row["action"] for row in entries(fleet, "device_groups", group)] == ["insert", "update"]

    user = uuid4()
    fleet.run("insert into owner_members (owner_id, user_id) values (%s, %s)", fleet.owner_id, user)
    fleet.run("update owner_members set permissions = '{view}' where user_id = %s", user)
    fleet.run("delete from owner_members where user_id = %s", user)
    _, changed, gone = entries(fleet, "owner_members", user)
    assert changed["new"] == {"permissions": ["view"]}
    assert gone["old"]["permissions"] == ["view"]

    with fleet.acting(fleet.owner_id):
        calendar = fleet.value(
            "select create_blackout_calendar('c', '[{\"starts_on\": \"2026-12-25\"}]')"
        )
        fleet.run("update blackout_calendars set name = 'd' where id = %s", calendar["id"])
        fleet.run("select delete_blackout_calendar(%s)", calendar["id"])
    actions = [row["action"] for row in entries(fleet, "blackout_calendars")]
    assert actions == ["insert", "update", "delete"]
    (period, _) = entries(fleet, "blackout_periods")
    assert period["new"]["starts_on"] == "2026-12-25"

    template = {"name": "t", "spec": {"name": "x"}, "owner_id": str(fleet.owner_id)}
    fleet.run("select create_template(%s)", Jsonb(template))
    assert [row["new"]["version"] for row in entries(fleet, "schedule_templates")] == [1]


def test_what_an_owner_is_called_and_its_time_zone_are_told_of(fleet: Fleet) -> None:
    with fleet.acting(fleet.owner_id):
        fleet.run("select set_owner_timezone(%s, 'Asia/Tokyo')", fleet.owner_id)
        fleet.run("update owners set name = 'another' where id = %s", fleet.owner_id)
    zone, name = entries(fleet, "owners", fleet.owner_id)
    assert (zone["old"], zone["new"]) == ({"timezone": "UTC"}, {"timezone": "Asia/Tokyo"})
    assert (name["new"], name["actor"]) == ({"name": "another"}, fleet.owner_id)


def test_one_statement_over_many_rows_tells_each_of_them(fleet: Fleet) -> None:
    for _ in range(3):
        daily(fleet)
    with fleet.acting(fleet.owner_id):
        fleet.value("select bulk_schedules('pause', '{}', false)")
    assert sum(row["action"] == "update" for row in entries(fleet, "schedules")) == 3


def test_others_and_devices_read_none_of_it(fleet: Fleet) -> None:
    made = daily(fleet)
    assert len(entries(fleet, "schedules", made["id"])) == 1
    stranger = Fleet(fleet.conn)
    assert entries(stranger, "schedules", made["id"]) == []
    with fleet.as_device(made["device_id"]):
        assert fleet.rows("select * from audit_log") == []


@pytest.mark.parametrize("role", ["authenticated", "service_role"])
@pytest.mark.parametrize(
    "statement",
    [
        "insert into audit_log (owner_id, actor_role, table_name, row_id, action)"
        " values (gen_random_uuid(), 'x', 'x', '1', 'insert')",
        "update audit_log set actor_role = 'x'",
        "delete from audit_log",
        "truncate audit_log",
    ],
)
def test_nobody_writes_it(fleet: Fleet, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), fleet.conn.transaction():
        with fleet.acting(fleet.owner_id, role):
            fleet.run(statement)


@pytest.mark.parametrize(
    "statement",
    ["update audit_log set actor_role = 'x'", "delete from audit_log", "truncate audit_log"],
)
def test_not_even_the_owner_of_the_database_changes_it(fleet: Fleet, statement: str) -> None:
    daily(fleet)
    with fleet.refused("PT403", "audit_append_only"):
        fleet.run(statement)


def test_a_pause_by_the_engine_is_told(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], NOW, policies={"pause_on_failure": 1, "retry": {"attempts": 1}})
    fleet.tick(NOW)
    (claimed,) = fleet.claim(device, now=NOW)
    fleet.finish(device, claimed, "failed", error="broken", now=NOW)
    fleet.tick(NOW + timedelta(seconds=1))
    assert fleet.schedule(made["id"])["status"] == "paused"
    last = entries(fleet, "schedules", made["id"])[-1]
    assert last["new"]["status"] == "paused"
    assert last["actor"] is None


def test_what_is_older_than_it_is_to_be_kept_goes_and_nothing_younger(fleet: Fleet) -> None:
    for days in (0, 399, 401, 800):
        fleet.run(
            "insert into audit_log (owner_id, actor_role, table_name, row_id, action, at)"
            " values (%s, 'x', 'x', %s, 'insert', now() - make_interval(days => %s))",
            fleet.owner_id,
            str(days),
            days,
        )
    with fleet.refused("PT403", "audit_append_only"):
        fleet.run("delete from audit_log where row_id in ('399', '800')")
    prune = "select fleet.prune_batch('public.audit_log', now(), 1)"
    assert [fleet.value(prune) for _ in range(3)] == [1, 1, 0]
    kept = [
        row["row_id"] for row in fleet.rows("select row_id from audit_log where actor_role = 'x'")
    ]
    assert sorted(kept) == ["0", "399"]


def test_how_long_it_is_kept_is_a_setting(fleet: Fleet) -> None:
    fleet.run(
        "insert into audit_log (owner_id, actor_role, table_name, row_id, action, at)"
        " values (%s, 'x', 'x', '1', 'insert', now() - interval '500 days')",
        fleet.owner_id,
    )
    fleet.run("select fleet.set_setting('audit_days', '1000')")
    assert fleet.value("select fleet.prune_batch('public.audit_log', now())") == 0
    (status,) = [
        row
        for row in fleet.value("select fleet_status() -> 'engine' -> 'history'")
        if row["table"] == "public.audit_log"
    ]
    assert status["kept_days"] == 1000
    assert status["oldest"] is not None
    assert status["bytes"] > 0


def test_no_trigger_logs_a_column_that_holds_a_secret(fleet: Fleet) -> None:
    columns = fleet.rows(
        "select a.attrelid::regclass::text as table, a.attname as column, t.tgname as trigger,"
        "  encode(t.tgargs, 'escape') as without"
        " from pg_trigger as t"
        " join pg_attribute as a on a.attrelid = t.tgrelid and a.attnum > 0"
        " where t.tgfoid::regproc::text in"
        "  ('fleet.tg_note_rows', 'fleet.tg_note_change', 'fleet.tg_note_profile')"
        " and a.attname ~ 'secret|password|token|signing'"
    )
    assert columns
    told = [row for row in columns if row["column"] not in row["without"]]
    assert told == []
