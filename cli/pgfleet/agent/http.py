"""Answers of the server over HTTP, and which of them are worth another try."""

from __future__ import annotations

from typing import Any

import httpx

from pgfleet.errors import (
    Conflict,
    FleetError,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotSignedIn,
    TooMany,
    Unavailable,
)

# What ends the agent: no retry can make this identity good again.
IDENTITY_REFUSALS = frozenset({"device_secret_unknown", "device_retired"})

_KINDS: dict[int, type[FleetError]] = {
    400: InvalidInput,
    401: NotSignedIn,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    422: InvalidInput,
    429: TooMany,
}


class IdentityRefused(NotSignedIn):
    """The server no longer knows this device's secret, or the device was retired."""


def refusal(status: int, code: str | None, message: str | None, **more: str | None) -> FleetError:
    """Give an HTTP refusal its place in the tree of errors."""
    details, hint = more.get("details"), more.get("hint")
    kind = _KINDS.get(status, Unavailable if status >= 500 or status == 408 else InvalidInput)
    if details in IDENTITY_REFUSALS:
        kind = IdentityRefused
    error = kind(
        message or f"the server answered {status}", reason=details or code or None, hint=hint
    )
    error.status_code = status
    return error


def is_transient(error: FleetError) -> bool:
    """Tell whether the same request may succeed later."""
    return isinstance(error, Unavailable | TooMany) or error.status_code >= 500


async def post_json(
    http: httpx.AsyncClient, url: str, body: dict[str, Any], *, anon_key: str
) -> dict[str, Any]:
    """Send a request to one of the fleet's functions and give its JSON object."""
    try:
        response = await http.post(url, json=body, headers={"apikey": anon_key})
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"message": f"the server answered {response.status_code} without JSON"}
        if response.is_success:
            raise refusal(502, None, answer["message"])
    if response.is_success:
        return answer
    raise refusal(
        response.status_code,
        _text(answer.get("code")),
        _text(answer.get("message")),
        details=_text(answer.get("details")),
        hint=_text(answer.get("hint")),
    )


def unreachable(url: str, error: Exception) -> Unavailable:
    """Say that no answer came, without the query, which may hold a key."""
    address = httpx.URL(url)
    return Unavailable(
        f"no answer from {address.scheme}://{address.netloc.decode()}{address.path}: "
        f"{type(error).__name__}{f' ({error})' if str(error) else ''}",
        reason="server_unreachable",
        hint="Check the network and --url.",
    )


def make_client(timeout: float, connections: int = 100) -> httpx.AsyncClient:
    """Make the HTTP client that all devices of one process share."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(timeout=timeout, limits=limits)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
