"""HTTP/1.1 for many devices of one process, at a fraction of what a general client costs.

The general one looks through all of its connections at each request, and has layers for what a
fleet's requests never are. Here idle connections are a stack, of which the latest is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

# As the general client: a server closes what is idle for longer sooner or later.
IDLE_SECONDS = 5.0

_Origin = tuple[str, str, int]


@dataclass(slots=True)
class _Line:
    """One connection to a server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0

    def is_fresh(self, now: float) -> bool:
        """Tell whether it may be used again."""
        closed = self.reader.at_eof() or self.writer.is_closing()
        return not closed and now - self.idle_since < IDLE_SECONDS


@dataclass(slots=True)
class _Head:
    status: int
    headers: list[tuple[bytes, bytes]]
    is_last: bool

    def value(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class LightTransport(httpx.AsyncBaseTransport):
    """Carries requests for an `httpx.AsyncClient`; knows neither proxies nor HTTP/2."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._verify = verify
        self._idle: dict[_Origin, list[_Line]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the whole answer. Raises what httpx raises."""
        body = await request.aread()
        timeouts = request.extensions.get("timeout", {})
        origin = _origin(request.url)
        line = self._take(origin) or await self._open(origin, timeouts.get("connect"))
        try:
            async with asyncio.timeout(timeouts.get("read")):
                line.writer.write(_lines(request) + body)
                await line.writer.drain()
                head, content = await _answer(line.reader, request.method)
        except BaseException as error:
            line.writer.close()
            if isinstance(error, TimeoutError):
                raise httpx.ReadTimeout("no answer in time", request=request) from error
            if isinstance(error, OSError):
                raise httpx.ReadError(str(error), request=request) from error
            if isinstance(error, EOFError | ValueError | asyncio.LimitOverrunError):
                raise httpx.RemoteProtocolError(str(error), request=request) from error
            raise
        if head.is_last:
            line.writer.close()
        else:
            self._give_back(origin, line)
        return httpx.Response(
            head.status, headers=head.headers, stream=httpx.ByteStream(content), request=request
        )

    async def aclose(self) -> None:
        """Close what is open and idle."""
        lines = [line for lines in self._idle.values() for line in lines]
        self._idle.clear()
        for line in lines:
            line.writer.close()
        for line in lines:
            with contextlib.suppress(OSError):
                await line.writer.wait_closed()

    def _take(self, origin: _Origin) -> _Line | None:
        lines, now = self._idle.get(origin, []), time.monotonic()
        while lines:
            line = lines.pop()
            if line.is_fresh(now):
                return line
            line.writer.close()
        return None

    def _give_back(self, origin: _Origin, line: _Line) -> None:
        line.idle_since = time.monotonic()
        lines = self._idle.setdefault(origin, [])
        lines.append(line)
        # Those below are older: two of them for each that comes, and none stays for long.
        for _ in range(2):
            if lines[0].is_fresh(line.idle_since):
                return
            lines.pop(0).writer.close()

    async def _open(self, origin: _Origin, seconds: float | None) -> _Line:
        scheme, host, port = origin
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=self._verify if scheme == "https" else None
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return _Line(reader, writer)


def _origin(url: httpx.URL) -> _Origin:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _lines(request: httpx.Request) -> bytes:
    """Write the first line and the headers."""
    first = b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)
    return b"\r\n".join([first, *(b"%s: %s" % pair for pair in request.headers.raw), b"", b""])


async def _answer(reader: asyncio.StreamReader, method: str) -> tuple[_Head, bytes]:
    head = await _head(reader)
    while head.status < 200:
        # It says that it goes on.
        head = await _head(reader)
    if method == "HEAD" or head.status in (204, 304):
        return head, b""
    if (head.value(b"transfer-encoding") or b"").lower().endswith(b"chunked"):
        return head, b"".join([piece async for piece in _chunks(reader)])
    length = head.value(b"content-length")
    if length is not None:
        return head, await reader.readexactly(int(length))
    head.is_last = True
    return head, await reader.read(-1)


async def _head(reader: asyncio.StreamReader) -> _Head:
    first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError("the answer is no HTTP/1.1")
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise ValueError("a header of the answer has no value")
        headers.append((name, value.strip()))
    head = _Head(int(rest[:3]), headers, is_last=False)
    said = (head.value(b"connection") or b"").lower()
    head.is_last = b"close" in said or (version == b"HTTP/1.0" and b"keep-alive" not in said)
    return head


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]
    # What may follow the last one ends with an empty line.
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
