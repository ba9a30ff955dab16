"""What the supervisor does when it is asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from pgfleet_local.settings import LocalError

# Ctrl-C, a service manager, and a terminal that is closed.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


class StopRequested(BaseException):
    """A signal asked the supervisor to end; no `except Exception` may hold it up."""


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn signals that stop into `StopRequested` in the main thread."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise StopRequested

    with _handling(stop):
        yield


@contextlib.contextmanager
def deaf_to_signals() -> Iterator[None]:
    """Let an impatient second Ctrl-C not leave half of the platform running."""
    with _handling(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        raise LocalError("the local platform has to run in the main thread")
    before: dict[signal.Signals, Any] = {}
    for number in STOP_SIGNALS:
        # Under nohup a closed terminal is to be ignored, and goes on to be.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
