"""Waiting side by side: whoever is told to end does so, whatever comes at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pgfleet.agent.tasks import first_to_end, within


async def ends_when_told_together_with(
    wait: Callable[[asyncio.Event], Awaitable[Any]],
) -> bool:
    """Cancel somebody who waits again and again in the moment in which the event comes."""
    event = asyncio.Event()

    async def go_on() -> None:
        while True:
            event.clear()
            await wait(event)

    task = asyncio.create_task(go_on())
    await asyncio.sleep(0)
    event.set()
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=1)
    task.cancel()
    return bool(done)


def test_who_is_cancelled_as_the_event_comes_ends() -> None:
    assert asyncio.run(ends_when_told_together_with(lambda event: within(60, event.wait())))


def test_what_ends_with_the_first_ends_although_the_first_tells_it_of_its_end() -> None:
    async def play() -> None:
        changed, stop = asyncio.Event(), asyncio.Event()

        async def doorbell() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                changed.set()

        async def poll() -> None:
            while True:
                changed.clear()
                await within(60, changed.wait())

        asyncio.get_running_loop().call_later(0.05, stop.set)
        await asyncio.wait_for(first_to_end(stop.wait(), doorbell(), poll()), 5)

    asyncio.run(play())


@pytest.mark.parametrize("seconds", [0, -1, 0.01])
def test_the_time_is_over_where_nothing_comes(seconds: float) -> None:
    async def play() -> None:
        await within(seconds, asyncio.Event().wait())

    with pytest.raises(TimeoutError):
        asyncio.run(play())


def test_what_is_there_already_is_taken_whatever_the_time() -> None:
    async def play() -> bool:
        event = asyncio.Event()
        event.set()
        return await within(0, event.wait())

    assert asyncio.run(play())
