"""Looking for work by oneself, where no pg_net pokes: plain Postgres."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pgfleet_functions.errors import FunctionError

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[Any]]


@asynccontextmanager
async def looking_every(seconds: float | None, jobs: Mapping[str, Work]) -> AsyncIterator[None]:
    """Do each job again and again, `seconds` after it ended, while the block lasts.

    With None nothing is done: the database pokes. A job that fails is tried again next time.
    """
    if seconds is None:
        yield
        return
    tasks = [
        asyncio.create_task(_repeat(seconds, name, work), name=f"poll {name}")
        for name, work in jobs.items()
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _repeat(seconds: float, name: str, work: Work) -> None:
    while True:
        try:
            await work()
        except FunctionError as error:
            # The database may be away; its words are for the log, the work waits in its table.
            log.warning("%s: %s", name, error.message)
        except Exception:
            log.exception("%s failed and is tried again", name)
        await asyncio.sleep(seconds)
