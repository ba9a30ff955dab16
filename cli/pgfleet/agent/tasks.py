"""Run things side by side of which the first to end ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


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
