"""Work that runs beside the requests for as long as the server does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn

logger = logging.getLogger(__name__)

# Work that fails again sooner than this is started again more slowly each time.
STEADY_SECONDS = 30.0


@dataclass(slots=True)
class Backoff:
    """Pauses in seconds before another try, each twice as long as the one before."""

    first: float = 0.1
    longest: float = 5.0
    _next: float = 0.0

    def pause(self) -> float:
        """Give the pause before the next try."""
        pause = self._next or self.first
        self._next = min(pause * 2, self.longest)
        return pause

    def reset(self) -> None:
        """Begin again with the first pause, because a try went well."""
        self._next = 0.0


async def keep_running(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """Run work that is to go on for ever, and start it again whatever ends it.

    A server looks alive when a part of it has ended without a word. So each end is logged with
    its cause, and only being cancelled is final.
    """
    loop = asyncio.get_running_loop()
    backoff = Backoff()
    while True:
        began = loop.time()
        try:
            await work()
            logger.error("%s ended; it is started again", name)
        except Exception:
            logger.exception("%s failed; it is started again", name)
        if loop.time() - began > STEADY_SECONDS:
            backoff.reset()
        await asyncio.sleep(backoff.pause())
