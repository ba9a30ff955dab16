"""Owners take turns at what keeps a connection of the database busy for a while."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pgfleet_functions.errors import TooMany, Unavailable


class Turns:
    """Let so many go on at once, few of one owner, and no crowd of one owner wait.

    The connections that are left are for devices, which cannot wait for somebody's calendar.
    """

    def __init__(self, total: int = 3, each: int = 1, crowd: int = 8, patience: float = 15) -> None:
        self._total = total
        self._each = each
        self._crowd = crowd
        self._patience = patience
        self._held: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for the owner's turn. Raises TooMany or Unavailable where that takes too long."""
        if self._waiting[owner] >= self._crowd:
            raise TooMany(
                "too many readers of one owner's calendars at once",
                details="feeds_overload",
                hint="Read it again in a minute.",
                headers={"Retry-After": "60"},
            )
        self._waiting[owner] += 1
        try:
            async with asyncio.timeout(self._patience), self._changed:
                await self._changed.wait_for(lambda: self._is_free_for(owner))
                self._held[owner] += 1
        except TimeoutError as error:
            raise Unavailable(
                "this calendar's turn did not come in time",
                details="feeds_overload",
                hint="Read it again in a minute.",
                headers={"Retry-After": "60"},
            ) from error
        finally:
            self._waiting[owner] -= 1
            self._waiting += Counter()
        try:
            yield
        finally:
            self._held[owner] -= 1
            self._held += Counter()
            async with self._changed:
                self._changed.notify_all()

    def _is_free_for(self, owner: str) -> bool:
        return self._held[owner] < self._each and self._held.total() < self._total
