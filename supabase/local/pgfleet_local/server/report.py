"""Telling people what the supervisor does, without ever waiting for somebody to read it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

Say = Callable[[str], None]

MOST_LINES = 1000
FAREWELL_SECONDS = 1.0


class Report:
    """Passes lines on from a thread of its own.

    A pipe that nobody reads any more fills up and then holds up who writes into it; one whose
    reader is gone raises. Neither may end a supervisor or keep it from its work, so lines that
    cannot be passed on are dropped.
    """

    def __init__(self, say: Say | None) -> None:
        self._say = say
        self._lines: queue.Queue[str | None] = queue.Queue(MOST_LINES)

    def __call__(self, line: str) -> None:
        """Take a line to pass on."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line)

    @contextlib.contextmanager
    def passing_on(self) -> Iterator[None]:
        """Pass lines on for as long as the block lasts, and then what is left, if that is quick."""
        thread = threading.Thread(target=self._pass_on, name="pgfleet-report", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(queue.Full):
                self._lines.put_nowait(None)
            thread.join(FAREWELL_SECONDS)

    def _pass_on(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._say is not None:
                with contextlib.suppress(OSError, ValueError):
                    self._say(line)
