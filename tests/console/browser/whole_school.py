"""A school with something on every page, and the address of each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest


@pytest.fixture(scope="module")
def group(a_school: Any) -> int:
    """Make a group whom a selector finds."""
    with a_school.fleet() as fleet:
        made = fleet.insert(
            "device_groups",
            owner_id=a_school.owner,
            name="All of them",
            selector={"platform": ["linux"]},
        )
        fleet.run("update devices set platform = 'linux' where id = %s", a_school.devices[0])
        return int(made["id"])


@pytest.fixture(scope="module")
def listed_group(a_school: Any) -> int:
    """Make a group that lists its members."""
    with a_school.fleet() as fleet:
        made = fleet.insert("device_groups", owner_id=a_school.owner, name="Back row")
        fleet.value("select add_to_group(%s, %s::bigint[])", made["id"], a_school.devices[2:4])
        return int(made["id"])


@pytest.fixture(scope="module")
def deployment(a_school: Any) -> int:
    """Deploy a file that failed on one device."""
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
        first = fleet.commands(made["id"])[0]["id"]
        fleet.run("update device_commands set status = 'failed' where id = %s", first)
        return int(fleet.value("select id from deployment_list where schedule_id = %s", made["id"]))


@pytest.fixture(scope="module")
def message(a_school: Any) -> int:
    """Let an endpoint be told of something."""
    with a_school.fleet() as fleet:
        made = fleet.value(
            "select create_webhook_endpoint(jsonb_build_object('name', 'ops',"
            " 'url', 'https://hooks.example.com/', 'owner_id', %s::text))",
            str(a_school.owner),
        )
        return int(fleet.value("select (test_webhook_endpoint(%s)).id", int(made["id"])))


@pytest.fixture(scope="module")
def places(a_school: Any) -> None:
    """Make a location with two devices in it, a geo schedule, and holidays."""
    today = datetime.now(UTC).date()
    with a_school.fleet() as fleet:
        calendar = fleet.insert("blackout_calendars", owner_id=a_school.owner, name="Holidays")
        fleet.insert(
            "blackout_periods",
            calendar_id=calendar["id"],
            owner_id=a_school.owner,
            starts_on=today + timedelta(days=1),
            ends_on=today + timedelta(days=3),
            summary="Snow days",
        )
        fleet.insert(
            "locations",
            owner_id=a_school.owner,
            name="Yard",
            kind="circle",
            latitude=52.5,
            longitude=13.4,
            radius_m=300,
        )
        fleet.run(
            "update devices set latitude = 52.501, longitude = 13.401, located_at = now()"
            " where id = any (%s)",
            a_school.devices[:2],
        )
        fleet.run(
            "insert into geo_schedules (owner_id, name, device_id, apps, start_minute, end_minute)"
            " values (%s, 'No chess', %s, '{chess}', 480, 930)",
            *(a_school.owner, a_school.devices[0]),
        )


@pytest.fixture(scope="module")
def pages(
    a_school: Any,
    weekly: int,
    group: int,
    listed_group: int,
    rollout: int,
    deployment: int,
    mdm: int,
    measured: int,
    message: int,
    places: None,
) -> dict[str, str]:
    """Name all pages, each with its address."""
    device, schedule = a_school.devices[0], f"/schedules/{a_school.schedule}"
    at = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT08:30:00Z")
    return {
        "now": "/",
        **{f"calendar-{view}": f"/calendar?view={view}" for view in ("month", "week", "day")},
        "calendar-agenda": "/calendar?view=agenda&zone=Asia/Tokyo",
        "calendar-move": f"/calendar/move/{weekly}?at={at}",
        "schedules": "/schedules",
        "schedule": schedule,
        "schedule-edit": f"{schedule}/edit",
        "schedule-new": "/schedules/new",
        "schedule-explained": f"{schedule}/explain?at=2040-01-01T12:00Z",
        "runs": "/runs",
        "run": f"/runs/{a_school.run}",
        "commands": "/commands",
        "commands-found": "/commands?q=status:failed",
        "command": f"/commands/{a_school.failed}",
        "refused": "/commands/999999",
        "devices": "/devices",
        "device": f"/devices/{device}",
        "groups": "/groups",
        "group": f"/groups/{group}",
        "group-listed": f"/groups/{listed_group}",
        "group-new": "/groups/new",
        "map": "/map?minute=600",
        "profiles": "/profiles",
        "rollouts": "/rollouts",
        "rollout": f"/rollouts/{rollout}",
        "deployments": "/deployments",
        "deployment": f"/deployments/{deployment}",
        "integrations": "/integrations",
        "integration": f"/integrations/{mdm}",
        "telemetry": "/telemetry",
        "telemetry-of": f"/telemetry/{device}?span=24h",
        "webhooks": "/webhooks",
        "message": f"/webhooks/deliveries/{message}",
        "audit": "/audit",
        "settings": "/settings",
        "search": "/search?q=lab",
    }
