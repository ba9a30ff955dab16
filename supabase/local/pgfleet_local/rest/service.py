"""Serve the routes: who asks, in which transaction, and what comes back."""

from __future__ import annotations

import asyncio
import json
import logging
import select
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
SET = b"set_config(%%(n%d)s, %%(s%d)s, true)"
# What a statement wants the answer to carry.
WISHES = (
    b"select nullif(current_setting('response.headers', true), ''),"
    b" nullif(current_setting('response.status', true), '')"
)
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
        self._search_paths = {
            schema: _search_path((schema, *extra_search_path)) for schema in schemas
        }
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
            check=_check,
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
            try:
                outcome = await self._execute(connection, request, caller, schema, plan, prefer)
                response = plan.respond(outcome)
            except BaseException:
                await connection.rollback()
                raise
            await connection.commit()
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

    async def _execute(
        self,
        connection: AsyncConnection[Any],
        request: Request,
        caller: Caller,
        schema: str,
        plan: Plan,
        prefer: Preferences,
    ) -> Outcome:
        """Run the statement in a transaction of the caller's, as PostgREST does.

        All of it goes to the server at once: what a request costs here is mostly the waiting for
        answers, each by itself. The transaction stays open.
        """
        statement = plan.statement
        if statement is None:
            return Outcome(None, 0, "[]", {}, None)
        settings = self._settings(request, caller, schema, plan, prefer)
        query = b";".join(
            (
                b"begin read only" if plan.read_only else b"begin",
                b"select " + b", ".join(SET % (n, n) for n in range(len(settings))),
                statement.text.as_bytes(connection),
                WISHES,
            )
        )
        given = dict(statement.values.parameters)
        for number, setting in enumerate(settings):
            given[f"n{number}"], given[f"s{number}"] = setting.name, setting.value
        # Of statements that go together none may have parameters apart from its text.
        cursor = AsyncClientCursor(connection)
        await cursor.execute(query, given)
        cursor.nextset()
        cursor.nextset()
        row = await cursor.fetchone()
        cursor.nextset()
        wishes = await cursor.fetchone()
        assert row is not None and wishes is not None
        total, rows, body, location = row
        if statement.estimate is not None:
            total = await _estimated(connection, statement, statement.estimate, total)
        headers = {
            name: value for entry in json.loads(wishes[0] or "[]") for name, value in entry.items()
        }
        status = int(wishes[1]) if wishes[1] else None
        return Outcome(total, rows, body, headers, status, location)

    def _settings(
        self, request: Request, caller: Caller, schema: str, plan: Plan, prefer: Preferences
    ) -> list[Setting]:
        """Say what the transaction is to know of its caller."""
        assert self._catalogue is not None
        return [
            Setting("search_path", self._search_paths[schema]),
            *(Setting(*one) for one in self._catalogue.role_settings.get(caller.role, {}).items()),
            Setting("role", caller.role),
            Setting("request.jwt.claims", errors.plain(caller.claims)),
            Setting("request.method", request.method),
            Setting("request.path", _path_of(request)),
            Setting("request.headers", errors.plain(dict(request.headers))),
            Setting("request.cookies", errors.plain(dict(request.cookies))),
            *([Setting("timezone", prefer.timezone)] if prefer.timezone else []),
            *(Setting(*one) for one in plan.settings.items()),
        ]


async def _check(connection: AsyncConnection[Any]) -> None:
    """Let the pool replace a connection whose server has gone, without asking one that is quiet.

    A server that ends a session says so, which is there to be read.
    """
    readable = select.poll()
    readable.register(connection.fileno(), select.POLLIN)
    if readable.poll(0):
        await AsyncConnectionPool.check_connection(connection)


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


def _search_path(names: tuple[str, ...]) -> str:
    return sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys(names))).as_string()


def _path_of(request: Request) -> str:
    """Return the path below the mount."""
    path, root = request.url.path, str(request.scope.get("root_path", ""))
    return path.removeprefix(root) or "/"
