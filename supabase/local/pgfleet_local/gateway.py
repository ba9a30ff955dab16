"""One address for the whole API, as a project has: REST, Realtime and the functions.

Run it with `python -m pgfleet_local.gateway`; it reads the settings from the environment.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings
from pgfleet_local.net import NetWorker
from pgfleet_local.realtime import Realtime, uvicorn_options
from pgfleet_local.rest import Rest
from pgfleet_local.sandboxes.simplemdm import create_sandbox
from pgfleet_local.settings import HOST, SettingsError, StackSettings
from pgfleet_local.tokens import TokenVerifier


def create_gateway(settings: StackSettings) -> Starlette:
    """Put the parts of the API behind the paths that the hosted gateway gives them."""
    keys = dict(settings.jwks) if settings.jwks else None
    verifier = TokenVerifier(settings.jwt_secret, keys)
    rest = Rest(settings.authenticator_url, verifier)
    realtime = Realtime(settings.admin_url, verifier)
    worker = NetWorker(settings.db_url, pace=settings.net_pace)
    functions = create_app(
        FunctionSettings(
            database_url=settings.worker_url,
            jwt_secret=settings.jwt_secret,
            service_role_key=settings.service_role_key,
            issuer=f"{settings.api_url}/auth/v1",
            # The sandboxes are on this machine.
            allow_private_addresses=True,
        ),
        listen=True,
    )
    sandbox = Mount("/sandbox/simplemdm", app=create_sandbox(settings.simplemdm_keys))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(rest.running())
            await parts.enter_async_context(realtime.running())
            await parts.enter_async_context(functions.router.lifespan_context(functions))
            await parts.enter_async_context(worker.running())
            yield

    return Starlette(
        routes=[
            Route("/health", _health),
            Mount("/rest/v1", routes=rest.routes),
            Mount("/realtime/v1", routes=realtime.routes),
            Mount("/functions/v1", app=functions),
            *([sandbox] if settings.sandboxes else []),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["Content-Range", "Content-Location", "Location"],
            )
        ],
        lifespan=lifespan,
    )


async def _health(_: Request) -> JSONResponse:
    return JSONResponse({"ok": True})


def main() -> None:
    """Serve until told to stop."""
    try:
        settings = StackSettings.from_environment()
    except SettingsError as error:
        sys.exit(f"Error: {error}")
    uvicorn.run(
        create_gateway(settings),
        host=HOST,
        port=settings.api_port,
        # Addresses carry keys: a WebSocket's in its query.
        access_log=False,
        # There is no proxy before it: whoever says so is a client that makes it up.
        proxy_headers=False,
        timeout_graceful_shutdown=3,
        **uvicorn_options(),
    )


if __name__ == "__main__":
    main()
