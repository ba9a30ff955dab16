"""The tests of pull and push once more, with the points in a second database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_pull_and_push_are_the_same_with_the_points_elsewhere() -> None:
    tests = [f"tests/functions/golioth/test_{name}.py" for name in ("pull", "webhook", "both_ways")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=os.environ | {"PGFLEET_TEST_TELEMETRY": "own"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
