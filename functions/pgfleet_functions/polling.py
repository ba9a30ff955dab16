"""Looking for work by oneself, where no database says that there is some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager


@asynccontextmanager
async def looking_every(
    seconds: float | None, functions: Iterable[Callable[[], None]]
) -> AsyncIterator[None]:
    """Wake each function again and again while the block lasts; with None the database does."""
    if seconds is None:
        yield
        return
    task = asyncio.create_task(_repeat(seconds, list(functions)), name="poll")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _repeat(seconds: float, functions: list[Callable[[], None]]) -> None:
    while True:
        for wake in functions:
            wake()
        await asyncio.sleep(seconds)
