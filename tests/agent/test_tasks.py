"""Waiting side by side: whoever is told to end does so, whatever comes at the same moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgfleet.agent.tasks import first_to_end, whole_in_thread, within


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


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_to_be_written_is_written_although_nobody_waits_for_it_any_more(
    fails: bool,
) -> None:
    written: list[str] = []
    is_free = threading.Event()

    def write(text: str) -> None:
        written.append(text)
        if fails:
            raise OSError("the disk is full")

    async def play() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, is_free.wait)
        task = asyncio.create_task(whole_in_thread(write, "kept"))
        await asyncio.sleep(0)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        # All threads were at work: it has not begun.
        assert not written
        is_free.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(play())
    assert written == ["kept"]
