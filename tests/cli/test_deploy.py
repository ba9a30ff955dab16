"""Deployments on the command line, from a file to the devices on which it failed."""

from __future__ import annotations

import json
from typing import Any


def test_a_deployment_is_made_watched_stopped_and_tried_again(pgfleet: Any, fleet: Any) -> None:
    with fleet.connect() as conn:
        conn.execute("insert into devices (hostname) values ('d-1'), ('d-2'), ('d-3')")
        conn.execute(
            "insert into deployment_files (name, size_bytes, sha256)"
            " values ('app.conf', 1, repeat('a', 64))"
        )
    file = pgfleet("file", "list", "--json").data[0]["id"]
    plan = {"groups": [{"percent": 100, "gate": "manual"}]}
    made = pgfleet(
        *("deploy", "create", "App", "--file", str(file), "--to", "/etc/app"),
        *("--device", "d-1", "--device", "d-2", "--device", "d-3"),
        *("--rollout", json.dumps(plan), "--json"),
    ).data
    assert (made["name"], made["total"], made["status"]) == ("App", 3, "running")
    number = str(made["id"])
    tick(fleet)
    found = pgfleet("deploy", "show", number, "--json").data
    assert (found["rollout"]["status"], found["groups"][0]["targeted"]) == ("waiting", 3)
    paused = pgfleet("deploy", "pause", number, "--reason", "lunch", "--json").data
    assert paused["rollout"]["reason"] == "lunch"
    pgfleet("deploy", "resume", number)
    refused = pgfleet("deploy", "approve", number)
    assert refused.code == 1 and "signed in" in refused.err
    assert pgfleet("deploy", "abort", number, "--dry-run").code == 0
    assert pgfleet("deploy", "abort", number, "--yes").code == 0
    tick(fleet)
    tick(fleet)
    assert pgfleet("deploy", "rollouts", "--json").data[0]["status"] == "aborted"
    states = {one["state"] for one in pgfleet("deploy", "targets", number, "--json").data}
    assert states == {"skipped"}
    assert pgfleet("deploy", "retry", number).code == 1

    with fleet.connect() as conn:
        conn.execute("update deployment_targets set state = 'failed' where device_hostname = 'd-2'")
    again = pgfleet("deploy", "retry", number, "--json").data
    assert (again["name"], again["total"]) == ("App", 1)


def tick(fleet: Any) -> None:
    with fleet.connect() as conn:
        conn.execute("select fleet.tend_rollouts(clock_timestamp())")


def test_a_deployment_is_drawn_with_a_bar_a_group() -> None:
    from pgfleet.nouns.deploy.cli import _bar

    group = {"name": "canary", "targeted": 10, "succeeded": 5, "failed": 1, "status": "open"}
    assert _bar(group) == "canary           [############!!!.........] 5/10, 1 failed open"


def test_without_a_storage_a_file_is_not_written_down(pgfleet: Any, tmp_path: Any) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    answer = pgfleet("file", "add", str(path))
    assert answer.code == 1 and "PGFLEET_SERVICE_KEY" in answer.err
