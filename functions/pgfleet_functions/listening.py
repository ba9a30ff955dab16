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
from typing import LiteralString

import psycopg
from psycopg import AsyncConnection, sql

from pgfleet_functions.beside import beside

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

    def wake(function: str | None) -> None:
        for name in functions if function is None else (function,):
            if (found := functions.get(name)) is not None:
                found()

    if url is None:
        yield
        return
    async with hearing(url, "pgfleet_poke", wake):
        yield


@asynccontextmanager
async def hearing(
    url: str,
    channel: LiteralString,
    heed: Callable[[str | None], None],
    *,
    check_seconds: float | None = None,
) -> AsyncIterator[None]:
    """Pass on what the database says on a channel while the block lasts.

    None is passed on where something may have been missed: whenever listening begins anew, and
    where nothing was said for so many seconds.
    """
    async with beside(_hear_for_ever(url, channel, heed, check_seconds or CHECK_SECONDS), "listen"):
        yield


async def _hear_for_ever(
    url: str, channel: LiteralString, heed: Callable[[str | None], None], check_seconds: float
) -> None:
    failures = 0
    while True:
        try:
            async for said in _heard(url, channel, check_seconds):
                failures = 0
                heed(said)
        except (psycopg.Error, OSError, TimeoutError) as error:
            # The pool tells more where the database is away; these words may hold an address.
            log.warning("the functions do not hear the database: %s", type(error).__name__)
        failures += 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(failures, 10), LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(pause * random.uniform(0.5, 1))


async def _heard(
    url: str, channel: LiteralString, check_seconds: float
) -> AsyncIterator[str | None]:
    """Give what the database says, and None each time that some may have been missed."""
    connection = await AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        application_name="functions listen",
        connect_timeout=CONNECT_SECONDS,
    )
    try:
        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        while True:
            yield None
            async for said in connection.notifies(timeout=check_seconds):
                yield said.payload
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.execute("select 1")
    finally:
        await connection.close()
