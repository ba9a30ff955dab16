"""The figures for monitoring are those of the tables, and for monitoring only."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from ruamel.yaml import YAML
from tests.helpers.fleet import Fleet
from tests.helpers.pages import DOCS

NOW = datetime.now(UTC)
ALERTS = DOCS / "operate" / "alerts.yml"
DASHBOARD = DOCS / "operate" / "dashboard.json"
NAME = re.compile(r"\bpgfleet_[a-z_]+\b")


def figures(fleet: Fleet, name: str, now: datetime = NOW) -> dict[str, float]:
    """Give the figures of a name, by the values of their labels in the order of their names."""
    found = fleet.rows("select labels, value from fleet.metrics(%s) where name = %s", now, name)
    return {
        " ".join(str(row["labels"][label]) for label in sorted(row["labels"])): row["value"]
        for row in found
    }


def test_what_waits_and_what_ended_is_counted(fleet: Fleet) -> None:
    devices = fleet.devices(3)
    for device in devices:
        fleet.send(device)
    done, failed = (fleet.claim(device)[0] for device in devices[:2])
    fleet.finish(devices[0], done)
    fleet.finish(devices[1], failed, "failed", reason="unsupported")
    now = datetime.now(UTC) + timedelta(seconds=30)

    assert figures(fleet, "pgfleet_commands", now) == {"agent pending": 1}
    assert figures(fleet, "pgfleet_commands_ended", now) == {
        "agent  completed": 1,
        "agent unsupported failed": 1,
    }
    (oldest,) = figures(fleet, "pgfleet_commands_oldest_seconds", now).values()
    assert 29 <= oldest <= 90
    lags = figures(fleet, "pgfleet_claim_lag_seconds", now)
    assert set(lags) == {"agent 0.5", "agent 0.95", "agent 0.99"}
    assert all(0 <= lag < 60 for lag in lags.values())
    assert figures(fleet, "pgfleet_devices") == {"active": 3}


def test_lag_tells_how_late_schedules_are(fleet: Fleet) -> None:
    assert figures(fleet, "pgfleet_due_lag_seconds") == {"": 0}
    made = fleet.minutely(fleet.devices(1), NOW - timedelta(minutes=10))
    due = NOW - timedelta(seconds=70)
    fleet.run("update schedules set next_run_at = %s where id = %s", due, made["id"])

    assert figures(fleet, "pgfleet_schedules_due") == {"": 1}
    assert figures(fleet, "pgfleet_due_lag_seconds") == {"": pytest.approx(70)}


def test_an_engine_that_stands_still_is_told(fleet: Fleet) -> None:
    fleet.tick(NOW)
    assert figures(fleet, "pgfleet_ticking", NOW + timedelta(seconds=5)) == {"": 1}
    steps = figures(fleet, "pgfleet_step_failed", NOW)
    assert steps["start"] == steps["ring"] == 0
    assert figures(fleet, "pgfleet_ticking", NOW + timedelta(seconds=30)) == {"": 0}
    assert figures(fleet, "pgfleet_tick_age_seconds", NOW + timedelta(seconds=30)) == {"": 30}


def test_a_step_that_fails_is_told(fleet: Fleet) -> None:
    fleet.run("alter function fleet.poke_mdm(timestamptz) rename to poke_mdm_gone")
    fleet.run("select fleet.tick(%s)", NOW)

    failed = figures(fleet, "pgfleet_step_failed", NOW)
    assert [step for step, value in failed.items() if value] == ["mdm"]


def test_calls_that_come_too_fast_are_counted(fleet: Fleet) -> None:
    for status in (200, 204, 429, 503, None):
        fleet.insert("mdm_api_logs", owner_id=fleet.owner_id, method="GET", url="x", status=status)

    now = datetime.now(UTC)
    assert figures(fleet, "pgfleet_provider_calls", now) == {
        "2xx": 2,
        "4xx": 1,
        "5xx": 1,
        "none": 1,
    }
    assert figures(fleet, "pgfleet_provider_refused_rate", now) == {"": 1}


def test_what_grows_is_measured(fleet: Fleet) -> None:
    sizes = figures(fleet, "pgfleet_table_bytes")
    assert {"public.schedule_runs", "public.device_commands", "public.audit_log"} <= set(sizes)
    assert all(size >= 0 for size in sizes.values())


def test_every_figure_has_a_meaning_and_is_on_the_page(fleet: Fleet) -> None:
    kinds = {row["name"] for row in fleet.rows("select name from fleet.metric_kinds()")}
    page = (DOCS / "reference" / "metrics.md").read_text()
    source = Path(__file__).parents[3] / "db/sources/90_operations/45_metrics.sql"

    assert set(NAME.findall(source.read_text())) == kinds
    assert set(NAME.findall(page)) == kinds


@pytest.mark.parametrize("file", [ALERTS, DASHBOARD], ids=["alerts", "dashboard"])
def test_rules_and_panels_speak_of_figures_that_there_are(fleet: Fleet, file: Path) -> None:
    kinds = {row["name"] for row in fleet.rows("select name from fleet.metric_kinds()")}
    named = set(NAME.findall(file.read_text()))
    assert named and named <= kinds


def test_the_dashboard_is_one() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == 12


def test_the_rules_can_be_read_by_prometheus() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        # Where it is not installed, at least they are what they should be by their shape.
        (group,) = YAML(typ="safe").load(ALERTS.read_text())["groups"]
        for rule in group["rules"]:
            assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        return
    subprocess.run([promtool, "check", "rules", str(ALERTS)], check=True)


def test_people_and_devices_do_not_see_them(fleet: Fleet) -> None:
    with fleet.acting(fleet.owner_id), pytest.raises(psycopg.errors.InsufficientPrivilege):
        fleet.run("select * from fleet_metrics")


def test_the_service_role_does(fleet: Fleet) -> None:
    fleet.run("set local role service_role")
    assert fleet.rows("select * from fleet_metrics where name = 'pgfleet_ticking'")
