"""One address for the whole API, as a project has: Auth, REST, Realtime, Storage, functions.

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

from pgfleet.errors import InvalidInput
from pgfleet.output.logs import chosen_format, uvicorn_log_config
from pgfleet_functions import tracing
from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings
from pgfleet_functions.subject import add_subject
from pgfleet_local.auth import Auth
from pgfleet_local.auth.tokens import Signer
from pgfleet_local.net import NetWorker
from pgfleet_local.realtime import Realtime, uvicorn_options
from pgfleet_local.rest import Rest
from pgfleet_local.sandboxes import golioth, simplemdm
from pgfleet_local.settings import HOST, SettingsError, StackSettings
from pgfleet_local.storage import Storage
from pgfleet_local.tokens import TokenVerifier


def create_gateway(settings: StackSettings) -> Starlette:
    """Put the parts of the API behind the paths that the hosted gateway gives them."""
    keys = dict(settings.jwks) if settings.jwks else None
    verifier = TokenVerifier(settings.jwt_secret, keys)
    issuer = f"{settings.api_url}/auth/v1"
    auth = Auth(settings.admin_url, verifier, Signer(settings.jwt_secret, issuer))
    rest = Rest(settings.authenticator_url, verifier)
    realtime = Realtime(settings.admin_url, verifier)
    storage = Storage(
        settings.authenticator_url, settings.data_dir / "storage", verifier, settings.jwt_secret
    )
    worker = NetWorker(settings.db_url, pace=settings.net_pace)
    functions = create_app(
        FunctionSettings(
            database_url=settings.worker_url,
            jwt_secret=settings.jwt_secret,
            service_role_key=settings.service_role_key,
            issuer=issuer,
            # The sandboxes are on this machine.
            allow_private_addresses=True,
        ),
        listen=True,
    )
    sandboxes = [
        Mount("/sandbox/simplemdm", app=simplemdm.create_sandbox(settings.simplemdm_keys)),
        Mount("/sandbox/golioth", app=golioth.create_sandbox(settings.golioth_key)),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(rest.running())
            await parts.enter_async_context(realtime.running())
            await parts.enter_async_context(storage.running())
            await parts.enter_async_context(functions.router.lifespan_context(functions))
            await parts.enter_async_context(worker.running())
            yield

    return Starlette(
        routes=[
            Route("/health", _health),
            Mount("/auth/v1", routes=auth.routes),
            Mount("/rest/v1", routes=rest.routes),
            Mount("/realtime/v1", routes=realtime.routes),
            Mount("/storage/v1", routes=storage.routes),
            Mount("/functions/v1", app=functions),
            *(sandboxes if settings.sandboxes else []),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=[
                    "Content-Range",
                    "Content-Location",
                    "Location",
                    "Tus-Resumable",
                    "Upload-Length",
                    "Upload-Offset",
                ],
            )
        ],
        lifespan=lifespan,
    )


async def _health(_: Request) -> JSONResponse:
    return JSONResponse({"ok": True})


def main() -> None:
    """Serve until told to stop."""
    try:
        settings, chosen = StackSettings.from_environment(), chosen_format()
    except (SettingsError, InvalidInput) as error:
        sys.exit(f"Error: {error}")
    tracing.set_up("pgfleet-gateway")
    uvicorn.run(
        create_gateway(settings),
        host=HOST,
        port=settings.api_port,
        log_config=uvicorn_log_config(chosen, add_subject),
        # Addresses carry keys: a WebSocket's in its query.
        access_log=False,
        # There is no proxy before it: whoever says so is a client that makes it up.
        proxy_headers=False,
        timeout_graceful_shutdown=3,
        **uvicorn_options(),
    )


if __name__ == "__main__":
    main()
