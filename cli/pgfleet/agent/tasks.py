"""Run things side by side of which the first to end ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, awaited: Awaitable[T]) -> T:
    """Wait for something, or raise TimeoutError.

    Not `asyncio.wait_for`: before Python 3.12 that forgets that it was cancelled where what it
    waits for comes at the same moment, and whoever cancelled it waits for ever.
    """
    async with asyncio.timeout(seconds):
        return await awaited


async def first_to_end(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run until one ends; cancel and await the others; raise what the first one raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    # An ending without an error (a stop that was asked for) does not hide an error.
    for task in done:
        task.result()


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over, whatever it says."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
