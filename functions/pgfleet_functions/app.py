"""The HTTP functions as one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from pgfleet_functions.calendars.dispatch import dispatchers as calendar_dispatchers
from pgfleet_functions.database import Pool, make_pool
from pgfleet_functions.devices.attempt_limit import AttemptLimit
from pgfleet_functions.devices.enrol import enroll_device
from pgfleet_functions.devices.signing import TokenSigner
from pgfleet_functions.devices.token import device_token
from pgfleet_functions.dispatching import Dispatchers
from pgfleet_functions.ended_runs import telling_runs
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.golioth.dispatch import call_syncs, calling_syncs
from pgfleet_functions.golioth.dispatch import dispatchers as golioth_dispatchers
from pgfleet_functions.golioth.receiving import Receiving
from pgfleet_functions.golioth.webhook import integration_webhook
from pgfleet_functions.health import health
from pgfleet_functions.http import function_error, http_error, unexpected_error
from pgfleet_functions.insight.calendar_feed import calendar_feed
from pgfleet_functions.insight.turns import Turns
from pgfleet_functions.listening import listening
from pgfleet_functions.mdm.dispatch import dispatchers as mdm_dispatchers
from pgfleet_functions.metrics import metrics
from pgfleet_functions.notify.dispatch import EMAILS
from pgfleet_functions.notify.dispatch import dispatchers as notify_dispatchers
from pgfleet_functions.outgoing.transport import Outgoing
from pgfleet_functions.pokes import poked_route, waking_route
from pgfleet_functions.polling import looking_every
from pgfleet_functions.settings import FunctionSettings
from pgfleet_functions.task_api.routes import schedule_api_routes
from pgfleet_functions.task_api.user_tokens import UserTokens
from pgfleet_functions.telemetry import Telemetry

# One line a function; what is poked to look for work is in `_dispatchers` too.
ROUTES: tuple[BaseRoute, ...] = (
    Route("/enroll-device", enroll_device, methods=["POST"]),
    Route("/device-token", device_token, methods=["POST"]),
    Route("/health", health, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    waking_route("notify-dispatch"),
    waking_route("mdm-dispatch"),
    waking_route("calendar-dispatch"),
    Route("/calendar-feed/{token}.ics", calendar_feed, methods=["GET"]),
    poked_route("auto-sync-cron", call_syncs),
    waking_route("golioth-pull"),
    waking_route("golioth-inbox"),
    Route("/integration-webhook", integration_webhook, methods=["POST"]),
    Route("/integration-webhook/{token}", integration_webhook, methods=["POST"]),
    *schedule_api_routes(),
)


def create_app(
    settings: FunctionSettings,
    routes: Sequence[BaseRoute] = ROUTES,
    poll_seconds: float | None = None,
    *,
    listen: bool = False,
) -> Starlette:
    """Return the app; it is mounted at /functions/v1 or served alone.

    Handlers find `pool`, `read_pool`, `signer`, `user_tokens`, `attempt_limit`, `feed_turns`,
    `outgoing`, `receiving` and `functions` in `request.app.state`. With `listen` it hears from the
    database at once that there is work, and with `poll_seconds` it looks for work by itself. Raises
    `SettingsError` for a signing key that cannot be used.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        pool = make_pool(settings.database_url)
        async with AsyncExitStack() as parts:
            # Not waited for: the functions come up before the database does, and answer 503.
            await pool.open(wait=False)
            parts.push_async_callback(pool.close)
            outgoing = Outgoing()
            parts.push_async_callback(outgoing.aclose)
            mail_threads = ThreadPoolExecutor(EMAILS.total, "mail")
            parts.callback(mail_threads.shutdown, wait=False)
            telemetry = Telemetry(pool, await _own_pool(settings.telemetry_url, parts))
            functions = _dispatchers(settings, pool, outgoing, mail_threads, telemetry)
            receiving = Receiving(pool, functions["golioth-inbox"].wake)
            await parts.enter_async_context(receiving.running())
            app.state.receiving = receiving
            app.state.pool, app.state.outgoing = pool, outgoing
            app.state.read_pool = await _own_pool(settings.read_database_url, parts) or pool
            app.state.functions = functions
            for dispatchers in functions.values():
                await parts.enter_async_context(dispatchers.running())
            wakes = {name: dispatchers.wake for name, dispatchers in functions.items()}
            await parts.enter_async_context(looking_every(poll_seconds, wakes.values()))
            if poll_seconds is not None:
                # Nobody else comes by to say what is due.
                await parts.enter_async_context(calling_syncs(pool, wakes["golioth-pull"]))
            await parts.enter_async_context(telling_runs(pool))
            heard = settings.database_url if listen else None
            await parts.enter_async_context(listening(heard, wakes))
            yield

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
    app.state.user_tokens = UserTokens(settings.jwt_secret, settings.jwks_url, app.state.signer.key)
    app.state.attempt_limit = AttemptLimit()
    app.state.feed_turns = Turns()
    app.state.metrics_token = settings.metrics_token
    return app


async def _own_pool(url: str | None, parts: AsyncExitStack) -> Pool | None:
    """Open the way to another database than the core, where there is one."""
    if url is None:
        return None
    pool = make_pool(url)
    await pool.open(wait=False)
    parts.push_async_callback(pool.close)
    return pool


def _dispatchers(
    settings: FunctionSettings,
    pool: Pool,
    outgoing: Outgoing,
    mail_threads: ThreadPoolExecutor,
    telemetry: Telemetry,
) -> dict[str, Dispatchers]:
    """Return what each function does when it is told that there is work."""
    messages = notify_dispatchers(pool, outgoing, settings.mail_server, mail_threads)
    allow_private = settings.allow_private_addresses
    orders = mdm_dispatchers(pool, outgoing, allow_private=allow_private)
    return {
        "notify-dispatch": Dispatchers(messages),
        "mdm-dispatch": Dispatchers(orders),
        "calendar-dispatch": Dispatchers(calendar_dispatchers(pool, outgoing)),
        **golioth_dispatchers(pool, outgoing, telemetry, allow_private=allow_private),
    }


def _behind(proxies: Sequence[str]) -> list[Middleware]:
    """Take the address of a caller from X-Forwarded-For where one of these proxies says it."""
    return [Middleware(ProxyHeadersMiddleware, trusted_hosts=list(proxies))] if proxies else []
