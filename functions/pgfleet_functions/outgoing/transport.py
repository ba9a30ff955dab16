"""The way out: to addresses that were looked at, so that an integration opens no inner network."""

from __future__ import annotations

import httpx

from pgfleet_functions.notify.webhook import USER_AGENT
from pgfleet_functions.outgoing.addresses import AddressRefused, addresses_of

TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class CheckedTransport(httpx.AsyncBaseTransport):
    """Connect to just the addresses that were checked; of one integration only."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; raises AddressRefused, AddressUnknown, or what httpx raises."""
        url = request.url
        if url.scheme != "https" and not (self._allow_private and url.scheme == "http"):
            raise AddressRefused("only https:// addresses are allowed")
        host = url.raw_host.decode("ascii").strip("[]")
        port = url.port or (443 if url.scheme == "https" else 80)
        address, *_ = await addresses_of(host, port, allow_private=self._allow_private)
        extensions = dict(request.extensions)
        if url.scheme == "https":
            extensions["sni_hostname"] = host
        # The Host header was set from the name; certificate and virtual host are of the name.
        return await self._inner.handle_async_request(
            httpx.Request(
                request.method,
                url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def make_client(*, allow_private: bool) -> httpx.AsyncClient:
    """Return a client for one integration: no proxy of the environment, no redirects."""
    return httpx.AsyncClient(
        transport=CheckedTransport(allow_private=allow_private),
        timeout=TIMEOUT,
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
    )
