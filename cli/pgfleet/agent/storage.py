"""Bytes of the fleet's storage, by addresses that end by themselves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from pgfleet.agent.client import DeviceClient
from pgfleet.agent.handlers.interface import ObjectBody
from pgfleet.agent.http import make_client, refusal, unreachable
from pgfleet.agent.settings import AgentSettings
from pgfleet.errors import Unavailable

# Long enough to begin; what is cut asks for another one.
_SIGNED_SECONDS = 300
# Of the hour for which the server signs.
_ADDRESS_SECONDS = 45 * 60
_PATIENCE = 60.0
_CHUNK = 256 * 1024


class DeployServer:
    """What handlers ask their server for, on behalf of one device."""

    def __init__(self, client: DeviceClient) -> None:
        self._client = client
        self._addresses: dict[str, str] = {}
        self._command_id = 0
        self._signed_at = 0.0

    async def manifest(self, command_id: int) -> dict[str, Any]:
        """Say what a command deploys."""
        found = await self._client.manifest(command_id)
        given = found.get("addresses")
        self._addresses = given if isinstance(given, dict) else {}
        self._command_id, self._signed_at = command_id, time.monotonic()
        return found

    async def blocklist(self, kind: str) -> dict[str, Any]:
        """Say what this device is to block."""
        return await self._client.blocklist(kind)

    async def tell(self, facts: dict[str, Any]) -> None:
        """Take facts about this device."""
        await self._client.checkin(facts)

    @asynccontextmanager
    async def open_object(self, bucket: str, path: str, offset: int) -> AsyncIterator[ObjectBody]:
        """Open an object from a byte on, by an address signed for this device."""
        if path in self._addresses:
            if time.monotonic() - self._signed_at > _ADDRESS_SECONDS:
                await self.manifest(self._command_id)
            url = str(self._addresses.get(path))
            # Without what the project knows this device by: it is another's storage.
            async with make_client(_PATIENCE) as http, _stream(http, url, offset) as body:
                yield body
            return
        token = await self._client.token()
        async with _open_object(
            self._client.http, self._client.settings, token.value, bucket, path, offset
        ) as body:
            yield body


@asynccontextmanager
async def _open_object(
    http: httpx.AsyncClient,
    settings: AgentSettings,
    token: str,
    bucket: str,
    path: str,
    offset: int,
) -> AsyncIterator[ObjectBody]:
    """Open an object from a byte on; it begins at 0 where the storage knows no ranges.

    Raises FleetError, also while the bytes come.
    """
    base = f"{settings.url}/storage/v1"
    name = f"{quote(bucket)}/{quote(path)}"
    answer = await _sign(http, f"{base}/object/sign/{name}", settings.anon_key, token)
    signed = answer.get("signedURL")
    if not isinstance(signed, str) or not signed.startswith("/object/sign/"):
        raise Unavailable("the storage gave no address for a file", reason="answer_not_understood")
    async with _stream(http, f"{base}{signed}", offset) as body:
        yield body


@asynccontextmanager
async def _stream(http: httpx.AsyncClient, url: str, offset: int) -> AsyncIterator[ObjectBody]:
    """Read an address from a byte on."""
    # A range of something compressed on the way would be a range of something else.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        async with http.stream("GET", url, headers=headers) as response:
            if response.status_code == 416:
                # What is here is longer than what is there: from the beginning.
                yield ObjectBody(-1, _nothing())
                return
            if not response.is_success:
                raise refusal(response.status_code, None, "the storage did not send the file")
            yield ObjectBody(_start(response, offset), response.aiter_raw(_CHUNK))
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error
    except httpx.InvalidURL as error:
        raise Unavailable(
            "the server gave an address that is none", reason="answer_not_understood"
        ) from error


async def _sign(http: httpx.AsyncClient, url: str, anon_key: str, token: str) -> dict[str, Any]:
    headers = {"apikey": anon_key, "authorization": f"Bearer {token}"}
    try:
        response = await http.post(url, json={"expiresIn": _SIGNED_SECONDS}, headers=headers)
        answer = response.json() if response.is_success else {}
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error
    except ValueError:
        answer = {}
    if not response.is_success:
        raise refusal(
            response.status_code, None, f"the storage refuses the file ({response.status_code})"
        )
    return answer if isinstance(answer, dict) else {}


def _start(response: httpx.Response, offset: int) -> int:
    if response.status_code != 206:
        return 0
    unit, _, rest = response.headers.get("content-range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() else offset


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
