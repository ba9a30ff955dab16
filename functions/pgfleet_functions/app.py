"""The HTTP functions as one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from pgfleet_functions.database import make_pool
from pgfleet_functions.devices.attempt_limit import AttemptLimit
from pgfleet_functions.devices.enrol import enroll_device
from pgfleet_functions.devices.signing import TokenSigner
from pgfleet_functions.devices.token import device_token
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.health import health
from pgfleet_functions.http import function_error, http_error, unexpected_error
from pgfleet_functions.insight.calendar_feed import calendar_feed
from pgfleet_functions.integrations.webhook import integration_webhook
from pgfleet_functions.mdm.dispatch import MdmDispatcher, mdm_dispatch
from pgfleet_functions.notify.dispatch import Dispatcher, notify_dispatch
from pgfleet_functions.pokes import poked_route
from pgfleet_functions.polling import looking_every
from pgfleet_functions.settings import FunctionSettings
from pgfleet_functions.task_api.routes import schedule_api_routes
from pgfleet_functions.task_api.user_tokens import UserTokens

# One line a function; poked ones are made by `pokes.poked_route`.
ROUTES: tuple[BaseRoute, ...] = (
    Route("/enroll-device", enroll_device, methods=["POST"]),
    Route("/device-token", device_token, methods=["POST"]),
    Route("/health", health, methods=["GET"]),
    poked_route("notify-dispatch", notify_dispatch),
    poked_route("mdm-dispatch", mdm_dispatch),
    Route("/calendar-feed/{token}.ics", calendar_feed, methods=["GET"]),
    Route("/integration-webhook/{token}", integration_webhook, methods=["POST"]),
    *schedule_api_routes(),
)


def create_app(
    settings: FunctionSettings,
    routes: Sequence[BaseRoute] = ROUTES,
    poll_seconds: float | None = None,
) -> Starlette:
    """Return the app; it is mounted at /functions/v1 or served alone.

    Handlers find `pool`, `signer`, `user_tokens`, `attempt_limit`, `dispatcher` and
    `mdm_dispatcher` in `request.app.state`. With `poll_seconds` the app looks for work by itself, where no database
    pokes it. Raises `SettingsError` for a signing key that cannot be used.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        pool = make_pool(settings.database_url)
        # Not waited for: the functions come up before the database does, and answer 503.
        await pool.open(wait=False)
        app.state.pool = pool
        jobs = {
            "notify-dispatch": lambda: app.state.dispatcher.run(pool),
            "mdm-dispatch": lambda: app.state.mdm_dispatcher.run(pool),
        }
        try:
            async with looking_every(poll_seconds, jobs):
                yield
        finally:
            await pool.close()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=_behind(settings.trusted_proxies),
        exception_handlers={
            FunctionError: function_error,
            HTTPException: http_error,
            Exception: unexpected_error,
        },
    )
    app.state.signer = TokenSigner(settings)
    app.state.user_tokens = UserTokens(settings, app.state.signer.key)
    app.state.dispatcher = Dispatcher(settings.mail_server)
    app.state.mdm_dispatcher = MdmDispatcher(allow_private=settings.allow_private_addresses)
    app.state.attempt_limit = AttemptLimit()
    return app


def _behind(proxies: Sequence[str]) -> list[Middleware]:
    """Take the address of a caller from X-Forwarded-For where one of these proxies says it."""
    return [Middleware(ProxyHeadersMiddleware, trusted_hosts=list(proxies))] if proxies else []
