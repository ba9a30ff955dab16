"""Hearing from the database at once that there is work, while the functions are up.

pg_net's pokes find functions that sleep, but pg_net sends in batches and waits for the slowest
answer of each. So functions that stay up also listen on a connection of their own, directly or
through the session pooler; behind a pooler of transactions nothing is heard, and the pokes have
to do.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10
# After so long it is looked whether the connection is still there, and for work too.
CHECK_SECONDS = 30.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0

Wake = Callable[[], None]


@asynccontextmanager
async def listening(url: str | None, functions: Mapping[str, Wake]) -> AsyncIterator[None]:
    """Wake each function that the database names, while the block lasts; None listens to nothing.

    All are woken whenever listening begins anew: what was said meanwhile is lost.
    """
    if url is None:
        yield
        return
    task = asyncio.create_task(_listen_for_ever(url, functions), name="listen")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listen_for_ever(url: str, functions: Mapping[str, Wake]) -> None:
    failures = 0
    while True:
        try:
            async for function in _heard(url):
                failures = 0
                for name in functions if function is None else (function,):
                    if (wake := functions.get(name)) is not None:
                        wake()
        except (psycopg.Error, OSError, TimeoutError) as error:
            # The pool tells more where the database is away; these words may hold an address.
            log.warning("the functions do not hear the database: %s", type(error).__name__)
        failures += 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(failures, 10), LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(pause * random.uniform(0.5, 1))


async def _heard(url: str) -> AsyncIterator[str | None]:
    """Give the names that the database says, and None each time that some may have been missed."""
    connection = await AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        application_name="functions listen",
        connect_timeout=CONNECT_SECONDS,
    )
    try:
        await connection.execute("listen pgfleet_poke")
        while True:
            yield None
            async for said in connection.notifies(timeout=CHECK_SECONDS):
                yield said.payload
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.execute("select 1")
    finally:
        await connection.close()
