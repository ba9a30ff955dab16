"""The light transport of many devices: what it reads, which connections it keeps, how it fails."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.helpers.resetting import resetting

from pgfleet.agent.http import loop_factory, make_clients, post_json
from pgfleet.agent.transport import LightTransport
from pgfleet.errors import Unavailable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let a test be a coroutine."""

    @functools.wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[str]:
    """Serve what a test says on a port of its own; at the end nobody is connected any more."""
    talks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (EOFError, OSError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.create_task(serve(reader, writer)))

    found = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with found:
        yield f"http://127.0.0.1:{found.sockets[0].getsockname()[1]}/"
    await asyncio.gather(*talks)


@asynccontextmanager
async def client(timeout: float = 60.0) -> AsyncIterator[httpx.AsyncClient]:
    transport = LightTransport(ssl.create_default_context())
    async with httpx.AsyncClient(timeout=timeout, transport=transport) as found:
        yield found


async def request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
    return head + await reader.readexactly(length)


def answering(*answers: bytes, heard: list[bytes] | None = None) -> Talk:
    """Answer so many requests on one connection, then end it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            told = await request(reader)
            if heard is not None:
                heard.append(told)
            writer.write(answer)
        await writer.drain()
        writer.close()

    return talk


@pytest.mark.parametrize(
    ("answer", "status", "content"),
    [
        (PLAIN, 200, b"[]"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, 200, b"[]"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", 200, b"until the end"),
        (
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;why=not\r\nabc\r\n2\r\nde\r\n0\r\nTold: after\r\n\r\n",
            404,
            b"abcde",
        ),
    ],
)
@in_a_loop
async def test_an_answer_is_read_whole(answer: bytes, status: int, content: bytes) -> None:
    async with server(answering(answer)) as url, client() as http:
        found = await http.post(url, json={"a": 1}, headers={"apikey": "key"})
    assert (found.status_code, found.content) == (status, content)


@in_a_loop
async def test_a_connection_is_used_again_and_one_that_ended_is_not() -> None:
    heard: list[bytes] = []
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(PLAIN, PLAIN, heard=heard)(reader, writer)

    async with server(talk) as url, client() as http:
        for number in range(4):
            assert (await http.post(url, json=number)).json() == []
            # The end of the first connection is there to be seen.
            await asyncio.sleep(0.05)
    assert connections == 2
    assert [told.rpartition(b"\r\n\r\n")[2] for told in heard] == [b"0", b"1", b"2", b"3"]
    assert heard[0].startswith(b"POST / HTTP/1.1\r\n")


@in_a_loop
async def test_requests_at_once_have_connections_of_their_own() -> None:
    async with server(answering(PLAIN)) as url, client() as http:
        found = await asyncio.gather(*(http.get(url) for _ in range(20)))
    assert [answer.content for answer in found] == [b"[]"] * 20


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
@in_a_loop
async def test_what_is_no_answer_is_an_error_of_the_transport(answer: bytes) -> None:
    async with server(answering(answer)) as url, client() as http:
        with pytest.raises(httpx.TransportError):
            await http.get(url)


@in_a_loop
async def test_who_does_not_answer_is_left() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    async with server(silent) as url, client(timeout=0.2) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get(url)


@in_a_loop
async def test_nobody_there_is_a_refused_connection() -> None:
    async with server(answering()) as url:
        pass
    async with client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


@pytest.mark.parametrize(("proxy", "count"), [(None, 1), ("http://127.0.0.1:9", 3)])
@in_a_loop
async def test_where_a_proxy_is_set_the_general_client_is_used(
    monkeypatch: pytest.MonkeyPatch, proxy: str | None, count: int
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    if proxy is not None:
        monkeypatch.setenv("HTTP_PROXY", proxy)
    async with make_clients(5.0, 30) as clients:
        found: list[Any] = list(clients)
    assert len(found) == count


@pytest.mark.parametrize("devices", [1, 3], ids=["one", "many"])
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
def test_a_server_that_resets_is_one_that_does_not_answer_on_whatever_loop_that_is_chosen(
    monkeypatch: pytest.MonkeyPatch, devices: int, proxied: bool
) -> None:
    async def run(url: str) -> list[Any]:
        async with make_clients(5.0, devices) as clients:
            calls = [post_json(clients[0], url, {}, anon_key="x") for _ in range(100)]
            return await asyncio.gather(*calls, return_exceptions=True)

    with resetting() as url:
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
        with asyncio.Runner(loop_factory=loop_factory(devices)) as runner:
            failed = runner.run(run(url))
    assert {type(one) for one in failed} == {Unavailable}
