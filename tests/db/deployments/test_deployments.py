"""Deployments: made by runs, moved by what devices say."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb


def file(fleet: Any, name: str = "app.conf", **more: Any) -> int:
    row = fleet.insert(
        "deployment_files",
        **{
            "owner_id": fleet.owner_id,
            "name": name,
            "size_bytes": 3,
            "sha256": "a" * 64,
            **more,
        },
    )
    return int(row["id"])


def test_a_run_of_files_is_a_deployment_with_a_target_for_each_device(fleet: Any) -> None:
    ids = [file(fleet), file(fleet, "b.conf", sha256="b" * 64)]
    devices = fleet.devices(2)
    made = fleet.create(
        action_type="file_deployment",
        device_ids=devices,
        payload={"file_ids": ids, "target_path": "C:\\Config", "create_path_if_not_exists": True},
    )
    row = fleet.row("select * from deployment_list where schedule_id = %s", made["id"])
    assert (row["kind"], row["status"], row["total"], row["open"]) == ("files", "running", 2, 2)
    assert [f["name"] for f in row["manifest"]["files"]] == ["app.conf", "b.conf"]
    executions = fleet.rows(
        "select deployment_id from scheduled_task_executions where task_id = %s", made["id"]
    )
    assert executions == [{"deployment_id": row["id"]}]


def package(fleet: Any, name: str, **more: Any) -> int:
    row = fleet.insert(
        "software_packages", **{"owner_id": fleet.owner_id, "name": name, "version": "1", **more}
    )
    return int(row["id"])


def test_what_a_package_needs_goes_before_it(fleet: Any) -> None:
    base = package(fleet, "base")
    lib = package(fleet, "lib", dependencies=[base])
    app = package(fleet, "app", dependencies=[base, lib])
    made = fleet.create(
        action_type="software_deployment",
        device_ids=fleet.devices(1),
        payload={"software_ids": [app, base], "deployment_name": "Weekly Updates"},
    )
    row = fleet.row("select * from deployments where schedule_id = %s", made["id"])
    assert row["name"] == "Weekly Updates"
    assert [p["name"] for p in row["manifest"]["packages"]] == ["base", "lib", "app"]


def test_packages_that_need_each_other_are_refused(fleet: Any) -> None:
    one = package(fleet, "one")
    two = package(fleet, "two", dependencies=[one])
    with fleet.refused("PT422", "package_invalid", "dependencies"):
        fleet.run("update software_packages set dependencies = %s where id = %s", [two], one)


def test_a_deployment_is_what_it_was_when_it_was_made(fleet: Any) -> None:
    tool = package(fleet, "tool", install_command="old")
    made = fleet.create(
        action_type="deploy_software",
        device_ids=fleet.devices(1),
        payload={"software_ids": [tool]},
    )
    fleet.run("update software_packages set install_command = 'new' where id = %s", tool)
    manifest = fleet.value("select manifest from deployments where schedule_id = %s", made["id"])
    assert manifest["packages"][0]["install_command"] == "old"


def test_what_is_needed_cannot_be_deleted(fleet: Any) -> None:
    one = file(fleet)
    package(fleet, "tool", file_id=one)
    with fleet.refused("PT409", "artifact_in_use", "tool"):
        fleet.run("delete from deployment_files where id = %s", one)


def test_deployments_of_several_schedules_take_turns_on_a_device(fleet: Any) -> None:
    device = fleet.device()
    ids = [file(fleet)]
    for _ in range(3):
        fleet.create(
            action_type="deploy_files",
            device_ids=[device],
            payload={"file_ids": ids, "target_path": "/x"},
        )
    rows = fleet.rows("select id, waits_for from device_commands order by id")
    assert [row["waits_for"] for row in rows] == [None, rows[0]["id"], rows[1]["id"]]


def test_nobody_waits_for_what_a_rollout_holds(fleet: Any) -> None:
    device = fleet.device()
    payload = {"file_ids": [file(fleet)], "target_path": "/x"}
    gated = {"groups": [{"percent": 100, "gate": "manual"}]}
    held, urgent = (
        fleet.create(
            action_type="deploy_files",
            device_ids=[device],
            payload=payload,
            policies=policies,
        )
        for policies in ({"rollout": gated}, {})
    )
    fleet.tick_until_idle()
    (urgent_row,) = fleet.commands(urgent["id"])
    assert urgent_row["waits_for"] is None
    # When its turn comes it waits for what came in between.
    fleet.run(
        "update device_commands set not_before = now() where schedule_id = %s",
        held["id"],
    )
    (held_row,) = fleet.commands(held["id"])
    assert held_row["waits_for"] == urgent_row["id"]
    fleet.run("update device_commands set not_before = now() where id = %s", urgent_row["id"])
    assert fleet.command(urgent_row["id"])["waits_for"] is None


def claimed(fleet: Any, device: int) -> dict[str, Any]:
    row: dict[str, Any]
    with fleet.as_device(device):
        row = fleet.row("select * from claim_commands()")
    return row


def test_the_state_of_a_target_is_what_its_device_says(fleet: Any) -> None:
    device = fleet.device()
    made = fleet.create(
        action_type="deploy_files",
        device_ids=[device],
        payload={"file_ids": [file(fleet)], "target_path": "/x"},
    )
    command = claimed(fleet, device)
    said = {"state": "downloading", "percent": 40, "bytes_done": 2, "bytes_total": 3}
    states = []
    for progress in (said, {**said, "state": "verifying", "percent": "x", "bytes_done": 1e300}):
        with fleet.as_device(device):
            fleet.value(
                "select extend_command(%s, %s, %s)",
                command["command_id"],
                command["attempt"],
                Jsonb(progress),
            )
        states.append(target(fleet, made["id"]))
        fleet.run("update device_commands set progress_at = progress_at - interval '1 minute'")
    assert [(s["state"], s["percent"], s["bytes_done"]) for s in states] == [
        ("downloading", 40, 2),
        ("verifying", 40, 2),
    ]
    with fleet.as_device(device):
        fleet.value(
            "select finish_command(%s, %s, 'completed', %s)",
            command["command_id"],
            command["attempt"],
            Jsonb({"state": "skipped", "reason": "every file is in place already"}),
        )
    ended = target(fleet, made["id"])
    assert (ended["state"], ended["percent"]) == ("skipped", 100)
    assert ended["reason"] == "every file is in place already"


def target(fleet: Any, schedule: int) -> dict[str, Any]:
    row: dict[str, Any] = fleet.row(
        "select t.* from deployment_targets as t join deployments as d on d.id = t.deployment_id"
        " where d.schedule_id = %s",
        schedule,
    )
    return row


def test_progress_more_often_than_once_a_second_is_not_taken_down(fleet: Any) -> None:
    device = fleet.device()
    fleet.run("select send_command(%s, 'lock')", device)
    command = claimed(fleet, device)
    with fleet.as_device(device):
        for percent in (10, 20):
            fleet.value(
                "select extend_command(%s, %s, %s)",
                command["command_id"],
                command["attempt"],
                Jsonb({"percent": percent}),
            )
    found = fleet.value("select progress from device_commands where id = %s", command["command_id"])
    assert found == {"percent": 10}


def test_only_a_device_on_its_way_may_read_an_object(fleet: Any) -> None:
    device, other = fleet.devices(2)
    made = fleet.create(
        action_type="deploy_files",
        device_ids=[device],
        payload={"file_ids": [file(fleet)], "target_path": "/x"},
    )
    path = f"{fleet.owner_id}/{'a' * 64}"

    def may(device: int, name: str = path) -> bool:
        with fleet.as_device(device):
            return bool(fleet.value("select fleet.may_read_object(%s)", name))

    assert [may(device), may(other), may(device, path[:-1] + "b")] == [True, False, False]
    fleet.run("update device_commands set status = 'cancelled' where schedule_id = %s", made["id"])
    assert not may(device)


def test_running_any_command_line_needs_a_permission_of_its_own(fleet: Any) -> None:
    device = fleet.device()
    for permissions, allowed in (
        ("{view,operate,manage}", False),
        ("{view,operate,manage,can_run_commands}", True),
    ):
        member = uuid4()
        fleet.run(
            "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, %s)",
            *(fleet.owner_id, member, permissions),
        )
        with fleet.acting(member):
            call = "select send_command(%s, 'run_command', '{\"command\": \"id\"}')"
            if allowed:
                fleet.run(call, device)
            else:
                with fleet.refused("PT403", "permission_missing", "can_run_commands"):
                    fleet.run(call, device)


@pytest.mark.parametrize(
    ("size", "sha256", "field"),
    [
        (-1, "0" * 64, "size_bytes"),
        (2**63 - 1, "0" * 64, "size_bytes"),
        (None, "0" * 64, "size_bytes"),
        (1, "00", "sha256"),
        (1, "A" * 64, "sha256"),
        (1, None, "sha256"),
    ],
)
def test_a_file_that_cannot_be_is_told_by_its_field(
    fleet: Any, size: int | None, sha256: str | None, field: str
) -> None:
    insert = (
        "insert into deployment_files (owner_id, name, size_bytes, sha256) values (%s,%s,%s,%s)"
    )
    with fleet.refused("PT422", "file_invalid", field):
        fleet.run(insert, fleet.owner_id, "app.conf", size, sha256)
