"""Routes that only the database may call: it says that there is work, and signs that it does.

A poke is answered at once, and worked after: pg_net waits for the slowest answer of each batch,
so whoever held one open would hold up all others. By hand, `Prefer: wait=<seconds>` waits for the
work to be done.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pgfleet_functions.database import fetch_value
from pgfleet_functions.dispatching import Dispatchers
from pgfleet_functions.errors import NotSignedIn
from pgfleet_functions.http import parse_object, read_text
from pgfleet_functions.tracing import span

LONGEST_WAIT_SECONDS = 60

PokeHandler = Callable[[Request, dict[str, Any]], Awaitable[Response]]


def poked_route(function: str, handler: PokeHandler) -> Route:
    """Return `POST /<function>`, which verifies the poke and hands its body to the handler."""

    async def endpoint(request: Request) -> Response:
        text = await read_text(request)
        await verify_poke(request, function, text)
        with span(f"poke {function}"):
            return await handler(request, parse_object(text))

    return Route(f"/{function}", endpoint, methods=["POST"])


def waking_route(function: str) -> Route:
    """Return `POST /<function>`, which looks for work: 202 at once, or 200 with what was done.

    What it wakes is `request.app.state.functions[function]`.
    """

    async def wake(request: Request, _: dict[str, Any]) -> Response:
        dispatchers: Dispatchers = request.app.state.functions[function]
        seconds = seconds_to_wait(request)
        if seconds is None:
            dispatchers.wake()
        elif (counts := await dispatchers.work(seconds)) is not None:
            return JSONResponse(counts, headers={"Preference-Applied": "wait"})
        return JSONResponse({"accepted": True}, status_code=202)

    return poked_route(function, wake)


def seconds_to_wait(request: Request) -> int | None:
    """Read how long the caller prefers to wait (RFC 7240); a minute at most."""
    found = re.search(r"(?:^|[,;\s])wait=\"?(\d{1,9})\b", request.headers.get("prefer", ""))
    return min(int(found[1]), LONGEST_WAIT_SECONDS) if found else None


async def verify_poke(request: Request, function: str, body: str) -> None:
    """Refuse a call that neither a fresh poke for this function and body nor the service key signs.

    The service key is accepted because jobs that people write by hand send it.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise _refused("the call carries no poke token", "poke_token_missing")
    if token.startswith("poke."):
        query = "select fleet.worker_verify_poke(%s, %s, %s)"
        good = await fetch_value(request.app.state.pool, query, token, function, body)
    else:
        good = request.app.state.signer.is_service_key(token)
    if not good:
        raise _refused("the poke token is not good for this call", "poke_token_refused")


def _refused(message: str, reason: str) -> NotSignedIn:
    return NotSignedIn(
        message,
        details=reason,
        hint="Only the database calls this function: fleet.poke signs each call anew.",
        headers={"WWW-Authenticate": "Bearer"},
    )
