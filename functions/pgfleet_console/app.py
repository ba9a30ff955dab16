"""The console as one ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pgfleet.errors import FleetError, NotFound
from pgfleet_console.database import Pool, claims_of, make_pool
from pgfleet_console.doors.door import Door, csrf_of
from pgfleet_console.doors.link import LinkDoor
from pgfleet_console.doors.tokens import TokenDoor
from pgfleet_console.guard import Guard
from pgfleet_console.page import Page
from pgfleet_console.serving import Serving
from pgfleet_console.settings import Accounts, ConsoleSettings
from pgfleet_console.shown import STATIC, asset, make_environment
from pgfleet_console.table import PAGES
from pgfleet_console.viewers import OPERATOR, Viewer
from pgfleet_functions.outgoing.transport import Outgoing

MEDIA = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}
FOR_EVER = "public, max-age=31536000, immutable"


async def find_viewer(settings: ConsoleSettings) -> Viewer:
    """Find out who looks on a laptop, and whether the database is there."""
    pool = make_pool(settings.database_url, size=1)
    try:
        await pool.open(wait=False)
        whom = settings.acting_as
        if whom is None:
            return OPERATOR
        return Viewer(name=whom, claims=await claims_of(pool, whom))
    finally:
        await pool.close()


def create_local(
    settings: ConsoleSettings, viewer: Viewer, port: int
) -> tuple[Starlette, LinkDoor]:
    """Return the app of one person on this machine, and the door that makes the links."""
    pool = make_pool(settings.database_url)
    door = LinkDoor(viewer, port)
    return _app(settings, pool, door, PAGES), door


def create_service(settings: ConsoleSettings) -> Starlette:
    """Return the app of all who have a token of the project."""
    environment = make_environment()
    outgoing = Outgoing()

    def sign_in_page(session: str, onward: str, error: FleetError | None) -> Response:
        values = {"csrf": csrf_of(session), "next": onward, "error": error, "theme": ""}
        html = environment.get_template("sign_in.html").render(values)
        return HTMLResponse(html, status_code=error.status_code if error else 200)

    accounts = settings.accounts or Accounts()
    door = TokenDoor(accounts, outgoing, secure=settings.secure, page=sign_in_page)
    return _app(settings, make_pool(settings.database_url), door, PAGES, outgoing)


def _app(
    settings: ConsoleSettings,
    pool: Pool,
    door: Door,
    pages: Sequence[Page],
    outgoing: Outgoing | None = None,
) -> Starlette:
    serving = Serving(pool, door, make_environment(), pages, settings.tiles)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as parts:
            await pool.open(wait=False)
            parts.push_async_callback(pool.close)
            if outgoing is not None:
                parts.push_async_callback(outgoing.aclose)
            await parts.enter_async_context(serving.hub.running(settings.database_url))
            yield

    async def look_on(request: Request) -> Response:
        at = request.query_params.get("at", "/")
        viewer = await door.who(request)
        if viewer is None:
            return PlainTextResponse("Sign in first.", status_code=401)
        if not serving.is_live(at):
            raise HTTPException(404)
        return StreamingResponse(serving.hub.look_on(viewer, at), media_type="text/event-stream")

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, FleetError)
        try:
            viewer = await door.who(request)
        except FleetError:
            viewer = None
        return serving.refused(request, viewer, error)

    async def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        gone = NotFound("there is no such page", hint="Begin at the first page, or search.")
        gone.status_code = error.status_code
        return await refuse(request, gone)

    async def fault(request: Request, _: Exception) -> Response:
        broken = FleetError("the console failed", hint="Its log tells more; try it again.")
        return serving.refused(request, None, broken)

    app = Starlette(
        routes=[
            Route("/static/{digest}/{name}", _static, methods=["GET"]),
            Route("/live", look_on, methods=["GET"]),
            Route("/health", _health, methods=["GET"]),
            *door.routes,
            *serving.routes,
        ],
        lifespan=lifespan,
        middleware=[
            Middleware(
                Guard,
                hosts=settings.hosts,
                image_sources=(settings.tiles.source,) if settings.tiles else (),
            )
        ],
        exception_handlers={FleetError: refuse, HTTPException: missing, Exception: fault},
    )
    app.state.hub = serving.hub
    return app


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    file = STATIC / name
    if "/" in name or name.startswith(".") or not file.is_file():
        raise HTTPException(404)
    media = MEDIA.get(name.rpartition(".")[2], "application/octet-stream")
    body = await asyncio.to_thread(file.read_bytes)
    # An address of another time may not be kept for this file.
    kept = FOR_EVER if request.url.path == asset(name) else "no-store"
    return Response(body, media_type=media, headers={"Cache-Control": kept})


async def _health(_: Request) -> Response:
    return PlainTextResponse("ok")
