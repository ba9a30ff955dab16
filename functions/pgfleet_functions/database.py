"""The functions' way into the database: a few connections of the role fleet_worker."""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from pgfleet_functions.errors import translate_errors

Pool = AsyncConnectionPool[AsyncConnection[Any]]
ACQUIRE_SECONDS = 3.0


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
