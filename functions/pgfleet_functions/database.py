"""The functions' way into the database: a few connections of the role fleet_worker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from pgfleet_functions.errors import FunctionError, translate_errors

Pool = AsyncConnectionPool[AsyncConnection[Any]]
ACQUIRE_SECONDS = 3.0
FINISH_TRIES = 3
FINISH_PAUSE_SECONDS = 0.5


def make_pool(url: str) -> Pool:
    """Return a pool that is not open yet; it finds its way back after a restart of Postgres."""
    return AsyncConnectionPool(
        url,
        min_size=1,
        max_size=8,
        open=False,
        timeout=ACQUIRE_SECONDS,
        # Poolers between us and Postgres may not keep prepared statements.
        kwargs={"autocommit": True, "prepare_threshold": None, "application_name": "functions"},
        check=AsyncConnectionPool.check_connection,
        # Short, so that each request makes the pool try again instead of backing off for minutes.
        reconnect_timeout=2.0,
    )


async def fetch_value(pool: Pool, query: LiteralString, *parameters: Any) -> Any:
    """Run a statement in a transaction of its own and return its one value."""
    with translate_errors():
        async with pool.connection() as connection:
            row = await (await connection.execute(query, parameters)).fetchone()
    return row[0] if row else None


async def finish(pool: Pool, query: LiteralString, *parameters: Any) -> Any:
    """Write an end down; a database that is away for a moment must not make it happen twice."""
    for left in reversed(range(FINISH_TRIES)):
        try:
            return await fetch_value(pool, query, *parameters)
        except FunctionError:
            if not left:
                raise
            await asyncio.sleep(FINISH_PAUSE_SECONDS)
    raise AssertionError("the last try either returns or raises")


def storable(value: Any) -> Any:
    """Give a value as the database can keep it; what it cannot is left out of it."""
    if isinstance(value, str):
        # No zero bytes, and no halves of characters.
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, Mapping):
        return {str(storable(str(name))): storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [storable(one) for one in value]
    return value
