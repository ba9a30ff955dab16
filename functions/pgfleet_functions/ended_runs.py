"""Telling of runs that have ended, as spans, where traces are collected.

Nobody has the span of a run while it lasts: the database begins it, devices and functions do what
belongs to it, and the database ends it. One of the functions tells it afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from pgfleet_functions import tracing
from pgfleet_functions.beside import beside
from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.errors import FunctionError

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
AT_ONCE = 200


@asynccontextmanager
async def telling_runs(pool: Pool) -> AsyncIterator[None]:
    """Tell of runs that end while the block lasts; nothing where spans go nowhere."""
    if not tracing.is_exporting():
        yield
        return
    async with beside(_repeat(pool), "runs that ended"):
        yield


async def _repeat(pool: Pool) -> None:
    while True:
        try:
            told = await tell_ended(pool)
        except FunctionError as error:
            log.info("runs that ended cannot be told of: %s", error.details)
            told = 0
        if told < AT_ONCE:
            await asyncio.sleep(LOOK_SECONDS)


async def tell_ended(pool: Pool) -> int:
    """Tell of the runs that ended since anybody asked last; how many they were."""
    runs: list[dict[str, Any]] = await fetch_value(
        pool, "select fleet.worker_ended_runs(%s)", AT_ONCE
    )
    for run in runs:
        tracing.tell_run(
            run["trace_id"],
            datetime.fromisoformat(run["started_at"]),
            datetime.fromisoformat(run["finished_at"]),
            has_failed=run["status"] == "failed",
            run=run["run_id"],
            schedule=run["schedule_id"],
            owner=run["owner_id"],
            due=run["scheduled_for"],
            status=run["status"],
            targeted=run["targeted"],
            completed=run["completed"],
            failed=run["failed"],
        )
    return len(runs)
