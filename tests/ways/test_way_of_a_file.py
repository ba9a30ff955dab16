"""From a file in the storage to its place on devices, by the request bodies of a task scheduler."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from storage3 import SyncStorageClient
from tests.agent.conftest import fleet, launch, wait_for

__all__ = ["fleet", "launch"]


def put_file(fleet: Any, name: str, content: bytes, stored: bytes | None = None) -> int:
    """Upload a file and write it down; `stored` is what the storage has instead."""
    sha256 = hashlib.sha256(content).hexdigest()
    row = fleet.conn.execute(
        "insert into deployment_files (name, size_bytes, sha256) values (%s, %s, %s)"
        " returning id, storage_path",
        (name, len(content), sha256),
    ).fetchone()
    settings = fleet.settings
    key = settings.service_role_key
    with httpx.Client(trust_env=False, timeout=60) as http:
        storage = SyncStorageClient(
            f"{settings.api_url}/storage/v1/",
            {"apikey": key, "Authorization": f"Bearer {key}"},
            http_client=http,
        )
        storage.from_("pgfleet").upload(
            row["storage_path"], content if stored is None else stored, {"upsert": "true"}
        )
    return int(row["id"])


def deploy(fleet: Any, devices: list[str], files: list[int], **payload: Any) -> int:
    """Create the schedule of a task scheduler's body, due now."""
    from psycopg.types.json import Jsonb

    body = {
        "task_name": "Daily Config Sync",
        "task_type": "file_deployment",
        "recurrence_type": "once",
        "device_ids": [fleet.device_id(name) for name in devices],
        "file_payload": {
            "file_ids": files,
            "target_path": "C:\\Config",
            "create_path_if_not_exists": True,
            **payload,
        },
    }
    made = fleet.value("select create_schedule(%s)", Jsonb(body))
    return int(made["id"])


def targets(fleet: Any, schedule: int) -> dict[str, dict[str, Any]]:
    rows = fleet.conn.execute(
        "select t.* from deployment_target_list as t"
        " join deployments as d on d.id = t.deployment_id"
        " where d.schedule_id = %s",
        (schedule,),
    ).fetchall()
    return {row["device_hostname"]: row for row in rows}


def wait_states(fleet: Any, schedule: int, seconds: float = 60) -> dict[str, dict[str, Any]]:
    def ended() -> Any:
        found = targets(fleet, schedule)
        return found if found and all(one["finished_at"] for one in found.values()) else None

    result: dict[str, dict[str, Any]] = wait_for(ended, f"{targets(fleet, schedule)}", seconds)
    return result


def test_files_reach_devices_and_the_history_names_the_deployment(
    fleet: Any, launch: Any, tmp_path: Path
) -> None:
    contents = {"app.conf": b"a = 1\n", "big file.bin": os.urandom(3_000_000)}
    files = [put_file(fleet, name, content) for name, content in contents.items()]
    roots = {name: tmp_path / f"{name}-c" for name in ("file-a", "file-b")}
    for name, root in roots.items():
        root.mkdir()
        launch(name, "--deploy-root", f"C:={root}", "--bandwidth-kib", "200000").wait_live()
    (roots["file-a"] / "Config").mkdir()
    (roots["file-a"] / "Config" / "app.conf").write_text("old")
    (roots["file-a"] / "Config" / "app.conf").chmod(0o600)
    launch("file-none").wait_live()

    schedule = deploy(fleet, [*roots, "file-none"], files)
    found = wait_states(fleet, schedule)

    assert {name: one["state"] for name, one in found.items()} == {
        "file-a": "succeeded",
        "file-b": "succeeded",
        "file-none": "failed",
    }
    assert found["file-none"]["reason"] == "unsupported"
    for root in roots.values():
        placed = root / "Config"
        assert {one.name: one.read_bytes() for one in placed.iterdir()} == contents
    assert (roots["file-a"] / "Config" / "app.conf").stat().st_mode & 0o777 == 0o600
    row = fleet.conn.execute(
        "select e.deployment_id, d.id from scheduled_task_executions as e"
        " join deployments as d on d.schedule_id = e.task_id where e.task_id = %s",
        (schedule,),
    ).fetchone()
    assert row["deployment_id"] == row["id"]


def test_a_wrong_byte_never_gets_into_place(fleet: Any, launch: Any, tmp_path: Path) -> None:
    content = os.urandom(200_000)
    spoilt = content[:100_000] + bytes([content[100_000] ^ 1]) + content[100_001:]
    file = put_file(fleet, "app.bin", content, spoilt)
    root = tmp_path / "c"
    root.mkdir()
    launch("file-spoilt", "--deploy-root", f"C:={root}").wait_live()
    with fleet.setting("retry_backoff_seconds", 0.1):
        schedule = deploy(fleet, ["file-spoilt"], [file])
        found = wait_states(fleet, schedule)["file-spoilt"]
    assert found["state"] == "failed"
    assert "sha256 differs" in found["error_message"]
    assert list((root / "Config").iterdir()) == []


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_device_that_is_killed_in_the_middle_goes_on(
    fleet: Any, launch: Any, tmp_path: Path, cut: float
) -> None:
    content = os.urandom(4_000_000)
    file = put_file(fleet, "app.bin", content)
    root = tmp_path / "c"
    root.mkdir()
    name = f"file-kill-{int(cut * 10)}"
    options = ("--deploy-root", f"C:={root}", "--poll-seconds", "0.5")
    with fleet.setting("lease_seconds", 2):
        agent = launch(name, *options, "--bandwidth-kib", "2000")
        agent.wait_live()
        schedule = deploy(fleet, [name], [file])
        downloads = agent.folder / "deploy" / "downloads"

        def begun() -> bool:
            parts = list(downloads.glob("*.part")) if downloads.exists() else []
            return any(part.stat().st_size > cut * len(content) for part in parts)

        wait_for(begun, "the download")
        agent.end(signal.SIGKILL)
        assert not (root / "Config" / "app.bin").exists()
        launch(name, *options)
        found = wait_states(fleet, schedule)[name]
    assert found["state"] == "succeeded"
    assert (root / "Config" / "app.bin").read_bytes() == content
    assert [one.name for one in (root / "Config").iterdir()] == ["app.bin"]
