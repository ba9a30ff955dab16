"""Routes that only the database may call: it says that there is work, and signs that it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import NotSignedIn
from pgfleet_functions.http import parse_object, read_text

PokeHandler = Callable[[Request, dict[str, Any]], Awaitable[Response]]


def poked_route(function: str, handler: PokeHandler) -> Route:
    """Return `POST /<function>`, which verifies the poke and hands its body to the handler."""

    async def endpoint(request: Request) -> Response:
        text = await read_text(request)
        await verify_poke(request, function, text)
        return await handler(request, parse_object(text))

    return Route(f"/{function}", endpoint, methods=["POST"])


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
