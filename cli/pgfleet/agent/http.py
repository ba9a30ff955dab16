"""Answers of the server over HTTP, and which of them are worth another try."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, NoReturn
from urllib.request import getproxies

import httpx

from pgfleet.agent.transport import LightTransport
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

DEVICES_A_CLIENT = 10

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


class Moved(Unavailable):
    """The fleet of this device lives on another platform; the answer says where."""

    def __init__(self, message: str, place: dict[str, Any], signature: str) -> None:
        super().__init__(message, reason="owner_moved")
        self.place = place
        self.signature = signature


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
    """Send a request to one of the fleet's functions and give its JSON object.

    Only what has the form of our answers is one of ours; anything else, whatever its status,
    was said by something in between, and may be different the next time.
    """
    try:
        response = await http.post(url, json=body, headers={"apikey": anon_key})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise unreachable(url, error) from error
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return answer
    if response.status_code < 400 or not is_refusal(answer):
        raise not_ours(url, response.status_code, response.text)
    place = answer.get("moved_to")
    if answer.get("details") == "owner_moved" and isinstance(place, dict):
        raise Moved(str(answer["message"]), place, str(answer.get("signature", "")))
    _refuse(response.status_code, answer)


def is_refusal(answer: object) -> bool:
    """Tell whether JSON has the form in which our functions and REST refuse."""
    return (
        isinstance(answer, dict)
        and isinstance(answer.get("message"), str)
        and any(answer.get(name) for name in ("code", "details", "hint"))
    )


def not_ours(what: str, status: int | None, said: str) -> Unavailable:
    """Say that somebody else answered, as a network's login page does."""
    words = " ".join(said.split())[:100]
    answered = "the answer" if status is None else f"{status} as the answer"
    return Unavailable(
        f"{answered} to {what} is not what the server would say: {words!r}",
        reason="answer_not_understood",
        hint="Check --url, and whether something stands between this device and its server.",
    )


def _refuse(status: int, answer: dict[str, Any]) -> NoReturn:
    raise refusal(
        status,
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


def make_client(timeout: float, verify: ssl.SSLContext | bool = True) -> httpx.AsyncClient:
    """Make the HTTP client that some devices of one process share."""
    with _readable_no_proxy():
        return httpx.AsyncClient(timeout=timeout, verify=verify)


@asynccontextmanager
async def make_clients(timeout: float, devices: int) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Make clients for so many devices, and close them at the end.

    Many devices share one with a light transport; where a proxy is set, which that does not know,
    each serves a few: the general transport looks through all of its connections at each request.
    """
    async with AsyncExitStack() as stack:
        # What to trust is read once; that takes far longer than all the rest.
        context = httpx.create_ssl_context()
        if _share_a_light_one(devices):
            light = httpx.AsyncClient(timeout=timeout, transport=LightTransport(context))
            yield [await stack.enter_async_context(light)]
            return
        clients = [make_client(timeout, context) for _ in range(-(-devices // DEVICES_A_CLIENT))]
        for client in clients:
            await stack.enter_async_context(client)
        yield clients


def loop_factory(devices: int) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Choose a loop that takes less for many devices, where the local platform has brought it.

    Only for the light transport: there the general one has no connection to speak of where one
    was reset at once, and raises what is no error of HTTP.
    """
    if not _share_a_light_one(devices):
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _share_a_light_one(devices: int) -> bool:
    return devices > 1 and not getproxies()


@contextmanager
def _readable_no_proxy() -> Iterator[None]:
    """Let NO_PROXY be what the client can read: it takes IPv6 addresses without brackets only."""
    before = {name: os.environ[name] for name in ("NO_PROXY", "no_proxy") if name in os.environ}
    for name, text in before.items():
        hosts = (host.strip() for host in text.split(","))
        os.environ[name] = ",".join(
            readable for host in hosts if (readable := _without_brackets(host)) is not None
        )
    try:
        yield
    finally:
        os.environ.update(before)


def _without_brackets(host: str) -> str | None:
    """Give an entry of NO_PROXY as the client reads it; None where it means nothing to it."""
    if host.count(":") < 2 or "://" in host:
        return host
    address = host.removeprefix("[").partition("]")[0]
    try:
        return str(ipaddress.IPv6Address(address))
    except ValueError:
        # A network, which the client cannot compare with.
        return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
