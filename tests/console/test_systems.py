"""Rollouts, deployments, profiles, integrations and telemetry."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from pgfleet_console.pages.telemetry import drawn

HOUR = datetime(2027, 1, 4, 12, 0, tzinfo=UTC)


def status(school: Any, run: int) -> str:
    with school.fleet() as fleet:
        return str(fleet.value("select status from rollout_list where run_id = %s", run))


@pytest.fixture(scope="module")
def rollout(a_school: Any) -> int:
    """Begin a rollout whose first group needs somebody's word."""
    with a_school.fleet() as fleet:
        groups = [
            {"devices": a_school.devices[:2], "name": "Canary <1>", "gate": "manual"},
            {"percent": 100, "name": "the rest"},
        ]
        made = fleet.create(
            name="Browser",
            device_ids=a_school.devices,
            recurrence_type="daily",
            recurrence_config={"time": "03:00"},
            policies={"rollout": {"groups": groups}},
        )
        run = int(fleet.value("select id from run_schedule(%s)", made["id"]))
        fleet.tick_until_idle()
        return run


@pytest.fixture(scope="module")
def mdm(a_school: Any) -> int:
    """Add an MDM that has one of the devices, with what is assigned there."""
    with a_school.fleet() as fleet:
        made = int(
            fleet.value(
                "select id from create_integration(jsonb_build_object('name', 'School MDM',"
                " 'integration_type', 'simplemdm', 'owner_id', %s::text), 'secret-5f1a')",
                str(a_school.owner),
            )
        )
        device = a_school.devices[0]
        fleet.run(
            "insert into device_links (device_id, integration_id, owner_id, external_id)"
            " values (%s, %s, %s, '1')",
            *(device, made, a_school.owner),
        )
        fleet.value("select id from install_profile('7', %s, '1 day', now() + '1 hour')", device)
        fleet.value(
            "select id from assign_profile('8', jsonb_build_object('device_ids',"
            " jsonb_build_array(%s::bigint)))",
            device,
        )
        return made


@pytest.fixture(scope="module")
def measured(a_school: Any) -> int:
    """Store two points of a device, as the functions do, and a rule."""
    device, batch = a_school.devices[0], uuid4()
    with a_school.fleet() as fleet:
        for ago, battery in ((2, 80), (1, 60)):
            fleet.run(
                "insert into telemetry.staging values (%s, %s, '/', now() - %s::interval,"
                " gen_random_uuid(), %s, 'pull', false, null, %s)",
                *(batch, device, f"{ago} hours", a_school.owner),
                json.dumps({"battery": battery, "note": "<b>"}),
            )
        fleet.value("select telemetry.worker_store(%s, 90)", batch)
        fleet.value("select telemetry.worker_roll_up()")
        return int(
            fleet.insert(
                "telemetry_rules",
                owner_id=a_school.owner,
                name="Low battery",
                condition="battery < 20",
                action_type="lock",
            )["id"]
        )


def test_a_rollout_is_seen_as_bars(console: Any, rollout: int) -> None:
    viewer = console("viewer")

    assert "Browser" in viewer.get("/rollouts?q=status:waiting")
    text = viewer.get(f"/rollouts/{rollout}")
    assert "Canary &lt;1&gt;" in text and 'aria-label="Devices of the rest: nothing"' in text
    assert "/approve" not in text and "/abort" not in text
    console("stranger").get(f"/rollouts/{rollout}", 404)


def test_a_rollout_is_approved_paused_and_aborted(
    console: Any, a_school: Any, rollout: int
) -> None:
    admin, path = console("admin"), f"/rollouts/{rollout}"

    console("viewer").post(f"{path}/approve", 403)
    console("stranger").post(f"{path}/abort", 404, confirm="Browser")
    assert "Approved." in admin.do(f"{path}/approve", reason="looks good")
    with a_school.fleet() as fleet:
        fleet.value("select fleet.tend_rollouts(clock_timestamp() + '1 minute')")
    shown = admin.get(path)
    assert "looks good" in shown and "2 running" in shown
    assert "Paused." in admin.do(f"{path}/pause") and status(a_school, rollout) == "paused"
    assert "It goes on." in admin.do(f"{path}/resume") and status(a_school, rollout) == "running"
    admin.post(f"{path}/abort", 422, confirm="browser")
    assert "Aborted." in admin.do(f"{path}/abort", confirm="Browser", reason="it was slow")
    assert status(a_school, rollout).startswith("abort")


def test_a_deployment_is_sent_again_where_it_failed(console: Any, a_school: Any) -> None:
    with a_school.fleet() as fleet:
        file = fleet.insert(
            "deployment_files",
            **{"owner_id": a_school.owner, "name": "app.conf", "size_bytes": 3},
            sha256="a" * 64,
        )["id"]
        made = fleet.create(
            name="Settings",
            action_type="file_deployment",
            device_ids=a_school.devices[:2],
            payload={"file_ids": [file], "target_path": "C:\\Config"},
        )
        fleet.tick_until_idle()
        number = fleet.value("select id from deployment_list where schedule_id = %s", made["id"])
        first = fleet.commands(made["id"])[0]["id"]
        fleet.run("update device_commands set status = 'failed' where id = %s", first)
    admin, path = console("admin"), f"/deployments/{number}"

    assert "app.conf" in admin.get("/deployments?q=kind:files")
    assert "1 failed" in admin.get(path) and "0 of 2 devices have it" in admin.get(path)
    assert f"{path}/retry" not in console("viewer").get(path)
    console("viewer").post(f"{path}/retry", 403)
    console("stranger").post(f"{path}/retry", 404)
    assert "sent again to those" in admin.do(f"{path}/retry")


def test_an_integration_is_paused_and_read(console: Any, mdm: int) -> None:
    admin, path = console("admin"), f"/integrations/{mdm}"

    assert "School MDM" in console("viewer").get("/integrations")
    assert "is kept" in admin.get(path) and "5f1a" not in admin.get(path)
    assert f"{path}/pause" not in console("viewer").get(path)
    console("viewer").post(f"{path}/pause", 403)
    console("stranger").post(f"{path}/pause", 404)
    assert "It is read soon." in admin.do(f"{path}/sync")
    assert "holidays" in admin.do(f"{path}/pause", reason="holidays")
    assert "It goes on." in admin.do(f"{path}/resume")


def test_profiles_are_ended_extended_and_reconciled(console: Any, a_school: Any, mdm: int) -> None:
    admin, viewer = console("admin"), console("viewer")

    text = viewer.get("/profiles?q=device:lab-01")
    assert "lacks" in text and "waiting</span>" in text and "/end" not in text
    with a_school.fleet() as fleet:
        row = fleet.row(
            "select * from temporary_profiles where device_id = %s", a_school.devices[0]
        )
        install, until = row["install_id"], row["scheduled_removal_time"]
        path = f"/profiles/installs/{install}"
        assert "It stays longer." in admin.do(f"{path}/extend", by="30 minutes")
        later = fleet.value(
            "select scheduled_removal_time from temporary_profiles where install_id = %s", install
        )
    assert later - until == timedelta(minutes=30)
    viewer.post(f"{path}/end", 403)
    console("stranger").post(f"{path}/end", 404)
    assert "It ends now." in admin.do(f"{path}/end")
    assert "pushes and 0 removals" in admin.do(f"/profiles/reconcile/{a_school.owner}")
    viewer.post(f"/profiles/reconcile/{a_school.owner}", 403)


def test_numbers_are_drawn_by_the_hour() -> None:
    def hour(at: int, field: str, low: float, high: float) -> dict[str, Any]:
        about = {"stream": "/", "field": field, "smallest": low, "largest": high}
        return about | {"hour": HOUR + timedelta(hours=at), "average": (low + high) / 2}

    rows = [hour(1, "t", 4, 6), hour(0, "t", 1, 3), hour(0, "", 1, 1)]

    (one,) = drawn(rows)

    assert (one["field"], one["least"], one["most"], one["last"]) == ("t", 1, 6, 5)
    assert one["line"] == "0.00,30.00 100.00,0.00"


def test_what_a_device_measured_is_drawn(console: Any, a_school: Any, measured: int) -> None:
    viewer, path = console("viewer"), f"/telemetry/{a_school.devices[0]}"

    assert "lab-01</a>" in viewer.get("/telemetry")
    text = viewer.get(path)
    assert 'aria-label="battery: from 60' in text and "&lt;b&gt;" not in text.split("<ul")[0]
    assert "<b>" not in text and "is no span" in viewer.get(f"{path}?span=1y", 422)
    console("stranger").get(path, 404)
    assert "Nothing is measured yet" in console("stranger").get("/telemetry")

    rule = f"/telemetry/rules/{measured}/enable"
    assert rule not in viewer.get("/telemetry")
    assert "does nothing" in console("admin").do(rule, enabled="false")
    assert "The rule acts" in console("admin").do(rule, enabled="true")
    console("stranger").post(rule, 404, enabled="false")
