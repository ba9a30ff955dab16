"""The one way out: to addresses that were looked at, within a time, for an answer of some size.

Whoever gives an address (the receiver of a webhook, an MDM) may mean harm. So nothing is kept from
one call to the next but connections, each of which was opened for its own name: no cookie, no
redirect, no proxy of the environment.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import httpcore
import httpx

from pgfleet_functions.outgoing.addresses import addresses_of
from pgfleet_functions.outgoing.answers import Answer, read_body
from pgfleet_functions.outgoing.errors import (
    AddressRefused,
    AddressUnknown,
    NoAnswer,
    NotConnected,
    OutgoingError,
    TooSlow,
)

USER_AGENT = f"pgfleet/{version('pgfleet')}"
CONNECT_SECONDS = 5.0
MOST_ADDRESSES = 3
# Short: whoever closes an idle connection at that moment takes a call with it.
IDLE_SECONDS = 5.0
MOST_IDLE = 64
# A name server that never answers holds a thread for longer than any call lasts.
MOST_LOOK_UPS = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may take."""

    # From the look-up of the name to the last byte of the answer.
    seconds: float
    # Of the unpacked body; None leaves it unread.
    body_bytes: int | None = None


def trusted_authorities() -> ssl.SSLContext:
    """Return whom to trust: the public authorities, or those that SSL_CERT_FILE names."""
    return httpx.create_ssl_context()


class Outgoing:
    """Calls other systems; made once for a process, and closed with it."""

    def __init__(self, authorities: ssl.SSLContext | None = None) -> None:
        context = authorities or trusted_authorities()
        self._resolvers = ThreadPoolExecutor(MOST_LOOK_UPS, thread_name_prefix="look-up")
        # Two, so that no call which may not go there finds a connection to a private address.
        self._pools = {
            allow_private: httpcore.AsyncConnectionPool(
                ssl_context=context,
                # Who may have how many at once is for those who call to say.
                max_connections=None,
                max_keepalive_connections=MOST_IDLE,
                keepalive_expiry=IDLE_SECONDS,
                network_backend=CheckedNetwork(self._resolvers, allow_private=allow_private),
            )
            for allow_private in (False, True)
        }

    async def call(
        self, request: httpx.Request, limits: Limits, *, allow_private: bool = False
    ) -> Answer:
        """Send a request and give the answer, whatever its status; a redirect is an answer too.

        Without `allow_private` only https:// and public addresses are called. Raises
        `OutgoingError`.
        """
        if request.url.scheme != "https" and not (allow_private and request.url.scheme == "http"):
            raise AddressRefused("only https:// addresses are allowed")
        asked_at = datetime.now(UTC)
        sent = _as_sent(request)
        try:
            async with asyncio.timeout(limits.seconds):
                async with _answering(self._pools[allow_private], sent) as response:
                    headers = httpx.Headers(response.headers)
                    body = b""
                    if limits.body_bytes is not None:
                        encoding = headers.get("content-encoding", "")
                        chunks = response.aiter_stream()
                        body = await read_body(chunks, encoding, limits.body_bytes)
        except TimeoutError as error:
            raise TooSlow(f"no answer within {limits.seconds:.0f} seconds", reached=True) from error
        return Answer(response.status, headers, body, asked_at)

    async def aclose(self) -> None:
        """Close the connections; look-ups that nobody waits for any more end by themselves."""
        for pool in self._pools.values():
            await pool.aclose()
        self._resolvers.shutdown(wait=False, cancel_futures=True)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to just the addresses that were checked, so that no name changes in between."""

    def __init__(self, resolvers: Executor, *, allow_private: bool) -> None:
        self._resolvers = resolvers
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Try the addresses of the host in turn until one can be connected to."""
        addresses = await addresses_of(
            host, port, allow_private=self._allow_private, resolvers=self._resolvers
        )
        failure: Exception = AddressUnknown(f"the host {host} has no address")
        for address in addresses[:MOST_ADDRESSES]:
            try:
                stream = await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
                # One that was reset at once has no socket any more on uvloop: asking raises.
                stream.get_extra_info("server_addr")
                return stream
            except AttributeError:
                failure = httpcore.ConnectError("the connection was reset at once")
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait, as the pool asks for."""
        await asyncio.sleep(seconds)


def _as_sent(request: httpx.Request) -> httpcore.Request:
    """Give the request as it goes over the wire, as ours and without what is not needed."""
    url = request.url
    headers = httpx.Headers({"User-Agent": USER_AGENT, "Accept": "*/*"})
    headers.update(request.headers)
    headers["Accept-Encoding"] = "gzip"
    if url.userinfo and "authorization" not in headers:
        known = f"{url.username}:{url.password}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(known).decode()}"
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=headers.raw,
        content=request.stream,
        # Each step has less than the whole, which is seen to above.
        extensions={"timeout": {"connect": CONNECT_SECONDS}},
    )


@asynccontextmanager
async def _answering(
    pool: httpcore.AsyncConnectionPool, request: httpcore.Request
) -> AsyncIterator[httpcore.Response]:
    """Give the answer while it is read; raises `OutgoingError` for what httpcore reports."""
    try:
        response = await pool.handle_async_request(request)
        try:
            yield response
        finally:
            await response.aclose()
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        raise NotConnected(_words(error)) from error
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise NoAnswer(_words(error), reached=True) from error
    except OutgoingError:
        raise
    except (OSError, ValueError) as error:
        # A host that no certificate can be of, an address of a family that is not here.
        raise NoAnswer(_words(error), reached=True) from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:500]
