"""Reach Postgres: a few pooled connections to ask questions, and single ones to read changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

# Text output of values is what listeners get, so the session must not depend on the server's.
SESSION_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        "timezone=UTC",
        "datestyle=ISO",
        "intervalstyle=postgres",
        "bytea_output=hex",
        "extra_float_digits=1",
        "synchronous_commit=on",
        "statement_timeout=0",
        "idle_in_transaction_session_timeout=0",
    )
)

Connection = psycopg.AsyncConnection[tuple[object, ...]]
Unreachable = (psycopg.OperationalError, PoolTimeout, OSError)


class Database:
    """Connections of the role that owns the platform's side; row security does not bind it."""

    def __init__(self, admin_url: str, timeout: float) -> None:
        self._url = admin_url
        self._timeout = timeout
        self._pool: AsyncConnectionPool[Connection] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the pool open; it connects in the background and survives a missing server."""
        pool = AsyncConnectionPool[Connection](
            self._url,
            connection_class=psycopg.AsyncConnection,
            min_size=1,
            max_size=4,
            timeout=self._timeout,
            open=False,
            check=AsyncConnectionPool.check_connection,
            # Short, so that a request makes the pool try again instead of backing off for minutes.
            reconnect_timeout=2.0,
            name="pgfleet-realtime",
            kwargs={
                "autocommit": True,
                # A plan may not outlive the table that it was made for.
                "prepare_threshold": None,
                "options": SESSION_OPTIONS,
                "application_name": "pgfleet realtime",
            },
        )
        await pool.open(wait=False)
        self._pool = pool
        try:
            yield
        finally:
            self._pool = None
            await pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection from the pool."""
        if self._pool is None:
            raise psycopg.OperationalError("the realtime server is not running")
        async with self._pool.connection() as connection:
            yield connection

    async def connect(self, name: str) -> Connection:
        """Open a connection of its own, in autocommit."""
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            prepare_threshold=None,
            options=SESSION_OPTIONS,
            application_name=name,
            connect_timeout=5,
        )
