"""The recorded frames are still what the installed clients say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_installed_client_still_says_what_was_recorded(
    client_name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if client_name == "javascript":
        request.getfixturevalue("node_folder")

    subprocess.run(
        [sys.executable, GOLDEN / "capture.py", tmp_path, client_name],
        check=True,
        timeout=60,
        stderr=subprocess.DEVNULL,
    )

    said, recorded = (
        json.loads((folder / f"{client_name}.json").read_text()) for folder in (tmp_path, GOLDEN)
    )
    assert _in_any_order(said["frames"]) == _in_any_order(recorded["frames"])
    assert said["delivered"] == recorded["delivered"]


def _in_any_order(frames: list[dict[str, Any]]) -> list[str]:
    """Sort frames: a heartbeat may come before or after a join."""
    return sorted(json.dumps(frame) for frame in frames)
