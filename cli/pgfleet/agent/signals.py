"""Ending gracefully where the system asks for it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Turn the first signal into a graceful end, and let a second one end at once."""
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {one: signal.getsignal(one) for one in SIGNALS}
    by_loop = True

    def restore() -> None:
        for one in SIGNALS:
            if by_loop:
                loop.remove_signal_handler(one)
            signal.signal(one, before[one])

    def ask() -> None:
        restore()
        stop()

    try:
        # The loop is woken: a handler of Python alone is not run while the loop sleeps, where
        # the signal came a moment before it fell asleep, or to another thread.
        for one in SIGNALS:
            loop.add_signal_handler(one, ask)
    except NotImplementedError:
        # Loops of Windows take none; there the handler of Python wakes the loop itself.
        by_loop = False
        for one in SIGNALS:
            signal.signal(one, lambda *_: loop.call_soon_threadsafe(ask))
    try:
        yield
    finally:
        restore()
