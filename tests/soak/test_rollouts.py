"""Rollouts at their full size: a large file on many devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.agent.conftest import fleet, launch
from tests.ways.test_way_of_many_files import carry

__all__ = ["fleet", "launch"]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_hundred_megabytes_reach_twenty_devices(
    fleet: Any, launch: Any, tmp_path: Path
) -> None:
    carry(fleet, launch, tmp_path, size=200_000_000, agents=20, seconds=1500)
