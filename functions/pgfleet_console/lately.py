"""What was looked at lately, so that many pages cost the database no more than one does.

Whoever opens a page has it looked at for them. Pages that are shown again take what costs much
from here: it is looked at once for all pages of one viewer, at most once a second, and more
seldom where looking takes long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

LEAST_SECONDS = 1.0
# So long it rests for each second that it took: a fifth of one core, however many pages are open.
REST_FOR_EACH_SECOND = 4.0
FORGOTTEN_SECONDS = 60.0


@dataclass(slots=True)
class _Kept:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    value: Any = None
    until: float = 0.0
    used_at: float = 0.0


class Lately:
    """Keeps answers for a moment."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, _Kept] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[Any]], *, is_again: bool) -> Any:
        """Give an answer: a new one, or, to a page that is shown again, one of just now."""
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept is None:
            self._forget(now)
            kept = self._kept[key] = _Kept()
        kept.used_at = now
        if not is_again:
            return await self._ask(kept, ask)
        async with kept.turn:
            if time.monotonic() < kept.until:
                return kept.value
            return await self._ask(kept, ask)

    def clear(self) -> None:
        """Forget all: something was done here, and whoever did it is to see it."""
        for kept in self._kept.values():
            kept.until = 0.0

    @staticmethod
    async def _ask(kept: _Kept, ask: Callable[[], Awaitable[Any]]) -> Any:
        began = time.monotonic()
        kept.value = await ask()
        took = time.monotonic() - began
        kept.until = began + took + max(LEAST_SECONDS - took, REST_FOR_EACH_SECOND * took)
        return kept.value

    def _forget(self, now: float) -> None:
        for key in [key for key, kept in self._kept.items() if _is_old(kept, now)]:
            del self._kept[key]


def _is_old(kept: _Kept, now: float) -> bool:
    return kept.used_at < now - FORGOTTEN_SECONDS and not kept.turn.locked()
