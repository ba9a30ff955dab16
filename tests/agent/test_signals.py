"""Asked to end, the agent hears it at once, whoever of its threads got the signal."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import pytest

from pgfleet.agent.signals import SIGNALS, stopping_on_signals

# Somebody who is not woken sleeps on for so long.
SLEEP = 20.0


def to_another_thread(number: int) -> None:
    """Deliver a signal to a thread that does not run the loop, which sleeps meanwhile."""

    def deliver() -> None:
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), number)

    threading.Thread(target=deliver).start()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_wakes_the_agent(number: int) -> None:
    async def story() -> None:
        stopped = asyncio.Event()
        with stopping_on_signals(stopped.set):
            to_another_thread(number)
            await asyncio.wait_for(stopped.wait(), SLEEP)

    began = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - began < SLEEP / 2


def test_a_second_signal_ends_at_once_and_afterwards_all_is_as_before() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))

    async def story() -> None:
        stopped = asyncio.Event()
        with stopping_on_signals(stopped.set):
            signal.raise_signal(signal.SIGTERM)
            await stopped.wait()
            assert got == []
            signal.raise_signal(signal.SIGTERM)
            assert got == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)

    try:
        asyncio.run(story())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM] * 2
