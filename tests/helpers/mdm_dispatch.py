"""The function mdm-dispatch at work over a real database, without HTTP before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pgfleet_functions.database import make_pool
from pgfleet_functions.dispatching import Dispatchers
from pgfleet_functions.mdm.dispatch import dispatchers
from pgfleet_functions.outgoing.transport import Outgoing


@asynccontextmanager
async def dispatching(database: Any) -> AsyncIterator[Dispatchers]:
    """Work while the block lasts."""
    async with make_pool(database.url("fleet_worker")) as pool, aclosing(Outgoing()) as outgoing:
        found = Dispatchers(dispatchers(pool, outgoing, allow_private=True))
        async with found.running():
            yield found


def dispatch(database: Any, seconds: float) -> dict[str, int]:
    """Work until nothing is left or the time is over; tell how many ended in which way."""

    async def work() -> dict[str, int]:
        async with dispatching(database) as found:
            return await found.work(seconds) or {}

    return asyncio.run(work())
