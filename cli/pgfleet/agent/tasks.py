"""Run things side by side of which the first to end ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
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


async def whole_in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Run a call in a thread to its end, also where whoever waits for it is cancelled.

    `asyncio.to_thread` drops a call whose thread has not begun, and what was to be written is lost.
    """
    running = asyncio.create_task(asyncio.to_thread(call, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # Asked for its error, so that nobody complains that none did.
        if not running.cancelled():
            running.exception()
        raise cancelled
    return running.result()


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over, whatever it says."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
