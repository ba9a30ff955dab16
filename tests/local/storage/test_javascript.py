"""The storage of the local platform, by the official JavaScript client and that of TUS."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.helpers.node import node_folder

__all__ = ["node_folder"]


@pytest.mark.node
def test_the_official_clients_find_what_they_expect(stack: Any, node_folder: Path) -> None:
    settings = stack.settings
    bucket = f"js-{uuid4().hex[:8]}"
    made = httpx.post(
        f"{settings.api_url}/storage/v1/bucket",
        json={"name": bucket, "id": bucket},
        headers={"Authorization": f"Bearer {settings.service_role_key}"},
        trust_env=False,
    )
    assert made.status_code == 200, made.text
    plan = {
        **{"url": settings.api_url, "key": settings.service_role_key, "bucket": bucket},
        "size": 13_000_000,
    }
    done = subprocess.run(
        ["node", "store.mjs", json.dumps(plan)],
        cwd=node_folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["small"] == {
        "whole": True,
        "refused": "409",
        "range": [206, True],
        "named": ["small.bin"],
        "gone": ["js/moved.bin"],
    }
    assert said["large"] == {"stopped": True, "sent": plan["size"], "hash": said["wanted"]}
