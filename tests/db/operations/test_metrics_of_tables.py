"""Each figure of the metrics is what the tables say, asked for in another way."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.helpers.fleet import Fleet

# A figure and the tables' own answer to it: its label, or nothing, and its value. Figures at which
# the tables have no say have a test of their own.
TOLD: dict[str, str] = {
    "pgfleet_ticking": "select null, (last_tick_at > %(now)s - interval '10 s')::int"
    " from fleet.heartbeat",
    "pgfleet_tick_age_seconds": "select null, round(extract(epoch from %(now)s - last_tick_at), 1)"
    " from fleet.heartbeat",
    "pgfleet_tick_seconds": "select null, tick_ms / 1000 from fleet.heartbeat",
    "pgfleet_step_seconds": "select s ->> 'name', (s ->> 'ms')::numeric / 1000"
    " from fleet.heartbeat, jsonb_array_elements(steps) as s",
    "pgfleet_step_failed": "select s ->> 'name', (s ->> 'error' is not null)::int"
    " from fleet.heartbeat, jsonb_array_elements(steps) as s",
    "pgfleet_doorbells_waiting": "select null, count(*) from fleet.doorbells"
    " where ring_at <= %(now)s",
    "pgfleet_devices": "select status, count(*) from devices group by 1",
    "pgfleet_devices_seen": "select null, count(*) from devices"
    " where status = 'active' and last_seen > %(now)s - interval '1 h'",
    "pgfleet_schedules": "select status, count(*) from schedules group by 1",
    "pgfleet_schedules_due": "select null, count(*) from schedules"
    " where status = 'active' and next_run_at <= %(now)s",
    "pgfleet_due_lag_seconds": "select null, extract(epoch from %(now)s - min(next_run_at))"
    " from schedules where status = 'active'",
    "pgfleet_runs_ended": "select status, count(*) from schedule_runs"
    " where finished_at > %(now)s - interval '1 h' group by 1",
    "pgfleet_commands": "select channel || ' ' || status, count(*) from device_commands"
    " where status in ('pending', 'running') group by 1",
    "pgfleet_commands_oldest_seconds": "select 'agent', extract(epoch from"
    " %(now)s - min(not_before)) from device_commands where status = 'pending'",
    "pgfleet_commands_ended": "select concat_ws(' ', channel, coalesce(reason, ''), status),"
    " count(*) from device_commands where executed_at > %(now)s - interval '10 min' group by 1",
    "pgfleet_claim_lag_seconds": "select 'agent ' || q, percentile_cont(q) within group (order by"
    " greatest(0, extract(epoch from claimed_at - greatest(created_at, not_before))::float8))"
    " from device_commands, unnest('{0.5,0.95,0.99}'::float8[]) as q"
    " where executed_at is not null and claimed_at is not null group by q",
    "pgfleet_finish_lag_seconds": "select 'agent ' || q, percentile_cont(q) within group"
    " (order by extract(epoch from executed_at - claimed_at)::float8)"
    " from device_commands, unnest('{0.5,0.95,0.99}'::float8[]) as q"
    " where executed_at is not null and claimed_at is not null group by q",
    "pgfleet_webhook_deliveries_waiting": "select null, count(*) from webhook_deliveries"
    " where status = 'pending'",
    "pgfleet_integrations": "select status || ' ' || integration_type, count(*)"
    " from device_integrations group by 1",
    "pgfleet_sync_age_seconds": "select id::text, extract(epoch from %(now)s - last_sync_at)"
    " from device_integrations where status = 'active'",
    "pgfleet_provider_calls": "select case when status is null then 'none'"
    " else left(status::text, 1) || 'xx' end, count(*) from mdm_api_logs group by 1",
    "pgfleet_provider_refused_rate": "select null, count(*) from mdm_api_logs where status = 429",
    "pgfleet_partition_missing": "select null, 0",
    "pgfleet_connections": "select coalesce(state, 'other'), count(*) from pg_stat_activity"
    " where datname = current_database() group by 1"
    " union all select 'max', current_setting('max_connections')::int",
}
ELSEWHERE = {
    "pgfleet_job_active": "there is no pg_cron here, see tests/ways/test_way_of_a_checkup.py",
    "pgfleet_oldest_transaction_seconds": "needs another session, see test_alerts.py",
    "pgfleet_table_bytes": "see below",
    "pgfleet_history_age_seconds": "see below",
}


@pytest.fixture
def busy(fleet: Fleet) -> Fleet:
    """Make a fleet with something in every figure."""
    devices = fleet.devices(5)
    fleet.run("update devices set last_seen = now() where id = any (%s)", devices[:3])
    fleet.run("select retire_device(%s)", devices[4])
    hooks = {"url": "https://hooks.example.com/", "owner_id": str(fleet.owner_id)}
    made = fleet.value("select create_webhook_endpoint(%s::jsonb) ->> 'id'", json.dumps(hooks))
    fleet.run("select test_webhook_endpoint(%s)", int(made))
    fleet.create(device_ids=devices[:2])
    fleet.send(devices[2])
    fleet.send(devices[3])
    done, failed = (fleet.claim(device)[0] for device in devices[:2])
    fleet.finish(devices[0], done)
    fleet.finish(devices[1], failed, "failed", reason="unsupported")
    fleet.claim(devices[2])
    fleet.tick()
    soon = datetime.now(UTC) + timedelta(days=1)
    paused, late = (fleet.minutely(devices[:1], soon) for _ in range(2))
    fleet.run("select pause_schedule(%s)", paused["id"])
    fleet.run(
        "update schedules set next_run_at = now() - interval '90 s' where id = %s", late["id"]
    )
    fleet.run(
        "insert into fleet.doorbells (device_id, owner_id, ring_at, command_id, command_type)"
        " values (%s, %s, now() - interval '1 min', 1, 'lock') on conflict do nothing",
        *(devices[3], fleet.owner_id),
    )
    for name, status in (("a", "active"), ("b", "paused")):
        fleet.insert(
            "device_integrations",
            owner_id=fleet.owner_id,
            name=name,
            integration_type="simplemdm",
            status=status,
            last_sync_at=datetime.now(UTC) - timedelta(minutes=7),
        )
    for status in (200, 429, None):
        fleet.insert("mdm_api_logs", owner_id=fleet.owner_id, method="GET", url="x", status=status)
    return fleet


def labelled(labels: dict[str, Any]) -> str:
    """Give the values of labels in the order of their names."""
    return " ".join(str(labels[name]) for name in sorted(labels))


def test_every_figure_is_what_the_tables_say(busy: Fleet) -> None:
    now = datetime.now(UTC) + timedelta(seconds=3)
    rows = busy.rows("select name, labels, value from fleet.metrics(%s)", now)
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["name"], {})[labelled(row["labels"])] = row["value"]

    for name, query in TOLD.items():
        told = busy.conn.execute(query.encode(), {"now": now}).fetchall()
        wanted = {label or "": pytest.approx(float(value), abs=1e-6) for label, value in told}
        assert found[name] == wanted, name
    # Nothing was compared with nothing.
    silent = {"pgfleet_step_failed", "pgfleet_partition_missing"}
    assert {name for name in TOLD if not any(found[name].values())} == silent


def test_no_figure_is_left_out(fleet: Fleet) -> None:
    kinds = {row["name"] for row in fleet.rows("select name from fleet.metric_kinds()")}
    assert kinds == TOLD.keys() | ELSEWHERE.keys()


def test_sizes_and_ages_are_those_of_the_tables(busy: Fleet) -> None:
    now = datetime.now(UTC)
    for name, value in {
        "pgfleet_table_bytes": "pg_total_relation_size('public.device_commands')",
        "pgfleet_history_age_seconds": "extract(epoch from %(now)s - (select min(at)"
        " from audit_log))",
    }.items():
        table = "public.device_commands" if name.endswith("bytes") else "public.audit_log"
        found = busy.value(
            "select value from fleet.metrics(%s) where name = %s and labels ->> 'table' = %s",
            *(now, name, table),
        )
        (wanted,) = busy.conn.execute(f"select {value}".encode(), {"now": now}).fetchone()
        assert found == pytest.approx(float(wanted), abs=1e-3), name
