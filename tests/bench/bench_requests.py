"""Requests that a fleet makes a day, counted over a simulated day of 200 agents."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg
from measure import row

sys.path.insert(0, str(Path(__file__).parents[2]))

AGENTS = 200
POLLING = 144


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Let a day pass whose doorbells work, and one on which they do not."""
    from tests.helpers.simulated_day import Day

    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    rows = []
    for what, agents, seconds, goal in (
        ("with the doorbell proved", AGENTS, 12 * 3600.0, "≤ 60"),
        ("while it is not", AGENTS // 10, None, None),
    ):
        with tempfile.TemporaryDirectory() as folder:
            day = Day(connection, agents, Path(folder), session_seconds=seconds).run()
        kinds = ("looks", "claims", "tokens", "checkins", "sockets")
        each = ", ".join(f"{round(float(day[kind]) / agents, 1):g} {kind}" for kind in kinds)
        name = f"requests a day and device, of {agents}, {what} ({each})"
        rows.append(row(name, float(day["a_device"]), "", POLLING, goal))
    return rows
