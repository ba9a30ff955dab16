"""Serve the routes: who asks, in which transaction, and what comes back."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.background import Backoff, keep_running
from pgfleet_local.rest import errors
from pgfleet_local.rest.callers import Caller, authenticate
from pgfleet_local.rest.calls import plan_call
from pgfleet_local.rest.catalogue import Catalogue, load
from pgfleet_local.rest.errors import RestError
from pgfleet_local.rest.plans import Outcome, Plan
from pgfleet_local.rest.preferences import Preferences, read_preferences
from pgfleet_local.rest.statements import Estimate, Statement
from pgfleet_local.rest.tables import plan_table
from pgfleet_local.tokens import TokenVerifier

log = logging.getLogger(__name__)

METHODS = ["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"]
POOL_SIZE = 10
ACQUIRE_SECONDS = 10.0
ACQUIRE_SECONDS_WHILE_DOWN = 1.0
UNKNOWN_NAMES = ("PGRST202", "PGRST204", "PGRST205")


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter that holds for one transaction."""

    name: str
    value: str


class Rest:
    """Answer what PostgREST would answer for the exposed schemas."""

    def __init__(
        self,
        authenticator_url: str,
        verifier: TokenVerifier,
        schemas: tuple[str, ...] = ("public",),
        *,
        extra_search_path: tuple[str, ...] = ("public", "extensions"),
        max_rows: int = 1000,
    ) -> None:
        self._url = authenticator_url
        self._verifier = verifier
        self._schemas = schemas
        self._extra_search_path = extra_search_path
        self._max_rows = max_rows
        self._catalogue: Catalogue | None = None
        self._listening = False
        self._loading = asyncio.Lock()
        self._loaded_at = 0.0
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] | None = None

    @property
    def routes(self) -> list[BaseRoute]:
        """Return the routes, relative to `/rest/v1`."""
        return [
            Route("/rpc/{function}", self._answer, methods=METHODS),
            Route("/{relation}", self._answer, methods=METHODS),
            Route("/{path:path}", self._answer, methods=METHODS),
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the pool and the schema cache alive; a database that is down is waited for."""
        self._pool = AsyncConnectionPool(
            self._url,
            min_size=1,
            max_size=POOL_SIZE,
            open=False,
            # Plans made before a migration must not outlive it.
            kwargs={"autocommit": True, "prepare_threshold": None, "application_name": "rest"},
            check=AsyncConnectionPool.check_connection,
            # Short, so that the pool asks anew at each request instead of backing off for minutes.
            reconnect_timeout=2.0,
        )
        await self._pool.open(wait=False)
        reader = asyncio.create_task(keep_running("following the schema", self._follow_schema))
        try:
            yield
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            await self._pool.close()

    async def _follow_schema(self) -> None:
        """Load the schema cache, and again whenever `pgrst` is notified."""
        backoff = Backoff(longest=2.0)
        while True:
            try:
                listener = await AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=5, application_name="rest-schema"
                )
                async with listener:
                    await listener.execute("listen pgrst")
                    self._listening = True
                    backoff.reset()
                    await self._reload()
                    # The listener cannot run a query of its own while it listens.
                    async for notify in listener.notifies():
                        if notify.payload in ("", "reload schema", "reload config"):
                            await self._reload()
            except (psycopg.Error, RestError) as error:
                log.warning("lost the schema listener: %s", error)
            finally:
                self._listening = False
            await asyncio.sleep(backoff.pause())

    async def _reload(self) -> None:
        async with self._connection() as connection:
            await self._load(connection)

    async def _load(self, connection: AsyncConnection[Any]) -> None:
        """Read the catalogue, unless somebody began to after we asked."""
        asked_at = asyncio.get_running_loop().time()
        async with self._loading:
            if self._loaded_at < asked_at:
                self._loaded_at = asyncio.get_running_loop().time()
                self._catalogue = await load(connection, self._schemas)

    async def _answer(self, request: Request) -> Response:
        anonymous = True
        try:
            caller = authenticate(request, self._verifier)
            anonymous = caller.is_anonymous
            return await self._serve(request, caller)
        except RestError as error:
            return error.response()
        except psycopg.Error as error:
            return errors.from_database(error, anonymous=anonymous).response()

    async def _serve(self, request: Request, caller: Caller) -> Response:
        schema = self._schema(request)
        body = await request.body()
        async with self._connection() as connection:
            prefer = read_preferences(request, await self._time_zones(request, connection))
            plan = await self._plan(request, prefer, schema, body, connection)
            await connection.set_read_only(plan.read_only)
            async with connection.transaction():
                await self._prepare(connection, request, caller, schema, plan, prefer)
                outcome = await _execute(connection, plan)
                response = plan.respond(outcome)
        return response

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Borrow a connection; wait for one only as long as there is hope."""
        if self._pool is None:
            raise errors.unavailable("PGRST000", "The connection pool is not open.")
        timeout = ACQUIRE_SECONDS if self._listening else ACQUIRE_SECONDS_WHILE_DOWN
        try:
            connection = await self._pool.getconn(timeout=timeout)
        except psycopg.OperationalError as error:
            if self._listening:
                raise
            raise errors.unavailable(
                "PGRST002", "Could not query the database for the schema cache. Retrying.", error
            ) from error
        try:
            yield connection
        finally:
            await self._pool.putconn(connection)

    async def _time_zones(
        self, request: Request, connection: AsyncConnection[Any]
    ) -> frozenset[str]:
        """Return the zones that a preference may name; looked up only when one does."""
        if not any("timezone=" in one for one in request.headers.getlist("prefer")):
            return frozenset()
        cursor = await connection.execute("select name from pg_timezone_names")
        return frozenset(str(row[0]) for row in await cursor.fetchall())

    async def _plan(
        self,
        request: Request,
        prefer: Preferences,
        schema: str,
        body: bytes,
        connection: AsyncConnection[Any],
    ) -> Plan:
        """Plan the request; a name that is unknown may only be new, so look once more."""
        if self._catalogue is None:
            await self._load(connection)
        try:
            return self._planned(request, prefer, schema, body)
        except RestError as error:
            if error.code not in UNKNOWN_NAMES:
                raise
        await self._load(connection)
        return self._planned(request, prefer, schema, body)

    def _planned(self, request: Request, prefer: Preferences, schema: str, body: bytes) -> Plan:
        assert self._catalogue is not None
        asked = (request, prefer, self._catalogue, schema, body, self._max_rows)
        if "function" in request.path_params:
            return plan_call(*asked)
        if "relation" in request.path_params:
            return plan_table(*asked)
        if not request.path_params["path"].strip("/"):
            raise RestError(404, "PGRST126", "Root endpoint metadata is disabled")
        raise RestError(404, "PGRST125", "Invalid path specified in request URL")

    def _schema(self, request: Request) -> str:
        reading = request.method in ("GET", "HEAD")
        header = "accept-profile" if reading else "content-profile"
        schema = request.headers.get(header, self._schemas[0])
        if schema not in self._schemas:
            exposed = ", ".join(self._schemas)
            raise RestError(
                406,
                "PGRST106",
                f"Invalid schema: {schema}",
                hint=f"Only the following schemas are exposed: {exposed}",
            )
        return schema

    async def _prepare(
        self,
        connection: AsyncConnection[Any],
        request: Request,
        caller: Caller,
        schema: str,
        plan: Plan,
        prefer: Preferences,
    ) -> None:
        """Make the transaction the caller's, as PostgREST does before its statement."""
        assert self._catalogue is not None
        path = list(dict.fromkeys((schema, *self._extra_search_path)))
        search_path = sql.SQL(", ").join(sql.Identifier(name) for name in path)
        own = self._catalogue.role_settings.get(caller.role, {})
        settings = [
            Setting("search_path", search_path.as_string(connection)),
            *(Setting(name, value) for name, value in own.items()),
            Setting("role", caller.role),
            Setting("request.jwt.claims", errors.plain(caller.claims)),
            Setting("request.method", request.method),
            Setting("request.path", _path_of(request)),
            Setting("request.headers", errors.plain(dict(request.headers))),
            Setting("request.cookies", errors.plain(dict(request.cookies))),
            *([Setting("timezone", prefer.timezone)] if prefer.timezone else []),
            *(Setting(name, value) for name, value in plan.settings.items()),
        ]
        calls = sql.SQL(", ").join(sql.SQL("set_config(%s, %s, true)") for _ in settings)
        values = [part for setting in settings for part in (setting.name, setting.value)]
        await connection.execute(sql.SQL("select {}").format(calls), values)


async def _execute(connection: AsyncConnection[Any], plan: Plan) -> Outcome:
    """Run the statement, and read what it wants the answer to carry."""
    statement = plan.statement
    if statement is None:
        return Outcome(None, 0, "[]", {}, None)
    cursor = await connection.execute(sql.Composed([statement.text]), statement.values.parameters)
    row = await cursor.fetchone()
    assert row is not None
    cursor = await connection.execute(
        "select nullif(current_setting('response.headers', true), ''),"
        " nullif(current_setting('response.status', true), '')"
    )
    wanted = await cursor.fetchone()
    assert wanted is not None
    headers = {
        name: value for entry in json.loads(wanted[0] or "[]") for name, value in entry.items()
    }
    total, rows, body, location = row
    if statement.estimate is not None:
        total = await _estimated(connection, statement, statement.estimate, total)
    status = int(wanted[1]) if wanted[1] else None
    return Outcome(total, rows, body, headers, status, location)


async def _estimated(
    connection: AsyncConnection[Any], statement: Statement, estimate: Estimate, counted: int | None
) -> int:
    """Return what the planner expects, unless the rows could be counted to the end."""
    if counted is not None and estimate.above is not None and counted <= estimate.above:
        return counted
    # A statement that is explained takes no parameters from outside.
    cursor = AsyncClientCursor(connection)
    query = sql.SQL("explain (format json) {}").format(estimate.query)
    await cursor.execute(query, statement.values.parameters)
    row = await cursor.fetchone()
    assert row is not None
    planned = int(row[0][0]["Plan"]["Plan Rows"])
    return max(planned, counted or 0)


def _path_of(request: Request) -> str:
    """Return the path below the mount."""
    path, root = request.url.path, str(request.scope.get("root_path", ""))
    return path.removeprefix(root) or "/"
