"""One attempt to deliver a webhook: a signed POST to an address that was checked."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Literal

import httpx

from pgfleet_functions.outgoing.addresses import AddressRefused, AddressUnknown, addresses_of

TOTAL_SECONDS = 20.0
TIMEOUT = httpx.Timeout(15.0, connect=5.0)
MOST_ADDRESSES = 3
USER_AGENT = f"pgfleet/{version('pgfleet')}"

Kind = Literal["delivered", "retry", "refused", "gone"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message under a lease; the headers carry its signature for this attempt."""

    delivery_id: int
    attempt: int
    event: str
    event_id: str
    channel: str
    url: str | None
    email: str | None
    headers: dict[str, str] | None
    body: str
    allow_private: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: delivered, to be tried again, or never to be tried again."""

    kind: Kind
    status: int | None = None
    error: str | None = None
    retry_after: int | None = None


def trusted_authorities() -> ssl.SSLContext:
    """Return whom to trust: the public authorities, or those that SSL_CERT_FILE names."""
    return httpx.create_ssl_context()


def make_client(authorities: ssl.SSLContext) -> httpx.AsyncClient:
    """Return a client that goes straight to an address, and never to another one.

    No proxy of the environment, no redirect, and no connection twice: two hosts behind one
    address must not share one that was opened for the other's name.
    """
    return httpx.AsyncClient(
        verify=authorities,
        trust_env=False,
        follow_redirects=False,
        timeout=TIMEOUT,
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def deliver_webhook(client: httpx.AsyncClient, delivery: Delivery) -> Outcome:
    """Post the message and tell how it went; it never raises for what a receiver does."""
    try:
        url = httpx.URL(delivery.url or "")
    except httpx.InvalidURL as error:
        return Outcome("refused", error=f"the address cannot be used: {error}")
    if url.scheme != "https" and not (delivery.allow_private and url.scheme == "http"):
        return Outcome("refused", error="only https:// addresses are allowed")
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            return await _post_to(client, delivery, url)
    except AddressRefused as error:
        return Outcome("refused", error=str(error))
    except AddressUnknown as error:
        return Outcome("retry", error=str(error))
    except TimeoutError:
        return Outcome("retry", error=f"no answer within {TOTAL_SECONDS:.0f} seconds")
    except httpx.TimeoutException as error:
        return Outcome("retry", error=f"timed out: {type(error).__name__}")
    except httpx.HTTPError as error:
        return Outcome("retry", error=f"{type(error).__name__}: {error}")


async def _post_to(client: httpx.AsyncClient, delivery: Delivery, url: httpx.URL) -> Outcome:
    """Try the addresses of the host in turn until one can be connected to."""
    host = url.raw_host.decode("ascii").strip("[]")
    port = url.port or (443 if url.scheme == "https" else 80)
    addresses = await addresses_of(host, port, allow_private=delivery.allow_private)
    failure: httpx.HTTPError | None = None
    for address in addresses[:MOST_ADDRESSES]:
        try:
            return await _post(client, delivery, url, address)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = error
    raise failure or AddressUnknown(f"the host {host} has no address")


async def _post(
    client: httpx.AsyncClient, delivery: Delivery, url: httpx.URL, address: str
) -> Outcome:
    headers = {
        "Host": url.netloc.decode("ascii"),
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        **(delivery.headers or {}),
    }
    # The connection is to the address; certificate and virtual host are of the name.
    extensions: dict[str, Any] = {}
    if url.scheme == "https":
        extensions["sni_hostname"] = url.raw_host.decode("ascii").strip("[]")
    async with client.stream(
        "POST",
        url.copy_with(host=address),
        content=delivery.body.encode(),
        headers=headers,
        extensions=extensions,
    ) as response:
        # What a receiver writes is not read: it may be long, and is of no use here.
        return outcome_of(response.status_code, response.headers.get("retry-after"))


def outcome_of(status: int, retry_after: str | None = None) -> Outcome:
    """Judge an answer as Standard Webhooks says: 2xx is success, 410 means stop."""
    if 200 <= status < 300:
        return Outcome("delivered", status)
    if status == 410:
        return Outcome("gone", status, "the receiver wants no more messages (410)")
    if 300 <= status < 400:
        return Outcome("retry", status, f"answered {status}: redirects are not followed")
    return Outcome("retry", status, f"answered {status}", seconds_of(retry_after))


def seconds_of(retry_after: str | None) -> int | None:
    """Read a Retry-After header: seconds, or a date."""
    if not retry_after:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return min(int(text), 86_400)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0, min(int(then.timestamp() - time.time()), 86_400))
