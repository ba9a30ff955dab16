"""Looking for work by oneself, where no database says that there is some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from pgfleet_functions.beside import beside


@asynccontextmanager
async def looking_every(
    seconds: float | None, functions: Iterable[Callable[[], None]]
) -> AsyncIterator[None]:
    """Wake each function again and again while the block lasts; with None the database does."""
    if seconds is None:
        yield
        return
    async with beside(_repeat(seconds, list(functions)), "poll"):
        yield


async def _repeat(seconds: float, functions: list[Callable[[], None]]) -> None:
    while True:
        for wake in functions:
            wake()
        await asyncio.sleep(seconds)
